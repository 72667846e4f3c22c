// One band over one batch: which distances float32 may decide, and what float64 says of the others.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "batch.hpp"
#include "rule.hpp"

namespace mining {

// No squared distance of scaled rows is as large as this.
inline constexpr double kBeyond = 16.0;
static_assert(kPaddingNorm > 3 * kBeyond + 4, "no edge is beyond the distance of a row that is padding");

// What float32 leaves in doubt about an anchor's distances, on either side of an edge or between two of them: their error,
// and three roundings of numbers below 2 * kBeyond, by 2^-20 at most, in the arithmetic of Decider::edges() itself.
inline float doubt_of(const Batch& batch, std::size_t anchor) noexcept {
    return static_cast<float>(std::min(batch.uncertainty(anchor), 2 * kBeyond) + 0x1p-18);
}

// A squared distance in the caller's units as one of scaled rows.
inline float scaled(const Batch& batch, double squared_distance) noexcept {
    return static_cast<float>(std::clamp(squared_distance * batch.squared_scale(), -kBeyond, kBeyond));
}

// What roots of scaled distances are times those of the caller's: a power of two, too.
inline double root_scale(const Batch& batch) noexcept { return std::sqrt(batch.squared_scale()); }

// The square of a root of a scaled distance, with the root's sign: as roots rise, it rises all the way.
inline double signed_square(double root) noexcept {
    static_assert(kBeyond == 16.0);
    const double inside = std::clamp(root, -4.0, 4.0);
    return inside * std::fabs(inside);
}

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
        : batch_(batch),
          band_(band),
          low_(band.low * (band.root ? root_scale(batch) : batch.squared_scale())),
          high_(band.high * (band.root ? root_scale(batch) : batch.squared_scale())),
          reach_(band.reach * batch.squared_scale()) {}

    bool is_relative() const noexcept { return band_.relative; }
    float doubt(std::size_t anchor) const noexcept { return doubt_of(batch_, anchor); }

    // Outside the possible interval there are no candidates of the pair, inside the sure one is nothing else.
    simd::Edges edges(float doubt, float d_ap) const noexcept {
        if (band_.root) { return edges_of_roots(static_cast<double>(doubt), static_cast<double>(d_ap)); }
        const double from = band_.relative ? static_cast<double>(d_ap) : 0.0;
        const float high = clamped(std::min(from + high_, reach_));
        if (band_.low == -kUnbounded) { return {simd::kNoLow, simd::kNoLow, high - doubt, high + doubt}; }
        const float low = clamped(from + low_);
        return {low - doubt, low + doubt, high - doubt, high + doubt};
    }

    static bool sure(const simd::Edges& edges, float d_an) noexcept {
        return edges.sure_low <= d_an && d_an < edges.sure_high;
    }
    static bool possible(const simd::Edges& edges, float d_an) noexcept {
        return edges.possible_low <= d_an && d_an < edges.possible_high;
    }

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
    static float clamped(double x) noexcept { return static_cast<float>(std::clamp(x, -kBeyond, kBeyond)); }

    // Half of the doubt is d_ap's and half is d_an's. The end of a band lies at the square of root(d_ap) + end, which rises
    // with d_ap: by how much depends on both, so it is taken at either end of what d_ap may be. Where root(d_ap) + end is
    // negative, so is what is taken for its square, and every distance lies beyond it. What float64 rounds here and in the
    // specification is less than 2^-45, and float32 rounds once.
    simd::Edges edges_of_roots(double doubt, double d_ap) const noexcept {
        const double half = 0.5 * doubt;
        const double from = band_.relative ? std::sqrt(std::max(d_ap - half, 0.0)) : 0.0;
        const double to = band_.relative ? std::sqrt(std::max(d_ap + half, 0.0)) : 0.0;
        const auto sure_high = static_cast<float>(std::min(signed_square(from + high_), reach_) - half);
        const auto possible_high = static_cast<float>(std::min(signed_square(to + high_), reach_) + half);
        if (band_.low == -kUnbounded) { return {simd::kNoLow, simd::kNoLow, sure_high, possible_high}; }
        return {static_cast<float>(signed_square(from + low_) - half), static_cast<float>(signed_square(to + low_) + half),
                sure_high, possible_high};
    }

    const Batch& batch_;
    Band band_;
    double low_, high_, reach_;  // in scaled units; the first two are roots if the band's ends are
};

}  // namespace mining
