// The table of vector kernels that one instruction set offers; the rest of the code knows no registers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace simd {

// Rows are padded with zeros to a multiple of this many floats, so that no kernel has a remainder along a row.
inline constexpr std::size_t kRowMultiple = 16;

// What filters may read behind the end of their input and write behind the end of their output.
inline constexpr std::size_t kSlack = 16;

// How many of some values lie in an interval: possibly, and surely.
struct Counts {
    std::size_t possible, sure;
};

// The two intervals: [possible_low, possible_high) holds [sure_low, sure_high).
struct Edges {
    float possible_low, sure_low, sure_high, possible_high;
};

// Norms are squared norms, and distances squared distances: |x|^2 + |y|^2 - 2 x.y.
struct Kernels {
    const char* name;
    std::size_t tile_rows;
    std::size_t panel_columns;

    // Distances of tile_rows rows to the panel_columns columns of one panel (coordinate k of column c at
    // panel[k * panel_columns + c]), written to out[row * out_stride + column].
    void (*tile)(const float* rows, const float* row_norms, std::size_t row_stride, const float* panel,
                 const float* column_norms, std::size_t size, float* out, std::size_t out_stride) noexcept;

    // Distances of x to chosen rows: out[i] belongs to rows[indices[i] * row_stride].
    void (*gather)(const float* x, float x_norm, const float* rows, std::size_t row_stride, const float* norms,
                   const std::int32_t* indices, std::size_t n, std::size_t size, float* out) noexcept;

    // Of values[0 .. n), those in [low, high), in order, each with its column, first + i; returns how many.
    std::size_t (*filter)(const float* values, std::size_t n, float low, float high, std::int32_t first,
                          float* out_values, std::int32_t* out_columns) noexcept;

    // The same of values that bring their columns. The output may be the input.
    std::size_t (*refilter)(const float* values, const std::int32_t* columns, std::size_t n, float low, float high,
                            float* out_values, std::int32_t* out_columns) noexcept;

    // The transpose of a square block: to[c * side + r] = from[r * side + c]; side is a multiple of kRowMultiple.
    void (*transpose)(const float* from, std::size_t side, float* to) noexcept;

    // How many of values[0 .. n) are possibly, and how many surely, inside.
    Counts (*count)(const float* values, std::size_t n, const Edges& edges) noexcept;

    // The place of the rank-th of those in [low, high), which has to exist.
    std::size_t (*select)(const float* values, std::size_t n, float low, float high, std::size_t rank) noexcept;

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
