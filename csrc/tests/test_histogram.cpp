// Numbers of pairs by distance against a look at all of them, in float64: none is farther from its bin than is said.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "../mining/histogram.hpp"
#include "check.hpp"
#include "oracle.hpp"
#include "problems.hpp"

namespace {

using problems::Chance;
using problems::clustered;
using problems::equal_counts;
using problems::in_float32;
using problems::Problem;
using problems::problem_of;

struct Distances {
    std::vector<double> same, different;
};

template <class Scalar>
Distances all_distances(const Problem<Scalar>& problem) {
    Distances distances;
    for (std::size_t i = 0; i + 1 < problem.offsets.size(); ++i) {
        const auto begin = static_cast<std::size_t>(problem.offsets[i]), end = static_cast<std::size_t>(problem.offsets[i + 1]);
        for (std::size_t g = begin; g < end; ++g) {
            for (std::size_t h = g + 1; h < problem.n(); ++h) {
                (h < end ? distances.same : distances.different)
                    .push_back(oracle::squared_distance(problem.row(g), problem.row(h), problem.size));
            }
        }
    }
    std::ranges::sort(distances.same);
    std::ranges::sort(distances.different);
    return distances;
}

std::int64_t n_below(const std::vector<double>& sorted, double limit) {
    return std::ranges::lower_bound(sorted, limit) - sorted.begin();
}

// Of edges between bins, those that have too few or too many pairs before them.
std::size_t n_wrong_edges(std::span<const std::int64_t> counts, const std::vector<double>& sorted,
                          const mining::Histogram& found) {
    std::size_t n_wrong = 0;
    std::int64_t before = 0;
    for (std::size_t bin = 0; bin < counts.size(); ++bin) {
        const double edge = static_cast<double>(bin) * found.width;
        // The float64 of the distances errs, too.
        const double error = found.error * (1.0 + 1e-9) + 1e-12 * edge;
        n_wrong += before < n_below(sorted, edge - error) || before > n_below(sorted, edge + error) ? 1 : 0;
        before += counts[bin];
    }
    return n_wrong + (before == static_cast<std::int64_t>(sorted.size()) ? 0 : 1);
}

mining::BatchMemory& shared_batch_memory() {
    static mining::BatchMemory memory;
    return memory;
}

// Of all tests: each finds what the one before it left, larger or smaller.
mining::HistogramMemory& shared_memory() {
    static mining::HistogramMemory memory;
    return memory;
}

// What is found; the error that is stated is at most this part of the farthest that bins reach.
template <class Scalar>
void test_counts(const Problem<Scalar>& problem, double most_error, const std::string& what) {
    const Distances distances = all_distances(problem);
    for (const simd::Kernels* kernels : simd::available()) {
        for (const std::size_t n_bins : {1U, 7U, 4096U, 65536U}) {
            std::vector<std::int64_t> first;
            for (const int n_threads : {1, 3}) {
                mining::Batch batch({problem.values.data(), problem.n(), problem.size}, {problem.order, {}}, *kernels, n_threads,
                                    shared_batch_memory(), mining::Origin::kCentred);
                std::vector<std::int64_t> counts(2 * n_bins, -7);
                const auto same = std::span(counts).first(n_bins), different = std::span(counts).last(n_bins);
                const mining::Histogram found =
                    mining::count_pairs(batch, problem.offsets, n_threads, shared_memory(), same, different);
                const std::string how = what + ", " + kernels->name + ", " + std::to_string(n_bins) + " bins, threads " +
                                        std::to_string(n_threads);
                const std::size_t n_wrong =
                    n_wrong_edges(same, distances.same, found) + n_wrong_edges(different, distances.different, found);
                check::that(n_wrong == 0, how + ": " + std::to_string(n_wrong) + " edges are wrong");
                check::that(found.error <= most_error * found.width * static_cast<double>(n_bins), how + ": the error is large");
                if (first.empty()) { first = counts; }
                check::that(counts == first, how + ": another number of threads counts otherwise");
            }
        }
    }
}

void test_clusters() {
    for (const double noise : {0.2, 0.7, 5.0}) {
        for (const std::size_t size : {1U, 17U, 128U, 512U}) {
            const auto problem = clustered<double>(equal_counts(23, 6), size, noise);
            const std::string what = "noise " + std::to_string(noise) + ", size " + std::to_string(size);
            const double most_error = static_cast<double>(size + 32) * 0x1p-24;
            test_counts(problem, most_error, what + ", float64");
            test_counts(in_float32(problem), most_error, what + ", float32");
        }
    }
}

// Rows around the sides of tiles and blocks; identities of many sizes, over several blocks, too.
void test_sizes() {
    for (const std::size_t n : {0U, 1U, 2U, 15U, 17U, 95U, 96U, 97U, 191U, 192U, 193U, 300U}) {
        test_counts(clustered<float>(equal_counts(n, 1), 8, 0.7), 1.0, "all alone");
        test_counts(clustered<float>({n}, 8, 0.7), 1.0, "one identity");
        test_counts(clustered<float>({1, n, 3, 2, n / 2, 1}, 8, 0.7), 1.0, "several");
    }
}

void test_ties() {
    Chance chance(3);
    for (const std::size_t size : {1U, 3U, 12U}) {
        const auto whole = [&](auto, auto) { return static_cast<double>(chance.below(3)); };
        test_counts(problem_of<float>(equal_counts(20, 6), size, chance, whole), 0x1p-17, "ties");
    }
    for (const double value : {0.0, 0.3}) {
        test_counts(problem_of<float>(equal_counts(60, 5), 8, chance, [&](auto, auto) { return value; }), 1.0, "all rows equal");
    }
}

// Far from the origin and near to each other, where float32 would know nothing; and of extreme lengths.
void test_collapsed_and_scaled() {
    Chance chance(4);
    const auto collapsed = problem_of<double>(equal_counts(30, 5), 12, chance,
                                              [&](auto, std::size_t k) { return static_cast<double>(k) + 1e-6 * chance.normal(); });
    test_counts(collapsed, 0x1p-17, "collapsed");
    for (const double scale : {1e-300, 1e-160, 1e-30, 1e19, 5e149}) {
        test_counts(clustered<double>(equal_counts(12, 5), 12, 0.7, scale), 1.0, "scale " + std::to_string(std::log10(scale)));
    }
}

}  // namespace

int main() {
    test_clusters();
    test_sizes();
    test_ties();
    test_collapsed_and_scaled();
    return check::report();
}
