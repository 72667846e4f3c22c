// The CUDA runtime as the rest of this folder uses it: every status checked, all memory owned, all launches in one place.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <new>
#include <source_location>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace cuda {

// What a call of the runtime said, and where it was called.
class Error : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

// Python's MemoryError; the message says how many bytes were asked for.
class OutOfMemory : public std::bad_alloc {
  public:
    explicit OutOfMemory(std::string message) : message_(std::move(message)) {}
    const char* what() const noexcept override { return message_.c_str(); }

  private:
    std::string message_;
};

inline std::string message_of(cudaError_t status, const std::source_location& where) {
    return std::string(cudaGetErrorString(status)) + " (" + cudaGetErrorName(status) + ", at " + where.file_name() + ":" +
           std::to_string(where.line()) + ")";
}

inline void check(cudaError_t status, const std::source_location& where = std::source_location::current()) {
    if (status == cudaSuccess) { return; }
    static_cast<void>(cudaGetLastError());  // or the next call would be told of it
    throw Error(message_of(status, where));
}

// Makes a device the current one, and then the one before it again.
class DeviceGuard {
  public:
    explicit DeviceGuard(int device) {
        check(cudaGetDevice(&before_));
        check(cudaSetDevice(device));
    }
    DeviceGuard(const DeviceGuard&) = delete;
    DeviceGuard& operator=(const DeviceGuard&) = delete;
    ~DeviceGuard() { static_cast<void>(cudaSetDevice(before_)); }

  private:
    int before_ = 0;
};

// Where memory is: on the current device, or the host's, mapped into the device's address space.
enum class Home { kDevice, kHost };

// n values.
template <class T>
class Array {
  public:
    Array() noexcept = default;
    explicit Array(std::size_t n, Home home = Home::kDevice,
                   const std::source_location& where = std::source_location::current())
        : size_(n), home_(home) {
        if (n == 0) { return; }
        void* data = nullptr;
        const std::size_t n_bytes = n * sizeof(T);
        const cudaError_t status = home == Home::kDevice ? cudaMalloc(&data, n_bytes)
                                                         : cudaHostAlloc(&data, n_bytes, cudaHostAllocMapped);
        if (status == cudaErrorMemoryAllocation) {
            static_cast<void>(cudaGetLastError());
            throw OutOfMemory("mining needs " + std::to_string(n_bytes) + " more bytes of " +
                              (home == Home::kDevice ? "the device's" : "pinned") + " memory; " + message_of(status, where));
        }
        check(status, where);
        data_ = static_cast<T*>(data);
    }
    Array(const Array&) = delete;
    Array& operator=(const Array&) = delete;
    Array(Array&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)), home_(other.home_) {}
    Array& operator=(Array&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        std::swap(home_, other.home_);
        return *this;
    }
    ~Array() {
        if (data_ == nullptr) { return; }
        static_cast<void>(home_ == Home::kDevice ? cudaFree(data_) : cudaFreeHost(data_));
    }

    T* data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }

  private:
    T* data_ = nullptr;
    std::size_t size_ = 0;
    Home home_ = Home::kDevice;
};

// Memory that outlives a call, as core::Buffer: grown when needed, and its contents are what the last user left.
template <class T>
class Buffer {
  public:
    // Where more is needed than there was, it comes from this home.
    T* take(std::size_t n, Home home = Home::kDevice,
            const std::source_location& where = std::source_location::current()) {
        if (n > array_.size()) {
            array_ = {};  // before there is more, so that both need not fit
            array_ = Array<T>(n, home, where);
        }
        return array_.data();
    }
    T* data() const noexcept { return array_.data(); }
    std::size_t size() const noexcept { return array_.size(); }

  private:
    Array<T> array_;
};

template <class T>
void upload(T* to, std::span<const T> from, cudaStream_t stream,
            const std::source_location& where = std::source_location::current()) {
    if (from.empty()) { return; }
    check(cudaMemcpyAsync(to, from.data(), from.size_bytes(), cudaMemcpyHostToDevice, stream), where);
}

// Waits for what the stream has to do, too.
template <class T>
void download(std::span<T> to, const T* from, cudaStream_t stream,
              const std::source_location& where = std::source_location::current()) {
    if (!to.empty()) { check(cudaMemcpyAsync(to.data(), from, to.size_bytes(), cudaMemcpyDeviceToHost, stream), where); }
    check(cudaStreamSynchronize(stream), where);
}

template <class T>
T download_one(const T* from, cudaStream_t stream, const std::source_location& where = std::source_location::current()) {
    T value{};
    download(std::span<T>(&value, 1), from, stream, where);
    return value;
}

// Starts a kernel on blocks of n_threads; none where there are no blocks.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 n_blocks, unsigned n_threads, cudaStream_t stream, Arguments&&... arguments) {
    if (n_blocks.x == 0 || n_blocks.y == 0) { return; }
    cudaLaunchConfig_t config = {};
    config.gridDim = n_blocks;
    config.blockDim = dim3(n_threads);
    config.stream = stream;
    check(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...));
}

}  // namespace cuda
