// Picks with probabilities proportional to the weight of their distance, as mining/reference.py and mining/sphere.py define
// them: a bin of distances is drawn by the bound of its weights, one of its candidates uniformly, and that is taken with
// the probability of its weight over the bound.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "../core/buffer.hpp"
#include "../core/random.hpp"
#include "batch.hpp"
#include "decider.hpp"
#include "leading.hpp"
#include "rule.hpp"

namespace mining {

struct WeighMemory {
    // An anchor's candidates by bin, in each in the order of their columns.
    core::Buffer<float> distances;
    core::Buffer<std::int32_t> columns, bin_of;
    core::Buffer<std::size_t> first;  // where each bin begins; one more than there are bins
    core::Buffer<std::size_t> bins;   // those that are not empty, ascending
    std::size_t n_bins = 0;
    // Of a pair, by bin that is not empty: candidates, and the sum up to and with it of their number times their bound.
    core::Buffer<std::size_t> counts;
    core::Buffer<double> sums;
    bool are_counted = false;
};

class Weighing {
  public:
    Weighing(const Batch& batch, const Weights& weights);

    // Before a thread weighs, for lists of n at most.
    void reserve(std::size_t n, WeighMemory& memory) const;

    // Sorts an anchor's candidates into bins, exactly; before its pairs pick.
    void sort(std::size_t anchor, float doubt, const Candidates& candidates, ExactDistances& exact,
              WeighMemory& memory) const noexcept;

    // The pair's k picks, or as many as it has candidates, with the draws from first_draw on.
    void pick(std::size_t anchor, std::size_t positive, const simd::Edges& edges, float doubt, const Decider& decide,
              const core::Stream& stream, std::uint64_t first_draw, ExactDistances& exact, WeighMemory& memory, std::size_t k,
              std::int32_t* picks, float* distances) const noexcept;

  private:
    // A pair and its anchor's candidates.
    struct Pair {
        std::size_t anchor, positive;
        const simd::Edges& edges;
        const Decider& decide;
        ExactDistances& exact;
        WeighMemory& memory;
        std::span<const std::int32_t> picked;
    };

    double log_weight(double distance) const noexcept;
    bool is_candidate(const Pair& pair, std::size_t place) const noexcept;
    bool is_wholly_in(const Pair& pair, std::size_t bin) const noexcept;
    std::size_t count(const Pair& pair, std::size_t bin) const noexcept;
    double sum(const Pair& pair) const noexcept;
    std::size_t place_of(const Pair& pair, std::size_t bin, std::size_t rank, std::size_t count) const noexcept;
    bool takes(const Pair& pair, std::size_t bin, std::size_t place, float doubt, double mark) const noexcept;

    // A bin's weights relative to its bound are known within this many equal parts of it, without a logarithm.
    static constexpr std::size_t kParts = 8;
    // A cell of the table that finds a distance's bin.
    static constexpr std::size_t kCells = 2048;

    struct Chance {
        double least, greatest;
    };

    const Weights& weights_;
    std::vector<float> edges_;          // in scaled units
    std::vector<std::uint32_t> cells_;  // by cell, the first bin that reaches into it
    float first_edge_ = 0.0F, cells_per_distance_ = 0.0F;
    std::vector<Chance> chances_;        // kParts a bin
    std::vector<double> relative_;       // exp(bound - level), by level and bin
    std::ptrdiff_t lowest_level_ = 0;
};

}  // namespace mining
