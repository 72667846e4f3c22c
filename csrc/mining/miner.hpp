// The driver: from a batch and a band to one picked negative for every pair, as mining/reference.py specifies.
//
// Pairs are closed in two passes. The first draws negatives at random and tests them: where most negatives are
// candidates it closes nearly every pair for the price of two distances. The second takes the anchors that still have
// open pairs, a block of them at a time, against all columns: tiles of distances are made in cache, sieved to the few
// that any open pair of the row could want, and forgotten. Float32 decides what its error bound lets it decide; the
// rest is decided by the float64 distance of the caller's own numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "../core/buffer.hpp"
#include "batch.hpp"
#include "groups.hpp"
#include "policies.hpp"

namespace mining {

struct Settings {
    Band band;
    double margin;  // of squared distance, in the caller's units
    std::uint64_t seed;
    int n_threads;
};

// What of an anchor's row can matter to any of its open pairs: shifted distances in [low, high).
struct Sieve {
    std::size_t anchor, n_candidates;
    float low, high;
};

// What one thread works in.
struct Scratch {
    // Of the anchor whose negatives are drawn.
    core::Buffer<std::int32_t> columns, open;
    core::Buffer<float> shifted;
    // Of the block of anchors that is searched, and of the pair that picks.
    core::Buffer<float> block, tile, candidate_values, found_values;
    core::Buffer<std::int32_t> candidate_columns, found_places;
    core::Buffer<Sieve> sieves;
    core::Buffer<double> exact;
};

// All memory that mining needs, kept between calls by whoever mines again and again. One call at a time.
struct Workspace {
    BatchMemory batch;
    GroupsMemory groups;
    core::Buffer<float> shifted_d_ap;
    core::Buffer<std::int32_t> picks, open_rows;
    core::Buffer<std::int64_t> first_triplet;
    std::vector<Scratch> scratch;
};

// The threads that a call uses: wished, or OpenMP's default where wished is 0; one where the work is small.
int threads_for(std::size_t n_rows, std::size_t size, int wished) noexcept;

// Picks a negative for every pair, into the workspace; returns how many pairs have one.
std::size_t mine(const Settings& settings, Batch& batch, const Groups& groups, Workspace& workspace);

// Writes the picked triplets as rows of the embeddings, in the order of the pairs.
void collect(const Groups& groups, std::span<const std::int32_t> order, Workspace& workspace, int n_threads,
             std::int32_t* anchors, std::int32_t* positives, std::int32_t* negatives);

}  // namespace mining
