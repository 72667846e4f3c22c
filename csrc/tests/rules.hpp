// Rules to test by: every word of the vocabulary in the company of others.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "oracle.hpp"
#include "problems.hpp"

namespace rules {

using oracle::Band;
using oracle::kInfinity;
using oracle::Rule;
using oracle::Weights;

struct Named {
    std::string name;
    Rule rule;
};
using Table = std::vector<Named>;

// Distances of the table are multiples of it: where those of a batch are too, they tie.
inline constexpr double kMargin = 0.25;

inline constexpr Band kAll = {.relative = false};
inline constexpr Band kViolating = {.high = kMargin};
inline constexpr Band kSemiHard = {.low = 0.0, .low_is_open = true, .high = kMargin};
inline constexpr Band kHard = {.high = 0.0};
inline constexpr Band kFarther = {.low = 0.0, .low_is_open = true};
inline constexpr Band kNobody = {.low = 1e6};

// For rows of any length.
inline const Table& table() {
    static const Table rules = {
        // bands
        {"violating", {.band = kViolating}},
        {"semi_hard", {.band = kSemiHard}},
        {"hard", {.band = kHard}},
        {"farther", {.band = kFarther}},
        {"all", {.band = kAll}},
        {"relative", {.band = {.low = -0.25, .high = 0.5}}},
        {"relative, open",
         {.band = {.low = -0.25, .low_is_open = true, .high = 0.25}, .pairs = "both_ways", .pick = "nearest"}},
        {"absolute", {.band = {.relative = false, .low = 0.75, .high = 1.5}, .pairs = "both_ways"}},
        {"absolute, open", {.band = {.relative = false, .low = 0.75, .low_is_open = true}, .pick = "nearest"}},
        {"absolute, 3", {.band = {.relative = false, .low = 0.5, .high = 1.25}, .pairs = "both_ways", .n_negatives = 3}},
        {"absolute, nearest 3 or farthest",
         {.band = {.relative = false, .low = 1.0, .high = 1.25},
          .pairs = "both_ways",
          .pick = "nearest",
          .if_empty = "farthest",
          .n_negatives = 3}},
        {"up to a reach", {.band = kViolating, .reach = 1.0}},
        {"nearest up to a reach", {.band = kFarther, .pick = "nearest", .n_negatives = 2, .reach = 1.0}},
        // pairs
        {"both ways", {.band = kViolating, .pairs = "both_ways"}},
        {"hardest positive", {.band = kViolating, .pairs = "hardest_positive"}},
        {"batch hard", {.band = kAll, .pairs = "hardest_positive", .pick = "nearest"}},
        {"hardest 2 positives", {.band = kSemiHard, .pairs = "hardest_positive", .n_positives = 2}},
        {"easiest positive", {.band = kHard, .pairs = "easiest_positive"}},
        {"easiest 3 positives",
         {.band = kFarther, .pairs = "easiest_positive", .pick = "nearest", .n_positives = 3}},
        {"moderate positive", {.band = kAll, .pairs = "moderate_positive", .pick = "nearest"}},
        {"moderate positive, 2", {.band = kViolating, .pairs = "moderate_positive", .n_negatives = 2}},
        {"moderate positive or farthest", {.band = kNobody, .pairs = "moderate_positive", .if_empty = "farthest"}},
        {"random positives", {.band = kViolating, .pairs = "random_positives"}},
        {"random 3 positives or nearest",
         {.band = kSemiHard, .pairs = "random_positives", .if_empty = "nearest", .n_positives = 3}},
        // picks
        {"3", {.band = kViolating, .n_negatives = 3}},
        {"2 of 3", {.band = kAll, .pairs = "random_positives", .n_positives = 2, .n_negatives = 3}},
        {"as many as there are", {.band = kSemiHard, .n_negatives = 150}},
        {"hardest", {.band = kAll, .pick = "nearest"}},
        {"nearest semi-hard", {.band = kSemiHard, .pick = "nearest"}},
        {"nearest 3", {.band = kSemiHard, .pairs = "both_ways", .pick = "nearest", .n_negatives = 3}},
        {"nearest 20", {.band = kFarther, .pick = "nearest", .n_negatives = 20}},
        {"nearest, as many as there are", {.band = kViolating, .pick = "nearest", .n_negatives = 150}},
        {"farthest", {.band = kViolating, .pairs = "both_ways", .pick = "farthest"}},
        {"farthest semi-hard 3", {.band = kSemiHard, .pick = "farthest", .n_negatives = 3}},
        {"farthest absolute 2 or nearest",
         {.band = {.relative = false, .low = 0.5, .high = 1.25},
          .pairs = "both_ways",
          .pick = "farthest",
          .if_empty = "nearest",
          .n_negatives = 2}},
        {"farthest of a moderate positive",
         {.band = kFarther, .pairs = "moderate_positive", .pick = "farthest", .skip_hardest = 0.1}},
        {"batch all", {.band = kViolating, .pairs = "both_ways", .pick = "every"}},
        {"every absolute", {.band = {.relative = false, .low = 0.75, .high = 1.5}, .pick = "every"}},
        {"every of a moderate positive", {.band = kFarther, .pairs = "moderate_positive", .pick = "every"}},
        {"every of random positives",
         {.band = kHard, .pairs = "random_positives", .pick = "every", .n_positives = 2, .quantile = 0.9}},
        // pairs without candidates
        {"hard or nearest", {.band = kHard, .if_empty = "nearest"}},
        {"semi-hard or farthest", {.band = kSemiHard, .if_empty = "farthest", .n_negatives = 3}},
        {"nearest or farthest",
         {.band = {.low = 0.5, .high = 1.0},
          .pairs = "both_ways",
          .pick = "nearest",
          .if_empty = "farthest",
          .n_negatives = 3}},
        {"nearest or the nearest of all", {.band = {.low = 1.0}, .pick = "nearest", .if_empty = "nearest"}},
        {"violating or nearest", {.band = kViolating, .if_empty = "nearest"}},
        {"nobody or nearest", {.band = kNobody, .if_empty = "nearest"}},
        {"nobody or farthest", {.band = kNobody, .if_empty = "farthest"}},
        {"nobody", {.band = kNobody, .pick = "nearest"}},
        // screening
        {"screened", {.band = kViolating, .max_d_ap = 1.0}},
        {"screened, batch hard", {.band = kAll, .pairs = "hardest_positive", .pick = "nearest", .max_d_ap = 1.0}},
        {"half", {.band = kSemiHard, .quantile = 0.5}},
        {"one", {.band = kViolating, .pairs = "both_ways", .quantile = 1e-9}},
        {"most of both ways", {.band = kFarther, .pairs = "both_ways", .quantile = 0.75}},
        {"hardest 2 of most",
         {.band = kAll, .pairs = "hardest_positive", .pick = "nearest", .n_positives = 2, .quantile = 0.75}},
        {"random 2 of a quarter", {.band = kViolating, .pairs = "random_positives", .n_positives = 2, .quantile = 0.25}},
        {"screened twice",
         {.band = kFarther, .pairs = "both_ways", .if_empty = "nearest", .max_d_ap = 1.25, .quantile = 0.75}},
        // negatives left out
        {"skip few", {.band = kViolating, .skip_hardest = 0.05}},
        {"skip few, nearest 3", {.band = kFarther, .pick = "nearest", .n_negatives = 3, .skip_hardest = 0.02}},
        {"skip many", {.band = kSemiHard, .pairs = "both_ways", .n_negatives = 2, .skip_hardest = 0.3}},
        {"skip nearly all", {.band = kAll, .pick = "nearest", .n_negatives = 3, .skip_hardest = 0.97}},
        {"skip, batch hard", {.band = kAll, .pairs = "hardest_positive", .pick = "nearest", .skip_hardest = 0.05}},
        {"skip or nearest", {.band = kHard, .if_empty = "nearest", .skip_hardest = 0.3}},
        {"moderate, skip", {.band = kAll, .pairs = "moderate_positive", .pick = "nearest", .skip_hardest = 0.3}},
        {"moderate, screened",
         {.band = kViolating, .pairs = "moderate_positive", .max_d_ap = 1.5, .quantile = 0.75, .skip_hardest = 0.05}},
    };
    return rules;
}

// With bounds of the weights between edges, which fall or rise all the way from one to the next.
inline Weights bounded(Weights weights) {
    weights.log_bounds = {weights.log_weight(weights.edges.front())};
    for (std::size_t i = 0; i < weights.edges.size(); ++i) {
        const double next = weights.edges[std::min(i + 1, weights.edges.size() - 1)];
        weights.log_bounds.push_back(std::max(weights.log_weight(weights.edges[i]), weights.log_weight(next)));
    }
    return weights;
}

// Weights of distances on the unit sphere of size dimensions, between near and far: bins in which they change by a factor of
// e at most, and either fall or rise.
inline Weights weights(std::size_t size, double near, double far, double unit) {
    const auto n = static_cast<double>(size);
    const double lowest = near * near, highest = std::max(lowest, std::min(far * far, 4.0 * (1.0 - 0x1p-40)));
    const double least = std::clamp(size > 3 ? 4.0 * (n - 2.0) / (2.0 * n - 5.0) : 4.0, lowest, highest);
    std::vector<double> ends = {lowest};
    // As far as the weight falls, it does so by less than its one factor does, and then it rises by less than its other.
    const double falls = std::ceil(0.5 * (n - 2.0) * std::log(least / lowest));
    for (double i = 1.0; i <= falls; ++i) {
        ends.push_back(i == falls ? least : lowest * std::pow(least / lowest, i / falls));
    }
    const double rises = std::ceil(0.5 * (n - 3.0) * std::log((4.0 - least) / (4.0 - highest)));
    for (double i = 1.0; i <= rises; ++i) {
        ends.push_back(i == rises ? highest : 4.0 - (4.0 - least) * std::pow((4.0 - highest) / (4.0 - least), i / rises));
    }
    for (double& end : ends) { end /= unit; }
    return bounded({.size = size, .unit = unit, .lowest = lowest, .highest = highest, .edges = ends});
}

// The same weights, with more edges between them: distances that there are, farther apart than that.
inline Weights with_edges(Weights weights, std::vector<double> distances, double apart) {
    std::sort(distances.begin(), distances.end());
    for (const double d : distances) {
        const auto next = std::upper_bound(weights.edges.begin(), weights.edges.end(), d);
        if (next == weights.edges.begin() || next == weights.edges.end()) { continue; }
        if (d - *(next - 1) > apart && *next - d > apart) { weights.edges.insert(next, d); }
    }
    return bounded(weights);
}

inline Rule weighted(Rule rule, std::size_t size, double near, double far, double unit) {
    rule.pick = "distance_weighted";
    rule.reach = far * far / unit;
    rule.weights = weights(size, near, far, unit);
    return rule;
}

// For rows on a sphere: squared distances between them are those on the unit sphere over the unit. The weights need not be
// those of as many dimensions as the rows have, and with many they span hundreds of powers of ten.
inline Table weighted_table(std::size_t size, double unit) {
    return {
        {"weighted", weighted({.band = kAll, .pairs = "both_ways"}, size, 0.5, 1.4, unit)},
        {"weighted, 3", weighted({.band = kAll, .n_negatives = 3}, size, 0.5, 1.4, unit)},
        {"weighted, as many as there are", weighted({.band = kViolating, .n_negatives = 150}, size, 0.5, 1.4, unit)},
        {"weighted semi-hard", weighted({.band = kSemiHard, .pairs = "both_ways"}, size, 0.5, 1.4, unit)},
        {"weighted, 2 of a hardest positive",
         weighted({.band = kAll, .pairs = "hardest_positive", .n_negatives = 2}, size, 0.25, 1.75, unit)},
        {"weighted, skip or farthest",
         weighted({.band = kViolating, .if_empty = "farthest", .skip_hardest = 0.3}, size, 0.5, 1.25, unit)},
        {"weighted, absolute",
         weighted({.band = {.relative = false, .low = 0.75, .high = 1.5}, .pairs = "both_ways", .if_empty = "nearest"}, size,
                  0.25, 1.6, unit)},
        {"weighted, moderate", weighted({.band = kFarther, .pairs = "moderate_positive"}, size, 0.7, 2.0, unit)},
        {"weighted, up to antipodes",
         weighted({.band = kAll, .pairs = "random_positives", .n_positives = 2, .n_negatives = 2},
                  std::min<std::size_t>(size, 128), 0.1, 2.5, unit)},
    };
}

// The same rules, whose numbers are of distances that are not squared.
inline Table of_roots(Table rules) {
    for (Named& named : rules) {
        named.name += ", of roots";
        named.rule.band.root = true;
    }
    return rules;
}

// The same rules for squared distances that many times as long.
inline Table times(double factor, Table rules) {
    for (Named& named : rules) {
        const double ends = named.rule.band.root ? std::sqrt(factor) : factor;
        named.rule.band.low *= ends;
        named.rule.band.high *= ends;
        named.rule.max_d_ap *= ends;
        if (named.rule.weights.edges.empty()) { named.rule.reach *= factor; }
    }
    return rules;
}

inline Table only(std::initializer_list<std::string_view> names, const Table& rules = table()) {
    Table some;
    for (const std::string_view name : names) {
        some.push_back(*std::find_if(rules.begin(), rules.end(), [name](const Named& named) { return named.name == name; }));
    }
    return some;
}

inline Table both(Table rules, const Table& more) {
    rules.insert(rules.end(), more.begin(), more.end());
    return rules;
}

// Any words, and numbers for squared distances of about that unit.
inline Rule composed(problems::Chance& chance, double unit) {
    const bool root = chance.below(3) == 0;
    if (root) { unit = std::sqrt(unit); }
    const std::string_view pairs[] = {"each_once",        "both_ways",         "hardest_positive",
                                      "easiest_positive", "moderate_positive", "random_positives"};
    const std::string_view picks[] = {"uniform", "uniform", "uniform", "nearest", "farthest", "every"};
    const std::string_view fallbacks[] = {"drop", "nearest", "farthest"};
    const double shares[] = {1e-6, 0.01, 0.3, 0.5, 0.95};
    const auto distance = [&] { return unit * 0.25 * static_cast<double>(chance.below(13)); };
    Rule rule = {.pairs = chance.one_of(pairs), .pick = chance.one_of(picks), .if_empty = chance.one_of(fallbacks)};
    rule.band = {.relative = chance.below(4) != 0, .low = distance() - unit, .low_is_open = chance.below(2) == 0};
    rule.band.high = rule.band.low + distance() + 0.25 * unit;
    if (chance.below(3) == 0) { rule.band.low = -kInfinity; }
    if (chance.below(3) == 0) { rule.band.high = kInfinity; }
    rule.band.root = root;
    if (rule.pairs.ends_with("positive") || rule.pairs.ends_with("positives")) { rule.n_positives = 1 + chance.below(3); }
    rule.n_negatives = 1 + chance.below(4);
    if (chance.below(4) == 0) { rule.max_d_ap = distance() + 0.25 * unit; }
    if (chance.below(4) == 0) { rule.quantile = chance.one_of(shares); }
    if (chance.below(4) == 0) { rule.skip_hardest = chance.one_of(shares); }
    if (rule.pick == "every") {
        rule.if_empty = "drop";
        rule.n_negatives = 1;
    }
    return rule;
}

}  // namespace rules
