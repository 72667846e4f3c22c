import keras
import numpy as np
import pytest

from facenet_fast.backbones.se_resnet50 import features


@pytest.fixture(scope="module")
def network():
    images = keras.Input((64, 64, 3))
    return keras.Model(images, features(images))


def test_number_of_weights_is_the_published_one(network):
    resnet50 = 25_557_032  # with its classifier of 1000 classes
    # Section 4: two layers a block, C x C/16 and back; each has a bias.
    blocks = [256] * 3 + [512] * 4 + [1024] * 6 + [2048] * 3
    excitations = sum(2 * c * c // 16 + c // 16 + c for c in blocks)
    classifier = 2048 * 1000 + 1000
    assert resnet50 + excitations == 28_088_024
    trainable = sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)
    assert trainable == resnet50 + excitations - classifier


def test_first_convolution_of_a_stage_halves(network):
    strided = [layer for layer in network.layers if getattr(layer, "strides", (1, 1)) == (2, 2)]
    kernels = [layer.kernel_size for layer in strided if isinstance(layer, keras.layers.Conv2D)]
    assert kernels == [(7, 7)] + [(1, 1)] * 6  # the stem; for three stages, the block and its shortcut
    sums = [layer.output.shape[1:] for layer in network.layers if isinstance(layer, keras.layers.Add)]
    assert sums == [(16, 16, 256)] * 3 + [(8, 8, 512)] * 4 + [(4, 4, 1024)] * 6 + [(2, 2, 2048)] * 3


def test_excitation_weighs_channels_by_the_formula():
    from facenet_fast.backbones.se_resnet50 import _excite

    maps = keras.Input((3, 2, 32))
    block = keras.Model(maps, _excite(maps))
    generator = np.random.default_rng(0)
    down, down_bias, up, up_bias = (generator.normal(size=weight.shape) for weight in block.weights)
    assert down.shape == (1, 1, 32, 2)
    block.set_weights([down, down_bias, up, up_bias])
    x = generator.normal(size=(2, 3, 2, 32))
    expected = np.empty_like(x)
    for n in range(2):
        squeezed = np.array([x[n, :, :, c].sum() / 6 for c in range(32)])
        hidden = np.maximum(squeezed @ down[0, 0] + down_bias, 0)
        for c in range(32):
            expected[n, :, :, c] = x[n, :, :, c] / (1 + np.exp(-(hidden @ up[0, 0, :, c] + up_bias[c])))
    np.testing.assert_allclose(np.asarray(block(x.astype(np.float32))), expected, rtol=1e-4, atol=1e-5)
