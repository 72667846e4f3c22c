#include "batch.hpp"

#include <algorithm>
#include <cmath>

#include "../core/parallel.hpp"

namespace mining {
namespace {

// Rows that the centre is the mean of, at most.
constexpr std::size_t kRowsOfCentre = 256;

// Rows that a thread reads at a time.
constexpr std::size_t kRowsPerTask = 64;

constexpr std::size_t rounded_up(std::size_t n, std::size_t multiple) noexcept {
    return (n + multiple - 1) / multiple * multiple;
}

// A centre that is the origin.
struct NoCentre {
    double operator[](std::size_t) const noexcept { return 0.0; }
};

template <class Scalar, class Centre>
double sum_of_squares(const Scalar* row, std::size_t size, const Centre& centre) noexcept {
    double sums[4] = {};
    std::size_t k = 0;
    for (; k + 4 <= size; k += 4) {
        for (std::size_t lane = 0; lane < 4; ++lane) {
            const double x = static_cast<double>(row[k + lane]) - centre[k + lane];
            sums[lane] += x * x;
        }
    }
    for (; k < size; ++k) {
        const double x = static_cast<double>(row[k]) - centre[k];
        sums[0] += x * x;
    }
    return (sums[0] + sums[2]) + (sums[1] + sums[3]);
}

template <class Scalar, class Centre>
void copy_scaled(const Scalar* from, std::size_t size, const Centre& centre, double scale, float* to,
                 std::size_t stride) noexcept {
    for (std::size_t k = 0; k < size; ++k) {
        const auto x = static_cast<float>((static_cast<double>(from[k]) - centre[k]) * scale);
        to[k] = std::fabs(x) < kSmallestCoordinate ? 0.0F : x;
    }
    std::fill(to + size, to + stride, 0.0F);
}

// The mean of some rows, evenly spread.
template <class Scalar>
void make_centre(const Scalar* values, std::size_t n, std::span<double> centre) noexcept {
    const std::size_t n_some = std::min(n, kRowsOfCentre);
    std::ranges::fill(centre, 0.0);
    for (std::size_t i = 0; i < n_some; ++i) {
        const Scalar* row = values + i * n / n_some * centre.size();
        for (std::size_t k = 0; k < centre.size(); ++k) {
            centre[k] += static_cast<double>(row[k]) / static_cast<double>(n_some);
        }
    }
}

}  // namespace

Batch::Batch(const Embeddings& embeddings, const Grouping& grouping, const simd::Kernels& kernels, int n_threads,
             BatchMemory& memory, Origin origin)
    : embeddings_(embeddings),
      grouping_(grouping),
      kernels_(kernels),
      memory_(memory),
      stride_(rounded_up(embeddings.size, simd::kRowMultiple)),
      rows_(memory.rows.take((embeddings.n + padding()) * stride_)),
      norms_(memory.norms.take(embeddings.n + padding())),
      squared_norms_(memory.squared_norms.take(embeddings.n)) {
    std::visit([&](const auto* values) { read(values, n_threads, origin); }, embeddings_.values);
}

template <class Scalar>
void Batch::read(const Scalar* values, int n_threads, Origin origin) {
    const std::size_t size = embeddings_.size;
    const auto row_of = [&](std::size_t g) { return values + static_cast<std::size_t>(grouping_.order[g]) * size; };
    const auto measure_norms = [&](const auto& centre) {
        core::parallel_for(n_threads, n(), kRowsPerTask, [&](std::size_t g, std::size_t) noexcept {
            squared_norms_[g] = sum_of_squares(row_of(g), size, centre);
        });
    };
    const auto copy_rows = [&](const auto& centre) {
        core::parallel_for(n_threads, n(), kRowsPerTask, [&](std::size_t g, std::size_t) noexcept {
            copy_scaled(row_of(g), size, centre, scaling_.scale, rows_.data() + g * stride_, stride_);
            squared_norms_[g] *= scaling_.squared_scale;
            norms_[g] = static_cast<float>(squared_norms_[g]);
        });
    };
    measure_norms(NoCentre());
    for (std::size_t g = 0; g < n(); ++g) {
        const std::int64_t row = grouping_.order[g];
        const bool ordinary = squared_norms_[g] < kLargestSquaredNorm;  // which NaN is not
        if (!ordinary && (bad_row_ < 0 || row < bad_row_)) { bad_row_ = row; }
    }
    if (bad_row_ >= 0) { return; }
    const auto centre = memory_.centre.take(origin == Origin::kCentred ? size : 0);
    if (origin == Origin::kCentred) {
        make_centre(values, n(), centre);
        measure_norms(centre);
    }
    const double longest = n() == 0 ? 0.0 : *std::ranges::max_element(squared_norms_);
    scaling_ = scaling_of(longest, size);
    origin == Origin::kCentred ? copy_rows(centre) : copy_rows(NoCentre());
}

double Batch::exact_squared_distance(std::size_t g, std::size_t h) const noexcept {
    const std::size_t size = embeddings_.size;
    const std::size_t x = static_cast<std::size_t>(grouping_.order[g]) * size;
    const std::size_t y = static_cast<std::size_t>(grouping_.order[h]) * size;
    if (const auto* values = std::get_if<const float*>(&embeddings_.values)) {
        return kernels_.exact_f32(*values + x, *values + y, size);
    }
    const double* values = *std::get_if<const double*>(&embeddings_.values);
    return kernels_.exact_f64(values + x, values + y, size);
}

void Batch::add_difference(std::size_t g, std::size_t h, double weight, float* to_g, float* to_h) const noexcept {
    const std::size_t size = embeddings_.size;
    const auto add = [&](const auto* values) {
        const auto* x = values + static_cast<std::size_t>(grouping_.order[g]) * size;
        const auto* y = values + static_cast<std::size_t>(grouping_.order[h]) * size;
        for (std::size_t k = 0; k < size; ++k) {
            const auto part = static_cast<float>(weight * (static_cast<double>(x[k]) - static_cast<double>(y[k])));
            to_g[k] += part;
            if (to_h != nullptr) { to_h[k] -= part; }
        }
    };
    std::visit(add, embeddings_.values);
}

std::size_t Batch::n_panels() const noexcept {
    return (n() + kernels_.panel_columns - 1) / kernels_.panel_columns;
}

void Batch::make_panels(int n_threads) {
    const std::size_t width = kernels_.panel_columns;
    panels_ = memory_.panels.take(n_panels() * width * stride_);
    std::ranges::fill(rows_.subspan(n() * stride_), 0.0F);
    std::ranges::fill(norms_.subspan(n()), kPaddingNorm);
    core::parallel_for(n_threads, n_panels(), 1, [&](std::size_t i, std::size_t) noexcept {
        kernels_.interleave(row(i * width), stride_, stride_, panels_.data() + i * width * stride_);
    });
}

}  // namespace mining
