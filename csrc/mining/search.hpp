// The tile engine: every anchor that is searched for meets every column. Tiles of distances are made in cache, sieved to
// what the anchor could want as they leave the registers, and forgotten; what is made of an anchor's list is its client's.
//
// Where most rows are searched for, a tile serves both of its sides, and what passes the sieves is kept until all tiles of
// a stripe of anchors are done: of all anchors, with half the products, if there is room for that (by_stripes). Where few
// are, or where most of what is made would have to be kept, a block of anchors meets all columns and is resolved at once
// (by_rows).
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

#include "../core/buffer.hpp"
#include "../core/parallel.hpp"
#include "batch.hpp"
#include "decider.hpp"
#include "leading.hpp"

namespace mining {

// What passed a row's sieve in one block of columns, in the archive.
struct Segment {
    std::uint32_t begin, n;
};

struct SearchMemory {
    core::Buffer<float> tile, norms, limits, rows, distances;
    core::Buffer<std::uint64_t> row_bits, column_bits;
    core::Buffer<std::uint32_t> counts;
    core::Buffer<std::size_t> places, n_candidates;
    core::Buffer<std::int32_t> columns;
};

struct SharedSearchMemory {
    core::Buffer<std::int32_t> open_rows;
    core::Buffer<float> limits, archived_distances;
    core::Buffer<std::int32_t> archived_columns;
    core::Buffer<Segment> segments;
};

// The sieve of a row that is not searched for; no other is as tight.
inline constexpr float kClosed = -4.0F * static_cast<float>(kBeyond);
// Stands for that of a row that is to be searched for again.
inline constexpr float kTooTight = 2.0F * kClosed;
// One that lets all rows pass and no padding.
inline constexpr float kOpenToAll = static_cast<float>(kBeyond);

// Columns [begin, end) that are none of a row's candidates.
struct Excluded {
    std::size_t begin, end;
};

// What the engine is told and what it tells, all of it by many threads at once:
//   float limit(row, thread)                    lets distances below it pass; kClosed for rows that are not searched for
//   Excluded excluded(row)                      which rises with the row, and where two rows are columns of each other,
//                                               both exclude each other or none
//   bool resolve(row, candidates, limit, thread)
//                                               candidates are all that are below the limit; false if that was too tight: then
//                                               the row is searched for again, with kOpenToAll
template <class Client>
class Search {
  public:
    // Rows are searched for among the first n_columns rows; where that is not all of them, those are no anchors.
    Search(Batch& batch, std::size_t n_columns, const Client& client, int n_threads, std::size_t archive_size,
           SharedSearchMemory& shared, std::span<SearchMemory> memory)
        : batch_(batch),
          kernels_(batch.kernels()),
          client_(client),
          n_rows_(batch.n()),
          n_columns_(n_columns),
          n_threads_(n_threads),
          archive_size_(archive_size),
          shared_(shared),
          memory_(memory),
          side_(block_side()),
          n_blocks_((n_rows_ + side_ - 1) / side_),
          limits_(shared.limits.take(n_rows_ + batch.padding())) {}

    void run() {
        const auto open_rows = set_sieves();
        if (open_rows.empty() || n_columns_ == 0) {
            for (const std::int32_t row : open_rows) {
                client_.resolve(static_cast<std::size_t>(row), {nullptr, nullptr, 0}, kOpenToAll, 0);
            }
            return;
        }
        batch_.make_panels(n_threads_);
        if (2 * open_rows.size() > n_rows_ && n_columns_ == n_rows_) {
            by_stripes(open_rows);
        } else {
            by_rows(open_rows);
        }
        by_rows(open_again(open_rows));
    }

  private:
    // Returns the rows that are searched for.
    std::span<const std::int32_t> set_sieves() {
        constexpr std::size_t kRowsPerTask = 64;
        std::ranges::fill(limits_.subspan(n_rows_), kClosed);
        core::parallel_for(n_threads_, n_rows_, kRowsPerTask, [&](std::size_t row, std::size_t thread) noexcept {
            limits_[row] = client_.limit(row, thread);
        });
        const auto open_rows = shared_.open_rows.take(n_rows_);
        std::size_t n_open = 0;
        for (std::size_t row = 0; row < n_rows_; ++row) {
            if (is_open(row)) { open_rows[n_open++] = static_cast<std::int32_t>(row); }
        }
        return open_rows.first(n_open);
    }

    // Of the rows those whose sieve turned out to be too tight.
    std::span<const std::int32_t> open_again(std::span<const std::int32_t> open_rows) noexcept {
        std::size_t n = 0;
        for (const std::int32_t row : open_rows) {
            if (limits_[static_cast<std::size_t>(row)] != kTooTight) { continue; }
            limits_[static_cast<std::size_t>(row)] = kOpenToAll;
            shared_.open_rows.data()[n++] = row;
        }
        return open_rows.first(n);
    }

    void resolve(std::size_t row, const Candidates& candidates, std::size_t thread) const noexcept {
        if (!client_.resolve(row, candidates, limits_[row], thread)) { limits_[row] = kTooTight; }
    }

    bool is_open(std::size_t row) const noexcept { return limits_[row] > kClosed; }

    // -- a block of anchors against all columns ----------------------------------------------------------------------

    // A block's chunk of distances (56 KB) is still in L2 when it is sifted.
    static constexpr std::size_t kChunk = simd::kBitColumns;
    // Several tiles high, so that a panel is read from L1 by all but the first.
    static constexpr std::size_t kAnchors = 56;

    void by_rows(std::span<const std::int32_t> open_rows) {
        if (open_rows.empty()) { return; }
        const std::size_t height = kAnchors / kernels_.tile_rows * kernels_.tile_rows;
        for (SearchMemory& own : memory_) {
            own.rows.take(height * batch_.stride());
            own.norms.take(height);
            own.limits.take(height);
            own.tile.take(height * kChunk + simd::kSlack);
            own.row_bits.take(height * simd::kBitWords);
            own.distances.take(height * stride());
            own.columns.take(height * stride());
            own.n_candidates.take(height);
        }
        const std::size_t n_blocks = (open_rows.size() + height - 1) / height;
        core::parallel_for(n_threads_, n_blocks, 1, [&](std::size_t block, std::size_t thread) noexcept {
            const std::size_t n = std::min(height, open_rows.size() - block * height);
            search_rows(open_rows.subspan(block * height, n), height, thread);
        });
    }

    void search_rows(std::span<const std::int32_t> anchors, std::size_t height, std::size_t thread) const noexcept {
        SearchMemory& own = memory_[thread];
        const auto rows = own.rows.take(height * batch_.stride());
        const auto norms = own.norms.take(height), limits = own.limits.take(height);
        const auto n_candidates = own.n_candidates.take(height);
        std::ranges::fill(n_candidates, std::size_t{0});
        for (std::size_t r = 0; r < height; ++r) {
            // The last tile may reach below the last anchor; its rows there are computed and not looked at.
            const auto anchor = static_cast<std::size_t>(anchors[std::min(r, anchors.size() - 1)]);
            std::copy_n(batch_.row(anchor), batch_.stride(), rows.data() + r * batch_.stride());
            norms[r] = batch_.norms()[anchor];
            limits[r] = limits_[anchor];
        }
        const Side side = {rows.data(), norms.data(), limits.data(), anchors.size()};
        const Map map = {own.tile.take(height * kChunk + simd::kSlack).data(), kChunk,
                         own.row_bits.take(height * simd::kBitWords).data(), nullptr};
        float* distances = own.distances.take(height * stride()).data();
        std::int32_t* columns = own.columns.take(height * stride()).data();

        for (std::size_t begin = 0; begin < n_columns_; begin += kChunk) {
            const std::size_t end = std::min(begin + kChunk, n_columns_);
            make_tiles(side, begin, end, map, false);
            for (std::size_t r = 0; r < anchors.size(); ++r) {
                const auto anchor = static_cast<std::size_t>(anchors[r]);
                const std::size_t at = r * stride() + n_candidates[r];
                std::uint64_t* bits = map.row_bits + r * simd::kBitWords;
                clear_bits(bits, client_.excluded(anchor), begin, end);
                // The last tile may reach rows that are no columns.
                if (end == n_columns_ && n_columns_ < n_rows_) { clear_bits(bits, end - begin, kChunk); }
                n_candidates[r] += kernels_.sift_row(map.distances + r * kChunk, bits, end - begin,
                                                     static_cast<std::int32_t>(begin), distances + at, columns + at);
            }
        }
        for (std::size_t r = 0; r < anchors.size(); ++r) {
            const Candidates candidates = {distances + r * stride(), columns + r * stride(), n_candidates[r]};
            resolve(static_cast<std::size_t>(anchors[r]), candidates, thread);
        }
    }

    // -- a tile for both of its sides --------------------------------------------------------------------------------

    // Of a larger share that passes, the half of the products that is saved costs more to keep.
    static constexpr double kDense = 0.4;
    // Of fewer rows, a sample to learn the share takes longer than it may save: a tenth of a call at 32 x 4.
    static constexpr std::size_t kFewRows = 512;

    // What a thread takes of the archive at a time.
    static constexpr std::size_t kShare = 8192;

    struct Cursor {
        std::size_t at = 0, end = 0;
    };

    // Of blocks: rows that are searched for together.
    struct Stripe {
        std::size_t begin, end;
    };

    void by_stripes(std::span<const std::int32_t> open_rows) {
        const double share = n_rows_ < kFewRows ? 0.0 : share_that_passes();
        const std::size_t most = blocks_that_fit(share);
        if (share > kDense || most == 0) { return by_rows(open_rows); }
        const std::size_t n_stripes = (n_blocks_ + most - 1) / most;
        const std::size_t height = (n_blocks_ + n_stripes - 1) / n_stripes;
        shared_.archived_distances.take(archive_size_ + simd::kSlack);
        shared_.archived_columns.take(archive_size_ + simd::kSlack);
        shared_.segments.take(height * side_ * (n_blocks_ + 1));
        for (SearchMemory& own : memory_) {
            own.tile.take(side_ * side_ + simd::kSlack);
            own.row_bits.take(side_ * simd::kBitWords);
            own.column_bits.take(side_ * simd::kBitWords);
            own.counts.take(simd::kBitColumns);
            own.places.take(simd::kBitColumns);
            own.distances.take(stride());
            own.columns.take(stride());
        }
        for (Stripe stripe = {0, 0}; stripe.end < n_blocks_;) {
            stripe = {stripe.end, std::min(stripe.end + height, n_blocks_)};
            if (by_blocks(stripe)) { continue; }
            const auto first = std::ranges::lower_bound(open_rows, static_cast<std::int32_t>(stripe.begin * side_));
            const auto last = std::ranges::lower_bound(open_rows, static_cast<std::int32_t>(stripe.end * side_));
            by_rows({first, last});
        }
    }

    // False, and no pick made, if the archive is too small for what passes the sieves.
    bool by_blocks(const Stripe& stripe) {
        archived_ = 0;
        overflown_ = false;
        std::vector<Cursor> cursors(memory_.size());
        core::parallel_for(
            n_threads_, (stripe.end - stripe.begin) * n_blocks_, 1, [&](std::size_t i, std::size_t thread) noexcept {
                const std::size_t left = stripe.begin + i / n_blocks_, right = i % n_blocks_;
                const bool is_done_from_the_other_side = stripe.begin <= right && right < left;
                if (overflown_ || is_done_from_the_other_side) { return; }
                search_block(stripe, left, right, memory_[thread], cursors[thread]);
            });
        if (overflown_) { return false; }

        constexpr std::size_t kAnchorsPerTask = 16;
        const std::size_t first = stripe.begin * side_, last = std::min(stripe.end * side_, n_rows_);
        core::parallel_for(n_threads_, last - first, kAnchorsPerTask, [&](std::size_t i, std::size_t thread) noexcept {
            if (is_open(first + i)) { resolve_from_archive(stripe, first + i, thread); }
        });
        return true;
    }

    // Distances between a block of rows, on the left, and one of columns, on the right: the left rows look at the right ones
    // and, if these are of the stripe too, they look back. Of a block with itself only what lies right of the diagonal is
    // made.
    void search_block(const Stripe& stripe, std::size_t left, std::size_t right, SearchMemory& own,
                      Cursor& cursor) noexcept {
        const std::size_t row_begin = left * side_, n_rows = std::min(side_, n_rows_ - row_begin);
        const std::size_t begin = right * side_, end = std::min(begin + side_, n_rows_);
        const bool both_look = left <= right && right < stripe.end;
        const Map map = {own.tile.take(side_ * side_ + simd::kSlack).data(), side_,
                         own.row_bits.take(side_ * simd::kBitWords).data(),
                         both_look ? own.column_bits.take(side_ * simd::kBitWords).data() : nullptr};
        std::fill_n(map.row_bits, side_ * simd::kBitWords, 0);
        if (both_look) { std::fill_n(map.column_bits, side_ * simd::kBitWords, 0); }
        make_tiles({batch_.row(row_begin), batch_.norms() + row_begin, limits_.data() + row_begin, n_rows}, begin, end, map,
                   left == right);

        const bool exclude = client_.excluded(row_begin).begin < end && begin < client_.excluded(row_begin + n_rows - 1).end;
        for (std::size_t r = 0; r < n_rows; ++r) {
            const std::size_t row = row_begin + r;
            std::uint64_t* bits = map.row_bits + r * simd::kBitWords;
            std::uint64_t* column_bits = both_look ? map.column_bits + r * simd::kBitWords : nullptr;
            if (left == right) {
                // What lies left of the diagonal is the other side's, and what lies on it the row's own.
                clear_bits(bits, 0, r);
                clear_bits(column_bits, 0, r + 1);
            }
            if (exclude) {
                clear_bits(bits, client_.excluded(row), begin, end);
                if (both_look) { clear_bits(column_bits, client_.excluded(row), begin, end); }
            }
            if (!is_open(row)) { continue; }
            if (!reserve(cursor, end - begin)) { return; }
            const std::size_t n = kernels_.sift_row(map.distances + r * side_, bits, end - begin,
                                                    static_cast<std::int32_t>(begin), archived_distances() + cursor.at,
                                                    archived_columns() + cursor.at);
            segment_of(stripe, row, left <= right ? right + 1 : right) = {static_cast<std::uint32_t>(cursor.at),
                                                                          static_cast<std::uint32_t>(n)};
            cursor.at += n;
        }
        if (!both_look) { return; }

        std::uint32_t* counts = own.counts.take(simd::kBitColumns).data();
        std::size_t* places = own.places.take(simd::kBitColumns).data();
        kernels_.count_columns(map.column_bits, n_rows, counts);
        for (std::size_t c = 0; c < end - begin; ++c) {
            if (!reserve(cursor, counts[c])) { return; }
            segment_of(stripe, begin + c, left) = {static_cast<std::uint32_t>(cursor.at), counts[c]};
            places[c] = cursor.at;
            cursor.at += counts[c];
        }
        kernels_.sift_columns(map.distances, side_, map.column_bits, n_rows, static_cast<std::int32_t>(row_begin), places,
                              archived_distances(), archived_columns());
    }

    // The segments of a row are in the order of their columns: those of blocks up to its own, some of which it looked at from
    // the other side; then that of its own block from the diagonal on, and those of the blocks after it.
    void resolve_from_archive(const Stripe& stripe, std::size_t row, std::size_t thread) const noexcept {
        SearchMemory& own = memory_[thread];
        float* distances = own.distances.take(stride()).data();
        std::int32_t* columns = own.columns.take(stride()).data();
        std::size_t n = 0;
        for (std::size_t i = 0; i <= n_blocks_; ++i) {
            const Segment segment = segment_of(stripe, row, i);
            copy_whole(archived_distances() + segment.begin, segment.n, distances + n);
            copy_whole(archived_columns() + segment.begin, segment.n, columns + n);
            n += segment.n;
        }
        resolve(row, {distances, columns, n}, thread);
    }

    // Most segments are shorter than a call of memcpy: copies kSlack at a time, and what lies behind the last along.
    template <class T>
    static void copy_whole(const T* from, std::size_t n, T* to) noexcept {
        for (std::size_t i = 0; i < n; i += simd::kSlack) { std::memcpy(to + i, from + i, simd::kSlack * sizeof(T)); }
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

    // What share of the distances passes the sieves, by a regular sample.
    double share_that_passes() const noexcept {
        constexpr std::size_t kMostProbes = 128;
        const std::size_t n = n_rows_;
        const std::size_t n_probes = n * n <= archive_size_ ? kMostProbes / 4 : kMostProbes;
        std::size_t passed = 0;
        for (std::size_t i = 0; i < n_probes; ++i) {
            const std::size_t row = n * i / n_probes;
            std::int32_t columns[kMostProbes];
            float distances[kMostProbes];
            for (std::size_t j = 0; j < n_probes; ++j) { columns[j] = static_cast<std::int32_t>((n * j + row) / n_probes % n); }
            batch_.measure(row, std::span(columns).first(n_probes), distances);
            for (std::size_t j = 0; j < n_probes; ++j) { passed += distances[j] < limits_[row] ? 1 : 0; }
        }
        return static_cast<double>(passed) / static_cast<double>(n_probes * n_probes);
    }

    // How many blocks of rows a stripe may have, if such a share passes.
    std::size_t blocks_that_fit(double share) const noexcept {
        // What the sample may be wrong by, and shares that are not used up.
        constexpr double kOfTheArchive = 0.9;
        if (n_rows_ * n_rows_ <= archive_size_) { return n_blocks_; }
        const double pass_a_row = share * static_cast<double>(n_rows_);
        const double for_distances = kOfTheArchive * static_cast<double>(archive_size_) / std::max(pass_a_row, 1.0);
        const std::size_t for_segments = archive_size_ / 2 / (n_blocks_ + 1);
        return std::min(static_cast<std::size_t>(for_distances), for_segments) / side_;
    }

    // -- what both share ---------------------------------------------------------------------------------------------

    // Rows that look at columns.
    struct Side {
        const float *rows, *norms, *limits;
        std::size_t n;
    };

    // Distances of rows to columns, and which of them each row and, if that is asked, each column lets pass.
    struct Map {
        float* distances;
        std::size_t stride;
        std::uint64_t *row_bits, *column_bits;
    };

    // Distances of rows to columns [begin, end), where begin is a multiple of the panels' width. If the rows are those columns
    // themselves, tiles that lie wholly below the diagonal are left out.
    void make_tiles(const Side& side, std::size_t begin, std::size_t end, const Map& map, bool diagonal) const noexcept {
        const std::size_t stride = batch_.stride();
        for (std::size_t column = begin; column < end; column += kernels_.panel_columns) {
            const float* panel = batch_.panel(column / kernels_.panel_columns);
            const std::size_t at = column - begin;
            const std::size_t n = diagonal ? std::min(side.n, at + kernels_.panel_columns) : side.n;
            for (std::size_t r = 0; r < n; r += kernels_.tile_rows) {
                kernels_.tile(side.rows + r * stride, side.norms + r, stride, panel, batch_.norms() + column, stride,
                              {side.limits + r, limits_.data() + column}, at,
                              map.distances + r * map.stride + at, map.stride, map.row_bits + r * simd::kBitWords,
                              map.column_bits == nullptr ? nullptr : map.column_bits + r * simd::kBitWords);
            }
        }
    }

    static void clear_bits(std::uint64_t* bits, const Excluded& columns, std::size_t begin, std::size_t end) noexcept {
        clear_bits(bits, std::clamp(columns.begin, begin, end) - begin, std::clamp(columns.end, begin, end) - begin);
    }
    static void clear_bits(std::uint64_t* bits, std::size_t begin, std::size_t end) noexcept {
        for (std::size_t i = begin; i < end;) {
            const std::size_t n = std::min(64 - i % 64, end - i);
            bits[i / 64] &= ~((~std::uint64_t{0} >> (64 - n)) << (i % 64));
            i += n;
        }
    }

    std::size_t stride() const noexcept { return n_rows_ + simd::kSlack; }

    // Whole tiles on both sides; two blocks of rows and their tile (200 KB each at 128 numbers) fit L2.
    std::size_t block_side() const noexcept {
        const std::size_t unit = std::lcm(kernels_.tile_rows, kernels_.panel_columns);
        return std::max<std::size_t>(240 / unit, 1) * unit;
    }

    Segment& segment_of(const Stripe& stripe, std::size_t row, std::size_t i) const noexcept {
        return shared_.segments.data()[(row - stripe.begin * side_) * (n_blocks_ + 1) + i];
    }
    float* archived_distances() const noexcept { return shared_.archived_distances.data(); }
    std::int32_t* archived_columns() const noexcept { return shared_.archived_columns.data(); }

    Batch& batch_;
    const simd::Kernels& kernels_;
    const Client& client_;
    const std::size_t n_rows_, n_columns_;
    int n_threads_;
    std::size_t archive_size_;
    SharedSearchMemory& shared_;
    std::span<SearchMemory> memory_;
    const std::size_t side_, n_blocks_;
    std::span<float> limits_;
    std::atomic<std::size_t> archived_ = 0;
    std::atomic<bool> overflown_ = false;
};

}  // namespace mining
