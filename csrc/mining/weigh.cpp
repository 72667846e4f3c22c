#include "weigh.hpp"

#include <algorithm>
#include <cmath>

namespace mining {
namespace {

// As in mining/reference.py: bounds are taken relative to a multiple of this.
constexpr double kLevelHeight = 512.0;

// More than exp() and log() are wrong by, relatively.
constexpr double kRounding = 1e-9;

double draw_unit(const core::Stream& stream, std::uint64_t i) noexcept {
    constexpr std::uint64_t kSteps = std::uint64_t{1} << 53;
    return static_cast<double>(stream.draw(i, kSteps)) / static_cast<double>(kSteps);
}

std::ptrdiff_t level_of(double log_bound) noexcept { return static_cast<std::ptrdiff_t>(std::floor(log_bound / kLevelHeight)); }

}  // namespace

Weighing::Weighing(const Batch& batch, const Weights& weights) : weights_(weights) {
    if (weights.edges.empty()) { return; }
    for (const double edge : weights.edges) { edges_.push_back(scaled(batch, edge)); }
    first_edge_ = edges_.front();
    cells_per_distance_ = static_cast<float>(kCells - 1) / std::max(edges_.back() - first_edge_, 1e-30F);
    for (std::size_t cell = 0; cell < kCells; ++cell) {
        // A cell below, for what the multiplication rounds.
        const float begin = first_edge_ + (static_cast<float>(cell) - 1.0F) / cells_per_distance_;
        cells_.push_back(static_cast<std::uint32_t>(std::ranges::upper_bound(edges_, begin) - edges_.begin()));
    }
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
    const auto [least, greatest] = std::ranges::minmax(weights.log_bounds);
    lowest_level_ = level_of(least);
    for (std::ptrdiff_t level = lowest_level_; level <= level_of(greatest); ++level) {
        for (const double bound : weights.log_bounds) {
            relative_.push_back(std::exp(bound - kLevelHeight * static_cast<double>(level)));
        }
    }
}

void Weighing::reserve(std::size_t n, WeighMemory& memory) const {
    const std::size_t n_bins = weights_.log_bounds.size();
    memory.distances.take(n);
    memory.columns.take(n);
    memory.bin_of.take(n);
    memory.first.take(n_bins + 1);
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

void Weighing::sort(std::size_t anchor, float doubt, const Candidates& candidates, ExactDistances& exact,
                    WeighMemory& memory) const noexcept {
    const std::size_t n_bins = weights_.log_bounds.size();
    const auto first = memory.first.take(n_bins + 1);
    const auto bin_of = memory.bin_of.take(candidates.n);
    const auto bins = memory.bins.take(n_bins);
    std::ranges::fill(first, std::size_t{0});
    for (std::size_t i = 0; i < candidates.n; ++i) {
        const float distance = candidates.distances[i];
        const float cell = (distance - first_edge_) * cells_per_distance_;
        std::size_t bin = cells_[static_cast<std::size_t>(std::clamp(cell, 0.0F, static_cast<float>(kCells - 1)))];
        // Below the first edge, the first cell may begin too high.
        if (distance < first_edge_) { bin = 0; }
        while (bin < edges_.size() && edges_[bin] <= distance) { ++bin; }
        if ((bin != 0 && distance - edges_[bin - 1] < doubt) || (bin < edges_.size() && edges_[bin] - distance < doubt)) {
            const double d = exact(anchor, static_cast<std::size_t>(candidates.columns[i]));
            bin = static_cast<std::size_t>(std::ranges::upper_bound(weights_.edges, d) - weights_.edges.begin());
        }
        bin_of[i] = static_cast<std::int32_t>(bin);
        ++first[bin + 1];
    }
    memory.n_bins = 0;
    for (std::size_t bin = 0; bin < n_bins; ++bin) {
        if (first[bin + 1] != 0) { bins[memory.n_bins++] = bin; }
        first[bin + 1] += first[bin];
    }
    float* distances = memory.distances.take(candidates.n).data();
    std::int32_t* columns = memory.columns.take(candidates.n).data();
    for (std::size_t i = 0; i < candidates.n; ++i) {
        const std::size_t to = first[static_cast<std::size_t>(bin_of[i])]++;
        distances[to] = candidates.distances[i];
        columns[to] = candidates.columns[i];
    }
    // Each bin's first has become the next one's.
    for (std::size_t bin = n_bins; bin != 0; --bin) { first[bin] = first[bin - 1]; }
    first[0] = 0;
    memory.are_counted = false;
}

bool Weighing::is_candidate(const Pair& pair, std::size_t place) const noexcept {
    const std::int32_t column = pair.memory.columns.take(0).data()[place];
    const float distance = pair.memory.distances.take(0).data()[place];
    if (std::ranges::find(pair.picked, column) != pair.picked.end()) { return false; }
    if (Decider::sure(pair.edges, distance)) { return true; }
    return Decider::possible(pair.edges, distance) &&
           pair.decide.exact(pair.exact(pair.anchor, pair.positive), pair.exact(pair.anchor, static_cast<std::size_t>(column)));
}

// Whatever is in the bin is a candidate of the pair, as far as its distance goes: float32's too are within the doubt of it.
bool Weighing::is_wholly_in(const Pair& pair, std::size_t bin) const noexcept {
    const float doubt = 0.5F * (pair.edges.sure_low - pair.edges.possible_low);
    return bin != 0 && bin < edges_.size() && pair.edges.sure_low <= edges_[bin - 1] - doubt &&
           edges_[bin] + doubt <= pair.edges.sure_high;
}

std::size_t Weighing::count(const Pair& pair, std::size_t bin) const noexcept {
    const std::size_t* first = pair.memory.first.take(0).data();
    if (pair.picked.empty() && is_wholly_in(pair, bin)) { return first[bin + 1] - first[bin]; }
    std::size_t n = 0;
    for (std::size_t place = first[bin]; place < first[bin + 1]; ++place) { n += is_candidate(pair, place) ? 1 : 0; }
    return n;
}

// Counts the pair's candidates in every bin that is not empty, and sums up their bounds; returns the whole sum.
double Weighing::sum(const Pair& pair) const noexcept {
    const auto bins = pair.memory.bins.take(0).data();
    const auto counts = pair.memory.counts.take(0).data();
    const auto sums = pair.memory.sums.take(0).data();
    double top = -kUnbounded;
    for (std::size_t i = 0; i < pair.memory.n_bins; ++i) {
        counts[i] = count(pair, bins[i]);
        if (counts[i] != 0) { top = std::max(top, weights_.log_bounds[bins[i]]); }
    }
    if (top == -kUnbounded) { return 0.0; }
    const double* relative =
        relative_.data() + static_cast<std::size_t>(level_of(top) - lowest_level_) * weights_.log_bounds.size();
    double total = 0.0;
    for (std::size_t i = 0; i < pair.memory.n_bins; ++i) {
        if (counts[i] != 0) { total += static_cast<double>(counts[i]) * relative[bins[i]]; }
        sums[i] = total;
    }
    return total;
}

std::size_t Weighing::place_of(const Pair& pair, std::size_t bin, std::size_t rank, std::size_t count) const noexcept {
    const std::size_t* first = pair.memory.first.take(0).data();
    if (count == first[bin + 1] - first[bin]) { return first[bin] + rank; }
    for (std::size_t place = first[bin];; ++place) {
        if (is_candidate(pair, place) && rank-- == 0) { return place; }
    }
}

bool Weighing::takes(const Pair& pair, std::size_t bin, std::size_t place, float doubt, double mark) const noexcept {
    const float distance = pair.memory.distances.take(0).data()[place];
    const Chance* chances = chances_.data() + bin * kParts;
    const float begin = edges_[bin == 0 ? 0 : bin - 1], end = edges_[std::min(bin, edges_.size() - 1)];
    const float parts_per_distance = static_cast<float>(kParts) / std::max(end - begin, 1e-30F);
    const auto part_of = [&](float d) {
        return static_cast<std::size_t>(std::clamp((d - begin) * parts_per_distance, 0.0F, static_cast<float>(kParts - 1)));
    };
    Chance chance = chances[part_of(distance - doubt)];
    for (std::size_t part = part_of(distance - doubt); part <= part_of(distance + doubt); ++part) {
        chance = {std::min(chance.least, chances[part].least), std::max(chance.greatest, chances[part].greatest)};
    }
    if (mark < chance.least) { return true; }
    if (mark >= chance.greatest) { return false; }
    const auto column = static_cast<std::size_t>(pair.memory.columns.take(0).data()[place]);
    return mark < std::exp(log_weight(pair.exact(pair.anchor, column)) - weights_.log_bounds[bin]);
}

void Weighing::pick(std::size_t anchor, std::size_t positive, const simd::Edges& edges, float doubt, const Decider& decide,
                    const core::Stream& stream, std::uint64_t first_draw, ExactDistances& exact, WeighMemory& memory,
                    std::size_t k, std::int32_t* picks, float* distances) const noexcept {
    const auto bins = memory.bins.take(0).data();
    const auto counts = memory.counts.take(0).data();
    const auto sums = memory.sums.take(0).data();
    std::uint64_t i = first_draw;
    for (std::size_t n = 0; n < k; ++n) {
        const Pair pair = {anchor, positive, edges, decide, exact, memory, {picks, n}};
        if (n != 0 || !memory.are_counted) { sum(pair); }
        // An absolute band is that of all of the anchor's pairs, until something is picked.
        memory.are_counted = !decide.is_relative() && n == 0 && k == 1;
        std::size_t last = memory.n_bins;
        while (last != 0 && counts[last - 1] == 0) { --last; }
        if (last == 0) { return; }
        const double total = sums[last - 1];
        for (bool taken = false; !taken; i += 3) {
            const double mark = draw_unit(stream, i) * total;
            const auto at = std::min(static_cast<std::size_t>(std::upper_bound(sums, sums + last, mark) - sums), last - 1);
            const std::size_t place = place_of(pair, bins[at], stream.draw(i + 1, counts[at]), counts[at]);
            taken = takes(pair, bins[at], place, doubt, draw_unit(stream, i + 2));
            if (taken) {
                picks[n] = memory.columns.take(0).data()[place];
                distances[n] = memory.distances.take(0).data()[place];
            }
        }
    }
}

}  // namespace mining
