// From the listed negatives of an anchor to the picks of its pairs, a warp a pair.
#pragma once

#include "search.cuh"

#include "../mining/levels.hpp"

namespace cuda {

// As mining::Weights, and what mining/levels.hpp makes of them.
struct Weights {
    int size, n_edges;
    double unit, lowest, highest;
    const double *edges, *log_bounds, *relative;
    int lowest_level;

    __device__ int n_bins() const { return n_edges + 1; }

    // Operation by operation as in mining/sphere.py.
    __device__ double log_weight(double distance) const {
        double squared = unit * distance;
        squared = squared < lowest ? lowest : squared;
        squared = squared > highest ? highest : squared;
        const double dimensions = size;
        return (2.0 - dimensions) / 2.0 * log(squared) - (dimensions - 3.0) / 2.0 * log(1.0 - squared / 4.0);
    }

    // The number of edges that are not beyond the distance.
    __device__ int bin_of(double distance) const {
        int begin = 0, end = n_edges;
        while (begin != end) {
            const int middle = begin + (end - begin) / 2;
            if (edges[middle] <= distance) {
                begin = middle + 1;
            } else {
                end = middle;
            }
        }
        return begin;
    }
};

// One pair, and what its anchor has listed.
template <class Scalar>
struct Meeting {
    const Batch<Scalar>& batch;
    const mining::Band& band;
    int anchor;
    float doubt;
    const float* listed;
    const std::int32_t* columns;
    int n;
    double d_ap;
    simd::Edges edges;

    __device__ bool is_candidate(int i) const {
        if (mining::is_sure(edges, listed[i])) { return true; }
        return mining::is_possible(edges, listed[i]) && band(d_ap, batch.exact_squared_distance(anchor, columns[i]));
    }
    __device__ bool is_picked(int i, const std::int32_t* picks, int n_picks) const {
        for (int j = 0; j < n_picks; ++j) {
            if (picks[j] == columns[i]) { return true; }
        }
        return false;
    }

    __device__ int count() const {
        int n_candidates = 0;
        for (int i = static_cast<int>(lane()); i < n; i += static_cast<int>(kLanes)) {
            n_candidates += is_candidate(i) ? 1 : 0;
        }
        return sum_of_warp(n_candidates);
    }

    // The place in the list of the rank-th of those that hold; there must be more than rank.
    template <class Holds>
    __device__ int place_of_rank(int rank, const Holds& holds) const {
        for (int begin = 0; begin < n; begin += static_cast<int>(kLanes)) {
            const int i = begin + static_cast<int>(lane());
            const unsigned votes = __ballot_sync(kAllLanes, i < n && holds(i));
            if (rank < __popc(votes)) { return begin + static_cast<int>(lane_of_rank(votes, static_cast<unsigned>(rank))); }
            rank -= __popc(votes);
        }
        return -1;
    }
};

// Draws what is missing of a pair's picks uniformly among the candidates that are none yet; returns how many candidates it has.
template <class Scalar>
__device__ int pick_uniformly(const Meeting<Scalar>& meeting, const core::Stream& stream, std::int32_t* picks, int n_picks) {
    int n_found = 0;
    while (n_found < n_picks && picks[n_found] != kOpen) { ++n_found; }
    const int n_candidates = meeting.count();
    for (int n_left = n_candidates - n_found; n_found < n_picks && n_left > 0; ++n_found, --n_left) {
        const auto rank = static_cast<int>(
            stream.draw(mining::kRankDraw + static_cast<std::uint64_t>(n_found), static_cast<std::uint64_t>(n_left)));
        const int place = meeting.place_of_rank(
            rank, [&](int i) { return meeting.is_candidate(i) && !meeting.is_picked(i, picks, n_found); });
        __syncwarp();  // all have read the picks
        if (lane() == 0) { picks[n_found] = meeting.columns[place]; }
        __syncwarp();
    }
    return n_candidates;
}

// Picks the nearest candidates (sign 1) or the farthest (-1).
template <class Scalar>
__device__ void pick_leading(const Meeting<Scalar>& meeting, float sign, std::int32_t* picks, int n_picks) {
    Placed last = {0.0, -1};
    float listed = 0.0F;
    for (int j = 0; j < n_picks; ++j) {
        last = find_first(meeting.batch, meeting.anchor, sign, meeting.doubt, meeting.listed, meeting.columns, meeting.n, last,
                          listed, [&](int i) { return meeting.is_candidate(i); }, &listed);
        if (last.column < 0) { return; }
        if (lane() == 0) { picks[j] = last.column; }
    }
}

__device__ inline double draw_unit(const core::Stream& stream, std::uint64_t i) {
    constexpr std::uint64_t kSteps = std::uint64_t{1} << 53;
    return static_cast<double>(stream.draw(i, kSteps)) / static_cast<double>(kSteps);
}

// Picks by weight: a bin by the number of its candidates times its bound, one of them uniformly, and that is taken with the
// probability of its weight over the bound; else all is drawn again. counts is scratch, one a bin. The chances come from this
// device's own log() and exp(): it is here alone that results may differ from the CPU's, where a draw falls between two
// roundings of a chance.
template <class Scalar>
__device__ void pick_weighted(const Meeting<Scalar>& meeting, const Weights& weights, const core::Stream& stream,
                              std::int32_t* picks, int n_picks, std::int32_t* counts) {
    const double per_scaled = 1.0 / meeting.batch.scaling.squared_scale;  // a power of two
    const auto bin_of = [&](int i) {
        const double d = static_cast<double>(meeting.listed[i]), doubt = static_cast<double>(meeting.doubt);
        const int least = weights.bin_of((d - doubt) * per_scaled), greatest = weights.bin_of((d + doubt) * per_scaled);
        return least == greatest ? least
                                 : weights.bin_of(meeting.batch.exact_squared_distance(meeting.anchor, meeting.columns[i]));
    };
    std::uint64_t draw = mining::kRankDraw;
    for (int n_found = 0; n_found < n_picks; ++n_found) {
        for (int bin = static_cast<int>(lane()); bin < weights.n_bins(); bin += static_cast<int>(kLanes)) { counts[bin] = 0; }
        __syncwarp();
        for (int i = static_cast<int>(lane()); i < meeting.n; i += static_cast<int>(kLanes)) {
            if (meeting.is_candidate(i) && !meeting.is_picked(i, picks, n_found)) { atomicAdd(counts + bin_of(i), 1); }
        }
        __syncwarp();
        double top = -mining::kUnbounded;
        int last_bin = -1;
        for (int bin = 0; bin < weights.n_bins(); ++bin) {
            if (counts[bin] == 0) { continue; }
            top = weights.log_bounds[bin] > top ? weights.log_bounds[bin] : top;
            last_bin = bin;
        }
        if (last_bin < 0) { return; }
        const int level = static_cast<int>(floor(top / mining::kLevelHeight)) - weights.lowest_level;
        const double* relative = weights.relative + static_cast<std::ptrdiff_t>(level) * weights.n_bins();
        // Every lane does the same sums, in the order of the specification.
        double total = 0.0;
        for (int bin = 0; bin <= last_bin; ++bin) {
            if (counts[bin] != 0) { total += static_cast<double>(counts[bin]) * relative[bin]; }
        }
        int place = -1;
        for (bool taken = false; !taken; draw += 3) {
            const double mark = draw_unit(stream, draw) * total;
            int chosen = last_bin;
            double sum = 0.0;
            for (int bin = 0; bin < last_bin; ++bin) {
                if (counts[bin] == 0) { continue; }
                sum += static_cast<double>(counts[bin]) * relative[bin];
                if (mark < sum) {
                    chosen = bin;
                    break;
                }
            }
            const auto rank = static_cast<int>(stream.draw(draw + 1, static_cast<std::uint64_t>(counts[chosen])));
            place = meeting.place_of_rank(rank, [&](int i) {
                return meeting.is_candidate(i) && !meeting.is_picked(i, picks, n_found) && bin_of(i) == chosen;
            });
            const double d = meeting.batch.exact_squared_distance(meeting.anchor, meeting.columns[place]);
            taken = draw_unit(stream, draw + 2) < exp(weights.log_weight(d) - weights.log_bounds[chosen]);
        }
        __syncwarp();  // all have read picks and counts
        if (lane() == 0) { picks[n_found] = meeting.columns[place]; }
        __syncwarp();
    }
}

// What becomes of the candidates: the rule's picks, or their number, or all of them written out.
enum class Task { kPick, kCount, kList };

// The same for a kernel, of which there is one for each kind.
enum class Work { kUniform, kLeading, kWeighted, kCount, kList };

struct Assignment {
    // kWeighted.
    Weights weights;
    std::int32_t* bin_counts;
    // kList: where a row's candidates begin, and what fits in.
    const std::int64_t* row_starts;
    std::int64_t n_listed;
    std::int32_t* listed;
    const std::int32_t* order;
    // By pair: the sum of the listed triplets' d_an.
    double* d_an_sums;
};

// Writes the pair's candidates out; returns what their distances are together, of scaled rows or their roots.
template <class Scalar>
__device__ void list_candidates(const Meeting<Scalar>& meeting, const Assignment& assignment, const Pairs& pairs,
                                std::int64_t first, int pair) {
    int before = 0;
    for (int i = static_cast<int>(lane()); i < pair; i += static_cast<int>(kLanes)) { before += pairs.n_candidates[first + i]; }
    std::int64_t to = assignment.row_starts[meeting.anchor] + sum_of_warp(before);
    double sum = 0.0;
    for (int begin = 0; begin < meeting.n; begin += static_cast<int>(kLanes)) {
        const int i = begin + static_cast<int>(lane());
        const bool holds = i < meeting.n && meeting.is_candidate(i);
        const unsigned votes = __ballot_sync(kAllLanes, holds);
        const std::int64_t mine = to + __popc(votes & lanes_before());
        if (holds) {
            if (mine < assignment.n_listed) { assignment.listed[mine] = assignment.order[meeting.columns[i]]; }
            sum += meeting.band.unsquared(meeting.batch.exact_squared_distance(meeting.anchor, meeting.columns[i]));
        }
        to += __popc(votes);
    }
    sum = sum_of_warp(sum);
    if (lane() == 0) { assignment.d_an_sums[first + pair] = sum; }
}

// A block an anchor, a warp a pair.
template <class Scalar, Work work>
__global__ void __launch_bounds__(kSearchThreads)
    resolve(Batch<Scalar> batch, Pairs pairs, Rule rule, std::uint64_t seed, Stripe stripe, Assignment assignment) {
    constexpr bool picks_some = work != Work::kCount && work != Work::kList;
    const std::size_t at = blockIdx.x;
    const int anchor = stripe.anchors[at];
    const std::int64_t first = pairs.first[anchor];
    const core::AnchorStreams streams(seed, static_cast<std::uint64_t>(anchor));
    // Where an anchor's pairs pick alike, one does it for all.
    const bool alike = work == Work::kLeading && rule.is_common && !rule.moderate;
    const int n = alike ? (pairs.n_of[anchor] != 0 ? 1 : 0) : pairs.n_of[anchor];
    for (int pair = static_cast<int>(warp()); pair < n; pair += static_cast<int>(kSearchWarps)) {
        if (picks_some ? !pairs.is_open(first + pair) : pairs.is_unwanted(first + pair)) { continue; }
        const double d_ap = pairs.d_ap[first + pair];
        const Meeting<Scalar> meeting = {batch,
                                         rule.edges.band,
                                         anchor,
                                         batch.doubt(anchor),
                                         stripe.listed + at * stripe.stride,
                                         stripe.columns + at * stripe.stride,
                                         stripe.n_listed[at],
                                         d_ap,
                                         rule.edges(batch.doubt(anchor), batch.scaled(d_ap))};
        if constexpr (work == Work::kCount) {
            const int n_candidates = meeting.count();
            if (lane() == 0) { pairs.n_candidates[first + pair] = n_candidates; }
            continue;
        }
        if constexpr (work == Work::kList) {
            list_candidates(meeting, assignment, pairs, first, pair);
            continue;
        }
        std::int32_t* picks = pairs.picks_of(first + pair);
        const core::Stream stream = streams(static_cast<std::uint64_t>(pairs.positives[first + pair]));
        if constexpr (work == Work::kUniform) {
            pick_uniformly(meeting, stream, picks, pairs.n_picks);
        } else if constexpr (work == Work::kLeading) {
            pick_leading(meeting, rule.pick == mining::Pick::kNearest ? 1.0F : -1.0F, picks, pairs.n_picks);
        } else if constexpr (work == Work::kWeighted) {
            pick_weighted(meeting, assignment.weights, stream, picks, pairs.n_picks,
                          assignment.bin_counts + (at * kSearchWarps + warp()) * assignment.weights.n_bins());
        }
        __syncwarp();
        if (lane() == 0 && picks[0] == kOpen && rule.if_empty != mining::IfEmpty::kDrop && stripe.fallbacks[at] >= 0) {
            picks[0] = stripe.fallbacks[at];
            pairs.has_fallen_back[first + pair] = 1;
        }
    }
    if (!alike) { return; }
    __syncthreads();
    const int n_picks = pairs.n_picks, n_numbers = pairs.n_of[anchor] * n_picks;
    for (int i = n_picks + static_cast<int>(threadIdx.x); i < n_numbers; i += static_cast<int>(blockDim.x)) {
        pairs.picks_of(first)[i] = pairs.picks_of(first)[i % n_picks];
        pairs.has_fallen_back[first + i / n_picks] = pairs.has_fallen_back[first];
    }
}

}  // namespace cuda
