// Four floats at a time in the compiler's own vector type: SSE2 on x86-64, and whatever other machines have.
#include "instruction_sets.hpp"
#include "kernels_impl.hpp"

namespace simd {
namespace {

struct Four {
    static constexpr std::size_t kWidth = 4;
    typedef float Float __attribute__((vector_size(16)));
    typedef float AnyFloat __attribute__((vector_size(16), aligned(4)));
    typedef std::int32_t Int __attribute__((vector_size(16)));
    typedef std::int32_t AnyInt __attribute__((vector_size(16), aligned(4)));

    static Float broadcast(float x) noexcept { return Float{x, x, x, x}; }
    static Float load(const float* p) noexcept { return *reinterpret_cast<const Float*>(p); }
    static Float load_any(const float* p) noexcept { return *reinterpret_cast<const AnyFloat*>(p); }
    static Int load_any(const std::int32_t* p) noexcept { return *reinterpret_cast<const AnyInt*>(p); }
    static Int count_from(std::int32_t i) noexcept { return Int{i, i + 1, i + 2, i + 3}; }
    static void store(float* p, Float x) noexcept { *reinterpret_cast<Float*>(p) = x; }
    static Float multiply_add(Float x, Float y, Float z) noexcept { return x * y + z; }
    static float sum(Float x) noexcept { return (x[0] + x[2]) + (x[1] + x[3]); }
    static unsigned within(Float x, Float low, Float high) noexcept {
        const Int bits = (x >= low) & (x < high) & Int{1, 2, 4, 8};
        return static_cast<unsigned>((bits[0] | bits[1]) | (bits[2] | bits[3]));
    }
    static std::uint8_t below(Float left, Float right, Float left_limit, Float right_limit) noexcept {
        const Int bits = ((left < left_limit) & Int{1, 2, 4, 8}) | ((right < right_limit) & Int{16, 32, 64, 128});
        return static_cast<std::uint8_t>((bits[0] | bits[1]) | (bits[2] | bits[3]));
    }
    static Int no_counts() noexcept { return Int{0, 0, 0, 0}; }
    static Int count_bits(Int counts, unsigned mask) noexcept {
        const Int lanes = {1, 2, 4, 8};
        const auto bits = static_cast<std::int32_t>(mask);
        return counts - ((Int{bits, bits, bits, bits} & lanes) == lanes);
    }
    static bool any_below(Float x, Float limit) noexcept {
        const Int is_below = x < limit;
        return ((is_below[0] | is_below[1]) | (is_below[2] | is_below[3])) != 0;
    }
    static Int count_below(Int counts, Float x, Float limit) noexcept { return counts - (x < limit); }
    static bool all_below(Float x, Float limit) noexcept {
        const Int is_below = x < limit;
        return ((is_below[0] & is_below[1]) & (is_below[2] & is_below[3])) != 0;
    }
    static Int broadcast_count(std::size_t n) noexcept {
        const auto i = static_cast<std::int32_t>(n);
        return Int{i, i, i, i};
    }
    static Float to_float(const std::uint32_t* p) noexcept {
        return __builtin_convertvector(*reinterpret_cast<const Int*>(p), Float);
    }
    static Float root(Float x) noexcept {
        return Float{__builtin_sqrtf(x[0]), __builtin_sqrtf(x[1]), __builtin_sqrtf(x[2]), __builtin_sqrtf(x[3])};
    }
    static void store(std::uint32_t* p, Int x) noexcept { *reinterpret_cast<Int*>(p) = x; }
    static void compress(unsigned mask, Float x, Int y, float* floats, std::int32_t* ints) noexcept {
        for (; mask != 0; mask &= mask - 1) {
            const int lane = __builtin_ctz(mask);
            *floats++ = x[lane];
            *ints++ = y[lane];
        }
    }
};

}  // namespace

constinit const Kernels kBaseline = table<Four, 4>("baseline");

}  // namespace simd
