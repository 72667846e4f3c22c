// Four floats at a time, fused multiply-add and 32 registers: aarch64.
#include <arm_neon.h>

#include "instruction_sets.hpp"
#include "kernels_impl.hpp"

namespace simd {
namespace {

struct FourNeon {
    static constexpr std::size_t kWidth = 4;
    using Float = float32x4_t;
    using Int = int32x4_t;

    static Float broadcast(float x) noexcept { return vdupq_n_f32(x); }
    static Float load(const float* p) noexcept { return vld1q_f32(p); }
    static Float load_any(const float* p) noexcept { return vld1q_f32(p); }
    static Int load_any(const std::int32_t* p) noexcept { return vld1q_s32(p); }
    static Int count_from(std::int32_t i) noexcept { return Int{i, i + 1, i + 2, i + 3}; }
    static void store(float* p, Float x) noexcept { vst1q_f32(p, x); }
    static Float multiply_add(Float x, Float y, Float z) noexcept { return vfmaq_f32(z, x, y); }
    static float sum(Float x) noexcept { return vaddvq_f32(x); }
    static unsigned within(Float x, Float low, Float high) noexcept {
        const uint32x4_t inside = vandq_u32(vcgeq_f32(x, low), vcltq_f32(x, high));
        return vaddvq_u32(vandq_u32(inside, uint32x4_t{1, 2, 4, 8}));
    }
    static std::uint8_t below(Float left, Float right, Float left_limit, Float right_limit) noexcept {
        const uint32x4_t bits = vorrq_u32(vandq_u32(vcltq_f32(left, left_limit), uint32x4_t{1, 2, 4, 8}),
                                          vandq_u32(vcltq_f32(right, right_limit), uint32x4_t{16, 32, 64, 128}));
        return static_cast<std::uint8_t>(vaddvq_u32(bits));
    }
    static Int no_counts() noexcept { return vdupq_n_s32(0); }
    static Int count_bits(Int counts, unsigned mask) noexcept {
        const uint32x4_t set = vtstq_u32(vdupq_n_u32(mask), uint32x4_t{1, 2, 4, 8});
        return vsubq_s32(counts, vreinterpretq_s32_u32(set));
    }
    static bool any_below(Float x, Float limit) noexcept { return vmaxvq_u32(vcltq_f32(x, limit)) != 0; }
    static Int count_below(Int counts, Float x, Float limit) noexcept {
        return vsubq_s32(counts, vreinterpretq_s32_u32(vcltq_f32(x, limit)));
    }
    static bool all_below(Float x, Float limit) noexcept { return vminvq_u32(vcltq_f32(x, limit)) != 0; }
    static Int broadcast_count(std::size_t n) noexcept { return vdupq_n_s32(static_cast<std::int32_t>(n)); }
    static Float to_float(const std::uint32_t* p) noexcept { return vcvtq_f32_u32(vld1q_u32(p)); }
    static Float root(Float x) noexcept { return vsqrtq_f32(x); }
    static void store(std::uint32_t* p, Int x) noexcept { vst1q_u32(p, vreinterpretq_u32_s32(x)); }
    static void compress(unsigned mask, Float x, Int y, float* floats, std::int32_t* ints) noexcept {
        for (; mask != 0; mask &= mask - 1) {
            const int lane = __builtin_ctz(mask);
            *floats++ = x[lane];
            *ints++ = y[lane];
        }
    }
};

}  // namespace

constinit const Kernels kNeon = table<FourNeon, 8>("neon");

}  // namespace simd
