"""What holds for every network of the table, built once each for its smallest images."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from facenet_fast import backbones
from facenet_fast.errors import UserError
from facenet_fast.export.frozen_graph import frozen_graph
from facenet_fast.models import load_embedder

N_FEATURES = {
    "small_resnet": 96,
    "medium_resnet": 256,
    "inception_resnet_v1": 1792,
    "squeezenet": 512,
    "mobilefacenet": 512,
    "se_resnet50": 2048,
    "mobilenet_v3_small": 576,
    "mobilenet_v3_large": 960,
    "efficientnet_v2_b0": 1280,
    "densenet121": 1024,
    "densenet169": 1664,
    "resnet50_v2": 2048,
    "convnext_tiny": 768,
    "inception_resnet_v2": 1536,
}

# Those that do not pad everywhere, and so need images of some size.
VALID = ("squeezenet", "inception_resnet_v1", "inception_resnet_v2")

# Those that take many seconds to build, to differentiate, or to write and freeze.
SLOW = {"inception_resnet_v2"}
SLOW_TO_WRITE = set(backbones.names()) - {
    "small_resnet",
    "medium_resnet",
    "squeezenet",
    "mobilefacenet",
    "mobilenet_v3_small",
}
SLOW_TO_DIFFERENTIATE = SLOW_TO_WRITE - {"se_resnet50"}


def rows(slow, names=tuple(backbones.BACKBONES)):
    return [pytest.param(name, marks=pytest.mark.large if name in slow else ()) for name in names]


def features_function(name):
    return backbones._import_builder(backbones.BACKBONES[name].builder)


def images_of(n, size):
    return np.random.default_rng(0).normal(size=(n, size, size, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def network(request):
    """Build the network that the parameter names; of module scope, so tests come network by network."""
    keras.utils.set_random_seed(0)
    return backbones.build(request.param, backbones.BACKBONES[request.param].smallest_image, 128)


@pytest.fixture
def images(network):
    return images_of(4, network.input_shape[1])


each_network = pytest.mark.parametrize("network", rows(SLOW), indirect=True)


@each_network
def test_embeddings_have_unit_length_and_differ(network, images):
    embeddings = np.asarray(network(images))
    assert embeddings.shape == (4, 128)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=1e-5)
    assert np.min(np.ptp(embeddings, axis=0)) > 1e-4


@each_network
def test_features_are_the_published_ones(network):
    assert network.get_layer("features").output.shape == (None, N_FEATURES[network.name])


# Of the first two the number is for larger images, whose features the head has more weights for.
@pytest.mark.parametrize("network", rows(SLOW, tuple(N_FEATURES)[2:]), indirect=True)
def test_description_says_how_many_parameters(network):
    assert f"{network.count_params() / 1e6:.1f} M parameters" in backbones.describe()[network.name]


@each_network
def test_nothing_scales_pixels_before_the_first_convolution(network):
    kinds = [type(layer) for layer in network._flatten_layers(include_self=False)]
    before = set(kinds[: kinds.index(keras.layers.Conv2D)])
    assert not {keras.layers.Rescaling, keras.layers.Normalization} & before


@pytest.mark.parametrize("network", rows(SLOW_TO_DIFFERENTIATE), indirect=True)
def test_gradient_reaches_every_weight(network, images):
    directions = tf.constant(np.random.default_rng(1).normal(size=(4, 128)).astype(np.float32))
    before = network.get_weights()
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(network(images, training=True) * directions)
    gradients = tape.gradient(value, network.trainable_variables)
    network.set_weights(before)  # batch-norm's averages have moved
    for weight, gradient in zip(network.trainable_variables, gradients, strict=True):
        assert gradient is not None, weight.path
        assert np.isfinite(gradient).all(), weight.path
        # What only shifts the input of a batch-norm has none, but for rounding.
        if not weight.path.endswith(("/bias", "/beta")):
            assert np.abs(gradient).max() > 0, weight.path


@pytest.mark.parametrize("network", rows(SLOW_TO_WRITE), indirect=True)
def test_comes_back_from_its_file(network, images, tmp_path):
    network.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(np.asarray(loaded(images)), np.asarray(network(images)))


@pytest.mark.parametrize("network", rows(SLOW_TO_WRITE), indirect=True)
def test_frozen_it_embeds_the_same(network, images, tmp_path):
    graph = frozen_graph(network, network.input_shape[1])
    # A call, such as of what XLA compiles, is read by TensorFlow alone.
    assert not [node.op for node in graph.node if "Call" in node.op or "Xla" in node.op]
    assert len(graph.library.function) == 0
    (tmp_path / "frozen.pb").write_bytes(graph.SerializeToString())
    frozen = load_embedder(str(tmp_path / "frozen.pb"))
    np.testing.assert_allclose(frozen.embed(images), np.asarray(network(images)), atol=1e-5)


@pytest.mark.parametrize("name", rows(SLOW_TO_WRITE))
def test_takes_images_of_112_pixels(name):
    model = backbones.build(name, 112, 8, dropout=0.4)
    # All others end in one vector, however large the image.
    n_places = {"small_resnet": 7 * 7, "medium_resnet": 4 * 4}.get(name, 1)
    assert model.get_layer("features").output.shape == (None, n_places * N_FEATURES[name])
    embeddings = np.asarray(model(images_of(2, 112), training=True))
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize("name", backbones.names())
def test_says_how_large_images_must_be(name):
    smallest = backbones.BACKBONES[name].smallest_image
    with pytest.raises(UserError, match=f"image_size must be at least {smallest} for backbone {name}; got"):
        backbones.build(name, smallest - 1, 12)


@pytest.mark.parametrize("name", rows(SLOW, VALID))
def test_smaller_images_would_vanish(name):
    size = backbones.BACKBONES[name].smallest_image - 1
    with pytest.raises(ValueError, match="output size would be zero or negative"):
        features_function(name)(keras.Input((size, size, 3)))


def test_the_predecessors_name_of_squeezenet_works():
    assert backbones.build("models.squeezenet", 29, 4).name == "squeezenet"
