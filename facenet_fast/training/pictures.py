"""The pictures that a run ends with; one that cannot be drawn never fails a finished training."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from facenet_fast.evaluation.embed import Embedder, embed_images
from facenet_fast.evaluation.exact import exact_verification
from facenet_fast.evaluation.verification import Verification
from facenet_fast.files import written_aside
from facenet_fast.report.learning_curves import plot_learning_curves, plot_time_split, read_curves
from facenet_fast.report.measure import METRICS_FILE
from facenet_fast.report.plots import plot_before_after, plot_det, plot_roc
from facenet_fast.report.projector import MAX_IMAGES, write_projector
from facenet_fast.training.evaluators import Evaluator
from facenet_fast.training.run_folder import RunFolder

__all__ = ["REPORT_DIR", "draw_run", "drawn", "show_embeddings"]

REPORT_DIR = "report"

_logger = logging.getLogger("facenet_fast")


@contextmanager
def drawn(path: str) -> Iterator[str]:
    """Give the name of a file to draw aside; what fails in the block becomes a warning."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with written_aside(path) as aside:
            yield aside
    except Exception as error:  # whatever a plot's library raises: the training is done and saved
        _logger.warning("cannot draw %r: %s", path, error)


def draw_run(folder: RunFolder, results: Mapping[str, Mapping[str, Verification]]) -> str:
    """Draw learning curves, the time split, and of each evaluator ROC, DET and distances before and after.

    Parameters
    ----------
    folder : RunFolder
        The run's; the curves are drawn from its `metrics.jsonl`, so those of a resumed run are whole.
    results : mapping
        By evaluator, then by what was verified; drawn are ``network before``, where there is one, and
        ``network after``.

    Returns
    -------
    str
        The folder of the pictures. What could not be drawn has been told by a warning.
    """
    report_dir = folder.logs_path(REPORT_DIR)

    def path_of(name: str) -> str:
        return os.path.join(report_dir, f"{name}.png")

    metrics_path = folder.logs_path(METRICS_FILE)
    with drawn(path_of("learning_curves")) as aside:
        plot_learning_curves(aside, read_curves(metrics_path))
    with drawn(path_of("time_split")) as aside:
        plot_time_split(aside, read_curves(metrics_path))
    for name, verified in results.items():
        after = verified["network after"]
        exact = exact_verification(after.distances, after.is_same, n_resamples=0)
        with drawn(path_of(f"{name}_roc")) as aside:
            plot_roc(aside, exact.roc, exact.operating_points)
        with drawn(path_of(f"{name}_det")) as aside:
            plot_det(aside, exact.roc, exact.operating_points)
        with drawn(path_of(f"{name}_distances")) as aside:
            shown = [one for one in ("network before", "network after") if one in verified]
            plot_before_after(aside, {one: verified[one] for one in shown})
    return report_dir


def show_embeddings(folder: RunFolder, evaluators: Sequence[Evaluator], embedder: Embedder) -> None:
    """Write the embeddings of the first evaluator's images, the first 2,000, for TensorBoard's projector."""
    if not evaluators:
        return
    store = evaluators[0].store
    try:
        indices = np.arange(min(len(store.paths), MAX_IMAGES))
        images, is_read = store.read(indices)
        rows = indices[is_read]
        names = [os.path.basename(os.path.dirname(store.paths[row])) for row in rows]
        embeddings = embed_images(embedder, store, rows)
        write_projector(folder.logs_dir, evaluators[0].name, embeddings, names, images[is_read])
    except Exception as error:  # as of plots: nobody wants to lose a training's end to a picture
        _logger.warning("cannot write embeddings for TensorBoard's projector: %s", error)
