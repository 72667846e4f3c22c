import keras
import numpy as np
import pytest

from facenet_fast.backbones.squeezenet import features


def network_for(size):
    images = keras.Input((size, size, 3))
    return keras.Model(images, features(images))


def test_number_of_weights_is_the_published_one():
    # Table 1 of the paper, layer by layer, weights and biases; batch-norm's offsets are as many as biases.
    published = [14_208, 11_920, 12_432, 45_344, 49_440, 104_880, 111_024, 188_992, 197_184]
    assert sum(published) == 1_248_424 - 513_000  # all of it without the last convolution
    trainable = sum(int(np.prod(weight.shape)) for weight in network_for(64).trainable_weights)
    assert trainable == sum(published)


@pytest.mark.parametrize(
    ("size", "sides"), [(224, (112, 55, 27, 13)), (112, (56, 27, 13, 6)), (29, (15, 7, 3, 1))]
)
def test_maps_have_the_published_sizes(size, sides):
    # In the paper the first convolution gives 111 from 224 pixels, and the pools the same as here.
    layers = network_for(size).layers
    first = next(layer for layer in layers if isinstance(layer, keras.layers.Conv2D))
    pools = [layer.output.shape[1] for layer in layers if isinstance(layer, keras.layers.MaxPooling2D)]
    assert (first.output.shape[1], *pools) == sides


def test_fire_modules_are_those_of_the_paper():
    layers = network_for(224).layers
    fires = [layer.output.shape[2:] for layer in layers if isinstance(layer, keras.layers.Concatenate)]
    assert fires == [(55, 128)] * 2 + [(55, 256), (27, 256)] + [(27, 384)] * 2 + [(27, 512), (13, 512)]
