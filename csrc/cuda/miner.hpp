// The miner on a CUDA device: the same pairs, bands, picks and draws as csrc/mining, and the same triplets.
//
// Rows, order and rule come as they come to the CPU's miner; rows may lie on the device already. Results stay there until
// somebody fetches them. A call works on one stream and has finished when it returns.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <variant>
#include <vector>

#include "../mining/rule.hpp"
#include "runtime.hpp"

namespace cuda {

// All device memory that mining needs, kept between calls. One call at a time, and always of one device.
class Workspace {
  public:
    Workspace();
    Workspace(const Workspace&) = delete;
    Workspace& operator=(const Workspace&) = delete;
    ~Workspace();

    // Rows that would take more bytes than this stay in the host's memory and are read from there.
    std::size_t largest_rows = ~std::size_t{0};
    // Where all distances of a batch take no more bytes, they are made at once, each two rows' once, and not anchor by anchor.
    std::size_t whole_bytes = std::size_t{4} << 30;
    // Bytes of distances, and of what is listed of them, that are there at a time: enough anchors that the tiles between them
    // and all rows keep a large device busy. The least is those of 128 anchors.
    std::size_t stripe_bytes = std::size_t{256} << 20;

    struct Memory;
    Memory& memory() noexcept { return *memory_; }

  private:
    std::unique_ptr<Memory> memory_;
};

struct Call {
    // n rows of size numbers, C order; of the current device, or of the host.
    std::variant<const float*, const double*> values;
    std::size_t n, size;
    bool on_device;
    // Of the host. Grouped row g is row order[g]; identity i owns the grouped rows offsets[i] .. offsets[i + 1], and those from
    // members[i] on are a bank's.
    std::span<const std::int32_t> order;
    std::span<const std::int64_t> offsets, members;
    bool bank_positives;
    // By grouped row; empty: all are.
    std::span<const std::uint8_t> is_anchor;
    const mining::Rule& rule;
    std::uint64_t seed;
    cudaStream_t stream;
};

struct Mined {
    std::int64_t bad_row = -1;  // a row of the embeddings that is not finite; then there is nothing else
    std::int64_t n_pairs = 0, n_with_negative = 0;
    double sum_d_ap = 0.0, sum_d_an = 0.0;
    // Rows of the embeddings, on the device, in the order of the pairs; the thirds are negatives, or of count() the number of
    // each pair's candidates.
    Array<std::int32_t> anchors, positives, thirds;
};

// The rule's picks; not of a rule that picks every candidate.
Mined mine(const Call& call, Workspace& workspace);

// How many candidates each pair has; picks and fallbacks of the rule do not matter.
Mined count(const Call& call, Workspace& workspace);

struct Listed {
    std::int64_t bad_row = -1;
    double sum_d_ap = 0.0, sum_d_an = 0.0;
    Array<std::int32_t> negatives;  // on the device, n of them
};

// All candidates of all pairs. row_starts says by grouped row where its candidates begin, n how many there are; throws
// std::invalid_argument where there are others.
Listed every(const Call& call, std::span<const std::int64_t> row_starts, std::size_t n, Workspace& workspace);

struct Hinges {
    std::int64_t bad_row = -1;
    // By row of the embeddings.
    std::vector<double> losses;
    std::vector<std::int64_t> n_triplets;
    std::variant<Array<float>, Array<double>> gradient;  // n x size, of the values' type, on the device
};

// The hinge loss of every candidate, max(0, d_ap - d_an + margin), and the gradient of the anchors' losses, each times its
// weight (by row of the embeddings). All rows must be anchors and none a bank's; the rule's band must be relative, its pairs
// not the moderate ones, and nothing skipped.
Hinges hinge(const Call& call, double margin, std::span<const double> weights, Workspace& workspace);

// Multiplies all of them.
void scale(std::variant<Array<float>, Array<double>>& values, double factor, cudaStream_t stream);

}  // namespace cuda
