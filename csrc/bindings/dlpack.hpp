// The structures of DLPack, by which libraries hand each other arrays; as its specification has them, unversioned capsules.
// https://dmlc.github.io/dlpack/latest/c_api.html
#pragma once

#include <cstdint>

namespace bindings::dlpack {

// Of DLDeviceType, what lies in a CUDA device's address space.
inline constexpr std::int32_t kCuda = 2, kCudaManaged = 13;

// Of DLDataTypeCode.
inline constexpr std::uint8_t kInt = 0, kUInt = 1, kFloat = 2, kBfloat = 4, kComplex = 5, kBool = 6;

struct DLDevice {
    std::int32_t device_type;
    std::int32_t device_id;
};

struct DLDataType {
    std::uint8_t code;
    std::uint8_t bits;
    std::uint16_t lanes;
};

struct DLTensor {
    void* data;
    DLDevice device;
    std::int32_t ndim;
    DLDataType dtype;
    std::int64_t* shape;
    std::int64_t* strides;  // in elements; null: C order
    std::uint64_t byte_offset;
};

struct DLManagedTensor {
    DLTensor dl_tensor;
    void* manager_ctx;
    void (*deleter)(DLManagedTensor*);
};

// A capsule's names: before somebody took the tensor out of it, and after.
inline constexpr const char* kFresh = "dltensor";
inline constexpr const char* kUsed = "used_dltensor";

}  // namespace bindings::dlpack
