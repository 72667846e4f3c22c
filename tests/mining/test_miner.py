"""The native miner equals the specification, pick for pick, whatever computes it."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facenet_fast import Strategy, Triplets, mine_triplets
from facenet_fast.mining import PRESETS
from facenet_fast.mining.devices import load_core

from .batches import clustered

INSTRUCTION_SETS = load_core().instruction_sets()

# FE_UPWARD
UPWARD = {"x86_64": 0x800, "aarch64": 0x400000}


@pytest.fixture(params=INSTRUCTION_SETS)
def instruction_set(request: pytest.FixtureRequest) -> Any:
    core = load_core()
    before = core.instruction_set()
    core.set_instruction_set(request.param)
    yield request.param
    core.set_instruction_set(before)


def as_rows(triplets: Triplets) -> npt.NDArray[np.int32]:
    return np.stack([triplets.anchor, triplets.positive, triplets.negative], axis=1)


def assert_equals_reference(embeddings: Any, labels: Any, **options: Any) -> Triplets:
    mined = mine_triplets(embeddings, labels, **options)
    specified = mine_triplets(embeddings, labels, **{**options, "threads": None, "backend": "reference"})
    np.testing.assert_array_equal(as_rows(mined), as_rows(specified))
    assert (mined.n_pairs, mined.n_pairs_with_negative) == (
        specified.n_pairs,
        specified.n_pairs_with_negative,
    )
    return mined


@pytest.mark.parametrize("strategy", PRESETS)
@pytest.mark.parametrize("noise", [0.2, 0.7, 5.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_reference(instruction_set: str, strategy: str, noise: float, dtype: type) -> None:
    embeddings, labels = clustered(9, 7, 33, noise=noise)
    for threads in (1, 2, 3, 8):
        options = {"strategy": strategy, "margin": 0.2, "seed": 5, "threads": threads}
        assert_equals_reference(embeddings.astype(dtype), labels, **options)


@pytest.mark.parametrize("strategy", PRESETS)
def test_blocks_chunks_and_tiles_meet(instruction_set: str, strategy: str) -> None:
    # More rows than a block and columns than a chunk, neither a multiple of a tile; identities of all sizes.
    rng = np.random.default_rng(1)
    labels = np.sort(rng.geometric(0.06, 331))
    embeddings = rng.standard_normal((331, 5)).astype(np.float32)
    mined = assert_equals_reference(embeddings, labels, strategy=strategy, margin=0.02, seed=2, threads=2)
    assert 0 < len(mined) < mined.n_pairs


@pytest.mark.parametrize("strategy", PRESETS)
def test_large_batches_sample_before_they_search(instruction_set: str, strategy: str) -> None:
    # From 512 rows on, pairs with a wide band draw first; several blocks of rows meet each other.
    embeddings, labels = clustered(75, 8, 24, noise=1.1)
    for threads in (1, 3):
        mined = assert_equals_reference(embeddings, labels, strategy=strategy, margin=0.2, threads=threads)
        assert 0 < len(mined) < mined.n_pairs


@pytest.mark.parametrize("strategy", PRESETS)
def test_ties_are_decided_as_specified(instruction_set: str, strategy: str) -> None:
    # Small whole numbers: most distances tie with each other, and with the edge of the band.
    rng = np.random.default_rng(4)
    embeddings = rng.integers(-1, 2, (90, 6)).astype(np.float32)
    labels = rng.integers(0, 12, 90)
    for margin in (1.0, 2.0):
        assert_equals_reference(embeddings, labels, strategy=strategy, margin=margin, seed=3)


@pytest.mark.parametrize("strategy", PRESETS)
@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e-30, 1e-19, 1e19, 1e140])
def test_long_and_short_embeddings(instruction_set: str, strategy: str, scale: float) -> None:
    embeddings, labels = clustered(6, 5, 12)
    rows = embeddings.astype(np.float64) * scale
    mined = assert_equals_reference(rows, labels, strategy=strategy, margin=max(0.2 * scale * scale, 5e-324))
    if scale > 1e-150:
        assert len(mined) > 0


def test_lengths_far_apart_in_one_batch(instruction_set: str) -> None:
    embeddings, labels = clustered(8, 6, 16)
    embeddings = embeddings * np.logspace(-12, 12, 48, dtype=np.float32)[:, None]
    for margin in (1e-20, 1e-3, 1.0):
        for strategy in PRESETS:
            assert_equals_reference(embeddings, labels, strategy=strategy, margin=margin)


def test_collapsed_embeddings(instruction_set: str) -> None:
    labels = np.arange(60) % 6
    for row in (np.zeros(8), np.full(8, 0.3)):
        embeddings = np.tile(row, (60, 1)).astype(np.float32)
        assert len(assert_equals_reference(embeddings, labels, strategy="facenet", margin=0.2)) == 0
        assert len(assert_equals_reference(embeddings, labels, strategy="vgg_face", margin=0.2)) == 6 * 45


rows_of_numbers = st.one_of(
    st.floats(-4, 4, width=32), st.integers(-2, 2).map(float), st.sampled_from([0.0, 1e-30, 1e20, -1e-3])
)


@st.composite
def batches(draw: st.DrawFn) -> tuple[npt.NDArray[Any], list[Any]]:
    size = draw(st.integers(1, 20))
    distinct = draw(
        st.lists(st.lists(rows_of_numbers, min_size=size, max_size=size), min_size=1, max_size=12)
    )
    chosen = draw(st.lists(st.integers(0, len(distinct) - 1), min_size=1, max_size=40))
    labels = draw(st.lists(st.integers(0, 5), min_size=len(chosen), max_size=len(chosen)))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    return np.array([distinct[i] for i in chosen], dtype=dtype), labels


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    batch=batches(),
    strategy=st.sampled_from(sorted(PRESETS)),
    margin=st.floats(1e-6, 1e6),
    seed=st.integers(0, 2**64 - 1),
    threads=st.integers(1, 4),
)
def test_any_batch_equals_reference(
    batch: tuple[npt.NDArray[Any], list[Any]], strategy: str, margin: float, seed: int, threads: int
) -> None:
    assert_equals_reference(*batch, strategy=strategy, margin=margin, seed=seed, threads=threads)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("strategy", PRESETS)
def test_parts_of_the_anchors_make_the_whole(instruction_set: str, strategy: str, backend: Any) -> None:
    embeddings, labels = clustered(12, 7, 16, noise=0.7)
    shuffled = np.random.default_rng(1).permutation(84)
    embeddings, labels = embeddings[shuffled], labels[shuffled]
    whole = assert_equals_reference(embeddings, labels, strategy=strategy, seed=7)
    assert 0 < len(whole) < whole.n_pairs
    mask = np.arange(84) % 3 == 0
    for parts in (
        [slice(None)],
        [slice(0, 40), slice(40, 41), slice(41, None)],
        [range(0, 84, 2), range(1, 84, 2)],
        [mask, ~mask],
        [[5, 80, 3], np.delete(np.arange(84), [5, 80, 3]), []],
    ):
        mined = [
            mine_triplets(embeddings, labels, strategy=strategy, seed=7, anchors=part, backend=backend)
            for part in parts
        ]
        for part, found in zip(parts, mined, strict=True):
            rows = np.arange(84)[part if len(np.shape(part)) == 0 or len(part) else slice(0)]
            assert set(found.anchor) <= set(rows)
        together = np.concatenate([as_rows(found) for found in mined])
        assert sorted(together.tolist()) == sorted(as_rows(whole).tolist())
        assert sum(found.n_pairs for found in mined) == whole.n_pairs


def test_a_part_of_a_large_batch_searches_alone() -> None:
    # Few open anchors meet all columns in blocks of their own, and not in tiles that serve both sides.
    embeddings, labels = clustered(110, 7, 16, noise=0.4)
    whole = as_rows(mine_triplets(embeddings, labels, margin=0.1))
    for n in (1, 100, 700):
        part = as_rows(mine_triplets(embeddings, labels, margin=0.1, anchors=slice(n)))
        np.testing.assert_array_equal(part, whole[whole[:, 0] < n])


def test_seed_moves_the_picks_and_nothing_else() -> None:
    embeddings, labels = clustered(10, 6, 16)
    first, again, other = (mine_triplets(embeddings, labels, margin=1.0, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(as_rows(first), as_rows(again))
    np.testing.assert_array_equal(as_rows(first)[:, :2], as_rows(other)[:, :2])
    assert (first.negative != other.negative).any()


def test_labels_of_any_sortable_type() -> None:
    embeddings, labels = clustered(6, 5, 8)
    expected = as_rows(mine_triplets(embeddings, labels, margin=1.0))
    names = np.array(["ann", "bob", "cem", "dora", "eve", "fay"])
    for same in (names[labels], labels.astype(np.uint8), labels.astype(float), names.astype(object)[labels]):
        np.testing.assert_array_equal(as_rows(mine_triplets(embeddings, same, margin=1.0)), expected)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_nothing_to_mine_is_an_empty_result(n: int) -> None:
    for labels in (np.zeros(n, int), np.arange(n)):
        mined = mine_triplets(np.ones((n, 3), np.float32), labels)
        assert len(mined) == mined.n_pairs_with_negative == 0
        assert mined.anchor.dtype == np.int32


def test_strided_read_only_and_foreign_byte_order() -> None:
    embeddings, labels = clustered(6, 5, 8)
    expected = as_rows(mine_triplets(embeddings, labels))
    wide = np.zeros((60, 16), np.float32)
    wide[::2, ::2] = embeddings
    frozen = embeddings.copy()
    frozen.flags.writeable = False
    for same in (
        wide[::2, ::2],
        np.asfortranarray(embeddings),
        frozen,
        embeddings.astype(">f4"),
        embeddings.tolist(),
    ):
        np.testing.assert_array_equal(as_rows(mine_triplets(same, labels)), expected)


def test_half_precision_is_widened() -> None:
    embeddings, labels = clustered(6, 5, 8)
    half = embeddings.astype(np.float16)
    expected = as_rows(mine_triplets(half.astype(np.float32), labels))
    np.testing.assert_array_equal(as_rows(mine_triplets(half, labels)), expected)


def test_one_large_identity() -> None:
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((2100, 4)).astype(np.float32)
    labels = np.arange(2100) >= 2000
    mined = mine_triplets(embeddings, labels, strategy="vgg_face", margin=0.1, seed=1)
    assert mined.n_pairs == 2000 * 1999 // 2 + 100 * 99 // 2
    a, p, n = (embeddings[i].astype(np.float64) for i in (mined.anchor, mined.positive, mined.negative))
    assert (((a - n) ** 2).sum(1) - ((a - p) ** 2).sum(1) < 0.1 + 1e-12).all()
    assert (labels[mined.anchor] == labels[mined.positive]).all()
    assert (labels[mined.anchor] != labels[mined.negative]).all()


def test_threads_may_mine_at_the_same_time() -> None:
    embeddings, labels = clustered(20, 10, 32)
    expected = [as_rows(mine_triplets(embeddings, labels, seed=s)) for s in range(8)]
    got: dict[int, npt.NDArray[np.int32]] = {}

    def work(s: int) -> None:
        for _ in range(20):
            got[s] = as_rows(mine_triplets(embeddings, labels, seed=s, threads=2))

    workers = [threading.Thread(target=work, args=(s,)) for s in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for s, rows in enumerate(expected):
        np.testing.assert_array_equal(got[s], rows)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"margin": 0}, ValueError, "margin must be positive and finite; got 0"),
        ({"margin": -0.1}, ValueError, "margin must be positive and finite; got -0.1"),
        ({"margin": float("nan")}, ValueError, "margin must be positive and finite; got nan"),
        ({"margin": "wide"}, TypeError, "margin must be a number; got 'wide'"),
        ({"strategy": "hardest"}, ValueError, "strategy must be one of facenet, vgg_face; got 'hardest'"),
        ({"strategy": ["facenet"]}, TypeError, "a preset's name or a Strategy; got ..facenet.."),
        ({"seed": -1}, ValueError, r"seed must be in \[0, 18446744073709551615\]; got -1"),
        ({"seed": 1.5}, TypeError, "seed must be a whole number; got 1.5"),
        ({"threads": 0}, ValueError, "threads must be in"),
        ({"anchors": [0, 30]}, ValueError, "anchors must index the 30 embeddings; index 30 is out of bounds"),
        ({"anchors": [True]}, ValueError, "anchors must index the 30 embeddings"),
        ({"anchors": [0.5]}, ValueError, "anchors must index the 30 embeddings"),
        ({"anchors": "first"}, ValueError, "anchors must index the 30 embeddings"),
        ({"anchors": slice("a", "b")}, TypeError, "anchors must be a slice, row numbers or a mask"),
        ({"backend": "gpu"}, ValueError, "backend must be 'native' or 'reference'; got 'gpu'"),
        (
            {"labels": [0, 1]},
            ValueError,
            r"labels must have shape \(30,\), one for each embedding; got \(2,\)",
        ),
        ({"labels": [[0] * 30]}, ValueError, "labels must have shape"),
        ({"labels": [float("nan")] * 30}, ValueError, "labels must not be NaN"),
        ({"labels": [None, "x"] * 15}, TypeError, "labels must be of one sortable type"),
        (
            {"embeddings": np.ones((30, 4), int)},
            TypeError,
            "embeddings must be float32 or float64; got int64",
        ),
        ({"embeddings": np.ones((30, 4), complex)}, TypeError, "embeddings must be float32 or float64"),
        ({"embeddings": np.ones(30)}, ValueError, r"shape \(n_images, embedding_size\); got \(30,\)"),
        ({"embeddings": np.ones((30, 0))}, ValueError, r"got \(30, 0\)"),
        ({"embeddings": np.ones((30, 4, 2))}, ValueError, r"got \(30, 4, 2\)"),
    ],
)
def test_bad_input_is_one_clear_sentence(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    embeddings, labels = clustered(6, 5, 8)
    arguments = {"embeddings": embeddings, "labels": labels, **change}
    with pytest.raises(error, match=message):
        mine_triplets(**arguments)


def test_a_strategy_speaks_the_vocabulary() -> None:
    with pytest.raises(ValueError, match="band must be one of violating, semi_hard; got 'easy'"):
        Strategy("easy")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pairs must be one of each_once; got 'all'"):
        Strategy("violating", pairs="all")  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize(
    ("value", "shown"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "inf"), (1e160, "1e")]
)
def test_the_first_row_that_is_not_finite_is_named(backend: Any, value: float, shown: str) -> None:
    embeddings, labels = clustered(6, 5, 8)
    rows = embeddings.astype(np.float64)
    rows[[17, 23], 3] = value
    with pytest.raises(ValueError, match=f"norms below 1e.150; row 17 has norm {shown}"):
        mine_triplets(rows, labels, backend=backend)


@pytest.mark.skipif(
    platform.machine() not in UPWARD, reason="the C library's number for rounding up is not known"
)
def test_the_callers_rounding_mode_does_not_matter_and_is_kept() -> None:
    embeddings, labels = clustered(9, 7, 33, noise=0.7)
    expected = as_rows(mine_triplets(embeddings, labels, seed=5, threads=2))
    c_library = ctypes.CDLL(None)
    c_library.fesetround(UPWARD[platform.machine()])
    try:
        mined = as_rows(mine_triplets(embeddings, labels, seed=5, threads=2))
        kept = c_library.fegetround()
    finally:
        c_library.fesetround(0)
    np.testing.assert_array_equal(mined, expected)
    assert kept == UPWARD[platform.machine()]


@pytest.mark.parametrize("scale", [1e-19, 1e-30, 1e-40])
def test_denormals_are_numbers_like_others(instruction_set: str, scale: float) -> None:
    embeddings, labels = clustered(9, 7, 33, noise=0.7)
    small = embeddings.astype(np.float64) * scale
    for rows in (small, small.astype(np.float32)):
        assert_equals_reference(rows, labels, margin=0.2 * scale**2, seed=5, threads=2)
    mixed = embeddings.copy()
    mixed[:, ::2] *= np.float32(1e-41)
    assert_equals_reference(mixed, labels, seed=5, threads=2)


def run_python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout.strip()


def test_mining_never_imports_tensorflow() -> None:
    code = (
        "import sys, facenet_fast, numpy as np\n"
        "facenet_fast.mine_triplets(np.eye(4, dtype='f'), [0, 0, 1, 1])\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'tensorflow', 'keras', 'sklearn', 'scipy'}))"
    )
    assert run_python(code) == "[]"


def test_environment_forces_the_instruction_set() -> None:
    code = "from facenet_fast.mining.devices import load_core; print(load_core().instruction_set())"
    for name in INSTRUCTION_SETS:
        assert run_python(code, FACENET_FAST_ISA=name) == name


def test_an_impossible_instruction_set_lists_the_possible() -> None:
    code = (
        "import numpy as np, facenet_fast\n"
        "try: facenet_fast.mine_triplets(np.eye(4), [0, 0, 1, 1])\n"
        "except ValueError as error: print(error)"
    )
    message = run_python(code, FACENET_FAST_ISA="sse9")
    assert all(name in message for name in ("sse9", "baseline"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_mines() -> None:
    code = (
        "import os, warnings, numpy as np\n"
        "warnings.simplefilter('ignore')\n"
        "from facenet_fast import mine_triplets\n"
        "e = np.random.default_rng(0).standard_normal((300, 64)).astype('f'); y = np.arange(300) % 30\n"
        "first = len(mine_triplets(e, y, threads=2))\n"
        "pid = os.fork()\n"
        "if pid == 0: os._exit(0 if len(mine_triplets(e, y, threads=2)) == first else 1)\n"
        "status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\n"
        "print(status, len(mine_triplets(e, y, threads=2)) == first)"
    )
    assert run_python(code) == "0 True"


def test_a_missing_extension_becomes_advice() -> None:
    code = (
        "import sys; sys.modules['facenet_fast._core'] = None\n"
        "import facenet_fast, numpy as np\n"
        "try: facenet_fast.mine_triplets(np.eye(4), [0, 0, 1, 1])\n"
        "except ImportError as error: print(error)"
    )
    message = run_python(code)
    assert "pip install" in message
    assert "backend='reference'" in message
