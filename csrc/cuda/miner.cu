// The driver of the device's miner, stage after stage on one stream.
//
// Pairs are listed, measured and chosen among (pairs.cuh); random negatives close what they can (draw.cuh). The anchors that
// have pairs left meet all rows in stripes: a stripe's distances are made (tile.cuh), its anchors' lists of possible negatives
// and what the rule asks of all of them (search.cuh), and its pairs' picks (pick.cuh). All distances of a batch are made at
// once where there is room, by half of the work; else no more than a stripe of them is ever there. Float32 decides what its
// error bound (mining/scaling.hpp) lets it decide, float64 the rest.
#include "miner.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <stdexcept>

#include "draw.cuh"
#include "hinge.cuh"
#include "results.cuh"
#include "tile.cuh"

namespace cuda {
namespace {

constexpr std::size_t rounded_up(std::size_t n, std::size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

unsigned n_blocks(std::size_t n, std::size_t each) { return static_cast<unsigned>((n + each - 1) / each); }

}  // namespace

struct Workspace::Memory {
    Buffer<unsigned char> values;
    Buffer<std::int32_t> order, begins, ends;
    Buffer<std::int64_t> offsets, members;
    Buffer<std::uint8_t> is_anchor, wished_anchors;
    Buffer<float> rows, norms;
    Buffer<double> squared_norms;
    Buffer<Norms> survey;

    Buffer<std::int64_t> first_candidate, first_pair;
    Buffer<std::int32_t> n_of, positives, picks, n_candidates, places;
    Buffer<std::uint8_t> has_fallen_back, marks;
    Buffer<double> d_ap;
    Buffer<unsigned long long> n_near;

    Buffer<int> n_hits, n_active;
    Buffer<double> samples;
    Buffer<std::int32_t> active;

    Buffer<float> distances, listed;
    Buffer<std::int32_t> columns, n_listed, fallbacks, bin_counts;
    Buffer<double> exact, weights, d_an_sums;
    Buffer<std::int64_t> row_starts;

    Buffer<std::int32_t> n_results;
    Buffer<std::int64_t> first_result;
    Buffer<Totals> row_totals, totals;

    Buffer<double> anchor_weights, losses;
    Buffer<std::int64_t> n_triplets;
    Buffer<simd::Edges> edges;
};

Workspace::Workspace() : memory_(std::make_unique<Memory>()) {}
Workspace::~Workspace() = default;

namespace {

// One call with rows of one type.
template <class Scalar>
class Mining {
  public:
    Mining(const Call& call, const Scalar* values, const mining::Rule& rule, Workspace& workspace)
        : call_(call),
          rule_(rule),
          memory_(workspace.memory()),
          whole_bytes_(workspace.whole_bytes),
          stripe_bytes_(workspace.stripe_bytes),
          stream_(call.stream),
          n_(call.n) {
        read(values, workspace.largest_rows);
    }

    Mining(const Mining&) = delete;
    Mining& operator=(const Mining&) = delete;
    // Whatever was thrown, nothing reads the caller's memory any more.
    ~Mining() { static_cast<void>(cudaStreamSynchronize(stream_)); }

    std::int64_t bad_row() const noexcept { return bad_row_; }

    // All that comes before negatives are looked at one by one.
    void prepare(Task task) {
        task_ = task;
        group();
        make_pairs();
        const bool draws = task == Task::kPick && rule_.draws();
        if (draws) { draw(); }
        // Pairs of a rule with moderate positives are unwanted until one is chosen.
        const bool only_open = task == Task::kPick && rule_.pairs != mining::PairChoice::kModerate;
        launch(mark_active, n_blocks(n_, kPairThreads / kLanes), kPairThreads, stream_, pairs_, groups_, only_open,
               memory_.n_results.take(n_));
        launch(list_active, 1, kScanThreads, stream_, memory_.n_results.data(),
               static_cast<int>(n_), memory_.active.take(n_), memory_.n_active.take(1));
        n_active_ = download_one(memory_.n_active.data(), stream_);
    }

    // Calls each(stripe) with the anchors that have pairs left, their candidates listed.
    template <class Each>
    void for_each_stripe(const Each& each) {
        if (n_active_ == 0) { return; }
        const std::size_t stride = rounded_up(n_, kTileSide);
        const bool skips = rule_.skip_hardest > 0.0;
        const bool whole = makes_all(n_ * stride);
        const std::size_t row_bytes = stride * (2 * sizeof(float) + sizeof(std::int32_t) + (skips ? sizeof(double) : 0));
        const std::size_t fits = std::max<std::size_t>(stripe_bytes_ / row_bytes / kTileSide, 1) * kTileSide;
        const std::size_t side = std::min<std::size_t>(fits, static_cast<std::size_t>(n_active_));
        Stripe stripe = {nullptr,
                         0,
                         stride,
                         memory_.distances.take((whole ? n_ : side) * stride),
                         whole,
                         memory_.listed.take(side * stride),
                         memory_.columns.take(side * stride),
                         memory_.n_listed.take(side),
                         skips ? memory_.exact.take(side * stride) : nullptr,
                         memory_.fallbacks.take(side)};
        const Rule rule = device_rule();
        const auto measure = [&](const std::int32_t* anchors, std::size_t n) {
            launch(measure_tiles<Scalar>, dim3(n_blocks(n_, kTileSide), n_blocks(n, kTileSide)), kTileThreads, stream_, batch_,
                   anchors, static_cast<int>(n), stripe.distances, stride);
        };
        if (whole) { measure(nullptr, n_); }
        for (std::size_t first = 0; first < static_cast<std::size_t>(n_active_); first += side) {
            stripe.anchors = memory_.active.data() + first;
            stripe.n = static_cast<int>(std::min(side, static_cast<std::size_t>(n_active_) - first));
            const auto n_anchors = static_cast<unsigned>(stripe.n);
            if (!whole) { measure(stripe.anchors, n_anchors); }
            launch(sieve<Scalar>, n_anchors, kSearchThreads, stream_, batch_, groups_, pairs_, rule, stripe);
            if (rule.needs_all()) {
                launch(survey<Scalar>, n_anchors, kSearchThreads, stream_, batch_, groups_, pairs_, rule, stripe);
            }
            each(stripe, rule);
        }
    }

    template <Work work>
    void resolve_with(const Stripe& stripe, const Rule& rule, const Assignment& assignment) {
        launch(resolve<Scalar, work>, static_cast<unsigned>(stripe.n), kSearchThreads, stream_, batch_, pairs_, rule,
               call_.seed, stripe, assignment);
    }

    // Counts every pair's candidates.
    void count_in(const Stripe& stripe, const Rule& rule) { resolve_with<Work::kCount>(stripe, rule, {}); }

    void pick() {
        Assignment assignment = {};
        if (rule_.pick == mining::Pick::kWeighted) { assignment.weights = upload_weights(); }
        for_each_stripe([&](const Stripe& stripe, const Rule& rule) {
            switch (rule_.pick) {
                case mining::Pick::kUniform:
                    return resolve_with<Work::kUniform>(stripe, rule, assignment);
                case mining::Pick::kNearest:
                case mining::Pick::kFarthest:
                    return resolve_with<Work::kLeading>(stripe, rule, assignment);
                case mining::Pick::kWeighted:
                    assignment.bin_counts = memory_.bin_counts.take(static_cast<std::size_t>(stripe.n) * kSearchWarps *
                                                                    (rule_.weights.edges.size() + 1));
                    return resolve_with<Work::kWeighted>(stripe, rule, assignment);
                case mining::Pick::kEvery:
                    throw std::invalid_argument("every candidate is listed, not mined");
            }
        });
    }

    void count() {
        for_each_stripe([&](const Stripe& stripe, const Rule& rule) { count_in(stripe, rule); });
    }

    void list(std::span<const std::int64_t> row_starts, Array<std::int32_t>& listed) {
        Assignment assignment = {};
        assignment.row_starts = memory_.row_starts.take(n_);
        assignment.n_listed = static_cast<std::int64_t>(listed.size());
        assignment.listed = listed.data();
        assignment.order = batch_.order;
        assignment.d_an_sums = memory_.d_an_sums.take(n_listed_pairs_);
        check(cudaMemsetAsync(assignment.d_an_sums, 0, n_listed_pairs_ * sizeof(double), stream_));
        upload(memory_.row_starts.data(), row_starts, stream_);
        for_each_stripe([&](const Stripe& stripe, const Rule& rule) {
            count_in(stripe, rule);
            resolve_with<Work::kList>(stripe, rule, assignment);
        });
    }

    Totals total() {
        const unsigned blocks = n_blocks(n_, kPrepareThreads / kLanes);
        launch(total_rows<Scalar>, blocks, kPrepareThreads, stream_, batch_, groups_, pairs_, rule_.band, task_,
               memory_.d_an_sums.data(), memory_.n_results.take(n_), memory_.row_totals.take(n_));
        launch(total_all, 1, kScanThreads, stream_, memory_.row_totals.data(), static_cast<int>(n_), memory_.totals.take(1));
        return download_one(memory_.totals.data(), stream_);
    }

    Mined collect() {
        Mined mined;
        const Totals totals = total();
        mined.n_pairs = totals.n_pairs;
        mined.n_with_negative = totals.n_with_negative;
        mined.sum_d_ap = totals.sum_d_ap;
        mined.sum_d_an = totals.sum_d_an;
        const auto n = static_cast<std::size_t>(totals.n_results);
        mined.anchors = Array<std::int32_t>(n);
        mined.positives = Array<std::int32_t>(n);
        mined.thirds = Array<std::int32_t>(n);
        launch(sum_up, 1, kScanThreads, stream_, memory_.n_results.data(), static_cast<int>(n_),
               memory_.first_result.take(n_ + 1));
        launch(write_results, n_blocks(n_, kPrepareThreads / kLanes), kPrepareThreads, stream_, groups_, pairs_, task_,
               batch_.order, memory_.first_result.data(), mined.anchors.data(), mined.positives.data(), mined.thirds.data());
        finish();
        return mined;
    }

    Hinges hinge(double margin, std::span<const double> weights) {
        std::vector<double> grouped(n_);
        for (std::size_t g = 0; g < n_; ++g) { grouped[g] = weights[static_cast<std::size_t>(call_.order[g])]; }
        const HingeSettings settings = {margin, memory_.anchor_weights.take(n_), memory_.losses.take(n_),
                                        memory_.n_triplets.take(n_), memory_.edges.take(n_listed_pairs_)};
        upload(memory_.anchor_weights.data(), std::span<const double>(grouped), stream_);
        Array<Scalar> gradient(n_ * call_.size);
        if (n_ != 0) {
            check(cudaMemsetAsync(settings.losses, 0, n_ * sizeof(double), stream_));
            check(cudaMemsetAsync(settings.n_triplets, 0, n_ * sizeof(std::int64_t), stream_));
            check(cudaMemsetAsync(gradient.data(), 0, gradient.size() * sizeof(Scalar), stream_));
        }
        for_each_stripe([&](const Stripe& stripe, const Rule& rule) {
            count_in(stripe, rule);
            launch(weigh_candidates<Scalar>, static_cast<unsigned>(stripe.n), kSearchThreads, stream_, batch_, pairs_, rule,
                   stripe, settings);
            for (const bool to_anchors : {true, false}) {
                const std::size_t n_targets = to_anchors ? static_cast<std::size_t>(stripe.n) : n_;
                const dim3 blocks(n_blocks(n_targets, kPullSide), n_blocks(call_.size, kPullSide));
                launch(pull<Scalar>, blocks, kPullThreads, stream_, batch_, stripe, to_anchors, gradient.data());
            }
        });
        std::vector<double> losses(n_);
        std::vector<std::int64_t> n_triplets(n_);
        download(std::span<double>(losses), static_cast<const double*>(settings.losses), stream_);
        download(std::span<std::int64_t>(n_triplets), static_cast<const std::int64_t*>(settings.n_triplets), stream_);
        Hinges hinges;
        hinges.losses.resize(n_);
        hinges.n_triplets.resize(n_);
        for (std::size_t g = 0; g < n_; ++g) {
            hinges.losses[static_cast<std::size_t>(call_.order[g])] = losses[g];
            hinges.n_triplets[static_cast<std::size_t>(call_.order[g])] = n_triplets[g];
        }
        hinges.gradient = std::move(gradient);
        return hinges;
    }

    void finish() { check(cudaStreamSynchronize(stream_)); }

  private:
    // Room for a matrix of rows: of the host where it is larger than it may be or than most of what the device has left.
    template <class T>
    static T* take_rows(Buffer<T>& buffer, std::size_t n, std::size_t largest) {
        if (n <= buffer.size()) { return buffer.data(); }
        std::size_t free = 0, all = 0;
        check(cudaMemGetInfo(&free, &all));
        const std::size_t n_bytes = n * sizeof(T);
        return buffer.take(n, n_bytes > largest || n_bytes > free / 4 * 3 ? Home::kHost : Home::kDevice);
    }

    // Whether all distances are made at once: where most of the rows are anchors that need theirs, and there is room.
    bool makes_all(std::size_t n_distances) const {
        const std::size_t n_bytes = n_distances * sizeof(float);
        if (static_cast<std::size_t>(n_active_) <= n_ / 2 || n_bytes > whole_bytes_) { return false; }
        if (n_distances <= memory_.distances.size()) { return true; }
        std::size_t free = 0, all = 0;
        check(cudaMemGetInfo(&free, &all));
        return n_bytes <= free / 2;
    }

    void read(const Scalar* values, std::size_t largest_rows) {
        const std::size_t size = call_.size, stride = rounded_up(size, kTileDepth), n_padded = rounded_up(n_, kTileSide);
        upload(memory_.order.take(n_), call_.order, stream_);
        if (!call_.on_device) {
            const std::size_t n_bytes = n_ * size * sizeof(Scalar);
            unsigned char* to = take_rows(memory_.values, n_bytes, largest_rows);
            if (n_bytes != 0) { check(cudaMemcpyAsync(to, values, n_bytes, cudaMemcpyDefault, stream_)); }
            values = reinterpret_cast<const Scalar*>(to);
        }
        float* rows = take_rows(memory_.rows, n_padded * stride, largest_rows);
        float* norms = memory_.norms.take(n_padded);
        double* squared_norms = memory_.squared_norms.take(n_);
        const std::int32_t* order = memory_.order.data();
        const int n = static_cast<int>(n_);
        launch(measure_norms<Scalar>, n_blocks(n_, kPrepareThreads / kLanes), kPrepareThreads, stream_, values, order, n,
               static_cast<int>(size), squared_norms);
        launch(survey_norms, 1, kScanThreads, stream_, squared_norms, order, n, memory_.survey.take(1));
        const Norms found = download_one(memory_.survey.data(), stream_);
        bad_row_ = found.bad_row;
        if (bad_row_ >= 0) { return; }
        const mining::Scaling scaling = mining::scaling_of(found.longest, size);
        launch(copy_scaled<Scalar>, n_blocks(n_padded, kPrepareThreads / kLanes), kPrepareThreads, stream_, values, order, n,
               static_cast<int>(n_padded), static_cast<int>(size), static_cast<int>(stride), scaling, squared_norms, rows,
               norms);
        batch_ = {values, order, n,       static_cast<int>(size),  rows,
                  norms,  squared_norms, static_cast<int>(stride), scaling};
    }

    void group() {
        const bool each_once = rule_.pairs == mining::PairChoice::kEachOnce;
        n_listed_pairs_ = 0;
        for (std::size_t i = 0; i + 1 < call_.offsets.size(); ++i) {
            const auto n_members = static_cast<std::size_t>(call_.members[i] - call_.offsets[i]);
            const auto n_all = static_cast<std::size_t>(call_.offsets[i + 1] - call_.offsets[i]);
            const std::size_t n_positives = call_.bank_positives ? n_all : n_members;
            n_listed_pairs_ += n_members * n_positives - (each_once ? n_members * (n_members + 1) / 2 : n_members);
        }
        groups_ = {static_cast<int>(n_), memory_.begins.take(n_), memory_.ends.take(n_), memory_.is_anchor.take(n_)};
        upload(memory_.offsets.take(call_.offsets.size()), call_.offsets, stream_);
        upload(memory_.members.take(call_.members.size()), call_.members, stream_);
        upload(memory_.wished_anchors.take(call_.is_anchor.size()), call_.is_anchor, stream_);
        const std::uint8_t* wished = call_.is_anchor.empty() ? nullptr : memory_.wished_anchors.data();
        launch(spread_groups, static_cast<unsigned>(call_.members.size()), kPairThreads, stream_,
               memory_.offsets.data(), memory_.members.data(), wished, call_.bank_positives, each_once, groups_,
               memory_.n_of.take(n_));
        launch(sum_up, 1, kScanThreads, stream_, memory_.n_of.data(), static_cast<int>(n_),
               memory_.first_candidate.take(n_ + 1));
    }

    void make_pairs() {
        const std::size_t n_numbers = n_listed_pairs_ * rule_.n_negatives;
        pairs_ = {memory_.first_candidate.data(),
                  memory_.n_of.data(),
                  memory_.positives.take(n_listed_pairs_),
                  memory_.d_ap.take(n_listed_pairs_),
                  static_cast<int>(rule_.n_negatives),
                  memory_.picks.take(n_numbers),
                  memory_.has_fallen_back.take(n_listed_pairs_),
                  memory_.n_candidates.take(n_listed_pairs_)};
        const auto n = static_cast<unsigned>(n_);
        const bool each_once = rule_.pairs == mining::PairChoice::kEachOnce;
        const bool moderate = rule_.pairs == mining::PairChoice::kModerate;
        launch(list_pairs<Scalar>, n, kPairThreads, stream_, batch_, groups_, each_once, pairs_);
        if (rule_.screens() || !(each_once || moderate || rule_.pairs == mining::PairChoice::kBothWays)) {
            const Choice choice = {rule_.pairs,
                                   static_cast<int>(std::min(rule_.n_positives, n_)),
                                   rule_.max_d_ap,
                                   rule_.quantile < 1.0 ? distance_of_quantile() : mining::kUnbounded,
                                   rule_.band,
                                   call_.seed};
            launch(choose_pairs, n_blocks(n_, kPairThreads / kLanes), kPairThreads, stream_, pairs_, static_cast<int>(n_),
                   choice, memory_.marks.take(n_listed_pairs_), memory_.places.take(n_listed_pairs_));
        }
        launch(clear_picks, n, kPairThreads, stream_, pairs_, moderate ? kUnwanted : kOpen);
    }

    // The squared distance within which the nearest of all pairs lie, as many as the quantile says: bits of distances, which
    // have the order of the distances, are searched for the least that enough of them do not exceed.
    double distance_of_quantile() {
        unsigned long long* n_near = memory_.n_near.take(1);
        const auto near = [&](double limit) {
            check(cudaMemsetAsync(n_near, 0, sizeof *n_near, stream_));
            launch(count_near, n_blocks(n_, kPairThreads / kLanes), kPairThreads, stream_, pairs_, static_cast<int>(n_), limit,
                   n_near);
            return download_one(n_near, stream_);
        };
        const unsigned long long n_all = near(mining::kUnbounded);
        if (n_all == 0) { return mining::kUnbounded; }
        const auto enough = static_cast<unsigned long long>(std::ceil(rule_.quantile * static_cast<double>(n_all)));
        auto low = std::uint64_t{0}, high = std::bit_cast<std::uint64_t>(mining::kUnbounded);
        while (low != high) {
            const std::uint64_t middle = low + (high - low) / 2;
            if (near(std::bit_cast<double>(middle)) >= enough) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        return std::bit_cast<double>(low);
    }

    void draw() {
        const int n_sampled = static_cast<int>(mining::n_sampled_of(n_));
        launch(sum_up, 1, kScanThreads, stream_, pairs_.n_of, static_cast<int>(n_), memory_.first_pair.take(n_ + 1));
        launch(try_pilot<Scalar>, n_ == 0 ? 0 : 1, static_cast<unsigned>(mining::kPilotTrials), stream_, batch_, groups_,
               pairs_, rule_.band, call_.seed, memory_.first_pair.data(), memory_.n_hits.take(1));
        // A part of the anchors at a time, whose samples are kept.
        const std::size_t sample_bytes = static_cast<std::size_t>(n_sampled) * sizeof(double);
        const std::size_t n_each = std::min(std::max<std::size_t>(stripe_bytes_ / sample_bytes, kTileSide), n_);
        double* samples = memory_.samples.take(n_each * static_cast<std::size_t>(n_sampled));
        for (std::size_t first = 0; first < n_; first += n_each) {
            const std::size_t n = std::min(n_each, n_ - first);
            launch(draw_picks<Scalar>, n_blocks(n, kDrawThreads / kLanes), kDrawThreads, stream_, batch_, groups_, pairs_,
                   rule_.band, call_.seed, memory_.n_hits.data(), static_cast<int>(first), n_sampled, samples);
        }
    }

    Rule device_rule() const {
        const mining::Band& band = rule_.band;
        return {mining::scaled_band(band, batch_.scaling.squared_scale),
                rule_.pick,
                rule_.if_empty,
                rule_.skip_hardest,
                rule_.pairs == mining::PairChoice::kModerate,
                !band.relative || (band.low == -mining::kUnbounded && band.high == mining::kUnbounded)};
    }

    Weights upload_weights() {
        const mining::Weights& weights = rule_.weights;
        const mining::RelativeBounds relative = mining::relative_bounds(weights.log_bounds);
        std::vector<double> all = weights.edges;
        all.insert(all.end(), weights.log_bounds.begin(), weights.log_bounds.end());
        all.insert(all.end(), relative.values.begin(), relative.values.end());
        const double* edges = memory_.weights.take(all.size());
        upload(memory_.weights.data(), std::span<const double>(all), stream_);
        finish();
        const std::size_t n_edges = weights.edges.size(), n_bins = weights.log_bounds.size();
        return {static_cast<int>(weights.size), static_cast<int>(n_edges), weights.unit,
                weights.lowest,                 weights.highest,           edges,
                edges + n_edges,                edges + n_edges + n_bins,  static_cast<int>(relative.lowest_level)};
    }

    const Call& call_;
    const mining::Rule& rule_;
    Workspace::Memory& memory_;
    std::size_t whole_bytes_, stripe_bytes_;
    cudaStream_t stream_;
    std::size_t n_, n_listed_pairs_ = 0;
    std::int64_t bad_row_ = -1;
    int n_active_ = 0;
    Task task_ = Task::kPick;
    Batch<Scalar> batch_ = {};
    Groups groups_ = {};
    Pairs pairs_ = {};
};

template <class Function>
auto with_values(const Call& call, const Function& function) {
    return std::visit([&](const auto* values) { return function(values); }, call.values);
}

}  // namespace

Mined mine(const Call& call, Workspace& workspace) {
    return with_values(call, [&]<class Scalar>(const Scalar* values) {
        Mining<Scalar> mining(call, values, call.rule, workspace);
        Mined mined;
        mined.bad_row = mining.bad_row();
        if (mined.bad_row >= 0 || call.n == 0) { return mined; }
        mining.prepare(Task::kPick);
        mining.pick();
        return mining.collect();
    });
}

Mined count(const Call& call, Workspace& workspace) {
    const mining::Rule rule = mining::without_picks(call.rule);
    return with_values(call, [&]<class Scalar>(const Scalar* values) {
        Mining<Scalar> mining(call, values, rule, workspace);
        Mined mined;
        mined.bad_row = mining.bad_row();
        if (mined.bad_row >= 0 || call.n == 0) { return mined; }
        mining.prepare(Task::kCount);
        mining.count();
        return mining.collect();
    });
}

Listed every(const Call& call, std::span<const std::int64_t> row_starts, std::size_t n, Workspace& workspace) {
    const mining::Rule rule = mining::without_picks(call.rule);
    return with_values(call, [&]<class Scalar>(const Scalar* values) {
        Mining<Scalar> mining(call, values, rule, workspace);
        Listed listed;
        listed.bad_row = mining.bad_row();
        if (listed.bad_row >= 0) { return listed; }
        Totals totals = {};
        if (call.n != 0) {
            listed.negatives = Array<std::int32_t>(n);
            mining.prepare(Task::kList);
            mining.list(row_starts, listed.negatives);
            totals = mining.total();
        }
        if (totals.n_results != static_cast<std::int64_t>(n)) {
            throw std::invalid_argument("n must be the number of candidates");
        }
        listed.sum_d_ap = totals.sum_d_ap;
        listed.sum_d_an = totals.sum_d_an;
        return listed;
    });
}

Hinges hinge(const Call& call, double margin, std::span<const double> weights, Workspace& workspace) {
    mining::Rule rule = mining::without_picks(call.rule);
    // Beyond the margin there is no loss; below it the band may end.
    rule.band.high = std::min(rule.band.high, margin);
    rule.band.low = std::min(rule.band.low, rule.band.high);
    return with_values(call, [&]<class Scalar>(const Scalar* values) {
        Mining<Scalar> mining(call, values, rule, workspace);
        Hinges hinges;
        hinges.bad_row = mining.bad_row();
        if (hinges.bad_row >= 0) { return hinges; }
        mining.prepare(Task::kCount);
        return mining.hinge(margin, weights);
    });
}

void scale(std::variant<Array<float>, Array<double>>& values, double factor, cudaStream_t stream) {
    std::visit(
        [&]<class Scalar>(Array<Scalar>& array) {
            constexpr unsigned kThreads = 256;
            launch(scale_by<Scalar>, n_blocks(array.size(), kThreads), kThreads, stream, array.data(), array.size(), factor);
            check(cudaStreamSynchronize(stream));
        },
        values);
}

}  // namespace cuda
