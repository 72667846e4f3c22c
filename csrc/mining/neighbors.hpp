// The nearest rows of a database for each query, exactly: another reduction of the tile engine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "../core/buffer.hpp"
#include "batch.hpp"
#include "leading.hpp"
#include "search.hpp"

namespace mining {

struct NeighborMemory {
    core::Buffer<float> samples;
    core::Buffer<std::int32_t> columns;
    ExactMemory exact;
    LeadingMemory leading;
};

struct NeighborsWorkspace {
    SharedSearchMemory search;
    std::vector<SearchMemory> search_by_thread;
    std::vector<NeighborMemory> by_thread;
};

struct NeighborsRequest {
    // Grouped rows [0, n_database) are the database, and those from first_query on are the queries.
    std::size_t n_database, first_query;
    std::size_t k;
    // By query, as the caller numbers them: columns that are none of its neighbors, a range that rises with the row where the
    // queries are the database.
    std::span<const std::int64_t> excluded_begins, excluded_ends;
    int n_threads;
    std::size_t archive_size = std::size_t{12} << 20;
};

// Writes for each query, in the caller's order, its k nearest rows of the database as the caller numbers them, and their
// squared distances in float64; -1 and infinity where it has fewer. Equally near rows are in the caller's order.
void find_neighbors(const NeighborsRequest& request, Batch& batch, std::span<const std::int32_t> order,
                    NeighborsWorkspace& workspace, std::span<std::int32_t> indices, std::span<double> distances);

}  // namespace mining
