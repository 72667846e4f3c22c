#include "miner.hpp"

#include <algorithm>
#include <numeric>
#include <stdexcept>

#include "../core/parallel.hpp"

namespace mining {
namespace {

// Multiply-adds of a full product below which waking a second thread costs more than it saves.
constexpr double kSmallWork = 1 << 22;

// Rows whose triplets a thread counts or writes at a time.
constexpr std::size_t kRowsPerTask = 256;

// What the pairs of a row that nobody resolves are left with.
std::int32_t unresolved(const Rule& rule, Task task) noexcept {
    if (rule.pairs == PairChoice::kModerate) { return kUnwanted; }
    return task == Task::kCount ? 0 : kOpen;
}

}  // namespace

int threads_for(std::size_t n_rows, std::size_t size, int wished) noexcept {
    if (wished > 0) { return wished; }
    const double work = static_cast<double>(n_rows) * static_cast<double>(n_rows) * static_cast<double>(size);
    return work < kSmallWork ? 1 : core::default_threads();
}

Found mine(const Settings& settings, Batch& batch, const Groups& groups, Workspace& workspace) {
    const Rule& rule = settings.rule;
    const Task task = settings.assignment.task;
    const auto first_result = workspace.first_result.take(groups.n_rows() + 1);
    const auto row_sums = workspace.row_sums.take(2 * groups.n_rows());
    const Pairs pairs =
        list_pairs(rule, settings.seed, batch, groups, settings.anchors, settings.n_threads, workspace.pairs);
    core::parallel_for(settings.n_threads, groups.n_rows(), kRowsPerTask, [&](std::size_t row, std::size_t) noexcept {
        if (pairs.is_anchor(row)) { std::ranges::fill(pairs.picks_of(row), unresolved(rule, task)); }
        pairs.n_fallen_back[row] = 0;
        row_sums[2 * row] = row_sums[2 * row + 1] = 0.0;
    });

    for (std::size_t row = 0; task == Task::kTake && row < groups.n_rows(); ++row) {
        const auto end = static_cast<std::size_t>(settings.assignment.row_starts[row]) + pairs.n_of(row);
        if (pairs.is_anchor(row) && end > settings.assignment.ranks.size()) {
            throw std::invalid_argument("there must be a rank for every pair of the anchors");
        }
    }
    if (pairs.n() != 0) {
        const Picking picking(batch, pairs, rule, settings.assignment, settings.seed, row_sums,
                              core::first_of(workspace.pick_by_thread, settings.n_threads));
        if (rule.draws() && task == Task::kPick) {
            const Decider decide(batch, rule.band);
            Drawing(batch, pairs, decide, settings.seed)
                .run(settings.n_threads, core::first_of(workspace.draw_by_thread, settings.n_threads));
        }
        Search<Picking>(batch, groups.n_rows(), picking, settings.n_threads, settings.archive_size, workspace.search,
                        core::first_of(workspace.search_by_thread, settings.n_threads))
            .run();
    }

    const bool root = rule.band.root;
    std::vector<Found> by_task((groups.n_rows() + kRowsPerTask - 1) / kRowsPerTask);
    core::parallel_for(settings.n_threads, by_task.size(), 1, [&](std::size_t i, std::size_t) noexcept {
        Found& found = by_task[i];
        const std::size_t end = std::min((i + 1) * kRowsPerTask, groups.n_rows());
        for (std::size_t row = i * kRowsPerTask; row < end; ++row) {
            std::int64_t n_results = 0;
            if (pairs.is_anchor(row)) {
                const auto picks = pairs.picks_of(row);
                const auto positives = pairs.positives_of(row);
                const auto d_ap = pairs.d_ap_of(row), d_an = pairs.d_an_of(row);
                const float doubt = doubt_of(batch, row);
                const auto summand_of = [&](std::int32_t column, float d) {
                    return summand(batch, root, d, doubt, [&] {
                        return batch.exact_squared_distance(row, static_cast<std::size_t>(column));
                    });
                };
                for (std::size_t pair = 0; pair < d_ap.size(); ++pair) {
                    const std::size_t first = pair * pairs.n_picks;
                    if (picks[first] == kUnwanted) { continue; }
                    ++found.n_pairs;
                    if (task == Task::kCount || task == Task::kTake) {
                        ++n_results;
                        continue;
                    }
                    if (picks[first] == kOpen) { continue; }
                    ++found.n_with_negative;
                    const double to_positive = summand_of(positives[pair], d_ap[pair]);
                    for (std::size_t j = first; j < first + pairs.n_picks && picks[j] != kOpen; ++j) {
                        ++n_results;
                        row_sums[2 * row] += to_positive;
                        row_sums[2 * row + 1] += summand_of(picks[j], d_an[j]);
                    }
                }
                found.n_with_negative -= static_cast<std::size_t>(pairs.n_fallen_back[row]);
            }
            found.sum_d_ap += row_sums[2 * row];
            found.sum_d_an += row_sums[2 * row + 1];
            first_result[row + 1] = n_results;
        }
    });
    first_result[0] = 0;
    std::inclusive_scan(first_result.begin(), first_result.end(), first_result.begin());
    const double scale = root ? root_scale(batch) : batch.squared_scale();
    Found found;
    found.n_results = static_cast<std::size_t>(first_result.back());
    for (const Found& part : by_task) {
        found.n_pairs += part.n_pairs;
        found.n_with_negative += part.n_with_negative;
        found.sum_d_ap += part.sum_d_ap / scale;
        found.sum_d_an += part.sum_d_an / scale;
    }
    return found;
}

void collect(const Settings& settings, const Groups& groups, std::span<const std::int32_t> order, Workspace& workspace,
             std::int32_t* anchors, std::int32_t* positives, std::int32_t* thirds) {
    const bool is_pick = settings.assignment.task == Task::kPick;
    const std::size_t n_picks = settings.rule.n_negatives;
    const auto first_result = workspace.first_result.take(groups.n_rows() + 1);
    const auto first_pair = workspace.pairs.first_pair.take(groups.n_rows() + 1);
    const auto its_positives = workspace.pairs.positives.data();
    const auto picks = workspace.pairs.picks.data();
    core::parallel_for(settings.n_threads, groups.n_rows(), kRowsPerTask, [&](std::size_t row, std::size_t) noexcept {
        auto to = static_cast<std::size_t>(first_result[row]);
        const auto end = static_cast<std::size_t>(first_result[row + 1]);
        for (auto pair = static_cast<std::size_t>(first_pair[row]); to < end; ++pair) {
            for (std::size_t j = pair * n_picks; j < (pair + 1) * n_picks; ++j) {
                const std::int32_t pick = picks[j];
                if (pick == kUnwanted || (is_pick && pick == kOpen)) { break; }
                anchors[to] = order[row];
                positives[to] = order[static_cast<std::size_t>(its_positives[pair])];
                const bool is_row = is_pick || (settings.assignment.task == Task::kTake && pick != kOpen);
                thirds[to] = is_row ? order[static_cast<std::size_t>(pick)] : pick;
                ++to;
            }
        }
    });
}

}  // namespace mining
