// The kernels, written once for any register width. Each instruction set includes this in a source file of its own and
// gives its vector type V. All is in an anonymous namespace and uses no function of the standard library: a function
// compiled here for AVX-512 must never be the copy that the linker keeps for everybody.
#pragma once

#include <utility>

#include "kernels.hpp"

namespace simd {
namespace {

// The bits of a row that lie at a multiple of their number.
template <class V>
unsigned bits_at(const std::uint64_t* bits, std::size_t column) noexcept {
    return static_cast<unsigned>(bits[column / 64] >> (column % 64)) & ((1U << V::kWidth) - 1U);
}

// Stores the bits of two vectors at a column that is a multiple of their number.
template <class Bits>
void set_bits_at(std::uint64_t* bits, std::size_t column, Bits both) noexcept {
    __builtin_memcpy(reinterpret_cast<unsigned char*>(bits) + column / 8, &both, sizeof both);
}
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "bit maps are written in pieces and read in words");

template <class V, std::size_t kRows>
void tile(const float* rows, const float* row_norms, std::size_t row_stride, const float* panel,
          const float* column_norms, std::size_t size, const Sieves& sieves, std::size_t first_bit, float* out,
          std::size_t out_stride, std::uint64_t* row_bits, std::uint64_t* column_bits) noexcept {
    typename V::Float sums[kRows][2];
#pragma GCC unroll 16
    for (std::size_t r = 0; r < kRows; ++r) {
        sums[r][0] = V::broadcast(0.0F);
        sums[r][1] = V::broadcast(0.0F);
    }
    for (std::size_t begin = 0; begin < size; begin += kRowMultiple) {
        // The rows of the tile below, which comes next.
        for (std::size_t r = kRows; r < 2 * kRows; ++r) { __builtin_prefetch(rows + r * row_stride + begin); }
        for (std::size_t k = begin; k < begin + kRowMultiple; ++k) {
            const auto left = V::load(panel + k * 2 * V::kWidth);
            const auto right = V::load(panel + k * 2 * V::kWidth + V::kWidth);
#pragma GCC unroll 16
            for (std::size_t r = 0; r < kRows; ++r) {
                const auto x = V::broadcast(rows[r * row_stride + k]);
                sums[r][0] = V::multiply_add(x, left, sums[r][0]);
                sums[r][1] = V::multiply_add(x, right, sums[r][1]);
            }
        }
    }
    const auto minus_two = V::broadcast(-2.0F);
#pragma GCC unroll 16
    for (std::size_t r = 0; r < kRows; ++r) {
        const auto norm = V::broadcast(row_norms[r]);
        float* to = out + r * out_stride;
        sums[r][0] = V::multiply_add(minus_two, sums[r][0], V::load(column_norms) + norm);
        sums[r][1] = V::multiply_add(minus_two, sums[r][1], V::load(column_norms + V::kWidth) + norm);
        V::store(to, sums[r][0]);
        V::store(to + V::kWidth, sums[r][1]);
        const auto limit = V::broadcast(sieves.rows[r]);
        set_bits_at(row_bits + r * kBitWords, first_bit, V::below(sums[r][0], sums[r][1], limit, limit));
    }
    if (column_bits == nullptr) { return; }
    const auto left = V::load(sieves.columns), right = V::load(sieves.columns + V::kWidth);
#pragma GCC unroll 16
    for (std::size_t r = 0; r < kRows; ++r) {
        set_bits_at(column_bits + r * kBitWords, first_bit, V::below(sums[r][0], sums[r][1], left, right));
    }
}

// One step of a transpose by halves: of two rows kStep apart, exchange the lanes that lie kStep apart across the diagonal.
template <class V, std::size_t kStep, std::size_t... kLane>
void exchange(typename V::Float& upper, typename V::Float& lower, std::index_sequence<kLane...>) noexcept {
    const auto x = upper;
    const auto y = lower;
    upper = __builtin_shufflevector(x, y, ((kLane & kStep) == 0 ? kLane : kLane - kStep + V::kWidth)...);
    lower = __builtin_shufflevector(x, y, ((kLane & kStep) == 0 ? kLane + kStep : kLane + V::kWidth)...);
}

template <class V, std::size_t kStep>
void exchange_all(typename V::Float* rows) noexcept {
    if constexpr (kStep < V::kWidth) {
#pragma GCC unroll 16
        for (std::size_t r = 0; r < V::kWidth; ++r) {
            if ((r & kStep) == 0) { exchange<V, kStep>(rows[r], rows[r + kStep], std::make_index_sequence<V::kWidth>()); }
        }
        exchange_all<V, 2 * kStep>(rows);
    }
}

template <class V>
void interleave(const float* rows, std::size_t row_stride, std::size_t size, float* panel) noexcept {
    for (std::size_t first = 0; first < 2 * V::kWidth; first += V::kWidth) {
        for (std::size_t k = 0; k < size; k += V::kWidth) {
            typename V::Float block[V::kWidth];
#pragma GCC unroll 16
            for (std::size_t i = 0; i < V::kWidth; ++i) { block[i] = V::load(rows + (first + i) * row_stride + k); }
            exchange_all<V, 1>(block);
#pragma GCC unroll 16
            for (std::size_t i = 0; i < V::kWidth; ++i) { V::store(panel + (k + i) * 2 * V::kWidth + first, block[i]); }
        }
    }
}

// Several rows at a time: their loads and sums do not wait for each other.
template <class V, std::size_t kRows>
void gather_some(const float* x, float x_norm, const float* rows, std::size_t row_stride, const float* norms,
                 const std::int32_t* indices, std::size_t size, float* out) noexcept {
    const float* row[kRows];
    typename V::Float sums[kRows];
#pragma GCC unroll 8
    for (std::size_t r = 0; r < kRows; ++r) {
        row[r] = rows + static_cast<std::size_t>(indices[r]) * row_stride;
        sums[r] = V::broadcast(0.0F);
    }
    for (std::size_t k = 0; k < size; k += V::kWidth) {
        const auto left = V::load(x + k);
#pragma GCC unroll 8
        for (std::size_t r = 0; r < kRows; ++r) { sums[r] = V::multiply_add(left, V::load(row[r] + k), sums[r]); }
    }
#pragma GCC unroll 8
    for (std::size_t r = 0; r < kRows; ++r) { out[r] = (norms[indices[r]] + x_norm) - 2.0F * V::sum(sums[r]); }
}

template <class V>
void gather(const float* x, float x_norm, const float* rows, std::size_t row_stride, const float* norms,
            const std::int32_t* indices, std::size_t n, std::size_t size, float* out) noexcept {
    std::size_t i = 0;
    for (; i + 8 <= n; i += 8) { gather_some<V, 8>(x, x_norm, rows, row_stride, norms, indices + i, size, out + i); }
    for (; i + 2 <= n; i += 2) { gather_some<V, 2>(x, x_norm, rows, row_stride, norms, indices + i, size, out + i); }
    if (i < n) { gather_some<V, 1>(x, x_norm, rows, row_stride, norms, indices + i, size, out + i); }
}

inline std::size_t count_bits(std::uint64_t bits) noexcept { return static_cast<std::size_t>(__builtin_popcountll(bits)); }

// Which of the next 64 values, or of those that are left, are in [low, high), a bit each.
template <class V>
std::uint64_t inside(const float* values, std::size_t i, std::size_t n, typename V::Float low,
                     typename V::Float high) noexcept {
    std::uint64_t bits = 0;
    if (n - i >= 64) {
#pragma GCC unroll 16
        for (std::size_t at = 0; at < 64; at += V::kWidth) {
            bits |= static_cast<std::uint64_t>(V::within(V::load_any(values + i + at), low, high)) << at;
        }
        return bits;
    }
    for (std::size_t at = 0; at < n - i; at += V::kWidth) {
        bits |= static_cast<std::uint64_t>(V::within(V::load_any(values + i + at), low, high)) << at;
    }
    return bits & ((std::uint64_t{1} << (n - i)) - 1);
}

template <class V>
std::size_t sift_row(const float* values, const std::uint64_t* bits, std::size_t n, std::int32_t first, float* out_values,
                     std::int32_t* out_columns) noexcept {
    std::size_t found = 0;
    for (std::size_t begin = 0; begin < n; begin += 64) {
        if (bits[begin / 64] == 0) { continue; }
        const std::size_t end = n - begin < 64 ? n : begin + 64;
        for (std::size_t i = begin; i < end; i += V::kWidth) {
            const unsigned mask = bits_at<V>(bits, i);
            // Few of sixteen bits are none, and to foresee it costs more than to write nothing; of four, most are.
            if (V::kWidth < 16 && mask == 0) { continue; }
            V::compress(mask, V::load_any(values + i), V::count_from(first + static_cast<std::int32_t>(i)),
                        out_values + found, out_columns + found);
            found += static_cast<std::size_t>(__builtin_popcount(mask));
        }
    }
    return found;
}

template <class V>
void count_columns(const std::uint64_t* bits, std::size_t n_rows, std::uint32_t* counts) noexcept {
    for (std::size_t column = 0; column < kBitColumns; column += 2 * V::kWidth) {
        auto left = V::no_counts(), right = V::no_counts();
        for (std::size_t r = 0; r < n_rows; ++r) {
            left = V::count_bits(left, bits_at<V>(bits + r * kBitWords, column));
            right = V::count_bits(right, bits_at<V>(bits + r * kBitWords, column + V::kWidth));
        }
        V::store(counts + column, left);
        V::store(counts + column + V::kWidth, right);
    }
}

inline void sift_columns(const float* values, std::size_t stride, const std::uint64_t* bits, std::size_t n_rows,
                         std::int32_t first, std::size_t* places, float* out_values, std::int32_t* out_rows) noexcept {
    for (std::size_t r = 0; r < n_rows; ++r) {
        for (std::size_t word = 0; word < kBitWords; ++word) {
            for (std::uint64_t left = bits[r * kBitWords + word]; left != 0; left &= left - 1) {
                const std::size_t column = 64 * word + static_cast<std::size_t>(__builtin_ctzll(left));
                const std::size_t place = places[column]++;
                out_values[place] = values[r * stride + column];
                out_rows[place] = first + static_cast<std::int32_t>(r);
            }
        }
    }
}

template <class V>
std::size_t filter(const float* values, const std::int32_t* columns, std::size_t n, float low, float high,
                   float* out_values, std::int32_t* out_columns) noexcept {
    // Of 64, so few are copied one by one.
    constexpr std::size_t kFew = 4;
    const auto low_edge = V::broadcast(low);
    const auto high_edge = V::broadcast(high);
    std::size_t found = 0;
    for (std::size_t i = 0; i < n; i += 64) {
        std::uint64_t bits = inside<V>(values, i, n, low_edge, high_edge);
        if (count_bits(bits) <= kFew) {
            for (; bits != 0; bits &= bits - 1) {
                const std::size_t at = i + static_cast<std::size_t>(__builtin_ctzll(bits));
                out_values[found] = values[at];
                out_columns[found++] = columns[at];
            }
            continue;
        }
        for (std::size_t at = i; bits != 0; at += V::kWidth, bits >>= V::kWidth) {
            const auto mask = static_cast<unsigned>(bits) & ((1U << V::kWidth) - 1U);
            V::compress(mask, V::load_any(values + at), V::load_any(columns + at), out_values + found, out_columns + found);
            found += count_bits(mask);
        }
    }
    return found;
}

template <class V>
Counts count(const float* values, std::size_t n, const Edges& edges) noexcept {
    const auto possible_low = V::broadcast(edges.possible_low);
    const auto sure_low = V::broadcast(edges.sure_low);
    const auto sure_high = V::broadcast(edges.sure_high);
    const auto possible_high = V::broadcast(edges.possible_high);
    Counts counts = {0, 0};
    // Half of the comparisons, where the intervals have no lower end.
    if (edges.possible_low == kNoLow && edges.sure_low == kNoLow) {
        std::size_t i = 0;
        for (; i + 2 * V::kWidth <= n; i += 2 * V::kWidth) {
            const auto left = V::load_any(values + i), right = V::load_any(values + i + V::kWidth);
            counts.possible += count_bits(V::below(left, right, possible_high, possible_high));
            counts.sure += count_bits(V::below(left, right, sure_high, sure_high));
        }
        for (; i < n; ++i) {
            counts.possible += values[i] < edges.possible_high ? 1 : 0;
            counts.sure += values[i] < edges.sure_high ? 1 : 0;
        }
        return counts;
    }
    for (std::size_t i = 0; i < n; i += 64) {
        counts.possible += count_bits(inside<V>(values, i, n, possible_low, possible_high));
        counts.sure += count_bits(inside<V>(values, i, n, sure_low, sure_high));
    }
    return counts;
}

template <class V>
std::size_t select(const float* values, std::size_t n, float low, float high, std::size_t rank) noexcept {
    const auto low_edge = V::broadcast(low);
    const auto high_edge = V::broadcast(high);
    for (std::size_t i = 0; i < n; i += 64) {
        std::uint64_t bits = inside<V>(values, i, n, low_edge, high_edge);
        const std::size_t found = count_bits(bits);
        if (rank < found) {
            for (; rank != 0; --rank) { bits &= bits - 1; }
            return i + static_cast<std::size_t>(__builtin_ctzll(bits));
        }
        rank -= found;
    }
    return n;
}

// The rank-th of thresholds that lie kStep apart, of a row (1) or of a vector of columns (kGroupColumns).
template <class V, std::size_t kStep>
typename V::Float threshold_of(const float* thresholds, std::size_t rank) noexcept {
    if constexpr (kStep == 1) {
        return V::broadcast(thresholds[rank]);
    } else {
        return V::load(thresholds + rank * kStep);
    }
}

// The ranks of a vector's distances. Thresholds fall: where all are below one they are below those before it, and where none is
// below one, none is below those after it.
template <class V, std::size_t kStep>
typename V::Int ranks_of(typename V::Float distances, const float* thresholds, std::size_t n, std::size_t n_of_all) noexcept {
    std::size_t rank = 1;
    auto ranks = V::no_counts();
    if (n_of_all != 0 && V::all_below(distances, threshold_of<V, kStep>(thresholds, n_of_all))) {
        ranks = V::broadcast_count(n_of_all);
        rank = n_of_all + 1;
    }
    for (; rank + 4 <= n + 1; rank += 4) {
        if (!V::any_below(distances, threshold_of<V, kStep>(thresholds, rank))) { return ranks; }
#pragma GCC unroll 4
        for (std::size_t i = rank; i < rank + 4; ++i) {
            ranks = V::count_below(ranks, distances, threshold_of<V, kStep>(thresholds, i));
        }
    }
    for (; rank <= n; ++rank) { ranks = V::count_below(ranks, distances, threshold_of<V, kStep>(thresholds, rank)); }
    return ranks;
}

// Ranks of a group's distances, taken for shorter than they are by what is in doubt; returns which are in doubt: those that are
// not below the threshold of their rank if they are longer by as much.
template <class V, std::size_t kStep>
unsigned rank_group(const float* distances, const float* thresholds, std::size_t n, std::size_t n_of_all, float doubt,
                    std::uint32_t* ranks) noexcept {
    const auto doubts = V::broadcast(doubt);
    alignas(64) float least[kGroupColumns];
    for (std::size_t i = 0; i < kGroupColumns; i += V::kWidth) {
        const float* theirs = thresholds + (kStep == 1 ? 0 : i);
        V::store(ranks + i, ranks_of<V, kStep>(V::load(distances + i) - doubts, theirs, n, n_of_all));
    }
    for (std::size_t lane = 0; lane < kGroupColumns; ++lane) {
        least[lane] = thresholds[ranks[lane] * kStep + (kStep == 1 ? 0 : lane)];
    }
    unsigned doubtful = 0;
    const auto lowest = V::broadcast(kNoLow);
    for (std::size_t i = 0; i < kGroupColumns; i += V::kWidth) {
        doubtful |= V::within(V::load(least + i), lowest, V::load(distances + i) + doubts) << i;
    }
    return doubtful;
}

template <class V, std::size_t kStep>
unsigned rank_group(const float* distances, const Thresholds& thresholds, float doubt, std::uint32_t* high,
                    std::uint32_t* low) noexcept {
    unsigned doubtful = rank_group<V, kStep>(distances, thresholds.high, thresholds.n, thresholds.n_of_all, doubt, high);
    if (thresholds.low != nullptr) {
        doubtful |= rank_group<V, kStep>(distances, thresholds.low, thresholds.n, thresholds.n_of_all, doubt, low);
    }
    return doubtful;
}

// Whether any distance of a group has a rank, or may have one.
template <class V>
bool is_any_near(const float* distances, const Thresholds& row, const Thresholds& columns, float doubt) noexcept {
    const auto doubts = V::broadcast(doubt);
    for (std::size_t i = 0; i < kGroupColumns; i += V::kWidth) {
        const auto shortest = V::load(distances + i) - doubts;
        if (row.n != 0 && V::any_below(shortest, V::broadcast(row.high[1]))) { return true; }
        if (columns.n != 0 && V::any_below(shortest, V::load(columns.high + kGroupColumns + i))) { return true; }
    }
    return false;
}

template <class V>
RankSums rank(const Ranking& ranking) noexcept {
    const Thresholds& row = ranking.row;
    auto distance_sums = V::broadcast(0.0F), weight_sums = V::broadcast(0.0F);
    const auto row_weight = V::broadcast(-ranking.row_weight), half = V::broadcast(0.5F);
    for (std::size_t group = 0; group < ranking.n_groups; ++group) {
        const std::size_t first = group * kGroupColumns;
        float* distances = ranking.distances + first;
        const Thresholds& columns = ranking.columns[group];
        ranking.doubtful[group] = 0;
        if (!is_any_near<V>(distances, row, columns, ranking.doubt)) {
            for (std::size_t lane = 0; lane < kGroupColumns; ++lane) { distances[lane] = 0.0F; }
            continue;
        }
        alignas(64) std::uint32_t high[kGroupColumns], low[kGroupColumns] = {}, their_high[kGroupColumns],
            their_low[kGroupColumns] = {};
        unsigned doubtful = rank_group<V, 1>(distances, row, ranking.doubt, high, low) |
                            rank_group<V, kGroupColumns>(distances, columns, ranking.doubt, their_high, their_low);
        const auto lowest = V::broadcast(kNoLow), too_short = V::broadcast(ranking.too_short);
        for (std::size_t i = 0; i < kGroupColumns; i += V::kWidth) {
            doubtful |= V::within(V::load(distances + i), lowest, too_short) << i;
        }
        ranking.doubtful[group] = static_cast<std::uint16_t>(doubtful);
        for (unsigned bits = doubtful; bits != 0; bits &= bits - 1) {
            const int lane = __builtin_ctz(bits);
            high[lane] = low[lane] = their_high[lane] = their_low[lane] = 0;
            // Whatever it is, it is nothing to divide by.
            if (ranking.root) { distances[lane] = 1.0F; }
        }
        for (std::size_t i = 0; i < kGroupColumns; i += V::kWidth) {
            auto distance = V::load(distances + i);
            if (ranking.root) { distance = V::root(distance); }
            auto n = V::to_float(high + i), their_n = V::to_float(their_high + i);
            if (row.low != nullptr) {
                n = n - V::to_float(low + i);
                their_n = their_n - V::to_float(their_low + i);
            }
            auto weight = row_weight * n - V::load_any(ranking.column_weights + first + i) * their_n;
            if (ranking.root) { weight = half * weight / distance; }
            distance_sums = V::multiply_add(n, distance, distance_sums);
            weight_sums = weight_sums + weight;
            V::store(distances + i, weight);
            if (ranking.column_counts != nullptr) {
                float *sums = ranking.column_sums + first + i, *weights = ranking.column_weight_sums + first + i;
                V::store(sums, V::multiply_add(their_n, distance, V::load(sums)));
                V::store(weights, V::load(weights) + weight);
            }
        }
        // Most often all are below all or none is below any: at least the row's count needs no turn for each.
        std::uint32_t n_full = 0;
        for (std::size_t lane = 0; lane < kGroupColumns; ++lane) { n_full += high[lane] == row.n ? 1 : 0; }
        ranking.row_counts[row.n] += n_full;
        for (std::size_t lane = 0; n_full != kGroupColumns && lane < kGroupColumns; ++lane) {
            ranking.row_counts[high[lane] == row.n ? 0 : high[lane]] += 1;
        }
        for (std::size_t lane = 0; row.low != nullptr && lane < kGroupColumns; ++lane) { --ranking.row_counts[low[lane]]; }
        if (ranking.column_counts == nullptr) { continue; }
        std::uint32_t* const* column_counts = ranking.column_counts + first;
        for (std::size_t lane = 0; lane < kGroupColumns; ++lane) { ++column_counts[lane][their_high[lane]]; }
        for (std::size_t lane = 0; row.low != nullptr && lane < kGroupColumns; ++lane) {
            --column_counts[lane][their_low[lane]];
        }
    }
    return {static_cast<double>(V::sum(distance_sums)), static_cast<double>(V::sum(weight_sums))};
}

template <class V, std::size_t kRows, std::size_t kVectors>
void accumulate_columns(const float* weights, std::size_t row_step, std::size_t step, const float* rows, std::size_t n,
                        std::size_t size, float* sums) noexcept {
    typename V::Float totals[kRows][kVectors];
#pragma GCC unroll 16
    for (std::size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
        for (std::size_t v = 0; v < kVectors; ++v) { totals[r][v] = V::load(sums + r * size + v * V::kWidth); }
    }
    for (std::size_t i = 0; i < n; ++i) {
        typename V::Float row[kVectors];
#pragma GCC unroll 2
        for (std::size_t v = 0; v < kVectors; ++v) { row[v] = V::load(rows + i * size + v * V::kWidth); }
#pragma GCC unroll 16
        for (std::size_t r = 0; r < kRows; ++r) {
            const auto weight = V::broadcast(weights[r * row_step + i * step]);
#pragma GCC unroll 2
            for (std::size_t v = 0; v < kVectors; ++v) { totals[r][v] = V::multiply_add(weight, row[v], totals[r][v]); }
        }
    }
#pragma GCC unroll 16
    for (std::size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
        for (std::size_t v = 0; v < kVectors; ++v) { V::store(sums + r * size + v * V::kWidth, totals[r][v]); }
    }
}

template <class V, std::size_t kRows>
void accumulate_rows(const float* weights, std::size_t row_step, std::size_t step, const float* rows, std::size_t n,
                     std::size_t size, float* sums) noexcept {
    std::size_t k = 0;
    for (; k + 2 * V::kWidth <= size; k += 2 * V::kWidth) {
        accumulate_columns<V, kRows, 2>(weights, row_step, step, rows + k, n, size, sums + k);
    }
    if (k < size) { accumulate_columns<V, kRows, 1>(weights, row_step, step, rows + k, n, size, sums + k); }
}

template <class V, std::size_t kRows>
void accumulate(const float* weights, std::size_t row_step, std::size_t step, const float* rows, std::size_t n,
                std::size_t size, float* sums, std::size_t n_sums) noexcept {
    std::size_t r = 0;
    for (; r + kRows <= n_sums; r += kRows) {
        accumulate_rows<V, kRows>(weights + r * row_step, row_step, step, rows, n, size, sums + r * size);
    }
    for (; r + 4 <= n_sums; r += 4) {
        accumulate_rows<V, 4>(weights + r * row_step, row_step, step, rows, n, size, sums + r * size);
    }
    for (; r < n_sums; ++r) {
        accumulate_rows<V, 1>(weights + r * row_step, row_step, step, rows, n, size, sums + r * size);
    }
}

template <class V>
void pull(const float* x, const float* y, float weight, std::size_t size, float* to_x, float* to_y) noexcept {
    const auto factor = V::broadcast(weight);
    for (std::size_t k = 0; k < size; k += V::kWidth) {
        const auto by = factor * (V::load(x + k) - V::load(y + k));
        V::store(to_x + k, V::load(to_x + k) + by);
        V::store(to_y + k, V::load(to_y + k) - by);
    }
}

// Eight running sums as one vector of the compiler's own, whatever registers that takes. The project is compiled with
// -ffp-contract=off: a fused multiply-add would round otherwise than the specification.
template <class Scalar>
double exact(const Scalar* x, const Scalar* y, std::size_t size) noexcept {
    typedef double Sums __attribute__((vector_size(64)));
    Sums sums = {};
    std::size_t k = 0;
    for (; k + 8 <= size; k += 8) {
        Sums difference;
#pragma GCC unroll 8
        for (std::size_t lane = 0; lane < 8; ++lane) {
            difference[lane] = static_cast<double>(x[k + lane]) - static_cast<double>(y[k + lane]);
        }
        sums += difference * difference;
    }
    for (std::size_t lane = 0; k + lane < size; ++lane) {
        const double difference = static_cast<double>(x[k + lane]) - static_cast<double>(y[k + lane]);
        sums[lane] += difference * difference;
    }
    return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

template <class V, std::size_t kTileRows>
constexpr Kernels table(const char* name) noexcept {
    return {name,        kTileRows,   2 * V::kWidth,    tile<V, kTileRows>, interleave<V>,
            gather<V>,   sift_row<V>, count_columns<V>, sift_columns,       filter<V>,
            count<V>,    select<V>,   rank<V>,          accumulate<V, kTileRows>, pull<V>,
            exact<float>, exact<double>};
}

}  // namespace
}  // namespace simd
