#include "miner.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "../core/parallel.hpp"
#include "../core/random.hpp"

namespace mining {
namespace {

// As in mining/reference.py.
constexpr std::uint64_t kMaxDraws = 32;
constexpr std::uint64_t kPilotTrials = 512;
constexpr std::uint64_t kPilotHits = kPilotTrials / 4;
constexpr std::uint64_t kPilotStream = std::numeric_limits<std::uint64_t>::max();

constexpr std::int32_t kOpen = -1;

// Anchors in a block of the exhaustive pass: several tiles high, so that a panel is read from L1 by all but the first.
constexpr std::size_t kBlockRows = 56;
// Columns in a chunk: a block's chunk of distances (56 KB) is still in L2 when it is sieved.
constexpr std::size_t kChunkColumns = 256;
// Anchors that a thread takes at a time when it draws.
constexpr std::size_t kAnchorsPerTask = 32;
// Rows whose triplets a thread writes at a time.
constexpr std::size_t kRowsPerCopy = 256;
// Multiply-adds of a full product below which waking a second thread costs more than it saves.
constexpr double kSmallWork = 1 << 22;

// No shifted distance of scaled rows is as large as this.
constexpr double kBeyond = 16.0;

float rounded_down(double x) noexcept {
    const auto y = static_cast<float>(std::clamp(x, -kBeyond, kBeyond));
    return static_cast<double>(y) > x ? std::nextafterf(y, -std::numeric_limits<float>::infinity()) : y;
}

float rounded_up(double x) noexcept { return -rounded_down(-x); }

// Where the shifted distances of a pair's candidates lie: outside [possible_low, possible_high) there are none, inside
// [sure_low, sure_high) is nothing else, and between the two float64 decides.
struct Edges {
    double possible_low, sure_low, sure_high, possible_high;

    bool sure(double shifted) const noexcept { return sure_low <= shifted && shifted < sure_high; }
    bool possible(double shifted) const noexcept { return possible_low <= shifted && shifted < possible_high; }
};

// Where a row of a block writes the columns that pass its sieve.
struct Candidates {
    float* values;
    std::int32_t* columns;
};

// One band over one batch: the decisions, whoever asks for them.
template <class Rule>
class Decider {
  public:
    Decider(const Batch& batch, double margin) noexcept
        : batch_(batch), margin_(margin), scaled_margin_(margin * batch.squared_scale()) {}

    Edges edges(std::size_t anchor, float shifted_d_ap) const noexcept {
        const double norm = batch_.squared_norm(anchor);
        const double doubt = batch_.uncertainty(anchor);
        const Interval band = Rule::interval(static_cast<double>(shifted_d_ap) + norm, scaled_margin_);
        return {band.low - norm - doubt, band.low - norm + doubt, band.high - norm - doubt, band.high - norm + doubt};
    }

    bool exact(double d_ap, double d_an) const noexcept { return Rule{}(d_ap, d_an, margin_); }

    bool operator()(std::size_t anchor, std::size_t positive, std::size_t negative, const Edges& edges,
                    float shifted_d_an) const noexcept {
        if (edges.sure(shifted_d_an)) { return true; }
        return edges.possible(shifted_d_an) && exact(batch_.exact_squared_distance(anchor, positive),
                                                     batch_.exact_squared_distance(anchor, negative));
    }

  private:
    const Batch& batch_;
    double margin_, scaled_margin_;
};

template <class Rule>
class Miner {
  public:
    Miner(const Settings& settings, Batch& batch, const Groups& groups, Workspace& workspace)
        : settings_(settings),
          batch_(batch),
          groups_(groups),
          workspace_(workspace),
          decide_(batch, settings.margin),
          picks_(workspace.picks.take(groups.n_pairs())),
          shifted_d_ap_(workspace.shifted_d_ap.take(groups.n_pairs())) {}

    void run() {
        const auto n_threads = static_cast<std::size_t>(settings_.n_threads);
        workspace_.scratch.resize(std::max(workspace_.scratch.size(), n_threads));
        if (groups_.n_pairs() == 0) { return; }
        n_draws_ = pilot_says_draw() ? kMaxDraws : 0;
        draw_negatives();
        search_exhaustively();
    }

  private:
    // Are at least a quarter of random (pair, negative) trials candidates?
    bool pilot_says_draw() const noexcept {
        std::uint64_t hits = 0;
        for (std::uint64_t trial = 0; hits < kPilotHits && hits + (kPilotTrials - trial) >= kPilotHits; ++trial) {
            const core::Stream stream = core::AnchorStreams(settings_.seed, kPilotStream)(trial);
            const std::size_t pair = stream.draw(0, groups_.n_pairs());
            const std::size_t anchor = groups_.anchor_of(pair);
            const std::size_t n_negatives = groups_.n_negatives(anchor);
            if (n_negatives == 0) { continue; }
            const std::size_t positive = anchor + 1 + (pair - groups_.first_pair(anchor));
            const std::size_t negative = groups_.negative(anchor, stream.draw(1, n_negatives));
            const std::int32_t rows[] = {static_cast<std::int32_t>(positive), static_cast<std::int32_t>(negative)};
            float shifted[2];
            measure(anchor, rows, shifted);
            hits += decide_(anchor, positive, negative, decide_.edges(anchor, shifted[0]), shifted[1]) ? 1 : 0;
        }
        return hits >= kPilotHits;
    }

    // First pass: measures every pair, and closes those that find a candidate among their draws.
    void draw_negatives() {
        for (Scratch& scratch : workspace_.scratch) {
            scratch.columns.take(groups_.largest());
            scratch.open.take(groups_.largest());
            scratch.shifted.take(groups_.largest());
        }
        core::parallel_for(settings_.n_threads, groups_.n_rows(), kAnchorsPerTask,
                           [&](std::size_t anchor, std::size_t thread) noexcept {
                               draw_negatives_of(anchor, workspace_.scratch[thread]);
                           });
    }

    // Round i tries the i-th draw of all pairs still open, so that their distances are computed side by side.
    void draw_negatives_of(std::size_t anchor, Scratch& scratch) noexcept {
        const std::size_t n_pairs = groups_.n_pairs(anchor);
        const std::size_t n_negatives = groups_.n_negatives(anchor);
        const auto picks = picks_of(anchor);
        const auto shifted_d_ap = shifted_d_ap_of(anchor);
        const auto columns = scratch.columns.take(n_pairs);
        const auto open = scratch.open.take(n_pairs);
        for (std::size_t i = 0; i < n_pairs; ++i) {
            columns[i] = static_cast<std::int32_t>(anchor + 1 + i);
            open[i] = static_cast<std::int32_t>(i);
            picks[i] = kOpen;
        }
        measure(anchor, columns, shifted_d_ap.data());

        const core::AnchorStreams streams(settings_.seed, anchor);
        const auto shifted = scratch.shifted.take(n_pairs);
        std::size_t n_open = n_negatives == 0 ? 0 : n_pairs;
        for (std::uint64_t round = 0; round < n_draws_ && n_open != 0; ++round) {
            for (std::size_t j = 0; j < n_open; ++j) {
                const std::size_t positive = anchor + 1 + static_cast<std::size_t>(open[j]);
                const std::size_t drawn = streams(positive).draw(round, n_negatives);
                columns[j] = static_cast<std::int32_t>(groups_.negative(anchor, drawn));
            }
            measure(anchor, columns.first(n_open), shifted.data());
            std::size_t n_left = 0;
            for (std::size_t j = 0; j < n_open; ++j) {
                const auto i = static_cast<std::size_t>(open[j]);
                const auto negative = static_cast<std::size_t>(columns[j]);
                const Edges edges = decide_.edges(anchor, shifted_d_ap[i]);
                if (decide_(anchor, anchor + 1 + i, negative, edges, shifted[j])) {
                    picks[i] = columns[j];
                } else {
                    open[n_left++] = open[j];
                }
            }
            n_open = n_left;
        }
    }

    // Second pass: every anchor with an open pair against all columns.
    void search_exhaustively() {
        const auto open_rows = collect_open_rows();
        if (open_rows.empty()) { return; }
        batch_.make_panels(settings_.n_threads);

        for (Scratch& scratch : workspace_.scratch) {
            scratch.block.take(block_rows() * batch_.stride());
            scratch.tile.take(block_rows() * kChunkColumns);
            scratch.sieves.take(block_rows());
            scratch.candidate_values.take(block_rows() * candidate_stride());
            scratch.candidate_columns.take(block_rows() * candidate_stride());
            scratch.found_values.take(candidate_stride());
            scratch.found_places.take(candidate_stride());
            scratch.exact.take(groups_.n_rows());
        }
        const std::size_t n_blocks = (open_rows.size() + block_rows() - 1) / block_rows();
        core::parallel_for(settings_.n_threads, n_blocks, 1, [&](std::size_t block, std::size_t thread) noexcept {
            const std::size_t first = block * block_rows();
            const std::size_t n = std::min(block_rows(), open_rows.size() - first);
            search_block(open_rows.subspan(first, n), workspace_.scratch[thread]);
        });
    }

    std::span<const std::int32_t> collect_open_rows() {
        const auto rows = workspace_.open_rows.take(groups_.n_rows());
        std::size_t n = 0;
        for (std::size_t row = 0; row < groups_.n_rows(); ++row) {
            const auto picks = picks_of(row);
            if (groups_.n_negatives(row) != 0 && std::find(picks.begin(), picks.end(), kOpen) != picks.end()) {
                rows[n++] = static_cast<std::int32_t>(row);
            }
        }
        return rows.first(n);
    }

    void search_block(std::span<const std::int32_t> anchors, Scratch& scratch) noexcept {
        const simd::Kernels& kernels = batch_.kernels();
        const std::size_t stride = batch_.stride();
        const std::size_t n_rows = (anchors.size() + kernels.tile_rows - 1) / kernels.tile_rows * kernels.tile_rows;
        const auto block = scratch.block.take(n_rows * stride);
        for (std::size_t r = 0; r < n_rows; ++r) {
            // The last tile may reach below the last anchor; its rows there are computed and not looked at.
            const float* row = batch_.row(static_cast<std::size_t>(anchors[std::min(r, anchors.size() - 1)]));
            std::copy(row, row + stride, block.data() + r * stride);
        }
        const auto sieves = scratch.sieves.take(anchors.size());
        for (std::size_t r = 0; r < anchors.size(); ++r) { sieves[r] = sieve_for(static_cast<std::size_t>(anchors[r])); }

        const std::size_t panels_per_chunk = kChunkColumns / kernels.panel_columns;
        for (std::size_t first = 0; first < batch_.n_panels(); first += panels_per_chunk) {
            const std::size_t last = std::min(first + panels_per_chunk, batch_.n_panels());
            float* out = scratch.tile.take(block_rows() * kChunkColumns).data();
            for (std::size_t i = first; i < last; ++i, out += kernels.panel_columns) {
                const float* norms = batch_.norms() + i * kernels.panel_columns;
                for (std::size_t r = 0; r < n_rows; r += kernels.tile_rows) {
                    kernels.tile(block.data() + r * stride, stride, batch_.panel(i), norms, stride,
                                 out + r * kChunkColumns, kChunkColumns);
                }
            }
            const std::size_t begin = first * kernels.panel_columns;
            const std::size_t end = std::min(last * kernels.panel_columns, groups_.n_rows());
            for (std::size_t r = 0; r < anchors.size(); ++r) { sieve_chunk(sieves[r], r, begin, end, scratch); }
        }
        for (std::size_t r = 0; r < anchors.size(); ++r) { pick_from_candidates(sieves[r], r, scratch); }
    }

    // Wide enough for any open pair of the anchor.
    Sieve sieve_for(std::size_t anchor) const noexcept {
        double low = std::numeric_limits<double>::infinity();
        double high = -low;
        const auto picks = picks_of(anchor);
        for (std::size_t i = 0; i < picks.size(); ++i) {
            if (picks[i] != kOpen) { continue; }
            const Edges edges = decide_.edges(anchor, shifted_d_ap_of(anchor)[i]);
            low = std::min(low, edges.possible_low);
            high = std::max(high, edges.possible_high);
        }
        return {anchor, 0, rounded_down(low), rounded_up(high)};
    }

    // Adds what passes of columns [begin, end), but the anchor's own identity, to the candidates of the block's row r.
    void sieve_chunk(Sieve& sieve, std::size_t r, std::size_t begin, std::size_t end, Scratch& scratch) const noexcept {
        const float* tile_row = scratch.tile.take(block_rows() * kChunkColumns).data() + r * kChunkColumns;
        const Candidates candidates = candidates_of(r, scratch);
        const auto sieve_columns = [&](std::size_t from, std::size_t to) {
            if (from >= to) { return; }
            sieve.n_candidates += batch_.kernels().filter(
                tile_row + (from - begin), to - from, sieve.low, sieve.high, static_cast<std::int32_t>(from),
                candidates.values + sieve.n_candidates, candidates.columns + sieve.n_candidates);
        };
        sieve_columns(begin, std::min(end, groups_.begin(sieve.anchor)));
        sieve_columns(std::max(begin, groups_.end(sieve.anchor)), end);
    }

    void pick_from_candidates(const Sieve& sieve, std::size_t r, Scratch& scratch) noexcept {
        const core::AnchorStreams streams(settings_.seed, sieve.anchor);
        const Candidates candidates = candidates_of(r, scratch);
        float* values = scratch.found_values.take(candidate_stride()).data();
        std::int32_t* places = scratch.found_places.take(candidate_stride()).data();
        bool exact_begun = false;

        const auto picks = picks_of(sieve.anchor);
        for (std::size_t i = 0; i < picks.size(); ++i) {
            if (picks[i] != kOpen) { continue; }
            const Edges edges = decide_.edges(sieve.anchor, shifted_d_ap_of(sieve.anchor)[i]);
            std::size_t n_found =
                batch_.kernels().filter(candidates.values, sieve.n_candidates, rounded_down(edges.possible_low),
                                        rounded_up(edges.possible_high), 0, values, places);
            const auto n_sure = std::count_if(values, values + n_found, [&](float v) { return edges.sure(v); });
            const std::size_t positive = sieve.anchor + 1 + i;
            if (static_cast<std::size_t>(n_sure) != n_found) {
                if (!exact_begun) { forget_exact(sieve.n_candidates, scratch); }
                exact_begun = true;
                n_found = drop_rejected(sieve.anchor, positive, edges, candidates, values, places, n_found, scratch);
            }
            if (n_found != 0) { picks[i] = candidates.columns[places[streams(positive).draw(n_draws_, n_found)]]; }
        }
    }

    // Keeps those of the found places that float64 accepts. An anchor's exact distances are computed at most once each:
    // where many embeddings coincide, every pair asks for all of them.
    std::size_t drop_rejected(std::size_t anchor, std::size_t positive, const Edges& edges, const Candidates& candidates,
                              const float* values, std::int32_t* places, std::size_t n_found,
                              Scratch& scratch) const noexcept {
        const double d_ap = batch_.exact_squared_distance(anchor, positive);
        const auto exact = scratch.exact.take(groups_.n_rows());
        std::size_t n_kept = 0;
        for (std::size_t i = 0; i < n_found; ++i) {
            const auto place = static_cast<std::size_t>(places[i]);
            if (!edges.sure(values[i])) {
                if (std::isnan(exact[place])) {
                    const auto column = static_cast<std::size_t>(candidates.columns[place]);
                    exact[place] = batch_.exact_squared_distance(anchor, column);
                }
                if (!decide_.exact(d_ap, exact[place])) { continue; }
            }
            places[n_kept++] = places[i];
        }
        return n_kept;
    }

    void forget_exact(std::size_t n_candidates, Scratch& scratch) const noexcept {
        std::ranges::fill(scratch.exact.take(n_candidates), std::numeric_limits<double>::quiet_NaN());
    }

    void measure(std::size_t anchor, std::span<const std::int32_t> columns, float* shifted) const noexcept {
        batch_.kernels().gather(batch_.row(anchor), batch_.rows(), batch_.stride(), batch_.norms(), columns.data(),
                                columns.size(), batch_.stride(), shifted);
    }

    std::span<std::int32_t> picks_of(std::size_t anchor) const noexcept {
        return picks_.subspan(groups_.first_pair(anchor), groups_.n_pairs(anchor));
    }
    std::span<float> shifted_d_ap_of(std::size_t anchor) const noexcept {
        return shifted_d_ap_.subspan(groups_.first_pair(anchor), groups_.n_pairs(anchor));
    }

    // A whole number of tiles.
    std::size_t block_rows() const noexcept {
        return kBlockRows / batch_.kernels().tile_rows * batch_.kernels().tile_rows;
    }

    std::size_t candidate_stride() const noexcept { return groups_.n_rows() + simd::kSlack; }
    Candidates candidates_of(std::size_t r, Scratch& scratch) const noexcept {
        const std::size_t n = block_rows() * candidate_stride();
        return {scratch.candidate_values.take(n).data() + r * candidate_stride(),
                scratch.candidate_columns.take(n).data() + r * candidate_stride()};
    }

    const Settings& settings_;
    Batch& batch_;
    const Groups& groups_;
    Workspace& workspace_;
    const Decider<Rule> decide_;
    const std::span<std::int32_t> picks_;
    const std::span<float> shifted_d_ap_;
    std::uint64_t n_draws_ = 0;
};

}  // namespace

int threads_for(std::size_t n_rows, std::size_t size, int wished) noexcept {
    if (wished > 0) { return wished; }
    const double work = static_cast<double>(n_rows) * static_cast<double>(n_rows) * static_cast<double>(size);
    return work < kSmallWork ? 1 : core::default_threads();
}

std::size_t mine(const Settings& settings, Batch& batch, const Groups& groups, Workspace& workspace) {
    std::visit([&](auto rule) { Miner<decltype(rule)>(settings, batch, groups, workspace).run(); }, settings.band);

    const auto picks = workspace.picks.take(groups.n_pairs());
    const auto first_triplet = workspace.first_triplet.take(groups.n_rows() + 1);
    first_triplet[0] = 0;
    for (std::size_t row = 0; row < groups.n_rows(); ++row) {
        const auto own = picks.subspan(groups.first_pair(row), groups.n_pairs(row));
        first_triplet[row + 1] = first_triplet[row] + std::ranges::count_if(own, [](auto pick) { return pick != kOpen; });
    }
    return static_cast<std::size_t>(first_triplet.back());
}

void collect(const Groups& groups, std::span<const std::int32_t> order, Workspace& workspace, int n_threads,
             std::int32_t* anchors, std::int32_t* positives, std::int32_t* negatives) {
    const auto picks = workspace.picks.take(groups.n_pairs());
    const auto first_triplet = workspace.first_triplet.take(groups.n_rows() + 1);
    core::parallel_for(n_threads, groups.n_rows(), kRowsPerCopy, [&](std::size_t row, std::size_t) noexcept {
        auto to = static_cast<std::size_t>(first_triplet[row]);
        for (std::size_t i = 0; i < groups.n_pairs(row); ++i) {
            const std::int32_t pick = picks[groups.first_pair(row) + i];
            if (pick == kOpen) { continue; }
            anchors[to] = order[row];
            positives[to] = order[row + 1 + i];
            negatives[to] = order[static_cast<std::size_t>(pick)];
            ++to;
        }
    });
}

}  // namespace mining
