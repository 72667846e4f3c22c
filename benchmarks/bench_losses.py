"""Losses and their gradients: the native ones, their rivals, and the matrix product that bounds them."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from facenet_fast import batch_all_loss

from .jobs import Shape, matrix_product, run
from .loss_rules import DEFINITIONS, MARGINS, expected, judge_some_rows
from .losses import EVERY, NATIVE, PEER_DISTANCE, RIVALS, LossRival
from .regimes import LOSS_REGIMES, Regime, pool
from .timing import PAUSE_SECONDS

# A second or two a call in the larger one: one regime will do.
PEER_BATCHES: list[tuple[Shape, Regime]] = [
    *(((32, 4, 128), regime) for regime in LOSS_REGIMES),
    ((45, 10, 128), "half-violating"),
]
PEER_BYTES = 2e9
N_THREADS = 2


@pytest.mark.parametrize("regime", LOSS_REGIMES)
@pytest.mark.parametrize("size", [128, 512])
@pytest.mark.parametrize("distance", MARGINS)
def test_native(benchmark: Any, distance: str, size: int, regime: Regime) -> None:
    benchmark.group = f"45 identities x 40 images x {size} numbers, {regime}, every violating triplet"
    embeddings, labels = pool(45, 40, size, regime)
    time.sleep(PAUSE_SECONDS)
    found = benchmark(batch_all_loss, embeddings, labels, margin=MARGINS[distance], distance=distance)
    judge_some_rows(found, embeddings, labels, distance)


@pytest.mark.parametrize("regime", LOSS_REGIMES)
@pytest.mark.parametrize("size", [128, 512])
def test_matrix_product(benchmark: Any, size: int, regime: Regime) -> None:
    benchmark.group = f"45 identities x 40 images x {size} numbers, {regime}, every violating triplet"
    embeddings, _ = pool(45, 40, size, regime)
    time.sleep(PAUSE_SECONDS)
    benchmark(matrix_product(embeddings, N_THREADS).call)


@pytest.mark.parametrize(("shape", "regime"), PEER_BATCHES, ids=str)
@pytest.mark.parametrize("rival", RIVALS, ids=lambda rival: rival.name)
def test_rival(benchmark: Any, rival: LossRival, shape: Shape, regime: Regime) -> None:
    benchmark.group = f"{' x '.join(map(str, shape))}, {regime}, mean over {rival.definition}"
    reason = rival.why_not(shape[0] * shape[1], shape[1], PEER_BYTES)
    if reason:
        pytest.skip(reason)
    compute = rival.prepare(*pool(*shape, regime), PEER_DISTANCE, N_THREADS)
    time.sleep(PAUSE_SECONDS)
    rival.judge(benchmark(compute), shape, regime, PEER_DISTANCE)


@pytest.mark.parametrize("rival", RIVALS, ids=lambda rival: rival.name)
def test_rivals_of_squared_distances(rival: LossRival) -> None:
    shape = (16, 10, 128)
    reason = rival.why_not(160, 10, PEER_BYTES)
    if reason:
        pytest.skip(reason)
    answer = rival.prepare(*pool(*shape, "trained"), "squared_euclidean", N_THREADS)()
    rival.judge(answer, shape, "trained", "squared_euclidean")


@pytest.mark.parametrize("regime", LOSS_REGIMES)
@pytest.mark.parametrize("distance", MARGINS)
def test_some_rows_are_judged_as_all(distance: str, regime: Regime) -> None:
    shape = (16, 10, 128)
    right = expected(EVERY, *shape, regime, distance)
    found = batch_all_loss(*pool(*shape, regime), margin=MARGINS[distance], distance=distance)
    assert found.n_triplets == right.n_triplets
    judge_some_rows(found, *pool(*shape, regime), distance)
    found.gradient[-1] += 1e-3 * found.gradient.max()
    with pytest.raises(AssertionError):
        judge_some_rows(found, *pool(*shape, regime), distance)


@pytest.mark.parametrize("distance", MARGINS)
def test_judged_gradients_are_slopes_of_the_loss(distance: str) -> None:
    # By central differences, of a loss summed up anew.
    rows, labels = pool(6, 4, 32, "half-violating")
    wide, step = rows.astype(np.float64), 1e-6
    for definition in DEFINITIONS.values():
        right = definition(wide, labels, distance)
        for row, column in ((0, 0), (9, 17), (23, 31)):
            losses = []
            for sign in (1, -1):
                moved = wide.copy()
                moved[row, column] += sign * step
                losses.append(definition(moved, labels, distance))
            assert losses[0].n_triplets == losses[1].n_triplets == right.n_triplets
            slope = (losses[0].loss - losses[1].loss) / (2 * step)
            np.testing.assert_allclose(right.gradient[row, column], slope, rtol=1e-4, atol=1e-7)


def test_memory() -> None:
    # 20,000 rows: a matrix of their distances alone would take 1.6 GB.
    extra = run(
        "measure_loss_memory",
        N_THREADS,
        rival=NATIVE,
        shape=(500, 40, 128),
        regime="trained",
        distance="squared_euclidean",
    )
    assert extra is None or 10e6 < extra < 500e6
