// Every instruction set's kernels against float64 arithmetic written out, at every remainder and edge.
#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
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

bool same_bits(float x, float y) { return std::bit_cast<std::uint32_t>(x) == std::bit_cast<std::uint32_t>(y); }

// Is a float32 computation of the norms' sum less 2 x.y within its error bound? See mining/batch.cpp.
bool is_close(float got, float x_norm, float y_norm, const float* x, const float* y, std::size_t y_stride,
              std::size_t size) {
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

bool bit(const Exactly<std::uint64_t>& bits, std::size_t row, std::size_t column) {
    return (bits[row * simd::kBitWords + column / 64] >> (column % 64) & 1U) != 0;
}

Exactly<std::uint64_t> random_bits(std::size_t n_rows, unsigned eighths) {
    Exactly<std::uint64_t> bits(n_rows * simd::kBitWords, 0);
    for (std::size_t i = 0; i < bits.size() * 64; ++i) {
        if (chance()() % 8 < eighths) { bits[i / 64] |= std::uint64_t{1} << (i % 64); }
    }
    return bits;
}

void test_tile_once(const simd::Kernels& kernels, std::size_t size, std::size_t row_stride, std::size_t out_stride,
                    std::size_t first_bit, bool both_sides) {
    const std::size_t width = kernels.panel_columns;
    const auto rows = random_floats(kernels.tile_rows * row_stride);
    const auto panel = random_floats(size * width);
    const auto row_norms = random_norms(kernels.tile_rows), norms = random_norms(width);
    auto row_limits = random_floats(kernels.tile_rows), limits = random_floats(width);
    const Exactly<float> out((kernels.tile_rows - 1) * out_stride + width, kUntouched);
    const auto row_bits = random_bits(kernels.tile_rows, 4), row_bits_before = random_bits(kernels.tile_rows, 0);
    const auto column_bits = random_bits(kernels.tile_rows, 4), column_bits_before = random_bits(kernels.tile_rows, 0);
    std::copy_n(row_bits.data(), row_bits.size(), row_bits_before.data());
    std::copy_n(column_bits.data(), column_bits.size(), column_bits_before.data());
    const auto call = [&] {
        kernels.tile(rows.data(), row_norms.data(), row_stride, panel.data(), norms.data(), size,
                     {row_limits.data(), limits.data()}, first_bit, out.data(), out_stride, row_bits.data(),
                     both_sides ? column_bits.data() : nullptr);
    };
    call();
    // Limits that are distances: of these none is below.
    for (std::size_t r = 0; r < kernels.tile_rows; r += 2) { row_limits[r] = out[r * out_stride + r % width]; }
    for (std::size_t c = 0; c < width; c += 2) { limits[c] = out[c % kernels.tile_rows * out_stride + c]; }
    call();
    const std::string what = std::string(kernels.name) + " tile, size " + std::to_string(size);
    for (std::size_t i = 0; i < out.size(); ++i) {
        const std::size_t row = i / out_stride, column = i % out_stride;
        const std::string where = what + ", row " + std::to_string(row) + ", column " + std::to_string(column);
        if (column >= width) {
            check::that(out[i] == kUntouched, where + " was not to be written");
        } else {
            check::that(is_close(out[i], row_norms[row], norms[column], rows.data() + row * row_stride,
                                 panel.data() + column, width, size),
                        where);
        }
    }
    for (std::size_t r = 0; r < kernels.tile_rows; ++r) {
        for (std::size_t c = 0; c < simd::kBitColumns; ++c) {
            const bool written = first_bit <= c && c < first_bit + width;
            const float distance = written ? out[r * out_stride + c - first_bit] : 0.0F;
            check::that(bit(row_bits, r, c) == (written ? distance < row_limits[r] : bit(row_bits_before, r, c)),
                        what + ", bits of the rows");
            check::that(bit(column_bits, r, c) == (written && both_sides ? distance < limits[c - first_bit]
                                                                         : bit(column_bits_before, r, c)),
                        what + ", bits of the columns");
        }
    }
}

void test_tile(const simd::Kernels& kernels) {
    const std::size_t width = kernels.panel_columns;
    for (const std::size_t size : {16U, 32U, 48U, 128U, 272U, 512U, 1024U}) {
        test_tile_once(kernels, size, size, width, 0, true);
        test_tile_once(kernels, size, size + 16, 33 * width, size / 16 % 4 * width, true);
        test_tile_once(kernels, size, size, 2 * width, simd::kBitColumns - width, false);
    }
}

void test_interleave(const simd::Kernels& kernels) {
    const std::size_t width = kernels.panel_columns;
    for (const std::size_t size : {16U, 48U, 512U}) {
        for (const std::size_t stride : {size, size + 16}) {
            const auto rows = random_floats((width - 1) * stride + size);
            const Exactly<float> panel(size * width, kUntouched);
            kernels.interleave(rows.data(), stride, size, panel.data());
            bool same = true;
            for (std::size_t i = 0; i < panel.size(); ++i) {
                same = same && same_bits(panel[i], rows[i % width * stride + i / width]);
            }
            check::that(same, std::string(kernels.name) + " interleave, size " + std::to_string(size));
        }
    }
}

// Rows and columns of a map, sparse and dense, against a look at each bit.
void test_sifts(const simd::Kernels& kernels) {
    for (const unsigned eighths : {0U, 1U, 4U, 8U}) {
        for (const std::size_t n_rows : {1U, 7U, 60U, 256U}) {
            const std::string what = std::string(kernels.name) + ", rows " + std::to_string(n_rows) + ", eighths " +
                                     std::to_string(eighths);
            const std::size_t stride = simd::kBitColumns;
            const auto values = random_floats(n_rows * stride + simd::kSlack);
            const auto bits = random_bits(n_rows, eighths);
            for (std::size_t r = 0; r < n_rows; ++r) {
                const std::size_t n = r == 0 ? simd::kBitColumns : chance()() % (simd::kBitColumns + 1);
                for (std::size_t c = n; c < simd::kBitColumns; ++c) {
                    bits[r * simd::kBitWords + c / 64] &= ~(std::uint64_t{1} << (c % 64));
                }
                const Exactly<float> out(n + simd::kSlack);
                const Exactly<std::int32_t> columns(n + simd::kSlack);
                const std::size_t found = kernels.sift_row(values.data() + r * stride, bits.data() + r * simd::kBitWords, n,
                                                           700, out.data(), columns.data());
                std::size_t expected = 0;
                bool same = true;
                for (std::size_t c = 0; c < n; ++c) {
                    if (!bit(bits, r, c)) { continue; }
                    same = same && same_bits(out[expected], values[r * stride + c]) &&
                           columns[expected] == 700 + static_cast<std::int32_t>(c);
                    ++expected;
                }
                check::that(same && found == expected, "sift_row: " + what);
            }

            const Exactly<std::uint32_t> counts(simd::kBitColumns);
            kernels.count_columns(bits.data(), n_rows, counts.data());
            const Exactly<std::size_t> places(simd::kBitColumns);
            std::vector<std::size_t> begins;
            std::size_t total = 0;
            for (std::size_t c = 0; c < simd::kBitColumns; ++c) {
                begins.push_back(total);
                places[c] = total;
                std::size_t n = 0;
                for (std::size_t r = 0; r < n_rows; ++r) { n += bit(bits, r, c) ? 1 : 0; }
                check::that(counts[c] == n, "count_columns: " + what);
                total += n;
            }
            const Exactly<float> out(total);
            const Exactly<std::int32_t> from(total);
            kernels.sift_columns(values.data(), stride, bits.data(), n_rows, -5, places.data(), out.data(), from.data());
            bool same = true;
            for (std::size_t c = 0; c < simd::kBitColumns; ++c) {
                std::size_t place = begins[c];
                for (std::size_t r = 0; r < n_rows; ++r) {
                    if (!bit(bits, r, c)) { continue; }
                    same = same && same_bits(out[place], values[r * stride + c]) &&
                           from[place] == static_cast<std::int32_t>(r) - 5;
                    ++place;
                }
                same = same && places[c] == place;
            }
            check::that(same, "sift_columns: " + what);
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

// Of so many values as `one_in` is only one any but NaN.
void test_filters_once(const simd::Kernels& kernels, std::size_t n, std::size_t offset, float low, float high,
                       std::size_t one_in) {
    const auto values = nasty_floats(offset, n, low);
    for (std::size_t i = offset; i < offset + n; ++i) {
        if (chance()() % one_in != 0) { values[i] = std::numeric_limits<float>::quiet_NaN(); }
    }
    const float* from = values.data() + offset;
    const auto expected = Passed(from, n, low, high).places;
    const std::string where = std::string(kernels.name) + ", n " + std::to_string(n) + ", offset " +
                              std::to_string(offset) + ", [" + std::to_string(low) + ", " + std::to_string(high) + ")";

    const Exactly<float> out_values(offset + n + simd::kSlack, kUntouched);
    const Exactly<std::int32_t> columns(n + simd::kSlack), out_columns(offset + n + simd::kSlack, -7);
    for (std::size_t i = 0; i < n; ++i) { columns[i] = static_cast<std::int32_t>(chance()()); }
    const auto agrees = [&](std::size_t found) {
        bool same = found == expected.size();
        for (std::size_t i = 0; same && i < found; ++i) {
            same = same_bits(out_values[offset + i], from[expected[i]]) && out_columns[offset + i] == columns[expected[i]];
        }
        for (std::size_t i = 0; i < offset; ++i) {
            same = same && same_bits(out_values[i], kUntouched) && out_columns[i] == -7;
        }
        return same;
    };
    check::that(agrees(kernels.filter(from, columns.data(), n, low, high, out_values.data() + offset,
                                        out_columns.data() + offset)),
                "filter: " + where);

    std::copy_n(from, n, out_values.data() + offset);
    std::copy_n(columns.data(), n, out_columns.data() + offset);
    check::that(agrees(kernels.filter(out_values.data() + offset, out_columns.data() + offset, n, low, high,
                                        out_values.data() + offset, out_columns.data() + offset)),
                "filter in place: " + where);

    for (std::size_t rank = 0; rank < expected.size(); rank += 1 + expected.size() / 7) {
        check::that(kernels.select(from, n, low, high, rank) == expected[rank], "select: " + where);
    }
}

void test_filters(const simd::Kernels& kernels) {
    const float infinity = std::numeric_limits<float>::infinity();
    const float edges[][2] = {{-infinity, infinity}, {-1.0F, 0.5F}, {0.0F, 0.25F}, {0.25F, 0.25F},
                              {0.5F, -1.0F},         {-16.0F, 16.0F}, {-0.0F, std::numeric_limits<float>::denorm_min()}};
    for (const auto& [low, high] : edges) {
        for (const std::size_t one_in : {1U, 5U, 40U}) {
            for (std::size_t n = 0; n <= 67; ++n) { test_filters_once(kernels, n, n % 17, low, high, one_in); }
            for (const std::size_t n : {127U, 128U, 129U, 255U, 256U, 257U, 1000U}) {
                test_filters_once(kernels, n, n % 5, low, high, one_in);
            }
        }
    }
}

void test_count(const simd::Kernels& kernels) {
    const float infinity = std::numeric_limits<float>::infinity();
    const float lowest = std::numeric_limits<float>::lowest();
    for (const simd::Edges& edges : {simd::Edges{-1.0F, 0.0F, 0.25F, 0.5F}, simd::Edges{-16.0F, -16.0F, 0.25F, 0.5F},
                                     simd::Edges{-0.0F, 0.5F, 0.25F, infinity}, simd::Edges{lowest, lowest, 0.0F, 0.5F},
                                     simd::Edges{lowest, 0.0F, 0.25F, 0.5F}, simd::Edges{lowest, lowest, -0.0F, -0.0F}}) {
        for (std::size_t n = 0; n <= 200; n += n < 67 ? 1 : 19) {
            const auto values = nasty_floats(n % 17, n, edges.possible_low == lowest ? lowest : 0.0F);
            // Distances are finite: none is below the lowest number.
            for (std::size_t i = 0; i < values.size(); ++i) { values[i] = values[i] == -infinity ? lowest : values[i]; }
            const float* from = values.data() + n % 17;
            const simd::Counts counts = kernels.count(from, n, edges);
            check::that(counts.possible == Passed(from, n, edges.possible_low, edges.possible_high).places.size() &&
                            counts.sure == Passed(from, n, edges.sure_low, edges.sure_high).places.size(),
                        std::string(kernels.name) + " count, n " + std::to_string(n));
        }
    }
}

// No distance at all.
constexpr float kFar = 0x1p40F;

// Falling thresholds of n ranks, after one above all, from a handful of values or from many.
std::vector<float> random_thresholds(std::size_t n, bool few) {
    std::vector<float> values(n);
    for (float& value : values) { value = few ? 0.25F * static_cast<float>(chance()() % 8) : 1.0F + uniform(); }
    std::ranges::sort(values, std::greater());
    values.insert(values.begin(), -simd::kNoLow);
    return values;
}

// Those that are lower, each by something; none where there are to be none.
std::vector<float> lower_thresholds(std::vector<float> values, bool few) {
    for (std::size_t i = 1; i < values.size(); ++i) { values[i] -= few ? 0.25F : 0.1F * std::fabs(uniform()); }
    std::ranges::sort(values, std::greater());
    return values;
}

// What a row or a column thinks of a distance, by a look at each threshold.
struct Opinion {
    std::size_t high = 0, low = 0;
    bool is_doubtful = false;

    Opinion(float distance, float doubt, const std::vector<float>& highs, const std::vector<float>& lows) {
        const auto rank = [&](const std::vector<float>& thresholds) {
            std::size_t n = 0;
            for (std::size_t i = 1; i < thresholds.size(); ++i) {
                n += distance < thresholds[i] ? 1 : 0;
                is_doubtful = is_doubtful || (distance - doubt < thresholds[i] && thresholds[i] < distance + doubt);
            }
            return n;
        };
        high = rank(highs);
        low = rank(lows);
    }
    double n() const { return static_cast<double>(high) - static_cast<double>(low); }
};

// Thresholds of a group side by side.
Exactly<float> side_by_side(const std::vector<std::vector<float>>& lanes, std::size_t n) {
    Exactly<float> values((n + 1) * simd::kGroupColumns, simd::kNoLow);
    for (std::size_t lane = 0; lane < lanes.size(); ++lane) {
        for (std::size_t i = 0; i < lanes[lane].size(); ++i) { values[i * simd::kGroupColumns + lane] = lanes[lane][i]; }
    }
    return values;
}

struct RankCase {
    std::size_t n_groups, most;  // thresholds
    bool few, has_low, root, for_columns;
    float doubt;
};

void test_rank_once(const simd::Kernels& kernels, const RankCase& its) {
    const std::string what = std::string(kernels.name) + " rank, thresholds " + std::to_string(its.most) + ", groups " +
                             std::to_string(its.n_groups) + (its.has_low ? ", low" : "") + (its.root ? ", root" : "") +
                             (its.for_columns ? ", columns" : "");
    const std::size_t n = its.n_groups * simd::kGroupColumns;
    const float too_short = its.root ? 0.125F : -kFar;
    const auto lows_of = [&](const std::vector<float>& highs) {
        return its.has_low ? lower_thresholds(highs, its.few) : std::vector<float>{};
    };
    const auto highs = random_thresholds(chance()() % 2 == 0 ? its.most : chance()() % (its.most + 1), its.few);
    const auto lows = lows_of(highs);
    std::vector<std::vector<float>> column_highs, column_lows;
    std::vector<Exactly<float>> group_highs, group_lows;
    const Exactly<simd::Thresholds> columns(its.n_groups);
    for (std::size_t group = 0; group < its.n_groups; ++group) {
        // All as many, or each another number, or none.
        const std::size_t way = chance()() % 4, usual = way == 0 ? 0 : 1 + chance()() % (its.most + 1);
        std::size_t most = 0, least = its.most + 1;
        for (std::size_t lane = 0; lane < simd::kGroupColumns; ++lane) {
            const std::size_t n_its = way == 1 ? chance()() % (its.most + 1) : std::min(usual, its.most);
            most = std::max(most, n_its);
            least = std::min(least, n_its);
            column_highs.push_back(random_thresholds(n_its, its.few));
            column_lows.push_back(lows_of(column_highs.back()));
        }
        const auto last = static_cast<std::ptrdiff_t>(simd::kGroupColumns);
        group_highs.push_back(side_by_side({column_highs.end() - last, column_highs.end()}, most));
        group_lows.push_back(side_by_side({column_lows.end() - last, column_lows.end()}, most));
        columns[group] = {nullptr, nullptr, most, least};
    }
    for (std::size_t group = 0; group < its.n_groups; ++group) {
        columns[group].high = group_highs[group].data();
        columns[group].low = its.has_low ? group_lows[group].data() : nullptr;
    }

    const Exactly<float> distances(n);
    for (std::size_t i = 0; i < n; ++i) {
        distances[i] = its.few ? 0.25F * static_cast<float>(chance()() % 10) : 1.2F + 1.2F * uniform();
        // Float32 may have found less than nothing. Some groups are all far, and some all near.
        if (chance()() % 8 == 0) { distances[i] = chance()() % 2 == 0 ? kFar : -1e-6F; }
        if (i / simd::kGroupColumns % 5 == 3) { distances[i] = 5.0F; }
        if (i / simd::kGroupColumns % 5 == 4) { distances[i] = 0.13F; }
    }
    const std::vector<float> before(distances.data(), distances.data() + n);
    const auto weights = random_floats(n);
    const float row_weight = uniform();
    const Exactly<std::uint32_t> row_counts(highs.size(), 7);
    std::vector<Exactly<std::uint32_t>> counts;
    for (const auto& its_highs : column_highs) { counts.emplace_back(its_highs.size(), 9U); }
    const Exactly<std::uint32_t*> column_counts(n);
    for (std::size_t i = 0; i < n; ++i) { column_counts[i] = counts[i].data(); }
    const Exactly<float> sums(n, 0.5F), weight_sums(n, 0.25F);
    const Exactly<std::uint16_t> doubtful(its.n_groups, 0xABCD);
    const simd::RankSums got = kernels.rank({distances.data(), its.n_groups,
                                             {highs.data(), its.has_low ? lows.data() : nullptr, highs.size() - 1,
                                              highs.size() - 1},
                                             columns.data(), row_weight, weights.data(), its.doubt, too_short, its.root,
                                             row_counts.data(), its.for_columns ? column_counts.data() : nullptr,
                                             its.for_columns ? sums.data() : nullptr,
                                             its.for_columns ? weight_sums.data() : nullptr, doubtful.data()});

    std::vector<std::uint32_t> expected_counts(highs.size(), 7);
    simd::RankSums expected = {0.0, 0.0}, sizes = {0.0, 0.0};
    const auto is_near = [](double x, double y, double size) { return std::fabs(x - y) <= 1e-6 * size; };
    bool are_doubts_right = true, are_weights_right = true, are_columns_right = true, are_sums_right = true;
    for (std::size_t i = 0; i < n; ++i) {
        const Opinion row(before[i], its.doubt, highs, lows), column(before[i], its.doubt, column_highs[i], column_lows[i]);
        const bool is_short = before[i] < too_short, has_weight = row.high + column.high != 0;
        const bool is_left_out = (doubtful[i / 16] >> (i % 16) & 1U) != 0;
        const bool has_to_be = row.is_doubtful || column.is_doubtful || (is_short && has_weight);
        are_doubts_right = are_doubts_right && (is_left_out ? has_to_be || is_short : !has_to_be);
        std::vector<std::uint32_t> its_counts(column_highs[i].size(), 9);
        double weight = 0.0, distance = 0.0, weight_size = 0.0;
        if (!is_left_out) {
            distance = its.root ? std::sqrt(std::max(static_cast<double>(before[i]), 0.0)) : static_cast<double>(before[i]);
            const double slope = !its.root ? 1.0 : distance > 0.0 ? 0.5 / distance : 0.0;
            const double mine = row.n() * static_cast<double>(row_weight);
            const double theirs = column.n() * static_cast<double>(weights[i]);
            weight = -(mine + theirs) * slope;
            weight_size = (std::fabs(mine) + std::fabs(theirs)) * slope;
            ++expected_counts[row.high];
            --expected_counts[row.low];
            ++its_counts[column.high];
            --its_counts[column.low];
        }
        are_weights_right = are_weights_right && is_near(static_cast<double>(distances[i]), weight, weight_size);
        expected.distances += row.n() * distance;
        sizes.distances += row.n() * std::fabs(distance);
        expected.weights += weight;
        sizes.weights += weight_size;
        // The count of rank 0 means nothing.
        for (std::size_t rank = 1; rank < its_counts.size(); ++rank) {
            are_columns_right = are_columns_right && counts[i][rank] == (its.for_columns ? its_counts[rank] : 9);
        }
        const double sum = is_left_out ? 0.0 : column.n() * distance;
        const double its_sum = 0.5 + (its.for_columns ? sum : 0.0), its_weights = 0.25 + (its.for_columns ? weight : 0.0);
        are_sums_right = are_sums_right && is_near(static_cast<double>(sums[i]), its_sum, 1.0 + std::fabs(sum)) &&
                         is_near(static_cast<double>(weight_sums[i]), its_weights, 1.0 + weight_size);
    }
    bool are_counts_right = true;
    for (std::size_t rank = 1; rank < highs.size(); ++rank) {
        are_counts_right = are_counts_right && row_counts[rank] == expected_counts[rank];
    }
    check::that(are_doubts_right, what + ": what is in doubt");
    check::that(are_weights_right, what + ": weights");
    check::that(are_counts_right, what + ": the row's counts");
    check::that(are_columns_right, what + ": the columns' counts");
    check::that(are_sums_right, what + ": the columns' sums");
    check::that(is_near(got.distances, expected.distances, sizes.distances) &&
                    is_near(got.weights, expected.weights, sizes.weights),
                what + ": the row's sums");
}

void test_rank(const simd::Kernels& kernels) {
    for (const std::size_t most : {0U, 1U, 2U, 3U, 4U, 5U, 8U, 9U, 13U, 40U}) {
        for (const std::size_t n_groups : {0U, 1U, 6U}) {
            for (unsigned way = 0; way < 64; ++way) {
                const float doubts[] = {0x1p-18F, 0.01F, 0.0F, 40.0F};
                test_rank_once(kernels, {n_groups, most, way % 2 == 1, way / 2 % 2 == 1, way / 4 % 2 == 1, way / 8 % 2 == 1,
                                         doubts[way / 16]});
            }
        }
    }
}

// Weights of either layout, every number of sums.
void test_accumulate(const simd::Kernels& kernels) {
    for (std::size_t n_sums = 0; n_sums <= 40; ++n_sums) {
        for (const std::size_t size : {16U, 32U, 48U, 128U, 144U}) {
            const std::size_t n = size == 16 ? n_sums % 3 : 1 + chance()() % 100;
            for (const bool by_column : {false, true}) {
                const std::size_t row_step = by_column ? 1 : 101, step = by_column ? 43 : 1;
                const auto weights = random_floats(n * n_sums == 0 ? 0 : (n_sums - 1) * row_step + (n - 1) * step + 1);
                const auto rows = random_floats(n * size), sums = random_floats(n_sums * size);
                const std::vector<float> before(sums.data(), sums.data() + sums.size());
                kernels.accumulate(weights.data(), row_step, step, rows.data(), n, size, sums.data(), n_sums);
                bool is_right = true;
                for (std::size_t i = 0; i < sums.size(); ++i) {
                    auto sum = static_cast<double>(before[i]);
                    double magnitude = std::fabs(sum);
                    for (std::size_t j = 0; j < n; ++j) {
                        const double term = static_cast<double>(weights[i / size * row_step + j * step]) *
                                            static_cast<double>(rows[j * size + i % size]);
                        sum += term;
                        magnitude += std::fabs(term);
                    }
                    is_right = is_right && std::fabs(static_cast<double>(sums[i]) - sum) <= 2e-6 * magnitude;
                }
                check::that(is_right, std::string(kernels.name) + " accumulate, sums " + std::to_string(n_sums) + " of " +
                                          std::to_string(n) + ", size " + std::to_string(size));
            }
        }
    }
}

void test_pull(const simd::Kernels& kernels) {
    for (const std::size_t size : {16U, 32U, 48U, 512U}) {
        const auto x = random_floats(size), y = random_floats(size), to_x = random_floats(size), to_y = random_floats(size);
        const std::vector<float> x_before(to_x.data(), to_x.data() + size), y_before(to_y.data(), to_y.data() + size);
        const float weight = 3.0F * uniform();
        kernels.pull(x.data(), y.data(), weight, size, to_x.data(), to_y.data());
        bool is_right = true;
        for (std::size_t k = 0; k < size; ++k) {
            const double by = static_cast<double>(weight) * (static_cast<double>(x[k]) - static_cast<double>(y[k]));
            is_right = is_right && std::fabs(static_cast<double>(to_x[k]) - (static_cast<double>(x_before[k]) + by)) <= 1e-6 &&
                       std::fabs(static_cast<double>(to_y[k]) - (static_cast<double>(y_before[k]) - by)) <= 1e-6;
        }
        check::that(is_right, std::string(kernels.name) + " pull, size " + std::to_string(size));
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
        test_interleave(*kernels);
        test_gather(*kernels);
        test_sifts(*kernels);
        test_filters(*kernels);
        test_count(*kernels);
        test_rank(*kernels);
        test_accumulate(*kernels);
        test_pull(*kernels);
        test_exact<float>(*kernels, kernels->exact_f32);
        test_exact<double>(*kernels, kernels->exact_f64);
    }
    return check::report();
}
