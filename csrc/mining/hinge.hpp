// The hinge loss of every triplet that a rule holds for candidates, and its gradient, without a list of them.
//
// In an anchor's list of pairs, the farthest positive first, a negative at d_an belongs to those whose d_ap is above some
// value: a rank says which. So one number for each two rows, made of a tile of distances, sums up what all their triplets
// have of the gradient, and its product with the rows is the gradient: N^2 (D + K) steps for N^2 K triplets. Each row's part is
// made by one thread in one order: results do not depend on the number of threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "../core/buffer.hpp"
#include "batch.hpp"
#include "blocks.hpp"
#include "groups.hpp"
#include "pairs.hpp"
#include "rule.hpp"

namespace mining {

struct HingeMemory {
    core::Buffer<double> d_ap, losses, weight_sums;
    core::Buffer<std::int64_t> n_triplets, first_group;
    core::Buffer<std::uint32_t> counts;
    core::Buffer<float> high, low, column_weights, gradient;
    core::Buffer<simd::Thresholds> thresholds;
    struct Own {
        BlockMemory block;
        core::Buffer<float> high, low;
        core::Buffer<std::pair<double, std::int32_t>> sorted;
    };
    std::vector<Own> by_thread;
};

struct HingeRequest {
    // Its pairs, which must not be the moderate ones, and its band, which must be relative.
    const Rule& rule;
    // A loss is max(0, d_ap - d_an + margin), in the unit of the band.
    double margin;
    std::uint64_t seed;
    // By grouped row: how much an anchor's loss counts in the gradient.
    std::span<const double> weights;
    int n_threads;
};

// By grouped row: the sum of the losses of an anchor's triplets, and how many of them are above zero and in the band. The
// gradient of the weighted sum of the losses is in memory.gradient, stride numbers a row. All in the caller's units.
struct Hinge {
    std::span<const double> losses;
    std::span<const std::int64_t> n_triplets;
    std::span<const float> gradient;
    double gradient_unit;  // what those numbers are to be multiplied with
};

Hinge sum_hinges(const HingeRequest& request, Batch& batch, const Groups& groups, PairsMemory& pairs_memory,
                 HingeMemory& memory);

}  // namespace mining
