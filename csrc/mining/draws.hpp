// How many draws a pair gets, and where in its stream they are, as in mining/reference.py.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace mining {

inline constexpr std::uint64_t kDraws = 32;
inline constexpr std::uint64_t kMoreDraws = 4;
inline constexpr std::uint64_t kRankDraw = std::uint64_t{1} << 32;
inline constexpr std::uint64_t kPilotTrials = 128;
inline constexpr std::uint64_t kPilotHits = kPilotTrials / 4;
inline constexpr std::size_t kLeastSampled = 8;
inline constexpr std::size_t kRowsPerSampled = 256;
inline constexpr std::uint64_t kDrawsPerSampled = 4;
inline constexpr std::size_t kSampleFromRows = 512;
inline constexpr std::size_t kSampleHits = 2;

// Stand where an anchor or a positive would: no row has this number.
inline constexpr std::uint64_t kPilotStream = std::numeric_limits<std::uint64_t>::max();
inline constexpr std::uint64_t kPositivesStream = std::numeric_limits<std::uint64_t>::max();

constexpr std::size_t n_sampled_of(std::size_t n_rows) noexcept { return std::max(kLeastSampled, n_rows / kRowsPerSampled); }

}  // namespace mining
