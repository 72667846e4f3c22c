// The first of some columns by their distance from an anchor, exactly.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "../core/buffer.hpp"
#include "batch.hpp"
#include "decider.hpp"

namespace mining {

// Columns, in order, and how far they are from an anchor.
struct Candidates {
    const float* distances;
    const std::int32_t* columns;
    std::size_t n;
};

struct ExactMemory {
    core::Buffer<double> distances;
    core::Buffer<std::int32_t> anchors;
};

// Float64 distances from one anchor after the other, each computed once: where many embeddings coincide, every pair asks for
// all of them. In the caller's units.
class ExactDistances {
  public:
    ExactDistances(const Batch& batch, ExactMemory& memory) noexcept : batch_(batch), memory_(memory) {}

    // Before anything is asked, and with every new batch.
    static void reserve(std::size_t n_rows, ExactMemory& memory) {
        memory.distances.take(n_rows);
        std::ranges::fill(memory.anchors.take(n_rows), -1);
    }

    double operator()(std::size_t anchor, std::size_t column) noexcept {
        std::int32_t& measured_from = memory_.anchors.data()[column];
        double& distance = memory_.distances.data()[column];
        if (measured_from != static_cast<std::int32_t>(anchor)) {
            measured_from = static_cast<std::int32_t>(anchor);
            distance = batch_.exact_squared_distance(anchor, column);
        }
        return distance;
    }

  private:
    const Batch& batch_;
    ExactMemory& memory_;
};

struct LeadingMemory {
    core::Buffer<float> keys;
    core::Buffer<std::int32_t> places;
};

enum class From { kNearest, kFarthest };

// Places in the list of its k nearest, or farthest, in that order; of equally far ones, that whose tie is least comes first.
// All places where the list is shorter.
template <class Tie>
std::span<const std::int32_t> leading(From from, const Candidates& list, std::size_t k, std::size_t anchor, float doubt,
                                      ExactDistances& exact, LeadingMemory& memory, const Tie& tie) noexcept {
    if (list.n == 0 || k == 0) { return {}; }
    const float sign = from == From::kNearest ? 1.0F : -1.0F;
    // What is farther than this is behind k others for sure.
    float limit = 0.0F;
    if (k == 1) {
        float first = sign * list.distances[0];
        for (std::size_t i = 1; i < list.n; ++i) { first = std::min(first, sign * list.distances[i]); }
        limit = first + doubt;
    } else if (k < list.n) {
        const auto keys = memory.keys.take(list.n);
        for (std::size_t i = 0; i < list.n; ++i) { keys[i] = sign * list.distances[i]; }
        std::ranges::nth_element(keys, keys.begin() + static_cast<std::ptrdiff_t>(k - 1));
        limit = keys[k - 1] + doubt;
    } else {
        limit = std::numeric_limits<float>::max();
    }
    const auto places = memory.places.take(list.n);
    std::size_t n = 0;
    for (std::size_t i = 0; i < list.n; ++i) {
        places[n] = static_cast<std::int32_t>(i);
        n += sign * list.distances[i] <= limit ? 1 : 0;
    }
    if (n == 1) { return places.first(1); }
    const auto comes_before = [&](std::int32_t x, std::int32_t y) {
        const auto left = static_cast<std::size_t>(list.columns[x]), right = static_cast<std::size_t>(list.columns[y]);
        const double d_left = exact(anchor, left), d_right = exact(anchor, right);
        return d_left == d_right ? tie(left) < tie(right) : (d_left < d_right) == (from == From::kNearest);
    };
    if (k == 1) {
        places[0] = *std::min_element(places.begin(), places.begin() + static_cast<std::ptrdiff_t>(n), comes_before);
        return places.first(1);
    }
    std::sort(places.begin(), places.begin() + static_cast<std::ptrdiff_t>(n), comes_before);
    return places.first(std::min(n, k));
}

// Equally far columns in their order.
inline std::span<const std::int32_t> leading(From from, const Candidates& list, std::size_t k, std::size_t anchor, float doubt,
                                             ExactDistances& exact, LeadingMemory& memory) noexcept {
    return leading(from, list, k, anchor, doubt, exact, memory, [](std::size_t column) { return column; });
}

}  // namespace mining
