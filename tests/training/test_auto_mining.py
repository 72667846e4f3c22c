"""Mining that follows training: the rule by itself, what it looks at, and runs that go up and come back."""

import dataclasses
import itertools
import json
import re
import signal
from pathlib import Path

import numpy as np
import pytest

from facenet_fast.config import TrainConfig
from facenet_fast.errors import UserError
from facenet_fast.mining import mine_triplets
from facenet_fast.mining.strategies import PRESETS
from facenet_fast.training import auto_mining, loop
from facenet_fast.training.auto_mining import (
    HARDER_BELOW,
    LEVELS,
    LONGEST_MEAN,
    REST,
    STAY,
    AutoMining,
    Sight,
    sight_of,
)
from facenet_fast.training.loop import train
from facenet_fast.training.run_folder import resumed_config
from facenet_fast.training.step import TripletStep, UniqueStep

STEPS = {"unique": UniqueStep, "triplets": TripletStep}
TOP = len(LEVELS) - 1
EASY = Sight(violating=0.5 * HARDER_BELOW, mean_length=0.1, gaps=(0.3, 0.2, 0.1))
ENOUGH = dataclasses.replace(EASY, violating=1.1 * HARDER_BELOW)
INVERTED = dataclasses.replace(EASY, gaps=(0.1, -0.5, -0.5))
ONE_POINT = dataclasses.replace(EASY, mean_length=0.999)


def auto(**settings):
    return AutoMining(TrainConfig(strategy="auto", **settings))


def levels(mining, sights):
    """The level after each sight; a line is said where it changes, and only there."""
    found = []
    for sight in sights:
        before = mining.level
        said = mining.follow(sight)
        assert bool(said) == (mining.level != before)
        found.append(mining.level)
    return found


def changes(found, first=0):
    """After how many pools the level changed, and to what."""
    before = [first, *found[:-1]]
    return [(n, level) for n, (was, level) in enumerate(zip(before, found, strict=True), 1) if was != level]


def at_top():
    mining = auto()
    levels(mining, [EASY] * (TOP * STAY))
    assert mining.level == TOP
    return mining


def pools():
    """Embeddings of a pool: random, and as training leaves them, people more or less apart."""
    rng = np.random.default_rng(5)
    labels = np.repeat(np.arange(20), 5)
    yield "random", rng.normal(size=(100, 64)), labels
    for noise in (1.0, 0.7):
        people = rng.normal(size=(20, 16))[labels]
        each = noise * rng.uniform(0.5, 1.5, size=(100, 1))
        yield f"trained {noise}", people + each * rng.normal(size=(100, 16)), labels


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def metrics(run_dir, name):
    lines = [json.loads(line) for line in Path(run_dir, "metrics.jsonl").read_text().splitlines()]
    return [line["value"] for line in lines if line["name"] == name]


# The rule


def test_it_begins_with_semi_hard_negatives():
    assert auto().strategy == PRESETS["facenet"]


def test_it_goes_a_level_up_after_some_pools_while_few_triplets_violate():
    found = levels(auto(), [EASY] * (TOP * STAY + 20))
    assert changes(found) == [(STAY * level, level) for level in range(1, TOP + 1)]


def test_it_stays_while_many_triplets_violate():
    assert set(levels(auto(), [ENOUGH] * 50)) == {0}


def test_one_pool_decides_nothing():
    assert set(levels(auto(), [ENOUGH] * 20 + [EASY] + [ENOUGH] * 20)) == {0}
    assert set(levels(at_top(), [INVERTED] + [EASY] * 20)) == {TOP}


@pytest.mark.parametrize("level", range(1, TOP + 1))
def test_it_does_not_go_where_negatives_would_be_nearer_than_positives(level):
    gaps = tuple(0.1 if one < level else -0.1 for one in range(1, TOP + 1))
    assert max(levels(auto(), [dataclasses.replace(EASY, gaps=gaps)] * 100)) == level - 1


def test_pools_that_do_not_show_a_gap_are_passed_over():
    blind = dataclasses.replace(EASY, gaps=(float("nan"),) * TOP)
    assert levels(auto(), [EASY, *[blind] * (STAY - 1)])[-1] == 1


def test_it_does_not_go_where_nothing_would_be_mined():
    found = levels(auto(), [dataclasses.replace(EASY, gaps=(float("nan"), 0.1, 0.1))] * 30)
    assert set(found) == {0}


def test_it_goes_back_and_stays_where_negatives_are_nearer_than_positives():
    mining = at_top()
    down = changes(levels(mining, [INVERTED] * 60), TOP)
    # Level 1 is of semi-hard negatives.
    assert down == [(STAY, TOP - 1), (2 * STAY, TOP - 2)]
    # All is well again, but it rests.
    back = changes(levels(mining, [EASY] * (REST + STAY)), TOP - 2)
    assert back == [(REST - (60 - 2 * STAY), TOP - 1), (REST - (60 - 2 * STAY) + STAY, TOP)]


def test_a_collapse_leads_back_to_semi_hard_negatives_at_once():
    mining = at_top()
    assert changes(levels(mining, [ONE_POINT] * 60), TOP) == [(n, TOP - n) for n in range(1, TOP + 1)]
    assert set(levels(mining, [ONE_POINT] * 2 * REST)) == {0}
    assert levels(mining, [EASY]) == [1]


def test_it_rests_after_a_collapse():
    mining = at_top()
    assert levels(mining, [ONE_POINT]) == [TOP - 1]
    assert changes(levels(mining, [EASY] * 2 * REST), TOP - 1) == [(REST, TOP)]


def test_what_it_says():
    mining = auto()
    said = [line for line in (mining.follow(EASY) for _ in range(STAY)) if line]
    names = list(LEVELS)
    assert said == [f"harder mining, level 1 ({names[1]}), as only 12 % of the triplets violate the margin"]
    assert mining.follow(ONE_POINT) == (
        f"easier mining, level 0 ({names[0]}), as the mean embedding has the length 0.999 of 1"
    )
    mining = at_top()
    (said,) = [line for line in (mining.follow(INVERTED) for _ in range(STAY)) if line]
    (by,) = re.findall(r"as its negatives were nearer than its positives, by (.*) on average", said)
    # An average that began with 0.1.
    assert float(by) == pytest.approx(0.5 - 0.6 * 0.9**STAY, abs=5e-4)


def test_a_resumed_rule_goes_on_as_one_that_was_not_interrupted():
    # More than enough triplets at first, which the averages remember.
    sights = [ENOUGH] * 5 + [EASY] * 25 + [INVERTED] * 12 + [EASY] * 140 + [ONE_POINT] * 60
    uninterrupted = auto()
    unbroken = levels(uninterrupted, sights)
    assert set(unbroken) == set(range(TOP + 1))
    mining, found = auto(), []
    for sight in sights:
        state = json.loads(json.dumps(mining.state()))
        mining = auto()
        mining.restore(state)
        found += levels(mining, [sight])
    assert found == unbroken
    assert mining.state() == uninterrupted.state()
    fresh = auto()
    fresh.restore({})
    assert fresh.state() == auto().state()


# What it looks at


@pytest.mark.parametrize("pool", list(pools()), ids=lambda pool: pool[0])
def test_each_level_is_harder_than_the_one_before(pool):
    _, rows, labels = pool
    rows = unit(rows)
    means = []
    for strategy in LEVELS.values():
        mined = mine_triplets(rows, labels, strategy=strategy, margin=0.5, seed=1)
        assert len(mined) > 20
        means.append(mined.mean_d_an - mined.mean_d_ap)
    assert all(after < before for before, after in itertools.pairwise(means))
    assert sight_of(rows, labels, 0.5).gaps == pytest.approx(means[1:], abs=1e-5)


def test_a_sight_is_that_of_all_triplets():
    rng = np.random.default_rng(3)
    labels = np.array([2, 0, 2, 1, 0, 2, 3, 0])
    rows = unit(rng.normal(size=(8, 3)) + 0.5)
    d = ((rows[:, None].astype(float) - rows[None]) ** 2).sum(axis=2)
    excess = [
        d[a, n] - d[a, p]
        for a in range(8)
        for p in range(a + 1, 8)
        for n in range(8)
        if labels[a] == labels[p] != labels[n]
    ]
    sight = sight_of(rows, labels, 0.4)
    assert 0 < sight.violating < 1
    assert sight.violating == pytest.approx(np.mean(np.array(excess) < 0.4))
    assert sight.mean_length == pytest.approx(np.linalg.norm(rows.mean(axis=0)))


def test_a_pool_without_pairs_shows_nothing():
    sight = sight_of(np.eye(3, dtype=np.float32), np.arange(3), 0.4)
    assert sight.violating == 0.0
    assert np.isnan(sight.gaps).all()


def test_it_looks_at_no_pool_twice():
    rows, labels = unit(np.random.default_rng(0).normal(size=(8, 3))), np.repeat(np.arange(4), 2)
    mining, seen = auto(), (rows, labels)
    assert mining.look(None) == ""
    before = mining.state()
    mining.look(seen)
    after = mining.state()
    assert after != before
    mining.look(seen)
    assert mining.state() == after
    mining.look((rows, labels))
    assert mining.state() != after


# Runs


def test_log_sum_exp_refuses_it():
    with pytest.raises(
        UserError, match=r"strategy auto must be taken with loss hinge or soft_margin, as .*exp"
    ):
        TrainConfig(strategy="auto", loss="log_sum_exp")


@pytest.fixture
def run(tiny, monkeypatch, tmp_path):
    """Settings of a run in which there are always triplets, and the rule goes up in nine pools.

    After thirty steps the learning rate is that at which the network is lost.
    """
    for name, value in {"STAY": 3, "REST": 12, "HARDER_BELOW": 1.1}.items():
        monkeypatch.setattr(auto_mining, name, value)
    monkeypatch.setattr(loop, "draw_run", lambda *_: "")  # takes longer than the steps
    (tmp_path / "rates").write_text("0: 0.01\n3: 1000\n")
    plain = {"random_flip": False, "rotation_degrees": 0.0, "scale": 0.0, "shift": 0.0, "baselines": False}
    return (
        tiny
        | plain
        | {
            "strategy": "auto",
            "margin": 3.5,
            "n_held_out": 0,
            "identities_per_batch": 6,
            "learning_rate": -1.0,
            "learning_rate_schedule_file": str(tmp_path / "rates"),
            "epochs": 6,
            "epoch_size": 10,
        }
    )


@pytest.mark.parametrize("step", list(STEPS))
def test_a_run_goes_up_and_comes_back(step, run, monkeypatch, capsys):
    kind, mined = STEPS[step], []
    mine = kind.mine

    def remember(self, *args):
        found = mine(self, *args)
        mined.append((len(found[0]), int(found[3])))
        return found

    monkeypatch.setattr(kind, "mine", remember)
    result = train(TrainConfig(**run | {"step": step, "batch_size": 900}))
    hardness = metrics(result.run_dir, "mining/hardness")
    assert len(hardness) == result.n_steps == 60
    up = [n // 3 for n in range(9)] + [TOP] * 21
    assert hardness[:30] == up
    fall = hardness[30:]
    assert fall == sorted(fall, reverse=True)
    assert set(fall) == {3.0, 2.0, 1.0, 0.0}
    assert fall[8:] == [0.0] * 22
    assert max(metrics(result.run_dir, "health/mean_length")[:3]) < LONGEST_MEAN
    # Each of 24 images has a hardest positive; of four images of one person there are six pairs.
    assert [n_pairs for _, n_pairs in mined[:30]] == [24 if level == TOP else 36 for level in up]
    assert all(n > 0 for n, _ in mined)
    lines = [line for line in capsys.readouterr().out.splitlines() if "mining, level" in line]
    assert [
        re.match(r"Step (\d+): (harder|easier) mining, level (\d)", line).groups() for line in lines[:3]
    ] == [
        ("3", "harder", "1"),
        ("6", "harder", "2"),
        ("9", "harder", "3"),
    ]
    assert [line.split(" (")[0].split(": ")[1] for line in lines[3:]] == [
        f"easier mining, level {level}" for level in (2, 1, 0)
    ]


def test_a_run_goes_up_by_itself(tiny):
    settings = {"strategy": "auto", "step": "triplets", "batch_size": 900, "margin": 1.0, "n_held_out": 0}
    settings |= {"learning_rate": 0.03, "schedule": "constant", "epoch_size": 50, "epochs": 1}
    result = train(TrainConfig(**tiny | settings | {"baselines": False, "identities_per_batch": 6}))
    hardness = metrics(result.run_dir, "mining/hardness")
    assert hardness[0] == 0
    assert hardness == sorted(hardness)
    assert hardness[-1] > 0


@pytest.mark.parametrize("step", ["unique", pytest.param("triplets", marks=pytest.mark.slow)])
def test_an_interrupted_run_mines_as_one_that_was_not(step, run, monkeypatch):
    settings = run | {"step": step, "batch_size": 900, "epochs": 4, "dropout": 0.3}
    unbroken = train(TrainConfig(**settings))
    kind = STEPS[step]
    run_step, n_made = kind.run, []

    def run_and_interrupt(self, work, made):
        outcome = run_step(self, work, made)
        n_made.append(made)
        # Between two levels on the way up, and on the way down.
        if n_made in ([*range(5)], [*range(33)]):
            signal.raise_signal(signal.SIGINT)
        return outcome

    monkeypatch.setattr(kind, "run", run_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(TrainConfig(**settings))
    (run_dir,) = (str(path) for path in Path(run["runs_dir"]).iterdir() if str(path) != unbroken.run_dir)
    with pytest.raises(KeyboardInterrupt):
        train(resumed_config(run_dir, {}))
    train(resumed_config(run_dir, {}))
    assert n_made == list(range(40))
    hardness = metrics(unbroken.run_dir, "mining/hardness")
    assert set(hardness) == {0.0, 1.0, 2.0, 3.0}
    assert metrics(run_dir, "mining/hardness") == hardness
    assert metrics(run_dir, "loss") == metrics(unbroken.run_dir, "loss")
