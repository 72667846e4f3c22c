// The kernels, written once for any register width. Each instruction set includes this in a source file of its own and
// gives its vector type V. All is in an anonymous namespace and uses no function of the standard library: a function
// compiled here for AVX-512 must never be the copy that the linker keeps for everybody.
#pragma once

#include <utility>

#include "kernels.hpp"

namespace simd {
namespace {

template <class V, std::size_t kRows>
void tile(const float* rows, const float* row_norms, std::size_t row_stride, const float* panel,
          const float* column_norms, std::size_t size, float* out, std::size_t out_stride) noexcept {
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
        const auto norm = V::broadcast(row_norms[r]);
        float* to = out + r * out_stride;
        V::store(to, V::multiply_add(minus_two, sums[r][0], V::load(column_norms) + norm));
        V::store(to + V::kWidth, V::multiply_add(minus_two, sums[r][1], V::load(column_norms + V::kWidth) + norm));
    }
}

// Several rows at a time: their loads and sums do not wait for each other.
template <class V, std::size_t kRows>
void gather_some(const float* x, float x_norm, const float* rows, std::size_t row_stride, const float* norms,
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
    for (std::size_t r = 0; r < kRows; ++r) { out[r] = (norms[indices[r]] + x_norm) - 2.0F * V::sum(sums[r]); }
}

template <class V>
void gather(const float* x, float x_norm, const float* rows, std::size_t row_stride, const float* norms,
            const std::int32_t* indices, std::size_t n, std::size_t size, float* out) noexcept {
    std::size_t i = 0;
    for (; i + 8 <= n; i += 8) { gather_some<V, 8>(x, x_norm, rows, row_stride, norms, indices + i, size, out + i); }
    for (; i + 2 <= n; i += 2) { gather_some<V, 2>(x, x_norm, rows, row_stride, norms, indices + i, size, out + i); }
    if (i < n) { gather_some<V, 1>(x, x_norm, rows, row_stride, norms, indices + i, size, out + i); }
}

// Which of the block of values that starts at i are in [low, high), those behind the end left out.
template <class V>
unsigned inside(const float* values, std::size_t i, std::size_t n, typename V::Float low,
                typename V::Float high) noexcept {
    const unsigned mask = V::within(V::load_any(values + i), low, high);
    return n - i < V::kWidth ? mask & ((1U << (n - i)) - 1U) : mask;
}

// Those in [low, high), each with its column; columns_at(i) gives the columns of the block of values that starts at i.
template <class V, class ColumnsAt>
std::size_t keep(const float* values, std::size_t n, float low, float high, const ColumnsAt& columns_at,
                 float* out_values, std::int32_t* out_columns) noexcept {
    const auto low_edge = V::broadcast(low);
    const auto high_edge = V::broadcast(high);
    std::size_t found = 0;
    for (std::size_t i = 0; i < n; i += V::kWidth) {
        const unsigned mask = inside<V>(values, i, n, low_edge, high_edge);
        if (mask == 0) { continue; }
        V::compress(mask, V::load_any(values + i), columns_at(i), out_values + found, out_columns + found);
        found += static_cast<std::size_t>(__builtin_popcount(mask));
    }
    return found;
}

template <class V>
std::size_t filter(const float* values, std::size_t n, float low, float high, std::int32_t first, float* out_values,
                   std::int32_t* out_columns) noexcept {
    const auto counted = [first](std::size_t i) { return V::count_from(first + static_cast<std::int32_t>(i)); };
    return keep<V>(values, n, low, high, counted, out_values, out_columns);
}

template <class V>
std::size_t refilter(const float* values, const std::int32_t* columns, std::size_t n, float low, float high,
                     float* out_values, std::int32_t* out_columns) noexcept {
    const auto given = [columns](std::size_t i) { return V::load_any(columns + i); };
    return keep<V>(values, n, low, high, given, out_values, out_columns);
}

// One step of a transpose by halves: of two rows kStep apart, exchange the lanes that lie kStep apart across the diagonal.
template <class V, std::size_t kStep, std::size_t... kLane>
void exchange(typename V::Float& upper, typename V::Float& lower, std::index_sequence<kLane...>) noexcept {
    const auto x = upper;
    const auto y = lower;
    upper = __builtin_shufflevector(x, y, ((kLane & kStep) == 0 ? kLane : kLane - kStep + V::kWidth)...);
    lower = __builtin_shufflevector(x, y, ((kLane & kStep) == 0 ? kLane + kStep : kLane + V::kWidth)...);
}

template <class V, std::size_t kStep>
void exchange_all(typename V::Float* rows) noexcept {
    if constexpr (kStep < V::kWidth) {
#pragma GCC unroll 16
        for (std::size_t r = 0; r < V::kWidth; ++r) {
            if ((r & kStep) == 0) { exchange<V, kStep>(rows[r], rows[r + kStep], std::make_index_sequence<V::kWidth>()); }
        }
        exchange_all<V, 2 * kStep>(rows);
    }
}

template <class V>
void transpose(const float* from, std::size_t side, float* to) noexcept {
    for (std::size_t r = 0; r < side; r += V::kWidth) {
        for (std::size_t c = 0; c < side; c += V::kWidth) {
            typename V::Float rows[V::kWidth];
#pragma GCC unroll 16
            for (std::size_t i = 0; i < V::kWidth; ++i) { rows[i] = V::load(from + (r + i) * side + c); }
            exchange_all<V, 1>(rows);
#pragma GCC unroll 16
            for (std::size_t i = 0; i < V::kWidth; ++i) { V::store(to + (c + i) * side + r, rows[i]); }
        }
    }
}

template <class V>
Counts count(const float* values, std::size_t n, const Edges& edges) noexcept {
    const auto possible_low = V::broadcast(edges.possible_low);
    const auto sure_low = V::broadcast(edges.sure_low);
    const auto sure_high = V::broadcast(edges.sure_high);
    const auto possible_high = V::broadcast(edges.possible_high);
    Counts counts = {0, 0};
    for (std::size_t i = 0; i < n; i += V::kWidth) {
        const unsigned possible = inside<V>(values, i, n, possible_low, possible_high);
        const unsigned sure = inside<V>(values, i, n, sure_low, sure_high);
        counts.possible += static_cast<std::size_t>(__builtin_popcount(possible));
        counts.sure += static_cast<std::size_t>(__builtin_popcount(sure));
    }
    return counts;
}

template <class V>
std::size_t select(const float* values, std::size_t n, float low, float high, std::size_t rank) noexcept {
    const auto low_edge = V::broadcast(low);
    const auto high_edge = V::broadcast(high);
    for (std::size_t i = 0; i < n; i += V::kWidth) {
        unsigned mask = inside<V>(values, i, n, low_edge, high_edge);
        const auto found = static_cast<std::size_t>(__builtin_popcount(mask));
        if (rank < found) {
            for (; rank != 0; --rank) { mask &= mask - 1; }
            return i + static_cast<std::size_t>(__builtin_ctz(mask));
        }
        rank -= found;
    }
    return n;
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
    return {name,        kTileRows,         2 * V::kWidth, tile<V, kTileRows>, gather<V>,    filter<V>,
            refilter<V>, transpose<V>,  count<V>,      select<V>,          exact<float>, exact<double>};
}

}  // namespace
}  // namespace simd
