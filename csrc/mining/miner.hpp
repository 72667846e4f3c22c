// The driver: from a batch and a band to one picked negative for every pair, as mining/reference.py specifies.
//
// Pairs are closed in two passes: draw.hpp tries random negatives, and search.hpp meets what is left with all columns.
// Float32 decides what its error bound (batch.cpp) lets it decide; the rest is decided by the float64 distance of the
// caller's own numbers. Which pass, route, thread or instruction set closes a pair does not show in its pick.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "../core/buffer.hpp"
#include "batch.hpp"
#include "draw.hpp"
#include "groups.hpp"
#include "policies.hpp"
#include "search.hpp"

namespace mining {

struct Settings {
    Band band;
    double margin;  // of squared distance, in the caller's units
    std::uint64_t seed;
    int n_threads;
    // By grouped row, whether its pairs are mined; empty: all rows are anchors. All rows are negatives in any case.
    std::span<const std::uint8_t> anchors = {};
    // Distances that search.hpp may keep between its tiles, 8 bytes each.
    std::size_t archive_size = 12 << 20;
};

// All memory that mining needs, kept between calls by whoever mines again and again. One call at a time.
struct Workspace {
    BatchMemory batch;
    GroupsMemory groups;
    core::Buffer<float> d_ap;
    core::Buffer<std::int32_t> picks;
    core::Buffer<std::int64_t> first_triplet;
    SharedSearchMemory search;
    std::vector<DrawMemory> draw_by_thread;
    std::vector<SearchMemory> search_by_thread;
};

// The threads that a call uses: wished, or OpenMP's default where wished is 0; one where the work is small.
int threads_for(std::size_t n_rows, std::size_t size, int wished) noexcept;

// Picks a negative for every pair, into the workspace; returns how many pairs have one.
std::size_t mine(const Settings& settings, Batch& batch, const Groups& groups, Workspace& workspace);

// Writes the picked triplets as rows of the embeddings, in the order of the pairs.
void collect(const Settings& settings, const Groups& groups, std::span<const std::int32_t> order, Workspace& workspace,
             std::int32_t* anchors, std::int32_t* positives, std::int32_t* negatives);

}  // namespace mining
