"""What is measured of two processes that train together."""

from __future__ import annotations

import pytest

from benchmarks.scaling import CASES, WAYS, Case, Steps, measure_exchanges, measure_steps, scaling_table
from facenet_fast.checkpoints import build_model
from facenet_fast.config import TrainConfig, from_mapping

TINY = ("--backbone", "tests.tiny_run:features", "--image-size", "24", "--embedding-size", "6")


def test_table() -> None:
    steps = dict(zip(WAYS, (Steps(0.2, 0.003), Steps(0.12, 0.002), Steps(0.11, 0.0016)), strict=True))
    lines = scaling_table([(Case("tiny", 4, 3, 10), steps, (0.0012, 0.0345))]).splitlines()
    assert lines[0].startswith("|  | a step, one thread | a step, two threads | a step, two processes |")
    assert lines[2] == "| tiny | 200 | 120 | 110 | 1.82 | 1.2 | 34.5 | 3.0 | 1.6 |"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_weights_are_those_of_the_network(case: Case) -> None:
    names = [flag.removeprefix("--").replace("-", "_") for flag in case.flags[::2]]
    values = [int(value) if value.isdecimal() else value for value in case.flags[1::2]]
    model = build_model(from_mapping(TrainConfig, dict(zip(names, values, strict=True))))
    assert sum(weight.value.shape.num_elements() for weight in model.trainable_weights) == case.n_weights


def test_steps_and_exchanges_are_measured() -> None:
    case = Case("tiny", 6, 4, 10, TINY)
    measured = measure_steps(case, *WAYS["two processes"], n_steps=8)
    assert 0 < measured.mining < measured.step < 10
    assert all(0 < seconds < 10 for seconds in measure_exchanges([5, 1000]))
