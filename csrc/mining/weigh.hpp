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
#include "levels.hpp"
#include "leading.hpp"
#include "rule.hpp"

namespace mining {

struct WeighMemory {
    // An anchor's candidates, and then shorter lists, of those that are nearer than some edge; one behind the other.
    core::Buffer<float> distances, their_distances;
    core::Buffer<std::int32_t> columns, their_columns;
    struct Level {
        std::size_t at, n;
    };
    core::Buffer<Level> levels;
    std::size_t n_levels = 0;
    // The bins that are not empty, ascending, and how many candidates each has.
    struct Bin {
        std::size_t bin, n, level;
    };
    core::Buffer<Bin> bins;
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

    // Finds the bins of an anchor's candidates, exactly; before its pairs pick.
    void prepare(std::size_t anchor, float doubt, const Candidates& candidates, ExactDistances& exact,
                 WeighMemory& memory) const noexcept;

    // The pair's k picks, or as many as it has candidates, with the draws from first_draw on.
    void pick(std::size_t anchor, std::size_t positive, const simd::Edges& edges, float doubt, const Decider& decide,
              const core::Stream& stream, std::uint64_t first_draw, ExactDistances& exact, WeighMemory& memory, std::size_t k,
              std::int32_t* picks, float* distances) const noexcept;

  private:
    // A pair and its anchor's candidates.
    struct Pair {
        std::size_t anchor, positive;
        float doubt;
        const simd::Edges& edges;
        const Decider& decide;
        ExactDistances& exact;
        WeighMemory& memory;
        std::span<const std::int32_t> picked;
    };

    using Bin = WeighMemory::Bin;

    double log_weight(double distance) const noexcept;
    std::size_t bin_of(double distance) const noexcept;
    float begin_of(std::size_t bin) const noexcept { return bin == 0 ? simd::kNoLow : edges_[bin - 1]; }
    float end_of(std::size_t bin) const noexcept { return bin == edges_.size() ? __FLT_MAX__ : edges_[bin]; }
    std::size_t count_below(std::size_t edge, std::size_t anchor, float doubt, ExactDistances& exact,
                            WeighMemory& memory) const noexcept;
    Candidates list_of(const WeighMemory& memory, std::size_t level) const noexcept;
    bool is_wholly_in(const Pair& pair, std::size_t bin) const noexcept;
    Candidates candidates_in(const Pair& pair, const Bin& bin) const noexcept;
    std::size_t count(const Pair& pair, const Bin& bin) const noexcept;
    void sum(const Pair& pair) const noexcept;
    bool takes(const Pair& pair, std::size_t bin, float distance, std::size_t column, float doubt, double mark) const noexcept;

    // A bin's weights relative to its bound are known within this many equal parts of it, without a logarithm.
    static constexpr std::size_t kParts = 8;
    struct Chance {
        double least, greatest;
    };

    const Weights& weights_;
    const Batch& batch_;
    const simd::Kernels& kernels_;
    // In scaled units. Where bins are too narrow for float32 to tell them apart, an anchor's lists hold the numbers of the bins
    // in the place of distances, and edges lie between the numbers.
    std::vector<float> edges_;
    bool by_number_ = false;
    std::vector<Chance> chances_;   // kParts a bin
    RelativeBounds relative_;
};

}  // namespace mining
