"""The specification itself, against sentences that can be checked by hand; and the core against the same."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from facenet_fast import Interval, Strategy, count_triplets, mine_triplets
from facenet_fast.mining import PRESETS, reference
from facenet_fast.mining.strategies import BANDS, PAIRS

from .batches import clustered, tied, uneven
from .contract import BACKENDS, as_columns, as_rows
from .obvious import Facts, assert_obeys, look
from .strategies_table import DRAWING, STRATEGIES, distance_for


def test_splitmix64_matches_published_outputs() -> None:
    # The first outputs of SplitMix64 seeded with 1234567, as published with the generator.
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [reference.draw(1234567, i, 2**64) for i in range(4)] == published


def test_units_are_draws_in_the_unit_interval() -> None:
    units = np.array([reference.draw_unit(99, i) for i in range(4000)])
    assert ((units >= 0) & (units < 1)).all()
    assert stats.kstest(units, "uniform").pvalue > 1e-3


def test_squared_distance_is_the_sum_of_squared_differences() -> None:
    x = np.arange(11, dtype=np.float32)
    assert reference.squared_distances(x, np.zeros((2, 11), np.float32)).tolist() == [385.0, 385.0]


def test_equal_distances_are_equal_to_the_last_bit() -> None:
    rng = np.random.default_rng(0)
    x, difference = rng.standard_normal((2, 21)).astype(np.float32)
    there, back = (
        reference.squared_distances(a, b[None]) for a, b in ((x + difference, x), (x, x + difference))
    )
    assert there == back


# -- by hand -----------------------------------------------------------------------------------------------

# On a line: the identity at 0, 1, 3 and -4; others at squared distances 0.25, 1, 2.25, 4, 36 from the first.
LINE = np.array([[0.0], [1.0], [3.0], [-4.0], [0.5], [-1.0], [1.5], [2.0], [6.0]])
WHO = ["same"] * 4 + ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("band", "expected"),
    [
        # Anchor 0, positive 1, so d_ap = 1; margin 2.
        ("violating", {4, 5, 6}),
        ("semi_hard", {6}),
        ("hard", {4}),
        ("farther", {6, 7, 8}),
        ("all", {4, 5, 6, 7, 8}),
        (Interval(-0.75, 3.0), {4, 5, 6}),
        (Interval(-0.75, 3.0, low_is_open=True), {5, 6}),
        (Interval(1.0, 4.0, relative=False), {5, 6}),
        (Interval(1.0, 4.0, relative=False, low_is_open=True), {6}),
        (Interval(low=1.25), {6, 7, 8}),
        (Interval(high=2.25, relative=False), {4, 5}),
        (Interval(36.0, relative=False), {8}),
        (Interval(36.0, relative=False, low_is_open=True), set()),
    ],
)
def test_bands_by_hand(band: str | Interval, expected: set[int], backend: Any) -> None:
    strategy = Strategy(band, n_negatives=9)
    mined = mine_triplets(LINE, WHO, strategy=strategy, margin=2.0, anchors=[0], backend=backend)
    assert {n for a, p, n in as_rows(mined).tolist() if p == 1} == expected


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("band", "expected"),
    [
        # Anchor 0, positive 2, so d_ap = 3; negatives at 0.5, 1, 1.5, 2, 6; margin 3.
        ("violating", {4, 5, 6, 7}),
        ("semi_hard", set()),
        ("farther", {8}),
        ("hard", {4, 5, 6, 7}),
        (Interval(-2.0, -1.0), {5, 6}),
        (Interval(-2.0, -1.0, low_is_open=True), {6}),
        (Interval(-3.0, -1.5), {4, 5}),
        (Interval(-9.0, -2.5), set()),
        (Interval(high=-3.0), set()),
        (Interval(3.0), {8}),
        (Interval(3.0, low_is_open=True), set()),
        (Interval(0.5, 2.0, relative=False), {4, 5, 6}),
        (Interval(0.5, 2.0, relative=False, low_is_open=True), {5, 6}),
        (Interval(-1.0, relative=False), {4, 5, 6, 7, 8}),
        (Interval(high=-1.0, relative=False), set()),
    ],
)
def test_bands_of_roots_by_hand(band: str | Interval, expected: set[int], backend: Any) -> None:
    strategy = Strategy(band, n_negatives=9, max_positive_distance=3.5)
    options: dict[str, Any] = {"distance": "euclidean", "margin": 3.0, "anchors": [0], "backend": backend}
    mined = mine_triplets(LINE, WHO, strategy=strategy, **options)
    assert {n for a, p, n in as_rows(mined).tolist() if p == 2} == expected
    assert mined.n_pairs == 2  # the third positive is at 4
    if band == "farther":
        assert [(p, n) for _, p, n in as_rows(mined).tolist() if p == 2] == [(2, 8)]
        # Of (0, 1) the negatives at 1.5, 2 and 6.
        np.testing.assert_allclose(mined.mean_d_ap, (1.0 + 1.0 + 1.0 + 3.0) / 4, rtol=1e-6)
        np.testing.assert_allclose(mined.mean_d_an, (1.5 + 2.0 + 6.0 + 6.0) / 4, rtol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # d_ap from 0: 1, 9, 16; from 1: 1, 4, 25; from 3: 9, 4, 49; from -4: 16, 25, 49.
        ({"pairs": "each_once"}, [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]),
        ({"pairs": "both_ways"}, list(itertools.permutations(range(4), 2))),
        ({"pairs": "hardest_positive"}, [(0, 3), (1, 3), (2, 3), (3, 2)]),
        (
            {"pairs": "hardest_positive", "n_positives": 2},
            [(0, 2), (0, 3), (1, 2), (1, 3), (2, 0), (2, 3), (3, 1), (3, 2)],
        ),
        ({"pairs": "easiest_positive"}, [(0, 1), (1, 0), (2, 1), (3, 0)]),
        (
            {"pairs": "easiest_positive", "n_positives": 2},
            [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1), (3, 0), (3, 1)],
        ),
        # Nearest negatives: 0.25 from 0, 0.25 from 1, 1 from 3, 9 from -4: no positive is nearer than those.
        ({"pairs": "moderate_positive"}, []),
        # Less two of five, by distance: then 2.25 from 0, 1 from 1, 6.25 from 3, 30.25 from -4.
        ({"pairs": "moderate_positive", "skip_hardest": 0.4}, [(0, 1), (2, 1), (3, 1)]),
        ({"pairs": "each_once", "max_positive_distance": 9.0}, [(0, 1), (1, 2)]),
        ({"pairs": "hardest_positive", "max_positive_distance": 9.5}, [(0, 2), (1, 2), (2, 0)]),
        # Six pairs of the identity: half of them are those at 1, 4 and 9.
        ({"pairs": "each_once", "positive_quantile": 0.5}, [(0, 1), (0, 2), (1, 2)]),
        ({"pairs": "each_once", "positive_quantile": 0.51}, [(0, 1), (0, 2), (0, 3), (1, 2)]),
        ({"pairs": "each_once", "positive_quantile": 1e-9}, [(0, 1)]),
        ({"pairs": "hardest_positive", "positive_quantile": 0.5}, [(0, 2), (1, 2), (2, 0)]),
        ({"pairs": "random_positives", "n_positives": 7}, list(itertools.permutations(range(4), 2))),
    ],
)  # fmt: skip
def test_pairs_by_hand(options: dict[str, Any], expected: list[tuple[int, int]], backend: Any) -> None:
    strategy = Strategy("all", **options)
    counts = count_triplets(LINE, WHO, strategy=strategy, backend=backend)
    assert list(zip(counts.anchor.tolist(), counts.positive.tolist(), strict=True)) == expected
    assert set(counts.n_candidates.tolist()) <= {3 if strategy.skip_hardest else 5}
    mined = mine_triplets(LINE, WHO, strategy=strategy, backend=backend)
    assert [(a, p) for a, p, _ in as_rows(mined).tolist()] == expected


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # Of anchor 0 the negatives 4, 5, 6, 7, 8 are at 0.25, 1, 2.25, 4, 36.
        ({"pick": "nearest"}, [4]),
        ({"pick": "nearest", "n_negatives": 3}, [4, 5, 6]),
        ({"pick": "nearest", "n_negatives": 9}, [4, 5, 6, 7, 8]),
        ({"pick": "nearest", "skip_hardest": 0.19}, [4]),
        ({"pick": "nearest", "skip_hardest": 0.2}, [5]),
        ({"pick": "nearest", "skip_hardest": 0.99}, [8]),
        ({"band": "farther", "pick": "nearest"}, [6]),
        ({"pick": "farthest"}, [8]),
        ({"pick": "farthest", "n_negatives": 3}, [8, 7, 6]),
        ({"band": "violating", "pick": "farthest", "n_negatives": 3}, [5, 4]),
        ({"pick": "farthest", "skip_hardest": 0.79, "n_negatives": 9}, [8, 7]),
        ({"band": "hard", "pick": "farthest", "skip_hardest": 0.2, "if_empty": "nearest"}, [5]),
        ({"band": Interval(50.0, relative=False), "pick": "nearest"}, []),
        ({"band": Interval(50.0, relative=False), "if_empty": "nearest"}, [4]),
        ({"band": Interval(50.0, relative=False), "if_empty": "farthest"}, [8]),
        ({"band": Interval(50.0, relative=False), "if_empty": "nearest", "n_negatives": 3}, [4]),
        ({"band": Interval(50.0, relative=False), "if_empty": "nearest", "skip_hardest": 0.4}, [6]),
        ({"band": "hard", "if_empty": "farthest"}, [4]),
    ],
)
def test_picks_by_hand(options: dict[str, Any], expected: list[int], backend: Any) -> None:
    strategy = Strategy(**{"band": "all", "pairs": "easiest_positive", **options})
    mined = mine_triplets(LINE, WHO, strategy=strategy, anchors=[0], backend=backend)
    assert as_rows(mined).tolist() == [[0, 1, n] for n in expected]


@pytest.mark.parametrize("backend", BACKENDS)
def test_equally_far_rows_come_in_their_order(backend: Any) -> None:
    # Two positives and two negatives at 1, and two of each at 4.
    rows = np.array([[0.0], [1.0], [-1.0], [2.0], [-2.0], [1.0], [-1.0], [2.0], [-2.0]])
    for pairs, positives, pick, negatives in (
        ("hardest_positive", [3, 4, 1], "nearest", [5, 6, 7]),
        ("easiest_positive", [1, 2, 3], "farthest", [7, 8, 5]),
    ):
        for n in (1, 2, 3):
            strategy = Strategy("all", pairs, pick, n_positives=n, n_negatives=n)
            mined = mine_triplets(
                rows, [0] * 5 + [1, 2, 3, 4], strategy=strategy, anchors=[0], backend=backend
            )
            expected = [[0, p, q] for p in sorted(positives[:n]) for q in negatives[:n]]
            assert as_rows(mined).tolist() == expected
    farthest = Strategy(Interval(9.0), "easiest_positive", if_empty="farthest")
    mined = mine_triplets(rows, [0] * 5 + [1, 2, 3, 4], strategy=farthest, anchors=[0], backend=backend)
    assert as_rows(mined).tolist() == [[0, 1, 7]]
    # A negative as near as a positive is not farther, and a positive as far as a negative is not nearer.
    moderate = Strategy("all", "moderate_positive")
    assert (
        len(mine_triplets(rows, [0] * 5 + [1, 2, 3, 4], strategy=moderate, anchors=[0], backend=backend)) == 0
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_negatives_at_all(backend: Any) -> None:
    for strategy in STRATEGIES.values():
        rows = clustered(1, 6, 5)[0]
        mined = mine_triplets(rows, [7] * 6, strategy=strategy, backend=backend)
        assert len(mined) == mined.n_pairs_with_negative == 0
        assert np.isnan([mined.mean_d_ap, mined.mean_d_an]).all()
        # Nor is a positive nearer than all of them.
        assert (mined.n_pairs == 0) == (strategy.pairs == "moderate_positive")


# -- every strategy, against code that only looks ----------------------------------------------------------


def check(
    embeddings: Any, labels: Any, strategy: Strategy, backend: Any, *, seed: int = 0, **options: Any
) -> Facts:
    facts = look(embeddings, labels, strategy, **options)
    options |= {"strategy": strategy, "seed": seed, "backend": backend}
    if strategy.pick != "every":
        assert_obeys(mine_triplets(embeddings, labels, **options), facts, strategy)
    if strategy.pairs != "random_positives":
        counts = count_triplets(embeddings, labels, **options)
        assert as_columns(counts).tolist() == [list(row) for row in facts.counted()]
    return facts


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [*STRATEGIES, "batch_all"])
def test_a_strategy_does_what_its_words_say(name: str, backend: Any) -> None:
    strategy = {**STRATEGIES, **PRESETS}[name]
    n_candidates = 0
    for seed, (n_identities, n_images, noise) in enumerate([(6, 5, 0.7), (5, 7, 1.5), (12, 3, 0.3)]):
        embeddings, labels = clustered(n_identities, n_images, 6, noise=noise, seed=seed)
        facts = check(embeddings, labels, strategy, backend, seed=seed)
        n_candidates += sum(map(len, facts.candidates.values()))
        check(embeddings * np.float32(3), labels, strategy, backend, distance="cosine", margin=0.1)
    check(embeddings, labels, strategy, backend, distance="euclidean", margin=0.1)
    assert n_candidates > 0
    if strategy.pick != "distance_weighted":
        embeddings, labels = uneven(50, 0.2, 3)
        check(embeddings, labels, strategy, backend, margin=1.0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [n for n, s in STRATEGIES.items() if distance_for(s) != "cosine"])
def test_ties_are_in_the_order_of_the_rows(name: str, backend: Any) -> None:
    for n_identities in (3, 12):
        embeddings, labels = tied(50, n_identities)
        check(embeddings, labels, STRATEGIES[name], backend, margin=0.5)
    check(2 * embeddings, labels, STRATEGIES[name], backend, margin=0.5, distance="euclidean")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bank_positives", [False, True])
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_bank_is_more_negatives_and_maybe_positives(name: str, bank_positives: bool, backend: Any) -> None:
    strategy = STRATEGIES[name]
    embeddings, labels = clustered(8, 6, 6)
    batch, bank = (embeddings[:26], labels[:26]), (embeddings[26:], labels[26:])
    options = {"bank": bank, "bank_positives": bank_positives}
    check(*batch, strategy, backend, **options)
    check(*batch, strategy, backend, **options, anchors=slice(3, 12))
    check(*batch, strategy, backend, bank=(bank[0], bank[1] + 100), bank_positives=bank_positives)


def test_strategies_differ() -> None:
    # Else the table would hold one of them twice, or one that always does what another does.
    embeddings, labels = clustered(6, 5, 6, noise=1.0)
    found = {
        name: as_rows(
            mine_triplets(embeddings, labels, strategy=s, distance=distance_for(s), backend="reference")
        )
        for name, s in STRATEGIES.items()
    }
    for one, other in itertools.combinations(found, 2):
        assert found[one].tolist() != found[other].tolist(), (one, other)


def test_the_words_are_those_that_are_checked_here() -> None:
    assert set(PAIRS) == {
        "each_once",
        "both_ways",
        "hardest_positive",
        "easiest_positive",
        "moderate_positive",
        "random_positives",
    }
    assert set(BANDS) == {"violating", "semi_hard", "hard", "farther", "all"}


# -- chance ------------------------------------------------------------------------------------------------


def assert_frequencies(observed: npt.ArrayLike, probabilities: npt.ArrayLike) -> None:
    """By a chi-square test, in which the rarest count as one that is expected 5 times at least."""
    seen, expected = np.asarray(observed, float), np.asarray(probabilities, float)
    assert (seen[expected == 0] == 0).all()
    order = np.argsort(expected)[(expected == 0).sum() :]
    seen, expected = seen[order], expected[order] / expected.sum() * seen.sum()
    n_rare = max(int((expected < 5).sum()), int(np.searchsorted(np.cumsum(expected), 5)) + 1)
    starts = [0, *range(n_rare, len(seen))]
    assert len(starts) > 3
    assert stats.chisquare(*(np.add.reduceat(x, starts) for x in (seen, expected))).pvalue > 1e-3


def crowd(
    n_copies: int, others: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Copies of one image, so that all of their pairs draw from the same candidates, and rows of others."""
    at = np.zeros((1, others.shape[1]))
    at[0, 0] = 1.0
    labels = np.concatenate((np.zeros(n_copies, np.int64), np.arange(1, len(others) + 1)))
    return np.concatenate((np.repeat(at, n_copies, axis=0), others)), labels


ROUTES: dict[str, tuple[int, int, int]] = {
    # copies, candidates, other negatives
    "drawn": (46, 5, 1),  # most negatives are candidates: the pilot finds enough
    "ranked": (46, 5, 60),  # few are
    "sampled": (507, 5, 23),  # few are, but enough of some anchors' samples
    "one by one": (46, 1, 12),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("route", ROUTES)
def test_every_choice_of_candidates_is_equally_likely(route: str, k: int, backend: Any) -> None:
    n_copies, n_candidates, n_far = ROUTES[route]
    others = 1.0 + np.concatenate((np.linspace(0.1, 0.9, n_candidates), np.linspace(5.0, 6.0, n_far)))
    embeddings, labels = crowd(n_copies, others[:, None])
    strategy = Strategy("violating", n_negatives=k)
    picks: Counter[tuple[int, ...]] = Counter()
    for seed in range(2):
        anchors = slice(None) if n_copies < 100 else slice(0, 24, 4)
        mined = mine_triplets(
            embeddings, labels, strategy=strategy, margin=1.0, seed=seed, anchors=anchors, backend=backend
        )
        taken = min(k, n_candidates)
        assert len(mined) == taken * mined.n_pairs
        picks.update(map(tuple, (mined.negative - n_copies).reshape(-1, taken).tolist()))
    choices = list(itertools.permutations(range(n_candidates), taken))
    assert set(picks) <= set(choices)
    if len(choices) > 1:
        assert_frequencies([picks[choice] for choice in choices], np.ones(len(choices)))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("k", [1, 2])
def test_every_choice_of_random_positives_is_equally_likely(k: int, backend: Any) -> None:
    embeddings, labels = clustered(20, 6, 4)
    strategy = Strategy("all", "random_positives", "nearest", n_positives=k)
    chosen: Counter[tuple[int, ...]] = Counter()
    for seed in range(8):
        mined = mine_triplets(embeddings, labels, strategy=strategy, seed=seed, backend=backend)
        for a, p in zip(
            mined.anchor.reshape(-1, k)[:, 0].tolist(), mined.positive.reshape(-1, k).tolist(), strict=True
        ):
            others = [row for row in np.flatnonzero(labels == labels[a]).tolist() if row != a]
            chosen[tuple(map(others.index, p))] += 1
    choices = list(itertools.combinations(range(5), k))
    assert set(chosen) == set(choices)
    assert_frequencies([chosen[choice] for choice in choices], np.ones(len(choices)))


SPHERES: dict[str, tuple[int, float, float, list[float]]] = {
    # dimensions, near, far, Euclidean distances of the negatives
    "8": (8, 0.5, 1.4, [0.2, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.39, 1.41, 1.9]),
    "32": (32, 0.5, 1.4, [1.0, 1.02, 1.05, 1.07, 1.1, 1.12, 1.15, 1.2, 1.25, 1.3, 1.39, 1.41, 1.6]),
    "far ones are no likelier than near ones": (
        4, 1.2, 1.999, [0.6, 1.1, 1.25, 1.4, 1.5, 1.633, 1.7, 1.8, 1.9, 1.94, 1.98, 1.99],
    ),
    "three dimensions": (3, 0.5, 1.4, [0.1, 0.4, 0.6, 0.8, 1.0, 1.2, 1.399, 1.5]),
}  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("distance", ["squared_euclidean", "cosine"])
@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("sphere", SPHERES)
def test_distance_weighted_draws_as_the_paper_says(sphere: str, k: int, distance: str, backend: Any) -> None:
    size, near, far, at = SPHERES[sphere]
    d = np.array(at)
    # Wu et al. 2017, section 4: q(d) ~ d^(n - 2) (1 - d^2 / 4)^((n - 3) / 2), drawn by min(limit, 1 / q(d)).
    log_q = (size - 2) * np.log(d) + (size - 3) / 2 * np.log(1 - d * d / 4)
    log_limit = -((size - 2) * np.log(near) + (size - 3) / 2 * np.log(1 - near * near / 4))
    weight = np.where(d < far, np.exp(np.minimum(log_limit, -log_q) - log_limit), 0.0)
    n = len(d)

    others = np.zeros((n, size))
    others[:, 0] = 1 - d * d / 2
    others[np.arange(n), 1 + np.arange(n) % (size - 1)] = d * np.sqrt(1 - d * d / 4)
    embeddings, labels = crowd(46, others)
    if distance == "cosine":
        embeddings *= np.random.default_rng(0).uniform(0.5, 20, (len(embeddings), 1))
    strategy = Strategy("all", "both_ways", "distance_weighted", n_negatives=k, near=near, far=far)
    picks: Counter[tuple[int, ...]] = Counter()
    for seed in range(2):
        mined = mine_triplets(
            embeddings,
            labels,
            strategy=strategy,
            seed=seed,
            distance=distance,
            anchors=slice(46),
            backend=backend,
        )
        picks.update(map(tuple, (mined.negative - 46).reshape(-1, k).tolist()))
    choices = list(itertools.permutations(range(n), k))
    chances = []
    for choice in choices:
        chance, left = 1.0, weight.sum()
        for i in choice:
            chance, left = chance * weight[i] / left, left - weight[i]
        chances.append(chance)
    assert sum(picks.values()) == 2 * 46 * 45
    assert_frequencies([picks[choice] for choice in choices], chances)


@pytest.mark.parametrize("backend", BACKENDS)
def test_weighted_picks_stay_in_the_band(backend: Any) -> None:
    d = np.linspace(0.3, 1.9, 20)
    others = np.stack((1 - d * d / 2, d * np.sqrt(1 - d * d / 4), 0 * d), axis=1)
    embeddings, labels = crowd(12, others)
    strategy = Strategy(Interval(0.25, 1.0, relative=False), pick="distance_weighted", n_negatives=30)
    mined = mine_triplets(embeddings, labels, strategy=strategy, backend=backend)
    inside = set(np.flatnonzero((d * d >= 0.25) & (d * d < 1.0)) + 12)
    for _, picks in itertools.groupby(as_rows(mined).tolist(), key=lambda row: row[:2]):
        assert {n for _, _, n in picks} == inside


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [*DRAWING, "weighted_3", "quantile_random", "skip_many"])
def test_a_seed_moves_the_picks_and_nothing_else(name: str, backend: Any) -> None:
    strategy = replace(STRATEGIES[name], n_negatives=1)
    embeddings, labels = clustered(8, 5, 6, noise=1.0)
    first, again, other = (
        mine_triplets(
            embeddings, labels, strategy=strategy, seed=s, distance=distance_for(strategy), backend=backend
        )
        for s in (1, 1, 2**64 - 1)
    )
    np.testing.assert_array_equal(as_rows(first), as_rows(again))
    assert as_rows(first).tolist() != as_rows(other).tolist()
    if strategy.pairs != "random_positives":
        np.testing.assert_array_equal(as_rows(first)[:, :2], as_rows(other)[:, :2])
