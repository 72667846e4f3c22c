// Mining by its definition, written from mining/reference.py and with nothing of core/, mining/ or simd/.
#pragma once

#include <algorithm>
#include <cmath>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <string_view>
#include <utility>
#include <vector>

namespace oracle {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

// n rows of size numbers; grouped row g is row order[g], and identity i owns the grouped rows offsets[i] .. offsets[i + 1],
// of which those from members[i] on are a bank's.
template <class Scalar>
struct Problem {
    std::vector<Scalar> values;
    std::size_t size;
    std::vector<std::int32_t> order;
    std::vector<std::int64_t> offsets, members;
    bool bank_positives = false;

    std::size_t n() const { return order.size(); }
    const Scalar* row(std::size_t g) const { return values.data() + static_cast<std::size_t>(order[g]) * size; }
};

// Rows of the embeddings, as the caller numbers them.
struct Triplet {
    std::int32_t anchor, positive, negative;
    auto operator<=>(const Triplet&) const = default;
};

struct Band {
    bool relative = true;
    double low = -kInfinity;
    bool low_is_open = false;
    double high = kInfinity;
    // Its numbers, and the rule's max_d_ap, are of Euclidean distances that are not squared.
    bool root = false;

    double distance(double squared) const { return root ? std::sqrt(squared) : squared; }
    // Of squared distances.
    bool holds(double squared_ap, double squared_an) const {
        const double d_ap = distance(squared_ap), d_an = distance(squared_an);
        const double x = relative ? d_an - d_ap : d_an;
        if (low_is_open && x <= low) { return false; }
        return low <= x && x < high;
    }
};

struct Weights {
    std::size_t size = 0;
    double unit = 1.0, lowest = 0.0, highest = 0.0;
    std::vector<double> edges = {}, log_bounds = {};

    double log_weight(double d) const {
        const double squared = std::min(std::max(unit * d, lowest), highest);
        const auto n = static_cast<double>(size);
        return (2.0 - n) / 2.0 * std::log(squared) - (n - 3.0) / 2.0 * std::log(1.0 - squared / 4.0);
    }
    std::size_t bin(double d) const {
        return static_cast<std::size_t>(std::upper_bound(edges.begin(), edges.end(), d) - edges.begin());
    }
};

// In the words of mining/strategies.py.
struct Rule {
    Band band = {};
    std::string_view pairs = "each_once";
    std::string_view pick = "uniform";
    std::string_view if_empty = "drop";
    std::size_t n_positives = 1, n_negatives = 1;
    double max_d_ap = kInfinity, quantile = 1.0, skip_hardest = 0.0, reach = kInfinity;
    Weights weights = {};

    bool draws() const { return pick == "uniform" && skip_hardest == 0.0 && pairs != "moderate_positive"; }
};

template <class Scalar>
double squared_distance(const Scalar* x, const Scalar* y, std::size_t size) {
    double sums[8] = {};
    for (std::size_t k = 0; k < size; ++k) {
        const double difference = static_cast<double>(x[k]) - static_cast<double>(y[k]);
        sums[k % 8] += difference * difference;
    }
    for (std::size_t half = 4; half != 0; half /= 2) {
        for (std::size_t i = 0; i < half; ++i) { sums[i] += sums[half + i]; }
    }
    return sums[0];
}

inline std::uint64_t scrambled(std::uint64_t x) {
    x ^= x >> 30;
    x *= 13787848793156543929U;
    x ^= x >> 27;
    x *= 10723151780598845931U;
    x ^= x >> 31;
    return x;
}

// The i-th draw of the pair's stream, in [0, n).
inline std::uint64_t draw(std::uint64_t seed, std::uint64_t anchor, std::uint64_t positive, std::uint64_t i,
                          std::uint64_t n) {
    const std::uint64_t golden = 11400714819323198485U;
    const std::uint64_t state = scrambled(scrambled(scrambled(seed + golden) + anchor) + positive);
    const std::uint64_t x = scrambled(state + (i + 1) * golden);
    // The upper half of the 128-bit product x n, by halves.
    const std::uint64_t low = 0xFFFFFFFFU;
    const std::uint64_t middle = (x >> 32) * (n & low) + (((x & low) * (n & low)) >> 32);
    const std::uint64_t other = (x & low) * (n >> 32) + (middle & low);
    return (x >> 32) * (n >> 32) + (middle >> 32) + (other >> 32);
}

inline double draw_unit(std::uint64_t seed, std::uint64_t anchor, std::uint64_t positive, std::uint64_t i) {
    return static_cast<double>(draw(seed, anchor, positive, i, std::uint64_t{1} << 53)) / 0x1p53;
}

// Numbers of the specification that are chosen by measuring.
struct Tuning {
    std::uint64_t n_draws, more_draws, rank_draw, n_pilot, n_pilot_hits;
    std::size_t sample_from_rows;
    std::uint64_t least_sampled, rows_per_sampled, n_sample_hits, draws_per_sampled;
};

// A pair that the rule looks at, and how many candidates it has.
struct Counted {
    std::int32_t anchor, positive;
    std::size_t n_candidates;
};

struct Mined {
    std::vector<Triplet> triplets;
    std::vector<Counted> pairs;
    double sum_d_ap = 0.0, sum_d_an = 0.0;
};

// By grouped row, whether its pairs are mined; empty: all are.
using Anchors = std::vector<std::uint8_t>;

template <class Scalar>
class Definition {
  public:
    Definition(const Problem<Scalar>& problem, const Tuning& tuning)
        : problem_(problem), tuning_(tuning), n_(problem.n()), begins_(n_), ends_(n_), member_ends_(n_), squared_(n_) {
        for (std::size_t i = 0; i + 1 < problem.offsets.size(); ++i) {
            const auto begin = static_cast<std::size_t>(problem.offsets[i]);
            const auto end = static_cast<std::size_t>(problem.offsets[i + 1]);
            for (std::size_t g = begin; g < end; ++g) {
                begins_[g] = begin;
                ends_[g] = end;
                member_ends_[g] = static_cast<std::size_t>(problem.members[i]);
            }
        }
    }

    Mined mine(const Rule& rule, std::uint64_t seed, const Anchors& anchors = {}) {
        const std::vector<Pair> pairs = pairs_of(rule, seed);
        const bool all_draw = rule.draws() && pilot_draws(rule, seed, pairs);
        Mined mined;
        for (std::size_t begin = 0, end = 0; begin < pairs.size(); begin = end) {
            const std::size_t anchor = pairs[begin].anchor;
            while (end < pairs.size() && pairs[end].anchor == anchor) { ++end; }
            if (!anchors.empty() && anchors[anchor] == 0) { continue; }
            const Rows negatives = negatives_of(rule, anchor);
            std::vector<Rows> picks(end - begin);
            if (rule.draws() && !negatives.empty()) { draw_some(rule, seed, all_draw, negatives, &pairs[begin], picks); }
            for (std::size_t i = begin; i < end; ++i) {
                const Pair& pair = pairs[i];
                const std::vector<double>& d = squared(anchor);
                Rows candidates;
                for (const std::size_t n : negatives) {
                    if (rule.band.holds(d[pair.positive], d[n]) && d[n] < rule.reach) { candidates.push_back(n); }
                }
                mined.pairs.push_back({problem_.order[anchor], problem_.order[pair.positive], candidates.size()});
                Rows& its_picks = picks[i - begin];
                pick(rule, seed, pair, candidates, its_picks);
                if (its_picks.empty() && !negatives.empty() && rule.if_empty != "drop") {
                    const auto nearer = [&d](std::size_t x, std::size_t y) { return d[x] < d[y]; };
                    its_picks.push_back(rule.if_empty == "nearest"
                                            ? *std::min_element(negatives.begin(), negatives.end(), nearer)
                                            : *std::max_element(negatives.begin(), negatives.end(), nearer));
                }
                for (const std::size_t n : its_picks) {
                    mined.triplets.push_back({problem_.order[anchor], problem_.order[pair.positive], problem_.order[n]});
                    mined.sum_d_ap += rule.band.distance(d[pair.positive]);
                    mined.sum_d_an += rule.band.distance(d[n]);
                }
            }
        }
        return mined;
    }

  private:
    // Grouped rows.
    using Rows = std::vector<std::size_t>;
    struct Pair {
        std::size_t anchor, positive;
    };

    // Distances from one row to all, made when they are asked for.
    const std::vector<double>& squared(std::size_t anchor) {
        std::vector<double>& distances = squared_[anchor];
        if (distances.empty()) {
            for (std::size_t g = 0; g < n_; ++g) {
                distances.push_back(squared_distance(problem_.row(anchor), problem_.row(g), problem_.size));
            }
        }
        return distances;
    }

    bool is_candidate(const Rule& rule, const Pair& pair, std::size_t negative) {
        const double d_ap = squared(pair.anchor)[pair.positive], d_an = squared(pair.anchor)[negative];
        return rule.band.holds(d_ap, d_an) && d_an < rule.reach;
    }

    // Nearest first, or farthest; equally far ones in their order.
    Rows sorted(std::size_t anchor, Rows rows, bool farthest_first) {
        const std::vector<double>& distances = squared(anchor);
        std::stable_sort(rows.begin(), rows.end(), [&](std::size_t x, std::size_t y) {
            return farthest_first ? distances[x] > distances[y] : distances[x] < distances[y];
        });
        return rows;
    }

    Rows negatives_of(const Rule& rule, std::size_t anchor) {
        Rows negatives;
        for (std::size_t g = 0; g < n_; ++g) {
            if (g < begins_[anchor] || ends_[anchor] <= g) { negatives.push_back(g); }
        }
        const auto n_skipped = static_cast<std::ptrdiff_t>(rule.skip_hardest * static_cast<double>(negatives.size()));
        if (n_skipped == 0) { return negatives; }
        Rows kept = sorted(anchor, negatives, false);
        kept.erase(kept.begin(), kept.begin() + n_skipped);
        std::sort(kept.begin(), kept.end());
        return kept;
    }

    std::vector<Pair> pairs_of(const Rule& rule, std::uint64_t seed) {
        const auto positives_end = [&](std::size_t g) { return problem_.bank_positives ? ends_[g] : member_ends_[g]; };
        std::vector<double> all;
        for (std::size_t a = 0; rule.quantile < 1.0 && a < n_; ++a) {
            for (std::size_t p = a + 1; a < member_ends_[a] && p < positives_end(a); ++p) { all.push_back(squared(a)[p]); }
        }
        double limit = kInfinity;
        if (!all.empty()) {
            std::sort(all.begin(), all.end());
            limit = all[static_cast<std::size_t>(std::ceil(rule.quantile * static_cast<double>(all.size()))) - 1];
        }
        std::vector<Pair> pairs;
        for (std::size_t a = 0; a < n_; ++a) {
            if (a >= member_ends_[a]) { continue; }
            Rows sound;
            for (std::size_t p = rule.pairs == "each_once" ? a + 1 : begins_[a]; p < positives_end(a); ++p) {
                const double d_ap = squared(a)[p];
                if (p != a && rule.band.distance(d_ap) < rule.max_d_ap && d_ap <= limit) { sound.push_back(p); }
            }
            sound = positives_of(rule, seed, a, sound);
            std::sort(sound.begin(), sound.end());
            for (const std::size_t p : sound) { pairs.push_back({a, p}); }
        }
        return pairs;
    }

    Rows positives_of(const Rule& rule, std::uint64_t seed, std::size_t anchor, Rows sound) {
        const std::size_t n = std::min(rule.n_positives, sound.size());
        const auto first = [](Rows rows, std::size_t most) {
            rows.resize(std::min(most, rows.size()));
            return rows;
        };
        if (rule.pairs == "hardest_positive") { return first(sorted(anchor, sound, true), n); }
        if (rule.pairs == "easiest_positive") { return first(sorted(anchor, sound, false), n); }
        if (rule.pairs == "moderate_positive") {
            double nearest = kInfinity;
            const Rows negatives = negatives_of(rule, anchor);
            for (const std::size_t negative : negatives) { nearest = std::min(nearest, squared(anchor)[negative]); }
            Rows nearer;
            for (const std::size_t p : sound) {
                if (!negatives.empty() && squared(anchor)[p] < nearest) { nearer.push_back(p); }
            }
            return first(sorted(anchor, nearer, true), 1);
        }
        if (rule.pairs == "random_positives") {
            for (std::size_t i = 0; i < n; ++i) {
                const std::uint64_t stream = std::numeric_limits<std::uint64_t>::max();
                std::swap(sound[i], sound[i + draw(seed, anchor, stream, i, sound.size() - i)]);
            }
            return first(sound, n);
        }
        return sound;
    }

    // -- draws -----------------------------------------------------------------------------------------------------

    bool pilot_draws(const Rule& rule, std::uint64_t seed, const std::vector<Pair>& pairs) {
        const std::uint64_t pilot = std::numeric_limits<std::uint64_t>::max();
        std::uint64_t hits = 0;
        for (std::uint64_t trial = 0; trial < tuning_.n_pilot && !pairs.empty(); ++trial) {
            const Pair& pair = pairs[draw(seed, pilot, trial, 0, pairs.size())];
            const Rows negatives = negatives_of(rule, pair.anchor);
            if (negatives.empty()) { return false; }  // nobody has any
            if (is_candidate(rule, pair, negatives[draw(seed, pilot, trial, 1, negatives.size())])) { ++hits; }
        }
        return hits >= tuning_.n_pilot_hits;
    }

    // Of all pairs of one anchor.
    void draw_some(const Rule& rule, std::uint64_t seed, bool all_draw, const Rows& negatives, const Pair* pairs,
                   std::vector<Rows>& picks) {
        const std::uint64_t n_sampled = std::max<std::uint64_t>(tuning_.least_sampled, n_ / tuning_.rows_per_sampled);
        const auto drawn = [&](std::size_t positive, std::uint64_t i) {
            return negatives[draw(seed, pairs->anchor, positive, i, negatives.size())];
        };
        const auto is_sampled = [&](const Pair& pair) {
            std::uint64_t hits = 0;
            for (std::uint64_t i = 0; i < n_sampled; ++i) {
                if (is_candidate(rule, pair, drawn(pair.anchor, i))) { ++hits; }
            }
            return n_ >= tuning_.sample_from_rows && hits >= tuning_.n_sample_hits;
        };
        const auto take_drawn = [&](const Pair& pair, std::uint64_t from, std::uint64_t to, Rows& its_picks) {
            for (std::uint64_t i = from; i < to && its_picks.size() < rule.n_negatives; ++i) {
                const std::size_t negative = drawn(pair.positive, i);
                const bool is_new = std::find(its_picks.begin(), its_picks.end(), negative) == its_picks.end();
                if (is_new && is_candidate(rule, pair, negative)) { its_picks.push_back(negative); }
            }
        };
        const std::uint64_t n_draws =
            rule.n_negatives * (all_draw ? tuning_.n_draws : tuning_.draws_per_sampled * n_sampled);
        std::uint64_t n_left = 0;
        for (std::size_t i = 0; i < picks.size(); ++i) {
            if (all_draw || is_sampled(pairs[i])) { take_drawn(pairs[i], 0, n_draws, picks[i]); }
            if (picks[i].size() < rule.n_negatives) { ++n_left; }
        }
        for (std::size_t i = 0; all_draw && n_left != 0 && i < picks.size(); ++i) {
            take_drawn(pairs[i], n_draws, n_draws + n_ / (tuning_.more_draws * n_left), picks[i]);
        }
    }

    // -- picks -----------------------------------------------------------------------------------------------------

    void pick(const Rule& rule, std::uint64_t seed, const Pair& pair, const Rows& candidates, Rows& picks) {
        if (rule.pick == "every") {
            picks = candidates;
        } else if (rule.pick == "nearest" || rule.pick == "farthest") {
            picks = sorted(pair.anchor, candidates, rule.pick == "farthest");
            picks.resize(std::min(rule.n_negatives, picks.size()));
        } else if (rule.pick == "uniform") {
            Rows rest;
            for (const std::size_t candidate : candidates) {
                if (std::find(picks.begin(), picks.end(), candidate) == picks.end()) { rest.push_back(candidate); }
            }
            while (picks.size() < rule.n_negatives && !rest.empty()) {
                const auto rank = static_cast<std::ptrdiff_t>(
                    draw(seed, pair.anchor, pair.positive, tuning_.rank_draw + picks.size(), rest.size()));
                picks.push_back(rest[static_cast<std::size_t>(rank)]);
                rest.erase(rest.begin() + rank);
            }
        } else {
            pick_by_weight(rule, seed, pair, candidates, picks);
        }
    }

    void pick_by_weight(const Rule& rule, std::uint64_t seed, const Pair& pair, Rows rest, Rows& picks) {
        const std::vector<double>& distances = squared(pair.anchor);
        const double level_height = 512.0;
        std::uint64_t i = tuning_.rank_draw;
        while (picks.size() < rule.n_negatives && !rest.empty()) {
            std::map<std::size_t, Rows> bins;
            double top = -kInfinity;
            for (const std::size_t candidate : rest) {
                const std::size_t bin = rule.weights.bin(distances[candidate]);
                bins[bin].push_back(candidate);
                top = std::max(top, rule.weights.log_bounds[bin]);
            }
            const double level = level_height * std::floor(top / level_height);
            double total = 0.0;
            for (const auto& [bin, rows] : bins) {
                total += static_cast<double>(rows.size()) * std::exp(rule.weights.log_bounds[bin] - level);
            }
            for (bool taken = false; !taken; i += 3) {
                const double mark = draw_unit(seed, pair.anchor, pair.positive, i) * total;
                double sum = 0.0;
                auto chosen = bins.begin();
                for (auto bin = bins.begin(); bin != bins.end(); ++bin) {
                    chosen = bin;
                    sum += static_cast<double>(bin->second.size()) * std::exp(rule.weights.log_bounds[bin->first] - level);
                    if (mark < sum) { break; }
                }
                const Rows& rows = chosen->second;
                const std::size_t candidate = rows[draw(seed, pair.anchor, pair.positive, i + 1, rows.size())];
                const double log_bound = rule.weights.log_bounds[chosen->first];
                const double chance = std::exp(rule.weights.log_weight(distances[candidate]) - log_bound);
                taken = draw_unit(seed, pair.anchor, pair.positive, i + 2) < chance;
                if (taken) {
                    picks.push_back(candidate);
                    rest.erase(std::find(rest.begin(), rest.end(), candidate));
                }
            }
        }
    }

    const Problem<Scalar>& problem_;
    const Tuning tuning_;
    const std::size_t n_;
    Rows begins_, ends_, member_ends_;
    std::vector<std::vector<double>> squared_;
};

struct Neighbor {
    std::int32_t row;
    double distance;
    auto operator<=>(const Neighbor&) const = default;
};

// The k rows of the database that are nearest to a query, as the caller numbers them: grouped rows [0, n_database), less
// [begin, end). What is missing is -1, infinitely far.
template <class Scalar>
std::vector<Neighbor> nearest(const Problem<Scalar>& problem, std::size_t n_database, std::size_t query, std::size_t begin,
                              std::size_t end, std::size_t k) {
    std::vector<Neighbor> neighbors;
    for (std::size_t g = 0; g < n_database; ++g) {
        if (begin <= g && g < end) { continue; }
        neighbors.push_back({problem.order[g], squared_distance(problem.row(query), problem.row(g), problem.size)});
    }
    std::sort(neighbors.begin(), neighbors.end(), [](const Neighbor& x, const Neighbor& y) {
        return x.distance < y.distance || (x.distance == y.distance && x.row < y.row);
    });
    neighbors.resize(k, {-1, kInfinity});
    return neighbors;
}

}  // namespace oracle
