"""Pools: what they hold, what bad files do to them, and that they resume to the image."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from facenet_fast.data.sampling import IdentitySampler
from facenet_fast.errors import UserError
from facenet_fast.training.dealing import deal
from facenet_fast.training.pools import PoolReader, PoolShare, SharedPoolReader


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


# -- shares --------------------------------------------------------------------------------------------------


def test_everything_is_dealt_evenly_and_mixed():
    labels = np.repeat([3, 1, 8, 5], [4, 4, 4, 3])
    chunks = deal(labels, n_replicas=3, batch_size=3)
    assert [len(rows) for rows in chunks] == [3, 3, 3, 2, 2, 2]
    assert sorted(np.concatenate(chunks).tolist()) == list(range(15))
    assert all(len(set(labels[rows])) == len(rows) for rows in chunks)
    assert len(deal(labels, n_replicas=1, batch_size=15)) == 1
    with pytest.raises(UserError, match="an image for each of the 16 replicas; got 15 images"):
        deal(labels, n_replicas=16, batch_size=5)


class Together:
    """What workers have in common in a test: they are threads."""

    def __init__(self, n):
        self.barrier = threading.Barrier(n)
        self.values = [None] * n


class Part:
    """One of several workers of as many replicas each."""

    def __init__(self, together, worker, n_local):
        self.together, self.worker = together, worker
        self.n_local, self.first = n_local, worker * n_local
        self.n_replicas = n_local * len(together.values)

    def sum(self, values):
        self.together.values[self.worker] = np.asarray(values)
        self.together.barrier.wait(30)
        total = np.sum(self.together.values, axis=0)
        self.together.barrier.wait(30)
        return total


def shares_of(bad, n_workers, n_local, n_pools, store_of=FakeStore, offsets=(0, 4, 8, 12, 16)):
    """Return each worker's shares of some pools, and what each would go on from."""
    together = Together(n_workers)

    def work(worker):
        sampler = IdentitySampler(np.array(offsets), 3, 2, 5)
        part = Part(together, worker, n_local)
        with SharedPoolReader(sampler, store_of(bad), part, batch_size=2) as pools:
            return [pools.next() for _ in range(n_pools)], pools.state()

    with ThreadPoolExecutor(n_workers) as threads:
        done = [threads.submit(work, worker) for worker in range(n_workers)]
        return zip(*(one.result(60) for one in done), strict=True)


@pytest.mark.parametrize("bad", [(), (1, 6, 15), (0, 5, 10, 11)])
@pytest.mark.parametrize(("n_workers", "n_local"), [(1, 2), (2, 1), (2, 2)])
def test_shares_are_the_pools_of_one_reader(bad, n_workers, n_local):
    with reader_of(bad) as pools:
        whole = [pools.next() for _ in range(12)]
        expected = pools.state()
    shares, states = shares_of(bad, n_workers, n_local, 12)
    assert all(state == expected for state in states)
    for pool, *parts in zip(whole, *shares, strict=True):
        images = [index for part in parts for index in indices_of(part)]
        assert sorted(images) == sorted(indices_of(pool))
        of = dict(zip(indices_of(pool), pool.labels.tolist(), strict=True))
        for part in parts:
            assert isinstance(part, PoolShare)
            assert part.labels.tolist() == [of[index] for index in images]
            assert part.ends == parts[0].ends
            assert indices_of(part) == images[part.start : part.start + len(part.images)]
            assert len(part.ends) % (n_workers * n_local) == 0
            assert np.diff([0, *part.ends]).max() <= 2


def test_a_worker_reads_its_share_only():
    read = []

    class Watched(FakeStore):
        def read(self, indices):
            read.append(len(indices))
            return super().read(indices)

    shares_of((), 2, 1, 4, store_of=Watched)
    # Six images a pool, in chunks of 2, 2, 1 and 1; the pool after the last is read ahead.
    assert sorted(read) == [2] * 5 + [4] * 5


def test_what_one_worker_alone_cannot_read():
    class Flaky(FakeStore):
        """A first image that nobody can read, and one that only who is given it later cannot."""

        def read(self, indices):
            images, ok = super().read(indices)
            self.bad.add(5)
            return images, ok

    with pytest.raises(UserError, match="able to read the same images; here 1 of a pool cannot"):
        shares_of([4, 6, 7], 1, 2, 6, store_of=Flaky, offsets=(0, 2, 4, 6, 8))


def test_shares_resume_to_the_image():
    with reader_of() as pools:
        for _ in range(3):
            pools.next()
        state = json.loads(json.dumps(pools.state()))
        expected = [sorted(indices_of(pools.next())) for _ in range(4)]
    sampler = IdentitySampler(np.array([0, 4, 8, 12, 16]), 3, 2, 99)
    with SharedPoolReader(sampler, FakeStore(), Part(Together(1), 0, 2), batch_size=3) as pools:
        pools.restore(state)
        assert [sorted(indices_of(pools.next())) for _ in range(4)] == expected
