"""Options of whole runs: precision, best weights, early stopping, where the time goes, restored weights."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from facenet_fast.checkpoints import load_model
from facenet_fast.config import FreezeConfig, TrainConfig, ValidateConfig
from facenet_fast.errors import UserError
from facenet_fast.evaluation.verification import Verification
from facenet_fast.export import freeze
from facenet_fast.models import load_embedder
from facenet_fast.training import loop
from facenet_fast.training.best import BestWeights
from facenet_fast.training.loop import train
from facenet_fast.training.run_folder import resumed_config
from facenet_fast.training.time_split import PARTS, TimeSplit
from facenet_fast.validate import validate


def metrics(run_dir, name):
    lines = [json.loads(line) for line in Path(run_dir, "metrics.jsonl").read_text().splitlines()]
    return [line["value"] for line in lines if line["name"] == name]


# Precision


@pytest.mark.parametrize(("precision", "average"), [("bfloat16", 0.9), ("float16", 0.0)])
def test_half_precision_trains_nearly_alike_and_leaves_float32(
    precision, average, tiny, monkeypatch, tmp_path
):
    built = []
    build = loop.build_model
    monkeypatch.setattr(loop, "build_model", lambda *args: built.append(build(*args)) or built[-1])
    settings = tiny | {"moving_average_decay": average, "baselines": False}
    plain = train(TrainConfig(**settings))
    assert {layer.compute_dtype for layer in built[0].layers} == {"float32"}
    del built[:]
    half = train(TrainConfig(**settings, precision=precision))
    network = built[0]
    assert {layer.compute_dtype for layer in network.layers[1:-3]} >= {precision}
    assert [layer.compute_dtype for layer in network.layers[-3:]] == ["float32"] * 3  # the head
    assert {weight.dtype for weight in network.weights} == {"float32"}
    losses = metrics(plain.run_dir, "loss"), metrics(half.run_dir, "loss")
    assert losses[0] != losses[1]
    assert losses[1][:2] == pytest.approx(losses[0][:2], rel=0.02)
    model, _ = load_model(half.run_dir)
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    freeze(FreezeConfig(half.run_dir, str(tmp_path / "model.pb")))
    assert load_embedder(str(tmp_path / "model.pb")).embedding_size == 8
    assert train(TrainConfig(**resumed_config(half.run_dir, {"epochs": 3}).to_dict())).n_steps == 9


# The best weights


def verification(**values):
    fields = dict.fromkeys(Verification.__dataclass_fields__, 0.0)
    return Verification(**{**fields, **values})


@pytest.mark.parametrize(
    ("measure", "values", "best"),
    [
        ("auc", [0.7, 0.9, 0.9, 0.8], [0.7, 0.9]),
        ("eer", [0.3, 0.1, 0.1, 0.2], [0.3, 0.1]),
        ("val", [float("nan"), 0.2, float("nan"), 0.5], [0.2, 0.5]),
    ],
)
def test_what_is_best(measure, values, best, tmp_path, monkeypatch):
    weights = BestWeights(str(tmp_path), None, measure)
    saved = []
    monkeypatch.setattr(weights, "_save", saved.append)
    for step, value in enumerate(values):
        weights.see(verification(**{measure: value}), step)
    assert [values[step] for step in saved] == best
    assert (weights.value, weights.step) == (best[-1], saved[-1])
    assert weights.n_since == len(values) - 1 - saved[-1]
    again = BestWeights(str(tmp_path), None, measure)
    again.restore(json.loads(json.dumps(weights.state())))
    assert again.state() == weights.state()
    other = BestWeights(str(tmp_path), None, "accuracy")
    other.restore(weights.state())
    assert (other.value, other.n_since) == (None, 0)


def test_the_best_weights_are_a_run_of_their_own(tiny, monkeypatch, capsys):
    # The second of three verifications is called the best, whatever it is.
    told = iter([0.5, 0.9, 0.7])
    see = BestWeights.see
    monkeypatch.setattr(
        BestWeights, "see", lambda self, result, step: see(self, verification(auc=next(told)), step)
    )
    of_step = {}
    save = loop.Checkpoints.save

    def remember(self, step):
        if not self.run_dir.endswith("best"):
            of_step[step] = kept.averaged.get_weights()
        return save(self, step)

    monkeypatch.setattr(loop.Checkpoints, "save", remember)
    build_learner = loop._build_learner

    class kept:
        averaged = None

    def learner_of(config):
        learner = build_learner(config)
        kept.averaged = learner.averaged
        return learner

    monkeypatch.setattr(loop, "_build_learner", learner_of)
    result = train(TrainConfig(**tiny | {"epochs": 3, "baselines": False}))
    best_dir = f"{result.run_dir}/best"
    best = load_model(best_dir)[0].get_weights()
    for one, other in zip(best, of_step[6], strict=True):
        np.testing.assert_array_equal(one, other)
    assert any(not np.array_equal(one, other) for one, other in zip(best, of_step[9], strict=True))
    assert f"Best by auc: 0.90000 at step 6, kept in {best_dir}\n" in capsys.readouterr().out
    # Its pairs are the run's.
    config = ValidateConfig(tiny["data_dir"], best_dir, lfw_folds=2, resamples=0)
    assert len(validate(config).lfw.is_same) == 45


def test_training_stops_early_and_a_resumed_run_knows(tiny, capsys):
    still = tiny | {"learning_rate": 1e-12, "baselines": False, "epochs": 6, "early_stop": 2}
    result = train(TrainConfig(**still))
    assert result.n_steps == 9
    out = capsys.readouterr().out
    assert "Stopped early at step 9: 2 verifications no better by auc than that at step 3\n" in out
    assert train(resumed_config(result.run_dir, {})).n_steps == 9
    assert "Stopped early at step 9: 2 verifications no better" in capsys.readouterr().out
    again = train(resumed_config(result.run_dir, {"early_stop": 3}))
    assert again.n_steps == 12
    assert "Stopped early at step 12: 3 verifications no better" in capsys.readouterr().out


def test_early_stop_needs_something_to_verify():
    with pytest.raises(UserError, match="early_stop needs verifications on the way; got evaluate_every=0"):
        TrainConfig(early_stop=1, evaluate_every=0)
    with pytest.raises(UserError, match="early_stop needs people to verify on"):
        TrainConfig(early_stop=1, n_held_out=0)


# Where the time goes


@pytest.mark.parametrize("step", ["unique", "triplets"])
def test_every_epoch_says_where_its_time_went(step, tiny, capsys):
    result = train(TrainConfig(**tiny | {"step": step, "baselines": False}))
    lines = re.findall(r"^Epoch took (\d+\.\d) s: (.*)$", capsys.readouterr().out, re.MULTILINE)
    shares = re.findall(r"(\w+) (-?\d+\.\d) %", lines[0][1])
    assert [part for part, _ in shares] == list(PARTS)
    assert sum(float(share) for _, share in shares) == pytest.approx(100, abs=0.3)
    seconds = {part: metrics(result.run_dir, f"time/epoch_{part}") for part in PARTS}
    assert all(len(values) == len(lines) and min(values) >= 0 for values in seconds.values())
    mined = metrics(result.run_dir, "time/selection")
    if step == "unique":
        assert seconds["mine"][0] == pytest.approx(sum(mined[:3]), rel=1e-6)
        assert seconds["embed"][0] < seconds["step"][0]
    else:
        assert seconds["embed"][0] > 0


def test_time_split_counts_all_of_the_time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    split = TimeSplit()

    def pass_(seconds):
        now[0] += seconds

    with split.of("read"):
        pass_(1.0)
    with split.of("step"):
        pass_(6.0)
    split.move(2.0, "mine", within="step")
    pass_(1.0)
    assert split.seconds() == {"read": 1.0, "embed": 0.0, "mine": 2.0, "step": 4.0, "rest": 1.0}
    assert split.line() == "8.0 s: read 12.5 %, embed 0.0 %, mine 25.0 %, step 50.0 %, rest 12.5 %"


# Restored weights


def test_a_run_says_what_it_restored(tiny, capsys, tmp_path):
    first = train(TrainConfig(**tiny | {"epochs": 1, "baselines": False}))
    capsys.readouterr()
    same = tiny | {"epochs": 1, "baselines": False, "pretrained_model": first.run_dir}
    train(TrainConfig(**same))
    n = len(load_model(first.run_dir)[0].weights)
    assert f"Restored {n} of {n} weights of {first.run_dir}\n" in capsys.readouterr().out
    train(TrainConfig(**same | {"embedding_size": 5}))
    told = capsys.readouterr().out
    assert (
        f"Restored {n - 4} of {n} weights of {first.run_dir}; new: bottleneck/kernel, bottleneck_batch"
        in told
    )
    with pytest.raises(UserError, match=r"backbone must be inception_resnet_v1, .* got features for .*model"):
        train(TrainConfig(**same | {"pretrained_model": "model.pb"}))
