#include "hinge.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

#include "../core/parallel.hpp"
#include "decider.hpp"

namespace mining {
namespace {

constexpr std::size_t kGroups = kBlockSide / simd::kGroupColumns;

// Rows whose pairs a thread sorts at a time.
constexpr std::size_t kRowsPerTask = 16;

// Stands where no distance is: beyond all thresholds, whatever is in doubt, and not too short.
constexpr float kFar = 0x1p40F;

// Roots of shorter squared distances would have too large an error: at this many times what is in doubt, it is below 2^-13.
constexpr float kRootDoubts = 4096.0F;

class Summing {
  public:
    Summing(const HingeRequest& request, Batch& batch, const Groups& groups, const Pairs& pairs, HingeMemory& memory)
        : request_(request),
          batch_(batch),
          kernels_(batch.kernels()),
          groups_(groups),
          pairs_(pairs),
          memory_(memory),
          blocks_(batch),
          own_(core::first_of(memory.by_thread, request.n_threads)),
          n_rows_(groups.n_rows()),
          stride_(batch.stride()),
          d_ap_(memory.d_ap.take(pairs.n())),
          counts_(memory.counts.take(pairs.n() + n_rows_)),
          losses_(memory.losses.take(n_rows_)),
          weight_sums_(memory.weight_sums.take(n_rows_)),
          n_triplets_(memory.n_triplets.take(n_rows_)),
          // As far as tiles and groups reach beyond the last row.
          column_weights_(memory.column_weights.take(n_rows_ + kBlockSide)),
          gradient_(memory.gradient.take(n_rows_ * stride_)) {}

    Hinge run() {
        sort_pairs();
        make_thresholds();
        batch_.make_panels(request_.n_threads);
        std::ranges::fill(column_weights_, 0.0F);
        for (std::size_t row = 0; row < n_rows_; ++row) { column_weights_[row] = static_cast<float>(request_.weights[row]); }
        meet_columns();
        meet_positives();
        return {losses_, n_triplets_, gradient_, root() ? 2.0 : 2.0 / root_scale(batch_)};
    }

  private:
    // -- pairs, and how near a negative must be to belong to them ------------------------------------------------------

    // The farthest positive first.
    void sort_pairs() {
        for (HingeMemory::Own& own : own_) { own.sorted.take(groups_.largest()); }
        core::parallel_for(request_.n_threads, n_rows_, kRowsPerTask, [&](std::size_t row, std::size_t thread) noexcept {
            const auto positives = pairs_.positives_of(row);
            const auto sorted = own_[thread].sorted.take(groups_.largest()).first(positives.size());
            for (std::size_t i = 0; i < sorted.size(); ++i) {
                const std::int32_t positive = positives[i];
                sorted[i] = {batch_.exact_squared_distance(row, static_cast<std::size_t>(positive)), positive};
            }
            std::ranges::sort(sorted, std::greater());
            for (std::size_t i = 0; i < sorted.size(); ++i) {
                d_ap_[pairs_.first(row) + i] = sorted[i].first;
                positives[i] = sorted[i].second;
            }
        });
    }

    double high() const noexcept { return std::min(request_.rule.band.high, request_.margin); }
    // No more than high(): between them may be nothing, but not less.
    double low() const noexcept { return std::min(request_.rule.band.low, high()); }
    bool has_low() const noexcept { return low() > -kUnbounded; }

    bool root() const noexcept { return request_.rule.band.root; }
    double in_unit(double squared_distance) const noexcept { return request_.rule.band.unsquared(squared_distance); }
    bool is_below_high(double d_ap, double d_an) const noexcept { return in_unit(d_an) - in_unit(d_ap) < high(); }
    bool is_below_low(double d_ap, double d_an) const noexcept {
        const double x = in_unit(d_an) - in_unit(d_ap);
        return request_.rule.band.low_is_open ? x <= low() : x < low();
    }

    // The squared distance, of scaled rows, at which the difference to d_ap is this.
    float threshold(double d_ap, double difference) const noexcept {
        return scaled(batch_, in_unit(d_ap) + difference, root());
    }

    void make_thresholds() {
        const std::size_t n_groups = (n_rows_ + simd::kGroupColumns - 1) / simd::kGroupColumns;
        const auto first = memory_.first_group.take(n_groups + 1);
        first[0] = 0;
        for (std::size_t group = 0; group < n_groups; ++group) {
            first[group + 1] = first[group] + static_cast<std::int64_t>(most_pairs(group)) + 1;
        }
        const std::size_t size = static_cast<std::size_t>(first[n_groups]) * simd::kGroupColumns;
        const auto high_values = memory_.high.take(size);
        const auto low_values = memory_.low.take(has_low() ? size : 0);
        thresholds_ = memory_.thresholds.take(n_groups);
        core::parallel_for(request_.n_threads, n_groups, 1, [&](std::size_t group, std::size_t) noexcept {
            const std::size_t begin = static_cast<std::size_t>(first[group]) * simd::kGroupColumns;
            const std::size_t n = static_cast<std::size_t>(first[group + 1] - first[group]) - 1;
            fill_thresholds(group, n, high(), high_values.data() + begin);
            if (has_low()) { fill_thresholds(group, n, low(), low_values.data() + begin); }
            thresholds_[group] = {high_values.data() + begin, has_low() ? low_values.data() + begin : nullptr, n,
                                  least_pairs(group)};
        });
    }

    // Of a group's rows.
    std::size_t most_pairs(std::size_t group) const noexcept {
        std::size_t most = 0;
        for (std::size_t lane = 0; lane < simd::kGroupColumns; ++lane) { most = std::max(most, n_pairs(group, lane)); }
        return most;
    }
    std::size_t least_pairs(std::size_t group) const noexcept {
        std::size_t least = n_pairs(group, 0);
        for (std::size_t lane = 0; lane < simd::kGroupColumns; ++lane) { least = std::min(least, n_pairs(group, lane)); }
        return least;
    }
    std::size_t n_pairs(std::size_t group, std::size_t lane) const noexcept {
        const std::size_t row = group * simd::kGroupColumns + lane;
        return row < n_rows_ ? pairs_.n_of(row) : 0;
    }

    void fill_thresholds(std::size_t group, std::size_t n, double difference, float* values) const noexcept {
        for (std::size_t lane = 0; lane < simd::kGroupColumns; ++lane) {
            const std::size_t row = group * simd::kGroupColumns + lane, n_of = n_pairs(group, lane);
            values[lane] = -simd::kNoLow;
            for (std::size_t i = 0; i < n; ++i) {
                values[(i + 1) * simd::kGroupColumns + lane] =
                    i < n_of ? threshold(d_ap_[pairs_.first(row) + i], difference) : simd::kNoLow;
            }
        }
    }

    // -- negatives -----------------------------------------------------------------------------------------------------

    // Every two blocks meet once, in rounds in which each meets one. A block's meetings follow each other, whichever thread
    // has them: what is added to a row's sums is added in one order. A round need not be over for the next to begin.
    void meet_columns() {
        for (HingeMemory::Own& own : own_) {
            blocks_.reserve(own.block);
            own.high.take(groups_.largest() + 1);
            own.low.take(groups_.largest() + 1);
        }
        std::ranges::fill(gradient_, 0.0F);
        std::ranges::fill(counts_, 0U);
        std::ranges::fill(losses_, 0.0);
        std::ranges::fill(weight_sums_, 0.0);
        const std::size_t n_blocks = blocks_.n();
        std::vector<std::atomic<std::size_t>> rounds(n_blocks);
        const auto wait_for = [&rounds](std::size_t block, std::size_t round) {
            while (rounds[block].load(std::memory_order_acquire) != round) { std::this_thread::yield(); }
        };
        core::parallel_for(
            request_.n_threads, n_blocks * n_blocks, 1, [&](std::size_t i, std::size_t thread) noexcept {
                const std::size_t round = i / n_blocks, left = i % n_blocks, right = (round + n_blocks - left) % n_blocks;
                if (left > right) { return; }
                float* tile = blocks_.measure(left, right, own_[thread].block);
                wait_for(left, round);
                wait_for(right, round);
                meet(left, right, tile, own_[thread]);
                rounds[left].store(round + 1, std::memory_order_release);
                rounds[right].store(round + 1, std::memory_order_release);
            });
        core::parallel_for(request_.n_threads, n_rows_, kRowsPerTask,
                           [&](std::size_t row, std::size_t) noexcept { finish(row); });
    }

    // The distances between two blocks of rows, or within one, become weights, and these times one block's rows are a part of
    // the other's gradient.
    void meet(std::size_t left, std::size_t right, float* tile, HingeMemory::Own& own) const noexcept {
        const std::size_t begin = Blocks::begin(left), n = blocks_.end(left) - begin;
        const std::size_t first_column = Blocks::begin(right), n_columns = blocks_.end(right) - first_column;
        alignas(core::kAlignment) float column_sums[kBlockSide] = {}, column_weight_sums[kBlockSide] = {};
        std::uint32_t* column_counts[kBlockSide];
        std::uint32_t nobodys_count = 0;
        for (std::size_t c = 0; c < kBlockSide; ++c) {
            column_counts[c] = c < n_columns ? counts_of(first_column + c).data() : &nobodys_count;
        }
        for (std::size_t r = 0; r < n; ++r) {
            weigh(begin + r, right, tile + r * kBlockSide, left == right ? nullptr : column_counts, column_sums,
                  column_weight_sums, own);
        }
        kernels_.accumulate(tile, kBlockSide, 1, batch_.row(first_column), n_columns, stride_,
                            gradient_.data() + begin * stride_, n);
        if (left == right) { return; }
        for (std::size_t c = 0; c < n_columns; ++c) {
            losses_[first_column + c] -= static_cast<double>(column_sums[c]) * unit();
            weight_sums_[first_column + c] += static_cast<double>(column_weight_sums[c]);
        }
        kernels_.accumulate(tile, 1, kBlockSide, batch_.row(begin), n, stride_, gradient_.data() + first_column * stride_,
                            n_columns);
    }

    // By rank, from 0 on.
    std::span<std::uint32_t> counts_of(std::size_t row) const noexcept {
        return counts_.subspan(pairs_.first(row) + row, pairs_.n_of(row) + 1);
    }

    // Makes weights of a row's distances to a block of columns.
    void weigh(std::size_t row, std::size_t block, float* distances, std::uint32_t* const* column_counts, float* column_sums,
               float* column_weight_sums, HingeMemory::Own& own) const noexcept {
        const std::size_t begin = Blocks::begin(block), end = blocks_.end(block);
        const std::size_t n_groups = (end - begin + simd::kGroupColumns - 1) / simd::kGroupColumns;
        std::fill(distances + (end - begin), distances + n_groups * simd::kGroupColumns, kFar);
        std::fill(distances + std::clamp(groups_.begin(row), begin, end) - begin,
                  distances + std::clamp(groups_.end(row), begin, end) - begin, kFar);
        const float doubt = doubt_of(batch_, row);
        std::uint16_t doubtful[kGroups];
        const simd::RankSums sums = kernels_.rank({distances, n_groups, copy_thresholds(row, own),
                                                   thresholds_.data() + begin / simd::kGroupColumns, column_weights_[row],
                                                   column_weights_.data() + begin, doubt,
                                                   root() ? kRootDoubts * doubt : -kFar, root(),
                                                   counts_of(row).data(), column_counts, column_sums, column_weight_sums,
                                                   doubtful});
        losses_[row] -= sums.distances * unit();
        weight_sums_[row] += sums.weights;
        for (std::size_t group = 0; group < n_groups; ++group) {
            for (unsigned bits = doubtful[group]; bits != 0; bits &= bits - 1) {
                const std::size_t at = group * simd::kGroupColumns + static_cast<std::size_t>(__builtin_ctz(bits));
                distances[at] = weigh_exactly(row, begin + at, column_counts != nullptr);
            }
        }
    }

    // A row's thresholds one after the other.
    simd::Thresholds copy_thresholds(std::size_t row, HingeMemory::Own& own) const noexcept {
        const std::size_t n = pairs_.n_of(row), lane = row % simd::kGroupColumns;
        const simd::Thresholds& group = thresholds_[row / simd::kGroupColumns];
        for (std::size_t i = 0; i <= n; ++i) {
            own.high.data()[i] = group.high[i * simd::kGroupColumns + lane];
            if (has_low()) { own.low.data()[i] = group.low[i * simd::kGroupColumns + lane]; }
        }
        return {own.high.data(), has_low() ? own.low.data() : nullptr, n, n};
    }

    // What a unit of the kernels' distances is in the caller's.
    double unit() const noexcept {
        return 1.0 / (root() ? root_scale(batch_) : batch_.squared_scale());
    }

    // How many of an anchor's pairs have their threshold above a negative: the first so many, for d_ap falls.
    template <class IsBelow>
    std::size_t rank_exactly(std::size_t anchor, const IsBelow& is_below) const noexcept {
        const auto d_ap = d_ap_.subspan(pairs_.first(anchor), pairs_.n_of(anchor));
        return static_cast<std::size_t>(std::ranges::partition_point(d_ap, is_below) - d_ap.begin());
    }

    // What the kernel leaves out. Of roots, what is in doubt may be short: its slope is steep then, and what float32 rounds off
    // the rows would be much of the difference between them.
    float weigh_exactly(std::size_t row, std::size_t column, bool for_column) const noexcept {
        const double d_an = batch_.exact_squared_distance(row, column);
        const double n = count_exactly(row, d_an, true), their_n = count_exactly(column, d_an, for_column);
        const double push = n * request_.weights[row] + their_n * request_.weights[column];
        if (root()) {
            // What finish() takes off.
            batch_.add_difference(row, column, push * slope(d_an), gradient_of(row),
                                  for_column ? gradient_of(column) : nullptr);
            return 0.0F;
        }
        const auto weight = static_cast<float>(-push);
        weight_sums_[row] += static_cast<double>(weight);
        if (for_column) { weight_sums_[column] += static_cast<double>(weight); }
        return weight;
    }

    // To how many of an anchor's pairs a negative belongs; counted for them, too, if it is to be.
    double count_exactly(std::size_t anchor, double d_an, bool for_anchor) const noexcept {
        const std::size_t high = rank_exactly(anchor, [&](double d_ap) { return is_below_high(d_ap, d_an); });
        const std::size_t low =
            has_low() ? std::min(high, rank_exactly(anchor, [&](double d_ap) { return is_below_low(d_ap, d_an); })) : 0;
        const auto n = static_cast<double>(high - low);
        if (for_anchor) {
            ++counts_of(anchor)[high];
            --counts_of(anchor)[low];
            losses_[anchor] -= n * in_unit(d_an);
        }
        return n;
    }

    // Of the root of a distance; none where two rows coincide.
    static double slope(double squared_distance) noexcept {
        return squared_distance > 0.0 ? 0.5 / std::sqrt(squared_distance) : 0.0;
    }

    float* gradient_of(std::size_t row) const noexcept { return gradient_.data() + row * stride_; }

    // From how often each rank was found to how many negatives each pair has, and from sums of weighted rows to differences.
    void finish(std::size_t row) const noexcept {
        const auto counts = counts_of(row);
        std::int64_t n_triplets = 0;
        for (std::size_t rank = counts.size() - 1; rank > 0; --rank) {
            if (rank + 1 < counts.size()) { counts[rank] += counts[rank + 1]; }
            n_triplets += counts[rank];
            const double d_ap = in_unit(d_ap_[pairs_.first(row) + rank - 1]);
            losses_[row] += static_cast<double>(counts[rank]) * (d_ap + request_.margin);
        }
        losses_[row] = std::max(losses_[row], 0.0);  // which rounding may miss by a little
        n_triplets_[row] = n_triplets;
        float* gradient = gradient_of(row);
        const auto weight = static_cast<float>(weight_sums_[row]);
        for (std::size_t k = 0; k < stride_; ++k) { gradient[k] = weight * batch_.row(row)[k] - gradient[k]; }
    }

    // -- positives -----------------------------------------------------------------------------------------------------

    // An identity at a time: its pairs are among its own rows.
    void meet_positives() const noexcept {
        core::parallel_for(request_.n_threads, groups_.n_identities(), 1, [&](std::size_t identity, std::size_t) noexcept {
            for (std::size_t row = groups_.first(identity); row < groups_.first(identity + 1); ++row) {
                const auto positives = pairs_.positives_of(row);
                const auto counts = counts_of(row);
                const double too_short = static_cast<double>(kRootDoubts * doubt_of(batch_, row)) / batch_.squared_scale();
                for (std::size_t i = 0; i < positives.size(); ++i) {
                    if (counts[i + 1] == 0) { continue; }
                    const auto positive = static_cast<std::size_t>(positives[i]);
                    const double d_ap = d_ap_[pairs_.first(row) + i], weight = request_.weights[row] * counts[i + 1];
                    if (root() && d_ap < too_short) {
                        batch_.add_difference(row, positive, weight * slope(d_ap), gradient_of(row), gradient_of(positive));
                        continue;
                    }
                    kernels_.pull(batch_.row(row), batch_.row(positive),
                                  static_cast<float>(root() ? weight * slope(d_ap) * unit() : weight), stride_,
                                  gradient_of(row), gradient_of(positive));
                }
            }
        });
    }

    const HingeRequest& request_;
    Batch& batch_;
    const simd::Kernels& kernels_;
    const Groups& groups_;
    const Pairs& pairs_;
    HingeMemory& memory_;
    Blocks blocks_;
    std::span<HingeMemory::Own> own_;
    const std::size_t n_rows_, stride_;
    std::span<double> d_ap_;
    std::span<std::uint32_t> counts_;
    std::span<double> losses_, weight_sums_;
    std::span<std::int64_t> n_triplets_;
    std::span<float> column_weights_, gradient_;
    std::span<simd::Thresholds> thresholds_;
};

}  // namespace

Hinge sum_hinges(const HingeRequest& request, Batch& batch, const Groups& groups, PairsMemory& pairs_memory,
                 HingeMemory& memory) {
    const Pairs pairs = list_pairs(request.rule, request.seed, batch, groups, {}, request.n_threads, pairs_memory);
    return Summing(request, batch, groups, pairs, memory).run();
}

}  // namespace mining
