import subprocess
import sys

import keras
import numpy as np
import pytest

from facenet_fast import backbones
from facenet_fast.errors import UserError


def features_of_a_user(images):
    return keras.layers.AveragePooling2D(4)(images)


def features_that_are_none(images):
    return None


def images_of(n, size, seed=0):
    return np.random.default_rng(seed).normal(size=(n, size, size, 3)).astype(np.float32)


def test_the_table_is_read_without_tensorflow():
    code = (
        "import sys; from facenet_fast import backbones; assert backbones.names() and backbones.describe();"
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_network_has_one_line_about_it():
    assert set(backbones.describe()) == set(backbones.names())
    assert all(line and "\n" not in line for line in backbones.describe().values())


def test_embeddings_have_unit_length_in_both_modes():
    model = backbones.build("small_resnet", 32, 16, dropout=0.3)
    for training in (False, True):
        embeddings = np.asarray(model(images_of(5, 32), training=training))
        assert embeddings.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=1e-5)


def test_the_global_seed_fixes_the_weights():
    built = []
    for seed in (3, 3, 4):
        keras.utils.set_random_seed(seed)
        built.append(np.asarray(backbones.build("small_resnet", 16, 4)(images_of(2, 16))))
    np.testing.assert_array_equal(built[0], built[1])
    assert np.abs(built[0] - built[2]).max() > 1e-3


def test_dropout_acts_in_training_only_and_owns_no_weights():
    with_dropout = backbones.build("small_resnet", 16, 4, dropout=0.5)
    without = backbones.build("small_resnet", 16, 4)
    without.set_weights(with_dropout.get_weights())
    images = images_of(4, 16)
    np.testing.assert_array_equal(np.asarray(with_dropout(images)), np.asarray(without(images)))
    once, again = (np.asarray(with_dropout(images, training=True)) for _ in range(2))
    assert np.abs(once - again).max() > 1e-3


# Keras 3.15 turns TensorFlow's variables into arrays in a way that NumPy 2 warns about.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
def test_saving_as_keras_and_loading_gives_the_same_embeddings(tmp_path):
    model = backbones.build("small_resnet", 16, 8, dropout=0.2)
    images = images_of(3, 16)
    model(images, training=True)  # moves the batch-norm averages off their initial values
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(np.asarray(loaded(images)), np.asarray(model(images)))


def test_head_has_the_predecessors_bottleneck():
    model = backbones.build("small_resnet", 16, 8)
    assert not model.get_layer("bottleneck").use_bias
    batch_norm = model.get_layer("bottleneck_batch_norm")
    assert batch_norm.center
    assert not batch_norm.scale
    assert batch_norm.epsilon == 1e-3


def test_a_row_of_zeros_stays_finite():
    from facenet_fast.backbones.head import L2Normalisation

    np.testing.assert_array_equal(
        np.asarray(L2Normalisation()(np.zeros((1, 4), np.float32))), np.zeros((1, 4))
    )


def test_a_users_function_gets_the_same_head():
    model = backbones.build(f"{__name__}:features_of_a_user", 8, 5)
    assert model.get_layer("features").output.shape == (None, 2 * 2 * 3)
    embeddings = np.asarray(model(images_of(2, 8)))
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=1e-5)


def test_the_predecessors_spelling_of_a_name_works():
    assert backbones.build("models.small_resnet", 16, 4).output_shape == (None, 4)


def test_unknown_name_lists_the_choices():
    with pytest.raises(UserError, match=r"small_resnet.*; got 'resnet9000'"):
        backbones.build("resnet9000", 32, 16)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module_here:features", "cannot be imported: No module named"),
        (f"{__name__}:no_such_function", "cannot be imported: .*no_such_function"),
        (":features", "cannot be imported"),
        (f"{__name__}:__name__", "must be a function"),
        (f"{__name__}:features_that_are_none", "must return a Keras tensor"),
    ],
)
def test_a_users_function_that_is_none_is_named(name, message):
    with pytest.raises(UserError, match=message):
        backbones.build(name, 16, 4)


def test_image_too_small_says_how_large_it_must_be():
    with pytest.raises(UserError, match="image_size must be at least 16 for backbone small_resnet; got 15"):
        backbones.build("small_resnet", 15, 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"embedding_size": 0}, "embedding_size must be at least 1; got 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and less than 1; got 1.0"),
        ({"dropout": -0.1}, "dropout"),
    ],
)
def test_impossible_settings_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        backbones.build("small_resnet", **({"image_size": 16, "embedding_size": 4} | settings))
