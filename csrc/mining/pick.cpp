#include "pick.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

namespace mining {
namespace {

constexpr float kLowest = std::numeric_limits<float>::lowest();

// Negatives of an anchor that are looked at before the search, to know within what distance its nearest are: one in so many.
constexpr std::size_t kRowsPerSample = 64;
constexpr std::size_t kLeastSamples = 16;
constexpr std::size_t kMostSamples = 256;

// And to guess within what distance those are that are skipped.
constexpr std::size_t kSkipSamples = 64;

// Some distances of a list, spread over it, the nearest first.
template <std::size_t n>
std::array<float, n> probe(const Candidates& list) noexcept {
    std::array<float, n> probes;
    for (std::size_t i = 0; i < n; ++i) { probes[i] = list.distances[i * list.n / n]; }
    std::ranges::sort(probes);
    return probes;
}

// Takes some columns, in order, out of a list of n; returns how many are left.
std::size_t remove(float* distances, std::int32_t* columns, std::size_t n, std::span<const std::int32_t> gone) noexcept {
    if (gone.empty()) { return n; }
    std::size_t to = 0, from = 0;
    const auto keep_until = [&](std::size_t end) {
        std::memmove(distances + to, distances + from, (end - from) * sizeof(float));
        std::memmove(columns + to, columns + from, (end - from) * sizeof(std::int32_t));
        to += end - from;
        from = end + 1;
    };
    for (const std::int32_t column : gone) {
        keep_until(static_cast<std::size_t>(std::lower_bound(columns + from, columns + n, column) - columns));
    }
    keep_until(n);
    return to;
}

}  // namespace

Picking::Picking(const Batch& batch, const Pairs& pairs, const Rule& rule, const Assignment& assignment, std::uint64_t seed,
                 std::span<double> row_sums, std::span<PickMemory> memory)
    : batch_(batch),
      pairs_(pairs),
      groups_(pairs.groups),
      rule_(rule),
      decide_(batch, rule.band),
      assignment_(assignment),
      seed_(seed),
      row_sums_(row_sums),
      memory_(memory),
      weighing_(batch, rule.weights) {
    // Nothing is allocated while the threads are at work.
    std::size_t most_pairs = 0, most_samples = 0;
    for (std::size_t row = 0; row < groups_.n_rows(); ++row) {
        most_pairs = std::max(most_pairs, pairs_.n_of(row));
        most_samples = std::max(most_samples, n_samples(row));
    }
    for (PickMemory& own : memory) {
        own.edges.take(most_pairs);
        own.distances.take(kLevels * stride());
        own.columns.take(kLevels * stride());
        own.doubtful_distances.take(stride());
        own.doubtful_columns.take(stride());
        own.samples.take(most_samples);
        own.rest.take(stride());
        own.leading.keys.take(stride());
        own.leading.places.take(stride());
        ExactDistances::reserve(groups_.n_rows(), own.exact);
        if (skips()) {
            own.kept_distances.take(2 * stride());
            own.kept_columns.take(2 * stride());
        }
        if (rule_.pairs == PairChoice::kModerate) {
            own.positive_distances.take(most_pairs);
            own.positive_columns.take(most_pairs);
        }
        if (rule_.pick == Pick::kWeighted) { weighing_.reserve(stride(), own.weigh); }
    }
}

Picking::Anchor Picking::anchor_at(std::size_t row, PickMemory& memory) const noexcept {
    return {row,
            decide_.doubt(row),
            pairs_.positives_of(row),
            pairs_.d_ap_of(row),
            pairs_.picks_of(row),
            pairs_.d_an_of(row),
            {nullptr, nullptr, 0},
            memory,
            ExactDistances(batch_, memory.exact)};
}

bool Picking::is_open(const Anchor& anchor, std::size_t pair) const noexcept {
    const std::int32_t* last = anchor.picks.data() + (pair + 1) * pairs_.n_picks - 1;
    const std::int32_t* first = anchor.picks.data() + pair * pairs_.n_picks;
    if (*first == kUnwanted) { return false; }
    if (assignment_.task == Task::kTake) {
        return assignment_.ranks[static_cast<std::size_t>(assignment_.row_starts[anchor.row]) + pair] >= 0;
    }
    return assignment_.task != Task::kPick || *last == kOpen;
}

// -- sieves --------------------------------------------------------------------------------------------------------------

std::size_t Picking::n_samples(std::size_t row) const noexcept {
    const std::size_t n_negatives = groups_.n_negatives(row);
    if (needs_all()) { return 0; }
    if (skips()) { return std::min(kSkipSamples, n_negatives); }
    if (!picks_nearest() && !needs_nearest()) { return 0; }
    const std::size_t usual = std::clamp(n_negatives / kRowsPerSample, kLeastSamples, kMostSamples);
    const std::size_t n = picks_nearest() ? std::max(usual, std::min(4 * pairs_.n_picks, kMostSamples)) : usual;
    return std::min(n, n_negatives);
}

// Distances of some negatives, spread over all, the nearest first; no more than are picked, where all pairs may want them.
std::span<const float> Picking::sample(std::size_t row, PickMemory& memory) const noexcept {
    const auto samples = memory.samples.take(n_samples(row));
    const auto columns = memory.rest.take(samples.size());
    const std::size_t step = groups_.n_negatives(row) / samples.size();
    for (std::size_t i = 0; i < columns.size(); ++i) {
        columns[i] = static_cast<std::int32_t>(groups_.negative(row, i * step));
    }
    batch_.measure(row, columns, samples.data());
    const std::size_t n = decide_.is_relative() || rule_.band.low > -kUnbounded || skips()
                              ? samples.size()
                              : std::min(pairs_.n_picks, samples.size());
    std::ranges::partial_sort(samples, samples.begin() + static_cast<std::ptrdiff_t>(n));
    return samples.first(n);
}

// A row's sieve lets pass whatever one of its open pairs may want: bands end farther off as d_ap rises, and those who pick
// the nearest want nothing that is farther than enough others.
float Picking::limit(std::size_t row, std::size_t thread) const noexcept {
    if (!pairs_.is_anchor(row) || groups_.n_negatives(row) == 0) { return kClosed; }
    const Anchor anchor = anchor_at(row, memory_[thread]);
    const bool moderate = rule_.pairs == PairChoice::kModerate;
    bool open = false;
    float greatest = kLowest;
    for (std::size_t i = 0; i < anchor.positives.size(); ++i) {
        if (!moderate && !is_open(anchor, i)) { continue; }
        open = true;
        greatest = std::max(greatest, anchor.d_ap[i]);
    }
    if (!open) { return kClosed; }
    if (needs_all()) { return kOpenToAll; }
    const float widest = decide_.edges(anchor.doubt, greatest).possible_high;
    if (!picks_nearest() && !needs_nearest() && !skips()) { return widest; }

    const auto samples = sample(row, memory_[thread]);
    if (skips()) {
        // Three standard deviations more than the share, and two more yet; if they are too few still, resolve() will say so.
        const double n = rule_.skip_hardest * static_cast<double>(samples.size());
        const auto rank = static_cast<std::size_t>(n + 3.0 * std::sqrt(n)) + 2;
        return rank < samples.size() ? std::max(widest, samples[rank] + anchor.doubt) : kOpenToAll;
    }
    const float nearest = samples[0] + anchor.doubt;
    float limit = needs_nearest() ? nearest : kLowest;
    for (std::size_t i = 0; i < anchor.positives.size(); ++i) {
        if (moderate ? anchor.d_ap[i] - anchor.doubt >= nearest : !is_open(anchor, i)) { continue; }
        const simd::Edges edges = decide_.edges(anchor.doubt, anchor.d_ap[i]);
        limit = std::max(limit, picks_nearest() ? enough(edges, samples, anchor.doubt) : edges.possible_high);
    }
    return limit;
}

// Within what distance a pair's nearest candidates are, as many as it picks: not beyond as many sampled ones.
float Picking::enough(const simd::Edges& edges, std::span<const float> samples, float doubt) const noexcept {
    const auto first = std::ranges::lower_bound(samples, edges.sure_low);
    if (static_cast<std::size_t>(samples.end() - first) < pairs_.n_picks) { return edges.possible_high; }
    const float last = *(first + static_cast<std::ptrdiff_t>(pairs_.n_picks) - 1);
    return last < edges.sure_high ? std::min(edges.possible_high, last + doubt) : edges.possible_high;
}

// -- an anchor's candidates, as the rule sees them -----------------------------------------------------------------------

// Leaves out the nearest of all negatives, as many as the rule says; false if not all of those are below the limit for sure.
bool Picking::skip_the_hardest(Anchor& anchor, float limit) const noexcept {
    const auto n_skipped = static_cast<std::size_t>(rule_.skip_hardest * static_cast<double>(groups_.n_negatives(anchor.row)));
    if (n_skipped == 0) { return true; }
    const Candidates all = anchor.candidates;
    if (all.n < n_skipped) { return false; }
    const auto n_below = [&](float bound) {
        return batch_.kernels().count(all.distances, all.n, {simd::kNoLow, simd::kNoLow, bound, bound}).sure;
    };
    // The distance of the last that is left out lies in [low, high), closed in upon until a few others do.
    constexpr std::size_t kFew = 24;
    float low = -kOpenToAll, high = kOpenToAll;
    std::size_t below_low = 0, below_high = all.n;
    // Most often it is between two of the same rank or so among some of them.
    constexpr std::size_t kProbes = 32, kSpread = 2;
    if (all.n > 2 * kProbes) {
        const auto probes = probe<kProbes>(all);
        const std::size_t rank = n_skipped * kProbes / all.n;
        const float left = rank < kSpread ? low : probes[rank - kSpread], right = probes[std::min(rank + kSpread, kProbes - 1)];
        const std::size_t below_left = rank < kSpread ? 0 : n_below(left), below_right = n_below(right);
        (below_left < n_skipped ? low : high) = left;
        (below_left < n_skipped ? below_low : below_high) = below_left;
        if (below_left < n_skipped) {
            (below_right < n_skipped ? low : high) = right;
            (below_right < n_skipped ? below_low : below_high) = below_right;
        }
    }
    while (below_high - below_low > kFew && high - low > anchor.doubt) {
        const float middle = 0.5F * (low + high);
        const std::size_t n = n_below(middle);
        (n < n_skipped ? low : high) = middle;
        (n < n_skipped ? below_low : below_high) = n;
    }
    if (limit < kOpenToAll && high + anchor.doubt > limit) { return false; }
    // Surely left out is what is nearer than that by the doubt, surely kept what is farther; of the rest float64 decides.
    const auto distances = anchor.memory.kept_distances.take(2 * stride());
    const auto columns = anchor.memory.kept_columns.take(2 * stride());
    const std::size_t n_kept = batch_.kernels().filter(all.distances, all.columns, all.n, low - anchor.doubt,
                                                       std::numeric_limits<float>::max(), distances.data(), columns.data());
    Candidates unclear = {distances.data() + stride(), columns.data() + stride(), 0};
    unclear.n = batch_.kernels().filter(distances.data(), columns.data(), n_kept, kLowest, high + anchor.doubt,
                                        distances.data() + stride(), columns.data() + stride());
    const auto dropped = leading_of(From::kNearest, anchor, unclear, n_skipped - (all.n - n_kept));
    const auto gone = anchor.memory.rest.take(dropped.size());
    for (std::size_t i = 0; i < dropped.size(); ++i) { gone[i] = unclear.columns[dropped[i]]; }
    std::ranges::sort(gone);
    anchor.candidates = {distances.data(), columns.data(), remove(distances.data(), columns.data(), n_kept, gone)};
    return true;
}

// Opens the pair with the farthest positive that is nearer than all negatives.
void Picking::choose_moderate(Anchor& anchor) const noexcept {
    const auto first = leading_of(From::kNearest, anchor, anchor.candidates, 1);
    if (first.empty()) { return; }
    const auto place = static_cast<std::size_t>(first[0]);
    const auto nearest = static_cast<std::size_t>(anchor.candidates.columns[place]);
    const float d_nearest = anchor.candidates.distances[place];
    const auto distances = anchor.memory.positive_distances.take(anchor.positives.size());
    const auto columns = anchor.memory.positive_columns.take(anchor.positives.size());
    std::size_t n = 0;
    for (std::size_t i = 0; i < anchor.positives.size(); ++i) {
        const auto positive = static_cast<std::size_t>(anchor.positives[i]);
        if (anchor.d_ap[i] >= d_nearest + anchor.doubt) { continue; }
        const bool clear = anchor.d_ap[i] < d_nearest - anchor.doubt;
        if (!clear && anchor.exact(anchor.row, positive) >= anchor.exact(anchor.row, nearest)) { continue; }
        distances[n] = anchor.d_ap[i];
        columns[n++] = anchor.positives[i];
    }
    const auto farthest = leading_of(From::kFarthest, anchor, {distances.data(), columns.data(), n}, 1);
    if (farthest.empty()) { return; }
    const auto pair = static_cast<std::size_t>(
        std::ranges::lower_bound(anchor.positives, columns[static_cast<std::size_t>(farthest[0])]) - anchor.positives.begin());
    std::fill_n(anchor.picks.data() + pair * pairs_.n_picks, pairs_.n_picks, kOpen);
}

// Most pairs want few of the columns that the anchor's widest pair wants: let them look at those alone.
Picking::Levels Picking::nest(const Anchor& anchor, std::span<const simd::Edges> edges) const noexcept {
    // A shorter list is scanned as fast as it is shortened.
    constexpr std::size_t kShort = 48;
    Levels levels = {{anchor.candidates}, {0.0F}, 1};
    if (anchor.candidates.n < kShort || !decide_.is_relative()) { return levels; }
    float nearest = std::numeric_limits<float>::max();
    float farthest = kLowest;
    for (std::size_t i = 0; i < edges.size(); ++i) {
        if (!is_open(anchor, i)) { continue; }
        nearest = std::min(nearest, edges[i].possible_high);
        farthest = std::max(farthest, edges[i].possible_high);
    }
    float* distances = anchor.memory.distances.take(kLevels * stride()).data();
    std::int32_t* columns = anchor.memory.columns.take(kLevels * stride()).data();
    for (; levels.n < kLevels && levels.lists[levels.n - 1].n >= kShort; ++levels.n) {
        const Candidates& wider = levels.lists[levels.n - 1];
        const float share = static_cast<float>(levels.n) / static_cast<float>(kLevels);
        const float bound = farthest - share * (farthest - nearest);
        const std::size_t at = levels.n * stride();
        const std::size_t n = batch_.kernels().filter(wider.distances, wider.columns, wider.n, kLowest, bound, distances + at,
                                                      columns + at);
        levels.lists[levels.n] = {distances + at, columns + at, n};
        levels.bounds[levels.n] = bound;
    }
    return levels;
}

Candidates Picking::accept(Anchor& anchor, std::size_t pair, const simd::Edges& edges, const Candidates& list) const noexcept {
    // Where the first level would be, whose list is the caller's own.
    std::int32_t* columns = anchor.memory.columns.take(kLevels * stride()).data();
    float* distances = anchor.memory.distances.take(kLevels * stride()).data();
    const std::size_t n_possible = batch_.kernels().filter(list.distances, list.columns, list.n, edges.possible_low,
                                                           edges.possible_high, distances, columns);
    // Few are in doubt: at either end of the interval.
    std::int32_t* doubtful = anchor.memory.doubtful_columns.take(stride()).data();
    float* their_distances = anchor.memory.doubtful_distances.take(stride()).data();
    const auto filter = batch_.kernels().filter;
    std::size_t n_doubtful = filter(distances, columns, n_possible, edges.possible_low,
                                    std::min(edges.sure_low, edges.possible_high), their_distances, doubtful);
    n_doubtful += filter(distances, columns, n_possible, std::max(edges.sure_low, edges.sure_high), edges.possible_high,
                         their_distances + n_doubtful, doubtful + n_doubtful);
    std::int32_t* gone = std::remove_if(doubtful, doubtful + n_doubtful, [&](std::int32_t column) {
        return decide_.exact(anchor.exact(anchor.row, static_cast<std::size_t>(anchor.positives[pair])),
                             anchor.exact(anchor.row, static_cast<std::size_t>(column)));
    });
    std::sort(doubtful, gone);
    return {distances, columns, remove(distances, columns, n_possible, {doubtful, gone})};
}

// -- picks ---------------------------------------------------------------------------------------------------------------

std::size_t Picking::count(Anchor& anchor, std::size_t pair, const simd::Edges& edges, const Candidates& list) const noexcept {
    const simd::Counts found = batch_.kernels().count(list.distances, list.n, edges);
    return found.possible == found.sure ? found.sure : accept(anchor, pair, edges, list).n;
}

template <class RankAmong>
void Picking::take_one(Anchor& anchor, std::size_t pair, const simd::Edges& edges, const Candidates& list,
                       const RankAmong& rank_among) const noexcept {
    const simd::Counts found = batch_.kernels().count(list.distances, list.n, edges);
    if (found.possible == found.sure) {
        const std::size_t rank = found.sure == 0 ? 0 : rank_among(found.sure);
        if (rank >= found.sure) { return; }
        set(anchor, pair, 0, list,
            batch_.kernels().select(list.distances, list.n, edges.possible_low, edges.possible_high, rank));
    } else {
        const Candidates accepted = accept(anchor, pair, edges, list);
        const std::size_t rank = accepted.n == 0 ? 0 : rank_among(accepted.n);
        if (rank < accepted.n) { set(anchor, pair, 0, accepted, rank); }
    }
}

void Picking::pick_uniformly(Anchor& anchor, std::size_t pair, const simd::Edges& edges,
                             const Candidates& list) const noexcept {
    const core::Stream stream = core::AnchorStreams(seed_, anchor.row)(static_cast<std::size_t>(anchor.positives[pair]));
    if (pairs_.n_picks == 1) {
        return take_one(anchor, pair, edges, list, [&](std::size_t n) { return stream.draw(kRankDraw, n); });
    }
    const Candidates accepted = accept(anchor, pair, edges, list);
    const std::int32_t* picks = anchor.picks.data() + pair * pairs_.n_picks;
    std::size_t n_picked = static_cast<std::size_t>(std::find(picks, picks + pairs_.n_picks, kOpen) - picks);
    const auto rest = anchor.memory.rest.take(accepted.n);
    std::size_t n_rest = 0;
    for (std::size_t i = 0; i < accepted.n; ++i) {
        if (std::find(picks, picks + n_picked, accepted.columns[i]) == picks + n_picked) {
            rest[n_rest++] = static_cast<std::int32_t>(i);
        }
    }
    for (; n_picked < pairs_.n_picks && n_rest != 0; ++n_picked, --n_rest) {
        const std::size_t rank = stream.draw(kRankDraw + n_picked, n_rest);
        set(anchor, pair, n_picked, accepted, static_cast<std::size_t>(rest[rank]));
        std::copy(rest.begin() + static_cast<std::ptrdiff_t>(rank) + 1, rest.begin() + static_cast<std::ptrdiff_t>(n_rest),
                  rest.begin() + static_cast<std::ptrdiff_t>(rank));
    }
}

void Picking::pick_leading(From from, Anchor& anchor, std::size_t pair, const simd::Edges& edges,
                           const Candidates& list) const noexcept {
    const Candidates accepted = accept(anchor, pair, edges, list);
    const auto places = leading_of(from, anchor, accepted, pairs_.n_picks);
    for (std::size_t j = 0; j < places.size(); ++j) { set(anchor, pair, j, accepted, static_cast<std::size_t>(places[j])); }
}

void Picking::fall_back(Anchor& anchor, std::size_t pair) const noexcept {
    if (anchor.candidates.n == 0) { return; }
    if (anchor.fallback < 0) {
        const From from = rule_.if_empty == IfEmpty::kNearest ? From::kNearest : From::kFarthest;
        anchor.fallback = leading_of(from, anchor, anchor.candidates, 1).front();
    }
    set(anchor, pair, 0, anchor.candidates, static_cast<std::size_t>(anchor.fallback));
    ++pairs_.n_fallen_back[anchor.row];
}

bool Picking::resolve(std::size_t row, const Candidates& candidates, float limit, std::size_t thread) const noexcept {
    Anchor anchor = anchor_at(row, memory_[thread]);
    anchor.candidates = candidates;
    if (skips() && !skip_the_hardest(anchor, limit)) { return false; }
    if (rule_.pairs == PairChoice::kModerate) { choose_moderate(anchor); }

    const auto edges = anchor.memory.edges.take(anchor.positives.size());
    for (std::size_t i = 0; i < edges.size(); ++i) { edges[i] = decide_.edges(anchor.doubt, anchor.d_ap[i]); }
    // Of a long list the nearest are among few.
    constexpr std::size_t kProbes = 64;
    if (picks_nearest() && anchor.candidates.n > 2 * kProbes) {
        const auto probes = probe<kProbes>(anchor.candidates);
        for (simd::Edges& its : edges) { its.possible_high = enough(its, probes, anchor.doubt); }
    }
    const Levels levels = nest(anchor, edges);
    const bool weighs = assignment_.task == Task::kPick && rule_.pick == Pick::kWeighted;
    if (weighs) { weighing_.prepare(anchor.row, anchor.doubt, anchor.candidates, anchor.exact, anchor.memory.weigh); }
    // Where the band is the same for all pairs, one of them has the answer for the others.
    std::ptrdiff_t solved = -1;
    std::int64_t at = assignment_.row_starts.empty() ? 0 : assignment_.row_starts[row];
    for (std::size_t i = 0; i < anchor.positives.size(); ++i) {
        if (!is_open(anchor, i)) { continue; }
        const Candidates& list = levels.narrowest(edges[i].possible_high);
        switch (assignment_.task) {
            case Task::kCount:
                anchor.picks[i] = solved >= 0 ? anchor.picks[static_cast<std::size_t>(solved)]
                                              : static_cast<std::int32_t>(count(anchor, i, edges[i], list));
                break;
            case Task::kTake: {
                const std::int64_t rank = assignment_.ranks[static_cast<std::size_t>(at) + i];
                take_one(anchor, i, edges[i], list, [&](std::size_t) { return static_cast<std::size_t>(rank); });
                break;
            }
            case Task::kList: {
                const Candidates accepted = accept(anchor, i, edges[i], list);
                if (static_cast<std::size_t>(at) + accepted.n > assignment_.listed.size()) { return true; }
                std::copy_n(accepted.columns, accepted.n, assignment_.listed.data() + at);
                at += static_cast<std::int64_t>(accepted.n);
                double sum = row_sums_[2 * row + 1];
                if (rule_.band.root) {
                    const auto root_of = [&](std::int32_t column, float d) {
                        return summand(batch_, true, d, anchor.doubt,
                                       [&] { return anchor.exact(row, static_cast<std::size_t>(column)); });
                    };
                    const double d_ap = accepted.n == 0 ? 0.0 : root_of(anchor.positives[i], anchor.d_ap[i]);
                    row_sums_[2 * row] += d_ap * static_cast<double>(accepted.n);
                    for (std::size_t j = 0; j < accepted.n; ++j) { sum += root_of(accepted.columns[j], accepted.distances[j]); }
                } else {
                    row_sums_[2 * row] += static_cast<double>(anchor.d_ap[i]) * static_cast<double>(accepted.n);
                    for (std::size_t j = 0; j < accepted.n; ++j) { sum += static_cast<double>(accepted.distances[j]); }
                }
                row_sums_[2 * row + 1] = sum;
                break;
            }
            case Task::kPick:
                if (rule_.pick == Pick::kUniform) {
                    pick_uniformly(anchor, i, edges[i], list);
                } else if (weighs) {
                    const auto positive = static_cast<std::size_t>(anchor.positives[i]);
                    weighing_.pick(row, positive, edges[i], anchor.doubt, decide_, core::AnchorStreams(seed_, row)(positive),
                                   kRankDraw, anchor.exact, anchor.memory.weigh, pairs_.n_picks,
                                   anchor.picks.data() + i * pairs_.n_picks, anchor.d_an.data() + i * pairs_.n_picks);
                } else if (solved >= 0) {
                    const std::size_t from = static_cast<std::size_t>(solved) * pairs_.n_picks, to = i * pairs_.n_picks;
                    std::copy_n(anchor.picks.data() + from, pairs_.n_picks, anchor.picks.data() + to);
                    std::copy_n(anchor.d_an.data() + from, pairs_.n_picks, anchor.d_an.data() + to);
                } else {
                    pick_leading(rule_.pick == Pick::kNearest ? From::kNearest : From::kFarthest, anchor, i, edges[i], list);
                }
                break;
        }
        if (!decide_.is_relative() && solved < 0 && anchor.picks[i * pairs_.n_picks] != kOpen) {
            solved = static_cast<std::ptrdiff_t>(i);
        }
        if (assignment_.task == Task::kPick && rule_.if_empty != IfEmpty::kDrop &&
            anchor.picks[i * pairs_.n_picks] == kOpen) {
            fall_back(anchor, i);
        }
    }
    return true;
}

}  // namespace mining
