// What mining knows of every (anchor, later positive) pair.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "groups.hpp"

namespace mining {

// Stands for the pick of a pair that has none, or none yet.
inline constexpr std::int32_t kOpen = -1;

struct Pairs {
    const Groups& groups;
    // By row: whether its pairs are mined. Empty: all are.
    std::span<const std::uint8_t> anchors;
    std::span<float> d_ap;
    std::span<std::int32_t> picks;

    bool is_anchor(std::size_t row) const noexcept { return anchors.empty() || anchors[row] != 0; }

    // By anchor: entry i belongs to the positive anchor + 1 + i.
    std::span<float> d_ap_of(std::size_t anchor) const noexcept {
        return d_ap.subspan(groups.first_pair(anchor), groups.n_pairs(anchor));
    }
    std::span<std::int32_t> picks_of(std::size_t anchor) const noexcept {
        return picks.subspan(groups.first_pair(anchor), groups.n_pairs(anchor));
    }
};

}  // namespace mining
