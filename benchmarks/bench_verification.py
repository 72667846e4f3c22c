"""Verification beside its rivals: evaluation of pairs, resamples, all pairs of a data set, and embedding."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facenet_fast.evaluation.all_pairs import compare_all_pairs
from facenet_fast.evaluation.roc import exact_roc
from facenet_fast.evaluation.verification import distances

from .jobs import Shape, matrix_product, run
from .regimes import pool
from .timing import PAUSE_SECONDS
from .verification import (
    ALL_PAIRS_RIVALS,
    FARS,
    TOLERANCE,
    AllPairsRival,
    Pairs,
    draw_identities,
    evaluate,
    evaluate_as_the_predecessor,
    evaluate_exactly,
    image_files,
    judge_embeddings,
    judge_evaluation,
    judge_resamples,
    lfw_like,
    network_and_files,
    resample_by_scikit_learn,
    resample_natively,
)

N_THREADS = 2
SMALL, LARGE = (100, 10, 128), (450, 10, 512)
LFW = (1300, 10, 512)
ALL_PAIRS_BYTES = 5e8

Ways = dict[str, Callable[[], Any]]

EVALUATIONS = [(0, False), (1, True)]


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    return lfw_like(6000, 128)


@pytest.fixture(scope="module")
def expected(pairs: Pairs) -> dict[tuple[int, bool], dict[str, float]]:
    return {how: evaluate_as_the_predecessor(pairs, *how) for how in EVALUATIONS}


@pytest.mark.parametrize("how", EVALUATIONS, ids=str)
def test_evaluation(benchmark: Any, pairs: Pairs, expected: Any, how: tuple[int, bool]) -> None:
    benchmark.group = f"6,000 pairs x 128, metric and mean subtracted: {how}"
    judge_evaluation(benchmark(evaluate, pairs, *how), expected[how])


@pytest.mark.parametrize("how", EVALUATIONS, ids=str)
def test_predecessors_evaluation(benchmark: Any, pairs: Pairs, expected: Any, how: tuple[int, bool]) -> None:
    benchmark.group = f"6,000 pairs x 128, metric and mean subtracted: {how}"
    if benchmark.disabled:
        pytest.skip("the evaluation's judge is the same function")
    assert benchmark.pedantic(evaluate_as_the_predecessor, (pairs, *how), rounds=1) == expected[how]


def test_evaluation_is_nearly_that_without_a_grid(pairs: Pairs) -> None:
    # Thresholds at the distances that occur, sorted, instead of a grid: what is left is the grid's width.
    found = evaluate(pairs, 0, False)
    assert 0.9 < found.accuracy < 1.0
    exact = evaluate_exactly(pairs, found.distances, 0)
    assert abs(exact.auc - found.auc) < 1e-3
    assert abs(exact.accuracy - found.accuracy) < 5e-3


N_RESAMPLES = 20


def test_resamples(benchmark: Any, pairs: Pairs) -> None:
    benchmark.group = f"{N_RESAMPLES} resamples of the identities of 6,000 pairs"
    d, counts = distances(pairs.left, pairs.right), draw_identities(pairs, N_RESAMPLES)
    found = benchmark(resample_natively, pairs, d, counts)
    judge_resamples(found, resample_by_scikit_learn(pairs, d, counts))


def test_resamples_by_scikit_learn(benchmark: Any, pairs: Pairs) -> None:
    benchmark.group = f"{N_RESAMPLES} resamples of the identities of 6,000 pairs"
    d, counts = distances(pairs.left, pairs.right), draw_identities(pairs, N_RESAMPLES)
    judge_resamples(
        resample_natively(pairs, d, counts), benchmark(resample_by_scikit_learn, pairs, d, counts)
    )


def test_resamples_count_pairs_that_were_written_out(pairs: Pairs) -> None:
    # The judge's weights are the numbers of copies: a list with so many of each pair has the same curve.
    d = distances(pairs.left, pairs.right)
    counts = draw_identities(pairs, 2)
    for drawn, (auc, eer, *vals) in zip(counts, resample_by_scikit_learn(pairs, d, counts), strict=True):
        copies = [
            drawn[left] if is_same else drawn[left] * drawn[right]
            for left, right, is_same in zip(
                pairs.left_identity, pairs.right_identity, pairs.is_same, strict=True
            )
        ]
        roc = exact_roc(np.repeat(d, copies), np.repeat(pairs.is_same, copies))
        assert abs(roc.auc - auc) < TOLERANCE
        assert abs(roc.eer - eer) < TOLERANCE
        np.testing.assert_allclose(vals, [roc.at_far(far).val for far in FARS])


def test_intervals(benchmark: Any, pairs: Pairs) -> None:
    benchmark.group = "1,000 resamples: all intervals"
    d = distances(pairs.left, pairs.right)
    found = benchmark(evaluate_exactly, pairs, d, 1000)
    for name in ("accuracy", "auc", "eer"):
        assert found.intervals[name].low < getattr(found, name) < found.intervals[name].high
    # As wide as those of other draws, by scikit-learn.
    others = resample_by_scikit_learn(pairs, d, draw_identities(pairs, 300, seed=1))
    for name, values in zip(("auc", "eer"), others.T[:2], strict=True):
        low, high = np.quantile(values, (0.025, 0.975))
        width = found.intervals[name].high - found.intervals[name].low
        assert 0.75 < width / (high - low) < 1.33


@pytest.mark.parametrize("shape", [SMALL, LARGE], ids=str)
@pytest.mark.parametrize("rival", ALL_PAIRS_RIVALS, ids=lambda rival: rival.name)
def test_all_pairs(benchmark: Any, rival: AllPairsRival, shape: Shape) -> None:
    benchmark.group = f"all pairs, {' x '.join(map(str, shape))}"
    rows, labels = pool(*shape, "trained")
    reason = rival.why_not(len(rows), ALL_PAIRS_BYTES)
    if reason:
        pytest.skip(reason)
    compute = rival.prepare(rows, labels, N_THREADS)
    time.sleep(PAUSE_SECONDS)
    rival.judge(benchmark(compute), rows, labels)


@pytest.mark.parametrize("shape", [SMALL, LARGE], ids=str)
def test_matrix_product(benchmark: Any, shape: Shape) -> None:
    benchmark.group = f"all pairs, {' x '.join(map(str, shape))}"
    rows, _ = pool(*shape, "trained")
    time.sleep(PAUSE_SECONDS)
    benchmark(matrix_product(rows, N_THREADS).call)


@pytest.mark.parametrize("rival", ALL_PAIRS_RIVALS[1:], ids=lambda rival: rival.name)
def test_judge_of_all_pairs_sees_one_that_is_elsewhere(rival: AllPairsRival) -> None:
    rows, labels = pool(*SMALL, "trained")
    answer = rival.prepare(rows, labels, N_THREADS)()
    rival.judge(answer, rows, labels)
    same, *rest = answer
    one_more = np.where(np.arange(len(same)) == np.searchsorted(same, same[-1] // 2), same + 100, same)
    with pytest.raises(AssertionError):
        rival.judge((one_more, *rest), rows, labels)


def test_all_pairs_memory() -> None:
    # A list of its distances in float64 alone would take 676 MB.
    extra = run("measure_all_pairs_memory", N_THREADS, rival="facenet-fast, `compare_all_pairs`", shape=LFW)
    assert extra is None or 10e6 < extra < 300e6


def test_all_pairs_measures() -> None:
    rows, labels = pool(50, 10, 128, "trained")
    found = compare_all_pairs(rows, labels).roc
    left, right = np.triu_indices(len(rows), 1)
    right_one = exact_roc(distances(rows[left], rows[right]), labels[left] == labels[right])
    assert abs(found.auc - right_one.auc) < 1e-5
    assert abs(found.eer - right_one.eer) < 1e-4
    for far in FARS:
        assert abs(found.at_far(far).val - right_one.at_far(far).val) < 2e-3


# Batches of 100, and one that is not full.
N_FILES = 330


@pytest.fixture(scope="module")
def files() -> Iterator[list[str]]:
    with image_files(N_FILES) as paths:
        yield paths


@pytest.fixture(scope="module")
def ways(files: list[str]) -> Ways:
    return network_and_files("small_resnet", 56, files, N_THREADS)


@pytest.mark.parametrize("way", ["network", "reading", "files", "kept"])
def test_embedding(benchmark: Any, ways: Ways, way: str) -> None:
    benchmark.group = f"{N_FILES} image files, small_resnet, 56 x 56"
    time.sleep(PAUSE_SECONDS)
    found = benchmark(ways[way])
    if way == "reading":
        assert [len(batch) for batch in found] == [100, 100, 100, 30]
    else:
        judge_embeddings(found, ways["network"]())


def test_network_alone_sees_what_the_files_hold(files: list[str], ways: Ways) -> None:
    batches = ways["reading"]()
    for i in (0, 199, 329):
        image = Image.open(files[i]).resize((56, 56), Image.Resampling.BILINEAR)
        pixels = np.asarray(image, dtype=np.float64)
        np.testing.assert_allclose(
            batches[i // 100][i % 100], (pixels - pixels.mean()) / pixels.std(), atol=1e-4
        )
