// What of a pair's band float32 may decide. Its functions run on devices, too, and so they are constexpr.
#pragma once

#include <algorithm>
#include <cmath>

#include "../simd/kernels.hpp"
#include "rule.hpp"
#include "scaling.hpp"

namespace mining {

// No squared distance of scaled rows is as large as this.
inline constexpr double kBeyond = 16.0;
static_assert(kPaddingNorm > 3 * kBeyond + 4, "no edge is beyond the distance of a row that is padding");

// What float32 leaves in doubt about an anchor's distances, on either side of an edge or between two of them: their error,
// and three roundings of numbers below 2 * kBeyond, by 2^-20 at most, in the arithmetic of BandEdges itself.
constexpr float doubt_of(double uncertainty) noexcept {
    return static_cast<float>(std::min(uncertainty, 2 * kBeyond) + 0x1p-18);
}

// (Not by std::clamp, whose references to a constant of the host's would trap on a device.)
constexpr float clamped(double x) noexcept {
    return static_cast<float>(x < -kBeyond ? -kBeyond : x > kBeyond ? kBeyond : x);
}

// The square of a root of a scaled distance, with the root's sign: as roots rise, it rises all the way.
constexpr double signed_square(double root) noexcept {
    static_assert(kBeyond == 16.0);
    const double inside = std::clamp(root, -4.0, 4.0);
    return inside * (inside < 0.0 ? -inside : inside);
}

constexpr bool is_sure(const simd::Edges& edges, float d_an) noexcept {
    return edges.sure_low <= d_an && d_an < edges.sure_high;
}
constexpr bool is_possible(const simd::Edges& edges, float d_an) noexcept {
    return edges.possible_low <= d_an && d_an < edges.possible_high;
}

// A band over distances of scaled rows.
struct BandEdges {
    Band band;
    double low, high, reach;  // in scaled units; the first two are roots if the band's ends are

    // Outside the possible interval there are no candidates of the pair, inside the sure one is nothing else.
    constexpr simd::Edges operator()(float doubt, float d_ap) const noexcept {
        if (band.root) { return of_roots(static_cast<double>(doubt), static_cast<double>(d_ap)); }
        const double from = band.relative ? static_cast<double>(d_ap) : 0.0;
        const float to_high = clamped(std::min(from + high, reach));
        if (band.low == -kUnbounded) { return {simd::kNoLow, simd::kNoLow, to_high - doubt, to_high + doubt}; }
        const float to_low = clamped(from + low);
        return {to_low - doubt, to_low + doubt, to_high - doubt, to_high + doubt};
    }

  private:
    // Half of the doubt is d_ap's and half is d_an's. The end of a band lies at the square of root(d_ap) + end, which rises
    // with d_ap: by how much depends on both, so it is taken at either end of what d_ap may be. Where root(d_ap) + end is
    // negative, so is what is taken for its square, and every distance lies beyond it. What float64 rounds here and in the
    // specification is less than 2^-45, and float32 rounds once.
    constexpr simd::Edges of_roots(double doubt, double d_ap) const noexcept {
        const double half = 0.5 * doubt;
        const double from = band.relative ? std::sqrt(std::max(d_ap - half, 0.0)) : 0.0;
        const double to = band.relative ? std::sqrt(std::max(d_ap + half, 0.0)) : 0.0;
        const auto sure_high = static_cast<float>(std::min(signed_square(from + high), reach) - half);
        const auto possible_high = static_cast<float>(std::min(signed_square(to + high), reach) + half);
        if (band.low == -kUnbounded) { return {simd::kNoLow, simd::kNoLow, sure_high, possible_high}; }
        return {static_cast<float>(signed_square(from + low) - half), static_cast<float>(signed_square(to + low) + half),
                sure_high, possible_high};
    }
};

// Of rows whose squared distances are scaled by so much.
inline BandEdges scaled_band(const Band& band, double squared_scale) noexcept {
    const double scale = band.root ? std::sqrt(squared_scale) : squared_scale;
    return {band, band.low * scale, band.high * scale, band.reach * squared_scale};
}

}  // namespace mining
