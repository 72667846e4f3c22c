// The (anchor, positive) pairs that a rule looks at: listed for every row, measured in float64, and chosen among.
#pragma once

#include "batch.cuh"

#include "../mining/draws.hpp"

namespace cuda {

// Stand for a pick that a pair lacks, or lacks yet; and in a pair's first pick where the rule does not look at the pair.
inline constexpr std::int32_t kOpen = -1;
inline constexpr std::int32_t kUnwanted = -2;

struct Pairs {
    // Row r's are first[r] .. first[r] + n_of[r].
    const std::int64_t* first;
    std::int32_t* n_of;
    std::int32_t* positives;
    double* d_ap;  // squared, in the caller's units
    // By pair and pick.
    int n_picks;
    std::int32_t* picks;
    // By pair: whether its pick is the one of pairs without candidates.
    std::uint8_t* has_fallen_back;
    // By pair, where it is asked for.
    std::int32_t* n_candidates;

    __device__ std::int32_t* picks_of(std::int64_t pair) const { return picks + pair * n_picks; }
    __device__ bool is_unwanted(std::int64_t pair) const { return picks_of(pair)[0] == kUnwanted; }
    // Whether it lacks a pick.
    __device__ bool is_open(std::int64_t pair) const { return !is_unwanted(pair) && picks_of(pair)[n_picks - 1] == kOpen; }
};

inline constexpr unsigned kPairThreads = 128;

// A block an identity: says of its rows whose they are, and with how many positives each could be paired. Identity i owns the
// rows offsets[i] .. offsets[i + 1], and those from members[i] on are a bank's; is_anchor may be null.
static __global__ void spread_groups(const std::int64_t* offsets, const std::int64_t* members, const std::uint8_t* is_anchor,
                                     bool bank_positives, bool each_once, Groups groups, std::int32_t* n_candidates) {
    const auto begin = static_cast<int>(offsets[blockIdx.x]), end = static_cast<int>(offsets[blockIdx.x + 1]);
    const auto members_end = static_cast<int>(members[blockIdx.x]);
    const int positives_end = bank_positives ? end : members_end;
    for (int row = begin + static_cast<int>(threadIdx.x); row < end; row += static_cast<int>(blockDim.x)) {
        const bool is_member = row < members_end;
        groups.begins[row] = begin;
        groups.ends[row] = end;
        groups.is_anchor[row] = is_member && (is_anchor == nullptr || is_anchor[row] != 0) ? 1 : 0;
        n_candidates[row] = is_member ? positives_end - (each_once ? row : begin) - 1 : 0;
    }
}

// A block a row: the positives that it could be paired with, and their distances.
template <class Scalar>
__global__ void list_pairs(Batch<Scalar> batch, Groups groups, bool each_once, Pairs pairs) {
    const int row = static_cast<int>(blockIdx.x);
    const std::int64_t first = pairs.first[row];
    const int n = static_cast<int>(pairs.first[row + 1] - first);
    const int begin = each_once ? row + 1 : groups.begins[row];
    for (int i = static_cast<int>(threadIdx.x / kEight); i < n; i += static_cast<int>(blockDim.x / kEight)) {
        const int positive = begin + i + (!each_once && begin + i >= row ? 1 : 0);
        const double d_ap = batch.exact_of_eight(row, positive, my_eight());
        if (lane_of_eight() == 0) {
            pairs.positives[first + i] = positive;
            pairs.d_ap[first + i] = d_ap;
        }
    }
    if (threadIdx.x == 0) { pairs.n_of[row] = n; }
}

// How many of the pairs, each two rows once, are no farther apart.
static __global__ void count_near(Pairs pairs, int n_rows, double limit, unsigned long long* n_near) {
    const int row = static_cast<int>(blockIdx.x * (blockDim.x / kLanes) + warp());
    if (row >= n_rows) { return; }
    int n = 0;
    for (std::int64_t i = pairs.first[row] + lane(); i < pairs.first[row + 1]; i += kLanes) {
        n += pairs.positives[i] > row && pairs.d_ap[i] <= limit ? 1 : 0;
    }
    n = sum_of_warp(n);
    if (lane() == 0 && n != 0) { atomicAdd(n_near, static_cast<unsigned long long>(n)); }
}

struct Choice {
    mining::PairChoice pairs;
    int n_positives;
    double max_d_ap;  // in the unit of the band
    double limit;     // squared
    mining::Band band;
    std::uint64_t seed;
};

// Keeps of the row's n first those that are marked, in order; returns how many.
__device__ inline int keep_marked(const Pairs& pairs, std::int64_t first, int n, const std::uint8_t* marks) {
    int n_kept = 0;
    for (int begin = 0; begin < n; begin += static_cast<int>(kLanes)) {
        const int i = begin + static_cast<int>(lane());
        const bool keep = i < n && marks[first + i] != 0;
        const std::int32_t positive = i < n ? pairs.positives[first + i] : 0;
        const double d_ap = i < n ? pairs.d_ap[first + i] : 0.0;
        const unsigned votes = __ballot_sync(kAllLanes, keep);  // and all have read
        if (keep) {
            const std::int64_t to = first + n_kept + __popc(votes & lanes_before());
            pairs.positives[to] = positive;
            pairs.d_ap[to] = d_ap;
        }
        n_kept += __popc(votes);
    }
    __syncwarp();
    return n_kept;
}

// A warp a row: keeps of its listed positives those that the rule wants. marks and places are scratch, one a pair.
static __global__ void choose_pairs(Pairs pairs, int n_rows, Choice choice, std::uint8_t* marks, std::int32_t* places) {
    const int row = static_cast<int>(blockIdx.x * (blockDim.x / kLanes) + warp());
    if (row >= n_rows) { return; }
    const std::int64_t first = pairs.first[row];
    int n = static_cast<int>(pairs.first[row + 1] - first);
    for (int i = static_cast<int>(lane()); i < n; i += static_cast<int>(kLanes)) {
        const double d_ap = pairs.d_ap[first + i];
        marks[first + i] = choice.band.unsquared(d_ap) < choice.max_d_ap && d_ap <= choice.limit ? 1 : 0;
    }
    __syncwarp();
    n = keep_marked(pairs, first, n, marks);

    const int k = choice.n_positives < n ? choice.n_positives : n;
    const bool farthest = choice.pairs == mining::PairChoice::kHardest;
    if (farthest || choice.pairs == mining::PairChoice::kEasiest) {
        for (int i = static_cast<int>(lane()); i < n; i += static_cast<int>(kLanes)) {
            const double d_ap = pairs.d_ap[first + i];
            int n_before = 0;
            for (int j = 0; j < n; ++j) {
                const double other = pairs.d_ap[first + j];
                n_before += (farthest ? other > d_ap : other < d_ap) || (other == d_ap && j < i) ? 1 : 0;
            }
            marks[first + i] = n_before < k ? 1 : 0;
        }
        __syncwarp();
        n = keep_marked(pairs, first, n, marks);
    } else if (choice.pairs == mining::PairChoice::kRandom) {
        for (int i = static_cast<int>(lane()); i < n; i += static_cast<int>(kLanes)) {
            marks[first + i] = 0;
            places[first + i] = i;
        }
        __syncwarp();
        if (lane() == 0) {
            const core::Stream stream =
                core::AnchorStreams(choice.seed, static_cast<std::uint64_t>(row))(mining::kPositivesStream);
            for (int i = 0; i < k; ++i) {
                const auto n_left = static_cast<std::uint64_t>(n - i);
                const int j = i + static_cast<int>(stream.draw(static_cast<std::uint64_t>(i), n_left));
                const std::int32_t chosen = places[first + j];
                places[first + j] = places[first + i];
                places[first + i] = chosen;
                marks[first + chosen] = 1;
            }
        }
        __syncwarp();
        n = keep_marked(pairs, first, n, marks);
    }
    if (lane() == 0) { pairs.n_of[row] = n; }
}

// A block a row: what stands for picks before there are any.
static __global__ void clear_picks(Pairs pairs, std::int32_t first_pick) {
    const int row = static_cast<int>(blockIdx.x);
    for (int i = static_cast<int>(threadIdx.x); i < pairs.n_of[row]; i += static_cast<int>(blockDim.x)) {
        const std::int64_t pair = pairs.first[row] + i;
        for (int j = 0; j < pairs.n_picks; ++j) { pairs.picks_of(pair)[j] = kOpen; }
        pairs.picks_of(pair)[0] = first_pick;
        pairs.has_fallen_back[pair] = 0;
        pairs.n_candidates[pair] = 0;
    }
}

// A warp a row: whether it is an anchor that has pairs still to be met with the negatives.
static __global__ void mark_active(Pairs pairs, Groups groups, bool only_open, std::int32_t* is_active) {
    const int row = static_cast<int>(blockIdx.x * (blockDim.x / kLanes) + warp());
    if (row >= groups.n_rows) { return; }
    const int n = groups.is_anchor[row] != 0 && groups.n_negatives(row) != 0 ? pairs.n_of[row] : 0;
    bool mine = false;
    for (int i = static_cast<int>(lane()); i < n; i += static_cast<int>(kLanes)) {
        mine = mine || !only_open || pairs.is_open(pairs.first[row] + i);
    }
    const unsigned votes = __ballot_sync(kAllLanes, mine);
    if (lane() == 0) { is_active[row] = votes != 0 ? 1 : 0; }
}

// One block: lists those that are marked, in order, and says how many they are.
static __global__ void __launch_bounds__(kScanThreads)
    list_active(const std::int32_t* is_active, int n_rows, std::int32_t* active, int* n_active) {
    __shared__ int by_warp[kScanWarps];
    int done = 0;
    for (int begin = 0; begin < n_rows; begin += static_cast<int>(blockDim.x)) {
        const int row = begin + static_cast<int>(threadIdx.x);
        const int mine = row < n_rows ? is_active[row] : 0;
        const Sums<int> places = sum_before(mine, by_warp);
        if (mine != 0) { active[done + places.before] = row; }
        done += places.all;
    }
    if (threadIdx.x == 0) { *n_active = done; }
}

}  // namespace cuda
