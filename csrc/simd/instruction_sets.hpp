// The tables that this build holds; dispatch.cpp alone reads them.
#pragma once

#include "kernels.hpp"

namespace simd {

extern const Kernels kBaseline;
extern const Kernels kAvx2;
extern const Kernels kAvx512;
extern const Kernels kNeon;

}  // namespace simd
