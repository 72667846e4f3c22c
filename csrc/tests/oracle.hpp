// Mining by its definition, written from mining/reference.py and with nothing of core/, mining/ or simd/.
#pragma once

#include <algorithm>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

namespace oracle {

// n rows of size numbers; grouped row g is row order[g], and identity i owns the grouped rows offsets[i] .. offsets[i + 1].
template <class Scalar>
struct Problem {
    std::vector<Scalar> values;
    std::size_t size;
    std::vector<std::int32_t> order;
    std::vector<std::int64_t> offsets;

    std::size_t n() const { return order.size(); }
    const Scalar* row(std::size_t g) const { return values.data() + static_cast<std::size_t>(order[g]) * size; }
};

// Rows of the embeddings, as the caller numbers them.
struct Triplet {
    std::int32_t anchor, positive, negative;
    auto operator<=>(const Triplet&) const = default;
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

inline bool is_candidate(std::string_view band, double d_ap, double d_an, double margin) {
    if (band == "semi_hard" && d_an <= d_ap) { return false; }
    return d_an - d_ap < margin;
}

// Numbers of the specification that are chosen by measuring.
struct Tuning {
    std::uint64_t n_draws, more_draws, rank_draw, n_pilot, n_pilot_hits;
    std::size_t sample_from_rows;
    std::uint64_t least_sampled, rows_per_sampled, n_sample_hits, draws_per_sampled;
};

template <class Scalar>
std::vector<Triplet> mine(const Problem<Scalar>& problem, std::string_view band, double margin, std::uint64_t seed,
                          const Tuning& tuning) {
    struct Pair {
        std::size_t anchor, positive;
    };
    const std::size_t n = problem.n();
    std::vector<std::size_t> begins(n), ends(n);
    std::vector<Pair> pairs;
    for (std::size_t i = 0; i + 1 < problem.offsets.size(); ++i) {
        const auto begin = static_cast<std::size_t>(problem.offsets[i]);
        const auto end = static_cast<std::size_t>(problem.offsets[i + 1]);
        for (std::size_t a = begin; a < end; ++a) {
            begins[a] = begin;
            ends[a] = end;
            for (std::size_t b = a + 1; b < end && end - begin != n; ++b) { pairs.push_back({a, b}); }
        }
    }

    std::vector<std::size_t> negatives;
    std::vector<double> squared(n);
    std::size_t measured = n;  // the anchor that both belong to
    const auto measure = [&](std::size_t anchor) {
        if (measured == anchor) { return; }
        measured = anchor;
        negatives.clear();
        for (std::size_t g = 0; g < n; ++g) {
            squared[g] = squared_distance(problem.row(anchor), problem.row(g), problem.size);
            if (g < begins[anchor] || ends[anchor] <= g) { negatives.push_back(g); }
        }
    };
    const auto accepts = [&](const Pair& pair, std::size_t negative) {
        return is_candidate(band, squared[pair.positive], squared[negative], margin);
    };

    std::uint64_t hits = 0;
    for (std::uint64_t trial = 0; trial < tuning.n_pilot && !pairs.empty(); ++trial) {
        const std::uint64_t pilot = std::numeric_limits<std::uint64_t>::max();
        const Pair& pair = pairs[draw(seed, pilot, trial, 0, pairs.size())];
        measure(pair.anchor);
        if (accepts(pair, negatives[draw(seed, pilot, trial, 1, negatives.size())])) { ++hits; }
    }
    const bool all_draw = hits >= tuning.n_pilot_hits;

    const auto drawn = [&](std::size_t anchor, std::size_t positive, std::uint64_t i) {
        return negatives[draw(seed, anchor, positive, i, negatives.size())];
    };
    // The first of the pair's draws [from, to) that is a candidate; n if none is.
    const auto first_drawn = [&](const Pair& pair, std::uint64_t from, std::uint64_t to) {
        for (std::uint64_t i = from; i < to; ++i) {
            const std::size_t negative = drawn(pair.anchor, pair.positive, i);
            if (accepts(pair, negative)) { return negative; }
        }
        return n;
    };
    const std::uint64_t n_sampled = std::max<std::uint64_t>(tuning.least_sampled, n / tuning.rows_per_sampled);
    const std::uint64_t n_draws = all_draw ? tuning.n_draws : tuning.draws_per_sampled * n_sampled;
    const auto is_sampled = [&](const Pair& pair) {
        std::uint64_t sample_hits = 0;
        for (std::uint64_t i = 0; i < n_sampled; ++i) {
            if (accepts(pair, drawn(pair.anchor, pair.anchor, i))) { ++sample_hits; }
        }
        return n >= tuning.sample_from_rows && sample_hits >= tuning.n_sample_hits;
    };

    std::vector<Triplet> triplets;
    for (std::size_t begin = 0, end = 0; begin < pairs.size(); begin = end) {
        while (end < pairs.size() && pairs[end].anchor == pairs[begin].anchor) { ++end; }
        measure(pairs[begin].anchor);
        std::vector<std::size_t> picks(end - begin, n);
        for (std::size_t i = begin; i < end; ++i) {
            if (all_draw || is_sampled(pairs[i])) { picks[i - begin] = first_drawn(pairs[i], 0, n_draws); }
        }
        const auto n_left = static_cast<std::uint64_t>(std::count(picks.begin(), picks.end(), n));
        for (std::size_t i = begin; i < end; ++i) {
            const Pair& pair = pairs[i];
            std::size_t pick = picks[i - begin];
            if (pick == n && all_draw) {
                pick = first_drawn(pair, tuning.n_draws, tuning.n_draws + n / (tuning.more_draws * n_left));
            }
            if (pick == n) {
                std::vector<std::size_t> candidates;
                for (const std::size_t negative : negatives) {
                    if (accepts(pair, negative)) { candidates.push_back(negative); }
                }
                if (candidates.empty()) { continue; }
                pick = candidates[draw(seed, pair.anchor, pair.positive, tuning.rank_draw, candidates.size())];
            }
            triplets.push_back({problem.order[pair.anchor], problem.order[pair.positive], problem.order[pick]});
        }
    }
    return triplets;
}

}  // namespace oracle
