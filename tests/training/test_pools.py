"""Pools: what they hold, what bad files do to them, and that they resume to the image."""

import json

import numpy as np
import pytest

from facenet_fast.data.sampling import IdentitySampler
from facenet_fast.errors import UserError
from facenet_fast.training.pools import PoolReader


class FakeStore:
    """Images that hold their own index; some cannot be read."""

    def __init__(self, bad=()):
        self.bad = set(bad)

    def read(self, indices):
        images = np.zeros((len(indices), 2, 2, 3), np.uint8)
        images[:] = np.asarray(indices)[:, None, None, None]
        return images, np.array([index not in self.bad for index in indices])


def reader_of(bad=(), offsets=(0, 4, 8, 12, 16), n_identities=3, n_images=2, seed=5):
    return PoolReader(IdentitySampler(np.array(offsets), n_identities, n_images, seed), FakeStore(bad))


def indices_of(pool):
    return pool.images[:, 0, 0, 0].tolist()


def test_pools_hold_the_samplers_images():
    sampler = IdentitySampler(np.array([0, 4, 8, 12, 16]), 3, 2, 5)
    with reader_of() as pools:
        for _ in range(5):
            pool = pools.next()
            indices, labels = sampler.next_pool()
            assert indices_of(pool) == indices.tolist()
            np.testing.assert_array_equal(pool.labels, labels)


def test_unreadable_images_are_left_out_and_not_drawn_again():
    with reader_of(bad=[1, 6, 15]) as pools:
        seen = [index for _ in range(20) for index in indices_of(pools.next())]
    assert set(seen) == set(range(16)) - {1, 6, 15}


@pytest.mark.parametrize("bad", [(), (0, 5, 10, 11)])
def test_state_resumes_the_very_next_pool(bad):
    with reader_of(bad) as pools:
        for _ in range(3):
            pools.next()
        state = json.loads(json.dumps(pools.state()))
        expected = [indices_of(pools.next()) for _ in range(6)]
    with reader_of(bad, seed=99) as resumed:
        resumed.next()
        resumed.restore(state)
        assert [indices_of(resumed.next()) for _ in range(6)] == expected


def test_pools_without_a_positive_pair_are_drawn_anew():
    # One identity of two images among many of one.
    with reader_of(offsets=[0, 2, *range(3, 13)], n_identities=2) as pools:
        for _ in range(5):
            counts = np.unique(pools.next().labels, return_counts=True)[1]
            assert counts.max() == 2
            assert len(counts) == 2


def test_too_few_readable_images_are_an_error():
    with reader_of(bad=range(4, 16)) as pools, pytest.raises(UserError, match="at least 2 identities"):
        [pools.next() for _ in range(10)]
