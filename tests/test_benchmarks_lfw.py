"""LFW in parts, the protocol that judges on them, its rivals, and what training buys by when."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import lfw_protocol, lfw_rivals, lfw_split, wall_clock
from benchmarks.lfw_protocol import Chosen, Judged, Row
from benchmarks.lfw_rivals import Looks, Rival, Setting
from benchmarks.lfw_split import read_split, split_lfw
from facenet_fast.config import TrainConfig, ValidateConfig
from facenet_fast.data.pairs import read_pairs
from facenet_fast.errors import UserError
from facenet_fast.evaluation.embed import Embedder

# People of each set, and images of each of them.
PEOPLE = {1: [3, 3], 2: [3] * 10, 3: [3] * 10, **{number: [4, 3, 1] for number in range(4, 11)}}


def name_of(number: int, person: int) -> str:
    return f"Set{number}_Person{person}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like LFW's, a pattern a person, with noise; 10 pairs of one and 100 of two in sets 2 and 3."""
    lfw = tmp_path_factory.mktemp("made") / "lfw"
    rng = np.random.default_rng(0)
    sets = ["Nobody_Photographed\t5"]
    for number, counts in PEOPLE.items():
        for person, n_images in enumerate(counts):
            name = name_of(number, person)
            sets.append(f"{name}\t{number}")
            (lfw / "images" / name).mkdir(parents=True)
            pattern = np.kron(rng.integers(0, 200, (8, 8, 1)), np.ones((4, 4, 3)))
            for image in range(1, n_images + 1):
                pixels = np.clip(pattern + rng.normal(scale=25, size=pattern.shape), 0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(
                    lfw / "images" / name / f"{name}_{image:04d}.png"
                )
    lines = ["2\t10"]
    for number in (2, 3):
        lines += [f"{name_of(number, person)}\t1\t{2 + person % 2}" for person in range(10)]
        lines += [
            f"{name_of(number, left)}\t{1 + (left == right)}\t{name_of(number, (right + 1) % 10)}\t3"
            for left in range(10)
            for right in range(10)
            if (right + 1) % 10 != left
        ]
        lines += [
            f"{name_of(number, person)}\t1\t{name_of(number, (person + 1) % 10)}\t1" for person in range(10)
        ]
    (lfw / "pairs.txt").write_text("\n".join(lines) + "\n")
    (lfw / "sets.txt").write_text("\n".join(sets) + "\n")
    return lfw


@pytest.fixture
def lfw(made: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(made, tmp_path / "lfw"))


@pytest.fixture(scope="module")
def split_dir(made: Path) -> Path:
    split_lfw(str(made), str(made.parent / "split"))
    return made.parent / "split"


# -- split ---------------------------------------------------------------------------------------------------


def test_parts(made: Path, split_dir: Path) -> None:
    split = read_split(str(made), str(split_dir))
    assert split.train.names == tuple(
        sorted(
            (name_of(n, p) for n in range(4, 11) for p in range(3)),
            key=lambda name: int(name[3:].split("_")[0]),
        )
    )
    assert split.train.n_images == 7 * 8
    everything = read_pairs(str(made / "pairs.txt"), str(made / "images"))
    for pairs, number in ((split.test, 2), (split.choose, 3)):
        prefix = str(made / "images" / f"Set{number}_")
        wanted = {
            (left, right, same)
            for left, right, same in zip(everything.left, everything.right, everything.is_same, strict=True)
            if left.startswith(prefix)
        }
        assert len(wanted) == len(pairs) == 110
        assert set(zip(pairs.left, pairs.right, pairs.is_same, strict=True)) == wanted
        for fold in range(10):
            assert sorted(pairs.is_same[pairs.fold == fold]) == [False] * 10 + [True]


def test_links_go_along_when_both_folders_move(made: Path, split_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(made.parent, tmp_path / "moved", symlinks=True)
    moved = tmp_path / "moved"
    split = read_split(str(moved / "lfw"), str(moved / "split"))
    assert {Path(os.path.realpath(path)).parents[1] for path in split.train.paths} == {
        moved / "lfw" / "images"
    }


def test_an_earlier_split_is_replaced_and_nothing_else(lfw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    split_lfw(str(lfw), str(out))
    (out / "choose.txt").write_text("spoilt")
    split_lfw(str(lfw), str(out))
    assert len(read_split(str(lfw), str(out)).choose) == 110
    (out / "mine.txt").write_text("precious")
    with pytest.raises(
        UserError, match=r"the output must be a folder, new, empty or an earlier split of LFW"
    ):
        split_lfw(str(lfw), str(out))
    assert (out / "mine.txt").read_text() == "precious"


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("sets.txt", "Set4_Person0\t4", "Set4_Person0 4", r"line \d+: a line must be PERSON, TAB, SET"),
        ("sets.txt", "Set4_Person0\t4", "Set4_Person0\t11", r"SET from 1 to 10; got 'Set4_Person0\\t11'"),
        (
            "sets.txt",
            "Set4_Person0\t4",
            "Set3_Person0\t4",
            r"nobody may be in two sets; Set3_Person0 is in 3 and 4",
        ),
        (
            "sets.txt",
            "Set2_Person0\t2",
            "Someone\t2",
            r"everybody of .* must be in a set of LFW; got Set2_Person0",
        ),
        (
            "sets.txt",
            "Set2_Person0\t2",
            "Set2_Person0\t3",
            r"must be of one set of LFW; got Set2_Person0 of set 3",
        ),
        ("pairs.txt", "Set2_Person0\t1\t2", "Set2_Person0\t1\t9", r"every image of .* must be in"),
    ],
)
def test_what_is_wrong_is_said(lfw: Path, tmp_path: Path, file: str, old: str, new: str, said: str) -> None:
    text = (lfw / file).read_text()
    assert text.count(f"{old}\n") == 1
    (lfw / file).write_text(text.replace(f"{old}\n", f"{new}\n"))
    with pytest.raises(UserError, match=said):
        split_lfw(str(lfw), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_missing_files_are_said(lfw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"the split must be a folder with train, choose\.txt and test\.txt"):
        read_split(str(lfw), str(tmp_path / "out"))
    (lfw / "sets.txt").unlink()
    with pytest.raises(SystemExit):
        lfw_split.main([str(lfw), str(tmp_path / "out")])
    assert "LFW's sets must be in a readable file of lines PERSON, TAB, SET" in capsys.readouterr().err


@pytest.mark.parametrize("number", [2, 3])
def test_nobody_is_trained_on_who_is_judged_by(lfw: Path, tmp_path: Path, number: int) -> None:
    out = tmp_path / "out"
    split_lfw(str(lfw), str(out))
    os.symlink(lfw / "images" / name_of(number, 4), out / "train" / name_of(number, 4))
    with pytest.raises(
        UserError, match=rf"nobody may be in both train and (choose|test).txt .* got Set{number}_Person4"
    ):
        read_split(str(lfw), str(out))


# -- protocol ------------------------------------------------------------------------------------------------


def slow_protocol(choose, choose_same, test, test_same):
    """Try each threshold between two distances, and count pairs of pairs."""
    ascending = sorted(set(choose))
    middles = [ascending[0] - 1, *((a + b) / 2 for a, b in itertools.pairwise(ascending)), ascending[-1] + 1]
    rightly = [sum((d < t) == s for d, s in zip(choose, choose_same, strict=True)) for t in middles]
    threshold = middles[rightly.index(max(rightly))]
    accuracy = sum((d < threshold) == s for d, s in zip(test, test_same, strict=True)) / len(test)
    same = [d for d, s in zip(test, test_same, strict=True) if s]
    different = [d for d, s in zip(test, test_same, strict=True) if not s]
    auc = sum((a < b) + (a == b) / 2 for a in same for b in different) / (len(same) * len(different))
    most = len(different) // 100
    val = max(sum(d <= t for d in same) for t in [-1, *test] if sum(d <= t for d in different) <= most) / len(
        same
    )
    return max(rightly) / len(choose), accuracy, auc, val


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("digits", [1, 8])
def test_protocol_is_the_slow_one(seed: int, digits: int) -> None:
    rng = np.random.default_rng(seed)
    is_same = rng.permutation(np.arange(600) < 300)
    choose, test = (np.round(rng.normal(np.where(is_same, 0.8, 1.5), 0.4), digits) for _ in range(2))
    chosen = lfw_protocol.choose(choose, is_same)
    judged = lfw_protocol.judge(chosen, test, is_same)
    expected = slow_protocol(choose.tolist(), is_same.tolist(), test.tolist(), is_same.tolist())
    assert (chosen.accuracy, judged.accuracy, judged.auc, judged.val) == pytest.approx(expected, abs=1e-12)
    assert judged.standard_error == pytest.approx(np.sqrt(judged.accuracy * (1 - judged.accuracy) / 600))


def test_val_allows_three_of_300() -> None:
    is_same = np.arange(600) < 300
    # Three different pairs are nearest, then 200 same ones, then the fourth different one.
    nearness = np.concatenate([np.full(200, 2.0), np.full(100, 5.0), [1, 1, 1, 3], np.full(296, 6.0)])
    judged = lfw_protocol.judge(Chosen(2.5, 0.0, 0.0), nearness, is_same)
    assert judged.val == 200 / 300
    assert judged.accuracy == (200 + 297) / 600


@pytest.fixture
def halves() -> Embedder:
    """Embed an image as the sums of its left and right half, not normalised."""
    return Embedder(
        lambda images: images.reshape(len(images), 16, 2, 8, 3).sum(axis=(1, 3, 4)) / 100 + 3,
        16,
        "fixed",
        2,
        "halves",
    )


def test_flip_averaging_is_the_mean_brought_to_length_one(
    made: Path, split_dir: Path, halves: Embedder
) -> None:
    pairs = read_split(str(made), str(split_dir)).test

    def embedded(path: str) -> tuple[np.ndarray, np.ndarray]:
        pixels = np.asarray(Image.open(path).resize((16, 16), Image.Resampling.BILINEAR, reducing_gap=None))
        values = (pixels.astype(np.float64) - 127.5) / 128
        row = np.array([values[:, :8].sum(), values[:, 8:].sum()]) / 100 + 3
        mean = (row + row[::-1]) / 2
        return row, mean / np.linalg.norm(mean)

    found = lfw_protocol.pair_distances(halves, pairs)
    for flipped in (False, True):
        expected = [
            np.sum((embedded(left)[flipped] - embedded(right)[flipped]) ** 2)
            for left, right in zip(pairs.left, pairs.right, strict=True)
        ]
        np.testing.assert_allclose(found[flipped], expected, rtol=1e-4, atol=1e-6)


def test_choosing_does_not_look_at_the_test(made: Path, split_dir: Path, halves: Embedder) -> None:
    split = read_split(str(made), str(split_dir))
    unseen = lfw_split.Split(split.train, split.choose, None)
    rows = lfw_protocol.judge_runs(["some/run"], unseen, lambda run_dir: halves, only_choose=True)
    assert [(row.name, row.minutes, row.flipped, row.judged) for row in rows] == [
        ("run", None, False, None),
        ("run", None, True, None),
    ]
    lines = lfw_protocol.table(rows).splitlines()
    assert "set 2" not in lines[0]
    assert {line.count("|") for line in lines} == {6}


def test_unreadable_images_are_an_error(lfw: Path, tmp_path: Path, halves: Embedder) -> None:
    split = split_lfw(str(lfw), str(tmp_path / "out"))
    Path(split.test.left[0]).write_bytes(b"no image")
    with (
        pytest.raises(
            UserError, match=r"all images of the pairs must be readable; \d+ of 110 pairs lack one"
        ),
    ):
        lfw_protocol.judge_embedder(halves, split)


def test_table_has_runs_and_their_mean() -> None:
    rows = [
        Row("a", 1.0, True, Chosen(0.5, 0.7, 0.8), Judged(0.6, 0.02, 0.65, 0.1)),
        Row("b", 2.0, True, Chosen(0.5, 0.8, 0.9), Judged(0.7, 0.02, 0.75, 0.3)),
        Row("a", 1.0, False, Chosen(0.5, 0.1, 0.1), Judged(0.1, 0.02, 0.1, 0.1)),
    ]
    lines = lfw_protocol.table(rows, lfw_protocol.mean_rows(rows)).splitlines()
    assert lines[2] == "| a | 1.0 | yes | 0.700 | 0.800 | 0.600 (0.020) | 0.650 | 0.100 |"
    # Of 0.6 and 0.7: 0.05 * sqrt(2).
    mean = "| mean of 2 runs | 1.5 +- 0.7 | yes | 0.750 +- 0.071 | 0.850 +- 0.071 |"
    assert lines[5:] == [f"{mean} 0.650 +- 0.071 | 0.700 +- 0.071 | 0.200 +- 0.141 |"]


def test_minutes_are_the_whole_run_s_for_its_best_weights(tmp_path: Path) -> None:
    write_metrics(tmp_path / "run" / "metrics.jsonl", [(1, "loss", 1.0, 30), (2, "lfw/auc", 0.5, 90)])
    (tmp_path / "run" / "best").mkdir()
    assert lfw_protocol.minutes_of(str(tmp_path / "run")) == 1.5
    assert lfw_protocol.minutes_of(str(tmp_path / "run" / "best")) == 1.5
    assert lfw_protocol.minutes_of(str(tmp_path)) is None


@pytest.mark.slow
def test_train_validate_and_protocol_read_the_split(
    made: Path, split_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from facenet_fast.training.loop import train
    from facenet_fast.validate import validate

    pairs = {"lfw_dir": str(made), "lfw_pairs": str(split_dir / "choose.txt")}
    config = TrainConfig(
        data_dir=str(split_dir / "train"),
        n_held_out=0,
        **pairs,
        backbone="tests.tiny_run:features",
        image_size=24,
        embedding_size=6,
        identities_per_batch=6,
        images_per_identity=3,
        epochs=1,
        epoch_size=2,
        baselines=False,
        runs_dir=str(tmp_path),
    )
    result = train(config)
    chosen = validate(
        ValidateConfig(str(made), result.run_dir, pairs=str(split_dir / "choose.txt"), resamples=0)
    )
    capsys.readouterr()
    lfw_protocol.main([str(split_dir), str(made), result.run_dir])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [f"| {os.path.basename(result.run_dir)}"] * 2
    # Neither looks at the threshold of the other, and both at the same pairs.
    assert float(lines[2].split(" | ")[4]) == pytest.approx(chosen.exact.auc, abs=5e-4)


# -- rivals --------------------------------------------------------------------------------------------------

WHOLE = Looks(crop=128, size=16)
TINY_RIVALS = {
    "pixels": Rival("pixels", lfw_rivals._pixels, lfw_rivals._nothing, [WHOLE], (Setting(),)),
    "pca": Rival("pca", lfw_rivals._pixels, lfw_rivals._whitened_pca, [WHOLE], lfw_rivals._settings((4, 8))),
    "lda": Rival("lda", lfw_rivals._pixels, lfw_rivals._lda, [WHOLE], lfw_rivals._settings((8, 16), (4, 8))),
    "hog": Rival(
        "hog", lfw_rivals._hog, lfw_rivals._lda, [Looks(128, 32)], lfw_rivals._settings((16,), (8, 16))
    ),
}


@pytest.mark.parametrize("name", TINY_RIVALS)
def test_rivals_know_people_who_look_alike_to_themselves(made: Path, split_dir: Path, name: str) -> None:
    if name == "hog":
        pytest.importorskip("skimage")
    split = read_split(str(made), str(split_dir))
    told: list[str] = []
    found, row = lfw_rivals.try_rival(TINY_RIVALS[name], split, told.append)
    assert row.judged is not None
    assert row.judged.auc > 0.85
    assert f"{found.chosen.auc:.3f}" in told[-1]
    assert (row.minutes is None) == (name == "pixels")


def test_pixels_are_correlations_of_grey_images(made: Path, split_dir: Path) -> None:
    split = read_split(str(made), str(split_dir))
    rival = Rival("pixels", lfw_rivals._pixels, lfw_rivals._nothing, [Looks(128, 32)], (Setting(),))
    found = next(lfw_rivals._tries(rival, split))

    def grey(path: str) -> np.ndarray:
        return np.asarray(Image.open(path), dtype=np.float64).mean(axis=2).ravel()

    measured = np.array(
        [
            2 - 2 * np.corrcoef(grey(a), grey(b))[0, 1]
            for a, b in zip(split.choose.left, split.choose.right, strict=True)
        ]
    )
    expected = lfw_protocol.choose(measured, split.choose.is_same)
    assert found.chosen.threshold == pytest.approx(expected.threshold, abs=1e-5)
    assert (found.chosen.accuracy, found.chosen.auc) == pytest.approx(
        (expected.accuracy, expected.auc), abs=1e-9
    )


@pytest.mark.parametrize("fit", [lfw_rivals._whitened_pca, lfw_rivals._lda])
def test_fits_together_are_those_alone(fit) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), 4).astype(np.int32)
    rows = (rng.normal(size=(12, 20))[labels] + 0.3 * rng.normal(size=(48, 20))).astype(np.float32)
    settings = [Setting(5, 2), Setting(10, 2), Setting(10, 6)]
    for together, setting in zip(fit(rows, labels, settings), settings, strict=True):
        (alone,) = fit(rows, labels, [setting])
        np.testing.assert_allclose(
            together(rows) @ together(rows).T, alone(rows) @ alone(rows).T, rtol=0, atol=5e-3
        )


def test_whitened_components_vary_alike() -> None:
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(200, 6)) * [9, 7, 5, 0.3, 0.2, 0.1] + 3).astype(np.float32)
    (project,) = lfw_rivals._whitened_pca(rows, np.arange(200, dtype=np.int32), [Setting(3)])
    centred = rows - rows.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(centred.T))
    white = centred @ vectors[:, 3:] / np.sqrt(values[3:])
    white /= np.linalg.norm(white, axis=1, keepdims=True)
    np.testing.assert_allclose(project(rows) @ project(rows).T, white @ white.T, rtol=0, atol=1e-3)


def test_a_mirror_image_is_no_second_image_of_a_person() -> None:
    rng = np.random.default_rng(0)
    # Ten people of two images, and one of one whose mirror image is far from it: as a person of two it would
    # make that direction one in which people vary.
    labels = np.append(np.repeat(np.arange(10), 2), 10).astype(np.int32)
    rows = rng.normal(size=(21, 6)).astype(np.float32)
    rows[:20] = np.repeat(rows[:20:2], 2, axis=0) + 0.1 * rows[:20]
    mirrored = rows.copy()
    mirrored[20] += 50.0
    settings = [Setting(6, 6, mirrored=True)]
    (project,) = lfw_rivals._lda(np.concatenate([rows, mirrored]), np.tile(labels, 2), settings)
    kept = np.tile(labels, 2) != 10
    from sklearn.decomposition import PCA
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    both = np.concatenate([rows, mirrored])
    components = PCA(6, svd_solver="full").fit_transform(both)
    expected = (
        LinearDiscriminantAnalysis().fit(components[kept], np.tile(labels, 2)[kept]).transform(components)
    )
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(project(both) @ project(both).T, expected @ expected.T, rtol=0, atol=1e-3)


# -- wall clock ----------------------------------------------------------------------------------------------


def write_metrics(path: Path, lines: list[tuple[int, str, float, float]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(
            json.dumps({"step": step, "name": name, "value": value, "seconds": seconds}) + "\n"
            for step, name, value, seconds in lines
        )
    )
    return path


def made_up_run(path: Path, aucs: list[float], step_seconds: float = 6.0) -> Path:
    """Two steps an epoch of 100 images each; 50 seconds pass between epochs, which are not training."""
    lines: list[tuple[int, str, float, float]] = []
    clock = 0.0
    for epoch, auc in enumerate(aucs):
        for step in (2 * epoch - 1, 2 * epoch) if epoch else ():
            clock += step_seconds
            lines += [
                (step, "time/step", step_seconds, clock),
                (step, "images_per_second", 100 / step_seconds, clock),
            ]
        clock += 50
        lines += [(2 * epoch, "lfw/accuracy", auc - 0.1, clock), (2 * epoch, "lfw/auc", auc, clock)]
    return write_metrics(path, lines)


def test_only_training_counts(tmp_path: Path) -> None:
    trained = wall_clock.read_trained(made_up_run(tmp_path / "metrics.jsonl", [0.5, 0.6, 0.7]), "lfw")
    np.testing.assert_allclose(trained.minutes, [0.0, 0.2, 0.4])
    assert trained.auc.tolist() == [0.5, 0.6, 0.7]
    np.testing.assert_allclose(trained.accuracy, [0.4, 0.5, 0.6])
    assert trained.n_steps.tolist() == [0, 2, 4]
    assert trained.n_images.tolist() == [0, 200, 400]
    assert trained.until(0.3).n_steps.tolist() == [0, 2]
    assert trained.reaches("auc", 0.6) == pytest.approx(0.2)
    assert trained.reaches("auc", 0.71) is None
    assert not trained.ended


def test_a_run_that_ended_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made_up_run(tmp_path / "run" / "metrics.jsonl", [0.5, 0.6, 0.7])
    (path.parent / "report").mkdir()
    trained = wall_clock.read_trained(path, "lfw")
    assert trained.ended
    assert trained.until(0.4).ended
    assert not trained.until(0.3).ended
    monkeypatch.setattr(wall_clock.subprocess, "Popen", lambda *_, **__: pytest.fail("trained again"))
    contest = wall_clock.contests("out", "lfw")["lfw"]
    assert wall_clock.train(contest, "unique", 0.001, tmp_path, 15.0, []).ended


def test_a_run_that_is_cut_short_is_read(tmp_path: Path) -> None:
    path = made_up_run(tmp_path / "metrics.jsonl", [0.5, 0.6, 0.7])
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))  # accuracy, but not yet AUC
    assert wall_clock.read_trained(path, "lfw").minutes.tolist() == pytest.approx([0.0, 0.2])
    path.write_text("".join(lines[:2]))
    assert wall_clock.read_trained(path, "lfw").minutes.tolist() == [0.0]
    with pytest.raises(UserError, match="must have verifications of held_out; got none"):
        wall_clock.read_trained(path, "held_out")


def test_wall_clock_table_and_picture(tmp_path: Path) -> None:
    from benchmarks.plots import plot_wall_clock

    def run(name: str, aucs: list[float], step_seconds: float) -> wall_clock.Trained:
        return wall_clock.read_trained(made_up_run(tmp_path / name, aucs, step_seconds), "lfw")

    runs = {
        "lfw": {
            "unique": {0.1: run("a", [0.5, 0.7, 0.9], 30.0), 0.2: run("b", [0.5, 0.6], 30.0)},
            # Better only when the time is over.
            "triplets": {0.1: run("c", [0.5, 0.6, 0.8, 0.95], 30.0)},
        }
    }
    results = wall_clock.best_rates(runs)
    text = wall_clock.wall_clock_table(results, {"lfw": "LFW"}, 2.0)
    lines = text.splitlines()
    header = "| 1 min | 2 min | ended | at the end | best |"
    assert lines[0].startswith(f"|  | `--step` | rate {header}")
    unique = "| 0.600, 0.700 | 0.800, 0.900 | - | - | 0.800, 0.900 | 4 | 400 | 2.0 min, 2.0 min |"
    triplets = "| 0.500, 0.600 | 0.700, 0.800 | - | - | 0.700, 0.800 | 4 | 400 | never, never |"
    assert lines[2:] == [f"| LFW | `unique` | 0.1 {unique}", f"| LFW | `triplets` | 0.1 {triplets}"]
    rate, trained = results["lfw"]["unique"]
    ended = {"lfw": {"unique": (rate, dataclasses.replace(trained, ended=True))}}
    text = wall_clock.wall_clock_table(ended, {"lfw": "LFW"}, 15.0)
    assert "| 0.600, 0.700 | 0.800, 0.900 | - | - | - | 2.0 min | 0.800, 0.900 | 0.800, 0.900 |" in text
    panels = {"LFW": {way: trained for way, (_, trained) in results["lfw"].items()}}
    plot_wall_clock(panels, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_contests_are_settings_of_train(made: Path, split_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from facenet_fast import cli
    from facenet_fast.training import loop

    got: list[TrainConfig] = []
    monkeypatch.setattr(loop, "train", got.append)

    for contest in wall_clock.contests(str(split_dir), str(made)).values():
        for way, batch_size in contest.batch_sizes.items():
            flags = ["--step", way, "--batch-size", str(batch_size), *wall_clock.COMMON, *contest.flags]
            assert cli.main(["train", *flags]) == 0
            config = got.pop()
            assert config.evaluate_every == 1
            assert config.n_steps > 10**6
            # As many images a step, in whole triplets.
            n_pool = config.identities_per_batch * config.images_per_identity
            assert batch_size - n_pool in ((0,) if way == "unique" else (0, 1, 2))
            assert way == "unique" or batch_size % 3 == 0


@pytest.mark.slow
def test_runs_are_stopped_in_time_and_not_made_again(made: Path, split_dir: Path, tmp_path: Path) -> None:
    contest = wall_clock.contests(str(split_dir), str(made))["lfw"]
    tiny = "--backbone tests.tiny_run:features --image-size 24 --central-fraction 1 --epoch-size 2"
    tiny += " --identities-per-batch 6 --images-per-identity 3 --embedding-size 6"
    trained = wall_clock.train(contest, "triplets", 0.001, tmp_path / "run", 0.02, tiny.split())
    assert trained.minutes[-1] >= 0.02
    assert trained.n_steps[-1] >= 2
    again = wall_clock.train(contest, "triplets", 0.001, tmp_path / "run", 0.02, tiny.split())
    assert again.auc.tolist() == trained.auc.tolist()
    assert len(list((tmp_path / "run").glob("*/metrics.jsonl"))) == 1
    with pytest.raises(UserError, match=r"training with unique must not fail; .* got 'no_such'"):
        wall_clock.train(contest, "unique", 0.001, tmp_path / "other", 0.02, ["--backbone", "no_such"])
