"""The CUDA miner equals the specification, pick for pick; rows that lie on a device are mined there.

Batches are small: the emulated device is slow.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facenet_fast import (
    BatchAllLoss,
    CandidateCounts,
    Interval,
    Strategy,
    Triplets,
    batch_all_loss,
    count_triplets,
    mine_triplets,
    stream_triplets,
)
from facenet_fast.mining import PRESETS, batch_all, miner
from facenet_fast.mining.arrays import as_array
from facenet_fast.mining.devices import load_cuda

from .batches import clustered, tied, uneven
from .contract import (
    as_columns,
    as_rows,
    assert_counts_equal_reference,
    assert_equals_reference,
    attempt,
)
from .strategies_table import STRATEGIES, composed, distance_for

pytestmark = pytest.mark.cuda
try:
    load_cuda()
except (ImportError, RuntimeError) as error:
    pytest.skip(str(error), allow_module_level=True)

SQUARED = [name for name in STRATEGIES if distance_for(STRATEGIES[name]) != "cosine"]
# One of each way to pick, and of each way to choose pairs that is a search of its own.
SOME = ["facenet", "batch_hard", "nearest_3", "farthest_3", "random_3_positives", "skip_many", "quantile"]
LOSSES = {
    "batch_all": PRESETS["batch_all"],
    "each_once": Strategy("violating", "each_once"),
    "semi_hard": Strategy("semi_hard", "both_ways", "every"),
    "interval_open": Strategy(Interval(0.0, 0.25, low_is_open=True), "each_once", "every"),
    "hardest_2": Strategy("violating", "hardest_positive", "nearest", n_positives=2, n_negatives=3),
    "random": Strategy("violating", "random_positives", "every", n_positives=2),
    "screened": Strategy("violating", "both_ways", "every", max_positive_distance=0.9),
    "quantile": Strategy("violating", "both_ways", "every", positive_quantile=0.4),
}
# These are listed block by block.
LISTED = {
    "all": Strategy("all", "both_ways", "every"),
    "skip": Strategy("violating", "both_ways", "every", skip_hardest=0.2),
    "moderate": Strategy("violating", "moderate_positive", "every"),
}


@pytest.fixture
def cuda() -> ModuleType:
    return load_cuda()


def options_for(name: str, **options: Any) -> dict[str, Any]:
    return {"strategy": STRATEGIES[name], "distance": distance_for(STRATEGIES[name]), **options}


def on_device(rows: npt.NDArray[Any]) -> Any:
    return load_cuda().to_device(np.ascontiguousarray(rows))


class ByInterface:
    """Somebody's array, by the CUDA array interface."""

    def __init__(self, array: Any, **changes: Any) -> None:
        self.array, self.changes = array, changes

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {**self.array.__cuda_array_interface__, **self.changes}


class ByDLPack:
    """Somebody's array, by DLPack: of a type and a shape that it is given, in the same memory."""

    class Tensor(ctypes.Structure):
        # DLManagedTensor, as far as it is changed.
        _fields_ = (
            ("data", ctypes.c_void_p),
            ("device", ctypes.c_int32 * 2),
            ("ndim", ctypes.c_int32),
            ("code", ctypes.c_uint8),
            ("bits", ctypes.c_uint8),
            ("lanes", ctypes.c_uint16),
            ("shape", ctypes.POINTER(ctypes.c_int64)),
            ("strides", ctypes.POINTER(ctypes.c_int64)),
            ("byte_offset", ctypes.c_uint64),
        )

    def __init__(self, array: Any, kind: tuple[int, int] | None = None, **changes: list[int]) -> None:
        self.array, self.kind, self.changes = array, kind, changes
        self.streams: list[Any] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        device: tuple[int, int] = self.array.__dlpack_device__()
        return device

    def __dlpack__(self, *, stream: Any = None) -> Any:
        self.streams.append(stream)
        capsule = self.array.__dlpack__()
        of = ctypes.pythonapi.PyCapsule_GetPointer
        of.restype, of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        tensor = self.Tensor.from_address(of(capsule, b"dltensor"))
        if self.kind:
            tensor.code, tensor.bits = self.kind
        self.kept = {name: (ctypes.c_int64 * len(n))(*n) for name, n in self.changes.items()}
        for name, numbers in self.kept.items():
            setattr(tensor, name, numbers)
            tensor.ndim = len(numbers)
        return capsule


def assert_same_triplets(mined: Triplets, expected: Triplets) -> None:
    np.testing.assert_array_equal(as_rows(mined), as_rows(expected))
    assert len(mined) == len(expected)
    assert (mined.n_pairs, mined.n_pairs_with_negative) == (expected.n_pairs, expected.n_pairs_with_negative)
    np.testing.assert_allclose(
        [mined.mean_d_ap, mined.mean_d_an], [expected.mean_d_ap, expected.mean_d_an], rtol=1e-5, atol=1e-6
    )


def assert_as_the_cpu(embeddings: Any, labels: Any, **options: Any) -> Triplets:
    mined: Triplets = mine_triplets(embeddings, labels, device="cuda", **options)
    assert_same_triplets(mined, mine_triplets(embeddings, labels, **options))
    return mined


# -- the same triplets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STRATEGIES)
def test_equals_reference(name: str) -> None:
    options: dict[str, Any] = {"strategy": STRATEGIES[name], "seed": 5, "device": "cuda"}
    embeddings, labels = clustered(6, 5, 33)
    assert_equals_reference(embeddings, labels, count_candidates=True, **options)
    embeddings, labels = clustered(6, 5, 7, noise=0.2)
    assert_equals_reference(embeddings.astype(np.float64), labels, **options)


@pytest.mark.parametrize("name", STRATEGIES)
def test_ties_are_decided_as_specified(name: str) -> None:
    for margin, n_identities in ((0.25, 4), (0.5, 9)):
        options = options_for(name, margin=margin, seed=3, device="cuda")
        assert_equals_reference(*tied(48, n_identities), **options)


@pytest.mark.parametrize("name", STRATEGIES)
def test_identities_of_all_sizes(name: str) -> None:
    embeddings, labels = uneven(60, 0.12, 5)
    moved = np.random.default_rng(2).permutation(60)
    options = options_for(name, margin=0.3, seed=2**64 - 1, device="cuda")
    assert_equals_reference(embeddings[moved], labels[moved], **options)


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_other_distances(name: str, distance: str) -> None:
    embeddings, labels = clustered(6, 5, 17, noise=1.0)
    if distance == "cosine":
        embeddings = embeddings * np.logspace(-3, 3, len(labels), dtype=np.float32)[:, None]
    assert_equals_reference(
        embeddings, labels, strategy=STRATEGIES[name], margin=0.1, distance=distance, seed=8, device="cuda"
    )


@pytest.mark.parametrize("name", STRATEGIES)
def test_counts_equal_reference(name: str) -> None:
    for batch in (clustered(6, 4, 8), tied(40, 5)):
        assert_counts_equal_reference(*batch, **options_for(name, margin=0.25, seed=1, device="cuda"))


@pytest.mark.parametrize("name", [*STRATEGIES, "batch_all"])
def test_streams_what_the_cpu_streams(name: str) -> None:
    strategy = STRATEGIES.get(name, PRESETS["batch_all"])
    options: dict[str, Any] = {"strategy": strategy, "distance": distance_for(strategy), "margin": 0.25}
    embeddings, labels = tied(40, 5)
    for limit in (1, 200, 2**22):
        if limit == 1 and name not in SOME:
            continue
        blocks, expected = (
            list(stream_triplets(embeddings, labels, max_triplets=limit, device=device, **options))
            for device in ("cuda", "cpu")
        )
        for block, wanted in zip(blocks, expected, strict=True):
            assert_same_triplets(block, wanted)


@pytest.mark.parametrize("name", STRATEGIES)
def test_parts_of_the_anchors(name: str) -> None:
    embeddings, labels = clustered(6, 5, 8)
    for anchors in (slice(0, 30, 3), [4, 29, 4], np.arange(30) == 7, []):
        assert_equals_reference(
            embeddings, labels, **options_for(name, anchors=anchors, seed=7, device="cuda")
        )


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_bank(name: str) -> None:
    embeddings, labels = clustered(6, 8, 9, noise=1.0)
    for n, bank_positives in ((30, False), (13, True)):
        bank = (embeddings[n:], labels[n:])
        assert_equals_reference(
            embeddings[:n],
            labels[:n],
            count_candidates=True,
            **options_for(name, bank=bank, bank_positives=bank_positives, seed=6, device="cuda"),
        )


@pytest.mark.parametrize("size", [1, 3, 7, 8, 32, 33, 65])
def test_sizes_that_fill_no_register(size: int) -> None:
    rng = np.random.default_rng(size)
    rows, labels = rng.standard_normal((29, size)), rng.integers(0, 5, 29)
    for name, dtype in itertools.product(SOME, (np.float32, np.float64)):
        assert_equals_reference(rows.astype(dtype), labels, **options_for(name, margin=1.0, device="cuda"))


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_nothing_to_mine_is_an_empty_result(n: int) -> None:
    rows = np.ones((n, 3), np.float32)
    for name, labels in itertools.product(STRATEGIES, (np.zeros(n, int), np.arange(n))):
        mined = mine_triplets(rows, labels, count_candidates=True, **options_for(name, device="cuda"))
        assert len(mined) == mined.n_pairs_with_negative == 0
        assert mined.anchor.dtype == mined.positive.dtype == mined.negative.dtype == np.int32
        assert np.isnan([mined.mean_d_ap, mined.mean_d_an]).all()
        assert mined.n_pairs == mine_triplets(rows, labels, **options_for(name)).n_pairs
        assert mined.candidates is not None
        assert mined.candidates.n_triplets == 0
        assert list(stream_triplets(rows, labels, device="cuda")) == [] or n > 1


@pytest.mark.parametrize("name", ["facenet", "uniform_3", "random_3_positives"])
def test_large_batches_draw_before_they_search(name: str) -> None:
    # From 512 rows on.
    embeddings, labels = clustered(130, 4, 8, noise=1.1)
    assert len(assert_as_the_cpu(embeddings, labels, **options_for(name, seed=4))) > 0


@pytest.mark.parametrize("name", SOME)
def test_blocks_and_tiles_meet(name: str) -> None:
    embeddings, labels = uneven(283, 0.06, 5)
    assert_as_the_cpu(embeddings, labels, **options_for(name, margin=0.02, seed=2))


def test_one_large_identity() -> None:
    rows = np.random.default_rng(0).standard_normal((150, 4)).astype(np.float32)
    for name in ("vgg_face", "batch_hard", "quantile"):
        assert_as_the_cpu(rows, np.arange(150) >= 140, **options_for(name, margin=0.1))


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e-40, 1e-30, 1e-19, 1e19, 1e30, 1e140])
def test_long_and_short_embeddings(scale: float) -> None:
    embeddings, labels = clustered(5, 5, 12)
    margin = max(0.2 * scale * scale, 5e-324)
    for name in (*SOME, "vgg_face", "distance_weighted"):
        assert_equals_reference(
            embeddings.astype(np.float64) * scale, labels, **options_for(name, margin=margin, device="cuda")
        )
        if 1e-45 < scale < 1e38:
            small = (embeddings.astype(np.float64) * scale).astype(np.float32)
            assert_equals_reference(small, labels, **options_for(name, margin=margin, device="cuda"))


def test_lengths_far_apart_in_one_batch() -> None:
    embeddings, labels = clustered(5, 5, 16)
    embeddings = embeddings * np.logspace(-12, 12, 25, dtype=np.float32)[:, None]
    for margin, name in itertools.product((1e-20, 1e-3, 1.0), SOME):
        assert_equals_reference(embeddings, labels, **options_for(name, margin=margin, device="cuda"))


def test_collapsed_embeddings() -> None:
    labels = np.arange(30) % 6
    for value in (0.0, 0.3):
        rows = np.full((30, 8), value, np.float32)
        for name in STRATEGIES if value else SQUARED:
            assert_equals_reference(rows, labels, **options_for(name, device="cuda"))


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    strategy=composed(),
    batch=st.sampled_from(["clustered", "tied", "uneven"]),
    margin=st.sampled_from([0.05, 0.25, 1.0]),
    distance=st.sampled_from(["squared_euclidean", "euclidean", "cosine"]),
    seed=st.integers(0, 2**64 - 1),
)
def test_any_strategy_is_the_cpus(
    strategy: Strategy, batch: str, margin: float, distance: str, seed: int
) -> None:
    batches = {
        "clustered": lambda: clustered(6, 6, 9),
        "tied": lambda: tied(40, 5),
        "uneven": lambda: uneven(40, 0.15, 5),
    }
    if strategy.pick == "distance_weighted":
        distance = "cosine"
    mined = assert_as_the_cpu(
        *batches[batch](),
        strategy=strategy,
        margin=margin,
        distance=distance,
        seed=seed,
        count_candidates=True,
    )
    expected = count_triplets(
        *batches[batch](), strategy=strategy, margin=margin, distance=distance, seed=seed
    )
    assert mined.candidates is not None
    np.testing.assert_array_equal(as_columns(mined.candidates), as_columns(expected))


def test_rows_that_do_not_fit_are_read_from_the_host(
    cuda: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    embeddings, labels = clustered(6, 6, 33)
    expected = {name: mine_triplets(embeddings, labels, **options_for(name, seed=3)) for name in SOME}
    loss = batch_all_loss(embeddings, labels)
    little = cuda.Workspace(largest_rows=0)
    monkeypatch.setattr(miner, "workspace", lambda device: {"cuda": little}[device])
    for name in SOME:
        for rows in (embeddings, on_device(embeddings)):
            mined = mine_triplets(rows, labels, device="cuda", **options_for(name, seed=3))
            assert_same_triplets(mined, expected[name])
    assert_loss_is_near(batch_all_loss(embeddings, labels, device="cuda"), loss)


@pytest.mark.parametrize("name", [*SOME, "moderate_skip", "semi_hard_or_farthest", "weighted_3"])
def test_stripes_meet(name: str, cuda: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of 128 anchors each, the least that there is.
    embeddings, labels = uneven(300, 0.08, 5)
    options = options_for(name, margin=0.05, seed=2, count_candidates=True)
    expected = mine_triplets(embeddings, labels, **options)
    little = cuda.Workspace(whole_bytes=0, stripe_bytes=0)
    monkeypatch.setattr(miner, "workspace", lambda device: {"cuda": little}[device])
    mined = mine_triplets(embeddings, labels, device="cuda", **options)
    assert_same_triplets(mined, expected)
    np.testing.assert_array_equal(as_columns(mined.candidates), as_columns(expected.candidates))


def test_one_batch_after_another_in_the_same_memory() -> None:
    # Larger, then smaller, then larger again; of another type, size and strategy each.
    for (n, size), dtype, name in zip(
        ((9, 40), (3, 5), (12, 8), (4, 33)),
        (np.float32, np.float64, np.float32, np.float32),
        ("facenet", "weighted_3", "skip_many", "batch_hard"),
        strict=True,
    ):
        embeddings, labels = clustered(n, 5, size)
        assert_as_the_cpu(embeddings.astype(dtype), labels, **options_for(name))


def test_threads_may_mine_at_the_same_time() -> None:
    embeddings, labels = clustered(8, 6, 16)
    names = SOME[:4]
    expected = [as_rows(mine_triplets(embeddings, labels, **options_for(name))) for name in names]
    got: dict[str, list[npt.NDArray[np.int32]]] = {name: [] for name in names}

    def work(name: str) -> None:
        for _ in range(5):
            got[name].append(as_rows(mine_triplets(embeddings, labels, device="cuda", **options_for(name))))

    workers = [threading.Thread(target=work, args=(name,)) for name in names]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for name, rows in zip(names, expected, strict=True):
        assert len(got[name]) == 5
        for found in got[name]:
            np.testing.assert_array_equal(found, rows)


# -- the loss over all triplets ----------------------------------------------------------------------------


def assert_loss_is_near(found: BatchAllLoss, expected: BatchAllLoss) -> None:
    assert found.n_triplets == expected.n_triplets
    np.testing.assert_array_equal(found.n_by_anchor, expected.n_by_anchor)
    largest = float(expected.loss_by_anchor.max(initial=0.0))
    np.testing.assert_allclose(found.loss_by_anchor, expected.loss_by_anchor, rtol=1e-5, atol=1e-5 * largest)
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    gradient = np.asarray(found.gradient)
    assert gradient.dtype == expected.gradient.dtype
    assert gradient.shape == expected.gradient.shape
    size = float(np.abs(expected.gradient).max(initial=0.0))
    np.testing.assert_allclose(gradient, expected.gradient, rtol=1e-5, atol=1e-5 * size)


@pytest.mark.parametrize("distance", ["squared_euclidean", "euclidean", "cosine"])
@pytest.mark.parametrize("name", [*LOSSES, *LISTED])
def test_the_loss_over_all_triplets_is_the_cpus(name: str, distance: str) -> None:
    for (embeddings, labels), dtype in (
        (clustered(6, 6, 9, noise=1.0), np.float32),
        (uneven(50, 0.15, 5), np.float64),
    ):
        options: dict[str, Any] = {
            "strategy": {**LOSSES, **LISTED}[name],
            "margin": 0.3,
            "distance": distance,
            "weights": np.random.default_rng(1).uniform(0.5, 1.5, len(labels)),
            "seed": 4,
        }
        rows = embeddings.astype(dtype)
        expected = batch_all_loss(rows, labels, **options)
        assert expected.n_triplets > 0
        assert_loss_is_near(batch_all_loss(rows, labels, device="cuda", **options), expected)


@pytest.mark.parametrize("soft", [False, True])
def test_the_gradient_is_where_the_rows_are(soft: bool, cuda: ModuleType) -> None:
    embeddings, labels = clustered(6, 6, 9, noise=1.0)
    for dtype, distance in itertools.product(
        (np.float32, np.float64), ("squared_euclidean", "euclidean", "cosine")
    ):
        rows = embeddings.astype(dtype)
        expected = batch_all_loss(rows, labels, distance=distance, soft=soft)
        found = batch_all_loss(on_device(rows), labels, distance=distance, soft=soft, device="cuda")
        assert_loss_is_near(found, expected)
        # What is listed is added up by numpy, and so is what numpy has to make of cosines.
        stays = not soft and distance != "cosine"
        assert type(found.gradient) is (cuda.DeviceArray if stays else np.ndarray)
        assert type(found.loss_by_anchor) is type(found.n_by_anchor) is np.ndarray


def test_the_sum_is_not_divided() -> None:
    embeddings, labels = clustered(6, 6, 9, noise=1.0)
    options: dict[str, Any] = {
        "strategy": "batch_all",
        "margin": 0.3,
        "soft": False,
        "distance": "squared_euclidean",
        "weights": None,
        "seed": 0,
    }
    sums = batch_all.batch_all_sums(embeddings, labels, device="cuda", **options)
    expected = batch_all.batch_all_sums(embeddings, labels, **options)
    for found, wanted in zip(sums, expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("n", [0, 1, 4])
def test_a_loss_over_nothing(n: int) -> None:
    rows = np.ones((n, 3), np.float32)
    for embeddings, labels in itertools.product((rows, on_device(rows)), (np.arange(n), np.zeros(n))):
        found = batch_all_loss(embeddings, labels, device="cuda")
        assert (found.loss, found.n_triplets) == (0.0, 0)
        np.testing.assert_array_equal(np.asarray(found.gradient), np.zeros((n, 3), np.float32))


# -- rows on the device ------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", [lambda array: array, ByInterface, ByDLPack], ids=["own", "CAI", "DLPack"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_are_where_the_rows_are(by: Callable[[Any], Any], dtype: Any, cuda: ModuleType) -> None:
    embeddings, labels = clustered(6, 6, 9)
    embeddings = embeddings.astype(dtype)
    rows = by(on_device(embeddings))
    for name in SOME:
        options = options_for(name, count_candidates=True)
        mined = mine_triplets(rows, labels, device="cuda", **options)
        for column in (mined.anchor, mined.positive, mined.negative):
            assert type(column) is cuda.DeviceArray
            assert column.dtype == np.int32
        expected = mine_triplets(embeddings, labels, **options)
        assert_same_triplets(mined, expected)
        assert mined.candidates is not None
        assert expected.candidates is not None
        assert type(mined.candidates.n_candidates) is cuda.DeviceArray
        assert mined.candidates.n_triplets == expected.candidates.n_triplets
        assert len(mined.candidates) == len(expected.candidates)
        np.testing.assert_array_equal(as_columns(mined.candidates), as_columns(expected.candidates))


def test_blocks_are_numpys() -> None:
    embeddings, labels = clustered(6, 6, 9)
    blocks = list(stream_triplets(on_device(embeddings), labels, device="cuda", max_triplets=100))
    expected = list(stream_triplets(embeddings, labels, max_triplets=100))
    assert len(blocks) > 2
    for block, wanted in zip(blocks, expected, strict=True):
        assert type(block.anchor) is type(block.positive) is type(block.negative) is np.ndarray
        assert_same_triplets(block, wanted)


GO_OVER_THE_HOST: dict[str, dict[str, Any]] = {
    "cosine": {"distance": "cosine"},
    "weighted": {"strategy": "distance_weighted"},
    "bank": {"bank": clustered(3, 4, 9, seed=5)},
}


@pytest.mark.parametrize("why", GO_OVER_THE_HOST)
@pytest.mark.parametrize("by", [lambda array: array, ByInterface, ByDLPack], ids=["own", "CAI", "DLPack"])
def test_what_more_than_the_miner_reads_goes_over_the_host(why: str, by: Callable[[Any], Any]) -> None:
    embeddings, labels = clustered(6, 6, 9)
    options = GO_OVER_THE_HOST[why]
    mined = mine_triplets(by(on_device(embeddings)), labels, device="cuda", **options)
    assert type(mined.anchor) is np.ndarray
    assert_same_triplets(mined, mine_triplets(embeddings, labels, **options))


@pytest.mark.parametrize("by", [lambda array: array, ByInterface, ByDLPack], ids=["own", "CAI", "DLPack"])
def test_the_cpu_mines_rows_of_a_device_too(by: Callable[[Any], Any]) -> None:
    embeddings, labels = clustered(6, 6, 9)
    expected = mine_triplets(embeddings, labels)
    rows = by(on_device(embeddings))
    mined = mine_triplets(rows, by(on_device(labels.astype(np.int32))), device="cpu")
    assert type(mined.anchor) is np.ndarray
    assert_same_triplets(mined, expected)
    if load_cuda().is_emulated():
        automatic = mine_triplets(rows, labels, device="auto")
        assert type(automatic.anchor) is np.ndarray
        assert_same_triplets(automatic, expected)


def test_labels_anchors_and_banks_on_the_device() -> None:
    embeddings, labels = clustered(6, 6, 9)
    codes, anchors = on_device(labels.astype(np.int32)), on_device(np.array([3, 9], np.int32))
    for by in (ByInterface, ByDLPack):
        mined = mine_triplets(on_device(embeddings), by(codes), anchors=by(anchors), device="cuda")
        assert_same_triplets(mined, mine_triplets(embeddings, labels, anchors=[3, 9]))
        bank = (by(on_device(embeddings[:8])), by(on_device(labels[:8].astype(np.int32))))
        mined = mine_triplets(on_device(embeddings), by(codes), bank=bank, device="cuda")
        assert_same_triplets(mined, mine_triplets(embeddings, labels, bank=(embeddings[:8], labels[:8])))


def test_rows_that_are_not_next_to_each_other_go_over_the_host() -> None:
    embeddings, labels = clustered(6, 6, 9)
    wide = np.zeros((72, 18), np.float32)
    wide[::2, ::2] = embeddings
    turned = np.ascontiguousarray(embeddings.T)
    behind = np.ascontiguousarray(embeddings[::-1])
    address = on_device(behind)
    for rows in (
        ByInterface(on_device(wide), shape=(36, 9), strides=(144, 8)),
        ByDLPack(on_device(wide), shape=[36, 9], strides=[36, 2]),
        ByInterface(on_device(turned), shape=(36, 9), strides=(4, 144)),
        ByInterface(
            address,
            strides=(-36, 4),
            data=(address.__cuda_array_interface__["data"][0] + 35 * 36, False),
        ),
    ):
        mined = mine_triplets(rows, labels, device="cuda")
        assert type(mined.anchor) is np.ndarray
        assert_same_triplets(mined, mine_triplets(embeddings, labels))
        np.testing.assert_array_equal(as_array(rows, "embeddings"), embeddings)


def test_strides_of_rows_that_are_next_to_each_other(cuda: ModuleType) -> None:
    embeddings, labels = clustered(6, 6, 9)
    array = on_device(embeddings)
    for rows in (
        ByInterface(array, strides=(36, 4)),
        ByDLPack(array, shape=[36, 9], strides=[9, 1]),
        # Along an axis of one nobody goes.
        ByInterface(array, shape=(1, 324), strides=(5, 4)),
    ):
        assert cuda.device_view(rows).can_be_mined
    assert type(mine_triplets(ByInterface(array, strides=(36, 4)), labels, device="cuda").anchor) is (
        cuda.DeviceArray
    )


def test_half_precision_goes_over_the_host_and_is_widened(cuda: ModuleType) -> None:
    embeddings, labels = clustered(6, 6, 8)
    half = embeddings.astype(np.float16)
    # bfloat16 is the upper half of a float32.
    upper = (embeddings.view(np.uint32) >> 16).astype(np.uint16)
    widened = (upper.astype(np.uint32) << 16).view(np.float32)
    for rows, dtype, expected in (
        (ByInterface(on_device(half.view(np.int32)), typestr="<f2", shape=(36, 8)), "float16", half),
        (ByDLPack(on_device(half.view(np.int32)), (2, 16), shape=[36, 8]), "float16", half),
        (ByDLPack(on_device(upper.view(np.int32)), (4, 16), shape=[36, 8]), "bfloat16", widened),
    ):
        view = cuda.device_view(rows)
        assert (view.dtype, view.shape, view.can_be_mined) == (dtype, (36, 8), False)
        np.testing.assert_array_equal(view.to_numpy(), expected)
        mined = mine_triplets(rows, labels, device="cuda")
        assert type(mined.anchor) is np.ndarray
        assert_same_triplets(mined, mine_triplets(expected, labels))
    turned = ByDLPack(on_device(upper.view(np.int32)), (4, 16), shape=[8, 36], strides=[1, 8])
    np.testing.assert_array_equal(cuda.device_view(turned).to_numpy(), widened.T)


def test_foreign_byte_order_goes_over_the_host() -> None:
    embeddings, labels = clustered(6, 6, 9)
    swapped = on_device(embeddings.astype(">f4").view(np.float32))
    mined = mine_triplets(ByInterface(swapped, typestr=">f4"), labels, device="cuda")
    assert type(mined.anchor) is np.ndarray
    assert_same_triplets(mined, mine_triplets(embeddings, labels))


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ((0, 8), "int8"),
        ((0, 64), "int64"),
        ((1, 16), "uint16"),
        ((1, 64), "uint64"),
        ((2, 64), "float64"),
        ((5, 64), "complex64"),
        ((6, 8), "bool"),
    ],
)
def test_numbers_of_all_types_come_over(kind: tuple[int, int], dtype: str, cuda: ModuleType) -> None:
    values = np.arange(12).reshape(3, 4).astype(dtype)
    view = cuda.device_view(ByDLPack(on_device(values.reshape(-1).view(np.int32)), kind, shape=[3, 4]))
    assert (view.dtype, view.shape, view.device) == (dtype, (3, 4), 0)
    np.testing.assert_array_equal(view.to_numpy(), values)


def test_the_producer_is_told_the_stream() -> None:
    embeddings, labels = clustered(6, 6, 9)
    rows = ByDLPack(on_device(embeddings))
    mine_triplets(rows, labels, device="cuda")
    assert rows.streams == [1]  # the legacy default stream
    for stream in (None, 1, 2):
        mined = mine_triplets(ByInterface(on_device(embeddings), stream=stream), labels, device="cuda")
        assert_same_triplets(mined, mine_triplets(embeddings, labels))


def test_a_producer_that_takes_no_stream(cuda: ModuleType) -> None:
    # As TensorFlow's tensors.
    class Strict(ByDLPack):
        def __dlpack__(self, *, stream: Any = None) -> Any:
            if stream is not None:
                raise RuntimeError("no stream but None")
            return super().__dlpack__(stream=stream)

    embeddings, labels = clustered(6, 6, 9)
    mined = mine_triplets(Strict(on_device(embeddings)), labels, device="cuda")
    assert type(mined.anchor) is cuda.DeviceArray
    assert_same_triplets(mined, mine_triplets(embeddings, labels))


def test_dlpack_goes_before_the_interface() -> None:
    embeddings, labels = clustered(6, 6, 9)

    class Both(ByDLPack):
        @property
        def __cuda_array_interface__(self) -> Any:
            raise AssertionError("this knows nothing of streams")

    rows = Both(on_device(embeddings))
    mine_triplets(rows, labels, device="cuda")
    assert rows.streams == [1]


def test_a_detached_tensor_is_looked_into(cuda: ModuleType) -> None:
    embeddings, labels = clustered(6, 6, 9)

    class Learning:
        dtype = "float32"

        def __dlpack_device__(self) -> Any:
            return 2, 0

        def __dlpack__(self, **_: Any) -> Any:
            raise BufferError("requires grad")

        def detach(self) -> Any:
            return ByDLPack(on_device(embeddings))

    mined = mine_triplets(Learning(), labels, device="cuda")
    assert type(mined.anchor) is cuda.DeviceArray
    assert_same_triplets(mined, mine_triplets(embeddings, labels))


def test_who_refuses_numpy_is_brought_over() -> None:
    # As CuPy's arrays do.
    class Refusing(ByInterface):
        def __array__(self) -> Any:
            raise TypeError("implicit conversion is not allowed")

    values = np.arange(6, dtype=np.int32)
    np.testing.assert_array_equal(as_array(Refusing(on_device(values)), "labels"), values)


# -- what is handed over -----------------------------------------------------------------------------------


def test_results_speak_both_protocols(cuda: ModuleType) -> None:
    for dtype, typestr in ((np.int32, "<i4"), (np.float32, "<f4"), (np.float64, "<f8")):
        for values in (np.arange(12, dtype=dtype).reshape(4, 3), np.arange(5, dtype=dtype)):
            array = cuda.to_device(values)
            assert (array.shape, array.dtype, len(array)) == (values.shape, values.dtype, len(values))
            assert array.__dlpack_device__() == (2, array.device)
            interface = array.__cuda_array_interface__
            assert interface["data"][0] > 0
            assert {**interface, "data": None} == {
                "version": 3,
                "typestr": typestr,
                "shape": values.shape,
                "strides": None,
                "stream": None,
                "data": None,
            }
            for taken in (array, ByInterface(array), ByDLPack(array)):
                np.testing.assert_array_equal(cuda.device_view(taken).to_numpy(), values)
            np.testing.assert_array_equal(array.to_numpy(), values)
            np.testing.assert_array_equal(np.asarray(array), values)
            np.testing.assert_array_equal(np.asarray(array, dtype=np.float64), values.astype(np.float64))
    assert repr(cuda.to_device(np.zeros((2, 3), np.float32))) == (
        "DeviceArray(shape=(2, 3), dtype=float32, device=0)"
    )


def test_a_copy_is_a_copy(cuda: ModuleType) -> None:
    values = np.arange(4, dtype=np.int32)
    array = cuda.to_device(values)
    values[:] = 0
    first = array.to_numpy()
    first[:] = -1
    np.testing.assert_array_equal(array.to_numpy(), np.arange(4))
    with pytest.raises(ValueError, match=r"^copy must not be False: the array is on a CUDA device"):
        array.__array__(copy=False)
    np.testing.assert_array_equal(array.__array__(np.dtype(np.int64), copy=True), np.arange(4))


def test_what_dlpack_may_be_asked(cuda: ModuleType) -> None:
    array = cuda.to_device(np.arange(4, dtype=np.int32))
    for options in ({}, {"stream": 1}, {"stream": -1, "max_version": (1, 1), "copy": False}):
        assert "dltensor" in repr(array.__dlpack__(**options))
    array.__dlpack__(dl_device=array.__dlpack_device__())
    with pytest.raises(BufferError, match=r"^an array of the miner's must be taken where it is: to_numpy"):
        array.__dlpack__(dl_device=(1, 0))
    with pytest.raises(BufferError, match=r"^copy must not be True"):
        array.__dlpack__(copy=True)


def test_a_capsule_keeps_the_array_alive(cuda: ModuleType) -> None:
    array = cuda.to_device(np.arange(1000, dtype=np.int32))
    view, capsule = cuda.device_view(array), array.__dlpack__()
    del array
    for _ in range(20):
        cuda.to_device(np.full(1000, -1, np.int32))
    np.testing.assert_array_equal(view.to_numpy(), np.arange(1000))
    del capsule  # that nobody took anything out of
    np.testing.assert_array_equal(view.to_numpy(), np.arange(1000))


def test_an_owner_lives_as_long_as_its_view(cuda: ModuleType) -> None:
    view = cuda.device_view(ByInterface(cuda.to_device(np.arange(1000, dtype=np.int32))))
    for _ in range(20):
        cuda.to_device(np.full(1000, -1, np.int32))
    np.testing.assert_array_equal(view.to_numpy(), np.arange(1000))


def test_no_memory_is_left_behind(cuda: ModuleType) -> None:
    if not cuda.is_emulated():
        pytest.skip("only the emulated device counts its memory")
    embeddings, labels = clustered(6, 6, 9)

    def work() -> None:
        rows = on_device(embeddings)
        for by in (lambda array: array, ByInterface, ByDLPack):
            mined = mine_triplets(by(rows), labels, count_candidates=True, device="cuda")
            cuda.device_view(mined.anchor)
            mined.positive.__dlpack__()
            list(stream_triplets(by(rows), labels, max_triplets=100, device="cuda"))
            batch_all_loss(by(rows), labels, device="cuda")
            for bad in (by(on_device(np.full((4, 3), np.nan))), ByDLPack(rows, (9, 8))):
                with pytest.raises((TypeError, ValueError)):
                    mine_triplets(bad, np.arange(4), device="cuda")
        assert cuda.live_bytes() > before

    before = cuda.live_bytes()
    # Its own memory to mine in goes with a thread.
    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    gc.collect()
    assert cuda.live_bytes() == before


def test_a_capsule_is_taken_once(cuda: ModuleType) -> None:
    array = cuda.to_device(np.arange(4, dtype=np.int32))
    capsule = array.__dlpack__()

    class Once(ByDLPack):
        def __dlpack__(self, *, stream: Any = None) -> Any:
            return capsule

    np.testing.assert_array_equal(cuda.device_view(Once(array)).to_numpy(), np.arange(4))
    with pytest.raises(ValueError, match="incorrect name"):
        cuda.device_view(Once(array))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.arange(3), "must be an aligned, C-contiguous array of int32, float32 or float64; got int64"),
        (np.zeros((4, 4), np.float32).T[1:], r"got float32 of shape \(3, 4\)"),
        (np.zeros(4, ">f4"), "got >f4"),
        (np.float32(3) + np.zeros((), np.float32), r"of shape \(\)"),
    ],
)
def test_what_is_not_taken_to_the_device(values: Any, message: str, cuda: ModuleType) -> None:
    with pytest.raises(TypeError, match=message):
        cuda.to_device(np.asarray(values))


# -- mistakes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e160])
def test_a_bad_row_is_named_as_by_the_cpu(value: float) -> None:
    embeddings, labels = clustered(6, 5, 8)
    rows = embeddings.astype(np.float64)
    rows[[17, 23], 3] = value
    for call in (mine_triplets, count_triplets, stream_triplets, batch_all_loss):
        # Cosines know no length that is too long.
        for distance in ("squared_euclidean", "euclidean", "cosine")[: 2 if value == 1e160 else 3]:
            expected = attempt(lambda call=call, d=distance: call(rows, labels, distance=d))
            assert expected[0] is ValueError
            for given_rows in (rows, on_device(rows)):
                assert expected == attempt(
                    lambda call=call, r=given_rows, d=distance: call(r, labels, distance=d, device="cuda")
                )


@pytest.mark.parametrize(
    "change",
    [
        {"embeddings": np.zeros(30, np.float32)},
        {"embeddings": np.zeros((30, 0), np.float32)},
        {"embeddings": np.zeros((30, 8), np.int32)},
        {"embeddings": np.zeros((30, 2, 4), np.float32)},
        {"labels": np.zeros(29)},
        {"labels": np.full(30, np.nan)},
        {"anchors": [30]},
        {"margin": 0.0},
        {"seed": -1},
        {"strategy": "batch_all"},
        {"strategy": "distance_weighted"},
        {"distance": "l2"},
    ],
)
def test_mistakes_are_those_of_the_cpu(change: dict[str, Any]) -> None:
    embeddings, labels = clustered(6, 5, 8)
    arguments = {"embeddings": 2 * embeddings, "labels": labels, **change}
    expected = attempt(lambda: mine_triplets(**arguments))
    assert isinstance(expected, tuple)
    assert attempt(lambda: mine_triplets(**arguments, device="cuda")) == expected
    arguments["embeddings"] = on_device(arguments["embeddings"])
    assert attempt(lambda: mine_triplets(**arguments, device="cuda")) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stream": 0}, "the stream of a CUDA array interface must not be 0"),
        ({"mask": [1]}, "an array on a CUDA device must have no mask"),
        ({"strides": (4,)}, "an array must have a stride for each dimension"),
        ({"typestr": "nonsense"}, "nonsense"),
    ],
)
def test_an_interface_that_says_nonsense(changes: dict[str, Any], message: str) -> None:
    embeddings, labels = clustered(6, 5, 8)
    rows = ByInterface(on_device(embeddings), **changes)
    kind, sentence = attempt(lambda: mine_triplets(rows, labels, device="cuda"))
    assert kind is TypeError
    assert sentence.startswith("embeddings must be what DLPack can hand over; got tests's ByInterface: ")
    assert message in sentence


def test_a_producer_that_refuses() -> None:
    class Refusing(ByDLPack):
        def __dlpack__(self, **_: Any) -> Any:
            raise BufferError("these rows are lent out")

    embeddings, labels = clustered(6, 5, 8)
    rows = Refusing(on_device(embeddings))
    for device in ("cuda", "cpu"):
        kind, sentence = attempt(lambda device=device: mine_triplets(rows, labels, device=device))
        assert kind is TypeError
        assert "these rows are lent out" in sentence
    with pytest.raises(TypeError, match="got DLPack's type 9 of 8 bits"):
        load_cuda().device_view(ByDLPack(on_device(embeddings), (9, 8)))
    with pytest.raises(TypeError, match=r"must have __dlpack__ or __cuda_array_interface__; got ndarray"):
        load_cuda().device_view(embeddings)


def ask(function: str, more: dict[str, Any], **changes: Any) -> Any:
    """Call the module itself, with arguments that fit or do not."""
    cuda = load_cuda()
    numbers: dict[str, Any] = {
        "pairs": "both_ways",
        "n_positives": 1,
        "max_d_ap": np.inf,
        "quantile": 1.0,
        "relative": True,
        "low": -np.inf,
        "low_is_open": False,
        "high": 0.2,
        "reach": np.inf,
        "root": False,
        "skip_hardest": 0.0,
        "pick": "uniform",
        "n_negatives": 1,
        "if_empty": "drop",
        "weights": (),
    }
    arguments: dict[str, Any] = {
        "workspace": cuda.Workspace(),
        "embeddings": clustered(3, 4, 8)[0],
        "order": np.arange(12, dtype=np.int32),
        "offsets": np.array([0, 4, 8, 12]),
        "members": np.array([4, 8, 12]),
        "bank_positives": False,
        "is_anchor": np.empty(0, np.uint8),
        "rule": cuda.Rule(**{**numbers, **changes.pop("rule", {})}),
        "seed": 0,
        "threads": 0,
    }
    return getattr(cuda, function)(**{**arguments, **more, **changes})


TASKS: dict[str, dict[str, Any]] = {
    "mine": {},
    "count": {},
    "every": {"row_starts": np.zeros(12, np.int64), "n": 0},
    "hinge": {"margin": 0.2, "weights": np.ones(12)},
}


@pytest.mark.parametrize("task", TASKS)
def test_the_module_stays_inside_its_arrays(task: str) -> None:
    for change, message in (
        ({"order": np.arange(11, dtype=np.int32)}, "order must"),
        ({"order": np.arange(1, 13, dtype=np.int32)}, "order must"),
        ({"offsets": np.array([0, 8, 4, 12])}, "offsets must"),
        ({"offsets": np.array([0, 4, 8, 13])}, "offsets must"),
        ({"members": np.array([4, 8])}, "members must"),
        ({"members": np.array([4, 3, 12])}, "members must"),
        ({"is_anchor": np.ones(11, np.uint8)}, "is_anchor must"),
        ({"rule": {"pairs": "any"}}, "no choice of pairs is called 'any'"),
    ):
        with pytest.raises(ValueError, match=message):
            ask(task, TASKS[task], **change)
    for embeddings in ([[1.0]], np.zeros((12, 8), np.int32), None):
        with pytest.raises(TypeError, match="embeddings must be"):
            ask(task, TASKS[task], embeddings=embeddings)
    turned = ByInterface(on_device(np.zeros((8, 12), np.float32)), shape=(12, 8), strides=(4, 48))
    with pytest.raises(ValueError, match=r"must be an aligned, C-contiguous .*; got float32 of shape"):
        ask(task, TASKS[task], embeddings=load_cuda().device_view(turned))


def test_a_list_of_another_length_is_refused() -> None:
    n = int(ask("count", {})[0][2].sum())
    assert n > 0
    starts = np.zeros(12, np.int64)
    with pytest.raises(ValueError, match="n must be the number of candidates"):
        ask("every", {"row_starts": starts, "n": n + 1})
    with pytest.raises(ValueError, match="row_starts must"):
        ask("every", {"row_starts": starts - 1, "n": n})
    with pytest.raises(ValueError, match="weights must hold one for each"):
        ask("hinge", {"margin": 0.2, "weights": np.ones(11)})
    with pytest.raises(ValueError, match="every candidate is listed, not mined"):
        ask("mine", {}, rule={"pick": "every"})


def test_too_little_memory_is_said_and_forgotten(cuda: ModuleType) -> None:
    if not cuda.is_emulated():
        pytest.skip("only the emulated device can be told to have no more memory")
    embeddings, labels = clustered(6, 5, 8)
    expected = mine_triplets(embeddings, labels)

    def work() -> None:
        # A thread of its own has memory of its own, none of it yet.
        cuda.limit_memory(0)
        try:
            with pytest.raises(MemoryError, match=r"^mining needs \d+ more bytes of the device's memory"):
                mine_triplets(embeddings, labels, device="cuda")
        finally:
            cuda.limit_memory(2**33)
        found.append(mine_triplets(embeddings, labels, device="cuda"))

    found: list[Triplets] = []
    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    assert_same_triplets(found[0], expected)


def test_a_second_device(cuda: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    if cuda.is_emulated():
        monkeypatch.setenv("FACENET_FAST_EMULATED_DEVICES", "2")
    if len(cuda.devices()) < 2:
        pytest.skip("there is one CUDA device only")
    embeddings, labels = clustered(6, 6, 9)
    expected = mine_triplets(embeddings, labels)
    for number in (0, 1, 0):
        rows = cuda.to_device(embeddings, device=number)
        for by in (lambda array: array, ByInterface, ByDLPack):
            mined = mine_triplets(by(rows), labels, device="cuda")
            assert mined.anchor.device == number
            assert_same_triplets(mined, expected)
        gradient = batch_all_loss(rows, labels, device="cuda").gradient
        assert gradient.device == number
    assert cuda.to_device(embeddings).device == 0


def test_the_devices_are_named(cuda: ModuleType) -> None:
    for number, (ordinal, name, capability, n_bytes) in enumerate(cuda.devices()):
        assert ordinal == number
        assert name
        assert len(capability) == 2
        assert n_bytes > 0
    if cuda.is_emulated():
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FACENET_FAST_EMULATED_DEVICES", "0")
            with pytest.raises(RuntimeError, match=r"^there is no CUDA device, or CUDA_VISIBLE_DEVICES"):
                cuda.devices()
        assert len(cuda.devices()) > 0


# -- other libraries' arrays, where there is a device that they know ---------------------------------------


def needs_a_real_device(cuda: ModuleType) -> None:
    if cuda.is_emulated():
        pytest.skip("no library but the miner's knows the emulated device")


def assert_counts_alike(found: CandidateCounts, expected: CandidateCounts) -> None:
    np.testing.assert_array_equal(as_columns(found), as_columns(expected))


def test_torch(cuda: ModuleType) -> None:
    needs_a_real_device(cuda)
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA device")
    embeddings, labels = clustered(6, 6, 9)
    expected = mine_triplets(embeddings, labels)
    rows, codes = torch.tensor(embeddings, device="cuda"), torch.tensor(labels, device="cuda")
    for tensor in (rows, torch.nn.Parameter(rows.clone()) * 1):
        mined = mine_triplets(tensor, codes, device="cuda")
        taken = torch.from_dlpack(mined.negative)
        assert taken.device.type == "cuda"
        np.testing.assert_array_equal(taken.cpu().numpy(), expected.negative)
        np.testing.assert_array_equal(
            torch.as_tensor(mined.anchor, device="cuda").cpu().numpy(), expected.anchor
        )
    # What another stream has yet to write is waited for.
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        late = torch.zeros_like(rows)
        torch.cuda._sleep(50_000_000)
        late.copy_(rows)
        mined = mine_triplets(late, codes, device="cuda")
    assert_same_triplets(mined, expected)
    for kind in (torch.float16, torch.bfloat16):
        half = rows.to(kind)
        assert_same_triplets(
            mine_triplets(half, codes, device="cuda"), mine_triplets(half.float().cpu(), labels)
        )
    assert_same_triplets(mine_triplets(rows.T.contiguous().T, codes, device="cuda"), expected)
    found = batch_all_loss(rows, codes, device="cuda")
    gradient = torch.from_dlpack(found.gradient).cpu().numpy()
    np.testing.assert_allclose(gradient, batch_all_loss(embeddings, labels).gradient, atol=1e-6)


def test_cupy(cuda: ModuleType) -> None:
    needs_a_real_device(cuda)
    cupy = pytest.importorskip("cupy")
    embeddings, labels = clustered(6, 6, 9)
    rows, codes = cupy.asarray(embeddings), cupy.asarray(labels)
    mined = mine_triplets(rows, codes, device="cuda")
    assert type(mined.anchor) is cuda.DeviceArray
    assert_same_triplets(mined, mine_triplets(embeddings, labels))
    for take in (cupy.asarray, cupy.from_dlpack):
        np.testing.assert_array_equal(cupy.asnumpy(take(mined.anchor)), mined.anchor.to_numpy())
    assert_same_triplets(mine_triplets(rows, codes), mine_triplets(embeddings, labels))
    assert_counts_alike(count_triplets(rows, codes, device="cuda"), count_triplets(embeddings, labels))


def test_tensorflow(cuda: ModuleType) -> None:
    needs_a_real_device(cuda)
    tf = pytest.importorskip("tensorflow")
    if not tf.config.list_physical_devices("GPU"):
        pytest.skip("this TensorFlow has no CUDA device")
    embeddings, labels = clustered(6, 6, 9)
    with tf.device("/GPU:0"):
        rows, codes = tf.identity(tf.constant(embeddings)), tf.identity(tf.constant(labels))
    mined = mine_triplets(rows, codes, device="cuda")
    assert type(mined.anchor) is cuda.DeviceArray
    assert_same_triplets(mined, mine_triplets(embeddings, labels))
    taken = tf.experimental.dlpack.from_dlpack(mined.anchor.__dlpack__())
    np.testing.assert_array_equal(taken.numpy(), mined.anchor.to_numpy())
