// The draws: SplitMix64 as published, keyed and scaled as the specification says.
#include <limits>

#include "../core/random.hpp"
#include "check.hpp"
#include "oracle.hpp"

namespace {

// The first outputs of the generator's published implementation for the seed 1234567.
void test_published_outputs() {
    const std::uint64_t published[] = {6457827717110365317U, 3203168211198807973U, 9817491932198370423U,
                                       4593380528125082431U, 16408922859458223821U};
    const core::Stream stream(1234567);
    for (std::uint64_t i = 0; i < 5; ++i) {
        check::that(stream.draw(i, std::uint64_t{1} << 63) == published[i] >> 1, "draw " + std::to_string(i));
    }
}

void test_keyed_draws() {
    const std::uint64_t largest = std::numeric_limits<std::uint64_t>::max();
    for (const std::uint64_t seed : {std::uint64_t{0}, std::uint64_t{7}, largest}) {
        for (const std::uint64_t anchor : {std::uint64_t{0}, std::uint64_t{3}, std::uint64_t{0x7FFFFFFF}, largest}) {
            const core::AnchorStreams streams(seed, anchor);
            for (const std::uint64_t n : {std::uint64_t{1}, std::uint64_t{2}, std::uint64_t{1000003},
                                          std::uint64_t{20000000000}, largest}) {
                for (std::uint64_t positive = 0; positive < 40; ++positive) {
                    const std::uint64_t got = streams(positive).draw(positive % 33, n);
                    check::that(got == oracle::draw(seed, anchor, positive, positive % 33, n), "keyed draw");
                    check::that(got < n, "a draw lies below its bound");
                }
            }
        }
    }
}

static_assert(core::mix(0) == 0 && core::AnchorStreams(1, 2)(3).draw(0, 1) == 0);

}  // namespace

int main() {
    test_published_outputs();
    test_keyed_draws();
    return check::report();
}
