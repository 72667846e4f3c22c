// Embeddings to search among, of all the kinds that are hard on somebody.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

#include "oracle.hpp"

namespace problems {

using oracle::Problem;

class Chance {
  public:
    explicit Chance(std::uint64_t seed) : generator_(seed) {}
    std::size_t below(std::size_t n) { return generator_() % n; }
    double normal() { return normal_(generator_); }
    template <class T>
    void shuffle(std::vector<T>& values) { std::shuffle(values.begin(), values.end(), generator_); }
    template <class T, std::size_t n>
    T one_of(const T (&values)[n]) { return values[below(n)]; }

  private:
    std::mt19937_64 generator_;
    std::normal_distribution<double> normal_;
};

// Rows in shuffled order, counts[i] of identity i, none of a bank; coordinate(identity, k) makes their numbers.
template <class Scalar, class Coordinate>
Problem<Scalar> problem_of(const std::vector<std::size_t>& counts, std::size_t size, Chance& chance,
                           const Coordinate& coordinate) {
    Problem<Scalar> problem{.values = {}, .size = size, .order = {}, .offsets = {0}, .members = {}};
    for (const std::size_t count : counts) {
        problem.offsets.push_back(problem.offsets.back() + static_cast<std::int64_t>(count));
        problem.members.push_back(problem.offsets.back());
    }
    const auto n = static_cast<std::size_t>(problem.offsets.back());
    problem.order.resize(n);
    std::iota(problem.order.begin(), problem.order.end(), 0);
    chance.shuffle(problem.order);
    problem.values.resize(n * size);
    for (std::size_t i = 0, g = 0; i < counts.size(); ++i) {
        for (std::size_t image = 0; image < counts[i]; ++image, ++g) {
            const std::size_t row = static_cast<std::size_t>(problem.order[g]) * size;
            for (std::size_t k = 0; k < size; ++k) { problem.values[row + k] = static_cast<Scalar>(coordinate(i, k)); }
        }
    }
    return problem;
}

// Identities around centres of their own: `noise` says how much they overlap. Rows are about as long as `scale`.
template <class Scalar>
Problem<Scalar> clustered(const std::vector<std::size_t>& counts, std::size_t size, double noise, double scale = 1.0) {
    Chance chance(counts.size() + size);
    std::vector<double> centres(counts.size() * size);
    for (double& centre : centres) { centre = chance.normal(); }
    const double length = scale / std::sqrt(static_cast<double>(size) * (1.0 + noise * noise));
    return problem_of<Scalar>(counts, size, chance, [&](std::size_t identity, std::size_t k) {
        return length * (centres[identity * size + k] + noise * chance.normal());
    });
}

template <class Scalar>
Problem<float> in_float32(const Problem<Scalar>& problem) {
    return {{problem.values.begin(), problem.values.end()}, problem.size,    problem.order,
            problem.offsets,                                problem.members, problem.bank_positives};
}

// The same rows at that length.
inline Problem<double> on_sphere(Problem<double> problem, double length) {
    for (std::size_t row = 0; row < problem.n(); ++row) {
        double* x = problem.values.data() + row * problem.size;
        const double norm = std::sqrt(std::inner_product(x, x + problem.size, x, 0.0));
        for (std::size_t k = 0; k < problem.size; ++k) { x[k] *= length / norm; }
    }
    return problem;
}

// Rows of length 1 to the last bit, four of their coordinates a half: most distances tie, with each other and with quarters.
template <class Scalar>
Problem<Scalar> tied_on_sphere(const std::vector<std::size_t>& counts, std::size_t size, Chance& chance) {
    auto problem = problem_of<Scalar>(counts, size, chance, [](auto, auto) { return 0.0; });
    for (std::size_t row = 0; row < problem.n(); ++row) {
        for (int left = 4; left != 0;) {
            Scalar& x = problem.values[row * size + chance.below(size)];
            if (x != Scalar{0}) { continue; }
            x = static_cast<Scalar>(chance.below(2) == 0 ? 0.5 : -0.5);
            --left;
        }
    }
    return problem;
}

// The same rows, of which the last of some identities are a bank's: all, some or none.
template <class Scalar>
Problem<Scalar> with_bank(Problem<Scalar> problem, Chance& chance, bool bank_positives) {
    for (std::size_t i = 0; i < problem.members.size(); ++i) {
        const auto count = static_cast<std::size_t>(problem.offsets[i + 1] - problem.offsets[i]);
        const std::size_t n_members = chance.below(4) == 0 ? count : chance.below(count + 1);
        problem.members[i] = problem.offsets[i] + static_cast<std::int64_t>(n_members);
    }
    problem.bank_positives = bank_positives;
    return problem;
}

inline std::vector<std::size_t> equal_counts(std::size_t n_identities, std::size_t n_images) {
    return std::vector<std::size_t>(n_identities, n_images);
}

}  // namespace problems
