"""Learning rates step by step, and the schedule file with all that can be wrong in it."""

import math

import pytest

from facenet_fast.config import TrainConfig
from facenet_fast.errors import UserError
from facenet_fast.training.schedules import learning_rate_schedule, read_schedule_file


@pytest.fixture
def schedule_file(tmp_path):
    def write(text):
        path = tmp_path / "schedule.txt"
        path.write_text(text)
        return str(path)

    return write


def rates(n, **settings):
    rate = learning_rate_schedule(TrainConfig(**settings))
    return [rate(step) for step in range(n)]


def test_cosine_warms_up_peaks_and_ends_near_zero():
    got = rates(100, epochs=10, epoch_size=10, learning_rate=2.0, warmup=0.1)
    assert got[:10] == pytest.approx([2.0 * (n + 1) / 10 for n in range(10)])
    assert got[10] == pytest.approx(2.0)
    assert got[55] == pytest.approx(1.0)
    assert got[99] == pytest.approx(1.0 + math.cos(math.pi * 89 / 90))
    assert got[10:] == sorted(got[10:], reverse=True)


def test_cosine_without_warm_up_starts_at_the_peak():
    assert rates(1, learning_rate=0.5, warmup=0.0) == [0.5]


def test_staircase_decay_goes_on_top():
    got = rates(
        9,
        epochs=9,
        epoch_size=2,
        schedule="constant",
        learning_rate=1.0,
        learning_rate_decay_epochs=2,
        learning_rate_decay_factor=0.1,
    )
    assert got == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01])


def test_file_is_used_when_the_rate_is_not_positive(schedule_file):
    path = schedule_file("# casia\n0: 0.05\n2: 0.005 # then slower\n4: -1\n")
    got = rates(10, learning_rate=-1, learning_rate_schedule_file=path, epoch_size=2, epochs=5)
    assert got == [0.05] * 4 + [0.005] * 4 + [None] * 2


def test_file_is_not_read_when_the_rate_is_positive():
    assert rates(1, learning_rate=0.1, warmup=0.0, learning_rate_schedule_file="/nowhere") == [0.1]


def test_decay_applies_to_the_file_too(schedule_file):
    got = rates(
        3,
        learning_rate=0,
        learning_rate_schedule_file=schedule_file("0: 1\n"),
        epoch_size=1,
        learning_rate_decay_epochs=1,
        learning_rate_decay_factor=0.5,
    )
    assert got == [1.0, 0.5, 0.25]


@pytest.mark.parametrize("sentinel", ["-1", "-", "-1.0"])
def test_sentinels_stop(schedule_file, sentinel):
    assert read_schedule_file(schedule_file(f"0: 0.1\n9: {sentinel}")) == [(0, 0.1), (9, None)]


def test_last_entry_holds_for_ever(schedule_file):
    path = schedule_file("0: 0.1\n1: 0.01\n")
    assert rates(50, learning_rate=0, learning_rate_schedule_file=path, epoch_size=1)[-1] == 0.01


def test_blank_line_is_passed_over_with_its_number(schedule_file, caplog):
    assert read_schedule_file(schedule_file("0: 0.1\n\n1: 0.2\n\n")) == [(0, 0.1), (1, 0.2)]
    assert [record.message for record in caplog.records] == ["schedule.txt: blank lines passed over: 2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0: 0.1\n1 0.2", "line 2: a line must be 'epoch: learning rate'; got '1 0.2'"),
        ("0: 0.1\nx: 0.2", "line 2: a line must be"),
        ("0: 0.1\n5:", "line 2: a learning rate must be positive, or -1 to stop; got ''"),
        ("# start\n0: fast", "line 2: a learning rate must be positive"),
        ("0: -3", "line 1: a learning rate must be positive"),
        ("0: nan", "line 1: a learning rate must be positive"),
        ("0: 0", "line 1: a learning rate must be positive"),
        ("0: 0.1\n5: 0.2\n5: 0.3", "line 3: epochs must ascend; got 5 after 5"),
        ("3: 0.1", "line 1: the first entry must be for epoch 0; got 3"),
        ("", "must hold lines 'epoch: learning rate'; found none"),
        ("# nothing\n", "found none"),
    ],
)
def test_wrong_lines_are_named(schedule_file, text, message):
    with pytest.raises(UserError) as raised:
        read_schedule_file(schedule_file(text))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_missing_file_is_named():
    with pytest.raises(UserError, match=r"schedule file must be readable; '/nowhere/s.txt'"):
        read_schedule_file("/nowhere/s.txt")
