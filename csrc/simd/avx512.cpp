// Sixteen floats at a time, masks in registers of their own.
#include <immintrin.h>

#include "instruction_sets.hpp"
#include "kernels_impl.hpp"

namespace simd {
namespace {

struct Sixteen {
    static constexpr std::size_t kWidth = 16;
    using Float = __m512;
    using Int = __m512i;

    static Float broadcast(float x) noexcept { return _mm512_set1_ps(x); }
    static Float load(const float* p) noexcept { return _mm512_load_ps(p); }
    static Float load_any(const float* p) noexcept { return _mm512_loadu_ps(p); }
    static Int load_any(const std::int32_t* p) noexcept { return _mm512_loadu_si512(p); }
    static Int count_from(std::int32_t i) noexcept {
        const Int lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        return _mm512_add_epi32(_mm512_set1_epi32(i), lanes);
    }
    static void store(float* p, Float x) noexcept { _mm512_store_ps(p, x); }
    static Float multiply_add(Float x, Float y, Float z) noexcept { return _mm512_fmadd_ps(x, y, z); }
    static float sum(Float x) noexcept {
        // Not _mm512_castps512_ps256: GCC 12 warns inside its own header.
        const __m256 eight = _mm256_add_ps(_mm512_maskz_extractf32x8_ps(0xFF, x, 0), _mm512_maskz_extractf32x8_ps(0xFF, x, 1));
        const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
        const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
    }
    static unsigned within(Float x, Float low, Float high) noexcept {
        return _mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask(x, low, _CMP_GE_OQ), x, high, _CMP_LT_OQ);
    }
    static __mmask32 below(Float left, Float right, Float left_limit, Float right_limit) noexcept {
        return _mm512_kunpackw(_mm512_cmp_ps_mask(right, right_limit, _CMP_LT_OQ),
                               _mm512_cmp_ps_mask(left, left_limit, _CMP_LT_OQ));
    }
    static Int no_counts() noexcept { return _mm512_setzero_si512(); }
    static Int count_bits(Int counts, unsigned mask) noexcept {
        return _mm512_mask_add_epi32(counts, static_cast<__mmask16>(mask), counts, _mm512_set1_epi32(1));
    }
    static bool any_below(Float x, Float limit) noexcept { return _mm512_cmp_ps_mask(x, limit, _CMP_LT_OQ) != 0; }
    static Int count_below(Int counts, Float x, Float limit) noexcept {
        return _mm512_mask_add_epi32(counts, _mm512_cmp_ps_mask(x, limit, _CMP_LT_OQ), counts, _mm512_set1_epi32(1));
    }
    static bool all_below(Float x, Float limit) noexcept { return _mm512_cmp_ps_mask(x, limit, _CMP_LT_OQ) == 0xFFFF; }
    static Int broadcast_count(std::size_t n) noexcept { return _mm512_set1_epi32(static_cast<int>(n)); }
    static Float to_float(const std::uint32_t* p) noexcept {
        return _mm512_maskz_cvtepi32_ps(0xFFFF, _mm512_load_si512(p));
    }
    static Float root(Float x) noexcept { return _mm512_maskz_sqrt_ps(0xFFFF, x); }
    static void store(std::uint32_t* p, Int x) noexcept { _mm512_store_si512(p, x); }
    // Compressed in registers and stored whole: compressing stores are microcode on Zen 4.
    static void compress(unsigned mask, Float x, Int y, float* floats, std::int32_t* ints) noexcept {
        const auto kept = static_cast<__mmask16>(mask);
        _mm512_storeu_ps(floats, _mm512_maskz_compress_ps(kept, x));
        _mm512_storeu_si512(ints, _mm512_maskz_compress_epi32(kept, y));
    }
};

}  // namespace

constinit const Kernels kAvx512 = table<Sixteen, 14>("avx512");

}  // namespace simd
