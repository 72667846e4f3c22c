"""What the documentation shows runs, and names all there is: docstrings, pages, pictures, examples."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import pkgutil
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import facenet_fast
from facenet_fast import PRESETS, Interval, Strategy
from facenet_fast.export.formats import FORMATS
from facenet_fast.mining.strategies import BANDS, IF_EMPTY, PAIRS, PICKS

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
KERAS_EXAMPLES = sorted((ROOT / "examples").glob("*_keras.py"))
MODULES = sorted(m.name for m in pkgutil.walk_packages(facenet_fast.__path__, "facenet_fast."))
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
STRATEGIES = (ROOT / "docs/strategies.md").read_text()
COMING_FROM = (ROOT / "docs/coming_from.md").read_text()
EXPORT = (ROOT / "docs/export.md").read_text()


@pytest.mark.parametrize("name", [m for m in MODULES if not m.rsplit(".", 1)[-1].startswith("_")])
def test_docstring_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def run_python_of(page: str) -> int:
    """Run a page's Python, one block after the other as a reader would, and say how many there are.

    Blocks that import PyTorch are passed over where it is not installed: it is no dependency.
    """
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        if "import torch" not in block or importlib.util.find_spec("torch"):
            exec(compile(block, page, "exec"), names)
    return len(blocks)


@pytest.mark.parametrize("page", PAGES)
def test_python_of_pages_runs(page: str) -> None:
    assert run_python_of(page) > 0 or page in (
        "CONTRIBUTING.md",
        "docs/architecture.md",
        "docs/export.md",
        "docs/performance.md",
        "docs/recipes.md",
        "docs/training.md",
    )


def test_readme_says_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    run_python_of("README.md")
    assert "pairs have a semi-hard negative" in capsys.readouterr().out


@pytest.mark.parametrize("word", [*PRESETS, *PAIRS, *BANDS, *PICKS, *IF_EMPTY])
def test_strategies_page_has_every_word(word: str) -> None:
    assert f'`"{word}"`' in STRATEGIES or f"### {word}\n" in STRATEGIES


@pytest.mark.parametrize("name", PRESETS)
def test_strategies_page_shows_every_preset(name: str) -> None:
    assert f"### {name}\n" in STRATEGIES
    assert f"(images/strategy_{name}.png)" in STRATEGIES


@pytest.mark.parametrize("expression", sorted(set(re.findall(r"`(Strategy\([^`]+\))`", STRATEGIES))))
def test_strategies_page_means_what_it_says(expression: str) -> None:
    assert isinstance(eval(expression, {"Strategy": Strategy, "Interval": Interval}), Strategy)


@pytest.mark.slow
def test_pictures_are_those_of_the_page(tmp_path: Path) -> None:
    pictures = runpy.run_path(str(ROOT / "docs/strategies_pictures.py"))
    pictures["main"](tmp_path, n_seeds=2)
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert drawn == {path.name for path in (ROOT / "docs/images").glob("strategy_*.png")}
    assert drawn == set(re.findall(r"\(images/(strategy_\w+\.png)\)", STRATEGIES))


@pytest.mark.parametrize("snippet", re.findall(r"```py\n(.*?)```", EXPORT, flags=re.DOTALL))
def test_export_page_shows_what_its_example_runs(snippet: str) -> None:
    assert snippet in (ROOT / "examples/exported_models.py").read_text()


@pytest.mark.parametrize(
    ("form", "cell"),
    [
        ("pb", "`.pb`"),
        ("saved_model", "SavedModel"),
        ("tflite", "`.tflite`"),
        ("tflite-float16", "`.tflite`, float16"),
        ("tflite-int8", "`.tflite`, int8"),
        ("onnx", "`.onnx`"),
        ("keras", "`.keras`"),
    ],
)
def test_export_page_has_the_tolerances(form: str, cell: str) -> None:
    (row,) = (
        line for line in EXPORT.splitlines() if line.startswith(f"| {cell} |") and "facenet_fast" not in line
    )
    assert float(row.split(" | ")[3]) == FORMATS[form].tolerance


def rows_of(head: str) -> list[list[str]]:
    """Return the cells of the table of `COMING_FROM` whose head begins with these words, without its head."""
    _, table = COMING_FROM.split(head)
    lines = table.split("\n\n")[0].splitlines()[2:]
    assert lines
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


SIMILARITY_ROWS = [row for row in rows_of("| `positive_mining_strategy` |") if "not covered" not in row[2]]
METRIC_LEARNING_ROWS = rows_of("| there: `TripletMarginLoss(margin=0.2)` with |")


def strategy_in(cell: str) -> str | Strategy:
    found: str | Strategy = eval(cell.strip("`"), {"Strategy": Strategy})
    return found


def clustered() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return labels and unit rows of which some triplets are easy, some semi-hard and some hard."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), 5)
    rows = rng.normal(size=(12, 16))[labels] + 0.7 * rng.normal(size=(60, 16))
    rows[0] *= -1  # farther from its own than from all others
    return labels, (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def similarity_loss(positive: str, negative: str, margin: float | None) -> float:
    """Return TensorFlow Similarity's loss of `clustered`, by its definition."""
    labels, x = clustered()
    losses = []
    for row, (d, same) in enumerate(zip(1 - x @ x.T, labels[:, None] == labels, strict=True)):
        positives, negatives = np.delete(d, row)[np.delete(same, row)], d[~same]
        d_ap = positives.max() if positive == "hard" else positives.min()
        beyond = negatives[negatives > positives.max()]
        d_an = {
            "hard": negatives.min(),
            "easy": negatives.max(),
            "semi-hard": beyond.min() if len(beyond) else negatives.max(),
        }[negative]
        losses.append(np.log1p(np.exp(d_ap - d_an)) if margin is None else max(d_ap - d_an + margin, 0.0))
    return float(np.mean(losses))


@pytest.mark.parametrize(("positive", "negative", "strategy"), SIMILARITY_ROWS)
def test_coming_from_tensorflow_similarity(positive: str, negative: str, strategy: str) -> None:
    from facenet_fast.losses import soft_margin_triplet_loss, triplet_loss

    words = positive.strip('`"'), negative.strip('`"')
    soft = soft_margin_triplet_loss(*clustered(), strategy_in(strategy), "cosine")
    assert float(soft) == pytest.approx(similarity_loss(*words, margin=None), rel=1e-5)
    hinge = triplet_loss(*clustered(), strategy_in(strategy), 0.6, "cosine")
    assert float(hinge) == pytest.approx(similarity_loss(*words, margin=0.6), rel=1e-5, abs=1e-7)
    assert words[1] == "easy" or float(hinge) > 0


@pytest.mark.parametrize(("miner", "strategy"), METRIC_LEARNING_ROWS)
def test_coming_from_pytorch_metric_learning(miner: str, strategy: str) -> None:
    from facenet_fast.losses import triplet_loss

    labels, x = clustered()
    ours = float(triplet_loss(labels, x, strategy_in(strategy), margin=0.2, distance="euclidean"))
    assert ours > 0
    torch = pytest.importorskip("torch")
    miners = pytest.importorskip("pytorch_metric_learning.miners")
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    batch = torch.from_numpy(3 * x), torch.from_numpy(labels)  # of any length: theirs are normalised
    mined = None if miner == "no miner" else eval(miner.strip("`"), vars(miners))(*batch)
    assert ours == pytest.approx(float(losses.TripletMarginLoss(margin=0.2)(*batch, mined)), rel=1e-5)


@pytest.mark.parametrize("example", sorted(set(EXAMPLES) - set(KERAS_EXAMPLES)), ids=lambda path: path.name)
def test_examples_run(example: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(example)], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("example", KERAS_EXAMPLES, ids=lambda path: path.name)
def test_keras_examples_train(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One epoch; `.ci/run` runs them as they are, and they assert what they reach."""
    main: Callable[..., Any] = runpy.run_path(str(example))["main"]
    main(epochs=1)
    said = capsys.readouterr().out
    assert "pixels: recall@1" in said
    assert "network: recall@1" in said


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", path.read_text()):
        assert target.startswith("http") or (path.parent / target).exists(), f"{page} links to {target}"
