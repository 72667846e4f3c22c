// One band over one batch: which distances float32 may decide, and what float64 says of the others.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "batch.hpp"
#include "policies.hpp"

namespace mining {

// No squared distance of scaled rows is as large as this.
inline constexpr double kBeyond = 16.0;

// Not more than x, and less than it by no more than a unit or two of its last place.
inline float rounded_down(double x) noexcept {
    const auto y = static_cast<float>(std::clamp(x, -kBeyond, kBeyond));
    return y - (std::fabs(y) * 0x1p-23F + 0x1p-60F);
}
inline float rounded_up(double x) noexcept { return -rounded_down(-x); }

template <class Rule>
class Decider {
  public:
    Decider(const Batch& batch, double margin) noexcept
        : batch_(batch), margin_(margin), scaled_margin_(margin * batch.squared_scale()) {}

    // Outside the possible interval there are no candidates of the pair, inside the sure one is nothing else.
    simd::Edges edges(std::size_t anchor, float d_ap) const noexcept {
        const Interval band = Rule::interval(static_cast<double>(d_ap), scaled_margin_);
        const double doubt = batch_.uncertainty(anchor);
        return {rounded_down(band.low - doubt), rounded_up(band.low + doubt), rounded_down(band.high - doubt),
                rounded_up(band.high + doubt)};
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
    const Batch& batch_;
    double margin_, scaled_margin_;
};

}  // namespace mining
