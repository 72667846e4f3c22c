// The miner against its definition: the same triplets in the same order from every instruction set and number of threads, by
// any rule; and the same counts, ranks and lists.
#include <algorithm>
#include <cfenv>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>
#include <stdexcept>
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
#include "native.hpp"
#include "oracle.hpp"
#include "problems.hpp"
#include "rules.hpp"

namespace {

using native::kTuning;
using native::rule_of;
using oracle::Anchors;
using oracle::Triplet;
using problems::Chance;
using problems::clustered;
using problems::equal_counts;
using problems::in_float32;
using problems::Problem;
using problems::problem_of;
using rules::Named;
using rules::only;
using rules::table;
using rules::times;

constexpr std::size_t kUsualRoom = std::size_t{12} << 20;

struct How {
    const simd::Kernels& kernels;
    int n_threads = 1;
    std::size_t room = kUsualRoom;
    Anchors anchors = {};

    std::string text() const {
        return std::string(kernels.name) + ", threads " + std::to_string(n_threads) + ", room " + std::to_string(room) +
               (anchors.empty() ? "" : ", some anchors");
    }
};

// Numbers of threads and room for more or less go round from one call to the next: all meet all, without a product of all.
How next_way(const simd::Kernels& kernels) {
    static std::size_t turn = 0;
    const int n_threads[] = {1, 2, 1, 3, 4};
    ++turn;
    return {.kernels = kernels, .n_threads = n_threads[turn % 5], .room = turn / 5 % 3 == 0 ? 20'000 : kUsualRoom};
}

struct Mined {
    std::vector<Triplet> results;
    mining::Found found;
    std::int64_t bad_row;
};

// What the bindings do.
template <class Scalar>
Mined mine(const Problem<Scalar>& problem, const mining::Rule& rule, std::uint64_t seed, const How& how,
           mining::Workspace& workspace, const mining::Assignment& assignment = {}) {
    const core::DefaultFloatEnvironment environment;
    const mining::Settings settings = {rule, seed, how.n_threads, how.anchors, assignment, how.room};
    const mining::Grouping grouping{problem.order, problem.offsets};
    mining::Batch batch({problem.values.data(), problem.n(), problem.size}, grouping, how.kernels, how.n_threads,
                        workspace.batch);
    if (batch.bad_row() >= 0) { return {{}, {}, batch.bad_row()}; }
    const mining::Groups groups(grouping.offsets, problem.members, problem.bank_positives, workspace.groups);
    const mining::Found found = mining::mine(settings, batch, groups, workspace);
    if (assignment.task == mining::Task::kList) { return {{}, found, -1}; }
    std::vector<std::int32_t> columns[3];
    for (auto& column : columns) { column.resize(found.n_results, -7); }
    mining::collect(settings, groups, grouping.order, workspace, columns[0].data(), columns[1].data(), columns[2].data());
    std::vector<Triplet> results;
    for (std::size_t i = 0; i < found.n_results; ++i) { results.push_back({columns[0][i], columns[1][i], columns[2][i]}); }
    return {results, found, -1};
}

// Of all tests: each finds what the one before it left, larger or smaller.
mining::Workspace& shared_workspace() {
    static mining::Workspace workspace;
    return workspace;
}

// A problem, and whether what is mined of it is what its definition says.
template <class Scalar>
class Trial {
  public:
    Trial(const Problem<Scalar>& problem, std::uint64_t seed, std::string what)
        : problem_(problem), seed_(seed), what_(std::move(what)), definition_(problem, kTuning) {
        for (std::size_t g = 0; g < problem.n(); ++g) {
            double squared_norm = 0.0;
            for (std::size_t k = 0; k < problem.size; ++k) {
                squared_norm += static_cast<double>(problem.row(g)[k]) * static_cast<double>(problem.row(g)[k]);
            }
            longest_ = std::max(longest_, squared_norm);
        }
    }

    oracle::Mined by_definition(const oracle::Rule& rule, const Anchors& anchors = {}) {
        return definition_.mine(rule, seed_, anchors);
    }

    void check_picks(const Named& named, const oracle::Mined& expected, const How& how) const {
        const auto got = mine(problem_, rule_of(named.rule), seed_, how, shared_workspace());
        const std::string what = text(named, how);
        check::that(got.bad_row < 0 && got.results == expected.triplets,
                    what + ": " + std::to_string(got.results.size()) + " triplets, by definition " +
                        std::to_string(expected.triplets.size()));
        std::size_t n_with_negative = 0;
        for (const auto& pair : expected.pairs) { n_with_negative += pair.n_candidates != 0 ? 1 : 0; }
        check::that(got.found.n_pairs == expected.pairs.size() && got.found.n_with_negative == n_with_negative,
                    what + ": " + std::to_string(got.found.n_pairs) + " pairs, " +
                        std::to_string(got.found.n_with_negative) + " with a candidate, by definition " +
                        std::to_string(expected.pairs.size()) + " and " + std::to_string(n_with_negative));
        check_sums(named.rule, got.found, expected, what);
    }

    // Counts, candidates of given ranks, and the whole list.
    void check_tasks(const Named& named, const How& how) {
        oracle::Rule every = named.rule;
        every.pick = "every";
        every.if_empty = "drop";
        every.n_negatives = 1;
        const oracle::Mined expected = by_definition(every, how.anchors);
        const mining::Rule rule = rule_of(every);
        const std::string what = text(named, how);

        std::vector<Triplet> counts, taken;
        std::vector<std::int32_t> negatives;
        for (const Triplet& triplet : expected.triplets) { negatives.push_back(triplet.negative); }
        std::vector<std::size_t> place(problem_.n());
        for (std::size_t g = 0; g < problem_.n(); ++g) { place[static_cast<std::size_t>(problem_.order[g])] = g; }
        // By grouped row, where its pairs begin, and its candidates.
        std::vector<std::int64_t> first_pair(problem_.n(), 0), first_candidate(problem_.n(), 0), ranks;
        Chance chance(expected.pairs.size());
        std::size_t n_candidates = 0;
        for (std::size_t i = 0; i < expected.pairs.size(); ++i) {
            const oracle::Counted& pair = expected.pairs[i];
            if (i == 0 || expected.pairs[i - 1].anchor != pair.anchor) {
                const std::size_t row = place[static_cast<std::size_t>(pair.anchor)];
                first_pair[row] = static_cast<std::int64_t>(i);
                first_candidate[row] = static_cast<std::int64_t>(n_candidates);
            }
            counts.push_back({pair.anchor, pair.positive, static_cast<std::int32_t>(pair.n_candidates)});
            // Some are asked for none, and some for one that they have not got.
            const std::size_t rank = chance.below(pair.n_candidates + 1) + (chance.below(8) == 0 ? pair.n_candidates : 0);
            const bool asks = chance.below(4) != 0, takes = asks && rank < pair.n_candidates;
            ranks.push_back(asks ? static_cast<std::int64_t>(rank) : -1);
            taken.push_back({pair.anchor, pair.positive, takes ? negatives[n_candidates + rank] : -1});
            n_candidates += pair.n_candidates;
        }

        const auto counted = mine(problem_, rule, seed_, how, shared_workspace(), {.task = mining::Task::kCount});
        check::that(counted.results == counts && counted.found.n_pairs == counts.size(), what + ": counts");

        std::vector<std::int32_t> listed(negatives.size(), -7);
        const auto found = mine(problem_, rule, seed_, how, shared_workspace(),
                                {.task = mining::Task::kList, .row_starts = first_candidate, .listed = listed});
        for (std::int32_t& negative : listed) {
            negative = negative < 0 ? negative : problem_.order[static_cast<std::size_t>(negative)];
        }
        check::that(listed == negatives && found.found.n_pairs == counts.size(), what + ": the list");
        check_sums(named.rule, found.found, expected, what + ": the list");

        // Which of an anchor's pairs is the moderate one is not known to whoever gives the ranks; and a rank for each pair
        // they have where the pairs are the right ones.
        if (every.pairs == "moderate_positive" || counted.results.size() != counts.size()) { return; }
        const auto took = mine(problem_, rule, seed_, how, shared_workspace(),
                               {.task = mining::Task::kTake, .ranks = ranks, .row_starts = first_pair});
        check::that(took.results == taken, what + ": candidates of given ranks");
    }

  private:
    std::string text(const Named& named, const How& how) const { return what_ + ": " + named.name + ", " + how.text(); }

    // They are those of float32's distances, and no worse than 1e-5 of the rows' own length where distances are small.
    void check_sums(const oracle::Rule& rule, const mining::Found& found, const oracle::Mined& expected,
                    const std::string& what) const {
        const double slack = rule.band.distance(longest_) * static_cast<double>(expected.triplets.size()) + 1e-290;
        const auto is_close = [slack](double got, double sum) { return std::fabs(got - sum) <= 1e-5 * (sum + slack); };
        check::that(is_close(found.sum_d_ap, expected.sum_d_ap) && is_close(found.sum_d_an, expected.sum_d_an),
                    what + ": sums " + std::to_string(found.sum_d_ap) + " and " + std::to_string(found.sum_d_an) +
                        ", by definition " + std::to_string(expected.sum_d_ap) + " and " +
                        std::to_string(expected.sum_d_an));
    }

    const Problem<Scalar>& problem_;
    std::uint64_t seed_;
    std::string what_;
    oracle::Definition<Scalar> definition_;
    double longest_ = 0.0;
};

// Where the miner is watched or emulated, and slow, it mines by one way in so many: another one each time.
std::size_t one_way_in = 1;
std::size_t n_ways = 0;

// How many triplets the rules give together.
template <class Scalar>
std::size_t test_picks(const Problem<Scalar>& problem, const rules::Table& rules, std::uint64_t seed,
                       const std::string& what, std::span<const simd::Kernels* const> tables = simd::available()) {
    Trial trial(problem, seed, what);
    std::size_t n_triplets = 0;
    for (const Named& named : rules) {
        if (named.rule.pick == "every") { continue; }
        const auto expected = trial.by_definition(named.rule);
        n_triplets += expected.triplets.size();
        for (const simd::Kernels* kernels : tables) {
            const How way = next_way(*kernels);
            if (++n_ways % one_way_in == 0) { trial.check_picks(named, expected, way); }
        }
    }
    return n_triplets;
}

// Of all of the anchors and of half of them, each with another instruction set.
template <class Scalar>
void test_tasks(const Problem<Scalar>& problem, const rules::Table& rules, std::uint64_t seed, const std::string& what) {
    Trial trial(problem, seed, what);
    Chance chance(problem.n());
    const auto tables = simd::available();
    for (std::size_t i = 0; i < rules.size(); ++i) {
        trial.check_tasks(rules[i], next_way(*tables[i % tables.size()]));
        How some = next_way(*tables[(i + 1) % tables.size()]);
        for (std::size_t g = 0; g < problem.n(); ++g) { some.anchors.push_back(chance.below(2) == 0 ? 1 : 0); }
        trial.check_tasks(rules[i], some);
    }
}

template <class Scalar>
std::size_t test_all(const Problem<Scalar>& problem, const rules::Table& rules, std::uint64_t seed,
                     const std::string& what) {
    test_tasks(problem, rules, seed, what);
    return test_picks(problem, rules, seed, what);
}

// Every word of the miner's is one of the table's.
void test_the_table_has_every_word() {
    const rules::Table all = rules::both(table(), rules::weighted_table(16, 1.0));
    const auto check_words = [&](const auto& words, auto oracle::Rule::* word) {
        for (const auto& its : words) {
            check::that(std::ranges::any_of(all, [&](const Named& named) { return named.rule.*word == its.name; }),
                        std::string(its.name) + " is tested");
        }
    };
    check_words(mining::kPairChoices, &oracle::Rule::pairs);
    check_words(mining::kPicks, &oracle::Rule::pick);
    check_words(mining::kIfEmpty, &oracle::Rule::if_empty);
    check::that(!mining::of_name(mining::kPicks, "abacus").has_value(), "an unknown word is none");
}

void test_trained_and_untrained() {
    for (const double noise : {0.2, 0.7, 5.0}) {
        for (const std::size_t size : {1U, 17U, 128U}) {
            const auto problem = clustered<double>(equal_counts(9, 7), size, noise);
            const std::string what = "noise " + std::to_string(noise) + ", size " + std::to_string(size);
            test_picks(problem, times(0.8, table()), 5, what + ", float64");
            test_all(in_float32(problem), times(0.8, table()), 5, what + ", float32");
        }
    }
}

// Weights fall and rise within a rule's reach; with many dimensions by hundreds of powers of ten.
void test_weighted() {
    for (const double noise : {0.2, 0.7, 5.0}) {
        for (const std::size_t size : {3U, 17U, 128U}) {
            const auto raw = clustered<double>(equal_counts(9, 7), size, noise);
            const std::string what = "noise " + std::to_string(noise) + ", size " + std::to_string(size);
            const auto unit = in_float32(problems::on_sphere(raw, 1.0));
            test_all(unit, rules::weighted_table(size, 1.0), 9, what + ", on the sphere");
            const auto half = problems::on_sphere(raw, std::sqrt(0.5));
            test_picks(half, rules::weighted_table(size, 2.0), 9, what + ", by cosine");
        }
    }
    Chance chance(12);
    for (const std::size_t size : {3U, 4U, 64U, 1024U}) {
        const std::string what = "weights of size " + std::to_string(size);
        const auto loose = problems::on_sphere(clustered<double>(equal_counts(15, 6), 5, 3.0), 1.0);
        test_picks(in_float32(loose), rules::weighted_table(size, 1.0), 2, what);
        const auto tied = problems::tied_on_sphere<float>(equal_counts(15, 6), 12, chance);
        test_picks(tied, rules::weighted_table(size, 1.0), 2, what + ", ties");
    }
}

// Bins that begin exactly where some distances are, which float32 has on either side; and where all are, so that float32
// cannot tell one bin from the next.
template <class Scalar>
void test_distances_at_edges(const Problem<Scalar>& problem, const std::string& what) {
    std::vector<double> distances;
    for (std::size_t g = 0; g < problem.n(); ++g) {
        for (std::size_t h = g + 1; h < problem.n(); ++h) {
            distances.push_back(oracle::squared_distance(problem.row(g), problem.row(h), problem.size));
        }
    }
    for (const double apart : {1e-4, 0.0}) {
        rules::Table some = rules::weighted_table(24, 1.0);
        // A band may begin where a bin does, with what lies there or without.
        std::ranges::nth_element(distances, distances.begin() + static_cast<std::ptrdiff_t>(distances.size() / 4));
        for (const bool open : {false, true}) {
            oracle::Rule rule = some[0].rule;
            rule.band = {.relative = false, .low = distances[distances.size() / 4], .low_is_open = open};
            some.push_back({open ? "weighted, open" : "weighted, closed", rule});
            const double root = std::sqrt(rule.band.low);
            rule.band = {.relative = false, .low = root, .low_is_open = open, .root = true};
            some.push_back({open ? "weighted, beyond a root" : "weighted, from a root on", rule});
            if (!open) { continue; }
            rule.band = {.relative = false, .high = root, .root = true};
            some.push_back({"weighted, up to a root", rule});
        }
        for (Named& named : some) { named.rule.weights = rules::with_edges(named.rule.weights, distances, apart); }
        test_picks(problem, some, 3, "distances at edges of bins, " + what);
    }
}

void test_distances_at_edges() {
    for (const double noise : {0.3, 0.7, 5.0}) {
        const auto problem = problems::on_sphere(clustered<double>(equal_counts(13, 6), 24, noise), 1.0);
        test_distances_at_edges(problem, "float64");
        test_distances_at_edges(in_float32(problem), "float32");
    }
}

// -- bands of roots ----------------------------------------------------------------------------------------------------------

// Edges of bands of roots, by all that float32 may have of two distances: what is sure is a candidate, and what is not possible
// is none. Kernels err by far less than they may, so that batches alone would not show it.
void test_edges_of_roots() {
    Chance chance(11);
    const auto uniform = [&] { return static_cast<double>(chance.below(1 << 20)) / (1 << 20); };
    for (const double scale : {1.0, 0.77, 1e-3, 0x1p-400, 1e140, 1e-135}) {
        for (const std::size_t size : {2U, 128U, 4096U}) {
            const auto problem = clustered<double>(equal_counts(4, 3), size, 0.7, scale);
            mining::BatchMemory memory;
            const mining::Batch batch({problem.values.data(), problem.n(), problem.size}, {problem.order, problem.offsets},
                                      simd::kernels(), 1, memory);
            const double root_scale = std::sqrt(batch.squared_scale());
            // In scaled units, as all here is but what the bands are asked.
            const auto end = [&] {
                const double few[] = {0.0, 1e-9, 1e-4, 0.01, 0.1, 0.3, 0.5, 1.0, 1.9, 3.0, 100.0};
                const double x = chance.below(3) == 0 ? 2.0 * uniform() : chance.one_of(few);
                return chance.below(2) == 0 ? x : -x;
            };
            for (int trial = 0; trial < 4000; ++trial) {
                const std::size_t anchor = chance.below(problem.n());
                oracle::Band band = {.relative = chance.below(4) != 0, .low_is_open = chance.below(2) == 0, .root = true};
                double low = end(), high = end();
                if (high < low) { std::swap(low, high); }
                if (chance.below(4) == 0) { low = -oracle::kInfinity; }
                if (chance.below(4) == 0 || low == high) { high = oracle::kInfinity; }
                band.low = low / root_scale;
                band.high = high / root_scale;
                const double reach = chance.below(3) == 0 ? 4.0 * uniform() : oracle::kInfinity;
                const mining::Decider decide(batch, {band.relative, band.low, band.low_is_open, band.high,
                                                     reach / batch.squared_scale(), true});

                // Most errors are as large as they may be.
                const double most = 0.5 * batch.uncertainty(anchor);
                const auto error = [&] { return chance.below(3) == 0 ? most * (2.0 * uniform() - 1.0)
                                                                     : (chance.below(2) == 0 ? most : -most); };
                const double small[] = {0.0, 1e-30, 1e-12, 0.1 * most, most, 3.0 * most, 30.0 * most};
                const double d_ap = chance.below(2) == 0 ? 4.0 * uniform() : chance.one_of(small);
                const auto got_ap = static_cast<float>(d_ap + error());
                if (std::fabs(static_cast<double>(got_ap) - d_ap) > most) { continue; }
                const simd::Edges edges = decide.edges(decide.doubt(anchor), got_ap);
                check::that(edges.possible_high < 3.0F * static_cast<float>(mining::kBeyond), "padding is no candidate");
                for (const double of : {low, high, reach, oracle::kInfinity}) {
                    const double root = (band.relative ? std::sqrt(d_ap) : 0.0) + of;
                    double d_an = of == reach ? reach : std::max(root, 0.0) * std::max(root, 0.0);
                    if (!(d_an <= 4.0) || chance.below(8) == 0) { d_an = chance.below(8) == 0 ? 0.0 : 4.0 * uniform(); }
                    const double near[] = {0.0, 1e-16, -1e-16, 1e-12, 1e-7, -1e-7, most, -most};
                    d_an = std::max(d_an + chance.one_of(near), 0.0);
                    const auto got_an = static_cast<float>(d_an + error());
                    if (std::fabs(static_cast<double>(got_an) - d_an) > most) { continue; }
                    const double squared_ap = d_ap / batch.squared_scale(), squared_an = d_an / batch.squared_scale();
                    const bool is_candidate = band.holds(squared_ap, squared_an) && d_an < reach;
                    const std::string what = "edges of roots, scale " + std::to_string(std::log10(scale)) + ", band " +
                                             std::to_string(low) + " " + std::to_string(high) + ", distances " +
                                             std::to_string(d_ap) + " " + std::to_string(d_an);
                    check::that(decide.exact(squared_ap, squared_an) == is_candidate, what + ": exactly");
                    check::that(!mining::Decider::sure(edges, got_an) || is_candidate, what + ": a sure candidate");
                    check::that(mining::Decider::possible(edges, got_an) || !is_candidate, what + ": an impossible one");
                }

                // A farther positive's band ends no nearer, and in doubt is no more than need be.
                const float doubt = decide.doubt(anchor);
                const simd::Edges next = decide.edges(doubt, std::nextafter(got_ap, 8.0F));
                check::that(edges.possible_high <= next.possible_high && edges.sure_high <= next.sure_high, "edges rise");
                if (band.relative && std::fabs(high) <= 1.0 && got_ap > 100.0F * doubt) {
                    const double rise = std::fabs(1.0 + high / std::sqrt(static_cast<double>(got_ap)));
                    check::that(edges.possible_high - edges.sure_high <= 1.05 * doubt * (1.0 + rise) + 1e-5, "little doubt");
                }
            }
        }
    }
}

// What a band holds all of, it holds the first and the last number of, some of which have the root of the next.
void test_roots_that_are_held() {
    Chance chance(12);
    const auto problem = clustered<float>(equal_counts(2, 2), 4, 0.7);
    mining::BatchMemory memory;
    const mining::Batch batch({problem.values.data(), problem.n(), problem.size}, {problem.order, problem.offsets},
                              simd::kernels(), 1, memory);
    std::size_t n_held = 0;
    for (int trial = 0; trial < 2000; ++trial) {
        const auto number = [&] { return static_cast<double>(1 + chance.below(1 << 20)) / (1 << 20) / 0.7; };
        const double from = number(), to = from + number();
        const double lows[] = {0.0, std::sqrt(from), std::nextafter(std::sqrt(from), 0.0),
                               std::nextafter(std::sqrt(from), 9.0)};
        const double highs[] = {oracle::kInfinity, std::sqrt(to), std::nextafter(std::sqrt(to), 0.0),
                                std::nextafter(std::sqrt(to), 9.0)};
        const oracle::Band band = {.relative = chance.below(8) == 0, .low = chance.one_of(lows),
                                   .low_is_open = chance.below(2) == 0, .high = chance.one_of(highs), .root = true};
        const double reach = chance.below(4) == 0 ? to - 1e-3 : to;
        const mining::Decider decide(batch, {band.relative, band.low, band.low_is_open, band.high, reach, true});
        const bool holds_ends = band.holds(0.0, from) && band.holds(0.0, std::nextafter(to, 0.0)) && !band.relative;
        const bool held = decide.holds_all(from, to);
        check::that(!held || (holds_ends && reach == to), "all of it is held");
        check::that(held || !band.holds(0.0, to) || !holds_ends || reach != to, "what is held beyond its end is known to be");
        n_held += held ? 1 : 0;
    }
    check::that(n_held > 200, "some are held");
}

// A third of the rules, another one each time.
rules::Table third(const rules::Table& rules) {
    static std::size_t turn = 0;
    rules::Table some;
    for (std::size_t i = turn++ % 3; i < rules.size(); i += 3) { some.push_back(rules[i]); }
    return some;
}

// Bands that begin and end where differences of some roots are, and at the numbers next to those.
template <class Scalar>
void test_ends_at_differences(const Problem<Scalar>& problem, std::uint64_t seed, const std::string& what) {
    Chance chance(seed);
    rules::Table some;
    for (int i = 0; i < 6; ++i) {
        const std::size_t rows[] = {chance.below(problem.n()), chance.below(problem.n()), chance.below(problem.n())};
        const auto distance = [&](std::size_t g) {
            return std::sqrt(oracle::squared_distance(problem.row(rows[0]), problem.row(g), problem.size));
        };
        const bool relative = chance.below(3) != 0;
        const double x = relative ? distance(rows[2]) - distance(rows[1]) : distance(rows[2]);
        const double next[] = {x, x, std::nextafter(x, -oracle::kInfinity), std::nextafter(x, oracle::kInfinity)};
        const double at = chance.one_of(next);
        const std::string_view picks[] = {"uniform", "nearest", "farthest"};
        for (const bool begins : {true, false}) {
            oracle::Rule rule = {.pairs = "both_ways", .pick = chance.one_of(picks), .n_negatives = 1 + chance.below(3)};
            rule.band = {.relative = relative, .low_is_open = chance.below(2) == 0, .root = true};
            (begins ? rule.band.low : rule.band.high) = at;
            if (chance.below(4) == 0) { rule.max_d_ap = distance(rows[1]) + std::numeric_limits<double>::min(); }
            some.push_back({(begins ? "begins at " : "ends at ") + std::to_string(at), rule});
        }
    }
    test_all(problem, some, seed, what + ", ends at differences");
}

void test_roots() {
    const rules::Table all = rules::of_roots(table());
    for (const double noise : {0.2, 0.7, 5.0}) {
        const auto problem = clustered<double>(equal_counts(9, 7), 33, noise);
        const std::string what = "roots, noise " + std::to_string(noise);
        test_picks(problem, third(times(0.4, all)), 5, what + ", float64");
        test_all(in_float32(problem), third(times(0.4, all)), 5, what + ", float32");
        test_ends_at_differences(problem, 1, what + ", float64");
        test_ends_at_differences(in_float32(problem), 2, what + ", float32");
        const auto spherical = problems::on_sphere(problem, 1.0);
        test_all(in_float32(spherical), rules::of_roots(rules::weighted_table(33, 1.0)), 9, what + ", weighted");
    }
    // Corners of a grid of 3 x 4: most distances are whole, as differences of theirs and ends of bands are.
    Chance chance(21);
    const double margins[] = {4.0, 16.0, 64.0};
    const auto grid = problem_of<double>(equal_counts(12, 8), 2, chance, [&](auto, std::size_t k) {
        return (k == 0 ? 3.0 : 4.0) * static_cast<double>(chance.below(4));
    });
    for (const double margin : margins) {
        test_all(in_float32(grid), third(times(margin, all)), 3, "3, 4, 5");
        test_picks(problems::with_bank(grid, chance, margin == 16.0), third(times(margin, all)), 3, "3, 4, 5, with a bank");
    }
    for (const double scale : {0x1p-460, 0x1p-520, 0x1p400, 0x1p-30}) {
        auto same = grid;
        for (double& value : same.values) { value *= scale; }
        test_picks(same, third(times(16.0 * scale * scale, all)), 3, "3, 4, 5 times " + std::to_string(std::log2(scale)));
    }
    // Numbers that float32 cannot hold, and many rows that coincide: small distances whose roots are not small.
    const double values[] = {0.1, 0.7, -0.3};
    for (const std::size_t size : {1U, 3U, 20U}) {
        const auto problem =
            problem_of<double>(equal_counts(12, 8), size, chance, [&](auto, auto) { return chance.one_of(values); });
        const std::string what = "roots, near ties of size " + std::to_string(size);
        test_picks(problem, third(times(0.64, all)), 8, what);
        test_all(in_float32(problem), third(times(10.24, all)), 8, what);
        test_ends_at_differences(problem, size, what);
        auto shaken = problem;
        for (double& value : shaken.values) { value += 1e-5 * chance.normal() * static_cast<double>(chance.below(2)); }
        test_picks(shaken, third(times(0.64, all)), 8, what + ", shaken");
        test_picks(shaken, third(times(1e-9, all)), 8, what + ", shaken, and narrow bands");
        test_ends_at_differences(shaken, size, what + ", shaken");
    }
    for (const double value : {0.0, 0.3}) {
        const auto problem = problem_of<float>(equal_counts(6, 10), 8, chance, [&](auto, auto) { return value; });
        test_all(problem, third(all), 1, "roots, all rows equal");
        const std::size_t n = test_picks(problem, rules::of_roots(only({"violating", "semi_hard"})), 1, "all rows equal");
        check::that(n == 6 * 45, "all pairs violate, none is semi-hard");
    }
    for (const double scale : {1e-300, 1e-160, 1e-140, 1e-19, 1e19, 1e140, 5e149}) {
        const auto problem = clustered<double>(equal_counts(6, 5), 12, 0.7, scale);
        const std::string what = "roots, scale " + std::to_string(std::log10(scale));
        rules::Table some = third(all);
        for (Named& named : some) {
            named.rule.band.low *= 0.8 * scale;
            named.rule.band.high *= 0.8 * scale;
            named.rule.max_d_ap *= 0.8 * scale;
        }
        test_picks(problem, some, 1, what);
    }
    auto lengths = clustered<float>(equal_counts(8, 6), 16, 0.7);
    for (std::size_t i = 0; i < lengths.values.size(); ++i) {
        lengths.values[i] *= static_cast<float>(std::pow(10.0, static_cast<double>(i / 16) / 2.0 - 12.0));
    }
    for (const double margin : {1e-20, 1e-3, 1.0, 1e30}) {
        test_picks(lengths, third(times(4.0 * margin, all)), 1, "roots, lengths far apart");
    }
    // Draws, samples, stripes and rows.
    const rules::Table some = rules::of_roots(only({"violating", "semi_hard", "3", "nearest 3", "hard or nearest", "skip many",
                                                    "moderate positive, 2", "absolute, 3", "screened twice"}));
    test_picks(clustered<float>(equal_counts(110, 7), 16, 0.2), times(0.1, third(some)), 4, "roots, identities across blocks");
    test_picks(clustered<float>(equal_counts(110, 7), 16, 1.0), times(0.1, third(some)), 4, "roots, loose identities");
    test_picks(clustered<float>(equal_counts(110, 7), 6, 0.4), times(0.02, third(some)), 4, "roots, few numbers");
}

// Next to nothing and next to antipodes weights change within fractions of what float32 knows of a distance.
void test_weights_beyond_float32() {
    for (const std::size_t size : {3U, 4U, 16U}) {
        Chance chance(size);
        auto problem = problem_of<double>(equal_counts(12, 6), size, chance, [&](auto, auto) { return chance.normal(); });
        problem = problems::on_sphere(problem, 1.0);
        for (std::size_t row = 0; row < problem.n(); ++row) {
            // Half of the rows are a few, or their antipodes, but for a little.
            if (chance.below(2) == 0) { continue; }
            const double side = chance.below(2) == 0 ? 1.0 : -1.0;
            const double digits = 1.0 + static_cast<double>(chance.below(80)) / 10.0;
            const double little = chance.below(4) == 0 ? 0.0 : std::pow(10.0, -digits);
            const std::size_t from = chance.below(3);
            for (std::size_t k = 0; k < size; ++k) {
                problem.values[row * size + k] = side * problem.values[from * size + k] + little * chance.normal();
            }
        }
        problem = problems::on_sphere(problem, 1.0);
        const rules::Table some = {
            {"down to nothing", rules::weighted({.band = rules::kAll, .pairs = "both_ways"}, size, 1e-3, 2.5, 1.0)},
            {"down to nothing, 3", rules::weighted({.band = rules::kFarther, .n_negatives = 3}, size, 1e-4, 2.5, 1.0)},
            {"down to nothing, many", rules::weighted({.band = rules::kViolating, .n_negatives = 80}, size, 1e-3, 2.5, 1.0)},
            {"up to antipodes", rules::weighted({.band = {.low = 0.5}, .n_negatives = 2}, size, 0.5, 2.5, 1.0)},
        };
        const std::string what = "weights beyond float32, size " + std::to_string(size);
        test_picks(problem, some, 4, what + ", float64");
        test_picks(in_float32(problem), some, 4, what + ", float32");
    }
}

// More rows than a block and columns than a chunk, neither a multiple of a tile; identities of all sizes, and some empty.
void test_blocks_chunks_and_tiles() {
    Chance chance(3);
    std::vector<std::size_t> counts(34);
    for (std::size_t& count : counts) { count = chance.below(4) == 0 ? 0 : chance.below(20); }
    counts.push_back(40);
    const auto problem = problem_of<float>(counts, 5, chance, [&](auto, auto) { return chance.normal(); });
    check::that(problem.n() > 256, "columns beyond a chunk");
    test_picks(problem, times(0.08, table()), 2, "few candidates");
    test_all(problem, times(2.0, table()), 2, "some candidates");
    test_picks(clustered<float>(counts, 24, 0.15), times(0.2, table()), 2, "hardly any");
    test_picks(problems::with_bank(problem, chance, true), times(2.0, table()), 2, "some of a bank");
    const auto spherical = problems::on_sphere(clustered<double>(counts, 6, 0.7), 1.0);
    test_picks(in_float32(spherical), rules::weighted_table(24, 1.0), 2, "many weights");
}

// Identities that reach from one block into the next, all blocks full but the last.
void test_identities_across_blocks() {
    const rules::Table some = only({"violating", "semi_hard", "both ways", "nearest 3", "batch hard", "moderate positive, 2",
                                    "hard or nearest", "skip many", "half"});
    test_picks(clustered<float>(equal_counts(110, 7), 16, 0.2), times(0.4, some), 4, "identities across blocks");
    // A third of the identities is tight and searches for what the others draw at once.
    Chance chance(5);
    std::vector<double> centres(110 * 16);
    for (double& centre : centres) { centre = chance.normal(); }
    const auto mixed = problem_of<float>(equal_counts(110, 7), 16, chance, [&](std::size_t identity, std::size_t k) {
        return centres[identity * 16 + k] + (identity % 3 == 0 ? 0.02 : 5.0) * chance.normal();
    });
    const rules::Table drawing = only({"violating", "semi_hard", "3", "random 3 positives or nearest"});
    for (const double margin : {1.0, 10.0, 200.0}) { test_picks(mixed, times(4.0 * margin, drawing), 4, "tight and loose"); }
}

// Room for all that passes the sieves, for that of a few stripes, of one block at a time, for less, and for none.
void test_little_room() {
    for (const double noise : {0.3, 0.8}) {
        const auto problem = clustered<float>(equal_counts(170, 7), 16, noise);
        Trial trial(problem, 4, "noise " + std::to_string(noise));
        for (const Named& named : times(0.4, only({"violating", "semi_hard", "nearest 3", "moderate positive"}))) {
            const auto expected = trial.by_definition(named.rule);
            for (std::size_t room = 1 << 20; room != 0; room = room * 5 / 8) {
                trial.check_picks(named, expected, {simd::kernels(), room % 2 == 0 ? 1 : 3, room});
            }
        }
    }
}

// As many rows as it takes to sample every anchor's negatives; few are anchors, so that the definition is not at it all day.
void test_many_rows() {
    const rules::Table some =
        only({"violating", "semi_hard", "3", "random 3 positives or nearest", "nearest 20", "both ways", "absolute, 3",
              "screened twice", "skip few", "skip few, nearest 3", "skip, batch hard", "moderate positive", "farthest"});
    for (const std::size_t n_others : {mining::kSampleFromRows, (mining::kLeastSampled + 2) * mining::kRowsPerSampled}) {
        std::vector<std::size_t> counts(n_others, 1);
        std::fill_n(counts.begin() + 7, 70, 5);
        for (const double noise : {0.3, 0.6}) {
            const std::string what = "many rows, noise " + std::to_string(noise);
            test_picks(clustered<float>(counts, 6, noise), times(0.2, some), 6, what);
        }
    }
}

// All rows equal, and float64 asked about every distance: more than is kept between the search's two steps.
void test_more_doubt_than_memory() {
    Chance chance(6);
    std::vector<std::size_t> counts(1773, 2);
    counts.push_back(1);
    const rules::Table some = only({"violating", "semi_hard", "hardest"});
    const auto best = simd::available().first(1);
    const auto problem = problem_of<float>(counts, 2, chance, [](auto, auto) { return 0.3; });
    test_picks(problem, some, 1, "doubt everywhere", best);
    counts.push_back(100);
    const auto more = problem_of<float>(counts, 2, chance, [](auto, auto) { return 0.3; });
    test_picks(more, some, 1, "doubt everywhere, foreseen", best);
}

// Small whole numbers: most distances tie with each other and with the edges of the band.
void test_ties_and_duplicates() {
    Chance chance(4);
    for (const std::size_t size : {2U, 6U, 20U}) {
        const auto problem = problem_of<float>(
            equal_counts(12, 8), size, chance, [&](auto, auto) { return static_cast<double>(chance.below(3)) - 1.0; });
        test_all(problem, times(4.0, table()), 3, "ties");
        test_picks(problem, times(8.0, table()), 3, "ties");
        test_all(problems::with_bank(problem, chance, size == 6), times(4.0, table()), 3, "ties, with a bank");
    }
    for (const double value : {0.0, 0.3}) {
        const auto problem = problem_of<float>(equal_counts(6, 10), 8, chance, [&](auto, auto) { return value; });
        check::that(test_picks(problem, only({"violating", "semi_hard"}), 1, "all rows equal") == 6 * 45,
                    "all pairs violate, none is semi-hard");
        test_all(problem, table(), 1, "all rows equal");
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
            // Quarters become multiples of 0.16, as distances are.
            const rules::Table rules = times(size == 20 ? 6.4 : 40.0, table());
            test_picks(problem, rules, 8, "near ties, float64");
            test_picks(in_float32(problem), rules, 8, "near ties, float32");
            const rules::Table narrow = only({"violating", "semi_hard", "nearest semi-hard", "3"});
            for (const double margin : {0.16, 0.84}) { test_picks(problem, times(4.0 * margin, narrow), 8, "near ties"); }
        }
    }
}

// Rows that are all equally far from each other, but for the last bits of float64.
void test_all_equally_far(std::uint64_t n_batches) {
    const rules::Table some =
        only({"moderate positive", "moderate positive, 2", "every of a moderate positive", "farthest of a moderate positive",
              "batch hard", "easiest positive", "nearest 3", "farthest", "half", "hardest 2 of most", "skip many", "hard"});
    for (std::uint64_t seed = 0; seed < n_batches; ++seed) {
        Chance chance(seed);
        std::vector<std::size_t> counts(2 + chance.below(3));
        for (std::size_t& count : counts) { count = 1 + chance.below(3); }
        const double values[] = {0.1, 0.7, -0.3, 0.45, 1.1};
        const std::size_t n = std::reduce(counts.begin(), counts.end()), size = n * std::size(values);
        auto problem = problem_of<double>(counts, size, chance, [](auto, auto) { return 0.0; });
        // Each row has numbers where no other has any.
        std::vector<std::size_t> places(size);
        std::iota(places.begin(), places.end(), std::size_t{0});
        chance.shuffle(places);
        std::vector<double> lengths(n, 1.0);
        // Some are a little farther from all, and still in most bands.
        for (double& length : lengths) { length = chance.below(4) == 0 ? 1.03 : 1.0; }
        for (std::size_t i = 0; i < size; ++i) {
            const std::size_t row = i / std::size(values);
            problem.values[row * size + places[i]] = lengths[row] * values[i % std::size(values)];
        }
        const std::string what = "all equally far, batch " + std::to_string(seed);
        test_picks(problem, some, seed, what + ", float64");
        test_picks(in_float32(problem), some, seed, what + ", float32");
    }
}

// One pair, and negatives of which those that lie at regular places are near and all others far: samples of them mislead.
void test_samples_that_mislead() {
    for (const std::size_t n : {128U, 512U, 768U}) {
        for (const std::size_t step : {2U, 3U, 8U}) {
            for (const bool near_ones_are_sampled : {true, false}) {
                Chance chance(n + step);
                std::vector<std::size_t> counts(n + 1, 1);
                counts[0] = 2;
                const auto problem = problem_of<float>(counts, 3, chance, [&](std::size_t identity, std::size_t k) {
                    const bool is_sampled = (identity - 1) % step == 0;
                    const double far = identity != 0 && is_sampled != near_ones_are_sampled ? 2.0 : 0.0;
                    return 0.1 * chance.normal() + (k == 0 ? far : 0.0);
                });
                const std::size_t n_sampled = (n + step - 1) / step;
                const std::size_t n_near = near_ones_are_sampled ? n_sampled : n - n_sampled;
                rules::Table some = only({"violating", "nearest 3", "nearest 20", "farthest semi-hard 3", "hard or nearest",
                                          "batch hard", "nearest or the nearest of all"});
                const rules::Table skipping = only({"violating", "violating or nearest", "nearest 3", "skip or nearest",
                                                    "moderate, skip", "moderate, screened"});
                // All that are near are left out, or all but a few.
                for (const std::size_t n_skipped : {n_near, n_near - 2}) {
                    for (Named named : skipping) {
                        named.rule.skip_hardest = (static_cast<double>(n_skipped) + 0.5) / static_cast<double>(n);
                        named.name += ", skip " + std::to_string(n_skipped);
                        some.push_back(named);
                    }
                }
                test_picks(problem, some, 1, std::to_string(n) + " negatives, one of " + std::to_string(step) +
                                                 (near_ones_are_sampled ? " is near" : " is far"));
            }
        }
    }
}

void test_long_and_short_rows() {
    for (const double scale : {1e-300, 1e-160, 1e-140, 1e-30, 1e-19, 1e19, 1e140, 5e149}) {
        const double margin = std::max(0.2 * scale * scale, std::numeric_limits<double>::denorm_min());
        test_picks(clustered<double>(equal_counts(6, 5), 12, 0.7, scale), times(4.0 * margin, table()), 1,
                   "scale " + std::to_string(std::log10(scale)));
    }
    auto problem = clustered<float>(equal_counts(8, 6), 16, 0.7);
    for (std::size_t i = 0; i < problem.values.size(); ++i) {
        problem.values[i] *= static_cast<float>(std::pow(10.0, static_cast<double>(i / 16) / 2.0 - 12.0));
    }
    for (const double margin : {1e-20, 1e-3, 1.0}) {
        test_picks(problem, times(4.0 * margin, table()), 1, "lengths far apart");
    }
}

void test_odd_groups() {
    const auto none = [](const std::vector<std::size_t>& counts, const std::string& what) {
        check::that(test_all(clustered<float>(counts, 7, 0.7), table(), 1, what) == 0, what + " gives no triplet");
    };
    none({}, "no rows");
    none({0, 0}, "no rows in two identities");
    none({1}, "one row");
    none({40}, "one identity");
    none(equal_counts(100, 1), "each row an identity");
    test_all(clustered<float>({2, 1}, 7, 5.0), table(), 1, "one pair and one negative");
    test_all(clustered<float>({2, 2}, 7, 5.0), table(), 1, "two pairs");
    const rules::Table some = only({"violating", "semi_hard", "nearest 3", "batch hard", "2 of 3", "hardest 2 of most",
                                    "skip or nearest", "moderate positive or farthest", "batch all", "every absolute"});
    test_picks(clustered<float>({300, 40}, 4, 0.3), times(0.4, some), 1, "one large identity, trained");
    test_picks(clustered<double>({1, 250}, 4, 5.0), times(0.4, some), 1, "one large identity, one negative");
    auto bank = clustered<float>(equal_counts(10, 5), 7, 0.7);
    bank.members.assign(10, 0);
    for (std::size_t i = 0; i < 10; ++i) { bank.members[i] = bank.offsets[i]; }
    check::that(test_all(bank, table(), 1, "all of a bank") == 0, "a bank has no anchors");
    for (std::size_t i = 0; i < 10; i += 2) { ++bank.members[i]; }
    check::that(test_all(bank, table(), 1, "an anchor and a bank") == 0, "a bank has no positives unless asked");
    bank.bank_positives = true;
    check::that(test_all(bank, table(), 1, "an anchor and a bank's positives") != 0, "a bank has positives where asked");
}

// A bank's rows are negatives, never anchors, and positives only if asked.
void test_banks() {
    for (const double noise : {0.3, 0.7, 5.0}) {
        for (const bool bank_positives : {false, true}) {
            Chance chance(8);
            const auto all = clustered<float>(equal_counts(10, 9), 17, noise);
            const auto problem = problems::with_bank(all, chance, bank_positives);
            test_all(problem, times(0.8, table()), 7, "a bank, noise " + std::to_string(noise));
        }
        Chance chance(9);
        const auto large = problems::with_bank(clustered<double>(equal_counts(90, 7), 9, noise), chance, noise < 0.5);
        const rules::Table some = rules::both(only({"violating", "3", "nearest 3", "random 3 positives or nearest"}),
                                              only({"weighted, 3"}, rules::weighted_table(9, 1.0)));
        test_picks(problems::on_sphere(large, 1.0), some, 7, "a large bank");
    }
}

// What the caller got wrong is refused, or bounded by what there is room for.
void test_wrong_assignments() {
    const auto problem = clustered<float>(equal_counts(9, 7), 17, 0.7);
    const auto is_refused = [&](const mining::Rule& rule, std::size_t n_ranks, const Anchors& anchors) {
        const std::vector<std::int64_t> row_starts(problem.n(), 0), ranks(n_ranks, 0);
        try {
            mine(problem, rule, 1, {.kernels = simd::kernels(), .anchors = anchors}, shared_workspace(),
                 {.task = mining::Task::kTake, .ranks = ranks, .row_starts = row_starts});
        } catch (const std::invalid_argument&) { return true; }
        return false;
    };
    Anchors last(problem.n(), 0);
    last.back() = last[problem.n() - 2] = 1;
    const mining::Rule each_once = rule_of({.band = rules::kAll, .pick = "every"});
    const mining::Rule both_ways = rule_of({.band = rules::kAll, .pairs = "both_ways", .pick = "every"});
    check::that(is_refused(each_once, 5, {}) && !is_refused(each_once, 6, {}), "an anchor has six pairs at most");
    check::that(is_refused(each_once, 0, last) && !is_refused(each_once, 1, last), "the last two have a pair at most");
    check::that(is_refused(both_ways, 5, last) && !is_refused(both_ways, 6, last), "or six");

    // Room for half of the candidates: behind it nothing is written.
    const std::size_t n_pairs = 9 * 21, n_negatives = 8 * 7;
    std::vector<std::int64_t> row_starts;
    std::size_t n_listed = 0;
    for (std::size_t g = 0; g < problem.n(); ++g) {
        row_starts.push_back(static_cast<std::int64_t>(n_listed));
        n_listed += (6 - g % 7) * n_negatives;
    }
    check::that(n_listed == n_pairs * n_negatives, "all candidates");
    std::vector<std::int32_t> listed(n_listed, -7);
    const std::size_t room = n_listed / 2 + 5;
    mine(problem, each_once, 1, {simd::kernels(), 2}, shared_workspace(),
         {.task = mining::Task::kList, .row_starts = row_starts, .listed = std::span(listed).first(room)});
    const auto is_open = [](std::int32_t row) { return row == -7; };
    check::that(std::ranges::all_of(std::span(listed).subspan(room), is_open), "nothing behind the room");
    check::that(std::ranges::none_of(std::span(listed).first(room - n_negatives), is_open), "all that fits in");
}

// Many batches of odd shapes, whose numbers are drawn from few or from many, by rules of any words.
void test_random_batches(std::uint64_t n_batches) {
    for (std::uint64_t seed = 0; seed < n_batches; ++seed) {
        Chance chance(seed);
        std::vector<std::size_t> counts(1 + chance.below(9));
        for (std::size_t& count : counts) { count = chance.below(9); }
        std::size_t size = 1 + chance.below(40);
        const std::size_t kind = chance.below(6);
        const double few[] = {0.0, 1e-30, 1e20, -1e-3, 1.0, -1.0}, near[] = {0.1, 0.7, -0.3};
        if (kind == 5) { size = 1 + chance.below(8); }
        auto problem = problem_of<double>(counts, size, chance, [&](auto, auto) {
            return kind == 1   ? chance.one_of(few)
                   : kind == 2 ? static_cast<double>(chance.below(3))
                   : kind == 5 ? chance.one_of(near)
                               : chance.normal();
        });
        if (kind == 3) { problem = problems::on_sphere(problem, 1.0); }
        if (kind == 4) { problem = problems::tied_on_sphere<double>(counts, size = std::max<std::size_t>(size, 6), chance); }
        if (chance.below(3) == 0) { problem = problems::with_bank(problem, chance, chance.below(2) == 0); }

        rules::Table some = times(std::exp2(static_cast<double>(chance.below(30)) - 18.0), only({"violating", "semi_hard"}));
        for (int i = 0; i < 8; ++i) {
            const double unit = kind == 0 ? 0.5 * static_cast<double>(size) : kind == 5 ? 0.64 : 1.0;
            oracle::Rule rule = rules::composed(chance, unit);
            if ((kind == 3 || kind == 4) && rule.pick == "uniform") {
                rule = rules::weighted(rule, 3 + chance.below(60), 0.4, 1.9, 1.0);
            }
            some.push_back({"composed " + std::to_string(i), rule});
        }
        const std::string what = "batch " + std::to_string(seed);
        test_picks(problem, some, seed * 0x123456789ABCDEFU, what + ", float64");
        test_all(in_float32(problem), some, seed, what + ", float32");
    }
}

// A caller that rounds otherwise and takes denormals for zero gets the same triplets, and keeps its modes and flags.
void test_floating_point_state() {
    // Every coordinate is a denormal float.
    const auto problem = in_float32(clustered<double>(equal_counts(40, 7), 24, 0.5, 1e-39));
    Trial trial(problem, 5, "denormals");
    for (const Named& named : times(4e-79, only({"semi_hard", "skip few", "nearest 3", "hardest 2 of most", "half"}))) {
        const auto expected = trial.by_definition(named.rule);
        if (named.name == "semi_hard") {
            check::that(!expected.triplets.empty() && expected.triplets.size() < 40 * 21, "some pairs have a negative");
        }
        std::fenv_t before;
        std::fegetenv(&before);
        for (const int rounding : {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO}) {
            for (const int n_threads : {1, 3}) {
                const mining::Rule rule = rule_of(named.rule);
                std::fesetround(rounding);
                std::feclearexcept(FE_ALL_EXCEPT);
                std::feraiseexcept(FE_OVERFLOW);
#if defined(__x86_64__)
                const unsigned denormals_are_zero = 0x8040;
                _mm_setcsr(_mm_getcsr() | denormals_are_zero);
#endif
                const int flags = std::fetestexcept(FE_ALL_EXCEPT);
                const auto mined = mine(problem, rule, 5, {simd::kernels(), n_threads}, shared_workspace()).results;
                bool untouched = std::fegetround() == rounding && std::fetestexcept(FE_ALL_EXCEPT) == flags;
#if defined(__x86_64__)
                untouched = untouched && (_mm_getcsr() & denormals_are_zero) == denormals_are_zero;
#endif
                std::fesetenv(&before);
                check::that(mined == expected.triplets, "the caller's rounding and denormals do not matter: " + named.name);
                check::that(untouched, "the caller keeps its floating-point state");
            }
        }
    }
}

// Parts of the anchors, cut anyhow, have between them the triplets of all.
void test_parts_of_the_anchors() {
    const rules::Table some = times(0.8, only({"violating", "semi_hard", "3", "nearest 3", "random 3 positives or nearest",
                                               "hardest 2 of most", "moderate, screened", "skip many"}));
    for (const double noise : {0.3, 0.7, 5.0}) {
        const auto problem = clustered<float>(equal_counts(60, 6), 24, noise);
        Trial trial(problem, 3, "parts");
        for (const Named& named : some) {
            auto expected = trial.by_definition(named.rule).triplets;
            std::ranges::sort(expected);
            for (const std::size_t n_parts : {1U, 2U, 7U, 60U}) {
                Chance chance(n_parts);
                std::vector<std::size_t> parts(problem.n());
                for (std::size_t& part : parts) { part = chance.below(n_parts); }
                std::vector<Triplet> got;
                for (std::size_t part = 0; part < n_parts; ++part) {
                    How how = {.kernels = simd::kernels(), .n_threads = 1 + static_cast<int>(part % 3)};
                    for (const std::size_t its : parts) { how.anchors.push_back(its == part ? 1 : 0); }
                    const auto mined = mine(problem, rule_of(named.rule), 3, how, shared_workspace()).results;
                    got.insert(got.end(), mined.begin(), mined.end());
                }
                std::ranges::sort(got);
                check::that(got == expected, "parts of the anchors: " + named.name + ", " + std::to_string(n_parts) +
                                                 ", noise " + std::to_string(noise));
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
            const auto mined = mine(problem, rule_of({.band = rules::kSemiHard}), 1, {*kernels, 3}, shared_workspace());
            check::that(mined.bad_row == 17 && mined.results.empty(), "the first bad row");
        }
    }
}

// Callers side by side, each with a workspace and threads of its own.
void test_callers_side_by_side() {
    const auto problem = clustered<float>(equal_counts(20, 10), 32, 0.7);
    const rules::Table some = times(0.8, only({"semi_hard", "nearest 3", "hardest 2 of most"}));
    std::vector<std::vector<Triplet>> got(some.size()), expected;
    for (std::size_t i = 0; i < some.size(); ++i) {
        expected.push_back(Trial(problem, i, "").by_definition(some[i].rule).triplets);
    }
    std::vector<std::jthread> callers;
    for (std::size_t i = 0; i < some.size(); ++i) {
        callers.emplace_back([&, i] {
            mining::Workspace workspace;
            for (std::size_t turn = 0; turn < 5; ++turn) {
                simd::choose(simd::available()[(i + turn) % simd::available().size()]->name);
                got[i] = mine(problem, rule_of(some[i].rule), i, {simd::kernels(), 2}, workspace).results;
            }
        });
    }
    callers.clear();
    check::that(got == expected, "callers side by side");
    simd::choose(simd::available().front()->name);
}

void test_number_of_threads() {
    check::that(mining::threads_for(10'000, 128, 3) == 3 && mining::threads_for(4, 4, 3) == 3, "a wish is honoured");
    check::that(mining::threads_for(4, 4, 0) == 1, "one thread for little work");
    check::that(mining::threads_for(0, 1, 0) == 1, "one thread for no work");
    check::that(mining::threads_for(10'000, 128, 0) >= 1, "a thread at least");
}

}  // namespace

// The argument says how many random batches to mine: fewer where a machine is watched or emulated, and other tests then mine
// in fewer ways; with five or less only tests in which threads have much to do with each other.
int main(int n_arguments, char** arguments) {
    const std::uint64_t n_batches = n_arguments > 1 ? std::stoull(arguments[1]) : 100;
    // None of the numbers of ways that go round, so that all of them have their turn.
    if (n_batches < 100) { one_way_in = 7; }
    if (n_batches <= 5) {
        test_identities_across_blocks();
        test_little_room();
        test_banks();
        test_random_batches(n_batches);
        test_callers_side_by_side();
        return check::report();
    }
    test_number_of_threads();
    test_the_table_has_every_word();
    test_trained_and_untrained();
    test_weighted();
    test_edges_of_roots();
    test_roots_that_are_held();
    test_roots();
    test_distances_at_edges();
    test_blocks_chunks_and_tiles();
    test_identities_across_blocks();
    test_little_room();
    test_many_rows();
    test_more_doubt_than_memory();
    test_ties_and_duplicates();
    test_near_ties();
    test_all_equally_far(n_batches);
    test_samples_that_mislead();
    test_long_and_short_rows();
    test_odd_groups();
    test_banks();
    test_wrong_assignments();
    test_random_batches(n_batches);
    test_parts_of_the_anchors();
    test_floating_point_state();
    test_rows_that_are_not_finite();
    test_callers_side_by_side();
    test_weights_beyond_float32();
    return check::report();
}
