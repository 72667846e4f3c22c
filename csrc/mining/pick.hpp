// From the candidates of an anchor to the picks of its pairs, by any rule: the miner's side of the tile engine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "../core/buffer.hpp"
#include "../core/random.hpp"
#include "batch.hpp"
#include "decider.hpp"
#include "draw.hpp"
#include "leading.hpp"
#include "pairs.hpp"
#include "rule.hpp"
#include "search.hpp"
#include "weigh.hpp"

namespace mining {

// What becomes of the candidates.
enum class Task {
    kPick,   // the rule's picks
    kCount,  // how many a pair has stands where its pick would
    kTake,   // the one of a rank that is given for each pair
    kList    // all are written out
};

struct Assignment {
    Task task = Task::kPick;
    // kTake: by pair of the anchors, -1 for none.
    std::span<const std::int64_t> ranks = {};
    // Where a row's pairs begin in ranks, or its candidates in listed. What does not fit in there is not listed.
    std::span<const std::int64_t> row_starts = {};
    std::span<std::int32_t> listed = {};
};

// Nested lists: each holds of the one before what is nearer than a bound.
inline constexpr std::size_t kLevels = 4;

struct PickMemory {
    core::Buffer<simd::Edges> edges;
    core::Buffer<float> distances, doubtful_distances, samples, kept_distances, positive_distances;
    core::Buffer<std::int32_t> columns, doubtful_columns, kept_columns, positive_columns, rest;
    ExactMemory exact;
    LeadingMemory leading;
    WeighMemory weigh;
};

class Picking {
  public:
    Picking(const Batch& batch, const Pairs& pairs, const Rule& rule, const Assignment& assignment, std::uint64_t seed,
            std::span<double> row_sums, std::span<PickMemory> memory);

    // The tile engine's questions.
    float limit(std::size_t row, std::size_t thread) const noexcept;
    Excluded excluded(std::size_t row) const noexcept { return {groups_.begin(row), groups_.end(row)}; }
    bool resolve(std::size_t anchor, const Candidates& candidates, float limit, std::size_t thread) const noexcept;

  private:
    struct Levels {
        Candidates lists[kLevels];
        float bounds[kLevels];
        std::size_t n;

        const Candidates& narrowest(float high) const noexcept {
            std::size_t level = n - 1;
            while (level != 0 && bounds[level] < high) { --level; }
            return lists[level];
        }
    };

    // One anchor's work.
    struct Anchor {
        std::size_t row;
        float doubt;
        std::span<const std::int32_t> positives;
        std::span<const float> d_ap;
        std::span<std::int32_t> picks;
        std::span<float> d_an;
        Candidates candidates;
        PickMemory& memory;
        ExactDistances exact;
        std::ptrdiff_t fallback = -1;  // the candidate that pairs without any of their own get
    };

    bool is_open(const Anchor& anchor, std::size_t pair) const noexcept;
    bool picks_nearest() const noexcept { return assignment_.task == Task::kPick && rule_.pick == Pick::kNearest; }
    bool skips() const noexcept { return rule_.skip_hardest > 0.0; }
    bool needs_all() const noexcept {
        return rule_.if_empty == IfEmpty::kFarthest || (skips() && (picks_nearest() || needs_nearest()));
    }
    bool needs_nearest() const noexcept {
        return rule_.if_empty == IfEmpty::kNearest || rule_.pairs == PairChoice::kModerate;
    }
    std::size_t n_samples(std::size_t row) const noexcept;
    std::span<const float> sample(std::size_t row, PickMemory& memory) const noexcept;
    float enough(const simd::Edges& edges, std::span<const float> samples, float doubt) const noexcept;
    Anchor anchor_at(std::size_t row, PickMemory& memory) const noexcept;

    // Places of the k nearest, or farthest, of a list of the anchor's.
    std::span<const std::int32_t> leading_of(From from, Anchor& anchor, const Candidates& list, std::size_t k) const noexcept {
        return leading(from, list, k, anchor.row, anchor.doubt, anchor.exact, anchor.memory.leading);
    }
    bool skip_the_hardest(Anchor& anchor, float limit) const noexcept;
    void choose_moderate(Anchor& anchor) const noexcept;
    Levels nest(const Anchor& anchor, std::span<const simd::Edges> edges) const noexcept;
    // The candidates of a pair, where float32 cannot say of all.
    Candidates accept(Anchor& anchor, std::size_t pair, const simd::Edges& edges, const Candidates& list) const noexcept;
    std::size_t count(Anchor& anchor, std::size_t pair, const simd::Edges& edges, const Candidates& list) const noexcept;
    // The candidate of the rank that rank_among(their number) says; none where there are fewer.
    template <class RankAmong>
    void take_one(Anchor& anchor, std::size_t pair, const simd::Edges& edges, const Candidates& list,
                  const RankAmong& rank_among) const noexcept;
    void pick_uniformly(Anchor& anchor, std::size_t pair, const simd::Edges& edges, const Candidates& list) const noexcept;
    void pick_leading(From from, Anchor& anchor, std::size_t pair, const simd::Edges& edges,
                      const Candidates& list) const noexcept;
    void fall_back(Anchor& anchor, std::size_t pair) const noexcept;
    void set(const Anchor& anchor, std::size_t pair, std::size_t pick, const Candidates& list,
             std::size_t place) const noexcept {
        anchor.picks[pair * pairs_.n_picks + pick] = list.columns[place];
        anchor.d_an[pair * pairs_.n_picks + pick] = list.distances[place];
    }
    std::size_t stride() const noexcept { return groups_.n_rows() + simd::kSlack; }

    const Batch& batch_;
    const Pairs& pairs_;
    const Groups& groups_;
    const Rule& rule_;
    const Decider decide_;
    const Assignment assignment_;
    std::uint64_t seed_;
    // Sums over the listed triplets of d_ap and d_an, two a row.
    std::span<double> row_sums_;
    std::span<PickMemory> memory_;
    const Weighing weighing_;
};

}  // namespace mining
