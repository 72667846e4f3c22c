// How many pairs of rows lie at which distance, of one identity and of two: another reduction of the tile engine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "../core/buffer.hpp"
#include "batch.hpp"
#include "blocks.hpp"

namespace mining {

struct HistogramMemory {
    core::Buffer<std::int32_t> first_others;
    struct Own {
        BlockMemory block;
        core::Buffer<std::uint64_t> counts;
    };
    std::vector<Own> by_thread;
};

struct Histogram {
    // Bin i holds the squared distances from i * width on, in the caller's units; the last one what lies beyond it, too.
    double width;
    // A pair is in the bin of a number that is no farther than this from its squared distance.
    double error;
};

// Counts every two rows of a grouped batch once, those of one identity and those of two by themselves; both spans have a count
// for each bin. Their number does not depend on that of the threads.
Histogram count_pairs(Batch& batch, std::span<const std::int64_t> offsets, int n_threads, HistogramMemory& memory,
                      std::span<std::int64_t> same, std::span<std::int64_t> different);

}  // namespace mining
