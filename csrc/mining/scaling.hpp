// How rows are scaled for float32, and the bound on what float32 then gets wrong about them.
#pragma once

#include <cmath>
#include <cstddef>
#include <limits>

namespace mining {

// The squared norm that padding is given, so that it is far from every row.
inline constexpr float kPaddingNorm = 64.0F;

// A row's squared norm must stay below this, so that no sum of squared differences leaves float64's range.
inline constexpr double kLargestSquaredNorm = 1e300;

// Where all squared norms are below this, float64 itself has lost digits to underflow: leave every decision to it.
inline constexpr double kSmallestSquaredNorm = 1e-280;

// Scaled coordinates below this are taken for zero, so that no product of two is denormal. Beside a longest row of norm
// 1/2 or more that moves a squared distance by less than 2^-50, far inside the spare terms of the bound below.
inline constexpr float kSmallestCoordinate = 0x1p-60F;

// The bound. With u = 2^-24, rows a, b and their float32 copies a', b' (coordinates off by u relatively, if the caller's
// are float64), a kernel computes fl(fl(A + B) - 2 fl(a'.b')), A = fl(|a|^2), B = fl(|b|^2). Of the squared distance
// of a and b that is off by at most, in terms of |a|^2 + |b|^2 >= 2 |a||b|, and each times (1 + O(u)),
//   2 g |a||b| <= g (|a|^2 + |b|^2), g = D u / (1 - D u): the product, in any order of summation, fused or not;
//   u, u and 2 u times it: the norms' rounding, their sum's, and the result's (at most 2 (|a|^2 + |b|^2));
//   4 u |a||b| <= 2 u times it: a', b' for a, b in the product.
// That is below (D + 6) u / (1 - D u); 16 instead of 6 leaves room for what float64 rounds away here and in the
// specification and where a centre is taken off, and for kSmallestCoordinate. The other row's squared norm is at most the
// longest row's, and a decision compares two distances, d_ap and d_an: twice the bound.
inline double uncertainty_per_squared_norm(std::size_t size) noexcept {
    const double error = (static_cast<double>(size) + 16.0) * 0x1p-24;
    return error < 0.5 ? 2.0 * error / (1.0 - error) : std::numeric_limits<double>::infinity();
}

// Rows are scaled by a power of two so that the longest has a norm in [1/2, 1).
struct Scaling {
    double scale = 1.0, squared_scale = 1.0;
    double uncertainty = std::numeric_limits<double>::infinity();  // per squared norm of two rows, in scaled units
    double longest = 1.0;  // the longest row's squared norm, in scaled units; 1 where all are too short to be told apart
};

inline Scaling scaling_of(double longest_squared_norm, std::size_t size) noexcept {
    if (longest_squared_norm < kSmallestSquaredNorm) { return {}; }
    int exponent = 0;
    std::frexp(std::sqrt(longest_squared_norm), &exponent);
    return {std::ldexp(1.0, -exponent), std::ldexp(1.0, -2 * exponent), uncertainty_per_squared_norm(size),
            std::ldexp(longest_squared_norm, -2 * exponent)};
}

}  // namespace mining
