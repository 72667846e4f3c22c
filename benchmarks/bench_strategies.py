"""Every strategy beside the predecessor's rule, and nearest rows beside libraries made for them."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from facenet_fast import mine_triplets, nearest_neighbors

from .neighbors import RIVALS, NeighborRival
from .regimes import REGIMES, Regime, pool
from .rules import MARGIN
from .strategies import TIMED, prepare
from .timing import PAUSE_SECONDS


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("name", [*TIMED, "`batch_all`, counted"])
def test_strategy(benchmark: Any, name: str, regime: Regime) -> None:
    benchmark.group = f"45 identities x 40 images x 128 numbers, {regime}, by strategy"
    embeddings, labels = pool(45, 40, 128, regime)
    time.sleep(PAUSE_SECONDS)
    benchmark(prepare(name, embeddings, labels))


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("name", TIMED)
def test_strategies_equal_the_specification(name: str, regime: Regime) -> None:
    embeddings, labels = pool(16, 10, 128, regime)
    mined, specified = (
        mine_triplets(embeddings, labels, strategy=TIMED[name], margin=MARGIN, seed=1, backend=backend)
        for backend in ("native", "reference")
    )
    for column in ("anchor", "positive", "negative"):
        np.testing.assert_array_equal(getattr(mined, column), getattr(specified, column))


@pytest.mark.parametrize("k", [1, 16])
@pytest.mark.parametrize("rival", RIVALS, ids=lambda rival: rival.name)
def test_neighbors(benchmark: Any, rival: NeighborRival, k: int) -> None:
    benchmark.group = f"{k} nearest of 3,600 rows x 128 numbers, trained"
    if rival.why_not():
        pytest.skip(rival.why_not())
    embeddings, _ = pool(90, 40, 128, "trained")
    find = rival.prepare(embeddings, k, 2)
    time.sleep(PAUSE_SECONDS)
    rival.judge(benchmark(find), embeddings, k)


def test_exact_neighbors() -> None:
    embeddings, _ = pool(12, 10, 128, "trained")
    found = nearest_neighbors(embeddings, k=5)
    specified = nearest_neighbors(embeddings, k=5, backend="reference")
    np.testing.assert_array_equal(found.indices, specified.indices)
    np.testing.assert_array_equal(found.distances, specified.distances)
