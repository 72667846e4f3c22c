#include "weigh.hpp"

#include <algorithm>
#include <cmath>

namespace mining {
namespace {

// More than exp() and log() are wrong by, relatively.
constexpr double kRounding = 1e-9;

// Bins that are narrower than this share of their distance are told apart by their numbers.
constexpr float kNarrow = 0x1p-20F;

double draw_unit(const core::Stream& stream, std::uint64_t i) noexcept {
    constexpr std::uint64_t kSteps = std::uint64_t{1} << 53;
    return static_cast<double>(stream.draw(i, kSteps)) / static_cast<double>(kSteps);
}

}  // namespace

Weighing::Weighing(const Batch& batch, const Weights& weights)
    : weights_(weights), batch_(batch), kernels_(batch.kernels()) {
    if (weights.edges.empty()) { return; }
    for (const double edge : weights.edges) { edges_.push_back(scaled(batch, edge)); }
    by_number_ = std::ranges::adjacent_find(edges_, [](float left, float right) {
                     return !(right - left > kNarrow * right);
                 }) != edges_.end();
    for (std::size_t edge = 0; by_number_ && edge < edges_.size(); ++edge) { edges_[edge] = static_cast<float>(edge) + 0.5F; }
    const std::size_t n_bins = weights.log_bounds.size();
    for (std::size_t bin = 0; bin < n_bins; ++bin) {
        const double begin = weights.edges[bin == 0 ? 0 : bin - 1], end = weights.edges[std::min(bin, n_bins - 2)];
        double before = std::exp(log_weight(begin) - weights.log_bounds[bin]);
        for (std::size_t part = 1; part <= kParts; ++part) {
            const double at = begin + (end - begin) * static_cast<double>(part) / static_cast<double>(kParts);
            const double after = std::exp(log_weight(at) - weights.log_bounds[bin]);
            chances_.push_back({std::min(before, after) * (1.0 - kRounding), std::max(before, after) * (1.0 + kRounding)});
            before = after;
        }
    }
    relative_ = relative_bounds(weights.log_bounds);
}

void Weighing::reserve(std::size_t n, WeighMemory& memory) const {
    const std::size_t n_bins = weights_.log_bounds.size();
    // Each list is at most half as long as the one before it.
    const std::size_t n_lists = 2 * n + 64 * simd::kSlack;
    memory.distances.take(n_lists);
    memory.columns.take(n_lists);
    memory.their_distances.take(n + simd::kSlack);
    memory.their_columns.take(n + simd::kSlack);
    memory.levels.take(64);
    memory.bins.take(n_bins);
    memory.counts.take(n_bins);
    memory.sums.take(n_bins);
}

// Operation by operation as in mining/sphere.py.
double Weighing::log_weight(double distance) const noexcept {
    const double squared = std::min(std::max(weights_.unit * distance, weights_.lowest), weights_.highest);
    const auto size = static_cast<double>(weights_.size);
    return (2.0 - size) / 2.0 * std::log(squared) - (size - 3.0) / 2.0 * std::log(1.0 - squared / 4.0);
}

std::size_t Weighing::bin_of(double distance) const noexcept {
    return static_cast<std::size_t>(std::ranges::upper_bound(weights_.edges, distance) - weights_.edges.begin());
}

Candidates Weighing::list_of(const WeighMemory& memory, std::size_t level) const noexcept {
    const WeighMemory::Level& its = memory.levels.data()[level];
    return {memory.distances.data() + its.at, memory.columns.data() + its.at, its.n};
}

// How many of the last list are nearer than an edge. Of those in doubt float64 says; then they are moved to the side of the
// edges where they belong, so that from now on float32 knows it.
std::size_t Weighing::count_below(std::size_t edge, std::size_t anchor, float doubt, ExactDistances& exact,
                                  WeighMemory& memory) const noexcept {
    const Candidates list = list_of(memory, memory.n_levels - 1);
    const simd::Edges around = {simd::kNoLow, simd::kNoLow, edges_[edge] - doubt, edges_[edge] + doubt};
    const simd::Counts found = kernels_.count(list.distances, list.n, around);
    if (found.possible == found.sure) { return found.sure; }
    float* own = memory.distances.data() + memory.levels.data()[memory.n_levels - 1].at;
    const std::int32_t* columns = memory.their_columns.data();
    const std::size_t n = kernels_.filter(list.distances, list.columns, list.n, around.sure_high, around.possible_high,
                                          memory.their_distances.data(), memory.their_columns.data());
    std::size_t below = found.sure;
    for (std::size_t i = 0; i < n; ++i) {
        const std::size_t bin = bin_of(exact(anchor, static_cast<std::size_t>(columns[i])));
        const auto place = std::lower_bound(list.columns, list.columns + list.n, columns[i]) - list.columns;
        float& distance = own[place];
        distance = std::clamp(distance, begin_of(bin), std::nextafter(end_of(bin), simd::kNoLow));
        below += bin <= edge ? 1 : 0;
    }
    return below;
}

void Weighing::prepare(std::size_t anchor, float doubt, const Candidates& candidates, ExactDistances& exact,
                       WeighMemory& memory) const noexcept {
    std::copy_n(candidates.distances, candidates.n, memory.distances.data());
    std::copy_n(candidates.columns, candidates.n, memory.columns.data());
    memory.levels.data()[0] = {0, candidates.n};
    memory.n_levels = 1;
    memory.n_bins = 0;
    memory.are_counted = false;
    if (by_number_) {
        doubt = 0.0F;
        for (std::size_t i = 0; i < candidates.n; ++i) {
            memory.distances.data()[i] =
                static_cast<float>(bin_of(exact(anchor, static_cast<std::size_t>(candidates.columns[i]))));
        }
    }
    // The farthest bin is the one that ends beyond all candidates.
    const auto farthest = std::ranges::partition_point(edges_, [&](float edge) {
        const float end = edge - doubt;
        const simd::Edges below = {simd::kNoLow, simd::kNoLow, end, end};
        return kernels_.count(memory.distances.data(), candidates.n, below).sure != candidates.n;
    });
    std::size_t above = candidates.n;
    for (auto bin = static_cast<std::size_t>(farthest - edges_.begin()); above != 0; --bin) {
        const WeighMemory::Level last = memory.levels.data()[memory.n_levels - 1];
        const std::size_t below = bin == 0 ? 0 : count_below(bin - 1, anchor, doubt, exact, memory);
        if (below != above) { memory.bins.data()[memory.n_bins++] = {bin, above - below, memory.n_levels - 1}; }
        above = below;
        if (bin == 0) { break; }
        constexpr std::size_t kShort = 64;
        if (last.n > kShort && 2 * below <= last.n) {
            const std::size_t at = last.at + last.n + simd::kSlack;
            const Candidates list = list_of(memory, memory.n_levels - 1);
            const std::size_t n = kernels_.filter(list.distances, list.columns, list.n, simd::kNoLow, edges_[bin - 1],
                                                  memory.distances.data() + at, memory.columns.data() + at);
            memory.levels.data()[memory.n_levels++] = {at, n};
        }
    }
    std::reverse(memory.bins.data(), memory.bins.data() + memory.n_bins);
}

// Whatever is in the bin is a candidate of the pair, as far as its distance goes.
bool Weighing::is_wholly_in(const Pair& pair, std::size_t bin) const noexcept {
    if (bin == edges_.size()) { return pair.decide.holds_all(weights_.edges.back(), kUnbounded); }
    if (pair.decide.holds_all(bin == 0 ? 0.0 : weights_.edges[bin - 1], weights_.edges[bin])) { return true; }
    return !by_number_ && bin != 0 && pair.edges.sure_low <= edges_[bin - 1] - pair.doubt &&
           edges_[bin] + pair.doubt <= pair.edges.sure_high;
}

// Those of the bin that are candidates of the pair and not picked yet.
Candidates Weighing::candidates_in(const Pair& pair, const Bin& bin) const noexcept {
    const Candidates list = list_of(pair.memory, bin.level);
    float* distances = pair.memory.their_distances.data();
    std::int32_t* columns = pair.memory.their_columns.data();
    const std::size_t n = kernels_.filter(list.distances, list.columns, list.n, begin_of(bin.bin), end_of(bin.bin), distances,
                                          columns);
    std::size_t n_left = 0;
    for (std::size_t i = 0; i < n; ++i) {
        distances[n_left] = distances[i];
        columns[n_left] = columns[i];
        // What was moved by the doubt is in doubt no less.
        const bool sure = !by_number_ && Decider::sure(pair.edges, distances[i] - pair.doubt) &&
                          Decider::sure(pair.edges, distances[i] + pair.doubt);
        n_left += std::ranges::find(pair.picked, columns[i]) == pair.picked.end() &&
                          (sure || pair.decide.exact(pair.exact(pair.anchor, pair.positive),
                                                     pair.exact(pair.anchor, static_cast<std::size_t>(columns[i]))))
                      ? 1
                      : 0;
    }
    return {distances, columns, n_left};
}

std::size_t Weighing::count(const Pair& pair, const Bin& bin) const noexcept {
    if (pair.picked.empty() && is_wholly_in(pair, bin.bin)) { return bin.n; }
    const bool none = !by_number_ && bin.bin != 0 && bin.bin < edges_.size() &&
                      (end_of(bin.bin) + pair.doubt < pair.edges.possible_low ||
                       pair.edges.possible_high < begin_of(bin.bin) - pair.doubt);
    return none ? 0 : candidates_in(pair, bin).n;
}

// Counts the pair's candidates in every bin that is not empty, and sums up their bounds.
void Weighing::sum(const Pair& pair) const noexcept {
    const Bin* bins = pair.memory.bins.data();
    std::size_t* counts = pair.memory.counts.data();
    double* sums = pair.memory.sums.data();
    double top = -kUnbounded;
    for (std::size_t i = 0; i < pair.memory.n_bins; ++i) {
        counts[i] = count(pair, bins[i]);
        if (counts[i] != 0) { top = std::max(top, weights_.log_bounds[bins[i].bin]); }
    }
    if (top == -kUnbounded) { return; }
    const double* relative =
        relative_.values.data() +
        static_cast<std::size_t>(level_of(top) - relative_.lowest_level) * weights_.log_bounds.size();
    double total = 0.0;
    for (std::size_t i = 0; i < pair.memory.n_bins; ++i) {
        if (counts[i] != 0) { total += static_cast<double>(counts[i]) * relative[bins[i].bin]; }
        sums[i] = total;
    }
}

bool Weighing::takes(const Pair& pair, std::size_t bin, float distance, std::size_t column, float doubt,
                     double mark) const noexcept {
    if (!by_number_) {
        const Chance* chances = chances_.data() + bin * kParts;
        const float begin = edges_[bin == 0 ? 0 : bin - 1], end = edges_[std::min(bin, edges_.size() - 1)];
        const float parts_per_distance = static_cast<float>(kParts) / std::max(end - begin, 1e-30F);
        const auto part_of = [&](float d) {
            const float part = (d - begin) * parts_per_distance;
            return static_cast<std::size_t>(std::clamp(part, 0.0F, static_cast<float>(kParts - 1)));
        };
        Chance chance = chances[part_of(distance - doubt)];
        for (std::size_t part = part_of(distance - doubt); part <= part_of(distance + doubt); ++part) {
            chance = {std::min(chance.least, chances[part].least), std::max(chance.greatest, chances[part].greatest)};
        }
        if (mark < chance.least) { return true; }
        if (mark >= chance.greatest) { return false; }
    }
    return mark < std::exp(log_weight(pair.exact(pair.anchor, column)) - weights_.log_bounds[bin]);
}

void Weighing::pick(std::size_t anchor, std::size_t positive, const simd::Edges& edges, float doubt, const Decider& decide,
                    const core::Stream& stream, std::uint64_t first_draw, ExactDistances& exact, WeighMemory& memory,
                    std::size_t k, std::int32_t* picks, float* distances) const noexcept {
    const Bin* bins = memory.bins.data();
    const std::size_t* counts = memory.counts.data();
    const double* sums = memory.sums.data();
    std::uint64_t i = first_draw;
    for (std::size_t n = 0; n < k; ++n) {
        const Pair pair = {anchor, positive, doubt, edges, decide, exact, memory, {picks, n}};
        if (n != 0 || !memory.are_counted) { sum(pair); }
        // An absolute band is that of all of the anchor's pairs, until something is picked.
        memory.are_counted = !decide.is_relative() && k == 1;
        std::size_t last = memory.n_bins;
        while (last != 0 && counts[last - 1] == 0) { --last; }
        if (last == 0) { return; }
        for (bool taken = false; !taken; i += 3) {
            const double mark = draw_unit(stream, i) * sums[last - 1];
            const auto at = std::min(static_cast<std::size_t>(std::upper_bound(sums, sums + last, mark) - sums), last - 1);
            const std::size_t rank = stream.draw(i + 1, counts[at]);
            Candidates list = list_of(memory, bins[at].level);
            std::size_t place = 0;
            if (counts[at] == bins[at].n) {
                place = kernels_.select(list.distances, list.n, begin_of(bins[at].bin), end_of(bins[at].bin), rank);
            } else {
                list = candidates_in(pair, bins[at]);
                place = rank;
            }
            taken = takes(pair, bins[at].bin, list.distances[place], static_cast<std::size_t>(list.columns[place]),
                          2.0F * doubt, draw_unit(stream, i + 2));
            if (taken) {
                picks[n] = list.columns[place];
                distances[n] = by_number_ ? scaled(batch_, exact(anchor, static_cast<std::size_t>(picks[n])))
                                          : list.distances[place];
            }
        }
    }
}

}  // namespace mining
