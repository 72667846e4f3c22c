"""Whole runs on a small folder: what they write, go on from, and say."""

import json
import signal

import numpy as np
import pytest
from PIL import Image

from facenet_fast.checkpoints import load_model
from facenet_fast.config import TrainConfig
from facenet_fast.errors import UserError
from facenet_fast.training import loop
from facenet_fast.training.loop import train
from facenet_fast.training.pools import Pool
from facenet_fast.training.run_folder import resumed_config
from facenet_fast.training.step import TripletStep, UniqueStep


def metrics(run_dir, name):
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["value"]) for line in lines if line["name"] == name]


def weights_of(run_dir):
    return load_model(str(run_dir))[0].get_weights()


@pytest.fixture
def run_dir_of(tmp_path):
    def newest():
        return max((tmp_path / "runs").iterdir(), key=lambda path: path.stat().st_ctime_ns)

    return newest


def test_a_run_writes_what_it_promises(tiny, run_dir_of, capsys):
    result = train(TrainConfig(**tiny))
    run_dir = run_dir_of()
    stamp = run_dir.name
    assert result.run_dir == str(run_dir)
    assert result.n_steps == 6
    assert result.checkpoint == str(run_dir / f"model-{stamp}.ckpt-6")
    names = {path.name for path in run_dir.iterdir()}
    assert names >= {
        "config.json",
        "arguments.txt",
        "revision_info.txt",
        "metrics.jsonl",
        "held_out_pairs.txt",
        "verification_held_out.png",
        "checkpoint",
        f"model-{stamp}.ckpt-3.index",
        f"model-{stamp}.ckpt-6.index",
        f"model-{stamp}.ckpt-6.data-00000-of-00001",
    }
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert [step for step, _ in metrics(run_dir, "loss")] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in metrics(run_dir, "held_out/auc")] == [0, 3, 6]
    assert "tensorflow version: 2." in (run_dir / "revision_info.txt").read_text()
    assert "margin: 1.0\n" in (run_dir / "arguments.txt").read_text()
    assert set(result.results["held_out"]) == {
        "plain pixels",
        "PCA, whitened",
        "network before",
        "network after",
    }
    # Two held-out people of five images: every pair.
    assert len(result.results["held_out"]["network after"].is_same) == 10 * 9 // 2
    with Image.open(run_dir / "verification_held_out.png") as picture:
        assert picture.width > 800
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50
    out = capsys.readouterr().out
    assert f"Model directory: {run_dir}\n" in out
    assert "Epoch: [0][1/3]\tTime " in out
    assert "Epoch: [1][3/3]\tTime " in out
    assert "Epoch: [2]" not in out
    assert "\tLoss " in out
    assert "network after" in out


@pytest.mark.parametrize("step", ["unique", "triplets"])
def test_training_lowers_the_loss(tiny, step, run_dir_of, capsys):
    # Nearly as far as two unit vectors can be apart: there are always triplets to learn from.
    changed = {"step": step, "margin": 3.5, "epochs": 1, "epoch_size": 40, "baselines": False}
    train(TrainConfig(**{**tiny, **changed}))
    losses = [value for _, value in metrics(run_dir_of(), "loss")]
    assert len(losses) == 40
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    # The predecessor's line, a pool.
    assert ("(nrof_random_negs, nrof_triplets) = (24, " in capsys.readouterr().out) == (step == "triplets")


@pytest.mark.parametrize("step", ["unique", "triplets"])
def test_an_interrupted_and_resumed_run_ends_where_an_unbroken_one_does(
    tiny, step, run_dir_of, monkeypatch, capsys
):
    """With all that draws at once: dropout, augmentation, mining, the sampler; chunks; optimizer; average."""
    settings = {
        **tiny,
        "step": step,
        "dropout": 0.3,
        "rotation_degrees": 10.0,
        "batch_size": 6,
        "baselines": False,
        "seed": 3,
    }
    unbroken = train(TrainConfig(**settings))

    kind = {"unique": UniqueStep, "triplets": TripletStep}[step]
    run = kind.run
    # A pool's remaining triplets are dropped by an interrupt, so that way is exact from an epoch's end only.
    last = 3 if step == "unique" else 2

    def run_and_interrupt(self, work, made):
        outcome = run(self, work, made)
        if made == last:
            signal.raise_signal(signal.SIGINT)
        return outcome

    monkeypatch.setattr(kind, "run", run_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(TrainConfig(**{**settings, "runs_dir": settings["runs_dir"]}))
    monkeypatch.undo()
    run_dir = run_dir_of()
    saved = run_dir / f"model-{run_dir.name}.ckpt-{last + 1}"
    assert (
        f"Interrupted at step {last + 1}: saved {saved}; go on with: facenet-fast train --resume {run_dir}"
        in capsys.readouterr().out
    )

    resumed = train(resumed_config(str(run_dir), {}))
    assert resumed.run_dir == str(run_dir)
    assert resumed.n_steps == 6
    for got, wanted in zip(weights_of(run_dir), weights_of(unbroken.run_dir), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_a_run_can_be_resumed_for_more_epochs(tiny):
    first = train(TrainConfig(**tiny, baselines=False))
    longer = train(resumed_config(first.run_dir, {"epochs": 3}))
    assert longer.n_steps == 9
    assert load_model(longer.run_dir)[1].epochs == 3


def test_only_the_newest_checkpoints_are_kept(tiny, run_dir_of):
    train(TrainConfig(**{**tiny, "epochs": 5, "keep_checkpoints": 2, "baselines": False, "epoch_size": 1}))
    steps = sorted(path.name.split("-")[-1] for path in run_dir_of().glob("*.index"))
    assert steps == ["4.index", "5.index"]


def test_bad_files_are_named_once_and_training_goes_on(tiny, faces_dir, caplog):
    bad = ("empty.png", "text.jpg", "cut.png")
    for identity in faces_dir.iterdir():
        (identity / "empty.png").write_bytes(b"")
        (identity / "text.jpg").write_text("no image")
        whole = (identity / f"{identity.name}_0001.png").read_bytes()
        (identity / "cut.png").write_bytes(whole[: len(whole) // 2])
        (identity / "notes.csv").write_text("1,2")
    result = train(TrainConfig(**{**tiny, "epochs": 5, "images_per_identity": 8}))
    assert result.n_steps == 15
    told = "\n".join(record.getMessage() for record in caplog.records)
    trained = [path for path in faces_dir.iterdir() if f"{path / 'empty.png'}" in told]
    assert len(trained) >= 4
    for identity in trained:
        for name in bad:
            assert told.count(str(identity / name)) == 1


def test_people_with_one_image_are_negatives(tiny, faces_dir):
    for identity in sorted(faces_dir.iterdir())[:4]:
        for path in sorted(identity.iterdir())[1:]:
            path.unlink()
    result = train(TrainConfig(**{**tiny, "n_held_out": 0, "identities_per_batch": 6}))
    assert result.n_steps == 6
    assert result.results == {}


def test_pools_without_triplets_stop_training_with_a_reason(tiny, caplog):
    config = TrainConfig(**{**tiny, "margin": 1e-12, "strategy": "facenet", "max_empty_pools": 3})
    result = train(config)
    assert result.n_steps < 6
    assert "3 pools in a row gave no triplet" in caplog.text


def test_log_sum_exp_stops_only_where_there_are_no_pairs(tiny, caplog, monkeypatch):
    settings = {**tiny, "loss": "log_sum_exp", "n_held_out": 0, "margin": 1e-12, "max_empty_pools": 2}
    assert train(TrainConfig(**settings)).n_steps == 6
    read = loop.PoolReader.next

    def all_of_others(self):
        pool = read(self)
        return Pool(pool.images, np.arange(len(pool.labels), dtype=np.int32))

    monkeypatch.setattr(loop.PoolReader, "next", all_of_others)
    assert train(TrainConfig(**settings)).n_steps == 0
    assert "2 pools in a row gave no triplet: none holds two images of one person" in caplog.text


@pytest.mark.parametrize("step", ["unique", "triplets"])
def test_a_loss_that_is_not_finite_stops_training_with_a_reason(tiny, step):
    config = TrainConfig(
        **{
            **tiny,
            "step": step,
            "optimizer": "MOM",
            "learning_rate": 1e30,
            "weight_decay": 1.0,
            "warmup": 0.0,
        }
    )
    with pytest.raises(UserError, match=r"training stopped at step \d+, as the loss is no longer finite"):
        train(config)


def test_the_schedule_file_ends_training(tiny, tmp_path, capsys):
    path = tmp_path / "schedule.txt"
    path.write_text("0: 0.01\n1: -1\n")
    config = TrainConfig(**{**tiny, "learning_rate": -1.0, "learning_rate_schedule_file": str(path)})
    assert train(config).n_steps == 3
    assert "The schedule file ends training before step 3." in capsys.readouterr().out


def test_lfw_is_verified_in_the_predecessors_lines(tiny, faces_dir, run_dir_of, capsys):
    same = [f"person_{n}\t1\t2" for n in range(6)]
    different = [f"person_{n}\t1\tperson_{(n + 1) % 6}\t2" for n in range(6)]
    lines = [line for pair in zip(same, different, strict=True) for line in pair]
    (faces_dir.parent / "pairs.txt").write_text("\n".join(["2\t3", *lines]))
    result = train(
        TrainConfig(
            **{**tiny, "n_held_out": 0, "lfw_dir": str(faces_dir), "lfw_folds": 2, "baselines": False}
        )
    )
    assert set(result.results) == {"lfw"}
    rows = [line.split("\t") for line in (run_dir_of() / "lfw_result.txt").read_text().splitlines()]
    assert [row[0] for row in rows] == ["0", "3", "6"]
    assert float(rows[-1][1]) == pytest.approx(result.results["lfw"]["network after"].accuracy, abs=1e-5)
    out = capsys.readouterr().out
    assert "Running forward pass on LFW images: " in out
    assert "Accuracy: " in out
    assert "Validation rate: " in out


def test_logs_may_live_elsewhere(tiny, tmp_path):
    result = train(TrainConfig(**{**tiny, "logs_dir": str(tmp_path / "logs"), "baselines": False}))
    (logs,) = (tmp_path / "logs").iterdir()
    assert result.run_dir.endswith(logs.name)
    assert (logs / "metrics.jsonl").exists()
    assert (tmp_path / "runs" / logs.name / "config.json").exists()
    assert not (tmp_path / "runs" / logs.name / "metrics.jsonl").exists()


def test_training_starts_from_a_pretrained_run_with_another_embedding_size(tiny, caplog):
    first = train(TrainConfig(**tiny, baselines=False))
    settings = {**tiny, "embedding_size": 5, "pretrained_model": first.run_dir, "baselines": False}
    second = train(TrainConfig(**{**settings, "learning_rate": 1e-12, "moving_average_decay": 0.0}))
    assert "the head starts from new weights" in caplog.text
    np.testing.assert_allclose(weights_of(second.run_dir)[0], weights_of(first.run_dir)[0], atol=1e-6)
