"""Mining a batch: the native miner, the loop it replaces, and the matrix product that bounds it.

pytest benchmarks/bench_mining.py                          all, timed
pytest benchmarks/bench_mining.py --benchmark-disable      all, once, results checked only
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from facenet_fast import mine_triplets

from .regimes import Regime, pool

SHAPES = [(45, 40, 128), (45, 40, 512), (450, 4, 128), (450, 40, 128)]
REGIMES: list[Regime] = ["trained", "untrained"]
MARGIN = 0.2


def predecessors_loop(
    embeddings: npt.NDArray[np.float64], counts: list[int], margin: float, rng: np.random.RandomState
) -> npt.NDArray[Any]:
    """Select triplets pair by pair in numpy, on float64 rows, as trainers have done since 2016."""
    triplets = []
    start = 0
    for count in counts:
        for j in range(count - 1):
            anchor = start + j
            d_an = np.sum(np.square(embeddings[anchor] - embeddings), axis=1)
            d_an[start : start + count] = np.nan
            for positive in range(anchor + 1, start + count):
                d_ap = np.sum(np.square(embeddings[anchor] - embeddings[positive]))
                with np.errstate(invalid="ignore"):
                    candidates = np.where(d_an - d_ap < margin)[0]
                if len(candidates):
                    triplets.append((anchor, positive, candidates[rng.randint(len(candidates))]))
        start += count
    return np.array(triplets).reshape(-1, 3)


def assert_violating(
    triplets: npt.NDArray[Any], embeddings: npt.NDArray[Any], labels: npt.NDArray[Any]
) -> None:
    a, p, n = (embeddings[column].astype(np.float64) for column in triplets.T)
    assert len(triplets)
    assert (((a - n) ** 2).sum(1) - ((a - p) ** 2).sum(1) < MARGIN + 1e-9).all()
    assert (labels[triplets[:, 0]] == labels[triplets[:, 1]]).all()
    assert (labels[triplets[:, 0]] != labels[triplets[:, 2]]).all()


def name_group(benchmark: Any, shape: tuple[int, int, int], regime: Regime) -> None:
    benchmark.group = f"{shape[0]} identities x {shape[1]} images x {shape[2]} numbers, {regime}"


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("strategy", ["vgg_face", "facenet"])
def test_native(benchmark: Any, shape: tuple[int, int, int], regime: Regime, strategy: str) -> None:
    name_group(benchmark, shape, regime)
    embeddings, labels = pool(*shape, regime)
    time.sleep(0.2)  # threads of the last matrix product may still spin
    mined = benchmark(mine_triplets, embeddings, labels, strategy=strategy, margin=MARGIN, seed=1)
    assert_violating(np.stack([mined.anchor, mined.positive, mined.negative], axis=1), embeddings, labels)


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("shape", [(45, 40, 128)], ids=str)
def test_predecessors_loop(benchmark: Any, shape: tuple[int, int, int], regime: Regime) -> None:
    name_group(benchmark, shape, regime)
    embeddings, labels = pool(*shape, regime)
    rows, counts, rng = embeddings.astype(np.float64), [shape[1]] * shape[0], np.random.RandomState(1)
    triplets = benchmark.pedantic(predecessors_loop, (rows, counts, MARGIN, rng), rounds=3)
    assert_violating(triplets, embeddings, labels)
    # One negative a pair or none: the same pairs have one, whoever looks.
    mined = mine_triplets(embeddings, labels, strategy="vgg_face", margin=MARGIN, seed=1)
    np.testing.assert_array_equal(triplets[:, :2], np.stack([mined.anchor, mined.positive], axis=1))


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matrix_product(benchmark: Any, shape: tuple[int, int, int], regime: Regime) -> None:
    name_group(benchmark, shape, regime)
    embeddings, _ = pool(*shape, regime)
    columns = np.ascontiguousarray(embeddings.T)
    out = np.empty((len(embeddings), len(embeddings)), np.float32)
    benchmark(np.matmul, embeddings, columns, out=out)
    np.testing.assert_allclose(np.diagonal(out), 1.0, atol=1e-5)
