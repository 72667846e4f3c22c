"""What a run leaves to look at, and that none of it can fail a run."""

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorflow import make_ndarray

from facenet_fast.config import TrainConfig
from facenet_fast.report.learning_curves import read_curves
from facenet_fast.training import loop, pictures
from facenet_fast.training.loop import train
from facenet_fast.training.pictures import drawn
from facenet_fast.training.run_folder import resumed_config
from facenet_fast.training.step import UniqueStep

PICTURES = {
    "learning_curves.png",
    "time_split.png",
    "held_out_roc.png",
    "held_out_det.png",
    "held_out_distances.png",
}


def test_a_run_leaves_pictures_embeddings_and_what_tensorboard_shows(tiny, tmp_path, capsys):
    result = train(TrainConfig(**{**tiny, "log_every": 2, "baselines": False}))
    (run_dir,) = (tmp_path / "runs").iterdir()
    assert {path.name for path in (run_dir / "report").iterdir()} == PICTURES
    for name in PICTURES:
        with Image.open(run_dir / "report" / name) as picture:
            assert len(np.unique(np.asarray(picture.convert("L")))) > 50
    out = capsys.readouterr().out
    assert f"How it went: {run_dir}/report and tensorboard --logdir {run_dir}\n" in out
    # One screen, the table and the next commands included.
    assert len(out[out.index("2 people never trained on") :].splitlines()) <= 24

    events = EventAccumulator(result.run_dir, size_guidance={"tensors": 0}).Reload()
    for name in ("mining/d_ap", "mining/d_an"):
        assert [event.step for event in events.Tensors(name)] == [2, 4, 6]
    # A picture an epoch.
    assert [event.step for event in events.Tensors("mining/triplets")] == [3, 6]
    vectors = np.loadtxt(run_dir / "projector" / "held_out.tsv")
    assert vectors.shape == (10, 8)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-4)
    labels = (run_dir / "projector" / "held_out_labels.tsv").read_text().split()
    assert sorted(labels.count(name) for name in set(labels)) == [5, 5]


def test_a_resumed_run_has_the_whole_curve(tiny, tmp_path, monkeypatch):
    first = train(TrainConfig(**tiny, baselines=False))
    seen = {}
    monkeypatch.setattr(pictures, "plot_learning_curves", lambda path, curves: seen.update(curves))
    train(resumed_config(first.run_dir, {"epochs": 3}))
    assert seen["loss"].step.tolist() == list(range(1, 10))
    assert (np.diff(seen["loss"].minutes) >= 0).all()
    assert read_curves(f"{first.run_dir}/metrics.jsonl")["held_out/auc"].step.tolist() == [0, 3, 6, 9]


def test_a_finished_training_never_fails_for_a_picture(tiny, tmp_path, monkeypatch, caplog):
    def fails(*arguments, **more):
        raise ZeroDivisionError("no ink")

    for name in ("plot_learning_curves", "plot_time_split", "plot_roc", "plot_before_after", "embed_images"):
        monkeypatch.setattr(pictures, name, fails)
    monkeypatch.setattr(loop, "plot_verification", fails)
    result = train(TrainConfig(**tiny, baselines=False))
    assert result.n_steps == 6
    (run_dir,) = (tmp_path / "runs").iterdir()
    assert {path.name for path in (run_dir / "report").iterdir()} == {"held_out_det.png"}
    assert (run_dir / "thresholds.json").exists()
    assert caplog.text.count("no ink") == 6
    assert f"cannot draw '{run_dir}/report/held_out_roc.png': no ink" in caplog.text


def test_a_picture_that_fails_leaves_the_one_before(tmp_path, caplog):
    path = tmp_path / "report" / "a.png"
    with drawn(str(path)) as aside, open(aside, "w") as file:
        file.write("whole")
    with drawn(str(path)) as aside, open(aside, "w") as file:
        file.write("ha")
        raise ValueError("lf")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]
    assert "lf" in caplog.text


@pytest.mark.parametrize(
    "changed",
    [{"step": "unique"}, {"step": "unique", "batch_size": 6}, {"step": "triplets", "batch_size": 300}],
    ids=["whole", "chunks", "triplets"],
)
def test_the_triplets_shown_are_those_that_were_mined(tiny, changed, monkeypatch):
    """Of the pool's rows, whatever the order they were embedded in, with their distances."""
    embedded, pools = [], []
    mine, show = UniqueStep.mine, loop._Run._show_triplets

    def mine_and_keep(self, embeddings, labels, seed):
        embedded.append((np.array(embeddings), np.array(labels), mine(self, embeddings, labels, seed)))
        return embedded[-1][2]

    def show_and_keep(self, pool):
        show(self, pool)
        pools.append((pool, self.stepper.last_mined()))

    monkeypatch.setattr("facenet_fast.training.step._Trainer.mine", mine_and_keep)
    monkeypatch.setattr(loop._Run, "_show_triplets", show_and_keep)
    settings = {**tiny, **changed, "margin": 3.5, "epochs": 1, "epoch_size": 1, "n_held_out": 0}
    train(TrainConfig(**settings, baselines=False))
    ((pool, seen),) = pools
    embeddings, labels, (anchor, positive, negative, *_) = embedded[-1]
    assert len(seen.rows) == len(anchor) > 10
    np.testing.assert_array_equal(
        pool.labels[seen.rows], labels[np.stack([anchor, positive, negative], axis=1)]
    )
    # A row of the pool is always the same row of the embeddings.
    assert len({*zip(seen.rows[:, 0].tolist(), anchor.tolist(), strict=True)}) == len(np.unique(anchor))
    for got, other in ((seen.d_ap, positive), (seen.d_an, negative)):
        wanted = [
            float(np.sum((embeddings[a] - embeddings[o]) ** 2)) for a, o in zip(anchor, other, strict=True)
        ]
        np.testing.assert_allclose(got, wanted, rtol=1e-5)


def test_of_very_many_triplets_some_are_shown(tiny, monkeypatch):
    monkeypatch.setattr("facenet_fast.training.step._MAX_LOOKED_AT", 5)
    seen = []
    show = loop._Run._show_triplets
    monkeypatch.setattr(
        loop._Run,
        "_show_triplets",
        lambda self, pool: seen.append(self.stepper.last_mined()) or show(self, pool),
    )
    train(TrainConfig(**{**tiny, "margin": 3.5, "n_held_out": 0, "baselines": False}))
    assert [len(one.d_ap) for one in seen] == [5, 5]


def test_a_loss_that_mines_nothing_shows_no_triplets(tiny):
    result = train(TrainConfig(**{**tiny, "loss": "log_sum_exp", "log_every": 1, "baselines": False}))
    events = EventAccumulator(result.run_dir, size_guidance={"tensors": 0}).Reload()
    assert not {"mining/d_ap", "mining/triplets"} & set(events.Tags()["tensors"])
    assert make_ndarray(events.Tensors("loss")[0].tensor_proto) > 0
