#include "histogram.hpp"

#include <algorithm>
#include <cmath>

#include "../core/parallel.hpp"

namespace mining {

Histogram count_pairs(Batch& batch, std::span<const std::int64_t> offsets, int n_threads, HistogramMemory& memory,
                      std::span<std::int64_t> same, std::span<std::int64_t> different) {
    const std::size_t n_bins = same.size();
    const auto first_others = memory.first_others.take(batch.n());  // the first row behind those of a row's own identity
    for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
        std::fill(first_others.begin() + offsets[i], first_others.begin() + offsets[i + 1],
                  static_cast<std::int32_t>(offsets[i + 1]));
    }
    batch.make_panels(n_threads);
    const Blocks blocks(batch);
    const auto by_thread = core::first_of(memory.by_thread, n_threads);
    for (HistogramMemory::Own& own : by_thread) {
        blocks.reserve(own.block);
        std::ranges::fill(own.counts.take(2 * n_bins), 0U);
    }

    // No two rows are farther from each other than twice the longest is from the origin.
    const double farthest = 4.0 * batch.longest();
    const auto bins_per_unit = static_cast<float>(static_cast<double>(n_bins) / farthest);
    const auto last_bin = static_cast<float>(n_bins - 1);
    core::parallel_for(n_threads, blocks.n() * blocks.n(), 1, [&](std::size_t i, std::size_t thread) noexcept {
        const std::size_t left = i / blocks.n(), right = i % blocks.n();
        if (left > right) { return; }
        const std::size_t first_row = Blocks::begin(left), first_column = Blocks::begin(right);
        const std::size_t n_columns = blocks.end(right) - first_column;
        const float* distances = blocks.measure(left, right, by_thread[thread].block);
        std::uint64_t* same_counts = by_thread[thread].counts.data();
        std::uint64_t* different_counts = same_counts + n_bins;
        for (std::size_t row = first_row; row < blocks.end(left); ++row, distances += kBlockSide) {
            std::int32_t bins[kBlockSide];
            for (std::size_t c = 0; c < kBlockSide; ++c) {
                bins[c] = static_cast<std::int32_t>(std::min(std::max(distances[c] * bins_per_unit, 0.0F), last_bin));
            }
            const std::size_t begin = left == right ? row + 1 - first_row : 0;
            const auto others = static_cast<std::size_t>(first_others[row]);
            const std::size_t end = std::clamp(others > first_column ? others - first_column : 0, begin, n_columns);
            for (std::size_t c = begin; c < end; ++c) { ++same_counts[bins[c]]; }
            for (std::size_t c = end; c < n_columns; ++c) { ++different_counts[bins[c]]; }
        }
    });

    std::ranges::fill(same, 0);
    std::ranges::fill(different, 0);
    for (const HistogramMemory::Own& own : by_thread) {
        for (std::size_t bin = 0; bin < n_bins; ++bin) {
            same[bin] += static_cast<std::int64_t>(own.counts.data()[bin]);
            different[bin] += static_cast<std::int64_t>(own.counts.data()[n_bins + bin]);
        }
    }
    double doubt = 0.0;  // of one distance, which is half of two together
    for (std::size_t row = 0; row < batch.n(); ++row) { doubt = std::max(doubt, 0.5 * batch.uncertainty(row)); }
    const double width = farthest / static_cast<double>(n_bins);
    // Besides, a distance in bins is rounded twice: to less than a bin in 2^7, with 2^16 of them.
    const double rounding = farthest * 0x1p-22;
    return {width / batch.squared_scale(), std::min(doubt + rounding, farthest) / batch.squared_scale()};
}

}  // namespace mining
