// The miner against its definition: the same triplets in the same order from every instruction set and number of threads.
#include <algorithm>
#include <cfenv>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "../core/float_environment.hpp"
#include "../mining/draw.hpp"
#include "../mining/miner.hpp"
#include "check.hpp"
#include "oracle.hpp"

namespace {

using oracle::Problem;
using oracle::Triplet;

class Chance {
  public:
    explicit Chance(std::uint64_t seed) : generator_(seed) {}
    std::size_t below(std::size_t n) { return generator_() % n; }
    double normal() { return normal_(generator_); }
    template <class T>
    void shuffle(std::vector<T>& values) { std::shuffle(values.begin(), values.end(), generator_); }

  private:
    std::mt19937_64 generator_;
    std::normal_distribution<double> normal_;
};

// Rows in shuffled order, counts[i] of identity i; coordinate(identity) makes their numbers.
template <class Scalar, class Coordinate>
Problem<Scalar> problem_of(const std::vector<std::size_t>& counts, std::size_t size, Chance& chance,
                           const Coordinate& coordinate) {
    Problem<Scalar> problem{.values = {}, .size = size, .order = {}, .offsets = {0}};
    for (const std::size_t count : counts) { problem.offsets.push_back(problem.offsets.back() + static_cast<std::int64_t>(count)); }
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

// Identities around centres of their own: `noise` says how much they overlap.
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
    return {{problem.values.begin(), problem.values.end()}, problem.size, problem.order, problem.offsets};
}

struct Mined {
    std::vector<Triplet> triplets;
    std::int64_t bad_row;
};

// What the bindings do.
template <class Scalar>
Mined mine(const Problem<Scalar>& problem, const mining::Settings& settings, const simd::Kernels& kernels,
           mining::Workspace& workspace) {
    const core::DefaultFloatEnvironment environment;
    const mining::Grouping grouping{problem.order, problem.offsets};
    mining::Batch batch({problem.values.data(), problem.n(), problem.size}, grouping, kernels, settings.n_threads,
                        workspace.batch);
    if (batch.bad_row() >= 0) { return {{}, batch.bad_row()}; }
    const mining::Groups groups(grouping.offsets, workspace.groups);
    const std::size_t n = mining::mine(settings, batch, groups, workspace);
    std::vector<std::int32_t> columns[3];
    for (auto& column : columns) { column.resize(n, -1); }
    mining::collect(settings, groups, grouping.order, workspace, columns[0].data(), columns[1].data(), columns[2].data());
    std::vector<Triplet> triplets;
    for (std::size_t i = 0; i < n; ++i) { triplets.push_back({columns[0][i], columns[1][i], columns[2][i]}); }
    return {triplets, -1};
}

std::string_view name_of(const mining::Band& band) {
    return std::visit([](auto rule) { return rule.kName; }, band);
}

template <class Scalar>
std::vector<Triplet> by_definition(const Problem<Scalar>& problem, std::string_view band, double margin, std::uint64_t seed) {
    return oracle::mine(problem, band, margin, seed,
                        {mining::kDraws, mining::kMoreDraws, mining::kRankDraw, mining::kPilotTrials, mining::kPilotHits,
                         mining::kSampleFromRows, mining::kLeastSampled, mining::kRowsPerSampled, mining::kSampleHits,
                         mining::kDrawsPerSampled});
}

// Of all tests: each finds what the one before it left, larger or smaller.
mining::Workspace& shared_workspace() {
    static mining::Workspace workspace;
    return workspace;
}

// How many triplets there are in all bands together.
template <class Scalar>
std::size_t test_against_definition(const Problem<Scalar>& problem, double margin, std::uint64_t seed,
                                    const std::string& what, const std::vector<int>& n_threads = {1, 2, 3, 8},
                                    std::span<const simd::Kernels* const> tables = simd::available()) {
    std::size_t n_triplets = 0;
    for (const mining::Band& band : mining::kBands) {
        const auto expected = by_definition(problem, name_of(band), margin, seed);
        n_triplets += expected.size();
        for (const simd::Kernels* kernels : tables) {
            for (const int n : n_threads) {
                const auto mined = mine(problem, {band, margin, seed, n}, *kernels, shared_workspace());
                check::that(mined.bad_row < 0 && mined.triplets == expected,
                            what + ": " + std::string(name_of(band)) + ", margin " + std::to_string(margin) + ", " +
                                kernels->name + ", threads " + std::to_string(n) + ": " +
                                std::to_string(mined.triplets.size()) + " triplets, by definition " +
                                std::to_string(expected.size()));
            }
        }
    }
    return n_triplets;
}

std::vector<std::size_t> equal_counts(std::size_t n_identities, std::size_t n_images) {
    return std::vector<std::size_t>(n_identities, n_images);
}

void test_trained_and_untrained() {
    for (const double noise : {0.2, 0.7, 5.0}) {
        for (const std::size_t size : {1U, 17U, 128U}) {
            const auto problem = clustered<double>(equal_counts(9, 7), size, noise);
            const std::string what = "noise " + std::to_string(noise) + ", size " + std::to_string(size);
            test_against_definition(problem, 0.2, 5, what + ", float64");
            test_against_definition(in_float32(problem), 0.2, 5, what + ", float32");
        }
    }
}

// More rows than a block and columns than a chunk, neither a multiple of a tile; identities of all sizes, and some empty.
void test_blocks_chunks_and_tiles() {
    Chance chance(3);
    std::vector<std::size_t> counts(31);
    for (std::size_t& count : counts) { count = chance.below(4) == 0 ? 0 : chance.below(20); }
    counts.push_back(70);
    const auto problem = problem_of<float>(counts, 5, chance, [&](auto, auto) { return chance.normal(); });
    check::that(problem.n() > 256, "columns beyond a chunk");
    test_against_definition(problem, 0.02, 2, "few candidates");
    test_against_definition(problem, 0.5, 2, "some candidates");
    test_against_definition(clustered<float>(counts, 24, 0.15), 0.05, 2, "hardly any");
}

// Identities that reach from one block into the next, all blocks full but the last.
void test_identities_across_blocks() {
    test_against_definition(clustered<float>(equal_counts(110, 7), 16, 0.2), 0.1, 4, "identities across blocks", {1, 3});
    // A third of the identities is tight and searches for what the others draw at once.
    Chance chance(5);
    std::vector<double> centres(110 * 16);
    for (double& centre : centres) { centre = chance.normal(); }
    const auto mixed = problem_of<float>(equal_counts(110, 7), 16, chance, [&](std::size_t identity, std::size_t k) {
        return centres[identity * 16 + k] + (identity % 3 == 0 ? 0.02 : 5.0) * chance.normal();
    });
    for (const double margin : {1.0, 10.0, 200.0}) { test_against_definition(mixed, margin, 4, "tight and loose", {1, 3}); }
}

// Room for all that passes the sieves, for that of a few stripes, of one block at a time, for less, and for none.
void test_little_room() {
    for (const double noise : {0.3, 0.8}) {
        const auto problem = clustered<float>(equal_counts(200, 7), 16, noise);
        for (const mining::Band& band : mining::kBands) {
            const auto expected = by_definition(problem, name_of(band), 0.1, 4);
            for (std::size_t room = 1 << 20; room != 0; room = room * 5 / 8) {
                for (const int n_threads : {1, 3}) {
                    const auto mined =
                        mine(problem, {band, 0.1, 4, n_threads, {}, room}, simd::kernels(), shared_workspace()).triplets;
                    check::that(mined == expected, "room for " + std::to_string(room));
                }
            }
        }
    }
}

// As many rows as it takes to sample every anchor's negatives; few are anchors, so that the definition is not at it all day.
void test_many_rows() {
    for (const std::size_t n_others : {mining::kSampleFromRows, (mining::kLeastSampled + 2) * mining::kRowsPerSampled}) {
        std::vector<std::size_t> counts(n_others, 1);
        std::fill_n(counts.begin() + 7, 70, 5);
        for (const double noise : {0.3, 0.6}) {
            test_against_definition(clustered<float>(counts, 6, noise), 0.05, 6, "many rows, noise " + std::to_string(noise),
                                    {2});
        }
    }
}

// All rows equal, and float64 asked about every distance: more than is kept between the search's two steps.
void test_more_doubt_than_memory() {
    Chance chance(6);
    std::vector<std::size_t> counts(1773, 2);
    counts.push_back(1);
    const auto best = simd::available().first(1);
    const auto problem = problem_of<float>(counts, 2, chance, [](auto, auto) { return 0.3; });
    test_against_definition(problem, 0.2, 1, "doubt everywhere", {2}, best);
    counts.push_back(100);
    const auto more = problem_of<float>(counts, 2, chance, [](auto, auto) { return 0.3; });
    test_against_definition(more, 0.2, 1, "doubt everywhere, foreseen", {2}, best);
}

// Small whole numbers: most distances tie with each other and with the edges of the band.
void test_ties_and_duplicates() {
    Chance chance(4);
    for (const std::size_t size : {2U, 6U, 20U}) {
        const auto problem = problem_of<float>(
            equal_counts(12, 8), size, chance, [&](auto, auto) { return static_cast<double>(chance.below(3)) - 1.0; });
        for (const double margin : {1.0, 2.0}) { test_against_definition(problem, margin, 3, "ties"); }
    }
    for (const double value : {0.0, 0.3}) {
        const auto problem = problem_of<float>(equal_counts(6, 10), 8, chance, [&](auto, auto) { return value; });
        check::that(test_against_definition(problem, 0.2, 1, "all rows equal") == 6 * 45, "all pairs violate, none is semi-hard");
    }
}

// Three values that float32 cannot hold: distances that tie, or nearly, and that float32 sums up to differ.
void test_near_ties() {
    Chance chance(7);
    const double values[] = {0.1, 0.7, -0.3};
    std::vector<std::size_t> many(mining::kSampleFromRows, 1);
    std::fill_n(many.begin() + 3, 15, 6);
    for (const auto& counts : {equal_counts(12, 8), many}) {
        for (const std::size_t size : {20U, 128U}) {
            const auto problem =
                problem_of<double>(counts, size, chance, [&](auto, auto) { return values[chance.below(3)]; });
            for (const double margin : {0.16, 0.84}) {
                test_against_definition(problem, margin, 8, "near ties, float64", {2});
                test_against_definition(in_float32(problem), margin, 8, "near ties, float32", {2});
            }
        }
    }
}

void test_long_and_short_rows() {
    for (const double scale : {1e-300, 1e-160, 1e-140, 1e-30, 1e-19, 1e19, 1e140, 5e149}) {
        const double margin = std::max(0.2 * scale * scale, std::numeric_limits<double>::denorm_min());
        test_against_definition(clustered<double>(equal_counts(6, 5), 12, 0.7, scale), margin, 1,
                                "scale " + std::to_string(std::log10(scale)));
    }
    auto problem = clustered<float>(equal_counts(8, 6), 16, 0.7);
    for (std::size_t i = 0; i < problem.values.size(); ++i) {
        problem.values[i] *= static_cast<float>(std::pow(10.0, static_cast<double>(i / 16) / 2.0 - 12.0));
    }
    for (const double margin : {1e-20, 1e-3, 1.0}) { test_against_definition(problem, margin, 1, "lengths far apart"); }
}

void test_odd_groups() {
    const auto none = [](const std::vector<std::size_t>& counts, const std::string& what) {
        check::that(test_against_definition(clustered<float>(counts, 7, 0.7), 0.2, 1, what) == 0, what + " gives no triplet");
    };
    none({}, "no rows");
    none({0, 0}, "no rows in two identities");
    none({1}, "one row");
    none({100}, "one identity");
    none(equal_counts(100, 1), "each row an identity");
    test_against_definition(clustered<float>({2, 1}, 7, 5.0), 0.2, 1, "one pair and one negative");
    test_against_definition(clustered<float>({500, 40}, 4, 0.3), 0.1, 1, "one large identity, trained", {2});
    test_against_definition(clustered<double>({1, 400}, 4, 5.0), 0.1, 1, "one large identity, one negative", {1, 3});
}

// Many batches of odd shapes, whose numbers are drawn from few or from many.
void test_random_batches(std::uint64_t n_batches) {
    for (std::uint64_t seed = 0; seed < n_batches; ++seed) {
        Chance chance(seed);
        std::vector<std::size_t> counts(1 + chance.below(9));
        for (std::size_t& count : counts) { count = chance.below(9); }
        const std::size_t size = 1 + chance.below(40);
        const std::size_t kind = chance.below(3);
        const double few[] = {0.0, 1e-30, 1e20, -1e-3, 1.0, -1.0};
        const auto problem = problem_of<double>(counts, size, chance, [&](auto, auto) {
            return kind == 0 ? chance.normal() : kind == 1 ? few[chance.below(6)] : static_cast<double>(chance.below(3));
        });
        const double margin = std::exp2(static_cast<double>(chance.below(30)) - 20.0);
        const std::string what = "batch " + std::to_string(seed);
        test_against_definition(problem, margin, seed * 0x123456789ABCDEFU, what + ", float64", {1, 4});
        test_against_definition(in_float32(problem), margin, seed, what + ", float32", {2});
    }
}

// A caller that rounds otherwise and takes denormals for zero gets the same triplets, and keeps its modes and flags.
void test_floating_point_state() {
    // Every coordinate is a denormal float.
    const auto problem = in_float32(clustered<double>(equal_counts(40, 7), 24, 0.5, 1e-39));
    const double margin = 1e-79;
    const auto expected = by_definition(problem, "semi_hard", margin, 5);
    check::that(!expected.empty() && expected.size() < 40 * 21, "some pairs have a negative");
    std::fenv_t before;
    std::fegetenv(&before);
    for (const int rounding : {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO}) {
        for (const int n_threads : {1, 3}) {
            std::fesetround(rounding);
            std::feclearexcept(FE_ALL_EXCEPT);
            std::feraiseexcept(FE_OVERFLOW);
#if defined(__x86_64__)
            const unsigned denormals_are_zero = 0x8040;
            _mm_setcsr(_mm_getcsr() | denormals_are_zero);
#endif
            const int flags = std::fetestexcept(FE_ALL_EXCEPT);
            const auto mined =
                mine(problem, {mining::SemiHard{}, margin, 5, n_threads}, simd::kernels(), shared_workspace()).triplets;
            bool untouched = std::fegetround() == rounding && std::fetestexcept(FE_ALL_EXCEPT) == flags;
#if defined(__x86_64__)
            untouched = untouched && (_mm_getcsr() & denormals_are_zero) == denormals_are_zero;
#endif
            std::fesetenv(&before);
            check::that(mined == expected, "the caller's rounding and denormals do not matter");
            check::that(untouched, "the caller keeps its floating-point state");
        }
    }
}

// Parts of the anchors, cut anyhow, have between them the triplets of all.
void test_parts_of_the_anchors() {
    for (const double noise : {0.3, 0.7, 5.0}) {
        const auto problem = clustered<float>(equal_counts(90, 6), 24, noise);
        for (const mining::Band& band : mining::kBands) {
            const auto expected = by_definition(problem, name_of(band), 0.2, 3);
            for (const std::size_t n_parts : {1U, 2U, 7U, 100U}) {
                Chance chance(n_parts);
                std::vector<std::size_t> parts(problem.n());
                for (std::size_t& part : parts) { part = chance.below(n_parts); }
                std::vector<Triplet> got;
                for (std::size_t part = 0; part < n_parts; ++part) {
                    std::vector<std::uint8_t> anchors;
                    for (const std::size_t its : parts) { anchors.push_back(its == part ? 1 : 0); }
                    const auto mined =
                        mine(problem, {band, 0.2, 3, 1 + static_cast<int>(part % 3), anchors}, simd::kernels(), shared_workspace());
                    got.insert(got.end(), mined.triplets.begin(), mined.triplets.end());
                }
                auto sorted = expected;
                std::ranges::sort(sorted);
                std::ranges::sort(got);
                check::that(got == sorted, "parts of the anchors: " + std::to_string(n_parts) + ", noise " + std::to_string(noise));
            }
        }
    }
}

// The first of them in the caller's order, whatever its place among the grouped rows.
void test_rows_that_are_not_finite() {
    const auto sound = clustered<double>(equal_counts(20, 5), 9, 0.7);
    for (const double value : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
                               -std::numeric_limits<double>::infinity(), 1e160}) {
        auto problem = sound;
        problem.values[83 * 9 + 2] = problem.values[17 * 9 + 8] = value;
        for (const simd::Kernels* kernels : simd::available()) {
            const auto mined = mine(problem, {mining::SemiHard{}, 0.2, 1, 3}, *kernels, shared_workspace());
            check::that(mined.bad_row == 17 && mined.triplets.empty(), "the first bad row");
        }
    }
}

// Callers side by side, each with a workspace and threads of its own.
void test_callers_side_by_side() {
    const auto problem = clustered<float>(equal_counts(20, 10), 32, 0.7);
    std::vector<std::vector<Triplet>> got(3), expected;
    for (std::uint64_t seed = 0; seed < got.size(); ++seed) { expected.push_back(by_definition(problem, "semi_hard", 0.2, seed)); }
    std::vector<std::jthread> callers;
    for (std::uint64_t seed = 0; seed < got.size(); ++seed) {
        callers.emplace_back([&, seed] {
            mining::Workspace workspace;
            for (int i = 0; i < 5; ++i) {
                simd::choose(simd::available()[(seed + static_cast<std::size_t>(i)) % simd::available().size()]->name);
                got[seed] = mine(problem, {mining::SemiHard{}, 0.2, seed, 2}, simd::kernels(), workspace).triplets;
            }
        });
    }
    callers.clear();
    check::that(got == expected, "callers side by side");
}

void test_number_of_threads() {
    check::that(mining::threads_for(10'000, 128, 3) == 3 && mining::threads_for(4, 4, 3) == 3, "a wish is honoured");
    check::that(mining::threads_for(4, 4, 0) == 1, "one thread for little work");
    check::that(mining::threads_for(0, 1, 0) == 1, "one thread for no work");
    check::that(mining::threads_for(10'000, 128, 0) >= 1, "a thread at least");
}

}  // namespace

// The argument says how many random batches to mine: fewer where a machine is emulated.
int main(int n_arguments, char** arguments) {
    test_number_of_threads();
    test_trained_and_untrained();
    test_blocks_chunks_and_tiles();
    test_identities_across_blocks();
    test_little_room();
    test_many_rows();
    test_more_doubt_than_memory();
    test_ties_and_duplicates();
    test_near_ties();
    test_long_and_short_rows();
    test_odd_groups();
    test_random_batches(n_arguments > 1 ? std::stoull(arguments[1]) : 100);
    test_parts_of_the_anchors();
    test_floating_point_state();
    test_rows_that_are_not_finite();
    test_callers_side_by_side();
    return check::report();
}
