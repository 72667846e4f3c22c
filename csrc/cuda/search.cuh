// From an anchor's distances to the list of the negatives that its pairs may want, and to what a rule asks about all of them:
// which are skipped, which is the nearest and which the farthest.
#pragma once

#include "pairs.cuh"

namespace cuda {

// A part of the active anchors and their distances; entry i of each array is that of anchors[i], stride values an anchor.
struct Stripe {
    const std::int32_t* anchors;
    int n;
    std::size_t stride;
    float* distances;  // to all rows
    bool is_whole;     // if they are those of all rows, and not of these anchors alone
    // Of the negatives that a pair may want, in the order of the rows.
    float* listed;
    std::int32_t* columns;
    std::int32_t* n_listed;
    double* exact;            // of some of those; scratch
    std::int32_t* fallbacks;  // what pairs without candidates get, if the rule gives them anything

    __device__ float* distances_of(std::size_t at) const {
        return distances + (is_whole ? static_cast<std::size_t>(anchors[at]) : at) * stride;
    }
};

// What the kernels need to know of a rule.
struct Rule {
    mining::BandEdges edges;
    mining::Pick pick;
    mining::IfEmpty if_empty;
    double skip_hardest;
    bool moderate;
    // Whether all of an anchor's pairs have the same candidates.
    bool is_common;

    // Whether all negatives are asked about, wanted or not.
    __host__ __device__ bool needs_all() const {
        return skip_hardest > 0.0 || moderate || if_empty != mining::IfEmpty::kDrop;
    }
};

inline constexpr unsigned kSearchThreads = 256;
inline constexpr unsigned kSearchWarps = kSearchThreads / kLanes;
inline constexpr float kInfinity = __builtin_huge_valf();

__device__ inline float larger(float a, float b) { return a < b ? b : a; }
__device__ inline float smaller(float a, float b) { return b < a ? b : a; }

// A block an anchor: lists the negatives that are nearer than the farthest end of its open pairs' bands.
template <class Scalar>
__global__ void __launch_bounds__(kSearchThreads)
    sieve(Batch<Scalar> batch, Groups groups, Pairs pairs, Rule rule, Stripe stripe) {
    __shared__ int by_warp[kSearchWarps];
    __shared__ float limits[kSearchWarps];
    const std::size_t at = blockIdx.x;
    const int anchor = stripe.anchors[at];
    float limit = rule.needs_all() ? kInfinity : -kInfinity;
    const float doubt = batch.doubt(anchor);
    const int n_pairs = rule.needs_all() ? 0 : pairs.n_of[anchor];
    for (int i = static_cast<int>(threadIdx.x); i < n_pairs; i += static_cast<int>(blockDim.x)) {
        const std::int64_t pair = pairs.first[anchor] + i;
        if (pairs.is_open(pair)) {
            limit = larger(limit, rule.edges(doubt, batch.scaled(pairs.d_ap[pair])).possible_high);
        }
    }
    limit = greatest_of_block(limit, limits);

    const float* distances = stripe.distances_of(at);
    float* listed = stripe.listed + at * stripe.stride;
    std::int32_t* columns = stripe.columns + at * stripe.stride;
    const int begin = groups.begins[anchor], end = groups.ends[anchor];
    int n = 0;
    constexpr int kEach = 4;  // of a thread, side by side
    for (int first = 0; first < batch.n; first += static_cast<int>(kSearchThreads) * kEach) {
        const int mine = first + static_cast<int>(threadIdx.x) * kEach;
        float four[kEach] = {kInfinity, kInfinity, kInfinity, kInfinity};
        if (mine < batch.n) {  // the rest of the four is padding, and far away
            const float4 read = *reinterpret_cast<const float4*>(distances + mine);
            four[0] = read.x, four[1] = read.y, four[2] = read.z, four[3] = read.w;
        }
        bool passes[kEach];
        int n_passing = 0;
        for (int i = 0; i < kEach; ++i) {
            const int column = mine + i;
            passes[i] = column < batch.n && four[i] < limit && (column < begin || column >= end);
            n_passing += passes[i] ? 1 : 0;
        }
        const Sums<int> places = sum_before(n_passing, by_warp);
        int to = n + places.before;
        for (int i = 0; i < kEach; ++i) {
            if (!passes[i]) { continue; }
            listed[to] = four[i];
            columns[to] = mine + i;
            ++to;
        }
        n += places.all;
    }
    if (threadIdx.x == 0) { stripe.n_listed[at] = n; }
}

// A place in the order of float64 distances and, among equal ones, of rows. Of farthest first, distances are negated.
struct Placed {
    double d;
    std::int32_t column;  // -1: none

    __device__ bool is_before(const Placed& other) const {
        return column >= 0 && (other.column < 0 || d < other.d || (d == other.d && column < other.column));
    }
};

__device__ inline Placed shuffled(const Placed& placed, unsigned half) {
    return {__shfl_xor_sync(kAllLanes, placed.d, half), __shfl_xor_sync(kAllLanes, placed.column, half)};
}

__device__ inline Placed first_of_warp(Placed placed) {
    for (unsigned half = kLanes / 2; half != 0; half /= 2) {
        const Placed other = shuffled(placed, half);
        if (other.is_before(placed)) { placed = other; }
    }
    return placed;
}

__device__ inline float least_of_warp(float value) {
    for (unsigned half = kLanes / 2; half != 0; half /= 2) { value = smaller(value, __shfl_xor_sync(kAllLanes, value, half)); }
    return value;
}

// A warp: the first of a list of n in the order of sign * distance, among those that are candidates and come after another one
// (if after.column >= 0; after_listed is its float32 distance). is_candidate(i) is asked about entries of the list.
template <class Scalar, class IsCandidate>
__device__ Placed find_first(const Batch<Scalar>& batch, int anchor, float sign, float doubt, const float* listed,
                             const std::int32_t* columns, int n, const Placed& after, float after_listed,
                             const IsCandidate& is_candidate, float* found_listed) {
    const auto place_of = [&](int i) {
        return Placed{static_cast<double>(sign) * batch.exact_squared_distance(anchor, columns[i]), columns[i]};
    };
    const auto comes_after = [&](int i) {
        if (after.column < 0) { return true; }
        const float beyond = sign * (listed[i] - after_listed);
        if (beyond > doubt || beyond < -doubt) { return beyond > doubt; }
        return after.is_before(place_of(i));
    };
    float least = kInfinity;
    for (int i = static_cast<int>(lane()); i < n; i += static_cast<int>(kLanes)) {
        if (sign * listed[i] < least && is_candidate(i) && comes_after(i)) { least = sign * listed[i]; }
    }
    least = least_of_warp(least);
    Placed first = {0.0, -1};
    float its_listed = 0.0F;
    for (int i = static_cast<int>(lane()); i < n; i += static_cast<int>(kLanes)) {
        if (sign * listed[i] > least + doubt || !is_candidate(i) || !comes_after(i)) { continue; }
        const Placed placed = place_of(i);
        if (placed.is_before(first)) {
            first = placed;
            its_listed = listed[i];
        }
    }
    const Placed best = first_of_warp(first);
    const unsigned votes = __ballot_sync(kAllLanes, best.column >= 0 && first.column == best.column);
    if (votes != 0) { *found_listed = __shfl_sync(kAllLanes, its_listed, lane_of_rank(votes, 0)); }
    return best;
}

// Floats and doubles as whole numbers of the same order.
__device__ inline unsigned ordered(float value) {
    const unsigned bits = __float_as_uint(value);
    return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}
__device__ inline float unordered(unsigned key) {
    return __uint_as_float((key & 0x80000000U) != 0 ? key & 0x7FFFFFFFU : ~key);
}

// A block: the smallest key of which more than rank of some keys are no larger; at_most(key) says how many that are, to all.
template <class Key, class AtMost>
__device__ Key key_of_rank(int rank, const AtMost& at_most) {
    Key low = 0, high = ~Key{0};
    while (low != high) {
        const Key middle = low + (high - low) / 2;
        if (at_most(middle) > rank) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

// A block takes the n_skipped nearest out of its list; returns how many are left. Float32 finds about where the last of them
// lies; who is in doubt there is put in order by float64.
template <class Scalar>
__device__ int skip_nearest(const Batch<Scalar>& batch, int anchor, float doubt, int n_skipped, float* listed,
                            std::int32_t* columns, double* exact, int n, int* by_warp) {
    const int thread = static_cast<int>(threadIdx.x), n_threads = static_cast<int>(blockDim.x);
    const auto count = [&](const auto& holds) {
        int mine = 0;
        for (int i = thread; i < n; i += n_threads) { mine += holds(i) ? 1 : 0; }
        return sum_of_block(mine, by_warp);
    };
    const float last = unordered(key_of_rank<unsigned>(
        n_skipped - 1, [&](unsigned key) { return count([&](int i) { return ordered(listed[i]) <= key; }); }));
    const auto is_sure = [&](int i) { return listed[i] < last - doubt; };
    const auto is_doubtful = [&](int i) { return !is_sure(i) && listed[i] <= last + doubt; };
    for (int i = thread; i < n; i += n_threads) {
        if (is_doubtful(i)) { exact[i] = batch.exact_squared_distance(anchor, columns[i]); }
    }
    const int n_doubtful = n_skipped - count(is_sure);  // of which so many are skipped, one at least
    // Distances are not negative, and those of a sign have the order of their bits.
    const auto key_of = [&](int i) { return static_cast<std::uint64_t>(__double_as_longlong(exact[i])); };
    const auto edge = key_of_rank<std::uint64_t>(n_doubtful - 1, [&](std::uint64_t key) {
        return count([&](int i) { return is_doubtful(i) && key_of(i) <= key; });
    });
    // Of those that are as far as the last, the first in the order of the rows.
    int n_equal = n_doubtful - count([&](int i) { return is_doubtful(i) && key_of(i) < edge; });
    int n_left = 0;
    for (int begin = 0; begin < n; begin += n_threads) {
        const int i = begin + thread;
        const bool is_equal = i < n && is_doubtful(i) && key_of(i) == edge;
        const Sums<int> equals = sum_before(is_equal ? 1 : 0, by_warp);
        const bool skipped = i < n && (is_sure(i) || (is_doubtful(i) && key_of(i) < edge) ||
                                       (is_equal && equals.before < n_equal));
        n_equal -= equals.all < n_equal ? equals.all : n_equal;
        const float distance = i < n ? listed[i] : 0.0F;
        const std::int32_t column = i < n ? columns[i] : 0;
        const Sums<int> places = sum_before(i < n && !skipped ? 1 : 0, by_warp);  // and all have read
        if (i < n && !skipped) {
            listed[n_left + places.before] = distance;
            columns[n_left + places.before] = column;
        }
        n_left += places.all;
    }
    __syncthreads();
    return n_left;
}

// A block an anchor, of a rule that asks about all negatives: takes out those that are skipped, finds what pairs without
// candidates get, and chooses the moderate positive.
template <class Scalar>
__global__ void __launch_bounds__(kSearchThreads)
    survey(Batch<Scalar> batch, Groups groups, Pairs pairs, Rule rule, Stripe stripe) {
    __shared__ int by_warp[kSearchWarps];
    const std::size_t at = blockIdx.x;
    const int anchor = stripe.anchors[at];
    const float doubt = batch.doubt(anchor);
    float* listed = stripe.listed + at * stripe.stride;
    std::int32_t* columns = stripe.columns + at * stripe.stride;
    int n = stripe.n_listed[at];
    const int n_skipped = static_cast<int>(rule.skip_hardest * static_cast<double>(groups.n_negatives(anchor)));
    if (n_skipped > 0) {
        n = skip_nearest(batch, anchor, doubt, n_skipped, listed, columns, stripe.exact + at * stripe.stride, n, by_warp);
        if (threadIdx.x == 0) { stripe.n_listed[at] = n; }
    }
    if (warp() != 0) { return; }
    const auto find = [&](float sign) {
        float unused = 0.0F;
        return find_first(batch, anchor, sign, doubt, listed, columns, n, {0.0, -1}, 0.0F, [](int) { return true; }, &unused);
    };
    if (rule.if_empty != mining::IfEmpty::kDrop) {
        const Placed fallback = find(rule.if_empty == mining::IfEmpty::kNearest ? 1.0F : -1.0F);
        if (lane() == 0) { stripe.fallbacks[at] = fallback.column; }
    }
    if (!rule.moderate) { return; }
    const Placed nearest = find(1.0F);
    Placed chosen = {0.0, -1};  // the farthest of those positives that are nearer, and first in order
    for (int i = static_cast<int>(lane()); nearest.column >= 0 && i < pairs.n_of[anchor]; i += static_cast<int>(kLanes)) {
        const double d_ap = pairs.d_ap[pairs.first[anchor] + i];
        const Placed placed = {-d_ap, i};
        if (d_ap < nearest.d && placed.is_before(chosen)) { chosen = placed; }
    }
    chosen = first_of_warp(chosen);
    if (lane() == 0 && chosen.column >= 0) { pairs.picks_of(pairs.first[anchor] + chosen.column)[0] = kOpen; }
}

}  // namespace cuda
