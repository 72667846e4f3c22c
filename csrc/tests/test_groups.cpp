// Who is whose negative and who may be whose positive, by counting; and whose a pair is, beyond 2^32 pairs.
#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "../core/random.hpp"
#include "../mining/groups.hpp"
#include "../mining/pairs.hpp"
#include "check.hpp"

namespace {

std::vector<std::int64_t> offsets_of(const std::vector<std::int64_t>& counts) {
    std::vector<std::int64_t> offsets{0};
    for (const auto count : counts) { offsets.push_back(offsets.back() + count); }
    return offsets;
}

// Every row and every other one. n_members[i] of identity i are no bank's.
void test_by_counting(const std::vector<std::int64_t>& counts, const std::vector<std::int64_t>& n_members,
                      bool bank_positives, mining::GroupsMemory& memory) {
    const auto offsets = offsets_of(counts);
    std::vector<std::int64_t> members;
    for (std::size_t i = 0; i < counts.size(); ++i) { members.push_back(offsets[i] + n_members[i]); }
    const mining::Groups groups(offsets, members, bank_positives, memory);
    std::size_t row = 0, largest = 0;
    for (std::size_t i = 0; i < counts.size(); ++i) {
        const std::size_t begin = row, end = row + static_cast<std::size_t>(counts[i]);
        const std::size_t bank = row + static_cast<std::size_t>(n_members[i]);
        largest = std::max(largest, end - begin);
        for (; row < end; ++row) {
            check::that(groups.begin(row) == begin && groups.end(row) == end, "the rows of an identity");
            check::that(groups.is_member(row) == (row < bank), "a row of the batch or of the bank");
            check::that(groups.positives_end(row) == (bank_positives ? end : bank), "the end of a row's positives");
            std::size_t n_negatives = 0;
            for (std::size_t other = 0; other < groups.n_rows(); ++other) {
                if (begin <= other && other < end) { continue; }
                check::that(groups.negative(row, n_negatives++) == other, "a row's negatives, in order");
            }
            check::that(groups.n_negatives(row) == n_negatives, "how many negatives a row has");
        }
    }
    check::that(groups.n_rows() == row && groups.largest() == largest, "the totals");
}

void test_small_groups() {
    mining::GroupsMemory memory;  // of all: later groups find what earlier ones left
    for (const auto& counts : std::vector<std::vector<std::int64_t>>{
             {}, {0}, {1}, {5}, {1, 1, 1}, {2, 1}, {1, 2}, {0, 3, 0, 0, 2, 0}, {40, 1, 7}, {3, 3, 3, 3}}) {
        test_by_counting(counts, counts, false, memory);
        test_by_counting(counts, std::vector<std::int64_t>(counts.size(), 0), true, memory);
    }
    std::mt19937 random(1);
    for (int i = 0; i < 40; ++i) {
        std::vector<std::int64_t> counts(random() % 9), n_members;
        for (auto& count : counts) {
            count = random() % 7;
            n_members.push_back(random() % (count + 1));
        }
        test_by_counting(counts, n_members, i % 2 == 0, memory);
    }
}

// One identity whose pairs, each once, outnumber 32 bits, between two others. Its anchor b + j comes after
// j (m - 1) - j (j - 1) / 2 pairs of the identity's m rows.
void test_pairs_beyond_32_bits(std::int64_t m) {
    mining::GroupsMemory memory;
    const auto offsets = offsets_of({3, m, 4});
    const std::vector<std::int64_t> members(offsets.begin() + 1, offsets.end());
    const mining::Groups groups(offsets, members, false, memory);
    std::vector<std::int64_t> first_pair{0};
    for (std::size_t row = 0; row < groups.n_rows(); ++row) {
        first_pair.push_back(first_pair.back() + static_cast<std::int64_t>(groups.positives_end(row) - row - 1));
    }
    const mining::Pairs pairs = {groups, {}, first_pair, {}, {}, 1, {}, {}, {}};
    const auto n_pairs = static_cast<std::size_t>(first_pair.back());
    const auto before = [m](std::int64_t j) { return static_cast<std::size_t>(3 + j * (m - 1) - j * (j - 1) / 2); };

    check::that(n_pairs == before(m) + 6, "all pairs");
    check::that(n_pairs > std::size_t{1} << 31, "more pairs than an int counts");
    for (std::int64_t j = 0; j < m - 1; j += j < 10 || j > m - 12 ? 1 : m / 1000) {
        const auto anchor = static_cast<std::size_t>(3 + j);
        check::that(pairs.first(anchor) == before(j), "the first pair of anchor " + std::to_string(anchor));
        check::that(pairs.n_of(anchor) == static_cast<std::size_t>(m - 1 - j), "how many pairs an anchor has");
        check::that(pairs.anchor_of(before(j)) == anchor, "the anchor of its own first pair");
        check::that(pairs.anchor_of(before(j + 1) - 1) == anchor, "the anchor of its own last pair");
        check::that(groups.n_negatives(anchor) == 7 && groups.negative(anchor, 3) == static_cast<std::size_t>(3 + m),
                    "the negatives on both sides");
    }
    check::that(pairs.anchor_of(n_pairs - 1) == static_cast<std::size_t>(3 + m + 2), "the last pair's anchor");

    std::size_t largest = 0;
    for (std::uint64_t i = 0; i < 1000; ++i) {
        const std::size_t pair = core::Stream(5).draw(i, n_pairs);
        const std::size_t anchor = pairs.anchor_of(pair);
        check::that(pair < n_pairs && pair - pairs.first(anchor) < pairs.n_of(anchor),
                    "a drawn pair is one of its anchor's");
        largest = std::max(largest, pair);
    }
    check::that(largest > n_pairs / 100 * 99, "draws reach the last pairs");
}

// Each pair is its anchor's, and rows without pairs have none.
void test_anchors_of_pairs() {
    mining::GroupsMemory memory;
    const std::vector<std::int64_t> offsets = {0, 9}, members = {9};
    const mining::Groups groups(offsets, members, false, memory);
    const std::vector<std::int64_t> first_pair = {0, 0, 3, 3, 3, 4, 9, 9, 11, 11};
    std::vector<std::int32_t> positives(11), picks(22);
    std::vector<float> d_ap(11), d_an(22);
    const std::vector<std::uint8_t> anchors = {1, 0, 1, 0, 1, 0, 0, 1, 0};
    const mining::Pairs pairs = {groups, anchors, first_pair, positives, d_ap, 2, picks, d_an, {}};
    std::size_t n = 0;
    for (std::size_t row = 0; row < 9; ++row) {
        check::that(pairs.is_anchor(row) == (anchors[row] != 0), "whether a row is an anchor");
        const std::size_t n_of = pairs.n_of(row);
        check::that(pairs.first(row) == n && pairs.positives_of(row).data() == positives.data() + n &&
                        pairs.d_ap_of(row).data() == d_ap.data() + n && pairs.picks_of(row).data() == picks.data() + 2 * n &&
                        pairs.d_an_of(row).data() == d_an.data() + 2 * n,
                    "where an anchor's pairs begin");
        check::that(pairs.positives_of(row).size() == n_of && pairs.d_ap_of(row).size() == n_of &&
                        pairs.picks_of(row).size() == 2 * n_of && pairs.d_an_of(row).size() == 2 * n_of,
                    "how many they are");
        for (std::size_t i = 0; i < n_of; ++i) { check::that(pairs.anchor_of(n++) == row, "the anchor of a pair"); }
    }
    check::that(n == pairs.n(), "all pairs");
}

}  // namespace

int main() {
    test_small_groups();
    test_anchors_of_pairs();
    test_pairs_beyond_32_bits(70'000);     // past 2^31
    test_pairs_beyond_32_bits(1'000'000);  // past 2^32, by far
    return check::report();
}
