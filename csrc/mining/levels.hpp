// The bounds of weights' bins, taken relative to a level so that float64 holds them, as in mining/reference.py.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "rule.hpp"

namespace mining {

inline constexpr double kLevelHeight = 512.0;

constexpr std::ptrdiff_t level_of(double log_bound) noexcept {
    return static_cast<std::ptrdiff_t>(std::floor(log_bound / kLevelHeight));
}

// exp(bound - level), by level from the lowest on, and by bin.
struct RelativeBounds {
    std::ptrdiff_t lowest_level = 0;
    std::vector<double> values;
};

inline RelativeBounds relative_bounds(const std::vector<double>& log_bounds) {
    RelativeBounds bounds;
    const auto [least, greatest] = std::ranges::minmax(log_bounds);
    bounds.lowest_level = level_of(least);
    for (std::ptrdiff_t level = bounds.lowest_level; level <= level_of(greatest); ++level) {
        for (const double bound : log_bounds) {
            bounds.values.push_back(std::exp(bound - kLevelHeight * static_cast<double>(level)));
        }
    }
    return bounds;
}

}  // namespace mining
