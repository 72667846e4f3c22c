import keras
import numpy as np
import pytest

from facenet_fast import backbones

N_FEATURES = {
    "densenet121": 1024,
    "mobilenet_v3_small": 576,
    "inception_resnet_v2": 1536,
    "efficientnet_v2_b0": 1280,
}


@pytest.mark.parametrize(
    "name",
    [
        "densenet121",
        "mobilenet_v3_small",
        pytest.param("inception_resnet_v2", marks=pytest.mark.slow),
        "efficientnet_v2_b0",
    ],
)
def test_keras_networks_end_in_our_head_and_take_standardised_images(name):
    size = backbones.BACKBONES[name].smallest_image
    model = backbones.build(name, size, 12)
    assert model.get_layer("features").output.shape == (None, N_FEATURES[name])
    assert model.output_shape == (None, 12)
    # Keras' own scaling of raw pixels must not stand between the images and the first convolution.
    kinds = [type(layer) for layer in model.layers]
    assert not {keras.layers.Rescaling, keras.layers.Normalization} & set(
        kinds[: kinds.index(keras.layers.Conv2D)]
    )


# Keras 3.15 turns TensorFlow's variables into arrays in a way that NumPy 2 warns about.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
def test_a_keras_network_embeds_and_comes_back_from_its_file(tmp_path):
    model = backbones.build("mobilenet_v3_small", 32, 12)
    images = np.random.default_rng(0).normal(size=(3, 32, 32, 3)).astype(np.float32)
    embeddings = np.asarray(model(images))
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(np.asarray(loaded(images)), embeddings)


@pytest.mark.parametrize("name", backbones.names())
def test_every_network_says_how_large_images_must_be(name):
    smallest = backbones.BACKBONES[name].smallest_image
    with pytest.raises(ValueError, match=f"image_size must be at least {smallest} for backbone {name}; got"):
        backbones.build(name, smallest - 1, 12)
