"""Mining a batch: the native miner, everybody it competes with, and the matrix product that bounds it.

pytest benchmarks                          all, timed; `python -m benchmarks.report` makes better tables
pytest benchmarks --benchmark-disable      all, once, answers judged only
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from facenet_fast import mine_triplets

from .jobs import STRATEGIES, Shape, judge, matrix_product, run
from .regimes import REGIMES, Regime, pool
from .rivals import RIVALS, Rival
from .rules import MARGIN
from .timing import PAUSE_SECONDS

SHAPES: list[Shape] = [(45, 40, 128), (45, 40, 512), (450, 4, 128), (450, 40, 128)]
PEER_SHAPES: list[Shape] = [(45, 10, 128), (45, 40, 128)]
PEER_BYTES = 1e9
N_THREADS = 2


def name_group(benchmark: Any, shape: Shape, regime: Regime) -> None:
    benchmark.group = f"{shape[0]} identities x {shape[1]} images x {shape[2]} numbers, {regime}"


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_native(benchmark: Any, shape: Shape, regime: Regime, strategy: str) -> None:
    name_group(benchmark, shape, regime)
    embeddings, labels = pool(*shape, regime)
    time.sleep(PAUSE_SECONDS)
    mined = benchmark(mine_triplets, embeddings, labels, strategy=strategy, margin=MARGIN, seed=1)
    judge(f"`{strategy}`", (mined.anchor, mined.positive, mined.negative), embeddings, labels)


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("shape", PEER_SHAPES, ids=str)
@pytest.mark.parametrize("rival", RIVALS[len(STRATEGIES) :], ids=lambda rival: rival.name)
def test_rival(benchmark: Any, rival: Rival, shape: Shape, regime: Regime) -> None:
    name_group(benchmark, shape, regime)
    reason = rival.why_not(shape[0] * shape[1], shape[1], PEER_BYTES)
    if reason:
        pytest.skip(reason)
    embeddings, labels = pool(*shape, regime)
    mine = rival.prepare(embeddings, labels, N_THREADS)
    time.sleep(PAUSE_SECONDS)
    rival.judge(benchmark(mine), embeddings, labels)


@pytest.mark.parametrize("regime", REGIMES)
def test_predecessors_pairs(regime: Regime) -> None:
    # One negative a pair or none: the same pairs have one, whoever looks.
    embeddings, labels = pool(45, 10, 128, regime)
    loop = next(rival for rival in RIVALS if "predecessor" in rival.name)
    anchors, positives, _ = loop.prepare(embeddings, labels, 1)()
    mined = mine_triplets(embeddings, labels, strategy="vgg_face", margin=MARGIN, seed=1)
    np.testing.assert_array_equal(mined.anchor, anchors)
    np.testing.assert_array_equal(mined.positive, positives)


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("shape", SHAPES[:3], ids=str)
def test_matrix_product(benchmark: Any, shape: Shape, regime: Regime) -> None:
    name_group(benchmark, shape, regime)
    embeddings, _ = pool(*shape, regime)
    benchmark(matrix_product(embeddings, N_THREADS).call)


@pytest.mark.parametrize("scale", [1.0, 1e-19, 1e-40])
def test_denormals(benchmark: Any, scale: float) -> None:
    # Products of such coordinates, or the coordinates themselves, are denormal numbers.
    benchmark.group = "45 identities x 40 images x 128 numbers, trained, of any length"
    embeddings, labels = pool(45, 40, 128, "trained")
    rows = embeddings * np.float32(scale)
    time.sleep(PAUSE_SECONDS)
    mined = benchmark(mine_triplets, rows, labels, strategy="vgg_face", margin=MARGIN * scale**2, seed=1)
    longer = rows.astype(np.float64) / scale
    judge("`vgg_face`", (mined.anchor, mined.positive, mined.negative), longer, labels)


def test_memory() -> None:
    extra = run("measure_memory", 2, rival=RIVALS[0].name, shape=(45, 40, 128), regime="trained")
    assert extra is None or 1e6 < extra < 30e6
