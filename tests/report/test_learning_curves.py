"""What `metrics.jsonl` says of a run, and its pictures."""

import json

import numpy as np
import pytest
from PIL import Image

from facenet_fast.report import learning_curves
from facenet_fast.report.learning_curves import plot_learning_curves, plot_time_split, read_curves


def write_lines(path, rows):
    names = ("step", "name", "value", "seconds")
    path.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows))
    return str(path)


def ink(path):
    """How many pixels are coloured: lines and bars, no text."""
    with Image.open(path) as picture:
        return int((np.ptp(np.asarray(picture.convert("RGB")).astype(int), axis=2) > 60).sum())


def test_the_clock_goes_on_over_resumed_parts(tmp_path):
    rows = [
        (1, "loss", 1.0, 6),
        (2, "loss", 0.5, 12),
        (3, "loss", 0.25, 3),
        (3, "auc", 0.9, 3),
        (4, "loss", None, 1),
    ]
    curves = read_curves(write_lines(tmp_path / "metrics.jsonl", rows))
    assert list(curves) == ["loss", "auc"]
    assert curves["loss"].step.tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(60 * curves["loss"].minutes, [6, 12, 15, 16])
    np.testing.assert_array_equal(curves["loss"].value, [1.0, 0.5, 0.25, np.nan])


def test_lines_that_were_cut_off_are_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_lines(path, [(1, "loss", 1.0, 1)])
    path.write_text(path.read_text() + '{"step": 2, "na\n[1]\n{"step": 3}\n')
    assert read_curves(str(path))["loss"].step.tolist() == [1]


def test_smoothing_is_the_mean_of_a_window():
    value = np.random.default_rng(0).normal(size=40)
    value[[3, 20, 21, 22]] = np.nan
    got = learning_curves._smoothed(value, 1)
    wanted = []
    for at in range(40):
        window = [one for one in value[max(at - 1, 0) : at + 2] if np.isfinite(one)]
        wanted.append(np.mean(window) if window else np.nan)
    np.testing.assert_allclose(got, wanted)


def a_run(n_steps):
    for step in range(1, n_steps + 1):
        yield step, "loss", 1 / step, step
        yield step, "mining/active_fraction", 1 / step, step
        yield step, "learning_rate", 1e-3, step
        if step % 10 == 0:
            yield step, "time/epoch_read", 0.5, step
            yield step, "time/epoch_step", 9.0, step
            yield step, "time/epoch_rest", 0.5, step
            yield step, "held_out/auc", 1 - 1 / step, step
            yield step, "held_out/accuracy", 0.9, step


@pytest.mark.parametrize("n_steps", [1, 10, 300])
def test_the_curves_are_drawn(tmp_path, n_steps):
    curves = read_curves(write_lines(tmp_path / "metrics.jsonl", a_run(n_steps)))
    plot_learning_curves(str(tmp_path / "curves.png"), curves)
    assert ink(tmp_path / "curves.png") > 100
    if n_steps >= 10:
        plot_time_split(str(tmp_path / "time.png"), curves)
        assert ink(tmp_path / "time.png") > 10_000


def test_an_epoch_that_was_made_again_counts_once(tmp_path, monkeypatch):
    rows = [
        (10, "time/epoch_step", 30.0, 30),
        (10, "time/epoch_step", 10.0, 10),
        (20, "time/epoch_step", 9.0, 20),
    ]
    drawn = []
    from matplotlib.axes import Axes

    bar = Axes.bar
    monkeypatch.setattr(
        Axes, "bar", lambda self, x, y, **more: drawn.append(list(y)) or bar(self, x, y, **more)
    )
    plot_time_split(str(tmp_path / "time.png"), read_curves(write_lines(tmp_path / "metrics.jsonl", rows)))
    assert drawn == [[10.0, 9.0]]


@pytest.mark.parametrize("plot", [plot_learning_curves, plot_time_split])
def test_nothing_to_draw_is_an_error(tmp_path, plot):
    with pytest.raises(ValueError, match="got none"):
        plot(str(tmp_path / "x.png"), {})
