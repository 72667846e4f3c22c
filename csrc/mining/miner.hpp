// The driver: from a batch and a rule to its triplets, as mining/reference.py specifies them.
//
// Pairs are listed (pairs.hpp); where the rule picks uniformly, random negatives close what they can (draw.hpp); the tile
// engine meets the rest with all columns (search.hpp), and pick.hpp makes picks of what passes. Float32 decides what its error
// bound (batch.cpp) lets it decide; the rest is decided by the float64 distance of the caller's own numbers. Which pass,
// route, thread or instruction set closes a pair does not show in its pick.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "../core/buffer.hpp"
#include "batch.hpp"
#include "draw.hpp"
#include "groups.hpp"
#include "hinge.hpp"
#include "histogram.hpp"
#include "neighbors.hpp"
#include "pairs.hpp"
#include "pick.hpp"
#include "rule.hpp"
#include "search.hpp"

namespace mining {

struct Settings {
    const Rule& rule;
    std::uint64_t seed;
    int n_threads;
    // By grouped row, whether its pairs are mined; empty: all are. All rows are negatives in any case.
    std::span<const std::uint8_t> anchors = {};
    Assignment assignment = {};
    // Distances that search.hpp may keep between its tiles, 8 bytes each.
    std::size_t archive_size = std::size_t{12} << 20;
};

// All memory that mining needs, kept between calls by whoever mines again and again. One call at a time.
struct Workspace {
    BatchMemory batch;
    GroupsMemory groups;
    PairsMemory pairs;
    core::Buffer<std::int64_t> first_result;
    core::Buffer<double> row_sums;
    SharedSearchMemory search;
    std::vector<DrawMemory> draw_by_thread;
    std::vector<PickMemory> pick_by_thread;
    std::vector<SearchMemory> search_by_thread;
    NeighborsWorkspace neighbors;
    HingeMemory hinge;
    HistogramMemory histogram;
};

struct Found {
    std::size_t n_results = 0;  // triplets, or pairs and their counts
    std::size_t n_pairs = 0;
    std::size_t n_with_negative = 0;  // pairs with a candidate
    double sum_d_ap = 0.0, sum_d_an = 0.0;  // over the triplets, in the caller's units; of roots if the band is one of roots
};

// The threads that a call uses: wished, or OpenMP's default where wished is 0; one where the work is small.
int threads_for(std::size_t n_rows, std::size_t size, int wished) noexcept;

// Picks, counts, takes or lists, as the assignment says, into the workspace. Other tasks than to pick know one pick a pair.
Found mine(const Settings& settings, Batch& batch, const Groups& groups, Workspace& workspace);

// Writes the results of that call as rows of the embeddings, in the order of the pairs: triplets, or of each pair its number
// of candidates as the third.
void collect(const Settings& settings, const Groups& groups, std::span<const std::int32_t> order, Workspace& workspace,
             std::int32_t* anchors, std::int32_t* positives, std::int32_t* thirds);

}  // namespace mining
