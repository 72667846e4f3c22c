// Blocks of rows that meet each other: all distances between two of them at once, in a tile that fits a core's cache.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "../core/buffer.hpp"
#include "batch.hpp"

namespace mining {

// Rows of a block, as near as panels of columns let it be a multiple of tiles: two blocks, what is made of them and the tile
// between them fit L2 (400 KB at 128 numbers a row).
inline constexpr std::size_t kBlockSide = 96;

struct BlockMemory {
    core::Buffer<float> tile, limits;
    core::Buffer<std::uint64_t> bits;
};

class Blocks {
  public:
    // Of a batch whose panels are made.
    explicit Blocks(const Batch& batch) noexcept : batch_(batch), kernels_(batch.kernels()) {}

    std::size_t n() const noexcept { return (batch_.n() + kBlockSide - 1) / kBlockSide; }
    static std::size_t begin(std::size_t block) noexcept { return block * kBlockSide; }
    std::size_t end(std::size_t block) const noexcept { return std::min((block + 1) * kBlockSide, batch_.n()); }

    // Before measure() may be asked for.
    void reserve(BlockMemory& own) const {
        own.tile.take(n_tile_rows() * kBlockSide);
        own.bits.take(n_tile_rows() * simd::kBitWords);
        std::ranges::fill(own.limits.take(std::max(n_tile_rows(), kBlockSide + kernels_.panel_columns)), 0.0F);
    }

    // The squared distances, of scaled rows, from the rows of the left block to those of the right one: kBlockSide a row.
    float* measure(std::size_t left, std::size_t right, BlockMemory& own) const noexcept {
        const std::size_t first_row = begin(left), n_rows = end(left) - first_row;
        const std::size_t first_column = begin(right), n_columns = end(right) - first_column, stride = batch_.stride();
        const float* limits = own.limits.data();
        for (std::size_t c = 0; c < n_columns; c += kernels_.panel_columns) {
            const float* panel = batch_.panel((first_column + c) / kernels_.panel_columns);
            // The last tile may reach below the last row; its rows there are computed and not looked at.
            for (std::size_t r = 0; r < n_rows; r += kernels_.tile_rows) {
                kernels_.tile(batch_.row(first_row + r), batch_.norms() + first_row + r, stride, panel,
                              batch_.norms() + first_column + c, stride, {limits, limits}, c,
                              own.tile.data() + r * kBlockSide + c, kBlockSide, own.bits.data() + r * simd::kBitWords, nullptr);
            }
        }
        return own.tile.data();
    }

  private:
    std::size_t n_tile_rows() const noexcept {
        return (kBlockSide + kernels_.tile_rows - 1) / kernels_.tile_rows * kernels_.tile_rows;
    }

    const Batch& batch_;
    const simd::Kernels& kernels_;
};

}  // namespace mining
