from __future__ import annotations

import logging
import re
import shutil

import numpy as np
import pytest

from facenet_fast.checkpoints import load_model
from facenet_fast.config import FreezeConfig, ValidateConfig
from facenet_fast.data.identities import scan_identities, split_identities
from facenet_fast.data.images import ImageStore
from facenet_fast.data.pairs import draw_pairs, read_pairs, write_pairs
from facenet_fast.errors import UserError
from facenet_fast.evaluation.verification import verify
from facenet_fast.evaluation.verify_images import find_pairs_file, verify_images
from facenet_fast.export import freeze
from facenet_fast.models import load_embedder
from facenet_fast.validate import validate
from tests.tiny_run import IMAGE_SIZE, N_IDENTITIES, make_faces, make_run

FIELDS = ("accuracy", "accuracy_std", "val", "val_std", "far", "auc", "eer")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("validate") / "20240101-120000")


@pytest.fixture
def lfw(tmp_path):
    """A folder like LFW's: images/ and pairs.txt."""
    make_faces(tmp_path / "lfw" / "images")
    return tmp_path / "lfw"


def run_validate(images_dir, model, **settings):
    return validate(ValidateConfig(str(images_dir), str(model), **({"lfw_folds": 6} | settings)))


def numbers(result):
    return [getattr(result, name) for name in FIELDS]


def test_prints_the_predecessors_lines(lfw, run_dir, capsys):
    result = run_validate(lfw, run_dir)
    assert capsys.readouterr().out.splitlines() == [
        f"Model directory: {run_dir}",
        "Checkpoint file: model-20240101-120000.ckpt-7",
        "Runnning forward pass on LFW images",
        "",
        f"Accuracy: {result.accuracy:.5f}+-{result.accuracy_std:.5f}",
        f"Validation rate: {result.val:.5f}+-{result.val_std:.5f} @ FAR={result.far:.5f}",
        f"Area Under Curve (AUC): {result.auc:.3f}",
        f"Equal Error Rate (EER): {result.eer:.3f}",
    ]


def test_prints_a_dot_for_every_ten_batches(lfw, run_dir, capsys):
    run_validate(lfw, run_dir, batch_size=1)  # of 24 images
    assert "Runnning forward pass on LFW images\n..\nAccuracy" in capsys.readouterr().out


def test_numbers_are_those_of_the_networks_embeddings(lfw, run_dir):
    pairs = read_pairs(str(lfw / "pairs.txt"), str(lfw / "images"), n_folds=6)
    model, _ = load_model(str(run_dir))

    def embed(paths):
        images, _ = ImageStore(paths, IMAGE_SIZE).read(np.arange(len(paths)))
        images = images.astype(np.float64)
        deviations = np.maximum(images.std(axis=(1, 2, 3), keepdims=True), 1 / np.sqrt(images[0].size))
        return model(
            (images - images.mean(axis=(1, 2, 3), keepdims=True)) / deviations, training=False
        ).numpy()

    wanted = verify(embed(pairs.left), embed(pairs.right), pairs.is_same, pairs.fold)
    assert numbers(run_validate(lfw, run_dir)) == pytest.approx(numbers(wanted), abs=1e-6)


@pytest.mark.parametrize("batch_size", [1, 7, 24, 1000])
def test_batch_size_does_not_change_the_numbers(batch_size, lfw, run_dir):
    assert numbers(run_validate(lfw, run_dir, batch_size=batch_size)) == pytest.approx(
        numbers(run_validate(lfw, run_dir, batch_size=5)), abs=1e-6
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"distance_metric": 1},
        {"use_flipped_images": True},
        {"subtract_mean": True, "distance_metric": 1},
        {"use_fixed_image_standardization": True},
    ],
)
def test_each_option_reaches_the_protocol(settings, lfw, run_dir):
    plain, changed = run_validate(lfw, run_dir), run_validate(lfw, run_dir, **settings)
    assert np.abs(plain.distances - changed.distances).max() > 1e-3


def test_flipped_images_double_the_embedding(lfw, run_dir):
    embedder = load_embedder(str(run_dir))
    pairs = read_pairs(str(lfw / "pairs.txt"), str(lfw / "images"), n_folds=6)
    result = verify_images(embedder, pairs, flipped=True)
    upright, flipped = verify_images(embedder, pairs), run_validate(lfw, run_dir, use_flipped_images=True)
    np.testing.assert_allclose(flipped.distances, result.distances, atol=1e-5)
    assert np.all(flipped.distances >= upright.distances - 1e-6)


def test_fixed_standardisation_of_a_per_image_model_is_warned_of(lfw, run_dir, caplog):
    with caplog.at_level(logging.WARNING, "facenet_fast"):
        run_validate(lfw, run_dir, use_fixed_image_standardization=True)
    assert (
        "was trained on images standardised per_image, and is now given them standardised fixed"
        in caplog.text
    )


# Which pairs


def test_images_and_pairs_may_be_given_in_each_way(lfw, run_dir, tmp_path):
    wanted = numbers(run_validate(lfw, run_dir))
    assert numbers(run_validate(lfw / "images", run_dir)) == wanted  # pairs.txt beside it
    moved = shutil.move(lfw / "pairs.txt", tmp_path / "elsewhere.txt")
    assert numbers(run_validate(lfw / "images", run_dir, lfw_pairs=str(moved))) == wanted
    shutil.move(moved, lfw / "images" / "pairs.txt")
    assert numbers(run_validate(lfw / "images", run_dir)) == wanted  # pairs.txt in it


def test_find_pairs_file_prefers_what_is_given(lfw, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("1\n")
    assert find_pairs_file(str(lfw), str(other)) == (str(other), str(lfw / "images"))
    assert find_pairs_file(str(lfw)) == (str(lfw / "pairs.txt"), str(lfw / "images"))


def test_runs_held_out_pairs_serve_where_there_are_no_others(lfw, tmp_path):
    run_dir = make_run(tmp_path / "run")
    shutil.move(lfw / "pairs.txt", run_dir / "held_out_pairs.txt")
    assert len(run_validate(lfw / "images", run_dir).is_same) == 12 * N_IDENTITIES


def test_no_pairs_file_is_an_error_that_says_what_to_do(lfw, run_dir):
    (lfw / "pairs.txt").unlink()
    with pytest.raises(UserError, match=r"no pairs\.txt in '.*images' nor beside it; .*\(lfw_pairs\)"):
        run_validate(lfw / "images", run_dir)
    with pytest.raises(UserError, match=r"pairs file must exist; got '.*none\.txt'"):
        run_validate(lfw / "images", run_dir, lfw_pairs=str(lfw / "none.txt"))


def test_missing_images_dir_is_an_error(run_dir, tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        run_validate(tmp_path / "nowhere", run_dir)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Person_0\t1", "line 74"),
        ("Person_0\t1\t2\t3\t4", "line 74"),
        ("just some words to be here", "line 74"),
    ],
)
def test_odd_lines_are_told_by_number(lfw, run_dir, line, message):
    with (lfw / "pairs.txt").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=message):
        run_validate(lfw, run_dir)


# Bad images


def test_missing_images_are_listed_and_their_pairs_skipped(lfw, run_dir, caplog, capsys):
    (lfw / "images" / "Person_2" / "Person_2_0003.png").unlink()
    with caplog.at_level(logging.WARNING, "facenet_fast"):
        result = run_validate(lfw, run_dir)
    n_missing = 3 + 2  # as one of 3 same pairs, and beside two images of Person_1
    assert len(result.is_same) == 12 * N_IDENTITIES - n_missing
    assert f"Skipped {n_missing} image pairs\nAccuracy" in capsys.readouterr().out
    assert "Person_2" in caplog.text
    with pytest.raises(UserError, match="Person_2"):
        run_validate(lfw, run_dir, strict=True)


@pytest.mark.parametrize("data", [b"", b"not an image", None])
def test_unreadable_images_are_named_once_and_their_pairs_skipped(lfw, run_dir, data, caplog, capsys):
    path = lfw / "images" / "Person_2" / "Person_2_0003.png"
    path.write_bytes(path.read_bytes()[:60] if data is None else data)
    with caplog.at_level(logging.WARNING, "facenet_fast"):
        result = run_validate(lfw, run_dir)
    assert len(result.is_same) == 12 * N_IDENTITIES - 5
    assert "Skipped 5 image pairs\n" in capsys.readouterr().out
    assert len(re.findall(r"Person_2_0003\.png", caplog.text)) == 1
    with pytest.raises(UserError, match="strict: every image must be readable; 5 of 72 pairs"):
        run_validate(lfw, run_dir, strict=True)


def test_no_readable_image_is_an_error(lfw, run_dir):
    for path in (lfw / "images").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="of 72 pairs none has two that can be read"):
        run_validate(lfw, run_dir)


def test_missing_model_is_an_error(lfw, tmp_path):
    with pytest.raises(UserError, match=r"the model must be a run folder, .*; '.*gone' does not exist"):
        run_validate(lfw, tmp_path / "gone")


def test_store_of_other_images_is_a_programming_error(lfw, run_dir):
    pairs = read_pairs(str(lfw / "pairs.txt"), str(lfw / "images"), n_folds=6)
    with pytest.raises(ValueError, match="the 24 images of the pairs; got 1"):
        verify_images(load_embedder(str(run_dir)), pairs, ImageStore(pairs.left[:1], IMAGE_SIZE))


# The whole way


@pytest.mark.parametrize("settings", [{}, {"standardisation": "fixed", "random_crop": True}])
def test_run_checkpoint_and_frozen_graph_verify_real_faces_alike(settings, orl_dir, tmp_path, capsys):
    run_dir = make_run(tmp_path / "20240101-120000", **settings)
    _, held_out = split_identities(scan_identities("orl"), 10, seed=0)
    pairs = draw_pairs(held_out, 0, 10, 1000)
    write_pairs(pairs, str(run_dir / "held_out_pairs.txt"), "orl")
    frozen = tmp_path / "frozen.pb"
    freeze(FreezeConfig(str(run_dir), str(frozen)))
    capsys.readouterr()

    of_run = run_validate("orl", run_dir, lfw_folds=10)
    of_prefix = run_validate(
        orl_dir,
        run_dir / "model-20240101-120000.ckpt-7",
        lfw_pairs=str(run_dir / "held_out_pairs.txt"),
        lfw_folds=10,
    )
    capsys.readouterr()
    of_graph = run_validate("orl", frozen, lfw_pairs=str(run_dir / "held_out_pairs.txt"), lfw_folds=10)
    assert capsys.readouterr().out.splitlines()[0] == f"Model filename: {frozen}"

    assert numbers(of_prefix) == numbers(of_run)
    assert numbers(of_graph) == pytest.approx(numbers(of_run), abs=0.003)  # should one pair cross a threshold
    np.testing.assert_allclose(of_graph.distances, of_run.distances, atol=1e-5)
    assert len(of_run.is_same) == 1000
    assert of_run.auc > 0.6  # even a random network tells some faces apart


@pytest.mark.slow
def test_lfw_layout_and_pairs_are_read(lfw_dir, run_dir, capsys):
    result = validate(ValidateConfig(str(lfw_dir), str(run_dir), lfw_folds=9))
    assert (len(result.is_same), int(result.is_same.sum())) == (5400, 2700)
    assert "Skipped" not in capsys.readouterr().out
    assert result.auc > 0.5
