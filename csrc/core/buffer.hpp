// Memory that outlives a call: grown when needed, never shrunk or cleared, aligned for any vector register.
#pragma once

#include <cstddef>
#include <new>
#include <span>
#include <utility>
#include <vector>

namespace core {

inline constexpr std::size_t kAlignment = 64;

template <class T>
class Buffer {
  public:
    Buffer() noexcept = default;
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    Buffer(Buffer&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), capacity_(std::exchange(other.capacity_, 0)) {}
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(capacity_, other.capacity_);
        return *this;
    }
    ~Buffer() { release(); }

    // Room for n values, whose contents are what the last user left or nothing at all.
    std::span<T> take(std::size_t n) {
        if (n > capacity_) {
            release();
            data_ = static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t{kAlignment}));
            capacity_ = n;
        }
        return {data_, n};
    }

    // What was taken.
    T* data() const noexcept { return data_; }

  private:
    void release() noexcept {
        ::operator delete(data_, std::align_val_t{kAlignment});
        data_ = nullptr;
        capacity_ = 0;
    }

    T* data_ = nullptr;
    std::size_t capacity_ = 0;
};

// The first n_threads of what threads have of their own, made where there are fewer.
template <class Memory>
std::span<Memory> first_of(std::vector<Memory>& by_thread, int n_threads) {
    const auto n = static_cast<std::size_t>(n_threads);
    if (by_thread.size() < n) { by_thread.resize(n); }
    return std::span(by_thread).first(n);
}

}  // namespace core
