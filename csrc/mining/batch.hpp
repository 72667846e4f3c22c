// A batch of embeddings made ready for the kernels, and the bound on what float32 gets wrong about it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <variant>

#include "../core/buffer.hpp"
#include "../simd/kernels.hpp"
#include "scaling.hpp"

namespace mining {

// The caller's embeddings: n rows of size numbers, float32 or float64, C order.
struct Embeddings {
    std::variant<const float*, const double*> values;
    std::size_t n, size;
};

// Identity i owns the grouped rows offsets[i] .. offsets[i + 1]; grouped row g is row order[g] of the embeddings.
struct Grouping {
    std::span<const std::int32_t> order;
    std::span<const std::int64_t> offsets;
};

struct BatchMemory {
    core::Buffer<float> rows, norms, panels;
    core::Buffer<double> squared_norms, centre;
};

// Where the rows' origin is: where it was, or near their mean. That moves no distance; of rows that are all far from the origin
// and near to each other, float32 then knows much more.
enum class Origin { kKept, kCentred };

// Rows in grouped order, scaled by a power of two so that the longest has a norm in [1/2, 1): no embeddings, however long
// or short, leave float32's range, and where all rows are of ordinary length no product is a denormal.
class Batch {
  public:
    // Reads the embeddings with n_threads. If a row is not finite, bad_row() says which.
    Batch(const Embeddings& embeddings, const Grouping& grouping, const simd::Kernels& kernels, int n_threads,
          BatchMemory& memory, Origin origin = Origin::kKept);

    std::int64_t bad_row() const noexcept { return bad_row_; }  // of the embeddings; -1 if all are finite
    std::size_t n() const noexcept { return embeddings_.n; }
    std::size_t stride() const noexcept { return stride_; }
    const float* row(std::size_t g) const noexcept { return rows_.data() + g * stride_; }
    const float* rows() const noexcept { return rows_.data(); }
    const float* norms() const noexcept { return norms_.data(); }
    double squared_scale() const noexcept { return scaling_.squared_scale; }

    // Squared distances of grouped row g to others, in scaled units, as the kernels make them.
    void measure(std::size_t g, std::span<const std::int32_t> others, float* distances) const noexcept {
        kernels_.gather(row(g), norms_[g], rows(), stride_, norms(), others.data(), others.size(), stride_, distances);
    }

    // Bounds what float32 gets wrong about any two of them together.
    double uncertainty(std::size_t g) const noexcept { return scaling_.uncertainty * (squared_norms_[g] + scaling_.longest); }

    // The squared norm of the longest row, in scaled units; 1 where all rows are too short to be told apart.
    double longest() const noexcept { return scaling_.longest; }

    // The squared distance of two grouped rows as mining/reference.py computes it, in the caller's units.
    double exact_squared_distance(std::size_t g, std::size_t h) const noexcept;

    // to_g += weight (g - h), to_h -= weight (g - h), of rows as they are, in the caller's units; to_h may be null.
    void add_difference(std::size_t g, std::size_t h, double weight, float* to_g, float* to_h) const noexcept;

    // Interleave the rows for the tile kernel, once, before panel() is asked for. As far as the last tile reaches, rows and
    // norms go on with padding.
    void make_panels(int n_threads);
    std::size_t n_panels() const noexcept;
    // Rows and columns that the last tiles may reach beyond the last row.
    std::size_t padding() const noexcept { return kernels_.tile_rows + kernels_.panel_columns; }
    const float* panel(std::size_t i) const noexcept {
        return panels_.data() + i * kernels_.panel_columns * stride_;
    }

    const simd::Kernels& kernels() const noexcept { return kernels_; }

  private:
    template <class Scalar>
    void read(const Scalar* values, int n_threads, Origin origin);

    const Embeddings embeddings_;
    const Grouping grouping_;
    const simd::Kernels& kernels_;
    BatchMemory& memory_;
    std::size_t stride_;
    std::span<float> rows_, norms_, panels_;
    std::span<double> squared_norms_;
    Scaling scaling_;
    std::int64_t bad_row_ = -1;
};

}  // namespace mining
