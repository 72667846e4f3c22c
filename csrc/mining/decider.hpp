// One band over one batch: which distances float32 may decide, and what float64 says of the others.
#pragma once

#include <algorithm>
#include <cstddef>

#include "batch.hpp"
#include "policies.hpp"

namespace mining {

// No squared distance of scaled rows is as large as this.
inline constexpr double kBeyond = 16.0;
static_assert(kPaddingNorm > 3 * kBeyond + 4, "no edge is beyond the distance of a row that is padding");

template <class Rule>
class Decider {
  public:
    Decider(const Batch& batch, double margin) noexcept
        : batch_(batch), margin_(margin), scaled_margin_(margin * batch.squared_scale()) {}

    // What float32 leaves in doubt about an anchor's distances, on either side of an edge: their error, and three roundings
    // of numbers below 2 * kBeyond, by 2^-20 at most, in the arithmetic of edges() itself.
    float doubt(std::size_t anchor) const noexcept {
        return static_cast<float>(std::min(batch_.uncertainty(anchor), 2 * kBeyond) + 0x1p-18);
    }

    // Outside the possible interval there are no candidates of the pair, inside the sure one is nothing else.
    simd::Edges edges(float doubt, float d_ap) const noexcept {
        const Interval band = Rule::interval(static_cast<double>(d_ap), scaled_margin_);
        const float low = clamped(band.low), high = clamped(band.high);
        return {low - doubt, low + doubt, high - doubt, high + doubt};
    }

    static bool sure(const simd::Edges& edges, float d_an) noexcept {
        return edges.sure_low <= d_an && d_an < edges.sure_high;
    }
    static bool possible(const simd::Edges& edges, float d_an) noexcept {
        return edges.possible_low <= d_an && d_an < edges.possible_high;
    }

    // Of distances in float64, in the caller's units.
    bool exact(double d_ap, double d_an) const noexcept { return Rule{}(d_ap, d_an, margin_); }

    bool operator()(std::size_t anchor, std::size_t positive, std::size_t negative, const simd::Edges& edges,
                    float d_an) const noexcept {
        if (sure(edges, d_an)) { return true; }
        return possible(edges, d_an) && exact(batch_.exact_squared_distance(anchor, positive),
                                              batch_.exact_squared_distance(anchor, negative));
    }

  private:
    static float clamped(double x) noexcept { return static_cast<float>(std::clamp(x, -kBeyond, kBeyond)); }

    const Batch& batch_;
    double margin_, scaled_margin_;
};

}  // namespace mining
