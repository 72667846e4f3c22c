#include "miner.hpp"

#include <algorithm>
#include <numeric>

#include "../core/parallel.hpp"
#include "decider.hpp"
#include "pairs.hpp"

namespace mining {
namespace {

// Multiply-adds of a full product below which waking a second thread costs more than it saves.
constexpr double kSmallWork = 1 << 22;

// Rows whose triplets a thread counts or writes at a time.
constexpr std::size_t kRowsPerTask = 256;

template <class Rule>
void run(const Settings& settings, Batch& batch, const Pairs& pairs, Workspace& workspace) {
    const auto n_threads = static_cast<std::size_t>(settings.n_threads);
    workspace.draw_by_thread.resize(std::max(workspace.draw_by_thread.size(), n_threads));
    workspace.search_by_thread.resize(std::max(workspace.search_by_thread.size(), n_threads));
    const Decider<Rule> decide(batch, settings.margin);
    Drawing<Rule>(batch, pairs, decide, settings.seed)
        .run(settings.n_threads, std::span(workspace.draw_by_thread).first(n_threads));
    Search<Rule>(batch, pairs, decide, settings.seed, settings.n_threads, settings.archive_size, workspace.search,
                 std::span(workspace.search_by_thread).first(n_threads))
        .run();
}

}  // namespace

int threads_for(std::size_t n_rows, std::size_t size, int wished) noexcept {
    if (wished > 0) { return wished; }
    const double work = static_cast<double>(n_rows) * static_cast<double>(n_rows) * static_cast<double>(size);
    return work < kSmallWork ? 1 : core::default_threads();
}

std::size_t mine(const Settings& settings, Batch& batch, const Groups& groups, Workspace& workspace) {
    const auto first_triplet = workspace.first_triplet.take(groups.n_rows() + 1);
    first_triplet[0] = 0;
    if (groups.n_pairs() == 0) {
        std::ranges::fill(first_triplet, 0);
        return 0;
    }

    const Pairs pairs = {groups, settings.anchors, workspace.d_ap.take(groups.n_pairs()),
                         workspace.picks.take(groups.n_pairs())};
    std::visit([&](auto rule) { run<decltype(rule)>(settings, batch, pairs, workspace); }, settings.band);

    core::parallel_for(settings.n_threads, groups.n_rows(), kRowsPerTask, [&](std::size_t row, std::size_t) noexcept {
        const auto picks = pairs.is_anchor(row) ? pairs.picks_of(row) : std::span<std::int32_t>();
        first_triplet[row + 1] = std::ssize(picks) - std::ranges::count(picks, kOpen);
    });
    std::inclusive_scan(first_triplet.begin(), first_triplet.end(), first_triplet.begin());
    return static_cast<std::size_t>(first_triplet.back());
}

void collect(const Settings& settings, const Groups& groups, std::span<const std::int32_t> order, Workspace& workspace,
             std::int32_t* anchors, std::int32_t* positives, std::int32_t* negatives) {
    const auto picks = workspace.picks.take(groups.n_pairs());
    const auto first_triplet = workspace.first_triplet.take(groups.n_rows() + 1);
    core::parallel_for(settings.n_threads, groups.n_rows(), kRowsPerTask, [&](std::size_t row, std::size_t) noexcept {
        auto to = static_cast<std::size_t>(first_triplet[row]);
        const auto end = static_cast<std::size_t>(first_triplet[row + 1]);
        for (std::size_t i = 0; to < end; ++i) {
            const std::int32_t pick = picks[groups.first_pair(row) + i];
            if (pick == kOpen) { continue; }
            anchors[to] = order[row];
            positives[to] = order[row + 1 + i];
            negatives[to] = order[static_cast<std::size_t>(pick)];
            ++to;
        }
    });
}

}  // namespace mining
