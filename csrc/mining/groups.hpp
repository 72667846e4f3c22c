// Rows grouped by identity: who is whose negative is a range, and every (anchor, later positive) pair has a number.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "../core/buffer.hpp"

namespace mining {

struct GroupsMemory {
    core::Buffer<std::int32_t> identity;
    core::Buffer<std::int64_t> first_pair;
};

class Groups {
  public:
    Groups(std::span<const std::int64_t> offsets, GroupsMemory& memory)
        : offsets_(offsets),
          n_rows_(static_cast<std::size_t>(offsets.back())),
          identity_(memory.identity.take(n_rows_)),
          first_pair_(memory.first_pair.take(n_rows_ + 1)) {
        first_pair_[0] = 0;
        for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
            largest_ = std::max(largest_, static_cast<std::size_t>(offsets[i + 1] - offsets[i]));
            for (std::int64_t row = offsets[i]; row < offsets[i + 1]; ++row) {
                const auto r = static_cast<std::size_t>(row);
                identity_[r] = static_cast<std::int32_t>(i);
                first_pair_[r + 1] = first_pair_[r] + (offsets[i + 1] - row - 1);
            }
        }
    }

    std::size_t n_rows() const noexcept { return n_rows_; }
    std::size_t largest() const noexcept { return largest_; }  // images of the identity that has most
    std::size_t begin(std::size_t row) const noexcept { return offset(row, 0); }
    std::size_t end(std::size_t row) const noexcept { return offset(row, 1); }

    std::size_t n_negatives(std::size_t row) const noexcept { return n_rows_ - (end(row) - begin(row)); }
    // The index-th row of another identity.
    std::size_t negative(std::size_t row, std::size_t index) const noexcept {
        return index < begin(row) ? index : index + (end(row) - begin(row));
    }

    std::size_t n_pairs() const noexcept { return static_cast<std::size_t>(first_pair_[n_rows_]); }
    std::size_t n_pairs(std::size_t anchor) const noexcept { return end(anchor) - anchor - 1; }
    // The number of (anchor, anchor + 1), which those of its later positives follow.
    std::size_t first_pair(std::size_t anchor) const noexcept { return static_cast<std::size_t>(first_pair_[anchor]); }
    std::size_t anchor_of(std::size_t pair) const noexcept {
        const auto after = std::upper_bound(first_pair_.begin(), first_pair_.end(), static_cast<std::int64_t>(pair));
        return static_cast<std::size_t>(after - first_pair_.begin()) - 1;
    }

  private:
    std::size_t offset(std::size_t row, std::size_t next) const noexcept {
        return static_cast<std::size_t>(offsets_[static_cast<std::size_t>(identity_[row]) + next]);
    }

    std::span<const std::int64_t> offsets_;
    std::size_t n_rows_, largest_ = 0;
    std::span<std::int32_t> identity_;
    std::span<std::int64_t> first_pair_;
};

}  // namespace mining
