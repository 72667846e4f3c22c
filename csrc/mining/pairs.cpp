#include "pairs.hpp"

#include <cmath>
#include <numeric>
#include <utility>

#include "../core/parallel.hpp"
#include "../core/random.hpp"
#include "decider.hpp"
#include "draws.hpp"

namespace mining {
namespace {

// Rows that a thread takes at a time.
constexpr std::size_t kRowsPerTask = 32;

class Listing {
  public:
    Listing(const Rule& rule, std::uint64_t seed, const Batch& batch, const Groups& groups,
            std::span<const std::uint8_t> anchors, int n_threads, PairsMemory& memory) noexcept
        : rule_(rule), seed_(seed), batch_(batch), groups_(groups), anchors_(anchors), n_threads_(n_threads), memory_(memory) {}

    Pairs run() {
        const std::size_t n_rows = groups_.n_rows();
        first_ = memory_.first_candidate.take(n_rows + 1);
        first_[0] = 0;
        for (std::size_t row = 0; row < n_rows; ++row) {
            first_[row + 1] = first_[row] + static_cast<std::int64_t>(n_candidates(row));
        }
        const auto n_most = static_cast<std::size_t>(first_[n_rows]);
        positives_ = memory_.positives.take(n_most);
        d_ap_ = memory_.d_ap.take(n_most);
        const bool chooses = rule_.screens() || (rule_.pairs != PairChoice::kEachOnce && rule_.pairs != PairChoice::kBothWays &&
                                                 rule_.pairs != PairChoice::kModerate);
        if (chooses) {
            for (PairsMemory::Own& own : core::first_of(memory_.by_thread, n_threads_)) {
                own.places.take(groups_.largest());
                own.leading.keys.take(groups_.largest());
                own.leading.places.take(groups_.largest());
                ExactDistances::reserve(n_rows, own.exact);
            }
            largest_d_ap_ = rule_.quantile < 1.0 ? distance_of_quantile() : kUnbounded;
        }
        const auto first_pair = memory_.first_pair.take(n_rows + 1);
        first_pair[0] = 0;
        core::parallel_for(n_threads_, n_rows, kRowsPerTask, [&](std::size_t row, std::size_t thread) noexcept {
            std::size_t n = n_candidates(row);
            if (n != 0 && (chooses || rule_.draws() || is_anchor(row))) { list(row); }
            if (n != 0 && (chooses || is_anchor(row))) { measure(row); }
            if (chooses) { n = choose(row, n, memory_.by_thread[thread]); }
            first_pair[row + 1] = static_cast<std::int64_t>(n);
        });
        std::inclusive_scan(first_pair.begin(), first_pair.end(), first_pair.begin());
        for (std::size_t row = 0; chooses && row < n_rows; ++row) {
            const auto n = static_cast<std::size_t>(first_pair[row + 1] - first_pair[row]);
            const auto from = static_cast<std::ptrdiff_t>(first_[row]), to = static_cast<std::ptrdiff_t>(first_pair[row]);
            std::copy_n(positives_.begin() + from, n, positives_.begin() + to);
            std::copy_n(d_ap_.begin() + from, n, d_ap_.begin() + to);
        }
        const auto n_pairs = static_cast<std::size_t>(first_pair[n_rows]);
        return {groups_,
                anchors_,
                first_pair,
                positives_.first(n_pairs),
                d_ap_.first(n_pairs),
                rule_.n_negatives,
                memory_.picks.take(n_pairs * rule_.n_negatives),
                memory_.d_an.take(n_pairs * rule_.n_negatives),
                memory_.n_fallen_back.take(n_rows)};
    }

  private:
    bool is_anchor(std::size_t row) const noexcept { return anchors_.empty() || anchors_[row] != 0; }
    bool each_once() const noexcept { return rule_.pairs == PairChoice::kEachOnce; }

    // Positives that the row could be paired with.
    std::size_t n_candidates(std::size_t row) const noexcept {
        if (!groups_.is_member(row)) { return 0; }
        return groups_.positives_end(row) - (each_once() ? row : groups_.begin(row)) - 1;
    }

    std::span<std::int32_t> positives_of(std::size_t row) const noexcept {
        return positives_.subspan(static_cast<std::size_t>(first_[row]), n_candidates(row));
    }

    void list(std::size_t row) const noexcept {
        const std::size_t begin = each_once() ? row : groups_.begin(row);
        std::int32_t* to = positives_of(row).data();
        for (std::size_t other = begin; other < groups_.positives_end(row); ++other) {
            if (other != row) { *to++ = static_cast<std::int32_t>(other); }
        }
    }

    void measure(std::size_t row) const noexcept {
        batch_.measure(row, positives_of(row), d_ap_.data() + first_[row]);
    }

    // The distance within which the nearest of all pairs lie, as many as the quantile says.
    double distance_of_quantile() const {
        const std::size_t n_rows = groups_.n_rows();
        std::vector<std::size_t> first(n_rows + 1);
        for (std::size_t row = 0; row < n_rows; ++row) {
            first[row + 1] = first[row] + (groups_.is_member(row) ? groups_.positives_end(row) - row - 1 : 0);
        }
        const auto exact = memory_.exact.take(first[n_rows]);
        if (exact.empty()) { return kUnbounded; }
        core::parallel_for(n_threads_, n_rows, kRowsPerTask, [&](std::size_t row, std::size_t) noexcept {
            for (std::size_t i = 0; i < first[row + 1] - first[row]; ++i) {
                exact[first[row] + i] = batch_.exact_squared_distance(row, row + 1 + i);
            }
        });
        const auto rank = std::ceil(rule_.quantile * static_cast<double>(exact.size()));
        const auto at = exact.begin() + static_cast<std::ptrdiff_t>(rank) - 1;
        std::ranges::nth_element(exact, at);
        return *at;
    }

    // Keeps of the row's n listed positives those that the rule wants; returns how many.
    std::size_t choose(std::size_t row, std::size_t n, PairsMemory::Own& own) const noexcept {
        std::int32_t* positives = positives_.data() + first_[row];
        float* d_ap = d_ap_.data() + first_[row];
        ExactDistances exact(batch_, own.exact);
        const float doubt = doubt_of(batch_, row);
        if (rule_.screens()) {
            const float below = scaled(batch_, rule_.max_d_ap, rule_.band.root);
            const float up_to = scaled(batch_, largest_d_ap_);
            std::size_t n_sound = 0;
            for (std::size_t i = 0; i < n; ++i) {
                bool sound = d_ap[i] < below + doubt && d_ap[i] < up_to + doubt;
                if (sound && (d_ap[i] >= below - doubt || d_ap[i] >= up_to - doubt)) {
                    const double d = exact(row, static_cast<std::size_t>(positives[i]));
                    sound = rule_.band.unsquared(d) < rule_.max_d_ap && d <= largest_d_ap_;
                }
                positives[n_sound] = positives[i];
                d_ap[n_sound] = d_ap[i];
                n_sound += sound ? 1 : 0;
            }
            n = n_sound;
        }
        const std::size_t k = std::min(rule_.n_positives, n);
        std::span<std::int32_t> places = own.places.take(groups_.largest()).first(n);
        switch (rule_.pairs) {
            case PairChoice::kHardest:
            case PairChoice::kEasiest: {
                const From from = rule_.pairs == PairChoice::kHardest ? From::kFarthest : From::kNearest;
                const auto first = leading(from, {d_ap, positives, n}, k, row, doubt, exact, own.leading);
                std::ranges::copy(first, places.begin());
                break;
            }
            case PairChoice::kRandom: {
                const core::Stream stream = core::AnchorStreams(seed_, row)(kPositivesStream);
                std::iota(places.begin(), places.end(), 0);
                for (std::size_t i = 0; i < k; ++i) { std::swap(places[i], places[i + stream.draw(i, n - i)]); }
                break;
            }
            default:
                return n;
        }
        places = places.first(k);
        std::ranges::sort(places);
        for (std::size_t i = 0; i < k; ++i) {
            positives[i] = positives[places[i]];
            d_ap[i] = d_ap[places[i]];
        }
        return k;
    }

    const Rule& rule_;
    std::uint64_t seed_;
    const Batch& batch_;
    const Groups& groups_;
    std::span<const std::uint8_t> anchors_;
    int n_threads_;
    PairsMemory& memory_;
    std::span<std::int64_t> first_;
    std::span<std::int32_t> positives_;
    std::span<float> d_ap_;
    double largest_d_ap_ = kUnbounded;
};

}  // namespace

Pairs list_pairs(const Rule& rule, std::uint64_t seed, const Batch& batch, const Groups& groups,
                 std::span<const std::uint8_t> anchors, int n_threads, PairsMemory& memory) {
    return Listing(rule, seed, batch, groups, anchors, n_threads, memory).run();
}

}  // namespace mining
