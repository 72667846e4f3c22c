// All distances between some anchors and all rows, in float32: a matrix product by tiles, no tensor cores.
#pragma once

#include "batch.cuh"

namespace cuda {

// A block makes a square of distances, a thread eight by eight of them: two times four rows and columns, half a tile apart, so
// that neighbouring threads read neighbouring numbers. Rows come through shared memory kTileDepth numbers at a time, the next
// ones on their way while the last are multiplied.
inline constexpr int kTileSide = 128;
inline constexpr int kTileDepth = 8;
inline constexpr unsigned kTileThreads = 256;
inline constexpr int kTilePadding = 4;  // keeps a transposed store off one bank

// anchors may be null, if all rows are meant: then every two tiles of rows meet once, and what they make is written for both.
template <class Scalar>
__global__ void __launch_bounds__(kTileThreads, 2)
    measure_tiles(Batch<Scalar> batch, const std::int32_t* anchors, int n_anchors, float* distances, std::size_t stride) {
    const bool mirrored = anchors == nullptr;
    if (mirrored && blockIdx.x < blockIdx.y) { return; }
    __shared__ __align__(16) float left[2][kTileDepth][kTileSide + kTilePadding];
    __shared__ __align__(16) float right[2][kTileDepth][kTileSide + kTilePadding];
    const int thread = static_cast<int>(threadIdx.x);
    const int first_row = static_cast<int>(blockIdx.y) * kTileSide, first_column = static_cast<int>(blockIdx.x) * kTileSide;

    // What this thread brings: four numbers of a row on either side. Columns are padded; anchors beyond the last are the last.
    const int brought = thread / 2, depth = thread % 2 * 4;
    const int row_or_last = first_row + brought < n_anchors ? first_row + brought : n_anchors - 1;
    const int anchor = mirrored ? row_or_last : anchors[row_or_last];
    const float* from_left = batch.rows + static_cast<std::size_t>(anchor) * batch.stride + depth;
    const float* from_right = batch.rows + static_cast<std::size_t>(first_column + brought) * batch.stride + depth;
    float4 next_left = *reinterpret_cast<const float4*>(from_left);
    float4 next_right = *reinterpret_cast<const float4*>(from_right);
    const auto store = [&](int buffer) {
        const float l[] = {next_left.x, next_left.y, next_left.z, next_left.w};
        const float r[] = {next_right.x, next_right.y, next_right.z, next_right.w};
        for (int i = 0; i < 4; ++i) {
            left[buffer][depth + i][brought] = l[i];
            right[buffer][depth + i][brought] = r[i];
        }
    };
    store(0);
    __syncthreads();

    const int my_row = thread / 16 * 4, my_column = thread % 16 * 4;
    float products[8][8] = {};
    const int n_steps = batch.stride / kTileDepth;
    for (int step = 0; step < n_steps; ++step) {
        if (step + 1 < n_steps) {
            next_left = *reinterpret_cast<const float4*>(from_left + (step + 1) * kTileDepth);
            next_right = *reinterpret_cast<const float4*>(from_right + (step + 1) * kTileDepth);
        }
        const int buffer = step % 2;
#pragma unroll
        for (int k = 0; k < kTileDepth; ++k) {
            float rows[8], columns[8];
            for (int half = 0; half < 2; ++half) {
                const float4 l = *reinterpret_cast<const float4*>(&left[buffer][k][my_row + half * kTileSide / 2]);
                const float4 r = *reinterpret_cast<const float4*>(&right[buffer][k][my_column + half * kTileSide / 2]);
                rows[4 * half] = l.x, rows[4 * half + 1] = l.y, rows[4 * half + 2] = l.z, rows[4 * half + 3] = l.w;
                columns[4 * half] = r.x, columns[4 * half + 1] = r.y, columns[4 * half + 2] = r.z, columns[4 * half + 3] = r.w;
            }
#pragma unroll
            for (int i = 0; i < 8; ++i) {
#pragma unroll
                for (int j = 0; j < 8; ++j) { products[i][j] = __fmaf_rn(rows[i], columns[j], products[i][j]); }
            }
        }
        if (step + 1 < n_steps) { store(1 - buffer); }
        __syncthreads();
    }

    for (int i = 0; i < 8; ++i) {
        const int row = first_row + my_row + i % 4 + i / 4 * kTileSide / 2;
        const float norm = row < n_anchors ? batch.norms[mirrored ? row : anchors[row]] : 0.0F;
        for (int half = 0; half < 2; ++half) {
            const int column = first_column + my_column + half * kTileSide / 2;
            const float4 norms = *reinterpret_cast<const float4*>(batch.norms + column);
            float* of_four = products[i] + 4 * half;
            const float4 four = {(norm + norms.x) - 2.0F * of_four[0], (norm + norms.y) - 2.0F * of_four[1],
                                 (norm + norms.z) - 2.0F * of_four[2], (norm + norms.w) - 2.0F * of_four[3]};
            of_four[0] = four.x, of_four[1] = four.y, of_four[2] = four.z, of_four[3] = four.w;
            if (row < n_anchors) {
                *reinterpret_cast<float4*>(distances + static_cast<std::size_t>(row) * stride + column) = four;
            }
        }
    }
    if (!mirrored || blockIdx.x == blockIdx.y) { return; }
    // Four rows of a column are side by side in the mirror; a row of it has room for rows that are padding.
    for (int j = 0; j < 8; ++j) {
        const int column = first_column + my_column + j % 4 + j / 4 * kTileSide / 2;
        if (column >= n_anchors) { continue; }
        for (int half = 0; half < 2; ++half) {
            const int row = first_row + my_row + half * kTileSide / 2;
            const float4 four = {products[4 * half][j], products[4 * half + 1][j], products[4 * half + 2][j],
                                 products[4 * half + 3][j]};
            *reinterpret_cast<float4*>(distances + static_cast<std::size_t>(column) * stride + row) = four;
        }
    }
}

}  // namespace cuda
