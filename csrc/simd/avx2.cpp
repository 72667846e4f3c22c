// Eight floats at a time, fused multiply-add.
#include <immintrin.h>

#include "instruction_sets.hpp"
#include "kernels_impl.hpp"

namespace simd {
namespace {

// AVX2 has no compress: for each mask, the lanes to keep, first lane in the lowest byte.
struct KeptLanes {
    std::uint64_t lanes[256];
    constexpr KeptLanes() noexcept : lanes{} {
        for (unsigned mask = 0; mask < 256; ++mask) {
            unsigned kept = 0;
            for (unsigned lane = 0; lane < 8; ++lane) {
                if ((mask >> lane & 1U) != 0) { lanes[mask] |= static_cast<std::uint64_t>(lane) << (8 * kept++); }
            }
        }
    }
};
constexpr KeptLanes kKeptLanes;

struct Eight {
    static constexpr std::size_t kWidth = 8;
    using Float = __m256;
    using Int = __m256i;

    static Float broadcast(float x) noexcept { return _mm256_set1_ps(x); }
    static Float load(const float* p) noexcept { return _mm256_load_ps(p); }
    static Float load_any(const float* p) noexcept { return _mm256_loadu_ps(p); }
    static Int load_any(const std::int32_t* p) noexcept {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    }
    static Int count_from(std::int32_t i) noexcept {
        return _mm256_add_epi32(_mm256_set1_epi32(i), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    }
    static void store(float* p, Float x) noexcept { _mm256_store_ps(p, x); }
    static Float multiply_add(Float x, Float y, Float z) noexcept { return _mm256_fmadd_ps(x, y, z); }
    static float sum(Float x) noexcept {
        const __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
        const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
    }
    static unsigned within(Float x, Float low, Float high) noexcept {
        const Float inside = _mm256_and_ps(_mm256_cmp_ps(x, low, _CMP_GE_OQ), _mm256_cmp_ps(x, high, _CMP_LT_OQ));
        return static_cast<unsigned>(_mm256_movemask_ps(inside));
    }
    static std::uint16_t below(Float left, Float right, Float left_limit, Float right_limit) noexcept {
        const int bits = _mm256_movemask_ps(_mm256_cmp_ps(left, left_limit, _CMP_LT_OQ)) |
                         _mm256_movemask_ps(_mm256_cmp_ps(right, right_limit, _CMP_LT_OQ)) << 8;
        return static_cast<std::uint16_t>(bits);
    }
    static Int no_counts() noexcept { return _mm256_setzero_si256(); }
    static Int count_bits(Int counts, unsigned mask) noexcept {
        const Int lanes = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
        const Int set = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(mask)), lanes);
        return _mm256_sub_epi32(counts, _mm256_cmpeq_epi32(set, lanes));
    }
    static bool any_below(Float x, Float limit) noexcept {
        return _mm256_movemask_ps(_mm256_cmp_ps(x, limit, _CMP_LT_OQ)) != 0;
    }
    static Int count_below(Int counts, Float x, Float limit) noexcept {
        return _mm256_sub_epi32(counts, _mm256_castps_si256(_mm256_cmp_ps(x, limit, _CMP_LT_OQ)));
    }
    static bool all_below(Float x, Float limit) noexcept {
        return _mm256_movemask_ps(_mm256_cmp_ps(x, limit, _CMP_LT_OQ)) == 0xFF;
    }
    static Int broadcast_count(std::size_t n) noexcept { return _mm256_set1_epi32(static_cast<int>(n)); }
    static Float to_float(const std::uint32_t* p) noexcept {
        return _mm256_cvtepi32_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(p)));
    }
    static Float root(Float x) noexcept { return _mm256_sqrt_ps(x); }
    static void store(std::uint32_t* p, Int x) noexcept { _mm256_store_si256(reinterpret_cast<__m256i*>(p), x); }
    static void compress(unsigned mask, Float x, Int y, float* floats, std::int32_t* ints) noexcept {
        const __m256i lanes = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(kKeptLanes.lanes[mask])));
        _mm256_storeu_ps(floats, _mm256_permutevar8x32_ps(x, lanes));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(ints), _mm256_permutevar8x32_epi32(y, lanes));
    }
};

}  // namespace

constinit const Kernels kAvx2 = table<Eight, 6>("avx2");

}  // namespace simd
