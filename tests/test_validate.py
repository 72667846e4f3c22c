from __future__ import annotations

import logging
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from facenet_fast.checkpoints import load_model
from facenet_fast.config import FreezeConfig, ValidateConfig
from facenet_fast.data.identities import scan_identities, split_identities
from facenet_fast.data.images import ImageStore
from facenet_fast.data.pairs import draw_pairs, read_pairs, write_pairs
from facenet_fast.errors import UserError
from facenet_fast.evaluation.embed import embed_images
from facenet_fast.evaluation.exact import exact_verification
from facenet_fast.evaluation.roc import exact_roc
from facenet_fast.evaluation.verification import distances, verify
from facenet_fast.evaluation.verify_images import find_pairs_file, verify_images
from facenet_fast.export import freeze
from facenet_fast.models import load_embedder
from facenet_fast.thresholds import load_thresholds
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


def run_whole(images_dir, model, **settings):
    given = {"lfw_folds": 6, "resamples": 0, "save_thresholds": False} | settings
    return validate(ValidateConfig(str(images_dir), str(model), **given))


def run_validate(images_dir, model, **settings):
    return run_whole(images_dir, model, **settings).lfw


def numbers(result):
    return [getattr(result, name) for name in FIELDS]


def test_prints_the_predecessors_lines(lfw, run_dir, capsys):
    result = run_validate(lfw, run_dir)
    assert capsys.readouterr().out.splitlines()[:9] == [
        f"Model directory: {run_dir}",
        "Checkpoint file: model-20240101-120000.ckpt-7",
        "Images standardised: per_image (as the model says)",
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
    assert numbers(run_validate(lfw / "images", run_dir, pairs=str(moved))) == wanted
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
    with pytest.raises(
        UserError, match=r"no pairs\.txt in '.*images' nor beside it; say which pairs to verify"
    ):
        run_validate(lfw / "images", run_dir)
    with pytest.raises(UserError, match=r"pairs file must exist; got '.*none\.txt'"):
        run_validate(lfw / "images", run_dir, pairs=str(lfw / "none.txt"))


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


# Exact measures, thresholds and the report


def test_exact_measures_are_those_of_the_same_distances(lfw, run_dir):
    found = run_whole(lfw, run_dir, resamples=40, confidence=0.9, seed=3)
    pairs = read_pairs(str(lfw / "pairs.txt"), str(lfw / "images"), n_folds=6)
    people = [[path.split("/")[-2] for path in side] for side in (pairs.left, pairs.right)]
    wanted = exact_verification(
        found.lfw.distances,
        pairs.is_same,
        fold=pairs.fold,
        left_identity=people[0],
        right_identity=people[1],
        n_resamples=40,
        confidence=0.9,
        seed=3,
    )
    assert found.exact.intervals == wanted.intervals
    assert found.exact.resampled == "identities"
    assert found.exact.operating_points == wanted.operating_points
    assert found.exact.accuracy == wanted.accuracy
    assert found.exact.refused == wanted.refused


def test_exact_measures_and_thresholds_are_printed(lfw, run_dir, capsys):
    exact = run_whole(lfw, run_dir, resamples=40).exact
    told = capsys.readouterr().out
    low, high = exact.intervals["auc"].low, exact.intervals["auc"].high
    assert "36 of one identity, with 95 % intervals (40 resamples of the identities)\n" in told
    assert f"  AUC       {exact.auc:.5f}           [{low:.4f}, {high:.4f}]\n" in told
    (point,) = exact.operating_points
    rate = exact.intervals["val@0.1"]
    assert (
        f"       0.1  {point.threshold:9.4f}  {1 - point.threshold / 2:7.4f}   {point.val:.4f}  "
        f"[{rate.low:.4f}, {rate.high:.4f}]  {point.n_false_accepts}\n" in told
    )
    assert "  Not given: VAL at FAR=0.01 needs at least 100 pairs of different identities; got 36\n" in told


def test_protocol_exact_leaves_out_the_grid(lfw, run_dir, capsys):
    run_whole(lfw, run_dir, protocol="exact")
    told = capsys.readouterr().out
    assert "Validation rate" not in told
    assert "Exact measures of 72 pairs" in told
    assert "resamples" not in told


def test_thresholds_are_kept_with_the_model(lfw, tmp_path, capsys):
    run_dir = make_run(tmp_path / "run")
    assert not (run_dir / "thresholds.json").exists()
    run_whole(lfw, run_dir)
    assert load_thresholds(str(run_dir)) is None
    found = run_whole(lfw, run_dir, save_thresholds=True, distance_metric=1, use_flipped_images=True)
    kept = load_thresholds(str(run_dir))
    assert kept == found.thresholds
    assert (kept.metric, kept.flipped, kept.n_same, kept.n_different) == (1, True, 36, 36)
    assert (kept.source, kept.checkpoint) == ("lfw/pairs.txt", "model-run.ckpt-7")
    assert [point.threshold for point in kept.points] == [found.exact.operating_points[0].threshold]
    path = run_dir / "thresholds.json"
    assert f"Kept for `facenet-fast compare` in {path}\n" in capsys.readouterr().out
    run_whole(lfw, run_dir, save_thresholds=True)
    assert load_thresholds(str(run_dir)).metric == 0
    assert f"compare` in {path}, in the place of those before\n" in capsys.readouterr().out


def test_a_model_in_a_folder_that_cannot_be_written_is_verified_all_the_same(lfw, run_dir, tmp_path, capsys):
    model = tmp_path / "model.pb"
    freeze(FreezeConfig(str(run_dir), str(model)))
    (tmp_path / "model.pb.thresholds.json").mkdir()  # which no file can replace, not even root's
    report = tmp_path / "report"
    found = run_whole(lfw, model, save_thresholds=True, report=str(report))
    assert found.thresholds.points
    assert f"Not kept with the model: cannot write '{model}.thresholds.json': " in capsys.readouterr().out
    assert (report / "index.html").exists()


def test_thresholds_under_a_subtracted_mean_are_not_kept(lfw, tmp_path, capsys):
    run_dir = make_run(tmp_path / "run")
    run_whole(lfw, run_dir, save_thresholds=True, subtract_mean=True)
    assert load_thresholds(str(run_dir)) is None
    told = capsys.readouterr().out
    assert "Not kept with the model: a single image has no folds" in told
    assert re.search(r"\n       0\.1 +\d\.\d{4} +- ", told)  # no cosine either


def test_a_report_is_written(lfw, run_dir, tmp_path, capsys):
    found = run_whole(lfw, run_dir, report=str(tmp_path / "deep" / "report"), resamples=20)
    files = {path.name for path in (tmp_path / "deep" / "report").iterdir()}
    assert files == {"index.html", "roc.png", "det.png", "distances.png", "metrics.json"}
    page = (tmp_path / "deep" / "report" / "index.html").read_text()
    assert "Verification of model-20240101-120000.ckpt-7" in page
    assert "lfw/pairs.txt" in page
    wrong = found.lfw.distances < found.exact.threshold
    n_wrong = np.count_nonzero(wrong & ~found.lfw.is_same), np.count_nonzero(~wrong & found.lfw.is_same)
    assert all(f">{n}<" in page or f"{n} " in page for n in n_wrong)
    assert re.search(r"Person_\d/Person_\d_000\d\.png", page)
    assert f"Report: {tmp_path / 'deep' / 'report' / 'index.html'}\n" in capsys.readouterr().out


def test_an_unwritable_report_is_told_before_any_work(lfw, run_dir, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="the folder of the report must be writable"):
        run_whole(lfw, run_dir, report=str(tmp_path / "file"))
    assert capsys.readouterr().out == ""


# Other pairs than a file's


def test_drawn_pairs_are_written_and_read_again(lfw, run_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    found = run_whole(lfw / "images", run_dir, pairs="auto", max_pairs=40, seed=5, lfw_folds=4)
    assert (len(found.lfw.is_same), int(found.lfw.is_same.sum())) == (40, 20)
    path = tmp_path / "pairs_images_5.txt"
    assert "--pairs ./pairs_images_5.txt --lfw-folds 4\n" in capsys.readouterr().out
    again = run_validate(lfw / "images", run_dir, pairs=str(path), lfw_folds=4)
    assert numbers(again) == numbers(found.lfw)
    path.write_text("mine")
    other = run_whole(lfw / "images", run_dir, pairs="auto", max_pairs=40, seed=5, lfw_folds=4)
    assert path.read_text() == "mine"  # nothing of the user's is lost
    assert numbers(other.lfw) == numbers(found.lfw)
    assert (tmp_path / "pairs_images_5_2.txt").exists()
    changed = run_whole(lfw / "images", run_dir, pairs="auto", max_pairs=40, seed=6, lfw_folds=4)
    assert numbers(changed.lfw) != numbers(found.lfw)


def test_drawn_pairs_go_to_the_report(lfw, run_dir, tmp_path):
    run_whole(lfw / "images", run_dir, pairs="auto", lfw_folds=4, report=str(tmp_path / "report"))
    assert (tmp_path / "report" / "pairs_images_0.txt").exists()


def test_a_packed_set_gives_the_numbers_of_its_files(lfw, run_dir, tmp_path, capsys):
    pairs = read_pairs(str(lfw / "pairs.txt"), str(lfw / "images"), n_folds=6)
    images = [Path(path).read_bytes() for pair in zip(pairs.left, pairs.right, strict=True) for path in pair]
    packed = tmp_path / "faces.bin"
    packed.write_bytes(pickle.dumps((images, pairs.is_same.tolist())))
    found = run_whole(packed, run_dir, resamples=20, report=str(tmp_path / "report"))
    assert numbers(found.lfw) == pytest.approx(numbers(run_validate(lfw, run_dir)), abs=1e-6)
    assert found.exact.resampled == "pairs"  # whose images they are is not known
    assert found.thresholds.source == "faces.bin"
    assert "faces.bin#" in (tmp_path / "report" / "index.html").read_text()
    for settings in ({"all_pairs": True}, {"pairs": "some.txt"}):
        with pytest.raises(UserError, match="packed set"):
            run_whole(packed, run_dir, **settings)


def test_all_pairs_of_a_folder(lfw, run_dir, tmp_path, capsys):
    (lfw / "images" / "Person_2" / "Person_2_0003.png").write_bytes(b"")
    with pytest.raises(UserError, match="strict: every image must be readable; 1 are not"):
        run_whole(lfw / "images", run_dir, all_pairs=True, strict=True)
    found = run_whole(lfw / "images", run_dir, all_pairs=True, report=str(tmp_path / "report"))
    dataset = scan_identities(str(lfw / "images")).without(
        [str(lfw / "images" / "Person_2" / "Person_2_0003.png")]
    )
    embedder = load_embedder(str(run_dir))
    rows = embed_images(embedder, ImageStore(dataset.paths, IMAGE_SIZE))
    left, right = np.triu_indices(23, 1)
    measured = distances(rows[left], rows[right])
    same = dataset.labels[left] == dataset.labels[right]
    assert found.lfw is None
    assert (found.exact.roc.n_same, found.exact.roc.n_different) == (same.sum(), (~same).sum())
    wanted = exact_roc(measured, same)
    assert found.exact.auc == pytest.approx(wanted.auc, abs=1e-3)
    assert found.exact.operating_points[0].val == pytest.approx(wanted.at_far(0.1).val, abs=0.03)
    nearest = np.array([np.delete(np.arange(23), i) for i in range(23)])
    own = [
        dataset.labels[
            others[np.argmin(distances(np.broadcast_to(rows[i], (22, rows.shape[1])), rows[others]))]
        ]
        for i, others in enumerate(nearest)
    ]
    assert found.retrieval.recall_at[1] == pytest.approx(np.mean(own == dataset.labels))
    told = capsys.readouterr().out
    assert "Exact measures of 253 pairs, 33 of one identity\n" in told
    assert f"Search among all images (23 queries): recall@1 {found.retrieval.recall_at[1]:.4f}, " in told
    assert "Identification, one image each of " in told
    assert "Distances are known to " in told
    page = (tmp_path / "report" / "index.html").read_text()
    assert "recall@1" in page
    assert re.search(r"Person_\d/Person_\d_000\d\.png", page)


def test_too_few_people_for_a_gallery_lose_nothing_else(lfw, run_dir, tmp_path, capsys):
    for n in range(1, N_IDENTITIES):
        for image in (2, 3, 4):
            (lfw / "images" / f"Person_{n}" / f"Person_{n}_{image:04d}.png").unlink()
    found = run_whole(lfw / "images", run_dir, all_pairs=True, report=str(tmp_path / "report"))
    assert found.identification is None
    assert found.retrieval.n_queries == 4
    assert "  Not given: identification needs 2 identities with 2 images; got 1" in capsys.readouterr().out
    assert "recall@1" in (tmp_path / "report" / "index.html").read_text()


def test_all_pairs_take_no_pairs():
    for settings in ({"pairs": "auto"}, {"subtract_mean": True}):
        with pytest.raises(UserError, match=f"{next(iter(settings))} must not be given with all_pairs"):
            ValidateConfig("images", "run", all_pairs=True, **settings)


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
        pairs=str(run_dir / "held_out_pairs.txt"),
        lfw_folds=10,
    )
    capsys.readouterr()
    of_graph = run_validate("orl", frozen, pairs=str(run_dir / "held_out_pairs.txt"), lfw_folds=10)
    assert capsys.readouterr().out.splitlines()[0] == f"Model filename: {frozen}"

    assert numbers(of_prefix) == numbers(of_run)
    assert numbers(of_graph) == pytest.approx(numbers(of_run), abs=0.003)  # should one pair cross a threshold
    np.testing.assert_allclose(of_graph.distances, of_run.distances, atol=1e-5)
    assert len(of_run.is_same) == 1000
    assert of_run.auc > 0.6  # even a random network tells some faces apart


@pytest.mark.slow
def test_lfw_layout_and_pairs_are_read(lfw_dir, run_dir, capsys):
    result = run_validate(lfw_dir, run_dir, lfw_folds=9)
    assert (len(result.is_same), int(result.is_same.sum())) == (5400, 2700)
    assert "Skipped" not in capsys.readouterr().out
    assert result.auc > 0.5
