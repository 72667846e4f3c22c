// What a negative must satisfy. A band decides in float64 as mining/reference.py does; its interval says, for the float32
// sieve, where candidates can lie at all, and its ends never fall as d_ap rises. To add one: a struct here, its row in
// kBands, its line in reference.py.
#pragma once

#include <array>
#include <limits>
#include <optional>
#include <string_view>
#include <variant>

namespace mining {

// Of squared distances.
struct Interval {
    double low, high;
};

// VGG Face: the negative violates the margin.
struct Violating {
    static constexpr std::string_view kName = "violating";

    constexpr bool operator()(double d_ap, double d_an, double margin) const noexcept { return d_an - d_ap < margin; }
    static constexpr Interval interval(double d_ap, double margin) noexcept {
        return {-std::numeric_limits<double>::infinity(), d_ap + margin};
    }
};

// FaceNet 3.2: it violates the margin and is farther than the positive.
struct SemiHard {
    static constexpr std::string_view kName = "semi_hard";

    constexpr bool operator()(double d_ap, double d_an, double margin) const noexcept {
        return d_an - d_ap < margin && d_ap < d_an;
    }
    static constexpr Interval interval(double d_ap, double margin) noexcept { return {d_ap, d_ap + margin}; }
};

using Band = std::variant<Violating, SemiHard>;

inline constexpr std::array kBands = {Band{Violating{}}, Band{SemiHard{}}};

inline std::optional<Band> band_of_name(std::string_view name) noexcept {
    for (const Band& band : kBands) {
        if (std::visit([](auto b) { return b.kName; }, band) == name) { return band; }
    }
    return std::nullopt;
}

}  // namespace mining
