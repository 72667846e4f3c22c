// From the candidates of an anchor to the picks of its open pairs.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "../core/buffer.hpp"
#include "../core/random.hpp"
#include "batch.hpp"
#include "decider.hpp"
#include "draw.hpp"
#include "pairs.hpp"

namespace mining {

// Columns of other identities, in order, and how far they are from the anchor.
struct Candidates {
    const float* distances;
    const std::int32_t* columns;
    std::size_t n;
};

// Nested lists: each holds of the one before what is nearer than a bound.
inline constexpr std::size_t kLevels = 4;

struct PickMemory {
    core::Buffer<simd::Edges> edges;
    core::Buffer<float> distances;
    core::Buffer<std::int32_t> columns;
    core::Buffer<double> exact;
};

template <class Rule>
class Picking {
  public:
    Picking(const Batch& batch, const Pairs& pairs, const Decider<Rule>& decide, std::uint64_t seed) noexcept
        : batch_(batch), groups_(pairs.groups), pairs_(pairs), decide_(decide), seed_(seed) {}

    // Before a thread picks: nothing is allocated while it does.
    void reserve(PickMemory& memory) const {
        memory.edges.take(groups_.largest());
        memory.distances.take(kLevels * stride());
        memory.columns.take(kLevels * stride());
        memory.exact.take(groups_.n_rows());
    }

    // Candidates may include columns that none of the pairs wants, but must not lack any that one may want.
    void pick_for(std::size_t anchor, const Candidates& candidates, PickMemory& memory) const noexcept {
        const core::AnchorStreams streams(seed_, anchor);
        const auto picks = pairs_.picks_of(anchor);
        const auto d_ap = pairs_.d_ap_of(anchor);
        const auto edges = memory.edges.take(picks.size());
        const float doubt = decide_.doubt(anchor);
        for (std::size_t i = 0; i < picks.size(); ++i) { edges[i] = decide_.edges(doubt, d_ap[i]); }
        const Levels levels = nest(candidates, picks, edges, memory);
        bool exact_begun = false;
        for (std::size_t i = 0; i < picks.size(); ++i) {
            if (picks[i] >= 0) { continue; }
            const Candidates& list = levels.narrowest(edges[i].possible_high);
            const simd::Counts found = batch_.kernels().count(list.distances, list.n, edges[i]);
            const auto rank_among = [&](std::size_t n) { return streams(anchor + 1 + i).draw(kRankDraw, n); };
            if (found.possible == found.sure) {
                if (found.sure == 0) { continue; }
                const std::size_t place = batch_.kernels().select(
                    list.distances, list.n, edges[i].possible_low, edges[i].possible_high, rank_among(found.sure));
                picks[i] = list.columns[place];
            } else {
                if (!exact_begun) { forget_exact(candidates, memory); }
                exact_begun = true;
                const auto accepted = accept(anchor, anchor + 1 + i, edges[i], list, memory);
                if (!accepted.empty()) { picks[i] = accepted[rank_among(accepted.size())]; }
            }
        }
    }

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

    // Most pairs want few of the columns that the anchor's widest pair wants: let them look at those alone.
    Levels nest(const Candidates& candidates, std::span<const std::int32_t> picks, std::span<const simd::Edges> edges,
                PickMemory& memory) const noexcept {
        // A shorter list is scanned as fast as it is shortened.
        constexpr std::size_t kShort = 48;
        Levels levels = {{candidates}, {0.0F}, 1};
        if (candidates.n < kShort) { return levels; }
        float nearest = std::numeric_limits<float>::max();
        float farthest = std::numeric_limits<float>::lowest();
        for (std::size_t i = 0; i < picks.size(); ++i) {
            if (picks[i] >= 0) { continue; }
            nearest = std::min(nearest, edges[i].possible_high);
            farthest = std::max(farthest, edges[i].possible_high);
        }
        for (; levels.n < kLevels && levels.lists[levels.n - 1].n >= kShort; ++levels.n) {
            const Candidates& wider = levels.lists[levels.n - 1];
            const float share = static_cast<float>(levels.n) / static_cast<float>(kLevels);
            const float bound = farthest - share * (farthest - nearest);
            float* distances = memory.distances.take(kLevels * stride()).data() + levels.n * stride();
            std::int32_t* columns = memory.columns.take(kLevels * stride()).data() + levels.n * stride();
            const std::size_t n =
                batch_.kernels().filter(wider.distances, wider.columns, wider.n,
                                        std::numeric_limits<float>::lowest(), bound, distances, columns);
            levels.lists[levels.n] = {distances, columns, n};
            levels.bounds[levels.n] = bound;
        }
        return levels;
    }

    // The columns that are candidates, where float32 cannot say of all. An anchor's exact distances are computed at most
    // once each: where many embeddings coincide, every pair asks for all of them.
    std::span<const std::int32_t> accept(std::size_t anchor, std::size_t positive, const simd::Edges& edges,
                                         const Candidates& list, PickMemory& memory) const noexcept {
        const double d_ap = batch_.exact_squared_distance(anchor, positive);
        const auto exact = memory.exact.take(groups_.n_rows());
        // Where the first level would be, whose list is the caller's own.
        std::int32_t* accepted = memory.columns.take(kLevels * stride()).data();
        float* distances = memory.distances.take(kLevels * stride()).data();
        const std::size_t n_possible = batch_.kernels().filter(
            list.distances, list.columns, list.n, edges.possible_low, edges.possible_high, distances, accepted);
        std::size_t n_accepted = 0;
        for (std::size_t i = 0; i < n_possible; ++i) {
            const auto column = static_cast<std::size_t>(accepted[i]);
            if (!decide_.sure(edges, distances[i])) {
                if (std::isnan(exact[column])) { exact[column] = batch_.exact_squared_distance(anchor, column); }
                if (!decide_.exact(d_ap, exact[column])) { continue; }
            }
            accepted[n_accepted++] = accepted[i];
        }
        return {accepted, n_accepted};
    }

    void forget_exact(const Candidates& candidates, PickMemory& memory) const noexcept {
        const auto exact = memory.exact.take(groups_.n_rows());
        for (std::size_t i = 0; i < candidates.n; ++i) {
            exact[static_cast<std::size_t>(candidates.columns[i])] = std::numeric_limits<double>::quiet_NaN();
        }
    }

    std::size_t stride() const noexcept { return groups_.n_rows() + simd::kSlack; }

    const Batch& batch_;
    const Groups& groups_;
    const Pairs& pairs_;
    const Decider<Rule>& decide_;
    std::uint64_t seed_;
};

}  // namespace mining
