"""The specification itself, against sentences that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from facenet_fast.mining import PRESETS, mine_triplets, reference

from .batches import clustered


def test_splitmix64_matches_published_outputs() -> None:
    # The first outputs of SplitMix64 seeded with 1234567, as published with the generator.
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [reference.draw(1234567, i, 2**64) for i in range(4)] == published


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


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        # Anchor 0, positive 1, so d_ap = 1; margin 2: violating means d_an < 3, semi-hard 1 < d_an < 3.
        ("vgg_face", {2, 3, 4}),
        ("facenet", {4}),
    ],
)
def test_bands_by_hand(strategy: str, expected: set[int]) -> None:
    embeddings = np.array([[0.0], [1.0], [0.5], [-1.0], [1.5], [1.8], [-9.0]])
    labels = ["same", "same", "a", "b", "c", "d", "e"]
    picks = {
        int(
            mine_triplets(
                embeddings, labels, strategy=strategy, margin=2.0, seed=s, backend="reference"
            ).negative[0]
        )
        for s in range(60)
    }
    assert picks == expected


@pytest.mark.parametrize("share", ["drawn", "counted"])
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_picks_are_uniform_over_the_candidates(backend: str, share: str) -> None:
    # Candidates are the rows within the band; both ways to find them must give each the same chance.
    n_candidates, n_far = (12, 4) if share == "drawn" else (6, 90)
    near = np.linspace(-0.9, 0.9, n_candidates)
    embeddings = np.concatenate([[0.0, 0.1], near, np.linspace(5.0, 6.0, n_far)])[:, None].astype(np.float32)
    labels = [0, 0, *range(1, n_candidates + n_far + 1)]
    n_trials = 2000 if backend == "native" else 400
    picks = [
        int(
            mine_triplets(
                embeddings, labels, strategy="vgg_face", margin=1.0, seed=s, backend=backend
            ).negative[0]
        )
        for s in range(n_trials)
    ]
    counts = np.bincount(picks, minlength=len(embeddings))[2:]
    assert counts[n_candidates:].sum() == 0
    assert stats.chisquare(counts[:n_candidates]).pvalue > 1e-3


def test_every_violating_pair_and_no_other_is_mined() -> None:
    embeddings, labels = clustered(5, 4, 6, seed=3)
    squared = ((embeddings[:, None].astype(float) - embeddings[None].astype(float)) ** 2).sum(-1)
    for name in PRESETS:
        mined = mine_triplets(embeddings, labels, strategy=name, margin=0.3, backend="reference")
        found = set(zip(mined.anchor.tolist(), mined.positive.tolist(), strict=True))
        expected = set()
        for a in range(20):
            for p in range(a + 1, 20):
                d_an = squared[a, labels != labels[a]]
                band = d_an - squared[a, p] < 0.3
                if name == "facenet":
                    band &= d_an > squared[a, p]
                if labels[a] == labels[p] and band.any():
                    expected.add((a, p))
        assert found == expected
        assert mined.n_pairs == 5 * 6
