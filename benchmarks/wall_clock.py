"""Accuracy against wall clock of two ways to step: ``python -m benchmarks.wall_clock OUT LFW_DIR RUNS_DIR``.

``facenet-fast train`` runs in a process of its own, on the ORL faces and on LFW's, with ``--step unique`` and
with ``--step triplets``: one network, one seed, the same people, pools, margin and strategy. The rate is
constant, every epoch ends with a verification, and each run is stopped once it has trained for as long as it
may. What counts is the time between steps: reading, embedding, mining and the first step's tracing, too. The
start, verifications and checkpoints do not count. Of several learning rates each way gets its own best, by
AUC.

A run that is in `RUNS_DIR` and long enough, or that ended by itself, is not made again, whatever flags are
given.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from facenet_fast.errors import UserError
from facenet_fast.report.learning_curves import read_curves

from .lfw_split import CHOOSE_FILE, TRAIN_DIR, read_split
from .pages import ROOT, markdown_table, write_section
from .plots import plot_wall_clock

__all__ = [
    "WAYS",
    "Contest",
    "Trained",
    "best_rates",
    "contests",
    "read_trained",
    "train",
    "wall_clock_table",
]

WAYS = ("unique", "triplets")
MINUTES = (1.0, 2.0, 4.0, 8.0, 15.0)
PICTURE = "images/wall_clock.png"
SEED = 666

# Seconds in which an interrupted run must have saved.
LAST_SECONDS = 300.0

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Contest:
    """What both ways train on.

    Attributes
    ----------
    title : str
        For people.
    judged_by : str
        Whose pairs are verified: the group of the measures in `metrics.jsonl`.
    flags : sequence of str
        Of ``facenet-fast train``, the same for both ways.
    batch_sizes : mapping of str to int
        By way, in images: the whole pool, and as many in whole triplets.
    """

    title: str
    judged_by: str
    flags: Sequence[str]
    batch_sizes: Mapping[str, int]


def contests(out_dir: str, lfw_dir: str) -> dict[str, Contest]:
    """Make the contests; the flags that are not given here are the demo's."""
    lfw = [
        *("--data-dir", os.path.join(out_dir, TRAIN_DIR), "--n-held-out", "0"),
        *("--lfw-dir", lfw_dir, "--lfw-pairs", os.path.join(out_dir, CHOOSE_FILE)),
        *("--image-size", "64", "--central-fraction", "0.8"),
        *("--identities-per-batch", "32", "--images-per-identity", "4"),
        # `triplets` mines before augmentation, where copies of one image are equal: people of two images or
        # more are fair to both.
        *("--single-image-weight", "0", "--margin", "0.2", "--augment", "medium", "--epoch-size", "50"),
    ]
    return {
        "orl": Contest("ORL, 10 people held out", "held_out", [], {"unique": 150, "triplets": 150}),
        "lfw": Contest("LFW, pairs of set 3", "lfw", lfw, {"unique": 128, "triplets": 129}),
    }


# What makes runs comparable, and longer than any budget.
COMMON = [
    *("--epochs", "1000000", "--schedule", "constant", "--evaluate-every", "1", "--no-baselines"),
    *("--keep-checkpoints", "1", "--log-every", "1000", "--seed", str(SEED)),
]


# -- runs ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Trained:
    """What a run's verifications came to, the first of them before any training.

    Attributes
    ----------
    minutes : float64 (n,)
        Of training until each.
    accuracy, auc : float64 (n,)
        Of the averaged network.
    n_steps, n_images : int64 (n,)
        Optimiser steps made, and images passed forward and backward.
    ended : bool
        Training ended by itself with the last verification, as it does for want of triplets.
    """

    minutes: Floats
    accuracy: Floats
    auc: Floats
    n_steps: npt.NDArray[np.int64]
    n_images: npt.NDArray[np.int64]
    ended: bool = False

    def until(self, minutes: float) -> Trained:
        """Leave out what was verified later."""
        kept = self.minutes <= minutes
        return Trained(
            self.minutes[kept],
            self.accuracy[kept],
            self.auc[kept],
            self.n_steps[kept],
            self.n_images[kept],
            ended=self.ended and bool(kept.all()),
        )

    def reaches(self, measure: str, value: float) -> float | None:
        """Return the minutes until a measure is at least as large; None where it never is."""
        reached = np.flatnonzero(getattr(self, measure) >= value)
        return float(self.minutes[reached[0]]) if len(reached) else None


def read_trained(path: str | Path, judged_by: str) -> Trained:
    """Read a run's verifications by minutes of training from its `metrics.jsonl`.

    A step's seconds are those since the step before or, of the first of an epoch, since the epoch's start:
    they hold all that a step needs, and nothing of what is done between epochs. Only a run that came to its
    end has drawn its report.

    Raises
    ------
    UserError
        If nothing has been verified.
    """
    curves = read_curves(str(path))
    auc = curves.get(f"{judged_by}/auc")
    if auc is None:
        raise UserError(f"{str(path)!r} must have verifications of {judged_by}; got none")
    accuracy = curves[f"{judged_by}/accuracy"].value[: len(auc.value)]
    seconds, n_images, steps = np.empty(0), np.empty(0), np.empty(0, dtype=np.int64)
    if "time/step" in curves:
        steps, seconds = curves["time/step"].step, curves["time/step"].value
        n_images = np.rint(curves["images_per_second"].value * seconds)
    n_made = np.searchsorted(steps, auc.step, side="right")
    spent, passed = (np.append(0.0, np.cumsum(values)) for values in (seconds, n_images))
    return Trained(
        minutes=spent[n_made] / 60,
        accuracy=accuracy,
        auc=auc.value,
        n_steps=auc.step,
        n_images=passed[n_made].astype(np.int64),
        ended=(Path(path).parent / "report").is_dir(),
    )


def train(
    contest: Contest, way: str, rate: float, folder: Path, minutes: float, more: Sequence[str]
) -> Trained:
    """Train for some minutes, unless the folder has such a run, and return what came of it.

    Raises
    ------
    UserError
        If a run ends by itself with an error.
    """
    found = _newest(folder, contest)
    if found is not None and (found.ended or found.minutes[-1] >= minutes):
        return found
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "facenet_fast", "train", "--step", way, "--learning-rate", str(rate)]
    command += ["--batch-size", str(contest.batch_sizes[way]), "--runs-dir", str(folder)]
    before = set(folder.glob("*/metrics.jsonl"))
    with open(folder / "log.txt", "w") as log:
        child = subprocess.Popen(
            [*command, *COMMON, *contest.flags, *more], stdout=log, stderr=subprocess.STDOUT, cwd=ROOT
        )
        try:
            left = minutes
            while left > 0 and child.poll() is None:
                # Looking costs time of its own, so it is done less and less often while there is much left.
                time.sleep(max(1.0, left * 60 / 2))
                new = set(folder.glob("*/metrics.jsonl")) - before
                left = minutes - _minutes_of(new, contest)
            if child.poll() is None:
                child.send_signal(signal.SIGINT)
                child.wait(timeout=LAST_SECONDS)
        finally:
            if child.poll() is None:
                child.kill()
    if child.returncode not in (0, 130):
        tail = (folder / "log.txt").read_text().splitlines()[-3:]
        raise UserError(f"training with {way} must not fail; {folder}: {' / '.join(tail)}")
    found = _newest(folder, contest)
    if found is None:
        raise UserError(f"a run must verify something; {folder} has none that did")
    return found


def _newest(folder: Path, contest: Contest) -> Trained | None:
    paths = sorted(folder.glob("*/metrics.jsonl"))
    return read_trained(paths[-1], contest.judged_by) if paths else None


def _minutes_of(paths: Iterable[Path], contest: Contest) -> float:
    """Return the minutes that a run which has just begun has trained and verified."""
    for path in paths:
        try:
            return float(read_trained(path, contest.judged_by).minutes[-1])
        except UserError:
            break
    return 0.0


# -- what came of them ---------------------------------------------------------------------------------------

# By the contest, then by the way: its learning rate and its run.
Results = dict[str, dict[str, tuple[float, Trained]]]


def best_rates(runs: Mapping[str, Mapping[str, Mapping[float, Trained]]]) -> Results:
    """Keep of each way the learning rate whose run had the largest AUC."""
    return {
        name: {
            way: max(by_rate.items(), key=lambda item: float(item[1].auc.max()))
            for way, by_rate in ways.items()
        }
        for name, ways in runs.items()
    }


def wall_clock_table(results: Results, titles: Mapping[str, str], minutes: float) -> str:
    """Write a markdown table: accuracy and AUC after some minutes, and when each had reached the other.

    A run that has ended has nothing to say of later minutes.
    """
    columns = [*(some for some in MINUTES if some < minutes), minutes]
    header = ["", "`--step`", "rate", *(f"{some:g} min" for some in columns), "ended", "at the end"]
    header += ["best", "steps", "images", "other's best accuracy, AUC after"]
    lines = []
    for name, ways in results.items():
        for way, (rate, whole) in ways.items():
            trained = whole.until(minutes)
            others = [other.until(minutes) for key, (_, other) in ways.items() if key != way]
            line = [titles[name], f"`{way}`", f"{rate:g}"]
            line += [
                "-" if trained.ended and some > trained.minutes[-1] else _after(trained, some)
                for some in columns
            ]
            line += (
                [_minutes(float(trained.minutes[-1])), _after(trained, minutes)]
                if trained.ended
                else ["-", "-"]
            )
            line += [f"{trained.accuracy.max():.3f}, {trained.auc.max():.3f}"]
            line += [f"{trained.n_steps[-1]:,}", f"{trained.n_images[-1]:,}"]
            line.append(
                ", ".join(
                    _minutes(trained.reaches(measure, max(getattr(other, measure).max() for other in others)))
                    for measure in ("accuracy", "auc")
                )
                if others
                else "-"
            )
            lines.append(line)
    return markdown_table(header, lines)


def _after(trained: Trained, minutes: float) -> str:
    """Say what the last verification until then came to."""
    made = trained.until(minutes)
    return f"{made.accuracy[-1]:.3f}, {made.auc[-1]:.3f}"


def _minutes(minutes: float | None) -> str:
    return "never" if minutes is None else f"{minutes:.1f} min"


def main(arguments: list[str] | None = None) -> None:
    """Train all, print the table and draw the picture."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.wall_clock",
        description=__doc__,
        epilog="After -- come flags of `facenet-fast train` for every run.",
    )
    parser.add_argument("out_dir", metavar="OUT", help="folder that benchmarks.lfw_split wrote")
    parser.add_argument("lfw_dir", metavar="LFW_DIR", help="folder of images and pairs.txt")
    parser.add_argument("runs_dir", metavar="RUNS_DIR", type=Path, help="folder of the runs and the picture")
    parser.add_argument("--minutes", type=float, default=MINUTES[-1], help="of training, each (default: 15)")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.0015], help="learning rates to try")
    parser.add_argument("--only", choices=("orl", "lfw"), help="one of the two data sets")
    parser.add_argument("--write", action="store_true", help="put table and picture into docs/performance.md")
    words = sys.argv[1:] if arguments is None else arguments
    own = words[: words.index("--")] if "--" in words else words
    given, more = parser.parse_args(own), words[len(own) + 1 :]
    # A shell that starts this in the background has it ignore Ctrl-C, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Killed, this must not leave a child behind that trains for ever.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    out_dir, lfw_dir = (os.path.abspath(path) for path in (given.out_dir, given.lfw_dir))
    runs_dir = given.runs_dir.absolute()
    runs: dict[str, dict[str, dict[float, Trained]]] = {}
    try:
        if given.only != "orl":
            read_split(lfw_dir, out_dir)
        chosen = {
            name: contest
            for name, contest in contests(out_dir, lfw_dir).items()
            if given.only in (None, name)
        }
        for name, contest in chosen.items():
            for way in WAYS:
                for rate in given.rates:
                    folder = runs_dir / f"{name}-{way}-{rate:g}"
                    trained = train(contest, way, rate, folder, given.minutes, more)
                    runs.setdefault(name, {}).setdefault(way, {})[rate] = trained
                    print(f"{folder.name}: {_after(trained, given.minutes)}", file=sys.stderr, flush=True)
    except UserError as error:
        parser.error(str(error))
    results = best_rates(runs)
    titles = {name: contest.title for name, contest in chosen.items()}
    text = wall_clock_table(results, titles, given.minutes)
    print(text)
    picture = ROOT / "docs" / PICTURE if given.write else runs_dir / "wall_clock.png"
    plot_wall_clock(
        {
            titles[name]: {way: trained.until(given.minutes) for way, (_, trained) in ways.items()}
            for name, ways in results.items()
        },
        picture,
    )
    if given.write:
        write_section("wall-clock", f"![Accuracy and AUC against minutes of training]({PICTURE})\n\n{text}")


if __name__ == "__main__":
    main()
