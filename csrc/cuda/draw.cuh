// Random negatives, for the pairs that mining/reference.py lets draw, and as many as it says.
#pragma once

#include "pairs.cuh"

namespace cuda {

// A thread a trial, of one block: how many of random (pair, negative) trials are candidates. first_pair numbers the pairs.
template <class Scalar>
__global__ void try_pilot(Batch<Scalar> batch, Groups groups, Pairs pairs, mining::Band band, std::uint64_t seed,
                          const std::int64_t* first_pair, int* n_hits) {
    __shared__ int by_warp[mining::kPilotTrials / kLanes];
    const core::Stream stream = core::AnchorStreams(seed, mining::kPilotStream)(threadIdx.x);
    const auto n_pairs = static_cast<std::uint64_t>(first_pair[groups.n_rows]);
    bool hit = false;
    if (n_pairs != 0) {
        const auto pair = static_cast<std::int64_t>(stream.draw(0, n_pairs));
        int begin = 0, end = groups.n_rows;  // first_pair[begin] <= pair < first_pair[end]
        while (end - begin > 1) {
            const int middle = begin + (end - begin) / 2;
            (first_pair[middle] <= pair ? begin : end) = middle;
        }
        if (groups.n_negatives(begin) != 0) {
            const double d_ap = pairs.d_ap[pairs.first[begin] + (pair - first_pair[begin])];
            hit = band(d_ap, batch.exact_squared_distance(begin, groups.draw_negative(begin, stream, 1)));
        }
    }
    const int hits = sum_of_block(hit ? 1 : 0, by_warp);
    if (threadIdx.x == 0) { *n_hits = hits; }
}

inline constexpr unsigned kDrawThreads = 128;

// Eight lanes draw numbers begin .. end of a pair's stream until it has all of its picks; returns whether it has.
template <class Scalar>
__device__ bool take_drawn(const Batch<Scalar>& batch, const Groups& groups, const Pairs& pairs, const mining::Band& band,
                           std::uint64_t seed, int anchor, std::int64_t pair, std::uint64_t begin, std::uint64_t end) {
    const unsigned mask = my_eight();
    const core::Stream stream = core::AnchorStreams(seed, static_cast<std::uint64_t>(anchor))(
        static_cast<std::uint64_t>(pairs.positives[pair]));
    std::int32_t* picks = pairs.picks_of(pair);
    int n_found = 0;
    while (n_found < pairs.n_picks && picks[n_found] != kOpen) { ++n_found; }
    const double d_ap = pairs.d_ap[pair];
    for (std::uint64_t i = begin; i < end && n_found < pairs.n_picks; ++i) {
        const int negative = groups.draw_negative(anchor, stream, i);
        bool is_new = true;
        for (int j = 0; j < n_found; ++j) { is_new = is_new && picks[j] != negative; }
        if (!is_new || !band(d_ap, batch.exact_of_eight(anchor, negative, mask))) { continue; }
        __syncwarp(mask);  // all have read the picks
        if (lane_of_eight() == 0) { picks[n_found] = negative; }
        __syncwarp(mask);
        ++n_found;
    }
    return n_found == pairs.n_picks;
}

// A warp an anchor, of the rows from first_row on; its eights take one pair after the other. samples is scratch, n_sampled
// distances an anchor.
template <class Scalar>
__global__ void draw_picks(Batch<Scalar> batch, Groups groups, Pairs pairs, mining::Band band, std::uint64_t seed,
                           const int* n_hits, int first_row, int n_sampled, double* samples) {
    const int place = static_cast<int>(blockIdx.x * (blockDim.x / kLanes) + warp());
    const int row = first_row + place;
    if (row >= groups.n_rows || groups.is_anchor[row] == 0 || groups.n_negatives(row) == 0 || pairs.n_of[row] == 0) { return; }
    const bool pilot = static_cast<std::uint64_t>(*n_hits) >= mining::kPilotHits;
    if (!pilot && static_cast<std::size_t>(groups.n_rows) < mining::kSampleFromRows) { return; }
    const int eight = static_cast<int>(lane() / kEight), n_eights = static_cast<int>(kLanes / kEight);
    const unsigned mask = my_eight();
    double* its_samples = samples + static_cast<std::size_t>(place) * n_sampled;
    if (!pilot) {
        const core::Stream stream = core::AnchorStreams(seed, static_cast<std::uint64_t>(row))(static_cast<std::uint64_t>(row));
        for (int i = eight; i < n_sampled; i += n_eights) {
            const double d = batch.exact_of_eight(row, groups.draw_negative(row, stream, static_cast<std::uint64_t>(i)), mask);
            if (lane_of_eight() == 0) { its_samples[i] = d; }
        }
        __syncwarp();
    }
    const std::uint64_t n_draws = static_cast<std::uint64_t>(pairs.n_picks) *
                                  (pilot ? mining::kDraws : mining::kDrawsPerSampled * static_cast<std::uint64_t>(n_sampled));
    int n_left = 0;
    for (int i = eight; i < pairs.n_of[row]; i += n_eights) {
        const std::int64_t pair = pairs.first[row] + i;
        bool draws = pilot;
        if (!pilot) {
            int hits = 0;
            for (int s = static_cast<int>(lane_of_eight()); s < n_sampled; s += static_cast<int>(kEight)) {
                hits += band(pairs.d_ap[pair], its_samples[s]) ? 1 : 0;
            }
            for (unsigned half = kEight / 2; half != 0; half /= 2) { hits += __shfl_xor_sync(mask, hits, half); }
            draws = static_cast<std::size_t>(hits) >= mining::kSampleHits;
        }
        if (draws) { n_left += take_drawn(batch, groups, pairs, band, seed, row, pair, 0, n_draws) ? 0 : 1; }
    }
    __syncwarp();
    n_left = sum_of_warp(lane_of_eight() == 0 ? n_left : 0);
    if (!pilot || n_left == 0) { return; }
    const std::uint64_t n_more =
        static_cast<std::uint64_t>(groups.n_rows) / (mining::kMoreDraws * static_cast<std::uint64_t>(n_left));
    for (int i = eight; i < pairs.n_of[row]; i += n_eights) {
        const std::int64_t pair = pairs.first[row] + i;
        if (pairs.is_open(pair)) { take_drawn(batch, groups, pairs, band, seed, row, pair, n_draws, n_draws + n_more); }
    }
}

}  // namespace cuda
