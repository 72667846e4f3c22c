// Somebody's array on a CUDA device, looked into where it lies: by DLPack, or else by the CUDA array interface.
// https://data-apis.org/array-api/latest/design_topics/data_interchange.html
// https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "../cuda/runtime.hpp"
#include "arguments.hpp"
#include "dlpack.hpp"

namespace bindings {

class DeviceView {
  public:
    explicit DeviceView(const py::object& values) {
        if (const auto device = device_by_dlpack(values)) { take_dlpack(values, *device); }
        else if (py::hasattr(values, "__cuda_array_interface__")) { take_interface(values); }
        else {
            throw py::type_error("an array on a CUDA device must have __dlpack__ or __cuda_array_interface__; got " +
                                 py::str(py::type::of(values).attr("__name__")).cast<std::string>());
        }
    }
    DeviceView(const DeviceView&) = delete;
    DeviceView& operator=(const DeviceView&) = delete;

    const std::vector<py::ssize_t>& shape() const noexcept { return shape_; }
    int device() const noexcept { return device_; }
    // What has to be done before the values are there is on this stream.
    cudaStream_t stream() const noexcept { return stream_; }

    std::string dtype() const { return is_bfloat16_ ? "bfloat16" : dtype_.attr("name").cast<std::string>(); }

    // Whether the miner can read it where it lies.
    bool can_be_mined() const {
        const bool is_float = dtype_.kind() == 'f' && (dtype_.itemsize() == 4 || dtype_.itemsize() == 8);
        const bool is_aligned = reinterpret_cast<std::uintptr_t>(data_) % static_cast<std::size_t>(dtype_.itemsize()) == 0;
        return is_float && dtype_.attr("isnative").cast<bool>() && is_aligned && shape_.size() == 2 &&
               shape_[0] <= std::numeric_limits<std::int32_t>::max() && is_c_contiguous();
    }

    Matrix matrix() const {
        if (!can_be_mined()) {
            throw py::value_error("embeddings must be an aligned, C-contiguous float32 or float64 matrix; got " + dtype() +
                                  " of shape " + py::str(py::tuple(py::cast(shape_))).cast<std::string>() + " and strides " +
                                  py::str(py::tuple(py::cast(strides_))).cast<std::string>());
        }
        const auto n = static_cast<std::size_t>(shape_[0]), size = static_cast<std::size_t>(shape_[1]);
        if (dtype_.itemsize() == 4) { return {reinterpret_cast<const float*>(data_), n, size}; }
        return {reinterpret_cast<const double*>(data_), n, size};
    }

    // The values on the host, laid out as they are here; numpy has no bfloat16, which becomes float32.
    py::array to_numpy() const {
        // All bytes from the first to the last that is one of the values: strides may leave some out, or be negative.
        py::ssize_t below = 0, above = dtype_.itemsize();
        for (std::size_t axis = 0; axis < shape_.size(); ++axis) {
            if (shape_[axis] == 0) { return widened(py::array(dtype_, shape_)); }
            const py::ssize_t reach = (shape_[axis] - 1) * strides_[axis];
            (reach < 0 ? below : above) += reach;
        }
        Array<std::uint8_t> bytes(above - below);
        const std::span to(bytes.mutable_data(), static_cast<std::size_t>(bytes.size()));
        const auto* from = reinterpret_cast<const std::uint8_t*>(data_) + below;
        {
            const py::gil_scoped_release release;
            const cuda::DeviceGuard guard(device_);
            cuda::download(to, from, stream_);
        }
        return widened(py::array(dtype_, shape_, strides_, to.data() - below, bytes));
    }

  private:
    static std::optional<int> device_by_dlpack(const py::object& values) {
        if (!py::hasattr(values, "__dlpack__") || !py::hasattr(values, "__dlpack_device__")) { return std::nullopt; }
        const auto [type, device] = values.attr("__dlpack_device__")().cast<std::pair<std::int32_t, std::int32_t>>();
        return type == dlpack::kCuda || type == dlpack::kCudaManaged ? std::optional(device) : std::nullopt;
    }

    // Stream 1 is the legacy default stream, which the producer makes wait for the values. TensorFlow refuses to be told one,
    // and waits for its device itself.
    static py::object capsule_of(const py::object& values) {
        try {
            return values.attr("__dlpack__")(py::arg("stream") = 1);
        } catch (const py::error_already_set&) {
            return values.attr("__dlpack__")(py::arg("stream") = py::none());
        }
    }

    void take_dlpack(const py::object& values, int device) {
        const cuda::DeviceGuard guard(device);  // PyTorch hands over what is on its current device
        const py::object capsule = capsule_of(values);
        stream_ = cudaStreamLegacy;
        auto* managed = static_cast<dlpack::DLManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), dlpack::kFresh));
        if (managed == nullptr || PyCapsule_SetName(capsule.ptr(), dlpack::kUsed) != 0) { throw py::error_already_set(); }
        managed_.reset(managed);
        const dlpack::DLTensor& tensor = managed->dl_tensor;
        device_ = tensor.device.device_id;
        data_ = static_cast<const std::byte*>(tensor.data) + tensor.byte_offset;
        set_dtype(tensor.dtype);
        shape_.assign(tensor.shape, tensor.shape + tensor.ndim);
        set_c_strides();
        for (std::size_t axis = 0; tensor.strides != nullptr && axis < shape_.size(); ++axis) {
            strides_[axis] = static_cast<py::ssize_t>(tensor.strides[axis]) * dtype_.itemsize();
        }
    }

    void take_interface(const py::object& values) {
        const py::dict interface = values.attr("__cuda_array_interface__");
        const auto get = [&interface](const char* name) { return py::object(interface.attr("get")(name, py::none())); };
        if (!get("mask").is_none()) { throw py::value_error("an array on a CUDA device must have no mask; got one"); }
        owner_ = values;
        dtype_ = py::dtype(interface["typestr"].cast<std::string>());
        shape_ = interface["shape"].cast<std::vector<py::ssize_t>>();
        set_c_strides();
        if (const py::object strides = get("strides"); !strides.is_none()) {
            strides_ = strides.cast<std::vector<py::ssize_t>>();
            if (strides_.size() != shape_.size()) { throw py::value_error("an array must have a stride for each dimension"); }
        }
        data_ = reinterpret_cast<const std::byte*>(interface["data"].cast<py::tuple>()[0].cast<std::uintptr_t>());
        const py::object stream = get("stream");
        stream_ = stream.is_none() ? cudaStreamLegacy : stream_of(stream.cast<std::uintptr_t>());
        device_ = device_of(data_);
    }

    // The interface's 1 and 2 are the runtime's own handles of the default streams.
    static cudaStream_t stream_of(std::uintptr_t number) {
        if (number == 0) { throw py::value_error("the stream of a CUDA array interface must not be 0, which may mean two"); }
        if (number == 1) { return cudaStreamLegacy; }
        if (number == 2) { return cudaStreamPerThread; }
        return reinterpret_cast<cudaStream_t>(number);
    }

    static int device_of(const void* data) {
        int device = 0;
        if (data == nullptr) {  // of an array without values
            cuda::check(cudaGetDevice(&device));
            return device;
        }
        cudaPointerAttributes attributes = {};
        cuda::check(cudaPointerGetAttributes(&attributes, data));
        if (attributes.type == cudaMemoryTypeUnregistered) {
            throw py::value_error("a CUDA array interface must point to memory that a CUDA device reads; got the host's");
        }
        return attributes.device;
    }

    void set_dtype(const dlpack::DLDataType& type) {
        const std::string bits = std::to_string(type.bits);
        const bool is_half = type.code == dlpack::kBfloat && type.bits == 16;
        if (type.lanes == 1 && type.code == dlpack::kInt) { dtype_ = py::dtype("int" + bits); }
        else if (type.lanes == 1 && type.code == dlpack::kUInt) { dtype_ = py::dtype("uint" + bits); }
        else if (type.lanes == 1 && type.code == dlpack::kFloat) { dtype_ = py::dtype("float" + bits); }
        else if (type.lanes == 1 && type.code == dlpack::kComplex) { dtype_ = py::dtype("complex" + bits); }
        else if (type.lanes == 1 && type.code == dlpack::kBool && type.bits == 8) { dtype_ = py::dtype("bool"); }
        else if (type.lanes == 1 && is_half) { dtype_ = py::dtype("uint16"); }
        else {
            throw py::type_error("an array must be of numbers that numpy has, or bfloat16; got DLPack's type " +
                                 std::to_string(type.code) + " of " + bits + " bits");
        }
        is_bfloat16_ = is_half;
    }

    void set_c_strides() {
        strides_.resize(shape_.size());
        py::ssize_t stride = dtype_.itemsize();
        for (std::size_t axis = shape_.size(); axis-- > 0; stride *= shape_[axis]) { strides_[axis] = stride; }
    }

    bool is_c_contiguous() const noexcept {
        py::ssize_t stride = dtype_.itemsize();
        for (std::size_t axis = shape_.size(); axis-- > 0; stride *= shape_[axis]) {
            // Nobody goes along an axis of one.
            if (shape_[axis] > 1 && strides_[axis] != stride) { return false; }
        }
        return true;
    }

    py::array widened(py::array values) const {
        if (!is_bfloat16_) { return values; }
        // The upper half of a float32.
        const Array<std::uint32_t> bits = values.attr("astype")("uint32").attr("__lshift__")(16);
        return bits.attr("view")("float32");
    }

    struct Delete {
        void operator()(dlpack::DLManagedTensor* managed) const noexcept {
            if (managed->deleter != nullptr) { managed->deleter(managed); }
        }
    };

    // Whose memory it is, while this is looked into: one of the two.
    std::unique_ptr<dlpack::DLManagedTensor, Delete> managed_;
    py::object owner_;

    const std::byte* data_ = nullptr;
    py::dtype dtype_;
    bool is_bfloat16_ = false;
    std::vector<py::ssize_t> shape_, strides_;  // in bytes
    int device_ = 0;
    cudaStream_t stream_ = nullptr;
};

}  // namespace bindings
