"""Measures, lines, tables and pictures."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorflow import make_ndarray
from tensorflow.compat.v1.train import summary_iterator

from facenet_fast.errors import UserError
from facenet_fast.evaluation.verification import verify
from facenet_fast.report.console import PlainConsole, Progress, TerminalConsole, console_for
from facenet_fast.report.measure import Measures
from facenet_fast.report.plots import plot_before_after, plot_verification
from facenet_fast.report.table import verification_line, verification_table


def a_verification(noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(120, 8))
    is_same = np.arange(120) % 3 == 0
    left = centres + noise * rng.normal(size=centres.shape)
    right = np.where(is_same[:, None], centres, np.roll(centres, 1, axis=0))
    rows = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (left, right)]
    return verify(*rows, is_same, np.arange(120) // 30)


def progress_of(epoch=2, step=7, **changes):
    settings = {
        "n_epochs": 5,
        "epoch_size": 10,
        "seconds": 0.25,
        "loss": 0.125,
        "learning_rate": 1e-3,
        "n_triplets": 30,
        "n_pairs": 40,
    }
    return Progress(epoch=epoch, step=step, **{**settings, **changes})


def test_measures_reach_tensorboard_and_the_file(tmp_path):
    with Measures(str(tmp_path / "new")) as measures:
        measures.measure("loss", 0.5, 1)
        measures.measure("loss", 0.25, 2)
        measures.measure("lfw/val_rate", float("nan"), 2)
    lines = [json.loads(line) for line in (tmp_path / "new" / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["name"], line["value"]) for line in lines] == [
        (1, "loss", 0.5),
        (2, "loss", 0.25),
        (2, "lfw/val_rate", None),
    ]
    assert all(line["seconds"] >= 0 for line in lines)
    events = EventAccumulator(str(tmp_path / "new"), size_guidance={"tensors": 0}).Reload()
    assert [event.step for event in events.Tensors("loss")] == [1, 2]


def test_measures_add_to_what_is_there(tmp_path):
    for step in (1, 2):
        with Measures(str(tmp_path)) as measures:
            measures.measure("loss", 1.0, step)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_measures_need_a_folder(tmp_path):
    path = tmp_path / "file"
    path.write_text("x")
    with pytest.raises(UserError, match="the folder of the logs must be writable"):
        Measures(str(path))


def test_plain_progress_starts_as_the_predecessors_lines():
    stream = io.StringIO()
    with PlainConsole(stream) as console:
        console.progress(progress_of())
    line = stream.getvalue()
    assert line.startswith("Epoch: [2][7/10]\tTime 0.250\tLoss 0.125\t")
    assert line == "Epoch: [2][7/10]\tTime 0.250\tLoss 0.125\tTriplets 30/40\tRate 1.00e-03\n"


def test_plain_progress_every_few_steps_and_at_the_end():
    stream = io.StringIO()
    with PlainConsole(stream, every=4) as console:
        for step in range(1, 11):
            console.progress(progress_of(step=step))
        console.line("a line")
        console.detail("a detail")
    shown = [line.split("\t")[0] for line in stream.getvalue().splitlines()]
    assert shown == ["Epoch: [2][4/10]", "Epoch: [2][8/10]", "Epoch: [2][10/10]", "a line", "a detail"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_terminals_get_a_bar(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with console_for(stream) as console:
        assert isinstance(console, TerminalConsole)
        console.progress(progress_of())
        console.line("Accuracy: 0.990+-0.010 [not markup]")
        console.detail("left out")
        console.progress(progress_of(epoch=4, step=10))
    shown = stream.getvalue()
    assert "Accuracy: 0.990+-0.010 [not markup]" in shown
    assert "epoch 3/5" in shown
    assert "loss 0.125" in shown
    assert "left out" not in shown


def test_other_streams_get_lines():
    assert isinstance(console_for(io.StringIO()), PlainConsole)


def test_the_table_has_columns_under_their_heads():
    result = a_verification()
    lines = verification_table({"plain pixels": result, "network": result})
    assert len(lines) == 3
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split() == ["accuracy", "VAL@FAR=0.001", "AUC", "EER"]
    assert lines[1].startswith("plain pixels  ")
    assert lines[2].split() == [
        "network",
        f"{result.accuracy:.4f}+-{result.accuracy_std:.4f}",
        f"{result.val:.4f}+-{result.val_std:.4f}",
        f"{result.auc:.4f}",
        f"{result.eer:.4f}",
    ]


def test_the_line_has_all_numbers():
    result = a_verification()
    line = verification_line(result)
    assert f"accuracy {result.accuracy:.3f}" in line
    assert f"AUC {result.auc:.3f}" in line
    assert f"EER {result.eer:.3f}" in line


@pytest.mark.parametrize("n_results", [1, 2, 4, 7])
def test_the_picture_shows_curves_and_bars(tmp_path, n_results):
    results = {f"number {n}": a_verification(0.2 + 0.3 * n, n) for n in range(n_results)}
    path = tmp_path / "verification.png"
    plot_verification(str(path), results, f"number {n_results - 1}", "Ten people")
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[1] > 1000
    halves = pixels[:, : pixels.shape[1] // 2], pixels[:, pixels.shape[1] // 2 :]
    for half in halves:
        # Coloured ink, not only axes and text.
        assert (np.ptp(half.astype(int), axis=2) > 60).sum() > 500


def test_the_picture_bears_embeddings_that_are_all_one(tmp_path):
    ones = np.ones((8, 3))
    result = verify(ones, ones, np.arange(8) % 2 == 0, np.arange(8) // 4)
    plot_verification(str(tmp_path / "one.png"), {"one": result}, "one")
    assert (tmp_path / "one.png").stat().st_size > 10_000


def test_a_step_is_one_event_that_tensorboard_reads_as_scalars(tmp_path):
    values = {"loss": 0.5, "time/step": 0.25, "lfw/val_rate": float("nan")}
    with Measures(str(tmp_path)) as measures:
        measures.measure_all(values, 3)
    (path,) = tmp_path.glob("events.out.*")
    with_values = [event for event in summary_iterator(str(path)) if event.HasField("summary")]
    assert [(event.step, [one.tag for one in event.summary.value]) for event in with_values] == [
        (3, list(values))
    ]
    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0}).Reload()
    for name, value in values.items():
        (event,) = events.Tensors(name)
        assert events.SummaryMetadata(name).plugin_data.plugin_name == "scalars"
        np.testing.assert_array_equal(make_ndarray(event.tensor_proto), np.float32(value))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {line["name"]: line["value"] for line in lines} == {**values, "lfw/val_rate": None}


def test_histograms_count_finite_values(tmp_path):
    values = np.random.default_rng(0).normal(size=500)
    with Measures(str(tmp_path)) as measures:
        measures.show_histograms({"d": [*values, np.nan, np.inf], "none": [np.nan], "one": [2.0]}, 3)
    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0}).Reload()
    assert set(events.Tags()["tensors"]) == {"d", "one"}
    assert events.SummaryMetadata("d").plugin_data.plugin_name == "histograms"
    bins = make_ndarray(events.Tensors("d")[0].tensor_proto)
    assert bins.shape == (30, 3)
    assert (bins[0, 0], bins[-1, 1]) == (values.min(), values.max())
    for low, high, count in bins[:-1]:
        assert count == ((values >= low) & (values < high)).sum()
    assert bins[:, 2].sum() == 500
    # Nothing beside it: not in the file of numbers.
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_pictures_come_back_as_they_were(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    with Measures(str(tmp_path)) as measures:
        measures.show_image("mining/triplets", image, 3)
    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0}).Reload()
    (event,) = events.Tensors("mining/triplets")
    width, height, encoded = make_ndarray(event.tensor_proto)
    assert (width, height) == (b"7", b"5")
    assert events.SummaryMetadata("mining/triplets").plugin_data.plugin_name == "images"
    with Image.open(io.BytesIO(encoded)) as shown:
        np.testing.assert_array_equal(np.asarray(shown), image)


def test_distances_before_and_after_are_on_one_axis(tmp_path):
    results = {"network before": a_verification(1.0), "network after": a_verification(0.2)}
    plot_before_after(str(tmp_path / "two.png"), results)
    plot_before_after(str(tmp_path / "one.png"), {"network after": results["network after"]})
    with Image.open(tmp_path / "two.png") as two, Image.open(tmp_path / "one.png") as one:
        assert two.height > 1.5 * one.height
        for half in np.split(np.asarray(two.convert("RGB"))[: two.height // 2 * 2].astype(int), 2):
            assert (np.ptp(half, axis=2) > 60).sum() > 500
