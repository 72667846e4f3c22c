// The nearest rows against a look at all of them, in float64: the same rows, to the last bit as far away.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "../mining/neighbors.hpp"
#include "check.hpp"
#include "oracle.hpp"
#include "problems.hpp"

namespace {

using oracle::Neighbor;
using problems::Chance;
using problems::clustered;
using problems::equal_counts;
using problems::in_float32;
using problems::Problem;
using problems::problem_of;

enum class Exclude { kNone, kSameRow, kSameIdentity };

struct Ranges {
    std::vector<std::int64_t> begins, ends;
};

// By query as the caller numbers them. Queries that are no rows of the database are of any identity.
template <class Scalar>
Ranges ranges_of(const Problem<Scalar>& problem, std::size_t n_database, std::size_t first_query, Exclude exclude) {
    const std::size_t n_queries = problem.n() - first_query;
    Ranges ranges = {std::vector<std::int64_t>(n_queries, 0), std::vector<std::int64_t>(n_queries, 0)};
    const std::size_t n_identities = problem.offsets.size() - 1;
    std::vector<std::size_t> identity;
    for (std::size_t i = 0; i < n_identities; ++i) { identity.resize(static_cast<std::size_t>(problem.offsets[i + 1]), i); }
    for (std::size_t g = first_query; g < problem.n() && exclude != Exclude::kNone; ++g) {
        const std::size_t query = static_cast<std::size_t>(problem.order[g]) - first_query;
        // Where the queries are rows of their own, the same row is that of the query's own number, if there is one.
        std::size_t begin = first_query == 0 ? g : std::min(query, n_database);
        std::size_t end = std::min(begin + 1, n_database);
        if (exclude == Exclude::kSameIdentity) {
            const std::size_t i = first_query == 0 ? identity[g] : query % n_identities;
            begin = std::min(static_cast<std::size_t>(problem.offsets[i]), n_database);
            end = std::min(static_cast<std::size_t>(problem.offsets[i + 1]), n_database);
        }
        ranges.begins[query] = static_cast<std::int64_t>(begin);
        ranges.ends[query] = static_cast<std::int64_t>(end);
    }
    return ranges;
}

mining::BatchMemory& shared_batch_memory() {
    static mining::BatchMemory memory;
    return memory;
}

// Of all tests: each finds what the one before it left, larger or smaller.
mining::NeighborsWorkspace& shared_workspace() {
    static mining::NeighborsWorkspace workspace;
    return workspace;
}

// Grouped rows [0, n_database) are the database, and those from first_query on are the queries, as many as there are.
template <class Scalar>
void test_search(const Problem<Scalar>& problem, std::size_t n_database, std::size_t first_query, Exclude exclude,
                 std::span<const std::size_t> ks, const std::string& what) {
    const Ranges ranges = ranges_of(problem, n_database, first_query, exclude);
    const std::size_t n_queries = problem.n() - first_query;
    const std::size_t most = ks.empty() ? 0 : *std::ranges::max_element(ks);
    std::vector<std::vector<Neighbor>> expected(n_queries);
    for (std::size_t g = first_query; g < problem.n(); ++g) {
        const std::size_t query = static_cast<std::size_t>(problem.order[g]) - first_query;
        expected[query] = oracle::nearest(problem, n_database, g, static_cast<std::size_t>(ranges.begins[query]),
                                          static_cast<std::size_t>(ranges.ends[query]), most);
    }
    static std::size_t turn = 0;
    for (const std::size_t k : ks) {
        for (const simd::Kernels* kernels : simd::available()) {
            ++turn;
            const int n_threads = 1 + static_cast<int>(turn % 4);
            const std::size_t rooms[] = {std::size_t{12} << 20, 20'000, 0, 100'000};
            const std::size_t room = rooms[turn / 4 % std::size(rooms)];
            mining::Batch batch({problem.values.data(), problem.n(), problem.size}, {problem.order, {}}, *kernels, n_threads,
                                shared_batch_memory());
            const mining::NeighborsRequest request = {n_database, first_query, k,        ranges.begins,
                                                      ranges.ends, n_threads,  room};
            std::vector<std::int32_t> indices(n_queries * k, -7);
            std::vector<double> distances(n_queries * k, -7.0);
            mining::find_neighbors(request, batch, problem.order, shared_workspace(), indices, distances);
            std::size_t n_wrong = 0;
            for (std::size_t i = 0; i < n_queries * k; ++i) {
                n_wrong += Neighbor{indices[i], distances[i]} == expected[i / k][i % k] ? 0 : 1;
            }
            check::that(n_wrong == 0, what + ", " + std::to_string(n_database) + " rows, k " + std::to_string(k) + ", " +
                                          kernels->name + ", threads " + std::to_string(n_threads) + ", room " +
                                          std::to_string(room) + ": " + std::to_string(n_wrong) + " of " +
                                          std::to_string(n_queries * k) + " are wrong");
        }
    }
}

constexpr Exclude kAllExclude[] = {Exclude::kNone, Exclude::kSameRow, Exclude::kSameIdentity};

std::string text(Exclude exclude) {
    if (exclude == Exclude::kNone) { return ""; }
    return exclude == Exclude::kSameRow ? ", without the same row" : ", without the same identity";
}

// The rows themselves are the queries.
template <class Scalar>
void test_rows(const Problem<Scalar>& problem, std::span<const std::size_t> ks, const std::string& what) {
    for (const Exclude exclude : kAllExclude) { test_search(problem, problem.n(), 0, exclude, ks, what + text(exclude)); }
}

// The last rows, as the caller numbers them, are the queries: their places among the rows stay those that they have.
template <class Scalar>
void test_queries(Problem<Scalar> problem, std::size_t n_queries, std::span<const std::size_t> ks, const std::string& what) {
    const std::size_t n_database = problem.n() - n_queries;
    std::stable_partition(problem.order.begin(), problem.order.end(),
                          [n_database](std::int32_t row) { return static_cast<std::size_t>(row) < n_database; });
    for (const Exclude exclude : kAllExclude) {
        test_search(problem, n_database, n_database, exclude, ks, what + text(exclude));
    }
}

constexpr std::size_t kFew[] = {1, 5, 40};

void test_clusters() {
    for (const double noise : {0.2, 0.7, 5.0}) {
        for (const std::size_t size : {1U, 17U, 128U}) {
            const auto problem = clustered<double>(equal_counts(23, 6), size, noise);
            const std::string what = "noise " + std::to_string(noise) + ", size " + std::to_string(size);
            test_rows(problem, kFew, what + ", float64");
            test_rows(in_float32(problem), kFew, what + ", float32");
            test_queries(in_float32(problem), 30, kFew, what + ", queries");
        }
    }
}

// Rows around the sides of tiles, blocks and chunks.
void test_sizes() {
    const std::size_t ks[] = {1, 3};
    for (const std::size_t n : {1U, 2U, 15U, 16U, 17U, 31U, 32U, 33U, 47U, 64U, 65U, 223U, 224U, 225U, 239U, 240U, 241U,
                                255U, 256U, 257U, 479U, 480U, 481U, 513U}) {
        const std::size_t n_identities = (n + 4) / 5;
        auto counts = equal_counts(n_identities, 5);
        counts.back() = n - 5 * (n_identities - 1);
        const auto problem = clustered<float>(counts, 8, 0.7);
        test_rows(problem, ks, "rows");
        counts.push_back(13);
        test_queries(clustered<float>(counts, 8, 0.7), 13, ks, "database");
        counts.back() = 57;
        test_queries(clustered<float>(counts, 8, 0.7), 57, std::span(ks).first(1), "database");
    }
}

// Whole numbers, and all rows equal: most neighbors are as near as others.
void test_ties() {
    Chance chance(3);
    const std::size_t ks[] = {1, 2, 20, 120};
    for (const std::size_t size : {1U, 3U, 12U}) {
        const auto whole = [&](auto, auto) { return static_cast<double>(chance.below(3)); };
        const auto problem = problem_of<float>(equal_counts(20, 6), size, chance, whole);
        test_rows(problem, ks, "ties");
        test_queries(problem, 50, ks, "ties, queries");
    }
    for (const double value : {0.0, 0.3}) {
        const auto problem = problem_of<float>(equal_counts(60, 5), 8, chance, [&](auto, auto) { return value; });
        test_rows(problem, ks, "all rows equal");
        test_queries(problem, 100, ks, "all rows equal, queries");
    }
    const double values[] = {0.1, 0.7, -0.3};
    const auto near =
        problem_of<double>(equal_counts(60, 5), 40, chance, [&](auto, auto) { return values[chance.below(3)]; });
    test_rows(near, ks, "near ties, float64");
    test_rows(in_float32(near), ks, "near ties, float32");
    test_queries(in_float32(near), 80, ks, "near ties, queries");
}

// More than there are, more than are looked at to begin with, and none of which to choose.
void test_many_neighbors() {
    const auto problem = clustered<float>(equal_counts(9, 5), 8, 0.7);
    const std::size_t ks[] = {39, 40, 41, 44, 45, 46, 200};
    test_rows(problem, ks, "more than there are");
    test_queries(problem, 10, ks, "more than there are, queries");
    const std::size_t many[] = {63, 64, 65, 1023, 1024, 1025, 1300, 1400};
    test_queries(clustered<float>(equal_counts(266, 5), 4, 0.7), 30, many, "many neighbors");
    test_rows(clustered<float>({6}, 4, 0.7), kFew, "one identity");
    test_rows(clustered<float>({}, 4, 0.7), kFew, "no rows");
    test_queries(clustered<float>({4, 3}, 4, 0.7), 7, kFew, "no database");
    test_queries(clustered<float>({4, 3}, 4, 0.7), 0, kFew, "no queries");
}

// More rows than samples, rooms for all, for few stripes and for none.
void test_little_room() {
    const std::size_t ks[] = {1, 2, 3, 4, 6};
    const auto problem = clustered<float>(equal_counts(180, 5), 12, 0.3);
    test_rows(problem, ks, "many rows");
    Chance chance(5);
    const auto whole = [&](auto, auto) { return static_cast<double>(chance.below(4)); };
    const auto duplicates = problem_of<float>(equal_counts(180, 5), 3, chance, whole);
    test_rows(duplicates, ks, "many duplicates");
}

void test_long_and_short_rows() {
    for (const double scale : {1e-300, 1e-160, 1e-30, 1e19, 5e149}) {
        const auto problem = clustered<double>(equal_counts(12, 5), 12, 0.7, scale);
        test_rows(problem, kFew, "scale " + std::to_string(std::log10(scale)));
    }
    auto problem = clustered<float>(equal_counts(8, 6), 16, 0.7);
    for (std::size_t i = 0; i < problem.values.size(); ++i) {
        problem.values[i] *= static_cast<float>(std::pow(10.0, static_cast<double>(i / 16) / 2.0 - 12.0));
    }
    test_rows(problem, kFew, "lengths far apart");
    test_queries(problem, 20, kFew, "lengths far apart, queries");
}

}  // namespace

int main() {
    test_clusters();
    test_sizes();
    test_ties();
    test_many_neighbors();
    test_little_room();
    test_long_and_short_rows();
    return check::report();
}
