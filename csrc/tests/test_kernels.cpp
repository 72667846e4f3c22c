// Every instruction set's kernels against float64 arithmetic written out, at every remainder and edge.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "../core/buffer.hpp"
#include "../simd/kernels.hpp"
#include "check.hpp"
#include "oracle.hpp"

namespace {

constexpr float kUntouched = 12345.0F;

std::mt19937& chance() {
    static std::mt19937 generator(20);
    return generator;
}

float uniform() { return static_cast<float>(chance()()) * 0x1p-31F - 1.0F; }

// Memory of exactly this size, so that an address sanitizer sees the first byte beyond it.
template <class T>
class Exactly {
  public:
    explicit Exactly(std::size_t n) : values_(memory_.take(n)) {}
    Exactly(std::size_t n, T value) : Exactly(n) { std::ranges::fill(values_, value); }

    T* data() const { return values_.data(); }
    T& operator[](std::size_t i) const { return values_[i]; }
    std::size_t size() const { return values_.size(); }

  private:
    core::Buffer<T> memory_;
    std::span<T> values_;
};

Exactly<float> random_floats(std::size_t n) {
    Exactly<float> values(n);
    for (std::size_t i = 0; i < n; ++i) { values[i] = uniform(); }
    return values;
}

Exactly<float> random_norms(std::size_t n) {
    Exactly<float> values(n);
    for (std::size_t i = 0; i < n; ++i) { values[i] = std::fabs(uniform()); }
    return values;
}

// Is a float32 computation of the norms' sum less 2 x.y within its error bound? See mining/batch.cpp.
bool is_close(float got, float x_norm, float y_norm, const float* x, const float* y, std::size_t y_stride, std::size_t size) {
    double product = 0.0, magnitude = 0.0;
    for (std::size_t k = 0; k < size; ++k) {
        const double term = static_cast<double>(x[k]) * static_cast<double>(y[k * y_stride]);
        product += term;
        magnitude += std::fabs(term);
    }
    const double norms = static_cast<double>(x_norm) + static_cast<double>(y_norm);
    const double bound = (static_cast<double>(size) + 5.0) * 0x1p-24 * (norms + 2.0 * magnitude);
    return std::fabs(static_cast<double>(got) - (norms - 2.0 * product)) <= bound;
}

void test_tile(const simd::Kernels& kernels) {
    const std::size_t width = kernels.panel_columns;
    for (const std::size_t size : {16U, 32U, 48U, 128U, 272U, 512U, 1024U}) {
        for (const std::size_t more : {0U, 16U}) {
            const std::size_t row_stride = size + more, out_stride = width * (1 + 2 * more);
            const auto rows = random_floats(kernels.tile_rows * row_stride);
            const auto panel = random_floats(size * width);
            const auto row_norms = random_norms(kernels.tile_rows);
            const auto norms = random_norms(width);
            const Exactly<float> out((kernels.tile_rows - 1) * out_stride + width, kUntouched);
            kernels.tile(rows.data(), row_norms.data(), row_stride, panel.data(), norms.data(), size, out.data(),
                         out_stride);
            for (std::size_t i = 0; i < out.size(); ++i) {
                const std::size_t row = i / out_stride, column = i % out_stride;
                const std::string where = std::string(kernels.name) + " tile, size " + std::to_string(size) + ", row " +
                                          std::to_string(row) + ", column " + std::to_string(column);
                if (column >= width) {
                    check::that(out[i] == kUntouched, where + " was not to be written");
                } else {
                    check::that(is_close(out[i], row_norms[row], norms[column], rows.data() + row * row_stride,
                                         panel.data() + column, width, size),
                                where);
                }
            }
        }
    }
}

void test_gather(const simd::Kernels& kernels) {
    const std::size_t n_rows = 37;
    for (const std::size_t size : {16U, 48U, 128U, 512U}) {
        const std::size_t stride = size + (size == 48 ? 16 : 0);
        const auto x = random_floats(size);
        const auto rows = random_floats(n_rows * stride);
        const auto norms = random_norms(n_rows);
        for (std::size_t n = 0; n <= 35; ++n) {
            const Exactly<std::int32_t> indices(n);
            for (std::size_t i = 0; i < n; ++i) { indices[i] = static_cast<std::int32_t>(chance()() % n_rows); }
            const Exactly<float> out(n, kUntouched);
            kernels.gather(x.data(), 0.75F, rows.data(), stride, norms.data(), indices.data(), n, size, out.data());
            for (std::size_t i = 0; i < n; ++i) {
                const auto row = static_cast<std::size_t>(indices[i]);
                check::that(is_close(out[i], 0.75F, norms[row], x.data(), rows.data() + row * stride, 1, size),
                            std::string(kernels.name) + " gather, size " + std::to_string(size) + ", " +
                                std::to_string(i) + " of " + std::to_string(n));
            }
        }
    }
}

// A handful of values, so that many lie on the edges.
float nasty() {
    const float infinity = std::numeric_limits<float>::infinity();
    const float values[] = {-infinity, -1.0F, -0.0F, 0.0F,     std::numeric_limits<float>::denorm_min(),
                            0.25F,     0.5F,  2.0F,  infinity, std::numeric_limits<float>::quiet_NaN()};
    return values[chance()() % std::size(values)];
}

// n of them at any offset; behind them lies what would pass, were it looked at.
Exactly<float> nasty_floats(std::size_t offset, std::size_t n, float behind) {
    Exactly<float> values(offset + n + simd::kSlack, behind);
    for (std::size_t i = 0; i < n; ++i) { values[offset + i] = nasty(); }
    return values;
}

struct Passed {
    std::vector<std::size_t> places;

    Passed(const float* values, std::size_t n, float low, float high) {
        for (std::size_t i = 0; i < n; ++i) {
            if (low <= values[i] && values[i] < high) { places.push_back(i); }
        }
    }
};

bool same_bits(float x, float y) { return std::bit_cast<std::uint32_t>(x) == std::bit_cast<std::uint32_t>(y); }

void test_filters_once(const simd::Kernels& kernels, std::size_t n, std::size_t offset, float low, float high,
                       std::int32_t first) {
    const auto values = nasty_floats(offset, n, low);
    const float* from = values.data() + offset;
    const auto expected = Passed(from, n, low, high).places;
    const std::string where = std::string(kernels.name) + ", n " + std::to_string(n) + ", offset " +
                              std::to_string(offset) + ", [" + std::to_string(low) + ", " + std::to_string(high) + ")";

    const Exactly<float> out_values(offset + n + simd::kSlack, kUntouched);
    const Exactly<std::int32_t> out_columns(offset + n + simd::kSlack, -7);
    const auto agrees = [&](std::size_t found, const std::int32_t* columns) {
        bool same = found == expected.size();
        for (std::size_t i = 0; same && i < found; ++i) {
            same = same_bits(out_values[offset + i], from[expected[i]]) && out_columns[offset + i] == columns[expected[i]];
        }
        for (std::size_t i = 0; i < offset; ++i) { same = same && same_bits(out_values[i], kUntouched) && out_columns[i] == -7; }
        return same;
    };
    const Exactly<std::int32_t> columns(n + simd::kSlack);
    for (std::size_t i = 0; i < columns.size(); ++i) { columns[i] = first + static_cast<std::int32_t>(std::min(i, n)); }
    const std::size_t found =
        kernels.filter(from, n, low, high, first, out_values.data() + offset, out_columns.data() + offset);
    check::that(agrees(found, columns.data()), "filter: " + where);

    for (std::size_t i = 0; i < n; ++i) { columns[i] = static_cast<std::int32_t>(chance()()); }
    const std::size_t refound = kernels.refilter(from, columns.data(), n, low, high, out_values.data() + offset,
                                                 out_columns.data() + offset);
    check::that(agrees(refound, columns.data()), "refilter: " + where);

    std::copy_n(from, n, out_values.data() + offset);
    std::copy_n(columns.data(), n, out_columns.data() + offset);
    const std::size_t in_place =
        kernels.refilter(out_values.data() + offset, out_columns.data() + offset, n, low, high,
                         out_values.data() + offset, out_columns.data() + offset);
    check::that(agrees(in_place, columns.data()), "refilter in place: " + where);

    for (std::size_t rank = 0; rank < expected.size(); rank += 1 + expected.size() / 7) {
        check::that(kernels.select(from, n, low, high, rank) == expected[rank], "select: " + where);
    }
}

void test_filters(const simd::Kernels& kernels) {
    const float infinity = std::numeric_limits<float>::infinity();
    const float edges[][2] = {{-infinity, infinity}, {-1.0F, 0.5F}, {0.0F, 0.25F}, {0.25F, 0.25F},
                              {0.5F, -1.0F},         {-16.0F, 16.0F}, {-0.0F, std::numeric_limits<float>::denorm_min()}};
    for (const auto& [low, high] : edges) {
        for (std::size_t n = 0; n <= 67; ++n) { test_filters_once(kernels, n, n % 17, low, high, 0); }
        for (const std::size_t n : {255U, 256U, 257U, 1000U}) {
            test_filters_once(kernels, n, n % 5, low, high, std::numeric_limits<std::int32_t>::max() - 1000);
        }
    }
}

void test_count(const simd::Kernels& kernels) {
    const float infinity = std::numeric_limits<float>::infinity();
    for (const simd::Edges& edges : {simd::Edges{-1.0F, 0.0F, 0.25F, 0.5F}, simd::Edges{-16.0F, -16.0F, 0.25F, 0.5F},
                                     simd::Edges{-0.0F, 0.5F, 0.25F, infinity}}) {
        for (std::size_t n = 0; n <= 67; ++n) {
            const auto values = nasty_floats(n % 17, n, 0.0F);
            const float* from = values.data() + n % 17;
            const simd::Counts counts = kernels.count(from, n, edges);
            check::that(counts.possible == Passed(from, n, edges.possible_low, edges.possible_high).places.size() &&
                            counts.sure == Passed(from, n, edges.sure_low, edges.sure_high).places.size(),
                        std::string(kernels.name) + " count, n " + std::to_string(n));
        }
    }
}

void test_transpose(const simd::Kernels& kernels) {
    for (const std::size_t side : {16U, 48U, 240U}) {
        const auto from = random_floats(side * side);
        const Exactly<float> to(side * side, kUntouched);
        kernels.transpose(from.data(), side, to.data());
        bool same = true;
        for (std::size_t r = 0; r < side; ++r) {
            for (std::size_t c = 0; c < side; ++c) { same = same && same_bits(to[c * side + r], from[r * side + c]); }
        }
        check::that(same, std::string(kernels.name) + " transpose, side " + std::to_string(side));
    }
}

// To the last bit, rows anywhere in memory: they are the caller's own.
template <class Scalar>
void test_exact(const simd::Kernels& kernels, double (*exact)(const Scalar*, const Scalar*, std::size_t) noexcept) {
    for (std::size_t size = 1; size <= 520; size += size < 40 ? 1 : 37) {
        for (const double scale : {1.0, 1e-30, 1e30}) {
            const std::size_t at = 1 + size % 3;
            const Exactly<Scalar> x(at + size), y(at + 1 + size);
            for (std::size_t k = 0; k < x.size(); ++k) { x[k] = static_cast<Scalar>(scale * std::exp2(9.0 * uniform())); }
            for (std::size_t k = 0; k < y.size(); ++k) { y[k] = static_cast<Scalar>(scale * uniform()); }
            const double got = exact(x.data() + at, y.data() + at + 1, size);
            const double expected = oracle::squared_distance(x.data() + at, y.data() + at + 1, size);
            check::that(std::bit_cast<std::uint64_t>(got) == std::bit_cast<std::uint64_t>(expected),
                        std::string(kernels.name) + " exact, " + std::to_string(sizeof(Scalar)) + " bytes, size " +
                            std::to_string(size));
        }
    }
}

void test_choosing() {
    const auto tables = simd::available();
    check::that(&simd::kernels() == tables.front(), "the best table is the default");
    check::that(std::string(tables.back()->name) == "baseline", "every machine has the baseline");
    for (const simd::Kernels* table : tables) {
        check::that(simd::choose(table->name) && &simd::kernels() == table, "a table is chosen by its name");
        check::that(!simd::choose("abacus") && &simd::kernels() == table, "an unknown name changes nothing");
    }
    simd::choose(tables.front()->name);
}

}  // namespace

int main() {
    test_choosing();
    for (const simd::Kernels* kernels : simd::available()) {
        std::printf("%s\n", kernels->name);
        test_tile(*kernels);
        test_gather(*kernels);
        test_filters(*kernels);
        test_count(*kernels);
        test_transpose(*kernels);
        test_exact<float>(*kernels, kernels->exact_f32);
        test_exact<double>(*kernels, kernels->exact_f64);
    }
    return check::report();
}
