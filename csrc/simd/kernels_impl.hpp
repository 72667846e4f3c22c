// The kernels, written once for any register width. Each instruction set includes this in a source file of its own and
// gives its vector type V. All is in an anonymous namespace and uses no function of the standard library: a function
// compiled here for AVX-512 must never be the copy that the linker keeps for everybody.
#pragma once

#include "kernels.hpp"

namespace simd {
namespace {

template <class V, std::size_t kRows>
void tile(const float* rows, std::size_t row_stride, const float* panel, const float* column_norms, std::size_t size,
          float* out, std::size_t out_stride) noexcept {
    typename V::Float sums[kRows][2];
#pragma GCC unroll 16
    for (std::size_t r = 0; r < kRows; ++r) {
        sums[r][0] = V::broadcast(0.0F);
        sums[r][1] = V::broadcast(0.0F);
    }
    for (std::size_t k = 0; k < size; ++k) {
        const auto left = V::load(panel + k * 2 * V::kWidth);
        const auto right = V::load(panel + k * 2 * V::kWidth + V::kWidth);
#pragma GCC unroll 16
        for (std::size_t r = 0; r < kRows; ++r) {
            const auto x = V::broadcast(rows[r * row_stride + k]);
            sums[r][0] = V::multiply_add(x, left, sums[r][0]);
            sums[r][1] = V::multiply_add(x, right, sums[r][1]);
        }
    }
    const auto minus_two = V::broadcast(-2.0F);
#pragma GCC unroll 16
    for (std::size_t r = 0; r < kRows; ++r) {
        V::store(out + r * out_stride, V::multiply_add(minus_two, sums[r][0], V::load(column_norms)));
        V::store(out + r * out_stride + V::kWidth,
                 V::multiply_add(minus_two, sums[r][1], V::load(column_norms + V::kWidth)));
    }
}

// Several rows at a time: their loads and sums do not wait for each other.
template <class V, std::size_t kRows>
void gather_some(const float* x, const float* rows, std::size_t row_stride, const float* norms,
                 const std::int32_t* indices, std::size_t size, float* out) noexcept {
    const float* row[kRows];
    typename V::Float sums[kRows];
#pragma GCC unroll 8
    for (std::size_t r = 0; r < kRows; ++r) {
        row[r] = rows + static_cast<std::size_t>(indices[r]) * row_stride;
        sums[r] = V::broadcast(0.0F);
    }
    for (std::size_t k = 0; k < size; k += V::kWidth) {
        const auto left = V::load(x + k);
#pragma GCC unroll 8
        for (std::size_t r = 0; r < kRows; ++r) { sums[r] = V::multiply_add(left, V::load(row[r] + k), sums[r]); }
    }
#pragma GCC unroll 8
    for (std::size_t r = 0; r < kRows; ++r) { out[r] = norms[indices[r]] - 2.0F * V::sum(sums[r]); }
}

template <class V>
void gather(const float* x, const float* rows, std::size_t row_stride, const float* norms,
            const std::int32_t* indices, std::size_t n, std::size_t size, float* out) noexcept {
    std::size_t i = 0;
    for (; i + 8 <= n; i += 8) { gather_some<V, 8>(x, rows, row_stride, norms, indices + i, size, out + i); }
    for (; i + 2 <= n; i += 2) { gather_some<V, 2>(x, rows, row_stride, norms, indices + i, size, out + i); }
    if (i < n) { gather_some<V, 1>(x, rows, row_stride, norms, indices + i, size, out + i); }
}

template <class V>
std::size_t filter(const float* values, std::size_t n, float low, float high, std::int32_t first, float* out_values,
                   std::int32_t* out_places) noexcept {
    const auto low_edge = V::broadcast(low);
    const auto high_edge = V::broadcast(high);
    std::size_t found = 0;
    for (std::size_t i = 0; i < n; i += V::kWidth) {
        const auto block = V::load_any(values + i);
        unsigned inside = V::within(block, low_edge, high_edge);
        if (n - i < V::kWidth) { inside &= (1U << (n - i)) - 1U; }
        if (inside != 0) {
            V::compress(inside, block, first + static_cast<std::int32_t>(i), out_values + found, out_places + found);
            found += static_cast<std::size_t>(__builtin_popcount(inside));
        }
    }
    return found;
}

// Eight running sums as one vector of the compiler's own, whatever registers that takes. The project is compiled with
// -ffp-contract=off: a fused multiply-add would round otherwise than the specification.
template <class Scalar>
double exact(const Scalar* x, const Scalar* y, std::size_t size) noexcept {
    typedef double Sums __attribute__((vector_size(64)));
    Sums sums = {};
    std::size_t k = 0;
    for (; k + 8 <= size; k += 8) {
        Sums difference;
#pragma GCC unroll 8
        for (std::size_t lane = 0; lane < 8; ++lane) {
            difference[lane] = static_cast<double>(x[k + lane]) - static_cast<double>(y[k + lane]);
        }
        sums += difference * difference;
    }
    for (std::size_t lane = 0; k + lane < size; ++lane) {
        const double difference = static_cast<double>(x[k + lane]) - static_cast<double>(y[k + lane]);
        sums[lane] += difference * difference;
    }
    return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

template <class V, std::size_t kTileRows>
constexpr Kernels table(const char* name) noexcept {
    return {name,      kTileRows,     2 * V::kWidth, tile<V, kTileRows>,
            gather<V>, filter<V>, exact<float>, exact<double>};
}

}  // namespace
}  // namespace simd
