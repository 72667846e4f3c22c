"""Each change against a slow one of Pillow's, SciPy's or in numpy; what is drawn, by its statistics."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.stats import kstest

import facenet_fast.training.loop
from facenet_fast import cli
from facenet_fast.config import AUGMENTATIONS, PRESETS, TrainConfig
from facenet_fast.data.augmentation import _STREAMS, Augmentation, _blurring, _draw, augment
from facenet_fast.errors import UserError

SEED = (5, 17)
LUMA = np.array([0.299, 0.587, 0.114])
# Nothing of it is clipped, whatever happens to its colours.
MIDDLING = (100, 156)
NAMES = [field.name for field in dataclasses.fields(Augmentation)]


def images_of(n, size, low=0, high=256, seed=0):
    return np.random.default_rng(seed).integers(low, high, (n, size, size, 3), dtype=np.uint8)


def changed(images, seed=SEED, **strengths):
    return np.asarray(augment(images, Augmentation(**strengths), seed))


def fractions(stream, n, seed=SEED):
    """The stream's draws in 0 .. 1."""
    return (np.asarray(_draw(stream, seed, n)) + 1) / 2


def chroma(pixels):
    """Colour without brightness as complex numbers, in the plane of I and Q."""
    red, green, blue = np.moveaxis(np.asarray(pixels, np.float64), -1, 0)
    return (0.596 * red - 0.274 * green - 0.322 * blue) + 1j * (0.211 * red - 0.523 * green + 0.312 * blue)


# --- colour


def test_saturation_moves_pixels_from_their_grey_by_one_factor():
    images = images_of(200, 5, *MIDDLING)
    results = changed(images, saturation=0.4)
    factors = []
    for image, result in zip(images.astype(float), results, strict=True):
        colours = image - (image @ LUMA)[..., None]
        moved = result - (image @ LUMA)[..., None]
        factors.append((colours * moved).sum() / (colours**2).sum())
        np.testing.assert_allclose(moved, factors[-1] * colours, atol=1e-3)
    assert kstest(factors, "uniform", (0.6, 0.8)).pvalue > 0.01


def test_full_saturation_of_zero_is_pillows_grey():
    images = images_of(3, 6)
    for image, result in zip(images, changed(images, grey=1.0), strict=True):
        expected = np.asarray(Image.fromarray(image).convert("L"))
        for channel in range(3):
            np.testing.assert_allclose(result[..., channel], expected, atol=0.51)


def test_hue_turns_all_colours_by_one_angle_and_leaves_brightness():
    images = images_of(200, 5, *MIDDLING)
    results = changed(images, hue=0.1)
    np.testing.assert_allclose(results @ LUMA, images @ LUMA, atol=1e-3)
    before, after = chroma(images), chroma(results)
    turns = np.angle((after * before.conj()).sum(axis=(1, 2)))
    np.testing.assert_allclose(after, before * np.exp(1j * turns)[:, None, None], atol=1e-3)
    assert kstest(turns / (2 * np.pi), "uniform", (-0.1, 0.2)).pvalue > 0.01


def test_hue_goes_from_red_to_green_to_blue():
    red = np.zeros((300, 1, 1, 3), np.uint8) + np.array([160, 90, 90], np.uint8)
    results = changed(red, hue=0.5)[:, 0, 0]
    turns = np.asarray(_draw("hue", SEED, 300)) / 2
    for where, strongest in ((0, 0), (1 / 3, 1), (-1 / 3, 2)):
        near = np.abs(turns - where) < 0.08
        assert near.sum() > 20
        assert set(results[near].argmax(axis=1)) == {strongest}


def test_grey_comes_as_often_as_asked():
    images = images_of(2000, 2)
    results = changed(images, grey=0.3)
    is_grey = np.ptp(results, axis=-1).max(axis=(1, 2)) < 1e-3
    np.testing.assert_array_equal(results[~is_grey], images[~is_grey])
    assert 540 < is_grey.sum() < 660


def test_grey_stays_grey_under_all_colours():
    grey = np.repeat(images_of(20, 4)[..., :1], 3, axis=-1)
    np.testing.assert_allclose(changed(grey, saturation=1.0, hue=0.5, grey=0.5), grey, atol=1e-3)


# --- blur and downscale


@pytest.mark.parametrize(("size", "strength"), [(17, 0.1), (24, 0.02), (9, 1.0)])
def test_blur_is_scipys_with_weights_inside_only(size, strength):
    images = images_of(12, size)
    sigmas = strength * size * fractions("blur", 12)
    for image, result, sigma in zip(images, changed(images, blur=strength), sigmas, strict=True):
        options = {"sigma": (sigma, sigma), "mode": "constant", "radius": size}
        inside = gaussian_filter(np.ones((size, size)), **options)
        for channel in range(3):
            expected = gaussian_filter(image[..., channel].astype(float), **options) / inside
            np.testing.assert_allclose(result[..., channel], expected, atol=0.01)
    assert kstest(fractions("blur", 500), "uniform").pvalue > 0.01


@pytest.mark.parametrize(("size", "strength"), [(16, 0.5), (23, 0.95), (1, 0.9)])
def test_downscale_is_pillows_there_and_back(size, strength):
    images = images_of(30, size)
    kept = 1 - strength * fractions("downscale", 30)
    sides = [max(round(float(size * part)), 1) for part in kept]
    assert size == 1 or len(set(sides)) > 4
    for image, result, side in zip(images, changed(images, downscale=strength), sides, strict=True):
        for channel in range(3):
            plane = Image.fromarray(image[..., channel].astype(np.float32))
            small = plane.resize((side, side), Image.Resampling.BILINEAR)
            expected = np.asarray(small.resize((size, size), Image.Resampling.BILINEAR))
            np.testing.assert_allclose(result[..., channel], expected, atol=0.01)


def test_blur_comes_before_downscale():
    images = images_of(6, 13)
    blurred = changed(images, blur=0.1)
    np.testing.assert_allclose(
        changed(images, blur=0.1, downscale=0.7), changed(blurred, downscale=0.7), atol=0.01
    )
    assert np.abs(changed(images, blur=0.1, downscale=0.7) - blurred).max() > 1


def test_a_hardly_blurred_image_is_itself_and_one_colour_stays():
    images = images_of(5, 8)
    np.testing.assert_allclose(changed(images, blur=1e-9, downscale=1e-9), images, atol=1e-3)
    np.testing.assert_array_equal(_blurring(tf.zeros(2), 8), np.stack([np.eye(8)] * 2))
    flat = np.full((5, 8, 8, 3), 77, np.uint8)
    np.testing.assert_allclose(changed(flat, blur=1.0, downscale=0.99), flat, atol=1e-3)


# --- JPEG


def smooth_images(n, size):
    rows, columns = np.mgrid[:size, :size]
    waves = np.random.default_rng(3).uniform(0.05, 0.4, (n, 3, 2))
    values = np.sin(waves[..., :1, None] * rows + waves[..., 1:, None] * columns)
    return np.round(127.5 + 120 * np.moveaxis(values, 1, -1)).astype(np.uint8)


def through_pillow(image, quality):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(file)).astype(float)


@pytest.mark.parametrize("lowest", [1, 40, 100])
def test_jpeg_is_pillows_at_the_drawn_quality(lowest):
    images = smooth_images(40, 33)
    qualities = np.minimum(lowest + np.floor(fractions("jpeg", 40) * (101 - lowest)), 100).astype(int)
    results = changed(images, jpeg=lowest)
    for image, result, quality in zip(images, results, qualities, strict=True):
        assert np.abs(result - through_pillow(image, int(quality))).max() <= 2
    if lowest < 100:
        assert min(qualities) < lowest + 10
        assert max(qualities) > 90
        others = [
            through_pillow(image, int(lowest + 100 - q)) for image, q in zip(images, qualities, strict=True)
        ]
        assert np.abs(results - others).max() > 10


def test_jpeg_takes_every_quality_from_the_lowest_to_the_best():
    images = np.repeat(smooth_images(1, 16), 400, axis=0)
    distinct = {one.tobytes() for one in changed(images, jpeg=97)}
    assert distinct == {through_pillow(images[0], q).astype(np.float32).tobytes() for q in (97, 98, 99, 100)}


def test_jpeg_is_given_the_nearest_whole_values():
    images = np.full((3, 16, 16, 3), (99.6, 100.4, 100.0), np.float32)
    np.testing.assert_array_equal(changed(images, jpeg=100), np.full((3, 16, 16, 3), 100))


# --- what is drawn


def test_what_was_drawn_before_there_were_streams_is_drawn_still():
    """Columns of one draw of eleven numbers an image; one more column would change every run."""
    images = images_of(50, 9)
    drawn = np.asarray(tf.random.stateless_uniform((50, 11), SEED, -1.0, 1.0))
    results = np.asarray(
        augment(images, Augmentation(random_crop=True, random_flip=True), SEED, image_size=6)
    )
    for image, result, row in zip(images, results, drawn, strict=True):
        x, y = (min(int((one + 1) / 2 * 4), 3) for one in row[:2])
        window = image[y : y + 6, x : x + 6]
        np.testing.assert_array_equal(result, window[:, ::-1] if row[2] < 0 else window)
    for column, name in ((7, "contrast"), (8, "brightness")):
        found = changed(images_of(50, 9, *MIDDLING), **{name: 0.1})
        before = images_of(50, 9, *MIDDLING).astype(float)
        if name == "contrast":
            mean = before.mean(axis=(1, 2, 3), keepdims=True)
            expected = (before - mean) * (1 + 0.1 * drawn[:, column, None, None, None]) + mean
        else:
            expected = before + 25.5 * drawn[:, column, None, None, None]
        np.testing.assert_allclose(found, expected, atol=1e-3)
    rows, columns = ((np.arange(9) + 0.5)[None] for _ in range(2))
    columns = np.abs(columns - (drawn[:, 9:10] + 1) / 2 * 9) < 0.5 * 9 / 2
    rows = np.abs(rows - (drawn[:, 10:] + 1) / 2 * 9) < 0.5 * 9 / 2
    is_cut = rows[:, :, None] & columns[:, None, :]
    found = changed(images, cutout=0.5)
    np.testing.assert_array_equal(found[~is_cut], images[~is_cut])
    means = np.broadcast_to(images.mean(axis=(1, 2, 3))[:, None, None, None], images.shape)
    np.testing.assert_allclose(found[is_cut], means[is_cut], atol=1e-3)


def test_streams_keep_their_numbers():
    first = ("saturation", "hue", "grey", "blur", "downscale", "jpeg")
    assert _STREAMS[:6] == first
    for number, name in enumerate(first, start=1):
        expected = tf.random.stateless_uniform((7,), tf.random.fold_in(SEED, number), -1.0, 1.0)
        np.testing.assert_array_equal(_draw(name, SEED, 7), expected)


def test_streams_have_nothing_to_do_with_each_other():
    columns = np.asarray(tf.random.stateless_uniform((4000, 11), SEED, -1.0, 1.0)).T
    draws = np.concatenate([columns, [np.asarray(_draw(name, SEED, 4000)) for name in _STREAMS]])
    between = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(between).max() < 0.08


ON = {
    "random_crop": True,
    "random_flip": True,
    "rotation_degrees": 12.0,
    "scale": 0.2,
    "shift": 0.1,
    "brightness": 0.2,
    "contrast": 0.4,
    "cutout": 0.4,
    "saturation": 0.5,
    "hue": 0.1,
    "grey": 0.3,
    "blur": 0.05,
    "downscale": 0.6,
    "jpeg": 30,
}


def test_every_change_is_tried_here():
    assert list(ON) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_off_is_off_and_on_is_drawn_by_seed_and_place(name):
    images = np.repeat(images_of(1, 12), 20, axis=0)
    strengths = Augmentation(**{name: ON[name]})

    def run(images, seed=SEED):
        return np.asarray(augment(images, strengths, seed, image_size=10))

    results = run(images)
    np.testing.assert_array_equal(run(images), results)
    np.testing.assert_array_equal(run(images[:7]), results[:7])
    assert len({one.tobytes() for one in results}) > 1
    assert np.any(run(images, (5, 18)) != results)
    assert np.any(results != images[:, 1:11, 1:11])
    assert results.min() >= 0
    assert results.max() <= 255
    assert run(images[:0]).shape == (0, 10, 10, 3)
    off = Augmentation(**{name: type(ON[name])()})
    np.testing.assert_array_equal(augment(images, off, SEED, image_size=10), images[:, 1:11, 1:11])


def test_all_together_traced_with_an_unknown_batch():
    strengths = Augmentation(**ON)
    traced = tf.function(
        lambda images, seed: augment(images, strengths, seed, image_size=10),
        input_signature=[tf.TensorSpec((None, 12, 12, 3), tf.uint8), tf.TensorSpec((2,), tf.int64)],
    )
    assert traced.get_concrete_function().output_shapes.as_list() == [None, 10, 10, 3]
    for n in (0, 1, 9):
        images = images_of(n, 12)
        result = np.asarray(traced(images, tf.constant(SEED, tf.int64)))
        assert result.shape == (n, 10, 10, 3)
        assert np.isfinite(result).all()
        # JPEG may turn a difference in the last bit into one of a whole step.
        expected = np.asarray(augment(images, strengths, SEED, image_size=10))
        assert n == 0 or np.median(np.abs(result - expected)) < 0.1


@pytest.mark.parametrize(
    "wrong",
    [
        {"saturation": 1.1},
        {"hue": 0.6},
        {"grey": -0.1},
        {"blur": 2.0},
        {"blur": float("nan")},
        {"downscale": 1.0},
        {"jpeg": 101},
        {"jpeg": -1},
    ],
)
def test_strengths_out_of_range_are_refused(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(UserError, match=f"^{name} must be .*; got {value}$"):
        Augmentation(**wrong)


# --- settings


def test_every_change_is_a_setting_and_reaches_training(monkeypatch):
    got = []
    monkeypatch.setattr(
        facenet_fast.training.loop,
        "augment",
        lambda images, strengths, seed, image_size: got.append(strengths),
    )
    monkeypatch.setattr(facenet_fast.training.loop, "standardise", lambda images, kind: images)
    facenet_fast.training.loop.preparation(TrainConfig(**ON)).train(None, SEED)
    assert got == [Augmentation(**ON)]


def test_what_came_later_is_off_unless_asked_for():
    later = NAMES[NAMES.index("cutout") + 1 :]
    assert not any(getattr(TrainConfig(), name) for name in later)
    assert not any(PRESETS["facenet"].get(name) for name in NAMES)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_sets_say_all_and_are_legal(name):
    assert list(AUGMENTATIONS[name]) == NAMES
    Augmentation(**AUGMENTATIONS[name])
    TrainConfig(**AUGMENTATIONS[name])


def test_sets_grow():
    weak, middle, strong = (Augmentation(**one) for one in AUGMENTATIONS.values())
    for name in set(NAMES) - {"jpeg"}:
        assert getattr(weak, name) <= getattr(middle, name) <= getattr(strong, name)


def test_the_page_says_what_the_sets_hold():
    page = (Path(__file__).parents[2] / "docs/augmentation.md").read_text()
    table = page.split("|---|---|---:|---:|---:|\n")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert [row[0].strip("`") for row in rows] == NAMES
    for column, name in enumerate(AUGMENTATIONS, start=2):
        said = [
            {"on": 1.0, "off": 0.0}.get(row[column]) or float(row[column].replace("off", "0")) for row in rows
        ]
        assert said == list(AUGMENTATIONS[name].values())


@pytest.fixture
def trained(monkeypatch):
    configs = []
    monkeypatch.setattr(facenet_fast.training.loop, "train", configs.append)

    def run(*arguments):
        assert cli.main(["train", *arguments]) == 0
        return configs[-1]

    return run


def test_augment_gives_defaults_whatever_the_preset_and_flags_win(trained):
    for preset in ("demo", "facenet"):
        config = trained("--hue", "0.3", "--preset", preset, "--augment", "strong", "--no-random-flip")
        expected = {**AUGMENTATIONS["strong"], "hue": 0.3, "random_flip": False}
        assert {name: getattr(config, name) for name in NAMES} == expected
        assert config.margin == (0.2 if preset == "facenet" else 0.5)
    assert trained().hue == 0


def test_augment_is_refused_with_resume(capsys):
    assert cli.main(["train", "--resume", "somewhere", "--augment", "light"]) == 2
    assert "augment must not be given with resume" in capsys.readouterr().err
