// Chance keyed by what is drawn: a SplitMix64 stream for every (seed, anchor, positive), as in mining/reference.py.
#pragma once

#include <cstdint>

namespace core {

// The output function of SplitMix64 (Steele, Lea, Flood 2014).
constexpr std::uint64_t mix(std::uint64_t x) noexcept {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
    return x ^ (x >> 31);
}

inline constexpr std::uint64_t kGolden = 0x9E3779B97F4A7C15U;

class Stream {
  public:
    constexpr explicit Stream(std::uint64_t state) noexcept : state_(state) {}

    // The i-th draw as a whole number in [0, n); its bias is below n / 2^64.
    constexpr std::uint64_t draw(std::uint64_t i, std::uint64_t n) const noexcept {
        using Wide = unsigned __int128;
        return static_cast<std::uint64_t>((static_cast<Wide>(mix(state_ + (i + 1) * kGolden)) * n) >> 64);
    }

  private:
    std::uint64_t state_;
};

// What an anchor's streams share, so that a pair costs one mix.
class AnchorStreams {
  public:
    constexpr AnchorStreams(std::uint64_t seed, std::uint64_t anchor) noexcept : state_(mix(mix(seed + kGolden) + anchor)) {}
    constexpr Stream operator()(std::uint64_t positive) const noexcept { return Stream(mix(state_ + positive)); }

  private:
    std::uint64_t state_;
};

}  // namespace core
