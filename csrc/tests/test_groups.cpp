// Who is whose negative and which number a pair has, by counting; and in arithmetic beyond 2^32 pairs.
#include <random>
#include <vector>

#include "../core/random.hpp"
#include "../mining/groups.hpp"
#include "check.hpp"

namespace {

std::vector<std::int64_t> offsets_of(const std::vector<std::int64_t>& counts) {
    std::vector<std::int64_t> offsets{0};
    for (const auto count : counts) { offsets.push_back(offsets.back() + count); }
    return offsets;
}

// Every row, negative and pair, one by one.
void test_by_counting(const std::vector<std::int64_t>& counts, mining::GroupsMemory& memory) {
    const auto offsets = offsets_of(counts);
    const mining::Groups groups(offsets, memory);
    std::size_t row = 0, pair = 0, largest = 0;
    for (const auto count : counts) {
        const std::size_t begin = row, end = row + static_cast<std::size_t>(count);
        largest = std::max(largest, static_cast<std::size_t>(count));
        for (; row < end; ++row) {
            check::that(groups.begin(row) == begin && groups.end(row) == end, "the rows of an identity");
            check::that(groups.n_pairs(row) == end - row - 1 && groups.first_pair(row) == pair, "an anchor's pairs");
            for (std::size_t positive = row + 1; positive < end; ++positive, ++pair) {
                check::that(groups.anchor_of(pair) == row, "the anchor of pair " + std::to_string(pair));
            }
            std::size_t n_negatives = 0;
            for (std::size_t other = 0; other < groups.n_rows(); ++other) {
                if (begin <= other && other < end) { continue; }
                check::that(groups.negative(row, n_negatives++) == other, "a row's negatives, in order");
            }
            check::that(groups.n_negatives(row) == n_negatives, "how many negatives a row has");
        }
    }
    check::that(groups.n_rows() == row && groups.n_pairs() == pair && groups.largest() == largest, "the totals");
}

void test_small_groups() {
    mining::GroupsMemory memory;  // of all: later groups find what earlier ones left
    for (const auto& counts : std::vector<std::vector<std::int64_t>>{
             {}, {0}, {1}, {5}, {1, 1, 1}, {2, 1}, {1, 2}, {0, 3, 0, 0, 2, 0}, {40, 1, 7}, {3, 3, 3, 3}}) {
        test_by_counting(counts, memory);
    }
    std::mt19937 random(1);
    for (int i = 0; i < 20; ++i) {
        std::vector<std::int64_t> counts(random() % 9);
        for (auto& count : counts) { count = random() % 7; }
        test_by_counting(counts, memory);
    }
}

// One identity whose pairs outnumber 32 bits, between two others. Its anchor b + j comes after j (m - 1) - j (j - 1) / 2
// pairs of the identity's m rows.
void test_pairs_beyond_32_bits(std::int64_t m) {
    mining::GroupsMemory memory;
    const auto offsets = offsets_of({3, m, 4});
    const mining::Groups groups(offsets, memory);
    const auto before = [m](std::int64_t j) { return static_cast<std::size_t>(3 + j * (m - 1) - j * (j - 1) / 2); };

    check::that(groups.n_pairs() == before(m) + 6, "all pairs");
    check::that(groups.n_pairs() > std::size_t{1} << 31, "more pairs than an int counts");
    for (std::int64_t j = 0; j < m - 1; j += j < 10 || j > m - 12 ? 1 : m / 1000) {
        const auto anchor = static_cast<std::size_t>(3 + j);
        check::that(groups.first_pair(anchor) == before(j), "the first pair of anchor " + std::to_string(anchor));
        check::that(groups.anchor_of(before(j)) == anchor, "the anchor of its own first pair");
        check::that(groups.anchor_of(before(j + 1) - 1) == anchor, "the anchor of its own last pair");
        check::that(groups.n_negatives(anchor) == 7 && groups.negative(anchor, 3) == static_cast<std::size_t>(3 + m),
                    "the negatives on both sides");
    }
    check::that(groups.anchor_of(groups.n_pairs() - 1) == static_cast<std::size_t>(3 + m + 2), "the last pair's anchor");

    std::size_t largest = 0;
    for (std::uint64_t i = 0; i < 1000; ++i) {
        const std::size_t pair = core::Stream(5).draw(i, groups.n_pairs());
        const std::size_t anchor = groups.anchor_of(pair);
        const std::size_t after = pair - groups.first_pair(anchor);
        check::that(pair < groups.n_pairs() && after < groups.n_pairs(anchor), "a drawn pair is one of its anchor's");
        largest = std::max(largest, pair);
    }
    check::that(largest > groups.n_pairs() / 100 * 99, "draws reach the last pairs");
}

}  // namespace

int main() {
    test_small_groups();
    test_pairs_beyond_32_bits(70'000);     // past 2^31
    test_pairs_beyond_32_bits(1'000'000);  // past 2^32, by far
    return check::report();
}
