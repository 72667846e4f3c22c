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

// A "shifted distance" of column c to row x is |c|^2 - 2 x.c: the squared distance less |x|^2, which all columns share.
struct Kernels {
    const char* name;
    std::size_t tile_rows;
    std::size_t panel_columns;

    // Shifted distances of tile_rows rows to the panel_columns columns of one panel (coordinate k of column c at
    // panel[k * panel_columns + c]), written to out[row * out_stride + column].
    void (*tile)(const float* rows, std::size_t row_stride, const float* panel, const float* column_norms,
                 std::size_t size, float* out, std::size_t out_stride) noexcept;

    // Shifted distances of chosen rows to x: out[i] belongs to rows[indices[i] * row_stride].
    void (*gather)(const float* x, const float* rows, std::size_t row_stride, const float* norms,
                   const std::int32_t* indices, std::size_t n, std::size_t size, float* out) noexcept;

    // Of values[0 .. n), those in [low, high) and their places, first + i, in order; returns how many.
    std::size_t (*filter)(const float* values, std::size_t n, float low, float high, std::int32_t first,
                          float* out_values, std::int32_t* out_places) noexcept;

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
