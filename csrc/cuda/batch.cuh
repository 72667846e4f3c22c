// A batch on the device: the caller's rows, their scaled float32 copies in grouped order, and who is whose.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "../core/random.hpp"
#include "../mining/edges.hpp"
#include "../mining/scaling.hpp"
#include "warp.cuh"

namespace cuda {

template <class Scalar>
struct Batch {
    const Scalar* values;  // the caller's
    const std::int32_t* order;
    int n, size;
    // In grouped order and scaled, padded with zeros to stride numbers, and with rows far from all others.
    const float *rows, *norms;
    const double* squared_norms;
    int stride;
    mining::Scaling scaling;

    __device__ const Scalar* row(int g) const { return values + static_cast<std::size_t>(order[g]) * size; }

    // What float32 leaves in doubt about an anchor's distances.
    __device__ float doubt(int g) const {
        return mining::doubt_of(scaling.uncertainty * (squared_norms[g] + scaling.longest));
    }

    __device__ float scaled(double squared_distance) const { return mining::clamped(squared_distance * scaling.squared_scale); }

    // The squared distance of two grouped rows as mining/reference.py computes it: eight running sums, folded in halves. Never
    // fused: the sources are compiled so. Called and not inlined: it is needed seldom, and in many places.
    __attribute__((noinline)) __device__ double exact_squared_distance(int g, int h) const {
        const Scalar *x = row(g), *y = row(h);
        double sums[kEight] = {};
        for (int begin = 0; begin < size; begin += static_cast<int>(kEight)) {
#pragma unroll
            for (int i = 0; i < static_cast<int>(kEight); ++i) {
                if (begin + i >= size) { continue; }
                const double difference = static_cast<double>(x[begin + i]) - static_cast<double>(y[begin + i]);
                sums[i] += difference * difference;
            }
        }
        return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
    }

    // The same by eight lanes together, each with one of the sums; all of them get it.
    __device__ double exact_of_eight(int g, int h, unsigned mask) const {
        const Scalar *x = row(g), *y = row(h);
        double sum = 0.0;
        for (int k = static_cast<int>(lane_of_eight()); k < size; k += static_cast<int>(kEight)) {
            const double difference = static_cast<double>(x[k]) - static_cast<double>(y[k]);
            sum += difference * difference;
        }
        for (unsigned half = kEight / 2; half != 0; half /= 2) { sum += __shfl_xor_sync(mask, sum, half); }
        return sum;
    }
};

// As mining::Groups, by row.
struct Groups {
    int n_rows;
    std::int32_t *begins, *ends;  // of the row's identity
    std::uint8_t* is_anchor;

    __device__ int n_negatives(int row) const { return n_rows - (ends[row] - begins[row]); }
    __device__ int negative(int row, int index) const {
        return index < begins[row] ? index : index + (ends[row] - begins[row]);
    }
    __device__ int draw_negative(int row, const core::Stream& stream, std::uint64_t i) const {
        return negative(row, static_cast<int>(stream.draw(i, static_cast<std::uint64_t>(n_negatives(row)))));
    }
};

inline constexpr unsigned kPrepareThreads = 128;

// A warp a row: its squared norm.
template <class Scalar>
__global__ void measure_norms(const Scalar* values, const std::int32_t* order, int n, int size, double* squared_norms) {
    const int row = static_cast<int>(blockIdx.x * (blockDim.x / kLanes) + warp());
    if (row >= n) { return; }
    const Scalar* x = values + static_cast<std::size_t>(order[row]) * size;
    double sum = 0.0;
    for (int k = static_cast<int>(lane()); k < size; k += static_cast<int>(kLanes)) {
        sum += static_cast<double>(x[k]) * static_cast<double>(x[k]);
    }
    sum = sum_of_warp(sum);
    if (lane() == 0) { squared_norms[row] = sum; }
}

// Of single blocks that look at all rows.
inline constexpr unsigned kScanThreads = 1024;
inline constexpr unsigned kScanWarps = kScanThreads / kLanes;

struct Norms {
    double longest;
    std::int64_t bad_row;  // of the caller's; -1 if all are finite and not too long
};

// One block: the longest squared norm, and the first row of the caller's that is not finite.
static __global__ void __launch_bounds__(kScanThreads)
    survey_norms(const double* squared_norms, const std::int32_t* order, int n, Norms* norms) {
    __shared__ double longest[kScanWarps];
    __shared__ int first_bad[kScanWarps];
    double my_longest = 0.0;
    int my_bad = -n;  // the negative of the row
    for (int row = static_cast<int>(threadIdx.x); row < n; row += static_cast<int>(blockDim.x)) {
        const bool ordinary = squared_norms[row] < mining::kLargestSquaredNorm;  // which NaN is not
        if (ordinary) {
            my_longest = squared_norms[row] > my_longest ? squared_norms[row] : my_longest;
        } else if (-order[row] > my_bad) {
            my_bad = -order[row];
        }
    }
    my_longest = greatest_of_block(my_longest, longest);
    my_bad = greatest_of_block(my_bad, first_bad);
    if (threadIdx.x == 0) { *norms = {my_longest, my_bad == -n ? -1 : -my_bad}; }
}

// A warp a row, n_padded of them: scaled copies, and far away what is beyond the last row.
template <class Scalar>
__global__ void copy_scaled(const Scalar* values, const std::int32_t* order, int n, int n_padded, int size, int stride,
                            mining::Scaling scaling, double* squared_norms, float* rows, float* norms) {
    const int row = static_cast<int>(blockIdx.x * (blockDim.x / kLanes) + warp());
    if (row >= n_padded) { return; }
    float* to = rows + static_cast<std::size_t>(row) * stride;
    const Scalar* x = row < n ? values + static_cast<std::size_t>(order[row]) * size : nullptr;
    for (int k = static_cast<int>(lane()); k < stride; k += static_cast<int>(kLanes)) {
        const auto scaled = x != nullptr && k < size ? static_cast<float>(static_cast<double>(x[k]) * scaling.scale) : 0.0F;
        to[k] = (scaled < 0.0F ? -scaled : scaled) < mining::kSmallestCoordinate ? 0.0F : scaled;
    }
    if (lane() != 0) { return; }
    if (row < n) { squared_norms[row] *= scaling.squared_scale; }
    norms[row] = row < n ? static_cast<float>(squared_norms[row]) : mining::kPaddingNorm;
}

// -- running totals ------------------------------------------------------------------------------------------------------

// One block: totals[i] becomes the sum of the numbers before i, and totals[n] that of all.
static __global__ void __launch_bounds__(kScanThreads) sum_up(const std::int32_t* numbers, int n, std::int64_t* totals) {
    __shared__ std::int64_t by_warp[kScanWarps];
    std::int64_t done = 0;
    for (int begin = 0; begin < n; begin += static_cast<int>(blockDim.x)) {
        const int i = begin + static_cast<int>(threadIdx.x);
        const Sums<std::int64_t> sums = sum_before(i < n ? std::int64_t{numbers[i]} : std::int64_t{0}, by_warp);
        if (i < n) { totals[i] = done + sums.before; }
        done += sums.all;
    }
    if (threadIdx.x == 0) { totals[n] = done; }
}

}  // namespace cuda
