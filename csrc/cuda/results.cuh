// From the pairs' picks to the list of triplets, and to what is told of all of them.
#pragma once

#include "pick.cuh"

namespace cuda {

struct Totals {
    double sum_d_ap, sum_d_an;
    std::int64_t n_results, n_pairs, n_with_negative;
};

// A warp an anchor: how many results it has, and its part of the totals. Only anchors' pairs count. d_ap and d_an are those of
// float64.
template <class Scalar>
__global__ void total_rows(Batch<Scalar> batch, Groups groups, Pairs pairs, mining::Band band, Task task,
                           const double* d_an_sums, std::int32_t* n_results, Totals* totals) {
    const int row = static_cast<int>(blockIdx.x * (blockDim.x / kLanes) + warp());
    if (row >= groups.n_rows) { return; }
    Totals its = {0.0, 0.0, 0, 0, 0};
    const int n = groups.is_anchor[row] != 0 ? pairs.n_of[row] : 0;
    for (int i = static_cast<int>(lane() / kEight); i < n; i += static_cast<int>(kLanes / kEight)) {
        const std::int64_t pair = pairs.first[row] + i;
        if (pairs.is_unwanted(pair)) { continue; }
        ++its.n_pairs;
        const double d_ap = band.unsquared(pairs.d_ap[pair]);
        if (task == Task::kCount) { ++its.n_results; }
        if (task == Task::kList) {
            its.n_results += pairs.n_candidates[pair];
            its.sum_d_ap += static_cast<double>(pairs.n_candidates[pair]) * d_ap;
            its.sum_d_an += d_an_sums[pair];
        }
        if (task != Task::kPick || pairs.picks_of(pair)[0] == kOpen) { continue; }
        its.n_with_negative += pairs.has_fallen_back[pair] != 0 ? 0 : 1;
        for (int j = 0; j < pairs.n_picks && pairs.picks_of(pair)[j] != kOpen; ++j) {
            ++its.n_results;
            its.sum_d_ap += d_ap;
            its.sum_d_an += band.unsquared(batch.exact_of_eight(row, pairs.picks_of(pair)[j], my_eight()));
        }
    }
    __syncwarp();
    // The lanes of an eight have the same numbers.
    for (unsigned half = kLanes / 2; half >= kEight; half /= 2) {
        its.sum_d_ap += __shfl_xor_sync(kAllLanes, its.sum_d_ap, half);
        its.sum_d_an += __shfl_xor_sync(kAllLanes, its.sum_d_an, half);
        its.n_results += __shfl_xor_sync(kAllLanes, its.n_results, half);
        its.n_pairs += __shfl_xor_sync(kAllLanes, its.n_pairs, half);
        its.n_with_negative += __shfl_xor_sync(kAllLanes, its.n_with_negative, half);
    }
    if (lane() != 0) { return; }
    // A list's results are counted by all, and written by others.
    n_results[row] = task == Task::kList ? 0 : static_cast<std::int32_t>(its.n_results);
    totals[row] = its;
}

// One block: all rows' totals, always added up in the same order.
static __global__ void __launch_bounds__(kScanThreads) total_all(const Totals* by_row, int n_rows, Totals* totals) {
    __shared__ double sums[kScanWarps];
    __shared__ std::int64_t counts[kScanWarps];
    Totals its = {0.0, 0.0, 0, 0, 0};
    for (int row = static_cast<int>(threadIdx.x); row < n_rows; row += static_cast<int>(blockDim.x)) {
        its.sum_d_ap += by_row[row].sum_d_ap;
        its.sum_d_an += by_row[row].sum_d_an;
        its.n_results += by_row[row].n_results;
        its.n_pairs += by_row[row].n_pairs;
        its.n_with_negative += by_row[row].n_with_negative;
    }
    its.sum_d_ap = sum_of_block(its.sum_d_ap, sums);
    its.sum_d_an = sum_of_block(its.sum_d_an, sums);
    its.n_results = sum_of_block(its.n_results, counts);
    its.n_pairs = sum_of_block(its.n_pairs, counts);
    its.n_with_negative = sum_of_block(its.n_with_negative, counts);
    if (threadIdx.x == 0) { *totals = its; }
}

// A warp an anchor: its results, from first_result on, as rows of the embeddings.
static __global__ void write_results(Groups groups, Pairs pairs, Task task, const std::int32_t* order,
                                     const std::int64_t* first_result, std::int32_t* anchors, std::int32_t* positives,
                                     std::int32_t* thirds) {
    const int row = static_cast<int>(blockIdx.x * (blockDim.x / kLanes) + warp());
    if (row >= groups.n_rows || groups.is_anchor[row] == 0) { return; }
    std::int64_t to = first_result[row];
    for (int begin = 0; begin < pairs.n_of[row]; begin += static_cast<int>(kLanes)) {
        const int i = begin + static_cast<int>(lane());
        const std::int64_t pair = pairs.first[row] + i;
        int n = 0;
        if (i < pairs.n_of[row] && !pairs.is_unwanted(pair)) {
            n = task == Task::kCount ? 1 : 0;
            while (task == Task::kPick && n < pairs.n_picks && pairs.picks_of(pair)[n] != kOpen) { ++n; }
        }
        const int up_to = sum_up_to(n);
        for (int j = 0; j < n; ++j) {
            const std::int64_t mine = to + up_to - n + j;
            anchors[mine] = order[row];
            positives[mine] = order[pairs.positives[pair]];
            thirds[mine] = task == Task::kCount ? pairs.n_candidates[pair] : order[pairs.picks_of(pair)[j]];
        }
        to += __shfl_sync(kAllLanes, up_to, kLanes - 1);
    }
}

}  // namespace cuda
