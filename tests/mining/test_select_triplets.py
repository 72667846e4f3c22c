"""The predecessor's function by name: same arguments, same return."""

from __future__ import annotations

import numpy as np
import pytest

from facenet_fast import select_triplets

from .batches import clustered

COUNTS = [4, 1, 6, 3]


@pytest.fixture
def pool() -> tuple[np.ndarray, list[str]]:
    embeddings, _ = clustered(1, sum(COUNTS), 8)
    return embeddings, [f"{i}.png" for i in range(sum(COUNTS))]


def test_returns_paths_of_violating_triplets_and_counts(pool: tuple[np.ndarray, list[str]]) -> None:
    embeddings, paths = pool
    np.random.seed(0)
    triplets, n_pairs, n_triplets = select_triplets(embeddings, COUNTS, paths, 4, 0.2)
    assert n_pairs == 6 + 0 + 15 + 3
    assert n_triplets == len(triplets) > 0
    owner = np.repeat(np.arange(4), COUNTS)
    for triplet in triplets:
        a, p, n = (paths.index(path) for path in triplet)
        assert a < p
        assert owner[a] == owner[p] != owner[n]
        d_ap, d_an = (((embeddings[a].astype(float) - embeddings[i]) ** 2).sum() for i in (p, n))
        assert d_an - d_ap < 0.2


def test_numpy_seed_makes_it_repeatable(pool: tuple[np.ndarray, list[str]]) -> None:
    results = []
    for seed in (1, 1, 2):
        np.random.seed(seed)
        results.append(select_triplets(*pool[:1], COUNTS, pool[1], 4, 0.5))
    assert results[0] == results[1] != results[2]
    assert sorted(t[:2] for t in results[0][0]) == sorted(t[:2] for t in results[2][0])


def test_triplets_come_shuffled(pool: tuple[np.ndarray, list[str]]) -> None:
    np.random.seed(3)
    triplets, _, _ = select_triplets(*pool[:1], COUNTS, pool[1], 4, 0.5)
    anchors = [pool[1].index(a) for a, _, _ in triplets]
    assert anchors != sorted(anchors)


def test_anchors_come_from_the_first_people(pool: tuple[np.ndarray, list[str]]) -> None:
    np.random.seed(0)
    triplets, n_pairs, _ = select_triplets(*pool[:1], COUNTS, pool[1], 1, 0.5)
    assert n_pairs == 6
    assert {pool[1].index(a) for a, _, _ in triplets} <= {0, 1, 2}
    assert {pool[1].index(n) for _, _, n in triplets} - set(range(5))


def test_counts_that_do_not_fit(pool: tuple[np.ndarray, list[str]]) -> None:
    with pytest.raises(ValueError, match=r"add up to the number of image_paths \(14\); got \[4, 4\]"):
        select_triplets(*pool[:1], [4, 4], pool[1], 2, 0.2)
    with pytest.raises(ValueError, match=r"people_per_batch must be in \[1, 4\]; got 5"):
        select_triplets(*pool[:1], COUNTS, pool[1], 5, 0.2)
