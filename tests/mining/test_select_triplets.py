"""The predecessor's function by name: same arguments, same return."""

from __future__ import annotations

from typing import Any

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


# -- drawn as the predecessor draws ------------------------------------------------------------------------


def predecessors(
    embeddings: Any, nrof_images_per_class: Any, image_paths: Any, people_per_batch: int, alpha: float
) -> tuple[list[tuple[Any, Any, Any]], int, int]:
    """Loop as davidsandberg/facenet's train_tripletloss.py does."""
    emb_start_idx = 0
    num_trips = 0
    triplets = []
    for i in range(people_per_batch):
        nrof_images = int(nrof_images_per_class[i])
        for j in range(1, nrof_images):
            a_idx = emb_start_idx + j - 1
            neg_dists_sqr = np.sum(np.square(embeddings[a_idx] - embeddings), 1)
            for pair in range(j, nrof_images):
                p_idx = emb_start_idx + pair
                pos_dist_sqr = np.sum(np.square(embeddings[a_idx] - embeddings[p_idx]))
                neg_dists_sqr[emb_start_idx : emb_start_idx + nrof_images] = np.nan
                all_neg = np.where(neg_dists_sqr - pos_dist_sqr < alpha)[0]
                nrof_random_negs = all_neg.shape[0]
                if nrof_random_negs > 0:
                    rnd_idx = np.random.randint(nrof_random_negs)
                    n_idx = all_neg[rnd_idx]
                    triplets.append((image_paths[a_idx], image_paths[p_idx], image_paths[n_idx]))
                num_trips += 1
        emb_start_idx += nrof_images
    np.random.shuffle(triplets)
    return triplets, num_trips, len(triplets)


def assert_draws_as_predecessor(seed: int, *arguments: Any) -> int:
    np.random.seed(seed)
    expected = predecessors(*arguments)
    expected_state = np.random.get_state()
    np.random.seed(seed)
    got = select_triplets(*arguments, rng="numpy")
    state = np.random.get_state()
    assert got == expected
    assert [type(value) for value in got] == [list, int, int]
    for one, other in zip(state, expected_state, strict=True):
        np.testing.assert_array_equal(one, other)
    return len(got[0])


# By name, how near an image is to its identity's others, and how near all identities are to each other.
REGIMES = {"untrained": (1.0, 3.0), "trained": (0.5, 0.0)}


def people(regime: str, counts: Any, seed: int) -> np.ndarray:
    noise, shared = REGIMES[regime]
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(len(counts)), counts)
    rows = rng.standard_normal((len(counts), 16))[owner] + noise * rng.standard_normal((len(owner), 16))
    rows += shared * rng.standard_normal(16)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("seed", range(50))
def test_numpys_generator_draws_what_the_predecessors_loop_drew(seed: int, regime: str) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0 if seed % 3 == 0 else 1, 9, 12).tolist()
    embeddings = people(regime, counts, seed)
    paths = [f"{i}.png" for i in range(len(embeddings))]
    for n_people in (12, 7, 1):
        n = assert_draws_as_predecessor(seed, embeddings, counts, paths, n_people, 0.2)
        if n_people == 12:
            n_pairs = sum(c * (c - 1) // 2 for c in counts)
            assert n > 0.9 * n_pairs if regime == "untrained" else n < 0.9 * n_pairs


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_the_predecessors_batch_of_45_people_and_40_images(alpha: float) -> None:
    counts = [40] * 45
    for regime in REGIMES:
        embeddings = people(regime, counts, 0)
        assert_draws_as_predecessor(1, embeddings, np.array(counts), list(range(1800)), 6, alpha)


@pytest.mark.parametrize(
    ("counts", "n_people"),
    [([3], 1), ([1, 1, 1], 3), ([0, 4, 0], 3), ([2, 0, 1], 2), ([0, 0], 2), ([5, 1], 1)],
)
def test_few_people_and_no_candidates(counts: list[int], n_people: int) -> None:
    n = sum(counts)
    for alpha in (1e-12, 0.2, 5.0):
        assert_draws_as_predecessor(3, np.eye(max(n, 1))[:n], counts, list("abcdef"[:n]), n_people, alpha)
    far = np.arange(n)[:, None] * 1000.0 + np.repeat(np.arange(len(counts)), counts)[:, None] * 1e9
    assert assert_draws_as_predecessor(3, far, counts, list("abcdef"[:n]), n_people, 1e-3) == 0


def test_one_candidate_costs_numpys_generator_nothing() -> None:
    # randint(1) takes no number from it: that must hold for many at once, as for one by one.
    rows = np.concatenate((np.zeros((6, 2)), [[0.1, 0.0]]))
    assert assert_draws_as_predecessor(5, rows, [6, 1], list("abcdefg"), 1, 0.2) == 15


@pytest.mark.parametrize("rng", ["keyed", "numpy"])
def test_either_way_takes_the_same_pairs_from_the_same_candidates(rng: Any) -> None:
    counts = [4, 6, 3, 5]
    embeddings = people("trained", counts, 2)
    squared = ((embeddings[:, None] - embeddings[None]) ** 2).sum(-1)
    owner = np.repeat(np.arange(4), counts)
    for seed in range(10):
        np.random.seed(seed)
        triplets, n_pairs, n_triplets = select_triplets(embeddings, counts, range(18), 3, 0.9, rng)
        assert (n_pairs, n_triplets) == (6 + 15 + 3, len(triplets))
        inside = (owner != owner[:, None])[:, None, :] & (squared[:, None, :] - squared[:, :, None] < 0.9)
        expected = {
            (a, p) for a in range(13) for p in range(a + 1, 18) if owner[a] == owner[p] and inside[a, p].any()
        }
        assert {t[:2] for t in triplets} == expected
        assert all(inside[t] for t in triplets)


def test_a_generator_that_is_none(pool: tuple[np.ndarray, list[str]]) -> None:
    for rng in ("mersenne", None, 0, np.random.default_rng(0)):
        with pytest.raises(ValueError, match=r"^rng must be one of keyed, numpy; got "):
            select_triplets(*pool[:1], COUNTS, pool[1], 4, 0.2, rng=rng)  # type: ignore[arg-type]


@pytest.mark.parametrize("rng", ["keyed", "numpy"])
def test_rows_that_are_not_finite(pool: tuple[np.ndarray, list[str]], rng: Any) -> None:
    embeddings = pool[0].copy()
    embeddings[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"embeddings must be finite.*row 3 has norm nan"):
        select_triplets(embeddings, COUNTS, pool[1], 4, 0.2, rng)
