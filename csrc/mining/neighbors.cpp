#include "neighbors.hpp"

#include <algorithm>

namespace mining {
namespace {

// Rows that are looked at before the search, to know within what distance k are: one in so many.
constexpr std::size_t kRowsPerSample = 64;
constexpr std::size_t kLeastSamples = 64;
constexpr std::size_t kMostSamples = 1024;

class Neighbors {
  public:
    Neighbors(const NeighborsRequest& request, const Batch& batch, std::span<const std::int32_t> order,
              std::span<NeighborMemory> memory, std::span<std::int32_t> indices, std::span<double> distances)
        : request_(request), batch_(batch), order_(order), memory_(memory), indices_(indices), distances_(distances) {
        for (NeighborMemory& own : memory) {
            own.samples.take(n_samples());
            own.columns.take(n_samples());
            own.leading.keys.take(request.n_database);
            own.leading.places.take(request.n_database);
            ExactDistances::reserve(batch.n(), own.exact);
        }
    }

    Excluded excluded(std::size_t row) const noexcept {
        const std::size_t query = query_of(row);
        return {static_cast<std::size_t>(request_.excluded_begins[query]),
                static_cast<std::size_t>(request_.excluded_ends[query])};
    }

    // The k-th nearest is not farther than the k-th nearest of some.
    float limit(std::size_t row, std::size_t thread) const noexcept {
        if (row < request_.first_query) { return kClosed; }
        const Excluded none_of = excluded(row);
        const auto columns = memory_[thread].columns.take(n_samples());
        std::size_t n = 0;
        for (std::size_t i = 0; i < columns.size(); ++i) {
            const std::size_t column = i * request_.n_database / columns.size();
            if (column < none_of.begin || none_of.end <= column) { columns[n++] = static_cast<std::int32_t>(column); }
        }
        if (n < request_.k) { return kOpenToAll; }
        const auto samples = memory_[thread].samples.take(n_samples()).first(n);
        batch_.measure(row, columns.first(n), samples.data());
        std::ranges::nth_element(samples, samples.begin() + static_cast<std::ptrdiff_t>(request_.k) - 1);
        return std::min(kOpenToAll, samples[request_.k - 1] + doubt_of(batch_, row));
    }

    bool resolve(std::size_t row, const Candidates& candidates, float, std::size_t thread) const noexcept {
        ExactDistances exact(batch_, memory_[thread].exact);
        const auto places = leading(From::kNearest, candidates, request_.k, row, doubt_of(batch_, row), exact,
                                    memory_[thread].leading, [&](std::size_t column) { return order_[column]; });
        const std::size_t to = query_of(row) * request_.k;
        for (std::size_t i = 0; i < places.size(); ++i) {
            const auto column = static_cast<std::size_t>(candidates.columns[places[i]]);
            indices_[to + i] = order_[column];
            distances_[to + i] = exact(row, column);
        }
        return true;
    }

  private:
    std::size_t query_of(std::size_t row) const noexcept {
        return static_cast<std::size_t>(order_[row]) - request_.first_query;
    }
    std::size_t n_samples() const noexcept {
        const std::size_t usual = std::clamp(request_.n_database / kRowsPerSample, kLeastSamples, kMostSamples);
        return std::min(request_.n_database, std::max(usual, std::min(16 * request_.k, kMostSamples)));
    }

    const NeighborsRequest& request_;
    const Batch& batch_;
    std::span<const std::int32_t> order_;
    std::span<NeighborMemory> memory_;
    std::span<std::int32_t> indices_;
    std::span<double> distances_;
};

}  // namespace

void find_neighbors(const NeighborsRequest& request, Batch& batch, std::span<const std::int32_t> order,
                    NeighborsWorkspace& workspace, std::span<std::int32_t> indices, std::span<double> distances) {
    std::ranges::fill(indices, -1);
    std::ranges::fill(distances, kUnbounded);
    const Neighbors neighbors(request, batch, order, core::first_of(workspace.by_thread, request.n_threads), indices,
                              distances);
    Search<Neighbors>(batch, request.n_database, neighbors, request.n_threads, request.archive_size, workspace.search,
                      core::first_of(workspace.search_by_thread, request.n_threads))
        .run();
}

}  // namespace mining
