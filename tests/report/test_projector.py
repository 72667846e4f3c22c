"""Embeddings in TensorBoard's projector, asked of TensorBoard itself."""

import io
import json
import time

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
from werkzeug.test import Client
from werkzeug.wrappers import Response

from facenet_fast.report.measure import Measures
from facenet_fast.report.projector import MAX_IMAGES, write_projector

N = 7


@pytest.fixture
def logs_dir(tmp_path):
    rng = np.random.default_rng(0)
    with Measures(str(tmp_path)) as measures:
        measures.measure("loss", 1.0, 1)
    embeddings = rng.normal(size=(N, 4)).astype(np.float32)
    images = np.zeros((N, 40, 40, 3), np.uint8) + (np.arange(N, dtype=np.uint8) * 30)[:, None, None, None]
    labels = ["Ada", "Ada", "tab\tand\nline", "Émile", "e", "f", "g"]
    write_projector(str(tmp_path), "held_out", embeddings, labels, images)
    return tmp_path, embeddings, images


def ask(logs_dir, path):
    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(logs_dir))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(logs_dir))
    plugin = ProjectorPlugin(TBContext(logdir=str(logs_dir), data_provider=provider, multiplexer=multiplexer))
    # It looks in a thread of its own.
    deadline = time.monotonic() + 30
    while not plugin.is_active() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert plugin.is_active()
    app = plugin.get_plugin_apps()[path.split("?")[0]]
    response = Client(app, Response).get(path)
    assert response.status_code == 200, response.data
    return response


def test_tensorboard_finds_vectors_labels_and_sprite(logs_dir):
    logs_dir, embeddings, images = logs_dir
    config = json.loads(ask(logs_dir, "/info?run=.").data)["embeddings"]
    assert [(one["tensorName"], one["tensorShape"]) for one in config] == [("held_out", [N, 4])]
    vectors = np.frombuffer(ask(logs_dir, "/tensor?run=.&name=held_out").data, np.float32)
    np.testing.assert_allclose(vectors.reshape(N, 4), embeddings, rtol=1e-5)
    labels = ask(logs_dir, "/metadata?run=.&name=held_out").data.decode().splitlines()
    assert labels == ["Ada", "Ada", "tab and line", "Émile", "e", "f", "g"]
    with Image.open(io.BytesIO(ask(logs_dir, "/sprite_image?run=.&name=held_out").data)) as sprite:
        pixels = np.asarray(sprite)
    assert pixels.shape == (96, 96, 3)
    for n in range(N):
        assert pixels[n // 3 * 32 + 16, n % 3 * 32 + 16, 0] == images[n, 0, 0, 0]


@pytest.mark.parametrize("n", [0, MAX_IMAGES + 1])
def test_too_many_or_none_are_refused(tmp_path, n):
    with pytest.raises(ValueError, match="must be 1 to 2000"):
        write_projector(str(tmp_path), "x", np.zeros((n, 2)), ["a"] * n, np.zeros((n, 2, 2, 3), np.uint8))
