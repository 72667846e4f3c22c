"""One protocol for all who learn from LFW alone: ``python -m benchmarks.lfw_protocol OUT LFW_DIR RUN_DIR``.

`lfw_split` makes the pairs: the threshold that judges most of the choosing ones rightly judges the testing
ones. AUC and VAL need no threshold and are of the testing pairs alone. ``--choose`` does not look at the
testing pairs: it is for the time when settings are still being chosen.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from facenet_fast.data.pairs import Pairs
from facenet_fast.errors import UserError
from facenet_fast.evaluation.embed import Embedder
from facenet_fast.evaluation.exact import of_roc
from facenet_fast.evaluation.roc import exact_roc
from facenet_fast.evaluation.verification import distances
from facenet_fast.evaluation.verify_images import embed_pairs
from facenet_fast.report.learning_curves import read_curves

from .lfw_split import CHOOSE_SET, TEST_SET, Split, read_split
from .pages import markdown_table

__all__ = [
    "FAR",
    "Chosen",
    "Judged",
    "Row",
    "choose",
    "choose_by_embedder",
    "flip_averaged",
    "judge",
    "judge_embedder",
    "mean_rows",
    "minutes_of",
    "pair_distances",
    "say",
    "table",
]

# Three of the 300 different pairs of a set.
FAR = 1e-2

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Chosen:
    """What the choosing pairs say.

    Attributes
    ----------
    threshold : float
        It judges most of them rightly; the smallest of equally good ones. Accept distances below it.
    accuracy : float
        The share that it judges rightly, which is optimistic.
    auc : float
        Area under the curve. Settings are best chosen by this: it is less a matter of chance than accuracy.
    """

    threshold: float
    accuracy: float
    auc: float


@dataclass(frozen=True)
class Judged:
    """What the testing pairs say.

    Attributes
    ----------
    accuracy : float
        Share of pairs that the chosen threshold judges rightly.
    standard_error : float
        Of the accuracy, ``sqrt(a (1 - a) / n)``: how much is chance of which n pairs they are.
    auc, val : float
        Area under the curve, and the validation rate at `FAR`, both exact.
    """

    accuracy: float
    standard_error: float
    auc: float
    val: float


def choose(measured: Floats, is_same: Bools) -> Chosen:
    """Find the best threshold of the choosing pairs.

    Parameters
    ----------
    measured : float64 (n_pairs,)
        Small for one person.
    is_same : bool (n_pairs,)
        Whether each pair shows one person.
    """
    found = of_roc(exact_roc(measured, is_same), fars=())
    return Chosen(found.threshold, found.best_accuracy, found.auc)


def judge(chosen: Chosen, measured: Floats, is_same: Bools) -> Judged:
    """Judge the testing pairs by the threshold chosen; parameters are those of `choose`."""
    roc = exact_roc(measured, is_same)
    accuracy = float(np.mean((measured < chosen.threshold) == is_same))
    error = math.sqrt(accuracy * (1 - accuracy) / len(is_same))
    return Judged(accuracy, error, roc.auc, roc.at_far(FAR).val)


def flip_averaged(rows: Rows, mirrored: Rows) -> Rows:
    """Average the embeddings of images and of their mirror images, and bring each to length 1 again."""
    return unit(rows + mirrored)


def unit(rows: Rows) -> Rows:
    """Bring rows to length 1; zeros stay."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)


def pair_distances(embedder: Embedder, pairs: Pairs) -> dict[bool, Floats]:
    """Measure pairs as embedded (False) and flip-averaged (True): squared Euclidean distances.

    Raises
    ------
    UserError
        If an image cannot be read: everybody is to be judged by the same pairs.
    """
    embedded = embed_pairs(embedder, pairs, flipped=True)
    if len(embedded.pairs) != len(pairs):
        raise UserError(
            f"all images of the pairs must be readable; {len(pairs) - len(embedded.pairs)} of {len(pairs)} "
            "pairs lack one"
        )
    rows, mirrored = np.split(embedded.embeddings, 2, axis=1)
    return {
        flipped: distances(some[embedded.left], some[embedded.right])
        for flipped, some in ((False, rows), (True, flip_averaged(rows, mirrored)))
    }


def choose_by_embedder(embedder: Embedder, split: Split) -> dict[bool, Chosen]:
    """Look at the choosing pairs only, without (False) and with (True) flip-averaging."""
    measured = pair_distances(embedder, split.choose)
    return {flipped: choose(some, split.choose.is_same) for flipped, some in measured.items()}


def judge_embedder(
    embedder: Embedder, split: Split, chosen: Mapping[bool, Chosen] | None = None
) -> dict[bool, Judged]:
    """Judge an embedder without (False) and with (True) flip-averaging.

    Parameters
    ----------
    embedder : Embedder
        A network's (`facenet_fast.models.load_embedder`), or any other.
    split : Split
        LFW in parts.
    chosen : mapping of bool to Chosen, optional
        What `choose_by_embedder` gave, if it is at hand.
    """
    chosen = chosen or choose_by_embedder(embedder, split)
    measured = pair_distances(embedder, split.test)
    return {flipped: judge(chosen[flipped], some, split.test.is_same) for flipped, some in measured.items()}


def minutes_of(run_dir: str) -> float | None:
    """Say how many minutes a run took by its `metrics.jsonl`, its verifications included.

    Parameters
    ----------
    run_dir : str
        A run's folder, its folder ``best``, which took all of the run to choose, or a checkpoint's prefix.

    Returns
    -------
    float or None
        None where nothing is measured.
    """
    for folder in (run_dir, os.path.dirname(os.path.abspath(run_dir))):
        path = os.path.join(folder, "metrics.jsonl")
        if os.path.isfile(path) and (curves := read_curves(path)):
            return max(float(curve.minutes[-1]) for curve in curves.values())
    return None


# -- tables --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A line of the table: who, the minutes it took to train (None: unknown), and what came of it."""

    name: str
    minutes: float | None
    flipped: bool
    chosen: Chosen
    judged: Judged | None = None


def table(rows: Sequence[Row], more: Sequence[Sequence[str]] = ()) -> str:
    """Write results as a markdown table; lines that are texts already follow them.

    Columns of the testing pairs are left out where no row has any.
    """
    is_judged = any(row.judged for row in rows)
    header = ["", "minutes", "flip", f"accuracy, set {CHOOSE_SET}", f"AUC, set {CHOOSE_SET}"]
    if is_judged:
        header += [f"accuracy, set {TEST_SET}", f"AUC, set {TEST_SET}", f"VAL@FAR={FAR:g}, set {TEST_SET}"]
    return markdown_table(header, [*(_line(row) for row in rows), *more])


def mean_rows(rows: Sequence[Row]) -> list[list[str]]:
    """Average runs: a line of texts for each of the two ways to embed, mean +- standard deviation.

    The deviation is that of the runs as a sample, with ``n - 1``. One run gives no line.
    """
    lines = []
    for flipped in (False, True):
        some = [row for row in rows if row.flipped == flipped]
        if len(some) < 2:
            continue
        minutes = [row.minutes for row in some if row.minutes is not None]
        line = [f"mean of {len(some)} runs", _spread(minutes, ".1f") if minutes else "-", say(flipped)]
        line += [
            _spread([getattr(row.chosen, measure) for row in some], ".3f") for measure in ("accuracy", "auc")
        ]
        judged = [row.judged for row in some if row.judged]
        if judged:
            line += [
                _spread([getattr(one, measure) for one in judged], ".3f")
                for measure in ("accuracy", "auc", "val")
            ]
        lines.append(line)
    return lines


def say(flipped: bool) -> str:
    """Return the word of the column *flip*."""
    return "yes" if flipped else "no"


def _line(row: Row) -> list[str]:
    line = [
        row.name,
        "-" if row.minutes is None else f"{row.minutes:.1f}",
        say(row.flipped),
        f"{row.chosen.accuracy:.3f}",
        f"{row.chosen.auc:.3f}",
    ]
    if row.judged:
        judged = row.judged
        line += [f"{judged.accuracy:.3f} ({judged.standard_error:.3f})", f"{judged.auc:.3f}"]
        line.append(f"{judged.val:.3f}")
    return line


def _spread(values: Sequence[float], form: str) -> str:
    mean = f"{statistics.fmean(values):{form}}"
    return f"{mean} +- {statistics.stdev(values):{form}}" if len(values) > 1 else mean


def judge_runs(
    run_dirs: Sequence[str], split: Split, load: Callable[[str], Embedder], only_choose: bool = False
) -> list[Row]:
    """Judge the networks of runs; two rows each, without and with flip-averaging."""
    rows = []
    for run_dir in run_dirs:
        embedder = load(run_dir)
        chosen = choose_by_embedder(embedder, split)
        judged = {} if only_choose else judge_embedder(embedder, split, chosen)
        minutes = minutes_of(run_dir)
        for flipped in chosen:
            rows.append(Row(_name(run_dir), minutes, flipped, chosen[flipped], judged.get(flipped)))
    return rows


def _name(run_dir: str) -> str:
    parent, name = os.path.split(os.path.abspath(run_dir))
    return f"{os.path.basename(parent)}/{name}" if name == "best" else name


def main(arguments: list[str] | None = None) -> None:
    """Judge runs and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lfw_protocol", description=__doc__)
    parser.add_argument("out_dir", metavar="OUT", help="folder that benchmarks.lfw_split wrote")
    parser.add_argument("lfw_dir", metavar="LFW_DIR", help="folder of images and pairs.txt")
    parser.add_argument(
        "runs", metavar="RUN_DIR", nargs="+", help="a run, RUN/best, or what else `validate` takes"
    )
    parser.add_argument(
        "--choose", action="store_true", help=f"look at set {CHOOSE_SET} only: settings are being chosen"
    )
    given = parser.parse_args(arguments)
    from facenet_fast.models import load_embedder

    try:
        split = read_split(given.lfw_dir, given.out_dir)
        rows = judge_runs(given.runs, split, load_embedder, given.choose)
    except UserError as error:
        parser.error(str(error))
    print(table(rows, mean_rows(rows)))


if __name__ == "__main__":
    main()
