"""What the documentation shows runs, and names all there is: docstrings, pages, pictures, examples."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import facenet_fast
from facenet_fast import PRESETS, Interval, Strategy
from facenet_fast.mining.strategies import BANDS, IF_EMPTY, PAIRS, PICKS

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
MODULES = sorted(m.name for m in pkgutil.walk_packages(facenet_fast.__path__, "facenet_fast."))
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
STRATEGIES = (ROOT / "docs/strategies.md").read_text()


@pytest.mark.parametrize("name", [m for m in MODULES if not m.rsplit(".", 1)[-1].startswith("_")])
def test_docstring_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def run_python_of(page: str) -> int:
    """Run a page's Python, one block after the other as a reader would, and say how many there are."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    return len(blocks)


@pytest.mark.parametrize("page", PAGES)
def test_python_of_pages_runs(page: str) -> None:
    assert run_python_of(page) > 0 or page not in ("README.md", "docs/migration.md", "docs/strategies.md")


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


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_examples_run(example: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(example)], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", path.read_text()):
        assert target.startswith("http") or (path.parent / target).exists(), f"{page} links to {target}"
