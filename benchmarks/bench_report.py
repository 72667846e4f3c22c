"""The programs behind the tables run, and fill the pages that the tables are on."""

from __future__ import annotations

import re
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from . import pages, report
from .plots import plot_growth
from .timing import Contestant, take_turns

TINY = report.Scope(
    2,
    write=False,
    seconds=0.01,
    sizes=((12, 4, 32),),
    peer_sizes=((12, 4, 32),),
    strategy_sizes=((12, 4, 32),),
    neighbor_sizes=((12, 4, 32),),
    loss_sizes=((12, 4, 32),),
    loss_peer_sizes=((12, 4, 32),),
    n_pairs=200,
    n_resamples=50,
    all_pairs_sizes=((12, 4, 32),),
    embedding=(("small_resnet", 16, 8),),
    backbones=("small_resnet",),
    backbone_image_size=16,
    backbone_n_images=8,
    n_processes=1,
    n_turns=1,
    epochs={"tiny": {"image_size": 32, "epoch_size": 1, "identities_per_batch": 4, "batch_size": 20}},
    pool_sizes=(32,),
    step_batch_size=8,
    step_image_size=16,
    n_identities=(3,),
    embedding_sizes=(32,),
    n_images=(4,),
)


@pytest.mark.parametrize(
    "section",
    [name for name in report.SECTIONS if name not in ("peers", "loss-peers", "growth", "tensorflow")],
)
def test_sections(section: str) -> None:
    text = report.SECTIONS[section](TINY)
    rows = [line.count("|") for line in text.splitlines() if line.startswith("|")]
    assert "nan" not in text
    assert section == "machine" or (len(rows) > 2 and len(set(rows)) == 1)


def test_pages_have_every_section_once() -> None:
    marked = [
        name for page in pages.PAGES[:1] for name in re.findall("<!-- benchmarks: (.*) -->", page.read_text())
    ]
    # Written by a program of its own, wall_clock.py, which needs LFW and hours.
    assert sorted(marked) == sorted([*report.SECTIONS, "wall-clock"])


def test_writing_leaves_the_rest_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "a\n<!-- benchmarks: sizes -->\nold\n<!-- end of benchmarks -->\nb\n<!-- benchmarks: x -->\nc\n"
    )
    monkeypatch.setattr(pages, "PAGES", (page,))
    pages.write_section("sizes", r"| \1 |")
    assert page.read_text() == (
        "a\n<!-- benchmarks: sizes -->\n| \\1 |\n<!-- end of benchmarks -->\nb\n<!-- benchmarks: x -->\nc\n"
    )


def test_plot(tmp_path: Path) -> None:
    curves: Any = {("trained", name): [(1.0, 2.0), (10.0, 3.0)] for name in ("facenet", "product")}
    plot_growth(dict.fromkeys("abcd", curves), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_turns_skip_the_first_call_and_count_a_slow_one_once() -> None:
    calls = {"fast": 0, "slow": 0}

    def count(name: str) -> None:
        calls[name] += 1
        time.sleep(0.02 if name == "slow" else 0.0)

    contestants = {name: Contestant(partial(count, name)) for name in calls}
    timings = take_turns(contestants, seconds_each=0.01, n_turns=2)
    assert timings["slow"].n_calls == calls["slow"] == 1
    assert timings["slow"].median >= 0.02
    assert timings["fast"].n_calls == calls["fast"] - 3  # one to learn its cost, one at the head of each turn
