import keras
import numpy as np
import pytest

from facenet_fast.backbones import applications


@pytest.mark.large
def test_convnext_with_depthwise_convolutions_is_keras_own():
    images = keras.Input((32, 32, 3))
    ours = keras.Model(images, applications.convnext_tiny(images))
    theirs = keras.applications.ConvNeXtTiny(
        include_top=False, weights=None, input_tensor=images, pooling="avg", include_preprocessing=False
    )
    generator = np.random.default_rng(0)
    n_depthwise = 0
    for weight, their_weight in zip(ours.weights, theirs.weights, strict=True):
        value = generator.normal(scale=0.1, size=their_weight.shape)
        their_weight.assign(value)
        if weight.shape != their_weight.shape:  # (7, 7, C, 1) and, with C groups, (7, 7, 1, C)
            value = np.swapaxes(value, 2, 3)
            n_depthwise += 1
        weight.assign(value)
    assert n_depthwise == 3 + 3 + 9 + 3
    pixels = generator.normal(size=(2, 32, 32, 3)).astype(np.float32)
    expected = np.asarray(theirs(pixels))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(np.asarray(ours(pixels)), expected, atol=1e-4)
