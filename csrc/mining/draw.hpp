// First pass: pairs that find a candidate among a few random negatives are closed for the price of those distances.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "../core/buffer.hpp"
#include "../core/parallel.hpp"
#include "../core/random.hpp"
#include "batch.hpp"
#include "decider.hpp"
#include "draws.hpp"
#include "pairs.hpp"

namespace mining {

struct DrawMemory {
    core::Buffer<std::int32_t> columns, open;
    core::Buffer<float> distances;
};

class Drawing {
  public:
    Drawing(const Batch& batch, const Pairs& pairs, const Decider& decide, std::uint64_t seed) noexcept
        : batch_(batch), groups_(pairs.groups), pairs_(pairs), decide_(decide), seed_(seed) {}

    // Closes the pairs of the anchors that draws close, and fills some picks of others.
    void run(int n_threads, std::span<DrawMemory> memory) {
        // Anchors that a thread takes at a time.
        constexpr std::size_t kAnchorsPerTask = 32;
        pilot_ = pilot_says_draw();
        for (DrawMemory& own : memory) {
            own.columns.take(room());
            own.distances.take(room());
            own.open.take(groups_.largest());
        }
        core::parallel_for(n_threads, groups_.n_rows(), kAnchorsPerTask,
                           [&](std::size_t row, std::size_t thread) noexcept {
                               if (pairs_.is_anchor(row)) { draw_for(row, memory[thread]); }
                           });
    }

  private:
    // Are at least a quarter of random (pair, negative) trials candidates?
    bool pilot_says_draw() const noexcept {
        std::uint64_t hits = 0;
        for (std::uint64_t trial = 0; hits < kPilotHits && hits + (kPilotTrials - trial) >= kPilotHits; ++trial) {
            const core::Stream stream = core::AnchorStreams(seed_, kPilotStream)(trial);
            const std::size_t pair = stream.draw(0, pairs_.n());
            const std::size_t anchor = pairs_.anchor_of(pair);
            const std::size_t n_negatives = groups_.n_negatives(anchor);
            if (n_negatives == 0) { continue; }
            const auto positive = static_cast<std::size_t>(pairs_.positives[pair]);
            const std::size_t negative = groups_.negative(anchor, stream.draw(1, n_negatives));
            const std::int32_t rows[] = {static_cast<std::int32_t>(positive), static_cast<std::int32_t>(negative)};
            float distances[2];
            batch_.measure(anchor, rows, distances);
            const simd::Edges edges = decide_.edges(decide_.doubt(anchor), distances[0]);
            hits += decide_(anchor, positive, negative, edges, distances[1]) ? 1 : 0;
        }
        return hits >= kPilotHits;
    }

    void draw_for(std::size_t anchor, DrawMemory& memory) const noexcept {
        if (groups_.n_negatives(anchor) == 0 || pairs_.n_of(anchor) == 0) { return; }
        auto open = memory.open.take(groups_.largest());
        const std::uint64_t n_draws = pairs_.n_picks * (pilot_ ? kDraws : kDrawsPerSampled * n_sampled());
        open = close_by_draws(anchor, open.first(choose_pairs(anchor, memory)), 0, n_draws, memory);
        if (pilot_ && !open.empty()) {
            const std::uint64_t n_more = groups_.n_rows() / (kMoreDraws * open.size());
            close_by_draws(anchor, open, n_draws, n_more, memory);
        }
    }

    // Lists the pairs that draw: all where the pilot says so; in a large batch else those of which several candidates are
    // among a few random negatives of the anchor. It is these that would let most columns through the anchor's sieve.
    std::size_t choose_pairs(std::size_t anchor, DrawMemory& memory) const noexcept {
        const std::size_t n_pairs = pairs_.n_of(anchor);
        const auto open = memory.open.take(groups_.largest());
        if (pilot_) {
            for (std::size_t i = 0; i < n_pairs; ++i) { open[i] = static_cast<std::int32_t>(i); }
            return n_pairs;
        }
        if (groups_.n_rows() < kSampleFromRows) { return 0; }
        const core::Stream stream = core::AnchorStreams(seed_, anchor)(anchor);
        const auto columns = memory.columns.take(room()).first(n_sampled());
        for (std::size_t i = 0; i < columns.size(); ++i) { columns[i] = draw_negative(anchor, stream, i); }
        float* distances = memory.distances.take(room()).data();
        batch_.measure(anchor, columns, distances);
        const float nearest = *std::min_element(distances, distances + columns.size());

        const auto d_ap = pairs_.d_ap_of(anchor);
        const auto positives = pairs_.positives_of(anchor);
        const float doubt = decide_.doubt(anchor);
        std::size_t n_open = 0;
        for (std::size_t i = 0; i < n_pairs; ++i) {
            const simd::Edges edges = decide_.edges(doubt, d_ap[i]);
            // Most pairs have no use for even the nearest of them.
            if (nearest >= edges.possible_high) { continue; }
            const simd::Counts inside = batch_.kernels().count(distances, columns.size(), edges);
            std::size_t hits = inside.sure;
            for (std::size_t j = 0; inside.possible != inside.sure && j < columns.size(); ++j) {
                const auto negative = static_cast<std::size_t>(columns[j]);
                hits += !decide_.sure(edges, distances[j]) &&
                        decide_(anchor, static_cast<std::size_t>(positives[i]), negative, edges, distances[j]);
            }
            if (hits >= kSampleHits) { open[n_open++] = static_cast<std::int32_t>(i); }
        }
        return n_open;
    }

    // Draws first .. first + n of each open pair, until it has all of its picks; returns the pairs that lack some still. Where
    // the first draw has not closed a pair, so many are tried at once, of some pairs or of one, that their distances do not
    // wait for each other.
    std::span<std::int32_t> close_by_draws(std::size_t anchor, std::span<std::int32_t> open, std::uint64_t first,
                                           std::uint64_t n, DrawMemory& memory) const noexcept {
        const core::AnchorStreams streams(seed_, anchor);
        const std::size_t n_picks = pairs_.n_picks;
        const auto picks = pairs_.picks_of(anchor);
        const auto d_an = pairs_.d_an_of(anchor);
        const auto positives = pairs_.positives_of(anchor);
        const auto d_ap = pairs_.d_ap_of(anchor);
        const float doubt = decide_.doubt(anchor);
        std::int32_t* columns = memory.columns.take(room()).data();
        float* distances = memory.distances.take(room()).data();
        for (std::uint64_t done = 0; done < n && !open.empty();) {
            const std::size_t at_once = first + done == 0 ? 1 : 1 + (kAtOnce - 1) / open.size();
            const std::size_t n_each = std::min<std::size_t>(n - done, at_once);
            for (std::size_t j = 0; j < open.size(); ++j) {
                const core::Stream stream = streams(static_cast<std::size_t>(positives[static_cast<std::size_t>(open[j])]));
                for (std::size_t t = 0; t < n_each; ++t) {
                    columns[j * n_each + t] = draw_negative(anchor, stream, first + done + t);
                }
            }
            batch_.measure(anchor, {columns, open.size() * n_each}, distances);
            std::size_t n_left = 0;
            for (std::size_t j = 0; j < open.size(); ++j) {
                const auto i = static_cast<std::size_t>(open[j]);
                const auto positive = static_cast<std::size_t>(positives[i]);
                const simd::Edges edges = decide_.edges(doubt, d_ap[i]);
                std::int32_t* its_picks = picks.data() + i * n_picks;
                auto found = static_cast<std::size_t>(std::find(its_picks, its_picks + n_picks, kOpen) - its_picks);
                const std::size_t end = (j + 1) * n_each;
                for (std::size_t t = j * n_each; t < end && found < n_picks; ++t) {
                    const bool is_new = std::find(its_picks, its_picks + found, columns[t]) == its_picks + found;
                    if (is_new && decide_(anchor, positive, static_cast<std::size_t>(columns[t]), edges, distances[t])) {
                        d_an[i * n_picks + found] = distances[t];
                        its_picks[found++] = columns[t];
                    }
                }
                if (found < n_picks) { open[n_left++] = open[j]; }
            }
            open = open.first(n_left);
            done += n_each;
        }
        return open;
    }

    static constexpr std::size_t kAtOnce = 16;

    // What is measured at once at most.
    std::size_t room() const noexcept { return std::max(groups_.largest() + kAtOnce, n_sampled() + simd::kSlack); }

    std::size_t n_sampled() const noexcept { return n_sampled_of(groups_.n_rows()); }

    std::int32_t draw_negative(std::size_t anchor, const core::Stream& stream, std::uint64_t i) const noexcept {
        return static_cast<std::int32_t>(groups_.negative(anchor, stream.draw(i, groups_.n_negatives(anchor))));
    }

    const Batch& batch_;
    const Groups& groups_;
    const Pairs& pairs_;
    const Decider& decide_;
    std::uint64_t seed_;
    bool pilot_ = false;
};

}  // namespace mining
