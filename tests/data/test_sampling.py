from __future__ import annotations

import json

import numpy as np
import pytest

from facenet_fast.data.identities import IdentityDataset
from facenet_fast.data.sampling import IdentitySampler
from facenet_fast.errors import UserError


def offsets_of(*counts):
    return np.cumsum([0, *counts])


def visits(sampler, n_pools):
    """Count, pool by pool, how often each image and each identity was drawn; check each pool on the way."""
    n_identities = sampler.n_identities
    of_image, of_identity = np.zeros(sampler.n_images, int), np.zeros(n_identities, int)
    for _ in range(n_pools):
        indices, labels = sampler.next_pool()
        assert indices.dtype == np.int64
        assert labels.dtype == np.int32
        assert len(set(indices.tolist())) == len(indices)
        of_image[indices] += 1
        of_identity[np.unique(labels)] += 1
        yield indices, labels, of_image, of_identity


@pytest.mark.parametrize("n_per_pool", [2, 3, 5, 7, 11])
@pytest.mark.parametrize("n_images_each", [2, 3, 4, 7])
def test_everything_is_visited_once_before_anything_is_visited_again(n_per_pool, n_images_each):
    counts = [7, 3, 9, 2, 4, 11, 5, 6, 4, 8, 3]
    sampler = IdentitySampler(offsets_of(*counts), n_per_pool, n_images_each, seed=3)
    labels_of = np.repeat(np.arange(len(counts)), counts)
    for indices, labels, of_image, of_identity in visits(sampler, 60):
        np.testing.assert_array_equal(labels_of[indices], labels)
        names, sizes = np.unique(labels, return_counts=True)
        assert len(names) == n_per_pool
        assert sizes.tolist() == [min(n_images_each, counts[name]) for name in names]
        assert np.ptp(of_identity) <= 1
        for identity in range(len(counts)):
            assert np.ptp(of_image[labels_of == identity]) <= 1
    assert of_image.min() > 0


def test_images_of_a_pool_stand_by_identity():
    sampler = IdentitySampler(offsets_of(5, 5, 5, 5), 3, 4, seed=0)
    _, labels = sampler.next_pool()
    assert np.count_nonzero(np.diff(labels)) == 2


def test_seed_decides():
    def pools(seed):
        sampler = IdentitySampler(offsets_of(*[6] * 12), 4, 3, seed)
        return [sampler.next_pool()[0].tolist() for _ in range(5)]

    assert pools(1) == pools(1)
    assert pools(1) != pools(2)


def test_pools_differ_from_epoch_to_epoch():
    sampler = IdentitySampler(offsets_of(*[4] * 6), 3, 4, seed=0)
    pairs = [frozenset(np.unique(sampler.next_pool()[1]).tolist()) for _ in range(20)]
    assert len(set(pairs)) > 4


def test_dataset_and_its_offsets_are_the_same_to_it():
    paths = tuple(f"{n}.png" for n in range(9))
    dataset = IdentityDataset(paths, np.array([0, 4, 9]), ("a", "b"))
    a = IdentitySampler(dataset, 2, 2, seed=4).next_pool()
    b = IdentitySampler([0, 4, 9], 2, 2, seed=4).next_pool()
    np.testing.assert_array_equal(a[0], b[0])


def test_fewer_images_than_wanted_are_all_given_and_never_twice():
    sampler = IdentitySampler(offsets_of(1, 2, 30), 3, 10, seed=0)
    for _ in range(4):
        indices, labels = sampler.next_pool()
        assert np.bincount(labels).tolist() == [1, 2, 10]
        assert len(set(indices.tolist())) == 13


def test_fewer_identities_than_wanted_are_all_given_with_one_warning(caplog):
    sampler = IdentitySampler(offsets_of(3, 3, 3), 45, 40, seed=0)
    for _ in range(3):
        indices, _ = sampler.next_pool()
        assert sorted(indices.tolist()) == list(range(9))
    (record,) = caplog.records
    assert "45" in record.getMessage()
    assert "only 3" in record.getMessage()


def test_identities_without_images_are_never_drawn():
    sampler = IdentitySampler(offsets_of(3, 0, 3, 0, 3), 2, 2, seed=0)
    seen = {int(label) for _ in range(10) for label in sampler.next_pool()[1]}
    assert seen == {0, 2, 4}


def test_excluded_images_are_never_drawn_again():
    sampler = IdentitySampler(offsets_of(4, 5, 3, 6), 3, 2, seed=1)
    sampler.next_pool()
    bad = [0, 9, 10, 11, 17]  # 9 .. 11 are all of the third identity
    sampler.exclude(bad)
    sampler.exclude(np.array([17]))
    assert sampler.excluded.tolist() == bad
    drawn = np.zeros(18, int)
    for _ in range(40):
        indices, labels = sampler.next_pool()
        assert 2 not in labels
        drawn[indices] += 1
    assert not drawn[bad].any()
    assert np.delete(drawn, bad).all()


def test_excluding_nothing_changes_nothing():
    a = IdentitySampler(offsets_of(4, 5, 3, 6), 3, 2, seed=1)
    b = IdentitySampler(offsets_of(4, 5, 3, 6), 3, 2, seed=1)
    b.exclude([])
    np.testing.assert_array_equal(a.next_pool()[0], b.next_pool()[0])


def test_resumes_exactly_through_json():
    sampler = IdentitySampler(offsets_of(*range(2, 15)), 5, 3, seed=7)
    for n in range(25):
        if n == 4:
            sampler.exclude([3, 20])
        state = json.loads(json.dumps(sampler.state()))
        other = IdentitySampler(offsets_of(*range(2, 15)), 5, 3, seed=99)
        other.next_pool()
        other.exclude([1])
        other.restore(state)
        assert other.state() == sampler.state()
        for _ in range(3):
            for mine, its in zip(other.next_pool(), sampler.next_pool(), strict=True):
                np.testing.assert_array_equal(mine, its)


def test_state_of_other_data_is_refused():
    state = IdentitySampler(offsets_of(3, 3), 2, 2, seed=0).state()
    with pytest.raises(UserError, match="2 identities with 6 images; got 2 with 7"):
        IdentitySampler(offsets_of(3, 4), 2, 2, seed=0).restore(state)


@pytest.mark.parametrize(("p", "k", "name"), [(1, 2, "identities_per_batch"), (2, 0, "images_per_identity")])
def test_pools_without_pairs_are_refused(p, k, name):
    with pytest.raises(UserError, match=f"{name} must be at least 2; got"):
        IdentitySampler(offsets_of(3, 3), p, k, seed=0)


@pytest.mark.parametrize("counts", [(), (5,), (0, 5, 0)])
def test_one_identity_is_refused(counts):
    with pytest.raises(UserError, match="at least 2 identities"):
        IdentitySampler(offsets_of(*counts), 2, 2, seed=0)


def test_identities_with_one_image_each_are_refused():
    with pytest.raises(UserError, match=r"two readable images.*each of the 3 identities"):
        IdentitySampler(offsets_of(1, 1, 1), 2, 2, seed=0)


def test_excluding_too_much_is_said():
    sampler = IdentitySampler(offsets_of(2, 2), 2, 2, seed=0)
    with pytest.raises(UserError, match=r"at least 2 identities with readable images.*got 1"):
        sampler.exclude([0, 1])


@pytest.mark.parametrize("wrong", [[4], [-1]])
def test_excluding_what_is_not_there_is_a_bug(wrong):
    with pytest.raises(IndexError, match=r"0 \.\. 3"):
        IdentitySampler(offsets_of(2, 2), 2, 2, seed=0).exclude(wrong)


@pytest.mark.parametrize("offsets", [[1, 2], [0, 3, 2], [0.0, 2.0], [[0, 2]], []])
def test_offsets_must_be_offsets(offsets):
    with pytest.raises(ValueError, match="offsets"):
        IdentitySampler(offsets, 2, 2, seed=0)


# Groups of lookalikes

N_FAMILIES, N_IN_FAMILY = 30, 10


def family_neighbors(k=16):
    """Each of 300 identities has the other 9 of its family nearest, then anybody."""
    rng = np.random.default_rng(8)
    n = N_FAMILIES * N_IN_FAMILY
    neighbors = np.empty((n, k), np.int64)
    for one in range(n):
        family = one - one % N_IN_FAMILY + np.arange(N_IN_FAMILY)
        own = rng.permutation(family[family != one])[:k]
        others = rng.permutation(np.setdiff1d(np.arange(n), family))
        neighbors[one] = np.concatenate([own, others])[:k]
    return neighbors


def families_of(labels):
    """Count the pairs of identities in a pool that are of one family."""
    sizes = np.bincount(np.unique(labels) // N_IN_FAMILY)
    return int((sizes * (sizes - 1) // 2).sum())


def lookalike_sampler(n_per_pool=24, group=6, seed=0, **options):
    n = N_FAMILIES * N_IN_FAMILY
    return IdentitySampler(offsets_of(*[3] * n), n_per_pool, 2, seed, group=group, **options)


def test_groups_meet_lookalikes_far_more_often_than_chance():
    sampler = lookalike_sampler()
    before = [families_of(sampler.next_pool()[1]) for _ in range(40)]
    sampler.look_alike(family_neighbors())
    after = [families_of(sampler.next_pool()[1]) for _ in range(40)]
    # By chance 24 * 23 / 2 pairs, of which 9 in 299 are of a family; in each of four groups of six about half
    # are of the family.
    assert 4 < np.mean(before) < 13
    assert np.mean(after) > 4 * np.mean(before)


@pytest.mark.parametrize(
    ("n_per_pool", "group", "n_pools"),
    [(24, 6, 90), (25, 6, 90), (24, 24, 310), (6, 40, 310), (300, 8, 5), (299, 2, 15)],
)
def test_each_is_a_seed_once_before_any_is_again(n_per_pool, group, n_pools, monkeypatch):
    sampler = lookalike_sampler(n_per_pool, group)
    sampler.look_alike(family_neighbors())
    seeds = []
    take = sampler._take
    monkeypatch.setattr(sampler, "_take", lambda n: seeds.append(take(n)) or seeds[-1])
    for _, labels, _, of_identity in visits(sampler, n_pools):
        names, sizes = np.unique(labels, return_counts=True)
        assert len(names) == n_per_pool
        assert (sizes == 2).all()
        n_times = np.bincount(np.concatenate(seeds), minlength=300)
        assert np.ptp(n_times) <= 1
        n_least = min(n_times.min(), of_identity.min())
    assert n_least > 0


def test_a_group_is_drawn_from_twice_as_many_and_changes():
    neighbors = np.array([np.roll(np.arange(300), -one)[1:41] for one in range(300)])
    partners = {one: set() for one in range(300)}
    sampler = lookalike_sampler(4, 4)  # a pool is one group
    sampler.look_alike(neighbors)
    for _ in range(300 * 6):
        _, labels = sampler.next_pool()
        names = labels[::2].tolist()
        partners[names[0]].update((other - names[0]) % 300 for other in names[1:])
    assert set().union(*partners.values()) == set(range(1, 9))  # 2 * 4 nearest, and no other
    assert np.mean([len(others) for others in partners.values()]) > 7


def test_groups_whose_lookalikes_are_in_the_pool_take_others(monkeypatch):
    sampler = lookalike_sampler(8, 4)
    sampler.look_alike(np.tile(np.arange(8), (300, 1)))  # all are like the same 8
    seeds = []
    take = sampler._take
    monkeypatch.setattr(sampler, "_take", lambda n: seeds.append(take(n)) or seeds[-1])
    for _ in range(30):
        sampler.next_pool()
    # Two seeds a pool, and one more where a seed is one of the 8.
    assert len(seeds) <= 2 * 30 + np.count_nonzero(np.concatenate(seeds) < 8)


def test_lookalikes_that_are_excluded_or_missing_are_not_drawn():
    sampler = lookalike_sampler(8, 8)
    neighbors = family_neighbors()
    neighbors[:, 4:] = -1
    neighbors[5] = -1  # nothing is known of it
    sampler.look_alike(neighbors)
    gone = np.arange(10, 20)  # a family but one
    sampler.exclude([3 * one + image for one in gone[1:] for image in range(3)])
    seen = set()
    for _ in range(200):
        _, labels = sampler.next_pool()
        assert len(np.unique(labels)) == 8
        seen.update(labels.tolist())
    assert seen == set(range(300)) - set(gone[1:].tolist())


def test_fewer_identities_than_a_pool_has_room_for_are_all_in_it(caplog):
    sampler = IdentitySampler(offsets_of(3, 3, 3), 45, 2, seed=0, group=8)
    sampler.look_alike([[1, 2], [0, 2], [-1, -1]])
    for _ in range(5):
        assert sorted(np.unique(sampler.next_pool()[1]).tolist()) == [0, 1, 2]


def test_lookalikes_without_groups_change_nothing():
    a, b = lookalike_sampler(group=0), lookalike_sampler(group=0)
    b.look_alike(family_neighbors())
    for _ in range(5):
        np.testing.assert_array_equal(a.next_pool()[0], b.next_pool()[0])


@pytest.mark.parametrize("options", [{}, {"power": 0.5}])
def test_groups_resume_exactly_through_json(options):
    sampler = lookalike_sampler(**options)
    for n in range(20):
        if n in (5, 15):
            sampler.look_alike(family_neighbors(16 if n == 5 else 9))
        if n == 12:
            sampler.exclude([3, 20, 21, 22])
        state = json.loads(json.dumps(sampler.state()))
        other = lookalike_sampler(seed=99, **options)
        other.look_alike(family_neighbors(3))
        other.next_pool()
        other.restore(state)
        assert other.state() == sampler.state()
        for mine, its in zip(other.next_pool(), sampler.next_pool(), strict=True):
            np.testing.assert_array_equal(mine, its)


def test_a_run_without_groups_forgets_lookalikes():
    sampler = lookalike_sampler()
    sampler.look_alike(family_neighbors())
    plain = lookalike_sampler(group=0)
    plain.restore(sampler.state())
    assert "neighbors" not in plain.state()


@pytest.mark.parametrize("wrong", [[[1], [0]], [1] * 300, [[300]] * 300])
def test_lookalikes_must_be_of_the_data(wrong):
    with pytest.raises(ValueError, match="a row of identities for each identity"):
        lookalike_sampler().look_alike(wrong)


# Identities that are not drawn in turn


def draws_of(sampler, n_pools):
    counts = np.zeros(sampler.n_identities, int)
    for _ in range(n_pools):
        counts[np.unique(sampler.next_pool()[1])] += 1
    return counts


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_identities_are_drawn_in_proportion_to_a_power_of_their_images(power):
    counts = np.array([1, 4, 9, 16, 30, 60] * 40)
    sampler = IdentitySampler(offsets_of(*counts), 4, 2, seed=2, power=power)
    drawn = draws_of(sampler, 1500).reshape(40, 6).sum(axis=0)
    weights = np.minimum(counts[:6], 30) ** power
    # 6,000 draws, within four standard deviations, and what having nobody twice in a pool of 4 of 240 takes
    # from the largest: less than 4 * 30 / (40 * 90) of theirs.
    expected = 6000 * weights / weights.sum()
    np.testing.assert_allclose(drawn, expected, atol=4 * np.sqrt(6000 * 0.15), rtol=0.04)


def test_power_0_is_the_queue():
    a = IdentitySampler(offsets_of(*range(1, 15)), 5, 3, seed=7)
    b = IdentitySampler(offsets_of(*range(1, 15)), 5, 3, seed=7, power=0.0, single_image_weight=1.0)
    for _ in range(10):
        np.testing.assert_array_equal(a.next_pool()[0], b.next_pool()[0])
    assert a.state() == b.state()


def test_pools_are_those_of_earlier_versions():
    sampler = IdentitySampler(offsets_of(1, 2, 3, 4, 5), 3, 2, seed=5)
    pools = [sampler.next_pool()[0].tolist() for _ in range(3)]
    assert pools == [[11, 14, 6, 9, 1, 2], [5, 4, 0, 2, 1], [0, 8, 7, 3, 5]]


def test_people_of_one_image_are_drawn_less_often_or_never():
    counts = [1] * 50 + [4] * 50
    half = draws_of(IdentitySampler(offsets_of(*counts), 5, 2, seed=1, single_image_weight=0.5), 1000)
    assert half[:50].sum() / half[50:].sum() == pytest.approx(0.5, abs=0.06)
    never = IdentitySampler(offsets_of(*counts), 5, 2, seed=1, single_image_weight=0.0)
    drawn = draws_of(never, 100)
    assert not drawn[:50].any()
    assert (drawn[50:] == 10).all()  # each in turn
    never.exclude([50, 51, 52])  # one image of this person is left
    assert not draws_of(never, 100)[50]


def test_too_few_people_of_two_images_are_said():
    with pytest.raises(UserError, match=r"2 identities with two readable images or more are needed .* got 1"):
        IdentitySampler(offsets_of(1, 1, 5), 2, 2, seed=0, single_image_weight=0.0)


# Images that are repeated


@pytest.mark.parametrize("n_images_each", [2, 3, 5, 8, 12])
def test_repeated_images_fill_up_and_are_equally_often(n_images_each):
    counts = np.array([1, 2, 3, 4, 12])
    sampler = IdentitySampler(offsets_of(*counts), 3, n_images_each, seed=0, repeat=True)
    labels_of = np.repeat(np.arange(5), counts)
    of_image = np.zeros(22, int)
    for _ in range(50):
        indices, labels = sampler.next_pool()
        np.testing.assert_array_equal(labels_of[indices], labels)
        assert np.unique(labels, return_counts=True)[1].tolist() == [n_images_each] * 3
        for label in np.unique(labels):
            _, times = np.unique(indices[labels == label], return_counts=True)
            assert len(times) == min(counts[label], n_images_each)
            assert np.ptp(times) <= 1
        np.add.at(of_image, indices, 1)
        for identity in range(5):
            assert np.ptp(of_image[labels_of == identity]) <= 1


def test_repeated_images_resume_exactly():
    options = {"repeat": True, "power": 0.3, "single_image_weight": 0.5}
    sampler = IdentitySampler(offsets_of(1, 2, 3, 4, 1, 6), 4, 5, seed=3, **options)
    for n in range(12):
        if n == 4:
            sampler.exclude([1])
        other = IdentitySampler(offsets_of(1, 2, 3, 4, 1, 6), 4, 5, seed=9, **options)
        other.restore(json.loads(json.dumps(sampler.state())))
        np.testing.assert_array_equal(other.next_pool()[0], sampler.next_pool()[0])


def test_people_of_one_image_each_can_be_trained_on_if_images_are_repeated():
    indices, _ = IdentitySampler(offsets_of(1, 1, 1), 3, 2, seed=0, repeat=True).next_pool()
    assert sorted(indices.tolist()) == [0, 0, 1, 1, 2, 2]
