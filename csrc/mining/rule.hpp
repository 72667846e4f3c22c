// What to mine: which pairs are looked at, in which band a negative is a candidate, and which candidates are picked.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>
#include <vector>

namespace mining {

template <class Word>
struct Named {
    std::string_view name;
    Word word;
};

template <class Word, std::size_t n>
constexpr std::optional<Word> of_name(const std::array<Named<Word>, n>& words, std::string_view name) noexcept {
    for (const auto& [its_name, word] : words) {
        if (its_name == name) { return word; }
    }
    return std::nullopt;
}

enum class PairChoice { kEachOnce, kBothWays, kHardest, kEasiest, kModerate, kRandom };
inline constexpr std::array<Named<PairChoice>, 6> kPairChoices = {{{"each_once", PairChoice::kEachOnce},
                                                                   {"both_ways", PairChoice::kBothWays},
                                                                   {"hardest_positive", PairChoice::kHardest},
                                                                   {"easiest_positive", PairChoice::kEasiest},
                                                                   {"moderate_positive", PairChoice::kModerate},
                                                                   {"random_positives", PairChoice::kRandom}}};

enum class Pick { kUniform, kNearest, kFarthest, kWeighted, kEvery };
inline constexpr std::array<Named<Pick>, 5> kPicks = {{{"uniform", Pick::kUniform},
                                                       {"nearest", Pick::kNearest},
                                                       {"farthest", Pick::kFarthest},
                                                       {"distance_weighted", Pick::kWeighted},
                                                       {"every", Pick::kEvery}}};

enum class IfEmpty { kDrop, kNearest, kFarthest };
inline constexpr std::array<Named<IfEmpty>, 3> kIfEmpty = {
    {{"drop", IfEmpty::kDrop}, {"nearest", IfEmpty::kNearest}, {"farthest", IfEmpty::kFarthest}}};

inline constexpr double kUnbounded = std::numeric_limits<double>::infinity();

// A negative is a candidate where low <= x < high (low < x, if low is open), x being d_an - d_ap, or d_an where the band is
// not relative, of the roots of the squared distances if the band is one of roots; and where the squared d_an < reach. In the
// caller's units. The interval's ends never fall as d_ap rises.
struct Band {
    bool relative = true;
    double low = -kUnbounded;
    bool low_is_open = false;
    double high = kUnbounded;
    double reach = kUnbounded;
    bool root = false;

    // A squared distance in the unit of the interval's ends.
    constexpr double unsquared(double squared) const noexcept { return root ? std::sqrt(squared) : squared; }

    // Of squared distances.
    constexpr bool operator()(double d_ap, double d_an) const noexcept {
        const double to_negative = unsquared(d_an);
        const double x = relative ? to_negative - unsquared(d_ap) : to_negative;
        return (low_is_open ? low < x : low <= x) && x < high && d_an < reach;
    }
};

// As facenet_fast/mining/sphere.py has it: the logarithm of a weight, and bins of distances of nearly one weight.
struct Weights {
    std::size_t size = 0;
    double unit = 1.0, lowest = 0.0, highest = 0.0;
    std::vector<double> edges, log_bounds;
};

struct Rule {
    Band band;
    PairChoice pairs = PairChoice::kEachOnce;
    std::size_t n_positives = 1;
    double max_d_ap = kUnbounded;  // pairs are looked at below it, in the unit of the band
    double quantile = 1.0;         // and if they are among this share of all, the nearest
    double skip_hardest = 0.0;     // this share of an anchor's negatives is left out, the nearest
    Pick pick = Pick::kUniform;
    std::size_t n_negatives = 1;
    IfEmpty if_empty = IfEmpty::kDrop;
    Weights weights = {};

    bool screens() const noexcept { return max_d_ap < kUnbounded || quantile < 1.0; }
    // Whether pairs try random negatives first; not where looking at all of them is part of the rule.
    bool draws() const noexcept {
        return pick == Pick::kUniform && skip_hardest == 0.0 && pairs != PairChoice::kModerate;
    }
};

// Other tasks than to pick know one result a pair, no draws, and nothing in the place of candidates.
inline Rule without_picks(Rule rule) {
    rule.pick = Pick::kEvery;
    rule.n_negatives = 1;
    rule.if_empty = IfEmpty::kDrop;
    rule.weights = {};
    return rule;
}

}  // namespace mining
