// Second pass: every anchor with an open pair meets every column. Tiles of distances are made in cache, sieved to the
// few that any open pair of the row could want, and forgotten.
//
// Where most anchors are open, a tile serves both of its sides (by_blocks): half the products, but what passes the sieves
// is kept until every tile is done. Where few are, or where too much would have to be kept, a block of anchors meets all
// columns and picks at once (by_rows).
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include "../core/buffer.hpp"
#include "../core/parallel.hpp"
#include "batch.hpp"
#include "decider.hpp"
#include "pairs.hpp"
#include "pick.hpp"

namespace mining {

// What passed a row's sieve in one block of columns, in the archive.
struct Segment {
    std::uint32_t begin, n;
};

struct SearchMemory {
    core::Buffer<float> tile, mirrored, norms, rows, distances;
    core::Buffer<std::int32_t> columns;
    core::Buffer<std::size_t> n_candidates;
    PickMemory pick;
};

struct SharedSearchMemory {
    core::Buffer<std::int32_t> open_rows;
    core::Buffer<float> lows, highs, archived_distances;
    core::Buffer<std::int32_t> archived_columns;
    core::Buffer<Segment> segments;
};

template <class Rule>
class Search {
  public:
    Search(Batch& batch, const Pairs& pairs, const Decider<Rule>& decide, std::uint64_t seed, int n_threads,
           std::size_t archive_size, SharedSearchMemory& shared, std::span<SearchMemory> memory)
        : batch_(batch),
          kernels_(batch.kernels()),
          groups_(pairs.groups),
          pairs_(pairs),
          decide_(decide),
          picking_(batch, pairs, decide, seed),
          n_threads_(n_threads),
          archive_size_(archive_size),
          shared_(shared),
          memory_(memory),
          lows_(shared.lows.take(groups_.n_rows())),
          highs_(shared.highs.take(groups_.n_rows())) {}

    void run() {
        const auto open_rows = set_sieves();
        if (open_rows.empty()) { return; }
        batch_.make_panels(n_threads_);
        for (SearchMemory& own : memory_) { picking_.reserve(own.pick); }
        const bool most_are_open = 2 * open_rows.size() > groups_.n_rows();
        if (!most_are_open || !by_blocks()) { by_rows(open_rows); }
    }

  private:
    // Returns the rows that have open pairs.
    std::span<const std::int32_t> set_sieves() {
        constexpr std::size_t kRowsPerTask = 128;
        core::parallel_for(n_threads_, groups_.n_rows(), kRowsPerTask,
                           [&](std::size_t row, std::size_t) noexcept { set_sieve(row); });
        const auto open_rows = shared_.open_rows.take(groups_.n_rows());
        std::size_t n_open = 0;
        for (std::size_t row = 0; row < groups_.n_rows(); ++row) {
            if (is_open(row)) { open_rows[n_open++] = static_cast<std::int32_t>(row); }
        }
        return open_rows.first(n_open);
    }

    // A row's sieve lets pass what any of its open pairs may want; that of a row without open pairs, nothing.
    void set_sieve(std::size_t row) noexcept {
        lows_[row] = static_cast<float>(kBeyond);
        highs_[row] = static_cast<float>(-kBeyond);
        if (groups_.n_negatives(row) == 0) { return; }
        const auto picks = pairs_.picks_of(row);
        const auto d_ap = pairs_.d_ap_of(row);
        for (std::size_t i = 0; i < picks.size(); ++i) {
            if (picks[i] >= 0) { continue; }
            const simd::Edges edges = decide_.edges(row, d_ap[i]);
            lows_[row] = std::min(lows_[row], edges.possible_low);
            highs_[row] = std::max(highs_[row], edges.possible_high);
        }
    }

    bool is_open(std::size_t row) const noexcept { return lows_[row] < highs_[row]; }

    // -- a block of anchors against all columns ----------------------------------------------------------------------

    // Several tiles high, so that a panel is read from L1 by all but the first.
    static constexpr std::size_t kAnchors = 56;
    // A block's chunk of distances (56 KB) is still in L2 when it is sieved.
    static constexpr std::size_t kChunk = 256;

    void by_rows(std::span<const std::int32_t> open_rows) {
        const std::size_t height = kAnchors / kernels_.tile_rows * kernels_.tile_rows;
        for (SearchMemory& own : memory_) {
            own.rows.take(height * batch_.stride());
            own.norms.take(height);
            own.tile.take(height * kChunk + simd::kSlack);
            own.distances.take(height * stride());
            own.columns.take(height * stride());
            own.n_candidates.take(height);
        }
        const std::size_t n_blocks = (open_rows.size() + height - 1) / height;
        core::parallel_for(n_threads_, n_blocks, 1, [&](std::size_t block, std::size_t thread) noexcept {
            const std::size_t n = std::min(height, open_rows.size() - block * height);
            search_rows(open_rows.subspan(block * height, n), height, memory_[thread]);
        });
    }

    void search_rows(std::span<const std::int32_t> anchors, std::size_t height, SearchMemory& own) const noexcept {
        const auto rows = own.rows.take(height * batch_.stride());
        const auto norms = own.norms.take(height);
        const auto n_candidates = own.n_candidates.take(height);
        std::ranges::fill(n_candidates, std::size_t{0});
        for (std::size_t r = 0; r < height; ++r) {
            // The last tile may reach below the last anchor; its rows there are computed and not looked at.
            const auto anchor = static_cast<std::size_t>(anchors[std::min(r, anchors.size() - 1)]);
            std::copy_n(batch_.row(anchor), batch_.stride(), rows.data() + r * batch_.stride());
            norms[r] = batch_.norms()[anchor];
        }
        float* tile = own.tile.take(height * kChunk + simd::kSlack).data();
        float* distances = own.distances.take(height * stride()).data();
        std::int32_t* columns = own.columns.take(height * stride()).data();

        for (std::size_t begin = 0; begin < groups_.n_rows(); begin += kChunk) {
            const std::size_t end = std::min(begin + kChunk, groups_.n_rows());
            make_tile(rows.data(), norms.data(), anchors.size(), begin, end, tile, kChunk, false);
            for (std::size_t r = 0; r < anchors.size(); ++r) {
                const auto anchor = static_cast<std::size_t>(anchors[r]);
                for_negatives(anchor, begin, end, [&](std::size_t from, std::size_t to) {
                    const std::size_t at = r * stride() + n_candidates[r];
                    n_candidates[r] += kernels_.filter(tile + r * kChunk + (from - begin), to - from, lows_[anchor],
                                                       highs_[anchor], static_cast<std::int32_t>(from),
                                                       distances + at, columns + at);
                });
            }
        }
        for (std::size_t r = 0; r < anchors.size(); ++r) {
            const Candidates candidates = {distances + r * stride(), columns + r * stride(), n_candidates[r]};
            picking_.pick_for(static_cast<std::size_t>(anchors[r]), candidates, own.pick);
        }
    }

    // -- a tile for both of its sides --------------------------------------------------------------------------------

    // What a thread takes of the archive at a time.
    static constexpr std::size_t kShare = 8192;

    struct Cursor {
        std::size_t at = 0, end = 0;
    };

    // False, and no pick made, if the archive is too small for what passes the sieves.
    bool by_blocks() {
        const std::size_t side = block_side();
        const std::size_t n_blocks = (groups_.n_rows() + side - 1) / side;
        if (expected_to_pass() > static_cast<double>(archive_size_)) { return false; }
        shared_.archived_distances.take(archive_size_);
        shared_.archived_columns.take(archive_size_);
        shared_.segments.take(groups_.n_rows() * n_blocks);
        for (SearchMemory& own : memory_) {
            own.tile.take(side * side + simd::kSlack);
            own.mirrored.take(side * side + simd::kSlack);
            own.distances.take(stride());
            own.columns.take(stride());
        }
        archived_ = 0;
        overflown_ = false;
        std::vector<Cursor> cursors(memory_.size());
        core::parallel_for(n_threads_, n_blocks * (n_blocks + 1) / 2, 1, [&](std::size_t i, std::size_t thread) noexcept {
            std::size_t left = 0;
            for (; i >= n_blocks - left; ++left) { i -= n_blocks - left; }
            if (!overflown_) { search_block(left, left + i, n_blocks, memory_[thread], cursors[thread]); }
        });
        if (overflown_) { return false; }

        constexpr std::size_t kAnchorsPerTask = 16;
        core::parallel_for(n_threads_, groups_.n_rows(), kAnchorsPerTask, [&](std::size_t row, std::size_t thread) noexcept {
            if (is_open(row)) { pick_from_archive(row, n_blocks, memory_[thread]); }
        });
        return true;
    }

    void search_block(std::size_t left, std::size_t right, std::size_t n_blocks, SearchMemory& own,
                      Cursor& cursor) noexcept {
        const std::size_t side = block_side();
        const std::size_t row_begin = left * side, row_end = std::min(row_begin + side, groups_.n_rows());
        const std::size_t begin = right * side, end = std::min(begin + side, groups_.n_rows());
        float* tile = own.tile.take(side * side + simd::kSlack).data();
        float* mirrored = own.mirrored.take(side * side + simd::kSlack).data();
        const bool diagonal = left == right;
        make_tile(batch_.row(row_begin), batch_.norms() + row_begin, row_end - row_begin, begin, end, tile, side, diagonal);
        kernels_.transpose(tile, side, mirrored);

        for (std::size_t r = 0; r < row_end - row_begin; ++r) {
            const std::size_t made_from = begin + (diagonal ? first_made(r) : 0);
            archive(row_begin + r, right, n_blocks, begin, made_from, end, mirrored + r * side, tile + r * side, cursor);
        }
        if (diagonal) { return; }
        for (std::size_t c = 0; c < end - begin; ++c) {
            const float* column = mirrored + c * side;
            archive(begin + c, left, n_blocks, row_begin, row_begin, row_end, column, column, cursor);
        }
    }

    // Keeps what passes the row's sieve of a block's columns [begin, end); distances[column - begin] is that to a column,
    // and before made_from it is to be found in mirrored.
    void archive(std::size_t row, std::size_t block, std::size_t n_blocks, std::size_t begin, std::size_t made_from,
                 std::size_t end, const float* mirrored, const float* distances, Cursor& cursor) noexcept {
        if (!is_open(row) || !reserve(cursor, end - begin)) { return; }
        Segment& segment = segment_of(row, block, n_blocks);
        segment = {static_cast<std::uint32_t>(cursor.at), 0};
        const auto keep = [&](std::size_t first, std::size_t last, const float* values) {
            for_negatives(row, first, last, [&](std::size_t from, std::size_t to) {
                cursor.at += kernels_.filter(values + (from - begin), to - from, lows_[row], highs_[row],
                                             static_cast<std::int32_t>(from), archived_distances() + cursor.at,
                                             archived_columns() + cursor.at);
            });
        };
        keep(begin, made_from, mirrored);
        keep(made_from, end, distances);
        segment.n = static_cast<std::uint32_t>(cursor.at) - segment.begin;
    }

    void pick_from_archive(std::size_t row, std::size_t n_blocks, SearchMemory& own) const noexcept {
        float* distances = own.distances.take(stride()).data();
        std::int32_t* columns = own.columns.take(stride()).data();
        std::size_t n = 0;
        for (std::size_t block = 0; block < n_blocks; ++block) {
            const Segment segment = segment_of(row, block, n_blocks);
            std::copy_n(archived_distances() + segment.begin, segment.n, distances + n);
            std::copy_n(archived_columns() + segment.begin, segment.n, columns + n);
            n += segment.n;
        }
        picking_.pick_for(row, {distances, columns, n}, own.pick);
    }

    // Makes sure that the cursor can take n entries and what a kernel writes behind them.
    bool reserve(Cursor& cursor, std::size_t n) noexcept {
        if (cursor.at + n + simd::kSlack > cursor.end) {
            cursor.at = archived_.fetch_add(kShare);
            cursor.end = cursor.at + kShare;
            if (cursor.end > archive_size_) { overflown_ = true; }
        }
        return !overflown_;
    }

    // Distances that pass the sieves, by a regular sample of the rows and columns.
    double expected_to_pass() const noexcept {
        constexpr std::size_t kProbes = 64;
        const std::size_t n = groups_.n_rows();
        if (n * n <= archive_size_) { return 0.0; }
        std::size_t passed = 0;
        for (std::size_t i = 0; i < kProbes; ++i) {
            const std::size_t row = n * i / kProbes;
            std::int32_t columns[kProbes];
            float distances[kProbes];
            for (std::size_t j = 0; j < kProbes; ++j) { columns[j] = static_cast<std::int32_t>((n * j + row) / kProbes % n); }
            batch_.measure(row, columns, distances);
            for (const float distance : distances) { passed += lows_[row] <= distance && distance < highs_[row] ? 1 : 0; }
        }
        return static_cast<double>(passed) / static_cast<double>(kProbes * kProbes) * static_cast<double>(n) *
               static_cast<double>(n);
    }

    // -- what both share ---------------------------------------------------------------------------------------------

    // Distances of n_rows rows to columns [begin, end), where begin is a multiple of the panels' width. Of a block on the
    // diagonal, panels that lie wholly left of it are left out: see first_made().
    void make_tile(const float* rows, const float* norms, std::size_t n_rows, std::size_t begin, std::size_t end,
                   float* tile, std::size_t tile_stride, bool diagonal) const noexcept {
        for (std::size_t column = begin; column < end; column += kernels_.panel_columns) {
            const float* panel = batch_.panel(column / kernels_.panel_columns);
            const std::size_t n = diagonal ? std::min(n_rows, column - begin + kernels_.panel_columns) : n_rows;
            for (std::size_t r = 0; r < n; r += kernels_.tile_rows) {
                kernels_.tile(rows + r * batch_.stride(), norms + r, batch_.stride(), panel, batch_.norms() + column,
                              batch_.stride(), tile + r * tile_stride + (column - begin), tile_stride);
            }
        }
    }

    // Row r of a block on the diagonal has distances from this column of the block on; those before it are its mirror's.
    std::size_t first_made(std::size_t r) const noexcept {
        const std::size_t tile_row = r / kernels_.tile_rows * kernels_.tile_rows;
        return tile_row / kernels_.panel_columns * kernels_.panel_columns;
    }

    // The columns of [begin, end) that are of another identity than the row: up to two stretches.
    template <class Visit>
    void for_negatives(std::size_t row, std::size_t begin, std::size_t end, const Visit& visit) const noexcept {
        const std::size_t own_begin = std::clamp(groups_.begin(row), begin, end);
        const std::size_t own_end = std::clamp(groups_.end(row), begin, end);
        if (begin < own_begin) { visit(begin, own_begin); }
        if (own_end < end) { visit(own_end, end); }
    }

    std::size_t stride() const noexcept { return groups_.n_rows() + simd::kSlack; }

    // Whole tiles on both sides; two blocks of rows and their tile (200 KB each at 128 numbers) fit L2.
    std::size_t block_side() const noexcept {
        const std::size_t unit = std::lcm(std::lcm(kernels_.tile_rows, kernels_.panel_columns), simd::kRowMultiple);
        return std::max<std::size_t>(240 / unit, 1) * unit;
    }

    Segment& segment_of(std::size_t row, std::size_t block, std::size_t n_blocks) const noexcept {
        return shared_.segments.take(groups_.n_rows() * n_blocks)[row * n_blocks + block];
    }
    float* archived_distances() const noexcept { return shared_.archived_distances.take(archive_size_).data(); }
    std::int32_t* archived_columns() const noexcept { return shared_.archived_columns.take(archive_size_).data(); }

    Batch& batch_;
    const simd::Kernels& kernels_;
    const Groups& groups_;
    const Pairs& pairs_;
    const Decider<Rule>& decide_;
    const Picking<Rule> picking_;
    int n_threads_;
    std::size_t archive_size_;
    SharedSearchMemory& shared_;
    std::span<SearchMemory> memory_;
    std::span<float> lows_, highs_;
    std::atomic<std::size_t> archived_ = 0;
    std::atomic<bool> overflown_ = false;
};

}  // namespace mining
