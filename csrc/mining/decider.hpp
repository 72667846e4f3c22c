// One band over one batch: which distances float32 may decide, and what float64 says of the others.
#pragma once

#include <algorithm>
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

// A distance in the caller's units as one of scaled rows.
inline float scaled(const Batch& batch, double squared_distance) noexcept {
    return static_cast<float>(std::clamp(squared_distance * batch.squared_scale(), -kBeyond, kBeyond));
}

class Decider {
  public:
    Decider(const Batch& batch, const Band& band) noexcept
        : batch_(batch),
          band_(band),
          low_(band.low * batch.squared_scale()),
          high_(band.high * batch.squared_scale()),
          reach_(band.reach * batch.squared_scale()) {}

    bool is_relative() const noexcept { return band_.relative; }
    float doubt(std::size_t anchor) const noexcept { return doubt_of(batch_, anchor); }

    // Outside the possible interval there are no candidates of the pair, inside the sure one is nothing else.
    simd::Edges edges(float doubt, float d_ap) const noexcept {
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

    // Whether every distance in [low, high), in float64 and in the caller's units, is a candidate of any pair.
    bool holds_all(double low, double high) const noexcept {
        return !band_.relative && (band_.low_is_open ? band_.low < low : band_.low <= low) && high <= band_.high &&
               high <= band_.reach;
    }

    // Of distances in float64, in the caller's units.
    bool exact(double d_ap, double d_an) const noexcept { return band_(d_ap, d_an); }

    bool operator()(std::size_t anchor, std::size_t positive, std::size_t negative, const simd::Edges& edges,
                    float d_an) const noexcept {
        if (sure(edges, d_an)) { return true; }
        return possible(edges, d_an) && exact(batch_.exact_squared_distance(anchor, positive),
                                              batch_.exact_squared_distance(anchor, negative));
    }

  private:
    static float clamped(double x) noexcept { return static_cast<float>(std::clamp(x, -kBeyond, kBeyond)); }

    const Batch& batch_;
    Band band_;
    double low_, high_, reach_;
};

}  // namespace mining
