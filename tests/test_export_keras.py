from __future__ import annotations

import io
import json
import zipfile

import keras
import numpy as np
import pytest

from facenet_fast.checkpoints import Checkpoints, build_model, load_model
from facenet_fast.config import TrainConfig
from facenet_fast.errors import UserError
from facenet_fast.export.keras_file import write_keras
from facenet_fast.files import written_aside
from facenet_fast.models.keras_models import metadata_in_keras_file, read_keras_file
from facenet_fast.models.metadata import Metadata
from tests.tiny_run import EMBEDDING_SIZE, IMAGE_SIZE, make_model

METADATA = Metadata(IMAGE_SIZE, IMAGE_SIZE + 6, "fixed", EMBEDDING_SIZE, "model-x.ckpt-7", "tests", 24, 6)
CONFIG = TrainConfig(backbone="tests.tiny_run:features", image_size=IMAGE_SIZE, embedding_size=EMBEDDING_SIZE)


@pytest.fixture(scope="module")
def model():
    return make_model(CONFIG)


@pytest.fixture(scope="module")
def keras_path(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("keras") / "model.keras"
    write_keras(model, METADATA, str(path))
    return path


def batch_of(n_images):
    return np.random.default_rng(1).normal(size=(n_images, IMAGE_SIZE, IMAGE_SIZE, 3)).astype(np.float32)


@pytest.mark.parametrize("n_images", [1, 3])
def test_keras_reads_it_by_itself(n_images, keras_path, model):
    loaded = keras.saving.load_model(keras_path)
    want = model(batch_of(n_images), training=False)
    np.testing.assert_allclose(loaded(batch_of(n_images), training=False), want, atol=1e-7)


def test_metadata_are_a_file_in_the_zip(keras_path):
    with zipfile.ZipFile(keras_path) as archive:
        assert archive.testzip() is None
        assert json.loads(archive.read("facenet_fast.json")) == {
            "image_size": 24,
            "store_size": 30,
            "standardisation": "fixed",
            "embedding_size": 6,
            "source": "model-x.ckpt-7",
            "backbone": "tests",
            "n_images": 24,
            "n_identities": 6,
            "thresholds": None,
            "versions": {},
        }
        assert archive.namelist().count("facenet_fast.json") == 1
    assert metadata_in_keras_file(str(keras_path)) == METADATA


def test_reader_takes_what_was_written(keras_path, model):
    network = read_keras_file(str(keras_path))
    embedder = network.embedder
    assert network.metadata == METADATA
    assert (embedder.image_size, embedder.store_size) == (IMAGE_SIZE, IMAGE_SIZE + 6)
    assert (embedder.standardisation, embedder.embedding_size) == ("fixed", EMBEDDING_SIZE)
    np.testing.assert_allclose(embedder.embed(batch_of(3)), model(batch_of(3), training=False), atol=1e-6)


def test_file_of_others_says_nothing(model, tmp_path):
    model.save(tmp_path / "others.keras")
    assert metadata_in_keras_file(str(tmp_path / "others.keras")) is None
    network = read_keras_file(str(tmp_path / "others.keras"))
    assert network.metadata is None
    assert (network.embedder.standardisation, network.embedder.store_size) == ("per_image", IMAGE_SIZE)


def test_model_trained_in_mixed_precision_is_written_in_float32(tmp_path):
    mixed = build_model(CONFIG, "float16")
    assert {layer.compute_dtype for layer in mixed.layers} == {"float16", "float32"}
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG.to_dict(), "precision": "float16"}))
    Checkpoints(str(tmp_path), {"averaged": mixed.weights}).save(7)
    model, _ = load_model(str(tmp_path))
    write_keras(model, METADATA, str(tmp_path / "model.keras"))
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert {layer.compute_dtype for layer in loaded.layers} == {"float32"}
    assert {weight.dtype for weight in loaded.weights} == {"float32"}
    for weight, trained in zip(loaded.weights, mixed.weights, strict=True):
        np.testing.assert_array_equal(weight, trained)


@pytest.mark.parametrize("existing", [None, b"old"])
def test_full_disk_leaves_what_was_there(existing, model, tmp_path, monkeypatch):
    path = tmp_path / "model.keras"
    if existing:
        path.write_bytes(existing)

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", fail)

    def write():
        with written_aside(str(path)) as aside:
            write_keras(model, METADATA, aside)

    with pytest.raises(UserError, match=r"^cannot write '.*model\.keras': No space left on device$"):
        write()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == (
        {"model.keras": existing} if existing else {}
    )


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9, 0.999])
def test_files_cut_short_are_refused(part, keras_path, tmp_path):
    data = keras_path.read_bytes()
    (tmp_path / "short.keras").write_bytes(data[: int(part * len(data))])
    for read in (metadata_in_keras_file, read_keras_file):
        with pytest.raises(UserError, match=r"the Keras model '.*short\.keras' cannot be read") as caught:
            read(str(tmp_path / "short.keras"))
        assert "\n" not in str(caught.value)


def with_record(keras_path, record, **settings):
    buffer = io.BytesIO()
    with zipfile.ZipFile(keras_path) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(name, record if name == "facenet_fast.json" else old.read(name), **settings)
    return buffer.getvalue()


@pytest.mark.parametrize("record", [b"", b"{", b"[1]", b"\xff\xfe", b'{"image_size": 24}'])
def test_records_of_something_else_are_refused(record, keras_path, tmp_path):
    (tmp_path / "other.keras").write_bytes(with_record(keras_path, record))
    for read in (metadata_in_keras_file, read_keras_file):
        with pytest.raises(UserError, match=r"other\.keras' holds a description of the model"):
            read(str(tmp_path / "other.keras"))


def test_record_with_a_changed_byte_is_refused(keras_path, tmp_path):
    data = keras_path.read_bytes()
    damaged = data.replace(b'"store_size": 30', b'"store_size": 31')
    assert data.count(b'"store_size": 30') == 1
    (tmp_path / "damaged.keras").write_bytes(damaged)
    with pytest.raises(UserError, match=r"damaged\.keras' cannot be read: Bad CRC-32"):
        metadata_in_keras_file(str(tmp_path / "damaged.keras"))


def test_compressed_record_with_a_changed_byte_is_refused(keras_path, tmp_path):
    record = METADATA.to_json().encode()
    data = bytearray(with_record(keras_path, record, compress_type=zipfile.ZIP_DEFLATED))
    (tmp_path / "damaged.keras").write_bytes(data)
    assert metadata_in_keras_file(str(tmp_path / "damaged.keras")) == METADATA
    start = data.index(b"facenet_fast.json") + len(b"facenet_fast.json")
    data[start : start + 20] = bytes(20)
    (tmp_path / "damaged.keras").write_bytes(data)
    with pytest.raises(UserError, match=r"damaged\.keras' cannot be read"):
        metadata_in_keras_file(str(tmp_path / "damaged.keras"))
