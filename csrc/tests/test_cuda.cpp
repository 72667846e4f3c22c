// The device's miner against the same definition as the CPU's, in one stripe or in many, with the rows on the device or left in
// the host's memory; and on an emulated device, whatever order a block's threads run in.
#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

#include "../cuda/miner.hpp"
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
using rules::Named;
using rules::only;
using rules::table;
using rules::times;

// Memory that one call after another finds as the last one left it: with all rows on the device, and none.
cuda::Workspace& workspace_of(bool on_host) {
    static cuda::Workspace workspaces[2];
    workspaces[1].largest_rows = 0;
    return workspaces[on_host ? 1 : 0];
}

// Orders of threads, lengths of stripes and places of rows go round from one call to the next.
cuda::Workspace& next_way(std::string& what) {
    static std::size_t turn = 0;
    ++turn;
#if defined(FACENET_FAST_EMULATED_CUDA)
    constexpr emulated_cuda::Order kOrders[] = {emulated_cuda::Order::kForward, emulated_cuda::Order::kBackward,
                                                emulated_cuda::Order::kShuffled};
    emulated_cuda::set_order(kOrders[turn % 3], turn);
#endif
    cuda::Workspace& workspace = workspace_of(turn / 3 % 2 == 1);
    workspace.stripe_bytes = turn / 6 % 2 == 1 ? 0 : std::size_t{64} << 20;
    workspace.whole_bytes = turn / 2 % 2 == 1 ? 0 : std::size_t{64} << 20;
    what += ", way " + std::to_string(turn % 12);
    return workspace;
}

template <class Scalar>
cuda::Call call_of(const Problem<Scalar>& problem, const mining::Rule& rule, std::uint64_t seed, const Anchors& anchors) {
    return {problem.values.data(), problem.n(),     problem.size,           false,   problem.order, problem.offsets,
            problem.members,       problem.bank_positives, anchors, rule,  seed,          nullptr};
}

std::vector<std::int32_t> fetched(const cuda::Array<std::int32_t>& values) {
    std::vector<std::int32_t> fetched(values.size());
    cuda::download(std::span(fetched), static_cast<const std::int32_t*>(values.data()), nullptr);
    return fetched;
}

std::vector<Triplet> rows_of(const cuda::Mined& mined) {
    const auto anchors = fetched(mined.anchors), positives = fetched(mined.positives), thirds = fetched(mined.thirds);
    std::vector<Triplet> rows;
    for (std::size_t i = 0; i < anchors.size(); ++i) { rows.push_back({anchors[i], positives[i], thirds[i]}); }
    return rows;
}

bool is_close(double got, double expected, double slack) {
    return std::fabs(got - expected) <= 1e-5 * std::fabs(expected) + slack;
}

template <class Scalar>
void test_picks(const Problem<Scalar>& problem, const Named& named, std::uint64_t seed, std::string what,
                oracle::Definition<Scalar>& definition, const Anchors& anchors = {}) {
    const oracle::Mined expected = definition.mine(named.rule, seed, anchors);
    what += ": " + named.name;
    cuda::Workspace& workspace = next_way(what);
    const mining::Rule rule = rule_of(named.rule);
    const cuda::Mined got = cuda::mine(call_of(problem, rule, seed, anchors), workspace);
    check::that(got.bad_row < 0 && rows_of(got) == expected.triplets,
                what + ": " + std::to_string(got.anchors.size()) + " triplets, by definition " +
                    std::to_string(expected.triplets.size()));
    const auto n_with_negative =
        std::ranges::count_if(expected.pairs, [](const oracle::Counted& pair) { return pair.n_candidates != 0; });
    check::that(got.n_pairs == static_cast<std::int64_t>(expected.pairs.size()) && got.n_with_negative == n_with_negative,
                what + ": pairs");
    const double least = std::numeric_limits<double>::min();
    check::that(is_close(got.sum_d_ap, expected.sum_d_ap, least) && is_close(got.sum_d_an, expected.sum_d_an, least),
                what + ": sums");
}

template <class Scalar>
void test_tasks(const Problem<Scalar>& problem, const Named& named, std::uint64_t seed, std::string what,
                oracle::Definition<Scalar>& definition, const Anchors& anchors = {}) {
    oracle::Rule every = named.rule;
    every.pick = "every";
    every.if_empty = "drop";
    every.n_negatives = 1;
    const oracle::Mined expected = definition.mine(every, seed, anchors);
    std::vector<Triplet> counts;
    std::vector<std::int32_t> negatives;
    std::vector<std::size_t> place(problem.n());
    for (std::size_t g = 0; g < problem.n(); ++g) { place[static_cast<std::size_t>(problem.order[g])] = g; }
    std::vector<std::int64_t> row_starts(problem.n(), 0);
    std::int64_t n = 0;
    for (const oracle::Counted& pair : expected.pairs) {
        const std::size_t row = place[static_cast<std::size_t>(pair.anchor)];
        if (counts.empty() || counts.back().anchor != pair.anchor) { row_starts[row] = n; }
        counts.push_back({pair.anchor, pair.positive, static_cast<std::int32_t>(pair.n_candidates)});
        n += static_cast<std::int64_t>(pair.n_candidates);
    }
    for (const Triplet& triplet : expected.triplets) { negatives.push_back(triplet.negative); }
    what += ": " + named.name;
    const mining::Rule rule = rule_of(every);
    cuda::Workspace& workspace = next_way(what);
    check::that(rows_of(cuda::count(call_of(problem, rule, seed, anchors), workspace)) == counts, what + ": counts");
    const cuda::Listed listed =
        cuda::every(call_of(problem, rule, seed, anchors), row_starts, negatives.size(), next_way(what));
    check::that(fetched(listed.negatives) == negatives, what + ": the list");
    check::that(is_close(listed.sum_d_an, expected.sum_d_an, 1e-300), what + ": sums of the list");
}

// Of each problem one rule in so many is tested, other ones each time: fewer where memory is watched, and all is slow.
std::size_t one_rule_in = 2;
std::size_t n_rules = 0;

template <class Scalar>
void test_all(const Problem<Scalar>& problem, const rules::Table& rules, std::uint64_t seed, const std::string& what) {
    oracle::Definition<Scalar> definition(problem, kTuning);
    Chance chance(problem.n());
    Anchors some;
    for (std::size_t g = 0; g < problem.n(); ++g) { some.push_back(chance.below(2) == 0 ? 1 : 0); }
    for (const Named& named : rules) {
        if (++n_rules % one_rule_in != 0) { continue; }
        if (named.rule.pick != "every") { test_picks(problem, named, seed, what, definition); }
        if (chance.below(4) == 0) { test_tasks(problem, named, seed, what, definition); }
        if (chance.below(4) == 0) { test_tasks(problem, named, seed, what + ", some anchors", definition, some); }
        if (chance.below(4) == 0 && named.rule.pick != "every") {
            test_picks(problem, named, seed, what + ", some anchors", definition, some);
        }
    }
}

void test_trained_and_untrained() {
    for (const double noise : {0.2, 0.7, 5.0}) {
        for (const std::size_t size : {1U, 17U}) {
            const auto problem = clustered<double>(equal_counts(7, 5), size, noise);
            const std::string what = "noise " + std::to_string(noise) + ", size " + std::to_string(size);
            test_all(problem, times(0.8, table()), 5, what + ", float64");
            test_all(in_float32(problem), times(0.8, table()), 6, what + ", float32");
        }
    }
    test_all(clustered<float>(equal_counts(8, 4), 128, 0.7), rules::of_roots(table()), 7, "roots");
}

void test_weighted() {
    for (const std::size_t size : {3U, 64U}) {
        const auto raw = clustered<double>(equal_counts(7, 5), size, 0.7);
        const std::string what = "weights of size " + std::to_string(size);
        test_all(in_float32(problems::on_sphere(raw, 1.0)), rules::weighted_table(size, 1.0), 9, what + ", on the sphere");
        test_all(problems::on_sphere(raw, std::sqrt(0.5)), rules::weighted_table(size, 2.0), 9, what + ", by cosine");
    }
    Chance chance(12);
    test_all(problems::tied_on_sphere<float>(equal_counts(7, 5), 12, chance), rules::weighted_table(24, 1.0), 2,
             "weights, ties");
}

void test_ties() {
    Chance chance(3);
    const auto problem = problems::problem_of<float>({9, 1, 4, 12, 7, 1, 6}, 3, chance, [&](auto, auto) {
        return 0.5 * static_cast<double>(chance.below(3));
    });
    test_all(problem, table(), 4, "ties");
    const auto same = problems::problem_of<double>({3, 4, 5}, 2, chance, [](auto, auto) { return 1.0; });
    test_all(same, table(), 4, "one row for all");
}

// Distances that are equal or differ by less than float32 can tell, in either order.
void test_near_ties() {
    Chance chance(7);
    const double values[] = {0.1, 0.7, -0.3};
    for (const std::size_t size : {20U, 64U}) {
        const auto problem = problems::problem_of<double>(equal_counts(9, 6), size, chance,
                                                          [&](auto, auto) { return values[chance.below(3)]; });
        // Quarters become multiples of 0.16, as distances are.
        const rules::Table rules = times(size == 20 ? 6.4 : 20.0, table());
        test_all(problem, rules, 8, "near ties, float64");
        test_all(in_float32(problem), rules, 8, "near ties, float32");
    }
}

// Rows so long, so short, or of so many lengths that float32 cannot hold them as they are, or knows nothing of them.
void test_lengths() {
    for (const double scale : {1e-160, 1e-30, 1e30, 1e140}) {
        const auto problem = clustered<double>(equal_counts(5, 4), 5, 0.7, scale);
        const rules::Table rules = only({"violating", "semi_hard", "hard", "all", "absolute"});
        test_all(problem, times(scale * scale, rules), 8, "length " + std::to_string(std::log10(scale)));
    }
    Chance chance(5);
    auto problem = clustered<double>(equal_counts(5, 4), 5, 0.7);
    for (double& x : problem.values) { x *= std::pow(10.0, static_cast<double>(chance.below(13)) - 6.0); }
    test_all(problem, table(), 8, "all lengths");
}

void test_groups() {
    test_all(clustered<float>({40}, 4, 0.7), table(), 1, "one identity");
    test_all(clustered<float>(equal_counts(20, 1), 4, 0.7), table(), 1, "one image each");
    test_all(clustered<float>({1}, 4, 0.7), table(), 1, "one row");
    Chance chance(6);
    for (const bool bank_positives : {false, true}) {
        const auto banked = problems::with_bank(clustered<float>({5, 9, 1, 6, 12}, 4, 0.7), chance, bank_positives);
        test_all(banked, table(), 1, bank_positives ? "a bank, positives too" : "a bank");
    }
    const Problem<float> nothing{.values = {}, .size = 3, .order = {}, .offsets = {0}, .members = {}};
    const mining::Rule rule = rule_of(table().front().rule);
    const Anchors all;
    const cuda::Call call = call_of(nothing, rule, 0, all);
    check::that(cuda::mine(call, workspace_of(false)).anchors.size() == 0, "no rows");
    check::that(cuda::count(call, workspace_of(false)).anchors.size() == 0, "no rows to count");
    check::that(cuda::every(call, {}, 0, workspace_of(false)).negatives.size() == 0, "no rows to list");
    check::that(cuda::hinge(call, 0.2, {}, workspace_of(false)).losses.empty(), "no rows to sum up");
}

// Batches of several tiles and stripes, and so large that pairs sample and that one block draws for many rows.
void test_many_rows() {
    const rules::Table rules = only({"violating", "semi_hard", "hard"});
    for (const double noise : {0.3, 0.7, 4.0}) {
        auto counts = equal_counts(140, 4);
        counts[17] = 60;
        test_all(clustered<float>(counts, 8, noise), rules, 11, "many rows, noise " + std::to_string(noise));
    }
    // More than a block looks at in one go.
    test_all(clustered<float>(equal_counts(280, 4), 3, 0.3), only({"violating", "skip many"}), 12, "more rows than threads");
}

void test_random_batches(std::uint64_t n) {
    for (std::uint64_t seed = 0; seed < n; ++seed) {
        Chance chance(seed + 1000);
        std::vector<std::size_t> counts(1 + chance.below(8));
        for (std::size_t& count : counts) { count = 1 + chance.below(9); }
        const auto problem =
            problems::with_bank(clustered<double>(counts, 1 + chance.below(20), 0.7), chance, chance.below(2) == 0);
        rules::Table composed;
        for (int i = 0; i < 6; ++i) { composed.push_back({"composed " + std::to_string(i), rules::composed(chance, 1.0)}); }
        const std::string what = "random batch " + std::to_string(seed);
        test_all(problem, composed, seed, what);
        test_all(in_float32(problem), composed, seed, what + " in float32");
    }
}

// -- the sum of all hinges -----------------------------------------------------------------------------------------------

template <class Scalar>
void test_hinge(const Problem<Scalar>& problem, const Named& named, double margin, std::string what) {
    oracle::Rule every = named.rule;
    every.pick = "every";
    every.if_empty = "drop";
    every.n_negatives = 1;
    what += ": hinges of " + named.name;
    const std::size_t n = problem.n(), size = problem.size;
    Chance chance(n);
    std::vector<double> weights(n), losses(n, 0.0), gradient(n * size, 0.0), sizes(n * size, 0.0);
    for (double& weight : weights) { weight = chance.normal(); }
    std::vector<std::int64_t> counts(n, 0);
    oracle::Definition<Scalar> definition(problem, kTuning);
    for (const Triplet& triplet : definition.mine(every, 3, {}).triplets) {
        const auto a = static_cast<std::size_t>(triplet.anchor);
        const auto row = [&](std::int32_t i) { return problem.values.data() + static_cast<std::size_t>(i) * size; };
        const double d_ap = every.band.distance(oracle::squared_distance(row(triplet.anchor), row(triplet.positive), size));
        const double d_an = every.band.distance(oracle::squared_distance(row(triplet.anchor), row(triplet.negative), size));
        if (!(d_an - d_ap < margin)) { continue; }
        losses[a] += d_ap - d_an + margin;
        ++counts[a];
        for (const auto& [other, distance, sign] :
             {std::tuple(triplet.positive, d_ap, 1.0), std::tuple(triplet.negative, d_an, -1.0)}) {
            const double slope = every.band.root ? (distance > 0.0 ? 0.5 / distance : 0.0) : 1.0;
            for (std::size_t k = 0; k < size; ++k) {
                const double part = 2.0 * sign * weights[a] * slope *
                                    (static_cast<double>(row(triplet.anchor)[k]) - static_cast<double>(row(other)[k]));
                const std::size_t mine = a * size + k, its = static_cast<std::size_t>(other) * size + k;
                gradient[mine] += part;
                gradient[its] -= part;
                sizes[mine] += std::fabs(part);
                sizes[its] += std::fabs(part);
            }
        }
    }
    cuda::Workspace& workspace = next_way(what);
    const mining::Rule rule = rule_of(every);
    const cuda::Hinges got = cuda::hinge(call_of(problem, rule, 3, {}), margin, weights, workspace);
    check::that(got.n_triplets == counts, what + ": numbers");
    bool losses_hold = true, gradient_holds = true;
    for (std::size_t i = 0; i < n; ++i) {
        losses_hold = losses_hold && is_close(got.losses[i], losses[i], 1e-4 * static_cast<double>(counts[i]));
    }
    const auto& its_gradient = std::get<cuda::Array<Scalar>>(got.gradient);
    std::vector<Scalar> fetched(its_gradient.size());
    cuda::download(std::span(fetched), static_cast<const Scalar*>(its_gradient.data()), nullptr);
    for (std::size_t i = 0; i < gradient.size(); ++i) {
        const double error = std::fabs(static_cast<double>(fetched[i]) - gradient[i]);
        gradient_holds = gradient_holds && error <= 1e-4 * sizes[i] + 1e-9;
    }
    check::that(losses_hold, what + ": losses");
    check::that(gradient_holds && fetched.size() == gradient.size(), what + ": gradient");
}

void test_hinges() {
    const rules::Table rules = only({"violating", "semi_hard", "hard", "relative", "both ways", "hardest positive"});
    for (const double noise : {0.2, 0.7, 5.0}) {
        const auto problem = clustered<double>({6, 3, 1, 7, 40, 5}, 9, noise);
        const std::string what = "noise " + std::to_string(noise);
        for (const Named& named : rules) { test_hinge(in_float32(problem), named, 0.2, what); }
        for (const Named& named : rules::of_roots(rules)) { test_hinge(problem, named, 0.2, what + ", roots"); }
    }
    Chance chance(3);
    // So near to each other that float32 knows little of their distances, whose roots are steep there.
    const auto near = problems::problem_of<double>({5, 4, 6}, 4, chance,
                                                   [&](auto, auto) { return 0.5 + 1e-4 * chance.normal(); });
    for (const Named& named : rules::of_roots(rules)) { test_hinge(near, named, 0.2, "near rows, roots"); }
    const auto tied = problems::problem_of<float>({9, 1, 4, 12, 7}, 3, chance,
                                                  [&](auto, auto) { return 0.5 * static_cast<double>(chance.below(3)); });
    for (const Named& named : rules) { test_hinge(tied, named, 0.25, "ties"); }
    for (const Named& named : rules::of_roots(rules)) { test_hinge(tied, named, 0.25, "ties of roots"); }
}

// -- what is not as it should be -----------------------------------------------------------------------------------------

void test_rows_that_are_not_finite() {
    const mining::Rule rule = rule_of(table().front().rule);
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
        auto problem = clustered<float>(equal_counts(5, 4), 5, 0.7);
        problem.values[13 * 5 + 2] = bad;
        problem.values[7 * 5 + 4] = bad;
        const cuda::Mined mined = cuda::mine(call_of(problem, rule, 0, {}), workspace_of(false));
        check::that(mined.bad_row == 7, "the first row that is not finite");
    }
}

#if defined(FACENET_FAST_EMULATED_CUDA)
void test_memory() {
    const auto problem = clustered<float>(equal_counts(30, 5), 16, 0.7);
    const mining::Rule rule = rule_of(table().front().rule);
    const std::size_t before = emulated_cuda::live_bytes();
    {
        cuda::Workspace workspace;
        const cuda::Mined mined = cuda::mine(call_of(problem, rule, 0, {}), workspace);
        check::that(emulated_cuda::live_bytes() > before, "memory is taken");
    }
    check::that(emulated_cuda::live_bytes() == before, "and given back");
    // Too little, whichever allocation it is that fails: an error with the number of bytes, and nothing left behind.
    std::size_t n_failures = 0;
    for (std::size_t limit = 0; limit < (std::size_t{1} << 22); limit = limit * 5 / 4 + 1000) {
        emulated_cuda::set_memory_limit(before + limit);
        cuda::Workspace workspace;
        try {
            static_cast<void>(cuda::mine(call_of(problem, rule, 0, {}), workspace));
        } catch (const cuda::OutOfMemory& error) {
            ++n_failures;
            check::that(std::string(error.what()).find("bytes of the device's memory") != std::string::npos, error.what());
        }
    }
    emulated_cuda::set_memory_limit();
    check::that(n_failures > 10 && emulated_cuda::live_bytes() == before, "too little memory is an error");
}
#endif

}  // namespace

// The argument says how many random batches to mine; of few, other tests are cut short, too.
int main(int n_arguments, char** arguments) {
    const std::uint64_t n_batches = n_arguments > 1 ? std::stoull(arguments[1]) : 20;
    if (n_batches < 10) { one_rule_in = 7; }
    test_trained_and_untrained();
    test_weighted();
    test_ties();
    test_near_ties();
    test_lengths();
    test_groups();
    test_many_rows();
    test_random_batches(n_batches);
    test_hinges();
    test_rows_that_are_not_finite();
#if defined(FACENET_FAST_EMULATED_CUDA)
    test_memory();
#endif
    return check::report();
}
