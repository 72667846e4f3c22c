// The sum of the hinge losses and its gradient against a look at every triplet, in float64: the same triplets, to the last
// one, from every instruction set, and the same bits from any number of threads.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "../core/float_environment.hpp"
#include "../mining/miner.hpp"
#include "check.hpp"
#include "oracle.hpp"
#include "problems.hpp"

namespace {

using oracle::kInfinity;
using problems::Chance;
using problems::clustered;
using problems::equal_counts;
using problems::in_float32;
using problems::Problem;
using problems::problem_of;

// -- by definition -----------------------------------------------------------------------------------------------------

// Of d_an - d_ap, in distances that are squared or not.
struct Band {
    double low = -kInfinity;
    bool low_is_open = false;
    double high = kInfinity;
    bool root = false;

    double distance(double squared) const { return root ? std::sqrt(squared) : squared; }
};

struct Asked {
    std::string name;
    Band band = {};
    oracle::Rule pairs = {.pairs = "both_ways"};
    double margin = 0.25;
};
using Table = std::vector<Asked>;

// By grouped row. The sizes are what errors are relative to: those of all that is added up.
struct Sums {
    std::vector<std::int64_t> n_triplets;
    std::vector<double> losses, loss_sizes;
    std::vector<double> gradient, gradient_sizes;  // the former has size numbers a row
};

template <class Scalar>
class Definition {
  public:
    explicit Definition(const Problem<Scalar>& problem)
        : problem_(problem), definition_(problem, {}), n_(problem.n()), begins_(n_), ends_(n_), squared_(n_ * n_) {
        for (std::size_t i = 0; i + 1 < problem.offsets.size(); ++i) {
            for (auto g = problem.offsets[i]; g < problem.offsets[i + 1]; ++g) {
                begins_[static_cast<std::size_t>(g)] = static_cast<std::size_t>(problem.offsets[i]);
                ends_[static_cast<std::size_t>(g)] = static_cast<std::size_t>(problem.offsets[i + 1]);
            }
        }
        std::vector<double> mean(problem.size, 0.0);
        for (std::size_t g = 0; g < n_; ++g) {
            for (std::size_t h = 0; h < n_; ++h) {
                squared_[g * n_ + h] = oracle::squared_distance(problem.row(g), problem.row(h), problem.size);
            }
            for (std::size_t k = 0; k < problem.size; ++k) { mean[k] += coordinate(g, k) / static_cast<double>(n_); }
        }
        for (std::size_t g = 0; g < n_; ++g) {
            double norm = 0.0;
            for (std::size_t k = 0; k < problem.size; ++k) {
                norm += (coordinate(g, k) - mean[k]) * (coordinate(g, k) - mean[k]);
            }
            longest_ = std::max(longest_, std::sqrt(norm));
        }
    }

    // From the mean.
    double longest() const { return longest_; }

    Sums sum(const Asked& asked, std::uint64_t seed, const std::vector<double>& weights) {
        const Band& band = asked.band;
        Sums sums = {std::vector<std::int64_t>(n_), std::vector<double>(n_), std::vector<double>(n_),
                     std::vector<double>(n_ * problem_.size), std::vector<double>(n_)};
        // How much each two rows pull at each other, and how much that is of what adds up to it.
        std::vector<double> pulls(n_ * n_, 0.0), sizes(n_ * n_, 0.0);
        const auto pull = [&](std::size_t x, std::size_t y, double weight) {
            const double d = squared_[x * n_ + y];
            const double slope = !band.root ? 1.0 : d > 0.0 ? 0.5 / std::sqrt(d) : 0.0;
            pulls[x * n_ + y] += weight * slope;
            sizes[x * n_ + y] += std::fabs(weight * slope);
        };
        for (const auto& [anchor, positive] : pairs_of(asked.pairs, band.root, seed)) {
            const double d_ap = band.distance(squared_[anchor * n_ + positive]);
            for (std::size_t negative = 0; negative < n_; ++negative) {
                if (begins_[anchor] <= negative && negative < ends_[anchor]) { continue; }
                const double d_an = band.distance(squared_[anchor * n_ + negative]), x = d_an - d_ap;
                const bool is_high_enough = band.low_is_open ? band.low < x : band.low <= x;
                if (!is_high_enough || x >= band.high || x >= asked.margin) { continue; }
                ++sums.n_triplets[anchor];
                sums.losses[anchor] += d_ap - d_an + asked.margin;
                sums.loss_sizes[anchor] += d_ap + d_an + asked.margin + band.distance(longest_ * longest_);
                pull(anchor, positive, weights[anchor]);
                pull(anchor, negative, -weights[anchor]);
            }
        }
        for (std::size_t g = 0; g < n_; ++g) {
            for (std::size_t h = 0; h < n_; ++h) {
                const double both = pulls[g * n_ + h] + pulls[h * n_ + g];
                const double size = sizes[g * n_ + h] + sizes[h * n_ + g];
                if (size == 0.0) { continue; }
                for (std::size_t k = 0; k < problem_.size; ++k) {
                    sums.gradient[g * problem_.size + k] += 2.0 * both * (coordinate(g, k) - coordinate(h, k));
                }
                // Errors are those of rows from the mean on; but not of roots where rows lie near to each other, whose pull
                // would be large.
                const double length = band.root ? std::min(longest_, 8.0 * std::sqrt(squared_[g * n_ + h])) : longest_;
                sums.gradient_sizes[g] += 2.0 * size * length;
            }
        }
        return sums;
    }

  private:
    struct Pair {
        std::size_t anchor, positive;
    };

    double coordinate(std::size_t g, std::size_t k) const { return static_cast<double>(problem_.row(g)[k]); }

    std::vector<Pair> pairs_of(oracle::Rule rule, bool root, std::uint64_t seed) {
        rule.band = {.relative = false, .high = -1.0, .root = root};  // no triplets: pairs are wanted
        rule.pick = "every";
        std::vector<std::size_t> place(n_);
        for (std::size_t g = 0; g < n_; ++g) { place[static_cast<std::size_t>(problem_.order[g])] = g; }
        std::vector<Pair> pairs;
        for (const oracle::Counted& pair : definition_.mine(rule, seed).pairs) {
            pairs.push_back({place[static_cast<std::size_t>(pair.anchor)], place[static_cast<std::size_t>(pair.positive)]});
        }
        return pairs;
    }

    const Problem<Scalar>& problem_;
    oracle::Definition<Scalar> definition_;
    const std::size_t n_;
    std::vector<std::size_t> begins_, ends_;
    std::vector<double> squared_;
    double longest_ = 0.0;
};

// -- what is asked -----------------------------------------------------------------------------------------------------

// Bands and pairs for squared distances of about that unit, and for the roots of those.
Table table(double unit, double margin = 0.25) {
    Table all;
    for (const bool root : {false, true}) {
        const double m = margin * (root ? std::sqrt(unit) : unit);
        const auto add = [&](const char* name, Band band, const oracle::Rule& pairs = {.pairs = "both_ways"},
                             double margins = 1.0) {
            band.root = root;
            all.push_back({name, band, pairs, margins * m});
            if (root) { all.back().name += ", of roots"; }
        };
        // bands
        add("violating", {});
        add("semi-hard", {.low = 0.0, .low_is_open = true});
        add("hard", {.high = 0.0});
        add("not hard", {.low = 0.0});
        add("inside", {.low = 0.25 * m, .high = 0.75 * m});
        add("around", {.low = -m, .high = 0.5 * m});
        add("around, open", {.low = -2.0 * m, .low_is_open = true});
        add("below", {.low = -8.0 * m, .high = -m});
        add("beyond the margin", {.low = 2.0 * m});
        add("beyond the margin, open", {.low = m, .low_is_open = true, .high = 4.0 * m});
        add("from the margin on", {.low = m});
        add("wider than the margin", {.low = -0.5 * m, .high = 4.0 * m});
        // Margins that all distances are below, and next to none.
        add("long", {}, {.pairs = "both_ways"}, 100.0);
        add("short", {}, {.pairs = "both_ways"}, 1e-9);
        // pairs
        add("each once", {}, {});
        add("semi-hard, each once", {.low = 0.0, .low_is_open = true}, {});
        add("hardest", {}, {.pairs = "hardest_positive"});
        add("hardest 3", {.low = -m}, {.pairs = "hardest_positive", .n_positives = 3});
        add("easiest 2", {}, {.pairs = "easiest_positive", .n_positives = 2});
        add("random 2", {}, {.pairs = "random_positives", .n_positives = 2});
        add("half", {}, {.quantile = 0.5});
        add("hardest 2 of most", {}, {.pairs = "hardest_positive", .n_positives = 2, .quantile = 0.75});
        add("screened", {}, {.pairs = "both_ways", .max_d_ap = 4.0 * m});
        add("nobody", {}, {.pairs = "both_ways", .max_d_ap = 0.0});
    }
    return all;
}

// Those of such names, squared and of roots.
Table only(const Table& all, std::initializer_list<std::string_view> names) {
    Table some;
    for (const Asked& asked : all) {
        const std::string_view name = std::string_view(asked.name).substr(0, asked.name.find(", of roots"));
        if (std::ranges::find(names, name) != names.end()) { some.push_back(asked); }
    }
    return some;
}

enum class Weighting { kOnes, kSome, kZeros, kSigned };
constexpr Weighting kWeightings[] = {Weighting::kOnes, Weighting::kSome, Weighting::kZeros, Weighting::kSigned};

std::vector<double> weights_of(Weighting weighting, std::size_t n) {
    Chance chance(n);
    std::vector<double> weights(n, 1.0);
    if (weighting == Weighting::kOnes) { return weights; }
    for (double& weight : weights) {
        weight = std::fabs(chance.normal());
        if (weighting == Weighting::kZeros && chance.below(2) == 0) { weight = 0.0; }
        if (weighting == Weighting::kSigned && chance.below(2) == 0) { weight = -weight; }
    }
    return weights;
}

// -- what is got -------------------------------------------------------------------------------------------------------

struct Got {
    std::vector<std::int64_t> n_triplets;
    std::vector<double> losses;
    std::vector<double> gradient;

    bool operator==(const Got&) const = default;
};

// What the bindings do.
template <class Scalar>
Got sum(const Problem<Scalar>& problem, const Asked& asked, std::uint64_t seed, const std::vector<double>& weights,
        const simd::Kernels& kernels, int n_threads, mining::Workspace& workspace) {
    const core::DefaultFloatEnvironment environment;
    mining::Rule rule;
    rule.band = {.relative = true, .low = asked.band.low, .low_is_open = asked.band.low_is_open, .high = asked.band.high};
    rule.band.root = asked.band.root;
    rule.pairs = *mining::of_name(mining::kPairChoices, asked.pairs.pairs);
    rule.n_positives = asked.pairs.n_positives;
    rule.max_d_ap = asked.pairs.max_d_ap;
    rule.quantile = asked.pairs.quantile;
    rule.pick = mining::Pick::kEvery;
    const mining::Grouping grouping{problem.order, problem.offsets};
    mining::Batch batch({problem.values.data(), problem.n(), problem.size}, grouping, kernels, n_threads, workspace.batch,
                        mining::Origin::kCentred);
    const mining::Groups groups(grouping.offsets, problem.members, false, workspace.groups);
    const mining::Hinge hinge =
        mining::sum_hinges({rule, asked.margin, seed, weights, n_threads}, batch, groups, workspace.pairs, workspace.hinge);
    Got got = {{hinge.n_triplets.begin(), hinge.n_triplets.end()}, {hinge.losses.begin(), hinge.losses.end()}, {}};
    for (std::size_t g = 0; g < problem.n(); ++g) {
        for (std::size_t k = 0; k < problem.size; ++k) {
            got.gradient.push_back(static_cast<double>(hinge.gradient[g * batch.stride() + k]) * hinge.gradient_unit);
        }
    }
    return got;
}

// Of all tests: each finds what the one before it left, larger or smaller.
mining::Workspace& shared_workspace() {
    static mining::Workspace workspace;
    return workspace;
}

// Float32 errs by a few of its last bits of all that is added up.
constexpr double kTolerance = 1e-6;

// Shorter rows than these are zeros to float32, and so is the gradient where it is as long as they are.
constexpr double kShortest = 1e-139;

void check_sums(const Got& got, const Sums& expected, double longest, const std::string& what) {
    std::size_t n_wrong_counts = 0, n_wrong_losses = 0, n_wrong_rows = 0;
    const std::size_t n = expected.n_triplets.size(), size = n == 0 ? 0 : expected.gradient.size() / n;
    for (std::size_t g = 0; g < n; ++g) {
        n_wrong_counts += got.n_triplets[g] == expected.n_triplets[g] ? 0 : 1;
        // Of sums of denormals there is no telling.
        const double loss_error = std::max(std::fabs(got.losses[g] - expected.losses[g]) - 1e-310, 0.0);
        n_wrong_losses += loss_error <= kTolerance * expected.loss_sizes[g] && got.losses[g] >= 0.0 ? 0 : 1;
        bool is_right = true;
        for (std::size_t k = g * size; k < (g + 1) * size; ++k) {
            const double error = std::fabs(got.gradient[k] - expected.gradient[k]);
            is_right = is_right && std::isfinite(got.gradient[k]) &&
                       (longest < kShortest || error <= kTolerance * expected.gradient_sizes[g]);
        }
        n_wrong_rows += is_right ? 0 : 1;
    }
    check::that(got.n_triplets.size() == n && n_wrong_counts == 0,
                what + ": the triplets of " + std::to_string(n_wrong_counts) + " of " + std::to_string(n) + " anchors");
    check::that(n_wrong_losses == 0,
                what + ": the losses of " + std::to_string(n_wrong_losses) + " of " + std::to_string(n) + " anchors");
    check::that(n_wrong_rows == 0,
                what + ": the gradient of " + std::to_string(n_wrong_rows) + " of " + std::to_string(n) + " rows");
}

// Sums are made by one way in so many, another one each time: by fewer where they are watched or emulated, and slow.
std::size_t one_way_in = 2;
std::size_t n_ways = 0;

// Numbers of threads and weights go round from one to the next. Returns how many triplets all have together.
template <class Scalar>
std::int64_t test_sums(const Problem<Scalar>& problem, const Table& table, std::uint64_t seed, const std::string& what) {
    Definition<Scalar> definition(problem);
    std::int64_t n_triplets = 0;
    static std::size_t turn = 0;
    for (const Asked& asked : table) {
        const Weighting weighting = kWeightings[++turn % std::size(kWeightings)];
        const auto weights = weights_of(weighting, problem.n());
        const Sums expected = definition.sum(asked, seed, weights);
        n_triplets = std::reduce(expected.n_triplets.begin(), expected.n_triplets.end(), n_triplets);
        for (const simd::Kernels* kernels : simd::available()) {
            if (++n_ways % one_way_in != 0) { continue; }
            const int threads[] = {2, 3, 8};
            const int n_threads = threads[n_ways / one_way_in % std::size(threads)];
            const std::string how = what + ": " + asked.name + ", " + kernels->name + ", weights " +
                                    std::to_string(static_cast<int>(weighting));
            const Got got = sum(problem, asked, seed, weights, *kernels, 1, shared_workspace());
            check_sums(got, expected, definition.longest(), how);
            check::that(sum(problem, asked, seed, weights, *kernels, n_threads, shared_workspace()) == got,
                        how + ": the same from threads " + std::to_string(n_threads));
            if (n_ways % 5 != 0) { continue; }
            mining::Workspace fresh;
            check::that(sum(problem, asked, seed, weights, *kernels, n_threads, fresh) == got, how + ": in memory of its own");
        }
    }
    return n_triplets;
}

// -- tests -------------------------------------------------------------------------------------------------------------

void test_trained_and_untrained() {
    for (const std::size_t size : {1U, 2U, 15U, 16U, 17U, 31U, 33U, 128U, 130U}) {
        for (const double noise : {0.2, 0.7, 5.0}) {
            const auto problem = clustered<double>(equal_counts(9, 7), size, noise);
            const std::string what = "noise " + std::to_string(noise) + ", size " + std::to_string(size);
            const Table all = table(0.8);
            const std::int64_t n_triplets = size % 2 == 0 ? test_sums(problem, all, 5, what + ", float64")
                                                          : test_sums(in_float32(problem), all, 5, what + ", float32");
            check::that(n_triplets > 1000, what + " has triplets");
        }
    }
}

// About as many rows as fit vectors, groups of columns, tiles and blocks; identities of all sizes, across their ends.
void test_numbers_of_rows() {
    const Table some = only(table(2.0), {"violating", "semi-hard", "around", "each once", "hardest 3", "inside"});
    for (const std::size_t n : {2U,  13U, 14U, 15U, 16U, 17U, 31U, 33U, 83U, 85U, 95U, 96U, 97U, 98U, 99U, 112U,
                                113U, 191U, 192U, 193U, 290U}) {
        Chance chance(n);
        std::vector<std::size_t> counts;
        for (std::size_t left = n; left != 0; left -= counts.back()) {
            const std::size_t count = chance.below(4) == 0 ? 0 : 1 + chance.below(n < 40 ? 5 : 20);
            counts.push_back(std::min(left, count));
        }
        const auto problem = clustered<double>(counts, 1 + n % 23, 0.7);
        test_sums(problem, some, n, std::to_string(n) + " rows, float64");
        test_sums(clustered<float>(counts, 20, 0.4), some, n, std::to_string(n) + " rows, float32");
    }
}

// Many blocks, that all have to wait for each other.
void test_many_blocks() {
    std::vector<std::size_t> counts = equal_counts(100, 7);
    counts.insert(counts.begin() + 31, 90, 1);
    counts.push_back(130);
    const auto problem = clustered<float>(counts, 8, 0.7);
    const Table some = only(table(0.4), {"violating", "semi-hard", "each once"});
    test_sums(problem, some, 1, "many blocks");
    const auto weights = weights_of(Weighting::kSome, problem.n());
    for (const simd::Kernels* kernels : simd::available()) {
        const Got got = sum(problem, some[0], 1, weights, *kernels, 1, shared_workspace());
        for (const int n_threads : {2, 3, 8, 3, 2}) {
            check::that(sum(problem, some[0], 1, weights, *kernels, n_threads, shared_workspace()) == got,
                        "many blocks, the same from threads " + std::to_string(n_threads));
        }
    }
}

void test_odd_groups() {
    const auto none = [](const std::vector<std::size_t>& counts, const std::string& what) {
        const auto problem = clustered<float>(counts, 7, 0.7);
        check::that(test_sums(problem, table(1.0), 1, what) == 0, what + " have no triplet");
        const auto got = sum(problem, table(1.0)[0], 1, weights_of(Weighting::kOnes, problem.n()), simd::kernels(), 2,
                             shared_workspace());
        const auto is_zero = [](double x) { return x == 0.0; };
        check::that(std::ranges::all_of(got.losses, is_zero) && std::ranges::all_of(got.gradient, is_zero),
                    what + " have no loss");
    };
    none({}, "no rows");
    none({0, 0}, "no rows in two identities");
    none({1}, "one row");
    none({40}, "one identity");
    none({150}, "one identity in two blocks");
    none(equal_counts(120, 1), "rows that are all identities");
    test_sums(clustered<float>({2, 1}, 7, 5.0), table(1.0), 1, "one pair and one negative");
    test_sums(clustered<double>({2, 2}, 7, 5.0), table(1.0), 1, "two pairs");
    test_sums(clustered<float>({50, 61}, 7, 0.7), table(1.0), 1, "two identities");
    const Table some = only(table(0.4), {"violating", "semi-hard", "around", "hardest 3", "half"});
    test_sums(clustered<float>({250, 40}, 4, 0.3), some, 1, "one large identity");
    test_sums(clustered<double>({1, 200}, 4, 5.0), some, 1, "one large identity, one negative");
    std::vector<std::size_t> singles(150, 1);
    singles[20] = 3;
    singles[95] = 2;
    singles[96] = 9;
    test_sums(clustered<float>(singles, 9, 0.7), table(1.0), 1, "many that are single");
}

// Small whole numbers: most distances tie with each other and with the ends of the band; and so do some of their roots.
void test_ties() {
    Chance chance(4);
    for (const std::size_t size : {1U, 2U, 6U, 20U}) {
        const auto problem = problem_of<double>(equal_counts(13, 8), size, chance, [&](auto, auto) {
            return static_cast<double>(chance.below(size < 3 ? 9 : 3)) * (size < 3 ? 3.0 : 1.0);
        });
        for (const double margin : {1.0, 4.0}) {
            const std::string what = "ties, size " + std::to_string(size);
            check::that(test_sums(problem, table(4.0 * margin), 3, what + ", float64") != 0, what + " has triplets");
            test_sums(in_float32(problem), table(4.0 * margin * margin), 3, what + ", float32");
        }
    }
    for (const double value : {0.0, 0.3, 1e3}) {
        const auto problem = problem_of<float>(equal_counts(6, 10), 8, chance, [&](auto, auto) { return value; });
        check::that(test_sums(problem, only(table(1.0), {"violating"}), 1, "all rows equal") == 2 * 60 * 9 * 50,
                    "all triplets violate");
        check::that(test_sums(problem, only(table(1.0), {"semi-hard", "hard"}), 1, "all rows equal") == 0,
                    "none is farther, none is nearer");
        test_sums(problem, table(1.0), 1, "all rows equal");
    }
    // Three values that float32 cannot hold: distances that tie, or nearly, and that float32 sums up to differ.
    const double values[] = {0.1, 0.7, -0.3};
    for (const std::size_t size : {20U, 128U}) {
        const auto problem =
            problem_of<double>(equal_counts(13, 8), size, chance, [&](auto, auto) { return chance.one_of(values); });
        const Table all = table(size == 20 ? 6.4 : 40.0);
        test_sums(problem, all, 8, "near ties, float64");
        const Table some = only(all, {"violating", "semi-hard", "inside", "hard", "half"});
        test_sums(in_float32(problem), some, 8, "near ties, float32");
        test_sums(problem, only(table(0.64), {"violating", "semi-hard", "around"}), 8, "near ties, short margin");
    }
}

// Some rows coincide, of one identity or of two, or do so but for a little: roots have no slope there, or next to.
void test_rows_that_coincide() {
    for (const double little : {0.0, 1e-2, 1e-4, 1e-7, 1e-12, 1e-30}) {
        Chance chance(9);
        auto problem = clustered<double>(equal_counts(14, 8), 12, 0.7);
        for (std::size_t row = 0; row < problem.n(); ++row) {
            if (chance.below(2) == 0) { continue; }
            const std::size_t from = chance.below(5);
            for (std::size_t k = 0; k < problem.size; ++k) {
                // Around the origin there are numbers as little as that.
                const double x = from == 0 ? 0.0 : problem.values[from * problem.size + k];
                problem.values[row * problem.size + k] = x + little * chance.normal();
            }
        }
        const std::string what = "apart by " + std::to_string(std::log10(little));
        test_sums(problem, table(1.0), 2, what + ", float64");
        test_sums(in_float32(problem), table(1.0), 2, what + ", float32");
        test_sums(problem, table(little * little), 2, what + ", short margins");
    }
}

// Far from the origin and near to each other, as after a collapse.
void test_collapsed() {
    for (const double noise : {0.3, 0.7, 5.0}) {
        auto problem = clustered<double>(equal_counts(16, 7), 24, noise, 1e-3);
        for (double& x : problem.values) { x += 1e3; }
        test_sums(problem, table(1e-6), 2, "collapsed, float64");
        test_sums(in_float32(problem), table(1e-6), 2, "collapsed, float32");
        test_sums(problem, table(1.0), 2, "collapsed, within the margin");
    }
}

void test_long_and_short_rows() {
    for (const double scale : {1e-300, 1e-160, 1e-137, 1e-30, 1e-19, 1e19, 1e140}) {
        const double unit = std::max(0.8 * scale * scale, 8.0 * std::numeric_limits<double>::denorm_min());
        test_sums(clustered<double>(equal_counts(8, 6), 12, 0.7, scale), table(unit), 1,
                  "scale " + std::to_string(std::log10(scale)));
    }
    auto problem = clustered<double>(equal_counts(8, 6), 16, 0.7);
    for (std::size_t i = 0; i < problem.values.size(); ++i) {
        problem.values[i] *= std::pow(10.0, static_cast<double>(i / 16) / 2.0 - 12.0);
    }
    for (const double unit : {1e-20, 1e-3, 1.0, 1e20}) {
        test_sums(problem, table(unit), 1, "lengths far apart, float64");
        test_sums(in_float32(problem), table(unit), 1, "lengths far apart, float32");
    }
}

// Many batches of odd shapes, whose numbers are drawn from few or from many, and any words.
void test_random_batches(std::uint64_t n_batches) {
    for (std::uint64_t seed = 0; seed < n_batches; ++seed) {
        Chance chance(seed);
        std::vector<std::size_t> counts(1 + chance.below(9));
        for (std::size_t& count : counts) { count = chance.below(4) == 0 ? chance.below(60) : chance.below(9); }
        const std::size_t size = 1 + chance.below(40), kind = chance.below(5);
        const double few[] = {0.0, 1e-30, 1e20, -1e-3, 1.0, -1.0}, near[] = {0.1, 0.7, -0.3};
        const double offset = chance.below(4) == 0 ? 1e2 : 0.0;
        const auto problem = problem_of<double>(counts, size, chance, [&](auto, auto) {
            return offset + (kind == 1   ? chance.one_of(few)
                             : kind == 2 ? static_cast<double>(chance.below(3))
                             : kind == 3 ? chance.one_of(near)
                                         : chance.normal());
        });
        const double unit = kind == 2 || kind == 1 ? 4.0 : kind == 3 ? 0.64 : 0.5 * static_cast<double>(size);
        const std::string_view words[] = {"each_once", "both_ways", "both_ways", "hardest_positive", "easiest_positive",
                                          "random_positives"};
        Table some;
        for (int i = 0; i < 8; ++i) {
            Asked asked = {.name = "composed " + std::to_string(i)};
            asked.band.root = chance.below(2) == 0;
            const double its_unit = 0.25 * (asked.band.root ? std::sqrt(unit) : unit);
            asked.margin = its_unit * static_cast<double>(1 + chance.below(8));
            if (chance.below(2) == 0) { asked.band.low = its_unit * (static_cast<double>(chance.below(12)) - 6.0); }
            asked.band.low_is_open = chance.below(2) == 0;
            if (chance.below(2) == 0) {
                const double low = std::max(asked.band.low, -8.0 * its_unit);
                asked.band.high = low + its_unit * static_cast<double>(1 + chance.below(8));
            }
            asked.pairs.pairs = chance.one_of(words);
            asked.pairs.n_positives = 1 + chance.below(3);
            if (chance.below(4) == 0) { asked.pairs.quantile = 0.1 + 0.2 * static_cast<double>(chance.below(4)); }
            if (chance.below(4) == 0) { asked.pairs.max_d_ap = its_unit * static_cast<double>(chance.below(12)); }
            some.push_back(asked);
        }
        const std::string what = "batch " + std::to_string(seed);
        test_sums(problem, some, seed * 0x123456789ABCDEFU, what + ", float64");
        test_sums(in_float32(problem), some, seed, what + ", float32");
    }
}

// Callers side by side, each with a workspace and threads of its own.
void test_callers_side_by_side() {
    const auto problem = clustered<float>(equal_counts(30, 10), 32, 0.7);
    const Table some = only(table(0.8), {"violating", "semi-hard"});
    const auto weights = weights_of(Weighting::kSome, problem.n());
    const auto tables = simd::available();
    std::vector<Got> got(some.size()), expected(some.size());
    for (std::size_t i = 0; i < some.size(); ++i) {
        expected[i] = sum(problem, some[i], i, weights, *tables[(i + 4) % tables.size()], 1, shared_workspace());
    }
    std::vector<std::jthread> callers;
    for (std::size_t i = 0; i < some.size(); ++i) {
        callers.emplace_back([&, i] {
            mining::Workspace workspace;
            for (std::size_t turn = 0; turn < 5; ++turn) {
                got[i] = sum(problem, some[i], i, weights, *tables[(i + turn) % tables.size()], 2, workspace);
            }
        });
    }
    callers.clear();
    check::that(got == expected, "callers side by side");
}

// Rows whose origin is near their mean are as far from each other as they were, exactly, and float32 knows how far.
template <class Scalar>
void test_centred_batch(const Problem<Scalar>& problem, const std::string& what) {
    const auto n = problem.n();
    mining::BatchMemory memory;
    for (const simd::Kernels* kernels : simd::available()) {
        for (const mining::Origin origin : {mining::Origin::kCentred, mining::Origin::kKept}) {
            const std::string how = what + ", " + kernels->name + (origin == mining::Origin::kCentred ? ", centred" : "");
            const mining::Batch batch({problem.values.data(), n, problem.size}, {problem.order, problem.offsets}, *kernels, 2,
                                      memory, origin);
            check::that(batch.bad_row() < 0, how + ": no bad row");
            std::vector<std::int32_t> all(n);
            std::iota(all.begin(), all.end(), 0);
            std::vector<float> measured(n);
            bool is_exact = true, is_near = true;
            double longest = 0.0;
            for (std::size_t g = 0; g < n; ++g) {
                batch.measure(g, all, measured.data());
                double norm = 0.0;
                for (std::size_t k = 0; k < batch.stride(); ++k) {
                    norm += static_cast<double>(batch.row(g)[k]) * static_cast<double>(batch.row(g)[k]);
                }
                longest = std::max(longest, norm);
                for (std::size_t h = 0; h < n; ++h) {
                    const double d = oracle::squared_distance(problem.row(g), problem.row(h), problem.size);
                    is_exact = is_exact && batch.exact_squared_distance(g, h) == d;
                    // Two of them are off by as much together.
                    const double error = std::fabs(static_cast<double>(measured[h]) - d * batch.squared_scale());
                    is_near = is_near && error <= 0.5 * batch.uncertainty(g);
                }
            }
            check::that(is_exact, how + ": exact distances are those of the rows as they were");
            check::that(is_near, how + ": measured distances are within what is in doubt");
            check::that(n == 0 || !std::isfinite(batch.uncertainty(0)) || (0.2499 < longest && longest < 1.0001),
                        how + ": the longest has a norm in [1/2, 1)");
        }
    }
}

void test_centred_batches() {
    for (const std::size_t size : {1U, 17U, 128U}) {
        for (const double offset : {0.0, 1.0, 1e3}) {
            auto problem = clustered<double>(equal_counts(20, 15), size, 0.7, offset == 1e3 ? 1e-3 : 1.0);
            for (double& x : problem.values) { x -= offset; }
            const std::string what = "offset " + std::to_string(offset) + ", size " + std::to_string(size);
            test_centred_batch(problem, what + ", float64");
            test_centred_batch(in_float32(problem), what + ", float32");
        }
    }
    test_centred_batch(clustered<float>({}, 3, 1.0), "no rows");
    test_centred_batch(clustered<double>({1}, 3, 1.0), "one row");
    test_centred_batch(clustered<double>({5, 5}, 9, 1.0, 1e-150), "short rows");
    test_centred_batch(clustered<double>({5, 5}, 9, 1.0, 1e149), "long rows");

    // What is in doubt about rows far from the origin, in their own units.
    auto far = clustered<float>(equal_counts(20, 15), 24, 0.7, 1e-1);
    for (float& x : far.values) { x += 100.0F; }
    mining::BatchMemory memory;
    const auto doubt_of = [&](mining::Origin origin) {
        const mining::Batch batch({far.values.data(), far.n(), far.size}, {far.order, far.offsets}, simd::kernels(), 1, memory,
                                  origin);
        return batch.uncertainty(0) / batch.squared_scale();
    };
    check::that(doubt_of(mining::Origin::kCentred) < 1e-5 * doubt_of(mining::Origin::kKept), "far from the origin");

    auto bad = clustered<double>(equal_counts(20, 5), 9, 0.7);
    bad.values[83 * 9 + 2] = bad.values[17 * 9 + 8] = std::numeric_limits<double>::quiet_NaN();
    const mining::Batch batch({bad.values.data(), bad.n(), bad.size}, {bad.order, bad.offsets}, simd::kernels(), 3, memory,
                              mining::Origin::kCentred);
    check::that(batch.bad_row() == 17, "the first bad row");
}

}  // namespace

// The argument says how many random batches to sum up: fewer where a machine is watched or emulated, and other tests then sum
// up in fewer ways; with five or less only tests in which threads have much to do with each other.
int main(int n_arguments, char** arguments) {
    const std::uint64_t n_batches = n_arguments > 1 ? std::stoull(arguments[1]) : 100;
    // None of the numbers of ways that go round, so that all of them have their turn.
    if (n_batches < 100) { one_way_in = 7; }
    if (n_batches <= 5) {
        test_numbers_of_rows();
        test_many_blocks();
        test_random_batches(n_batches);
        test_callers_side_by_side();
        return check::report();
    }
    test_centred_batches();
    test_trained_and_untrained();
    test_numbers_of_rows();
    test_many_blocks();
    test_odd_groups();
    test_ties();
    test_rows_that_coincide();
    test_collapsed();
    test_long_and_short_rows();
    test_random_batches(n_batches);
    test_callers_side_by_side();
    return check::report();
}
