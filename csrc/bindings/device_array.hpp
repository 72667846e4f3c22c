// An array of the miner's own on a CUDA device: results, which whoever speaks DLPack or the CUDA array interface takes as they
// are.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "../cuda/runtime.hpp"
#include "arguments.hpp"
#include "dlpack.hpp"

namespace bindings {

// A copy on the host, of the device that is the current one.
template <class T>
Array<T> fetch(const cuda::Array<T>& values, const std::vector<py::ssize_t>& shape, cudaStream_t stream) {
    Array<T> fetched(shape);
    const std::span to(fetched.mutable_data(), static_cast<std::size_t>(fetched.size()));
    const py::gil_scoped_release release;
    cuda::download(to, static_cast<const T*>(values.data()), stream);
    return fetched;
}

// Nothing is left to do for its values when it is made: any stream may read them.
class DeviceArray {
  public:
    using Values = std::variant<cuda::Array<std::int32_t>, cuda::Array<float>, cuda::Array<double>>;

    DeviceArray(Values values, std::vector<py::ssize_t> shape, int device)
        : values_(std::move(values)), shape_(std::move(shape)), device_(device) {}

    const std::vector<py::ssize_t>& shape() const noexcept { return shape_; }
    int device() const noexcept { return device_; }

    py::dtype dtype() const {
        return std::visit([]<class T>(const cuda::Array<T>&) { return py::dtype::of<T>(); }, values_);
    }

    py::array to_numpy() const {
        const cuda::DeviceGuard guard(device_);
        return std::visit([&](const auto& values) -> py::array { return fetch(values, shape_, cudaStreamPerThread); }, values_);
    }

    py::dict interface() const {
        py::dict interface;
        interface["version"] = 3;
        interface["typestr"] = dtype().attr("str");
        interface["shape"] = py::tuple(py::cast(shape_));
        interface["strides"] = py::none();
        interface["data"] = py::make_tuple(reinterpret_cast<std::uintptr_t>(data()), false);
        interface["stream"] = py::none();
        return interface;
    }

    // A capsule that keeps the array alive.
    static py::capsule to_dlpack(const std::shared_ptr<DeviceArray>& array) {
        struct Managed {
            dlpack::DLManagedTensor tensor;
            std::vector<std::int64_t> shape;
            std::shared_ptr<DeviceArray> array;
        };
        auto managed = std::make_unique<Managed>();
        managed->shape.assign(array->shape_.begin(), array->shape_.end());
        managed->array = array;
        managed->tensor = {{array->data(), {dlpack::kCuda, array->device_}, static_cast<std::int32_t>(managed->shape.size()),
                            array->dlpack_type(), managed->shape.data(), nullptr, 0},
                           managed.get(),
                           [](dlpack::DLManagedTensor* tensor) { delete static_cast<Managed*>(tensor->manager_ctx); }};
        const auto forget = [](PyObject* capsule) {
            if (PyCapsule_IsValid(capsule, dlpack::kFresh) == 0) { return; }  // somebody took it, and will delete it
            auto* tensor = static_cast<dlpack::DLManagedTensor*>(PyCapsule_GetPointer(capsule, dlpack::kFresh));
            tensor->deleter(tensor);
        };
        PyObject* capsule = PyCapsule_New(&managed->tensor, dlpack::kFresh, forget);
        if (capsule == nullptr) { throw py::error_already_set(); }
        static_cast<void>(managed.release());
        return py::reinterpret_steal<py::capsule>(capsule);
    }

  private:
    void* data() const noexcept {
        return std::visit([](const auto& values) -> void* { return values.data(); }, values_);
    }

    dlpack::DLDataType dlpack_type() const noexcept {
        const bool is_int = std::holds_alternative<cuda::Array<std::int32_t>>(values_);
        const bool is_wide = std::holds_alternative<cuda::Array<double>>(values_);
        return {is_int ? dlpack::kInt : dlpack::kFloat, static_cast<std::uint8_t>(is_wide ? 64 : 32), 1};
    }

    Values values_;
    std::vector<py::ssize_t> shape_;
    int device_;
};

}  // namespace bindings
