// The table of vector kernels that one instruction set offers; the rest of the code knows no registers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace simd {

// Rows are padded with zeros to a multiple of this many floats, so that no kernel has a remainder along a row.
inline constexpr std::size_t kRowMultiple = 16;

// What sifts and filters may read behind the end of their input and write behind the end of their output.
inline constexpr std::size_t kSlack = 16;

// How many of some values lie in an interval: possibly, and surely.
struct Counts {
    std::size_t possible, sure;
};

// The two intervals: [possible_low, possible_high) holds [sure_low, sure_high).
struct Edges {
    float possible_low, sure_low, sure_high, possible_high;
};

// Below every value: an interval that begins here has no lower end.
inline constexpr float kNoLow = -__FLT_MAX__;

// What each row and each column of a tile lets pass: distances below its own limit.
struct Sieves {
    const float *rows, *columns;
};

// Which distances of a row pass, a bit a column, 256 columns at most: the rows of a bit map lie this far apart.
inline constexpr std::size_t kBitWords = 4;
inline constexpr std::size_t kBitColumns = 64 * kBitWords;

// Columns whose thresholds lie side by side.
inline constexpr std::size_t kGroupColumns = 16;

// Limits of distances, falling, n of them after one that is above all distances: a distance is below the first so many, its
// rank. Those of a row lie one after the other. In a group of columns, those of one rank lie side by side, and the first
// n_of_all ranks are ranks of each.
struct Thresholds {
    const float *high, *low;  // low may be null: then no distance is below any of those
    std::size_t n, n_of_all;
};

// A row's distances to groups of columns, and what both sides think of them.
struct Ranking {
    float* distances;  // in: distances; out: weights
    std::size_t n_groups;
    Thresholds row;
    const Thresholds* columns;  // of each group
    float row_weight;
    const float* column_weights;
    float doubt;      // what float32 leaves in doubt about a distance
    float too_short;  // distances below this are in doubt, too; positive where root is asked for
    bool root;        // weights are divided by twice the distance's root, and the root is what is summed up
    // How many distances have each high rank, less those that have it as their low rank: of the row, and of each column. The
    // number of rank 0 means nothing. column_counts may be null: then the columns' sums are not made either.
    std::uint32_t* row_counts;
    std::uint32_t* const* column_counts;
    float *column_sums, *column_weight_sums;
    std::uint16_t* doubtful;  // of each group, a bit a column: those that have weight 0 and are in no count and no sum
};

struct RankSums {
    double distances, weights;
};

// Norms are squared norms, and distances squared distances: |x|^2 + |y|^2 - 2 x.y.
struct Kernels {
    const char* name;
    std::size_t tile_rows;
    std::size_t panel_columns;

    // Distances of tile_rows rows to the panel_columns columns of one panel (coordinate k of column c at
    // panel[k * panel_columns + c]), written to out[row * out_stride + column]. Bit first_bit + column of the row's bit map,
    // at row_bits + row * kBitWords, says whether the distance passes its row's sieve, and that of column_bits whether it
    // passes its column's. column_bits may be null; first_bit is a multiple of panel_columns.
    void (*tile)(const float* rows, const float* row_norms, std::size_t row_stride, const float* panel,
                 const float* column_norms, std::size_t size, const Sieves& sieves, std::size_t first_bit, float* out,
                 std::size_t out_stride, std::uint64_t* row_bits, std::uint64_t* column_bits) noexcept;

    // A panel of panel_columns rows: their coordinates k side by side.
    void (*interleave)(const float* rows, std::size_t row_stride, std::size_t size, float* panel) noexcept;

    // Distances of x to chosen rows: out[i] belongs to rows[indices[i] * row_stride].
    void (*gather)(const float* x, float x_norm, const float* rows, std::size_t row_stride, const float* norms,
                   const std::int32_t* indices, std::size_t n, std::size_t size, float* out) noexcept;

    // Of a row's values[0 .. n), n <= kBitColumns, those whose bit is set, in order, each with its column, first + i; returns
    // how many.
    std::size_t (*sift_row)(const float* values, const std::uint64_t* bits, std::size_t n, std::int32_t first,
                            float* out_values, std::int32_t* out_columns) noexcept;

    // How many bits each of kBitColumns columns has set in n_rows rows of a bit map.
    void (*count_columns)(const std::uint64_t* bits, std::size_t n_rows, std::uint32_t* counts) noexcept;

    // Of n_rows rows of values, stride apart, those whose bit is set go to their column's list: in the order of the rows, each
    // with its row, first + r, to the places from places[column] on, which are moved.
    void (*sift_columns)(const float* values, std::size_t stride, const std::uint64_t* bits, std::size_t n_rows,
                         std::int32_t first, std::size_t* places, float* out_values, std::int32_t* out_rows) noexcept;

    // Of values[0 .. n), those in [low, high), in order, each with its column; returns how many. The output may be the input.
    std::size_t (*filter)(const float* values, const std::int32_t* columns, std::size_t n, float low, float high,
                          float* out_values, std::int32_t* out_columns) noexcept;

    // How many of values[0 .. n) are possibly, and how many surely, inside.
    Counts (*count)(const float* values, std::size_t n, const Edges& edges) noexcept;

    // The place of the rank-th of those in [low, high), which has to exist.
    std::size_t (*select)(const float* values, std::size_t n, float low, float high, std::size_t rank) noexcept;

    // With h and l for a distance's rank among the high and the low thresholds of its row, and h' and l' for those of its column:
    // makes of each distance the weight -(row_weight (h - l) + column_weight (h' - l')). Returns the sum of (h - l) times
    // distance and that of the weights; adds to each column's sums those of (h' - l') times distance, and of the weights.
    RankSums (*rank)(const Ranking& ranking) noexcept;

    // sums[r * size + k] += sum over i < n of weights[r * row_step + i * step] * rows[i * size + k], for n_sums values of r.
    void (*accumulate)(const float* weights, std::size_t row_step, std::size_t step, const float* rows, std::size_t n,
                       std::size_t size, float* sums, std::size_t n_sums) noexcept;

    // to_x += weight (x - y), to_y -= weight (x - y).
    void (*pull)(const float* x, const float* y, float weight, std::size_t size, float* to_x, float* to_y) noexcept;

    // sum((x - y)^2) in float64, in the summation order of mining/reference.py, never fused.
    double (*exact_f32)(const float* x, const float* y, std::size_t size) noexcept;
    double (*exact_f64)(const double* x, const double* y, std::size_t size) noexcept;
};

// The table in use: the best one that this machine runs, unless choose() said otherwise.
const Kernels& kernels() noexcept;

// What this build and this machine offer, best first.
std::span<const Kernels* const> available() noexcept;

// Use the table of that name from now on; false, and no change, if it is not available.
bool choose(std::string_view name) noexcept;

}  // namespace simd
