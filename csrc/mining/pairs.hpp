// The (anchor, positive) pairs that a rule looks at, and what mining knows of each.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "../core/buffer.hpp"
#include "batch.hpp"
#include "groups.hpp"
#include "leading.hpp"
#include "rule.hpp"

namespace mining {

// Stands for a pick that a pair lacks, or lacks yet.
inline constexpr std::int32_t kOpen = -1;
// Stands in a pair's first pick where the rule turned out not to look at the pair.
inline constexpr std::int32_t kUnwanted = -2;

struct PairsMemory {
    core::Buffer<std::int64_t> first_candidate, first_pair;
    core::Buffer<std::int32_t> positives, picks, n_fallen_back;
    core::Buffer<float> d_ap, d_an;
    core::Buffer<double> exact;
    struct Own {
        core::Buffer<std::int32_t> places;
        ExactMemory exact;
        LeadingMemory leading;
    };
    std::vector<Own> by_thread;
};

struct Pairs {
    const Groups& groups;
    // By row: whether its pairs are mined. Empty: all are.
    std::span<const std::uint8_t> anchors;
    std::span<const std::int64_t> first_pair;
    // By pair.
    std::span<std::int32_t> positives;
    std::span<float> d_ap;
    // By pair and pick.
    std::size_t n_picks;
    std::span<std::int32_t> picks;
    std::span<float> d_an;
    // By row: its pairs that have no candidate and got another negative.
    std::span<std::int32_t> n_fallen_back;

    bool is_anchor(std::size_t row) const noexcept { return anchors.empty() || anchors[row] != 0; }
    std::size_t n() const noexcept { return positives.size(); }
    std::size_t first(std::size_t anchor) const noexcept { return static_cast<std::size_t>(first_pair[anchor]); }
    std::size_t n_of(std::size_t anchor) const noexcept { return first(anchor + 1) - first(anchor); }
    std::size_t anchor_of(std::size_t pair) const noexcept {
        const auto after = std::upper_bound(first_pair.begin(), first_pair.end(), static_cast<std::int64_t>(pair));
        return static_cast<std::size_t>(after - first_pair.begin()) - 1;
    }

    std::span<std::int32_t> positives_of(std::size_t anchor) const noexcept {
        return positives.subspan(first(anchor), n_of(anchor));
    }
    std::span<float> d_ap_of(std::size_t anchor) const noexcept { return d_ap.subspan(first(anchor), n_of(anchor)); }
    // Pick j of the anchor's pair i is entry i * n_picks + j.
    std::span<std::int32_t> picks_of(std::size_t anchor) const noexcept {
        return picks.subspan(first(anchor) * n_picks, n_of(anchor) * n_picks);
    }
    std::span<float> d_an_of(std::size_t anchor) const noexcept {
        return d_an.subspan(first(anchor) * n_picks, n_of(anchor) * n_picks);
    }
};

// Lists the pairs, all picks open. Those of a rule with random draws are listed for every row, the others for anchors at
// least; measured are those of anchors. The moderate positive needs the nearest negative: all pairs both ways are listed
// for it, and whoever meets the negatives chooses.
Pairs list_pairs(const Rule& rule, std::uint64_t seed, const Batch& batch, const Groups& groups,
                 std::span<const std::uint8_t> anchors, int n_threads, PairsMemory& memory);

}  // namespace mining
