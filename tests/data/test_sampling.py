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
