// First pass: pairs that find a candidate among a few random negatives are closed for the price of those distances.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "../core/buffer.hpp"
#include "../core/parallel.hpp"
#include "../core/random.hpp"
#include "batch.hpp"
#include "decider.hpp"
#include "pairs.hpp"

namespace mining {

// As in mining/reference.py.
inline constexpr std::uint64_t kDraws = 32;
inline constexpr std::uint64_t kPilotTrials = 512;
inline constexpr std::uint64_t kPilotHits = kPilotTrials / 4;
inline constexpr std::uint64_t kPilotStream = std::numeric_limits<std::uint64_t>::max();
inline constexpr std::size_t kSampled = 8;
inline constexpr std::size_t kSampleFromRows = 512;
inline constexpr std::size_t kSampleHits = 2;

struct DrawMemory {
    core::Buffer<std::int32_t> columns, open;
    core::Buffer<float> distances;
};

template <class Rule>
class Drawing {
  public:
    Drawing(const Batch& batch, const Pairs& pairs, const Decider<Rule>& decide, std::uint64_t seed) noexcept
        : batch_(batch), groups_(pairs.groups), pairs_(pairs), decide_(decide), seed_(seed) {}

    // Measures every pair, and closes those that a draw closes.
    void run(int n_threads, std::span<DrawMemory> memory) {
        // Anchors that a thread takes at a time.
        constexpr std::size_t kAnchorsPerTask = 32;
        pilot_ = pilot_says_draw();
        for (DrawMemory& own : memory) {
            own.columns.take(std::max(groups_.largest(), kSampled));
            own.open.take(groups_.largest());
            own.distances.take(std::max(groups_.largest(), kSampled + simd::kSlack));
        }
        core::parallel_for(n_threads, groups_.n_rows(), kAnchorsPerTask,
                           [&](std::size_t anchor, std::size_t thread) noexcept { draw_for(anchor, memory[thread]); });
    }

  private:
    // Are at least a quarter of random (pair, negative) trials candidates?
    bool pilot_says_draw() const noexcept {
        std::uint64_t hits = 0;
        for (std::uint64_t trial = 0; hits < kPilotHits && hits + (kPilotTrials - trial) >= kPilotHits; ++trial) {
            const core::Stream stream = core::AnchorStreams(seed_, kPilotStream)(trial);
            const std::size_t pair = stream.draw(0, groups_.n_pairs());
            const std::size_t anchor = groups_.anchor_of(pair);
            const std::size_t n_negatives = groups_.n_negatives(anchor);
            if (n_negatives == 0) { continue; }
            const std::size_t positive = anchor + 1 + (pair - groups_.first_pair(anchor));
            const std::size_t negative = groups_.negative(anchor, stream.draw(1, n_negatives));
            const std::int32_t rows[] = {static_cast<std::int32_t>(positive), static_cast<std::int32_t>(negative)};
            float distances[2];
            batch_.measure(anchor, rows, distances);
            const simd::Edges edges = decide_.edges(anchor, distances[0]);
            hits += decide_(anchor, positive, negative, edges, distances[1]) ? 1 : 0;
        }
        return hits >= kPilotHits;
    }

    void draw_for(std::size_t anchor, DrawMemory& memory) const noexcept {
        const std::size_t n_pairs = groups_.n_pairs(anchor);
        const auto columns = memory.columns.take(n_pairs);
        for (std::size_t i = 0; i < n_pairs; ++i) { columns[i] = static_cast<std::int32_t>(anchor + 1 + i); }
        batch_.measure(anchor, columns, pairs_.d_ap_of(anchor).data());
        std::ranges::fill(pairs_.picks_of(anchor), kOpen);

        const std::size_t n_open = groups_.n_negatives(anchor) == 0 ? 0 : choose_pairs(anchor, memory);
        close_by_draws(anchor, memory.open.take(groups_.largest()).first(n_open), memory);
    }

    // Lists the pairs that draw: all where the pilot says so; in a large batch else those of which several candidates are
    // among a few random negatives of the anchor. It is these that would let most columns through the anchor's sieve.
    std::size_t choose_pairs(std::size_t anchor, DrawMemory& memory) const noexcept {
        const std::size_t n_pairs = groups_.n_pairs(anchor);
        const auto open = memory.open.take(n_pairs);
        if (pilot_) {
            for (std::size_t i = 0; i < n_pairs; ++i) { open[i] = static_cast<std::int32_t>(i); }
            return n_pairs;
        }
        if (groups_.n_rows() < kSampleFromRows) { return 0; }
        const core::Stream stream = core::AnchorStreams(seed_, anchor)(anchor);
        const auto columns = memory.columns.take(kSampled);
        for (std::size_t i = 0; i < kSampled; ++i) { columns[i] = draw_negative(anchor, stream, i); }
        const auto distances = memory.distances.take(kSampled + simd::kSlack);
        batch_.measure(anchor, columns, distances.data());
        const auto d_ap = pairs_.d_ap_of(anchor);
        std::size_t n_open = 0;
        for (std::size_t i = 0; i < n_pairs; ++i) {
            const simd::Edges edges = decide_.edges(anchor, d_ap[i]);
            const simd::Counts inside = batch_.kernels().count(distances.data(), kSampled, edges);
            std::size_t hits = inside.sure;
            for (std::size_t j = 0; inside.possible != inside.sure && j < kSampled; ++j) {
                const auto negative = static_cast<std::size_t>(columns[j]);
                hits += !decide_.sure(edges, distances[j]) && decide_(anchor, anchor + 1 + i, negative, edges, distances[j]);
            }
            if (hits >= kSampleHits) { open[n_open++] = static_cast<std::int32_t>(i); }
        }
        return n_open;
    }

    // Round i tries the i-th draw of all pairs still open, so that their distances are computed side by side.
    void close_by_draws(std::size_t anchor, std::span<std::int32_t> open, DrawMemory& memory) const noexcept {
        const core::AnchorStreams streams(seed_, anchor);
        const auto picks = pairs_.picks_of(anchor);
        const auto d_ap = pairs_.d_ap_of(anchor);
        for (const std::int32_t i : open) { picks[static_cast<std::size_t>(i)] = kOpenDrawn; }
        for (std::uint64_t round = 0; round < kDraws && !open.empty(); ++round) {
            const auto columns = memory.columns.take(open.size());
            for (std::size_t j = 0; j < open.size(); ++j) {
                const std::size_t positive = anchor + 1 + static_cast<std::size_t>(open[j]);
                columns[j] = draw_negative(anchor, streams(positive), round);
            }
            const auto distances = memory.distances.take(open.size());
            batch_.measure(anchor, columns, distances.data());
            std::size_t n_left = 0;
            for (std::size_t j = 0; j < open.size(); ++j) {
                const auto i = static_cast<std::size_t>(open[j]);
                const auto negative = static_cast<std::size_t>(columns[j]);
                const simd::Edges edges = decide_.edges(anchor, d_ap[i]);
                if (decide_(anchor, anchor + 1 + i, negative, edges, distances[j])) {
                    picks[i] = columns[j];
                } else {
                    open[n_left++] = open[j];
                }
            }
            open = open.first(n_left);
        }
    }

    std::int32_t draw_negative(std::size_t anchor, const core::Stream& stream, std::uint64_t i) const noexcept {
        return static_cast<std::int32_t>(groups_.negative(anchor, stream.draw(i, groups_.n_negatives(anchor))));
    }

    const Batch& batch_;
    const Groups& groups_;
    const Pairs& pairs_;
    const Decider<Rule>& decide_;
    std::uint64_t seed_;
    bool pilot_ = false;
};

}  // namespace mining
