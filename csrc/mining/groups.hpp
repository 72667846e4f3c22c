// Rows grouped by identity: who is whose negative is a range, and so is who may be whose positive.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "../core/buffer.hpp"

namespace mining {

using GroupsMemory = core::Buffer<std::int32_t>;

class Groups {
  public:
    // Identity i owns the rows offsets[i] .. offsets[i + 1]; those from members[i] on are a bank's, never anchors, and
    // positives only if bank_positives.
    Groups(std::span<const std::int64_t> offsets, std::span<const std::int64_t> members, bool bank_positives,
           GroupsMemory& memory)
        : offsets_(offsets),
          members_(members),
          bank_positives_(bank_positives),
          n_rows_(static_cast<std::size_t>(offsets.back())),
          identity_(memory.take(n_rows_)) {
        for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
            largest_ = std::max(largest_, static_cast<std::size_t>(offsets[i + 1] - offsets[i]));
            std::fill(identity_.begin() + offsets[i], identity_.begin() + offsets[i + 1], static_cast<std::int32_t>(i));
        }
    }

    std::size_t n_rows() const noexcept { return n_rows_; }
    std::size_t n_identities() const noexcept { return offsets_.size() - 1; }
    std::size_t first(std::size_t identity) const noexcept { return static_cast<std::size_t>(offsets_[identity]); }
    std::size_t largest() const noexcept { return largest_; }  // images of the identity that has most
    std::size_t begin(std::size_t row) const noexcept { return static_cast<std::size_t>(offsets_[identity(row)]); }
    std::size_t end(std::size_t row) const noexcept { return static_cast<std::size_t>(offsets_[identity(row) + 1]); }

    bool is_member(std::size_t row) const noexcept { return row < static_cast<std::size_t>(members_[identity(row)]); }
    // Positives of a member are the other rows from begin() to here.
    std::size_t positives_end(std::size_t row) const noexcept {
        return bank_positives_ ? end(row) : static_cast<std::size_t>(members_[identity(row)]);
    }

    std::size_t n_negatives(std::size_t row) const noexcept { return n_rows_ - (end(row) - begin(row)); }
    // The index-th row of another identity.
    std::size_t negative(std::size_t row, std::size_t index) const noexcept {
        return index < begin(row) ? index : index + (end(row) - begin(row));
    }

  private:
    std::size_t identity(std::size_t row) const noexcept { return static_cast<std::size_t>(identity_[row]); }

    std::span<const std::int64_t> offsets_, members_;
    bool bank_positives_;
    std::size_t n_rows_, largest_ = 0;
    std::span<std::int32_t> identity_;
};

}  // namespace mining
