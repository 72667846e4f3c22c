// One band over one batch: which distances float32 may decide, and what float64 says of the others.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "batch.hpp"
#include "edges.hpp"
#include "rule.hpp"

namespace mining {

inline float doubt_of(const Batch& batch, std::size_t anchor) noexcept { return doubt_of(batch.uncertainty(anchor)); }

// A squared distance in the caller's units as one of scaled rows.
inline float scaled(const Batch& batch, double squared_distance) noexcept {
    return clamped(squared_distance * batch.squared_scale());
}

// What roots of scaled distances are times those of the caller's: a power of two, too.
inline double root_scale(const Batch& batch) noexcept { return std::sqrt(batch.squared_scale()); }

// A distance in the unit of a band, below zero too, as a squared distance of scaled rows.
inline float scaled(const Batch& batch, double distance, bool root) noexcept {
    return root ? static_cast<float>(signed_square(distance * root_scale(batch))) : scaled(batch, distance);
}

// A scaled distance as sums take it: itself or, if they are sums of roots, its root. Float32 errs by a part of the rows'
// lengths. That is little beside most distances, but would leave nothing of a short one's root: exact() gives the squared
// distance in float64 and in the caller's units.
template <class Exact>
double summand(const Batch& batch, bool root, float d, float doubt, const Exact& exact) noexcept {
    // Errors are nearer to a hundredth of the doubt than to all of it, and a root has half of its square's, relatively.
    constexpr float kShort = 1024.0F;
    if (!root) { return static_cast<double>(d); }
    return std::sqrt(d >= kShort * doubt ? static_cast<double>(d) : exact() * batch.squared_scale());
}

class Decider {
  public:
    Decider(const Batch& batch, const Band& band) noexcept
        : batch_(batch), band_(band), edges_(scaled_band(band, batch.squared_scale())) {}

    bool is_relative() const noexcept { return band_.relative; }
    float doubt(std::size_t anchor) const noexcept { return doubt_of(batch_, anchor); }

    simd::Edges edges(float doubt, float d_ap) const noexcept { return edges_(doubt, d_ap); }

    static bool sure(const simd::Edges& edges, float d_an) noexcept { return is_sure(edges, d_an); }
    static bool possible(const simd::Edges& edges, float d_an) noexcept { return is_possible(edges, d_an); }

    // Whether every squared distance in [low, high), in float64 and in the caller's units, is a candidate of any pair.
    bool holds_all(double low, double high) const noexcept {
        if (band_.relative || high > band_.reach) { return false; }
        const double from = band_.unsquared(low), to = band_.unsquared(high);
        // A number below the square may have the same root.
        const bool ends_inside = band_.root ? to < band_.high || band_.high == kUnbounded : to <= band_.high;
        return (band_.low_is_open ? band_.low < from : band_.low <= from) && ends_inside;
    }

    // Of squared distances in float64, in the caller's units.
    bool exact(double d_ap, double d_an) const noexcept { return band_(d_ap, d_an); }

    bool operator()(std::size_t anchor, std::size_t positive, std::size_t negative, const simd::Edges& edges,
                    float d_an) const noexcept {
        if (sure(edges, d_an)) { return true; }
        return possible(edges, d_an) && exact(batch_.exact_squared_distance(anchor, positive),
                                              batch_.exact_squared_distance(anchor, negative));
    }

  private:
    const Batch& batch_;
    Band band_;
    BandEdges edges_;
};

}  // namespace mining
