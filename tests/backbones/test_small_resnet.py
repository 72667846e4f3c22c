import keras
import numpy as np
import pytest

from facenet_fast import backbones


@pytest.mark.parametrize("image_size", [16, 48, 65])
@pytest.mark.parametrize(
    ("name", "reduction", "width"), [("small_resnet", 16, 96), ("medium_resnet", 32, 256)]
)
def test_shapes_at_any_image_size(name, reduction, width, image_size):
    model = backbones.build(name, image_size, 24)
    grid = -(-image_size // reduction)
    assert model.get_layer("features").output.shape == (None, grid * grid * width)
    assert model.output_shape == (None, 24)


@pytest.mark.parametrize(
    ("name", "image_size", "millions"), [("small_resnet", 56, 0.4), ("medium_resnet", 112, 2.3)]
)
def test_size_is_what_the_table_says(name, image_size, millions):
    n_parameters = backbones.build(name, image_size, 128).count_params()
    assert round(n_parameters / 1e6, 1) == millions
    assert f"{millions} M parameters" in backbones.describe()[name]


def test_learns_to_tell_two_patterns_apart():
    keras.utils.set_random_seed(0)
    model = backbones.build("small_resnet", 16, 8)
    generator = np.random.default_rng(0)
    labels = np.repeat([0.0, 1.0], 8)
    patterns = generator.normal(size=(2, 16, 16, 3))
    images = (patterns[labels.astype(int)] + generator.normal(size=(16, 16, 16, 3))).astype(np.float32)
    classifier = keras.Sequential([model, keras.layers.Dense(1)])
    classifier.compile(keras.optimizers.Adam(1e-2), keras.losses.BinaryCrossentropy(from_logits=True))
    history = classifier.fit(images, labels, batch_size=16, epochs=20, verbose=0).history["loss"]
    assert history[-1] < 0.3 * history[0]
