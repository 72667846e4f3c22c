import keras
import numpy as np
import pytest

from facenet_fast import backbones


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return backbones.build("inception_resnet_v1", 75, 128, dropout=0.2)


def n_parameters_by_hand():
    """Weights of the published architecture, convolution by convolution: (trainable, batch-norm averages)."""
    trainable = averages = 0

    def convolution(height, width, n_in, n_out):
        nonlocal trainable, averages
        trainable += height * width * n_in * n_out + n_out  # the kernel and batch-norm's offsets; no scales
        averages += 2 * n_out
        return n_out

    def up(n_in, n_out):
        nonlocal trainable
        trainable += n_in * n_out + n_out  # with a bias, without batch-norm

    n = convolution(3, 3, 3, 32)
    n = convolution(3, 3, n, 32)
    n = convolution(3, 3, n, 64)
    n = convolution(1, 1, n, 80)
    n = convolution(3, 3, n, 192)
    n = convolution(3, 3, n, 256)
    for _ in range(5):
        convolution(1, 1, n, 32)
        convolution(3, 3, convolution(1, 1, n, 32), 32)
        convolution(3, 3, convolution(3, 3, convolution(1, 1, n, 32), 32), 32)
        up(3 * 32, n)
    convolution(3, 3, n, 384)
    convolution(3, 3, convolution(3, 3, convolution(1, 1, n, 192), 192), 256)
    n += 384 + 256
    assert n == 896
    for _ in range(10):
        convolution(1, 1, n, 128)
        convolution(7, 1, convolution(1, 7, convolution(1, 1, n, 128), 128), 128)
        up(2 * 128, n)
    convolution(3, 3, convolution(1, 1, n, 256), 384)
    convolution(3, 3, convolution(1, 1, n, 256), 256)
    convolution(3, 3, convolution(3, 3, convolution(1, 1, n, 256), 256), 256)
    n += 384 + 256 + 256
    assert n == 1792
    for _ in range(6):
        convolution(1, 1, n, 192)
        convolution(3, 1, convolution(1, 3, convolution(1, 1, n, 192), 192), 192)
        up(2 * 192, n)
    convolution(1, 1, n, 128)  # the bottleneck
    return trainable, averages


def test_number_of_parameters_is_the_published_one(model):
    trainable, averages = n_parameters_by_hand()
    assert (trainable, averages) == (22_779_312, 28_832)
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == trainable
    assert model.count_params() == trainable + averages == 22_808_144


def test_batch_norm_has_the_predecessors_constants(model):
    batch_norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(batch_norms) == 112
    for layer in batch_norms:
        assert (layer.momentum, layer.epsilon) == (0.995, 1e-3)
        assert layer.center
        assert not layer.scale


def test_residuals_are_scaled_as_the_predecessors(model):
    scales = [layer.scale for layer in model.layers if isinstance(layer, keras.layers.Rescaling)]
    assert scales == [0.17] * 5 + [0.10] * 10 + [0.20] * 5  # the last block's residual is not scaled
    last_sum = [layer for layer in model.layers if isinstance(layer, keras.layers.Add)][-1]
    after = last_sum.output
    pooled = next(layer for layer in model.layers if isinstance(layer, keras.layers.GlobalAveragePooling2D))
    assert pooled.input is after  # nor is there an activation behind it


def test_feature_maps_at_160_pixels_have_the_published_sizes():
    from facenet_fast.backbones.inception_resnet_v1 import features

    images = keras.Input((160, 160, 3))
    network = keras.Model(images, features(images))
    sums = [layer.output.shape[1:] for layer in network.layers if isinstance(layer, keras.layers.Add)]
    assert sums == [(17, 17, 256)] * 5 + [(8, 8, 896)] * 10 + [(3, 3, 1792)] * 6
    assert network.output_shape == (None, 1792)


def test_embeddings_of_the_smallest_images(model):
    images = np.random.default_rng(0).normal(size=(2, 75, 75, 3)).astype(np.float32)
    embeddings = np.asarray(model(images))
    assert embeddings.shape == (2, 128)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=1e-5)
