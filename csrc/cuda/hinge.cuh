// The hinge losses of all candidates, and their gradient: one coefficient for each anchor and row sums up what all of their
// triplets pull or push, and the gradient is the sum of the differences of rows, each times its coefficient.
#pragma once

#include "pick.cuh"

namespace cuda {

struct HingeSettings {
    double margin;          // in the unit of the band
    const double* weights;  // by grouped row
    double* losses;         // by grouped row
    std::int64_t* n_triplets;
    simd::Edges* edges;  // by pair; scratch
};

// Roots of shorter squared distances would have too large an error: at this many times what is in doubt, it is below 2^-13.
inline constexpr float kRootDoubts = 4096.0F;

// Of the distance by the squared distance; none where two rows coincide.
__device__ inline double slope_of(const mining::Band& band, double squared_distance) {
    if (!band.root) { return 1.0; }
    return squared_distance > 0.0 ? 0.5 / sqrt(squared_distance) : 0.0;
}

// A block an anchor whose candidates are listed and counted: its loss, and coefficients in the place of its distances.
template <class Scalar>
__global__ void __launch_bounds__(kSearchThreads)
    weigh_candidates(Batch<Scalar> batch, Pairs pairs, Rule rule, Stripe stripe, HingeSettings settings) {
    __shared__ double sums[kSearchWarps];
    __shared__ std::int64_t counts[kSearchWarps];
    const std::size_t at = blockIdx.x;
    const int anchor = stripe.anchors[at], n_pairs = pairs.n_of[anchor], n = stripe.n_listed[at];
    const int thread = static_cast<int>(threadIdx.x), n_threads = static_cast<int>(blockDim.x);
    const std::int64_t first = pairs.first[anchor];
    const mining::Band& band = rule.edges.band;
    const float doubt = batch.doubt(anchor);
    const double per_scaled = 1.0 / batch.scaling.squared_scale, weight = settings.weights[anchor];
    const float* listed = stripe.listed + at * stripe.stride;
    const std::int32_t* columns = stripe.columns + at * stripe.stride;
    float* coefficients = stripe.distances_of(at);
    for (std::size_t column = threadIdx.x; column < stripe.stride; column += blockDim.x) { coefficients[column] = 0.0F; }
    for (int i = thread; i < n_pairs; i += n_threads) {
        settings.edges[first + i] = rule.edges(doubt, batch.scaled(pairs.d_ap[first + i]));
    }
    __syncthreads();

    double loss = 0.0;
    for (int i = thread; i < n; i += n_threads) {
        int n_of = 0;  // pairs whose candidate it is
        double exact = -1.0;
        for (int pair = 0; pair < n_pairs; ++pair) {
            const simd::Edges& edges = settings.edges[first + pair];
            bool holds = mining::is_sure(edges, listed[i]);
            if (!holds && mining::is_possible(edges, listed[i])) {
                if (exact < 0.0) { exact = batch.exact_squared_distance(anchor, columns[i]); }
                holds = band(pairs.d_ap[first + pair], exact);
            }
            n_of += holds ? 1 : 0;
        }
        if (n_of == 0) { continue; }
        if (exact < 0.0) {
            exact = band.root && listed[i] < kRootDoubts * doubt ? batch.exact_squared_distance(anchor, columns[i])
                                                                 : static_cast<double>(listed[i]) * per_scaled;
        }
        loss -= n_of * band.unsquared(exact);
        coefficients[columns[i]] = static_cast<float>(-2.0 * n_of * weight * slope_of(band, exact));
    }
    std::int64_t n_triplets = 0;
    for (int i = thread; i < n_pairs; i += n_threads) {
        const double d_ap = pairs.d_ap[first + i];
        const int n_of = pairs.n_candidates[first + i];
        n_triplets += n_of;
        loss += n_of * (band.unsquared(d_ap) + settings.margin);
        coefficients[pairs.positives[first + i]] = static_cast<float>(2.0 * n_of * weight * slope_of(band, d_ap));
    }
    loss = sum_of_block(loss, sums);
    n_triplets = sum_of_block(n_triplets, counts);
    if (threadIdx.x == 0) {
        settings.losses[anchor] = loss > 0.0 ? loss : 0.0;  // which rounding may miss by a little
        settings.n_triplets[anchor] = n_triplets;
    }
}

inline constexpr int kPullSide = 32;
inline constexpr unsigned kPullThreads = 256;

// gradient of target += the sum over sources of coefficient (target - source). The stripe's anchors are the targets and all
// rows the sources, or the other way round. A block has kPullSide targets and numbers of a row, a thread four targets of one
// number.
template <class Scalar>
__global__ void __launch_bounds__(kPullThreads) pull(Batch<Scalar> batch, Stripe stripe, bool to_anchors, Scalar* gradient) {
    __shared__ float coefficients[kPullSide][kPullSide + 1];
    __shared__ Scalar sources[kPullSide][kPullSide];
    constexpr int kEach = kPullSide * kPullSide / static_cast<int>(kPullThreads);
    const int n_targets = to_anchors ? stripe.n : batch.n, n_sources = to_anchors ? batch.n : stripe.n;
    const int first_target = static_cast<int>(blockIdx.x) * kPullSide;
    const int x = static_cast<int>(threadIdx.x) % kPullSide, y = static_cast<int>(threadIdx.x) / kPullSide;
    const int k = static_cast<int>(blockIdx.y) * kPullSide + x;
    const auto target_of = [&](int i) { return to_anchors ? stripe.anchors[i] : i; };
    const auto source_of = [&](int i) { return to_anchors ? i : stripe.anchors[i]; };
    Scalar own[kEach] = {}, sums[kEach] = {};
    for (int i = 0; i < kEach; ++i) {
        const int target = first_target + y * kEach + i;
        if (target < n_targets && k < batch.size) { own[i] = batch.row(target_of(target))[k]; }
    }
    for (int begin = 0; begin < n_sources; begin += kPullSide) {
        for (int i = 0; i < kEach; ++i) {
            const int source = begin + y * kEach + i;
            sources[y * kEach + i][x] = source < n_sources && k < batch.size ? batch.row(source_of(source))[k] : Scalar{0};
            // Neighbouring threads read neighbouring columns, whichever side those are on.
            const int by_anchor = y * kEach + i, by_column = x;
            const int anchor = (to_anchors ? first_target : begin) + by_anchor;
            const int column = (to_anchors ? begin : first_target) + by_column;
            const float c = anchor < stripe.n && column < batch.n
                                ? stripe.distances_of(static_cast<std::size_t>(anchor))[column]
                                : 0.0F;
            coefficients[to_anchors ? by_anchor : by_column][to_anchors ? by_column : by_anchor] = c;
        }
        __syncthreads();
        for (int source = 0; source < kPullSide; ++source) {
            for (int i = 0; i < kEach; ++i) {
                const auto c = static_cast<Scalar>(coefficients[y * kEach + i][source]);
                sums[i] += c * (own[i] - sources[source][x]);
            }
        }
        __syncthreads();
    }
    for (int i = 0; i < kEach; ++i) {
        const int target = first_target + y * kEach + i;
        if (target < n_targets && k < batch.size) {
            gradient[static_cast<std::size_t>(batch.order[target_of(target)]) * batch.size + k] += sums[i];
        }
    }
}

template <class Scalar>
__global__ void scale_by(Scalar* values, std::size_t n, double factor) {
    const std::size_t i = static_cast<std::size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < n) { values[i] = static_cast<Scalar>(static_cast<double>(values[i]) * factor); }
}

}  // namespace cuda
