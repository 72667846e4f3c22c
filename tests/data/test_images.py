from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from facenet_fast.data.images import (
    Augmentation,
    ImageStore,
    Preprocessing,
    augment,
    batches,
    centre_crop,
    standardise,
)
from facenet_fast.errors import UserError


def random_images(n, size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


# --- standardise


def test_per_image_is_the_formula():
    images = random_images(5, 7).astype(np.float64)
    expected = [(image - image.mean()) / max(image.std(), 1 / np.sqrt(image.size)) for image in images]
    for given in (images.astype(np.uint8), images.astype(np.float32)):
        np.testing.assert_allclose(standardise(given, "per_image"), expected, atol=2e-6)
    np.testing.assert_allclose(
        standardise(images.astype(np.uint8), "per_image"),
        tf.image.per_image_standardization(images),
        atol=2e-6,
    )


def test_fixed_is_the_formula():
    images = random_images(3, 4)
    np.testing.assert_array_equal(standardise(images, "fixed"), (images.astype(np.float32) - 127.5) / 128)


@pytest.mark.parametrize("kind", ["per_image", "fixed"])
def test_arrays_and_tensors_give_the_same(kind):
    images = random_images(4, 9)
    array, tensor = standardise(images, kind), standardise(tf.constant(images), kind)
    assert isinstance(array, np.ndarray)
    assert isinstance(tensor, tf.Tensor)
    assert array.dtype == tensor.numpy().dtype == np.float32
    np.testing.assert_allclose(array, tensor, atol=2e-6)
    traced = tf.function(
        lambda x: standardise(x, kind), input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)]
    )
    np.testing.assert_allclose(array, traced(images), atol=2e-6)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_an_image_of_one_colour_becomes_zero_not_nan(value):
    images = np.full((2, 5, 5, 3), value, dtype=np.uint8)
    for given in (images, tf.constant(images)):
        np.testing.assert_array_equal(standardise(given, "per_image"), np.zeros((2, 5, 5, 3)))


def test_standardising_leaves_its_argument_alone():
    images = random_images(1, 4).astype(np.float32)
    before = images.copy()
    standardise(images, "per_image")
    standardise(images, "fixed")
    np.testing.assert_array_equal(images, before)


def test_unknown_standardisation_lists_the_choices():
    with pytest.raises(UserError, match="one of per_image, fixed; got 'prewhiten'"):
        standardise(random_images(1, 4), "prewhiten")


# --- centre_crop


@pytest.mark.parametrize(("size", "first"), [(8, 0), (7, 0), (6, 1), (5, 1), (1, 3)])
def test_crop_is_the_middle(size, first):
    images = random_images(2, 8)
    expected = images[:, first : first + size, first : first + size]
    np.testing.assert_array_equal(centre_crop(images, size), expected)
    np.testing.assert_array_equal(centre_crop(tf.constant(images), size), expected)


@pytest.mark.parametrize("size", [0, 9])
def test_crop_must_fit(size):
    with pytest.raises(ValueError, match=r"1 \.\. 8; got"):
        centre_crop(random_images(1, 8), size)


# --- augment


def places(images, changed):
    """For each changed image, the (top, left, mirrored) windows of the original that equal it."""
    size = changed.shape[1]
    found = []
    for image, result in zip(images, np.asarray(changed), strict=True):
        room = image.shape[0] - size
        candidates = [(y, x, m) for y in range(room + 1) for x in range(room + 1) for m in (False, True)]
        matches = []
        for y, x, mirrored in candidates:
            window = image[y : y + size, x : x + size]
            if np.array_equal(window[:, ::-1] if mirrored else window, result):
                matches.append((y, x, mirrored))
        assert len(matches) == 1
        found.append(matches[0])
    return found


def test_nothing_switched_on_is_the_middle():
    images = random_images(3, 10)
    changed = augment(images, Augmentation(), (0, 0), image_size=6)
    assert changed.dtype == tf.float32
    np.testing.assert_array_equal(changed, centre_crop(images, 6))
    np.testing.assert_array_equal(augment(images, Augmentation(), (0, 0)), images)


def test_flip_mirrors_half_of_them_exactly():
    images = random_images(400, 4)
    found = places(images, augment(images, Augmentation(random_flip=True), (1, 2)))
    n_mirrored = sum(mirrored for _, _, mirrored in found)
    assert 150 < n_mirrored < 250


def test_crop_takes_every_window_exactly_and_alike():
    images = random_images(900, 7)
    found = places(images, augment(images, Augmentation(random_crop=True), (3, 4), image_size=5))
    assert not any(mirrored for _, _, mirrored in found)
    counts = np.zeros((3, 3), int)
    for y, x, _ in found:
        counts[y, x] += 1
    assert counts.min() > 60
    assert counts.max() < 140


def test_crop_and_flip_together_are_still_exact():
    images = random_images(200, 8)
    found = places(
        images, augment(images, Augmentation(random_crop=True, random_flip=True), (3, 4), image_size=5)
    )
    assert len(set(found)) == 32


def peaks(size, augmentation, n=300, seed=(5, 6), offset=(0.0, 0.0)):
    """Where a smooth blob, placed at `offset` (x, y) from the middle, is found after augmenting."""
    middle = (size - 1) / 2
    rows, columns = np.mgrid[:size, :size] - middle
    blob = 255 * np.exp(-((columns - offset[0]) ** 2 + (rows - offset[1]) ** 2) / 18)
    images = np.repeat(blob[None, :, :, None], n, axis=0).repeat(3, axis=3).astype(np.float32)
    changed = np.asarray(augment(images, augmentation, seed))[..., 0]
    weight = changed.sum(axis=(1, 2))
    return np.stack(
        [(changed * columns).sum(axis=(1, 2)) / weight, (changed * rows).sum(axis=(1, 2)) / weight], axis=1
    )


def test_rotation_turns_about_the_middle_within_its_limit():
    found = peaks(64, Augmentation(rotation_degrees=20), offset=(15.0, 0.0))
    angles = np.degrees(np.arctan2(found[:, 1], found[:, 0]))
    np.testing.assert_allclose(np.hypot(*found.T), 15, atol=0.1)
    assert np.abs(angles).max() < 20.3
    assert angles.min() < -17
    assert angles.max() > 17


def test_scale_magnifies_about_the_middle_within_its_limit():
    found = peaks(64, Augmentation(scale=0.25), offset=(12.0, -8.0))
    factors = found[:, 0] / 12
    np.testing.assert_allclose(found[:, 1], -8 * factors, atol=0.1)
    assert 0.74 < factors.min() < 0.8
    assert 1.2 < factors.max() < 1.26


def test_shift_moves_along_both_axes_within_its_limit():
    found = peaks(64, Augmentation(shift=0.1))
    assert np.abs(found).max() < 6.5
    assert np.all(found.max(axis=0) > 5)
    assert np.all(found.min(axis=0) < -5)
    assert abs(np.corrcoef(found.T)[0, 1]) < 0.2


def test_what_comes_in_from_outside_repeats_the_edge():
    images = np.full((50, 12, 12, 3), 99, dtype=np.uint8)
    strong = Augmentation(True, True, rotation_degrees=90, scale=0.5, shift=0.5)
    np.testing.assert_allclose(augment(images, strong, (0, 1)), images, atol=1e-3)


def test_brightness_shifts_and_contrast_scales_about_the_mean():
    images = np.random.default_rng(0).uniform(100, 150, (60, 6, 6, 3)).astype(np.float32)
    mean = images.mean(axis=(1, 2, 3), keepdims=True)
    shifts = np.asarray(augment(images, Augmentation(brightness=0.2), (7, 8))) - images
    assert np.ptp(shifts, axis=(1, 2, 3)).max() < 1e-3
    assert 45 < np.abs(shifts).max() <= 51.01
    assert shifts.min() < -40
    contrasted = np.asarray(augment(images, Augmentation(contrast=0.5), (7, 8)))
    factors = (contrasted - mean) / (images - mean)
    assert np.median(np.ptp(factors, axis=(1, 2, 3))) < 1e-2
    medians = np.median(factors, axis=(1, 2, 3))
    assert 0.49 < medians.min() < 0.6
    assert 1.4 < medians.max() < 1.51


def test_values_stay_in_range():
    changed = np.asarray(augment(random_images(50, 6), Augmentation(brightness=1.0, contrast=1.0), (1, 1)))
    assert changed.min() == 0
    assert changed.max() == 255


def test_cutout_sets_one_square_to_the_mean():
    images = random_images(80, 20)
    changed = np.asarray(augment(images, Augmentation(cutout=0.4), (9, 9)))
    centres = []
    for image, result in zip(images, changed, strict=True):
        is_cut = np.any(result != image, axis=-1)
        rows, columns = np.flatnonzero(is_cut.any(axis=1)), np.flatnonzero(is_cut.any(axis=0))
        window = result[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        np.testing.assert_allclose(window, image.mean(), atol=1e-3)
        assert is_cut.sum() <= len(rows) * len(columns)
        assert max(len(rows), len(columns)) <= 8
        centres.append(rows.mean())
    assert min(centres) < 4
    assert max(centres) > 15


EVERYTHING = Augmentation(True, True, 10.0, 0.1, 0.1, 0.1, 0.1, 0.2)


def test_the_seed_decides():
    images = random_images(6, 12)
    once = augment(images, EVERYTHING, (1, 2), image_size=10)
    np.testing.assert_array_equal(once, augment(images, EVERYTHING, (1, 2), image_size=10))
    for other in ((2, 1), (1, 3)):
        assert np.any(once != augment(images, EVERYTHING, other, image_size=10))
    assert len({np.asarray(image).tobytes() for image in augment(images[[0] * 6], EVERYTHING, (1, 2))}) == 6


def test_one_setting_does_not_move_the_draws_of_another():
    images = random_images(20, 8)
    flipped = augment(images, Augmentation(random_flip=True), (1, 2))
    both = augment(images, Augmentation(random_flip=True, brightness=1e-9), (1, 2))
    np.testing.assert_allclose(flipped, both, atol=1e-3)


def test_works_traced_with_unknown_batch_and_seed_tensor():
    images = random_images(5, 12)
    traced = tf.function(
        lambda x, seed: augment(x, EVERYTHING, seed, image_size=10),
        input_signature=[tf.TensorSpec((None, 12, 12, 3), tf.uint8), tf.TensorSpec((2,), tf.int64)],
    )
    assert traced.get_concrete_function().output_shapes.as_list() == [None, 10, 10, 3]
    expected = augment(images, EVERYTHING, (4, 5), image_size=10)
    np.testing.assert_allclose(traced(images, tf.constant([4, 5], tf.int64)), expected, atol=1e-2)
    assert traced(images[:0], tf.constant([4, 5], tf.int64)).shape == (0, 10, 10, 3)


def test_the_result_is_not_larger_than_the_image():
    for augmentation in (Augmentation(), EVERYTHING):
        with pytest.raises(ValueError, match=r"1 \.\. 8; got 9"):
            augment(random_images(1, 8), augmentation, (0, 0), image_size=9)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rotation_degrees": -1},
        {"rotation_degrees": 181},
        {"scale": 1},
        {"scale": -0.1},
        {"shift": 1.1},
        {"brightness": -1},
        {"contrast": 2},
        {"cutout": float("nan")},
    ],
)
def test_strengths_out_of_range_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(UserError, match=f"{name} must be .*; got"):
        Augmentation(**wrong)


# --- batches


def test_batches_are_standardised_and_in_order(make_images):
    paths, images = make_images(11)
    open(paths[6], "wb").close()
    indices = [10, 0, 6, 3, 3, 7, 1]
    dataset = batches(ImageStore(paths, 8), indices, Preprocessing(6, "fixed"), 3)
    assert dataset.element_spec[0].shape.as_list() == [None, 6, 6, 3]
    for _ in range(2):
        parts = list(dataset.as_numpy_iterator())
        assert [len(part) for part, _ in parts] == [3, 3, 1]
        got, ok = (np.concatenate(column) for column in zip(*parts, strict=True))
        assert ok.tolist() == [True, True, False, True, True, True, True]
        expected = standardise(centre_crop(images[indices], 6), "fixed")
        np.testing.assert_allclose(got[ok], expected[ok], atol=1e-6)


def test_no_indices_make_no_batches(make_images):
    assert list(batches(ImageStore(make_images(2)[0], 8), [], Preprocessing(8), 4)) == []


def test_batches_check_what_they_are_given(make_images):
    store = ImageStore(make_images(2)[0], 8)
    with pytest.raises(UserError, match="batch size must be at least 1; got 0"):
        batches(store, [0], Preprocessing(8), 0)
    with pytest.raises(UserError, match="at most that of the stored images, 8; got 9"):
        batches(store, [0], Preprocessing(9), 1)
    with pytest.raises(IndexError, match=r"0 \.\. 1"):
        batches(store, [2], Preprocessing(8), 1)


@pytest.mark.parametrize("wrong", [(0, "fixed"), (8, "other")])
def test_preprocessing_is_checked(wrong):
    with pytest.raises(UserError, match="got"):
        Preprocessing(*wrong)


def test_preprocessing_is_the_same_for_arrays_and_tensors():
    images = random_images(3, 9)
    preprocessing = Preprocessing(6)
    np.testing.assert_allclose(preprocessing(images), preprocessing(tf.constant(images)), atol=2e-6)
