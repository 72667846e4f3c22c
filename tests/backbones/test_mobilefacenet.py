import keras
import numpy as np
import pytest

from facenet_fast import backbones


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return backbones.build("mobilefacenet", 112, 128)


def n_parameters_by_hand():
    """Table 1, row by row: (kernels, channels with batch-norm, slopes of PReLU)."""
    kernels = channels = slopes = 0

    def convolution(n_in, n_out, *, size=1, active=True):
        nonlocal kernels, channels, slopes
        kernels += size * size * n_in * n_out
        channels += n_out
        slopes += n_out if active else 0
        return n_out

    def depthwise(n, *, size=3, active=True):
        convolution(1, n, size=size, active=active)

    n = convolution(3, 64, size=3)
    depthwise(n)
    for expansion, width, repeats in ((2, 64, 5), (4, 128, 1), (2, 128, 6), (4, 128, 1), (2, 128, 2)):
        for _ in range(repeats):
            depthwise(convolution(n, expansion * n))
            n = convolution(expansion * n, width, active=False)
    n = convolution(n, 512)
    depthwise(n, size=7, active=False)
    convolution(n, 128, active=False)
    return kernels, channels, slopes


def test_number_of_parameters_is_the_published_one(model):
    kernels, channels, slopes = n_parameters_by_hand()
    # "0.99 million parameters" (section 3.3): deployed, batch-norm is a bias a channel.
    assert round((kernels + channels + slopes) / 1e6, 2) == 0.99
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert trainable == kernels + 2 * channels + slopes - 128  # the head's batch-norm has no scales
    assert model.count_params() == trainable + 2 * channels


def test_maps_have_the_published_sizes(model):
    sums = [layer.output.shape[1:] for layer in model.layers if isinstance(layer, keras.layers.Add)]
    assert sums == [(28, 28, 64)] * 4 + [(14, 14, 128)] * 6 + [(7, 7, 128)] * 2
    last = [layer for layer in model.layers if isinstance(layer, keras.layers.DepthwiseConv2D)][-1]
    assert last.kernel_size == (7, 7)
    assert last.output.shape == (None, 1, 1, 512)


def test_ends_of_blocks_and_of_the_network_are_linear(model):
    after = {}
    for layer in model.layers:
        for source in layer.input if isinstance(layer.input, list) else [layer.input]:
            after.setdefault(source.name, []).append(layer)
    linear = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            followers = after[layer.output.name]
            if not any(isinstance(follower, keras.layers.PReLU) for follower in followers):
                linear.append(layer.output.shape[-1])
    assert linear == [64] * 5 + [128] * 10 + [512, 128]


def test_one_slope_a_channel(model):
    slopes = [layer.alpha for layer in model.layers if isinstance(layer, keras.layers.PReLU)]
    assert all(weight.shape[:2] == (1, 1) for weight in slopes)
    np.testing.assert_array_equal(np.asarray(slopes[0]), 0.25)


def test_kernel_of_the_last_map_is_as_large_as_that():
    model = backbones.build("mobilefacenet", 40, 8)
    last = [layer for layer in model.layers if isinstance(layer, keras.layers.DepthwiseConv2D)][-1]
    assert last.kernel_size == (3, 3)
    assert model.get_layer("features").output.shape == (None, 512)
