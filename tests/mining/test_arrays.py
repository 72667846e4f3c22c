"""Anybody's arrays are mined as numpy's are, and looked into where they lie."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from facenet_fast import (
    count_triplets,
    mine_triplets,
    nearest_identities,
    nearest_neighbors,
    select_triplets,
    stream_triplets,
)
from facenet_fast.mining.arrays import as_array
from facenet_fast.mining.batch import check_embeddings

from .batches import clustered

EMBEDDINGS, LABELS = clustered(5, 4, 8)


def assert_mined_alike(embeddings: Any, labels: Any, wanted_labels: Any = LABELS) -> None:
    """Every function gives what it gives for numpy's arrays."""
    wanted_rows = EMBEDDINGS
    half = len(wanted_labels) // 2

    def mined(rows: Any, identities: Any) -> list[Any]:
        bank = (rows[half:], identities[half:])
        found = [
            mine_triplets(rows, identities, margin=0.5),
            mine_triplets(rows, identities, anchors=identities == identities[0]),
            mine_triplets(rows[:half], identities[:half], bank=bank, bank_positives=True),
            *stream_triplets(rows, identities),
        ]
        counts = count_triplets(rows, identities)
        neighbors = nearest_neighbors(rows[:half], rows[half:], k=2)
        strangers = nearest_neighbors(
            rows[:half],
            rows[half:],
            exclude="same_identity",
            labels=identities[half:],
            query_labels=identities[:half],
        )
        alike = nearest_identities(rows, identities, k=2)
        np.random.seed(3)
        chosen = select_triplets(rows, [4] * 5, list(range(20)), 5, 0.2)
        arrays = [array for t in found for array in (t.anchor, t.positive, t.negative)]
        arrays += [counts.anchor, counts.positive, counts.n_candidates, neighbors.indices]
        arrays += [neighbors.distances, strangers.indices, alike.identities, alike.indices, alike.centres]
        return [*arrays, np.asarray(chosen[0])]

    for got, wanted in zip(mined(embeddings, labels), mined(wanted_rows, wanted_labels), strict=True):
        assert type(got) is np.ndarray
        assert len(wanted) > 0
        np.testing.assert_array_equal(got, wanted)


def test_numpy_arrays_are_taken_as_they_are() -> None:
    assert as_array(EMBEDDINGS, "x") is EMBEDDINGS
    assert np.shares_memory(check_embeddings(EMBEDDINGS), EMBEDDINGS)
    assert type(as_array(np.ma.masked_array(LABELS), "labels")) is np.ndarray
    assert_mined_alike(EMBEDDINGS, LABELS)


@pytest.mark.parametrize(
    "values", [[1.0, 2.0], (1, 2), ["a", "b"], 3.5, np.float32(2), range(3), memoryview(b"ab")]
)
def test_what_numpy_takes_is_taken(values: Any) -> None:
    got = as_array(values, "x")
    assert type(got) is np.ndarray
    np.testing.assert_array_equal(got, np.asarray(values))


def test_tensorflow() -> None:
    tf = pytest.importorskip("tensorflow")
    tensor = tf.constant(EMBEDDINGS)
    # Its buffer is looked into: twice, it is the same memory.
    assert np.shares_memory(check_embeddings(tensor), check_embeddings(tensor))
    assert_mined_alike(tensor, tf.constant(LABELS))
    for kind in (tf.float16, tf.bfloat16):
        widened = check_embeddings(tf.cast(tensor, kind))
        assert widened.dtype == np.float32
        np.testing.assert_allclose(widened, EMBEDDINGS, atol=0.01)
    np.testing.assert_array_equal(check_embeddings(tf.Variable(tensor)), EMBEDDINGS)


def test_tensorflow_strings() -> None:
    tf = pytest.importorskip("tensorflow")
    names = np.array([f"name {label}" for label in LABELS])
    assert_mined_alike(tf.constant(EMBEDDINGS), tf.constant(names), names.astype(bytes).astype(object))


def test_keras() -> None:
    keras = pytest.importorskip("keras")
    np.testing.assert_array_equal(check_embeddings(keras.Variable(EMBEDDINGS)), EMBEDDINGS)
    with pytest.raises(
        TypeError, match=r"embeddings must have values; got keras's KerasTensor.*facenet_fast\.losses"
    ):
        mine_triplets(keras.Input((8,)), LABELS)


def test_tensors_of_a_graph_are_refused_with_what_to_do() -> None:
    tf = pytest.importorskip("tensorflow")
    keras = pytest.importorskip("keras")
    variables = tf.Variable(EMBEDDINGS), keras.Variable(EMBEDDINGS)

    @tf.function
    def mine(embeddings: Any, labels: Any) -> Any:
        advice = r"must have values; got .* symbolic .*facenet_fast\.losses.*tf\.numpy_function"
        for rows in (embeddings, *variables, [embeddings[0], embeddings[1]]):
            with pytest.raises(TypeError, match=f"^embeddings {advice}"):
                mine_triplets(rows, LABELS)
        with pytest.raises(TypeError, match=f"^labels {advice}"):
            mine_triplets(EMBEDDINGS, labels)
        with pytest.raises(TypeError, match=f"^the bank's labels {advice}"):
            mine_triplets(EMBEDDINGS, LABELS, bank=(EMBEDDINGS, labels))
        with pytest.raises(TypeError, match=f"^anchors {advice}"):
            mine_triplets(EMBEDDINGS, LABELS, anchors=labels)
        # What is advised.
        return tf.numpy_function(
            lambda e, y: mine_triplets(e, y, margin=0.5).negative, [embeddings, labels], tf.int32
        )

    np.testing.assert_array_equal(
        mine(tf.constant(EMBEDDINGS), tf.constant(LABELS)),
        mine_triplets(EMBEDDINGS, LABELS, margin=0.5).negative,
    )


def test_torch() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.tensor(EMBEDDINGS)
    assert np.shares_memory(check_embeddings(tensor), tensor.numpy())
    labels = torch.tensor(LABELS)
    assert np.shares_memory(as_array(labels, "labels"), labels.numpy())
    assert_mined_alike(tensor, labels)

    learning = torch.nn.Parameter(tensor.clone())
    assert np.shares_memory(check_embeddings(learning), learning.detach().numpy())
    assert_mined_alike(learning * 1, labels)
    assert learning.requires_grad

    for kind in (torch.float16, torch.bfloat16):
        widened = check_embeddings(learning.to(kind))
        assert widened.dtype == np.float32
        np.testing.assert_array_equal(widened, tensor.to(kind).float().numpy())
    np.testing.assert_array_equal(check_embeddings(tensor.T), EMBEDDINGS.T)

    with pytest.raises(
        TypeError, match=r"^embeddings must be what numpy can take; got torch's Tensor: .*Sparse"
    ):
        mine_triplets(tensor.to_sparse(), labels)
    with pytest.raises(TypeError, match=r"^embeddings must have values; got torch's Tensor"):
        mine_triplets(tensor.to("meta"), labels)


def test_tensors_elsewhere_are_brought_over() -> None:
    class Detached:
        device, dtype = "cuda:0", "torch.float32"

        def detach(self) -> Detached:
            return self

        def cpu(self) -> Any:
            return self.on_cpu

        def __array__(self) -> Any:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")

        class on_cpu:
            dtype = "torch.float32"

            @staticmethod
            def __array__() -> Any:
                return EMBEDDINGS

    assert as_array(Detached(), "embeddings") is EMBEDDINGS


def test_jax() -> None:
    jax = pytest.importorskip("jax")
    rows, labels = jax.numpy.asarray(EMBEDDINGS), jax.numpy.asarray(LABELS)
    assert np.shares_memory(check_embeddings(rows), np.from_dlpack(rows))
    assert_mined_alike(rows, labels)
    widened = check_embeddings(rows.astype(jax.numpy.bfloat16))
    assert widened.dtype == np.float32
    np.testing.assert_allclose(widened, EMBEDDINGS, atol=0.01)
    with pytest.raises(TypeError, match=r"embeddings must have values; got jax's .*jax\.pure_callback"):
        jax.jit(lambda x: mine_triplets(x, LABELS))(rows)


def test_whatever_speaks_dlpack() -> None:
    class Foreign:
        def __init__(self, rows: Any) -> None:
            self.rows = rows

        def __dlpack__(self, **options: Any) -> Any:
            return self.rows.__dlpack__(**options)

        def __dlpack_device__(self) -> Any:
            return self.rows.__dlpack_device__()

    class OnGPU(Foreign):
        def __dlpack_device__(self) -> Any:
            return 2, 0

        def __dlpack__(self, **_: Any) -> Any:
            raise BufferError("these rows are on a GPU")

    assert np.shares_memory(check_embeddings(Foreign(EMBEDDINGS)), EMBEDDINGS)
    assert len(mine_triplets(Foreign(EMBEDDINGS), Foreign(LABELS))) > 0
    with pytest.raises(TypeError, match=r"^the bank's embeddings must be what numpy can take; got .*OnGPU"):
        mine_triplets(EMBEDDINGS, LABELS, bank=(OnGPU(EMBEDDINGS), LABELS))


def test_an_array_protocol_without_arguments_is_enough() -> None:
    class Old:
        def __array__(self) -> Any:
            return EMBEDDINGS

    assert as_array(Old(), "embeddings") is EMBEDDINGS


def test_no_framework_is_imported() -> None:
    code = (
        "import sys; from facenet_fast import mine_triplets; mine_triplets([[0.0], [1.0]], [0, 1]);"
        "print([name for name in ('tensorflow', 'keras', 'torch', 'jax') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
