"""Which threshold to use: found by `validate`, kept with the model, read by `compare`."""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import facenet_fast
from facenet_fast.errors import UserError
from facenet_fast.evaluation.roc import OperatingPoint
from facenet_fast.evaluation.verification import EUCLIDEAN, METRICS
from facenet_fast.files import write_text_aside

__all__ = [
    "SAVED_FARS",
    "Similarity",
    "Threshold",
    "Thresholds",
    "load_thresholds",
    "save_thresholds",
    "similarity_of",
    "thresholds_at",
    "thresholds_path",
]

SAVED_FARS = (1e-1, 1e-2, 1e-3, 1e-4)

_FILE_OF_CHECKPOINT = re.compile(r"\.(index|data-\d{5}-of-\d{5}|meta|ckpt-\d+)$")

# Lengths of embeddings that differ by less are one length: half precision's do.
_LENGTH_TOLERANCE = 1e-3

_logger = logging.getLogger("facenet_fast")


@dataclass(frozen=True)
class Similarity:
    """The cosine of the angle between two embeddings, as a function of their distance.

    Attributes
    ----------
    metric : {0, 1}
        What is measured: squared Euclidean distance, or angle / pi.
    squared_norm : float
        Of every embedding: 1, or 2 where a mirrored image's is appended. Angles do not ask for it.

    Examples
    --------
    >>> Similarity(metric=0, squared_norm=1.0)(0.5), round(Similarity(metric=1)(1 / 3), 6)
    (0.75, 0.5)
    """

    metric: int
    squared_norm: float = 1.0

    def __call__(self, distance: float) -> float:
        """Return the cosine at that distance, 1 for the same and -1 for the opposite direction."""
        if self.metric == EUCLIDEAN:
            return 1.0 - distance / (2.0 * self.squared_norm)
        return math.cos(math.pi * distance)


@dataclass(frozen=True)
class Threshold:
    """Accept two images as one identity where their distance is below `threshold`.

    Attributes
    ----------
    far_target, far, val : float
        The false accept rate asked for, that reached, and the share of same pairs accepted with it.
    threshold : float
    similarity : float or None
        The cosine at that distance; None where embeddings differ in length.
    """

    far_target: float
    far: float
    val: float
    threshold: float
    similarity: float | None


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of a model, and what they hold for.

    Attributes
    ----------
    metric : {0, 1}
        Squared Euclidean distance, or angle / pi.
    flipped : bool
        Whether mirrored images' embeddings are appended.
    standardisation : {"per_image", "fixed"}
        How images were standardised.
    checkpoint : str
        Name of the model's checkpoint or file that was verified.
    n_same, n_different : int
        Pairs they were found on.
    source : str
        What these pairs were.
    points : tuple of Threshold
        By falling FAR.
    """

    metric: int
    flipped: bool
    standardisation: str
    checkpoint: str
    n_same: int
    n_different: int
    source: str
    points: tuple[Threshold, ...]

    def at(self, far: float | None = None) -> Threshold:
        """Return the threshold of a FAR; by default that of 0.001, or of the least there is.

        Raises
        ------
        UserError
            If there is none for that FAR.
        """
        if not self.points:
            raise UserError("the model has no thresholds; verify it on more pairs of different people")
        if far is None:
            return min(self.points, key=lambda point: (point.far_target < 1e-3, point.far_target))
        for point in self.points:
            if math.isclose(point.far_target, far):
                return point
        choices = ", ".join(f"{point.far_target:g}" for point in self.points)
        raise UserError(f"the model has thresholds for FAR {choices}; got {far:g}")


def similarity_of(embeddings: NDArray[Any], metric: int) -> Similarity | None:
    """Return how distances of these embeddings give cosines, or None if their lengths differ."""
    if metric != EUCLIDEAN:
        return Similarity(metric)
    norms = np.linalg.norm(np.asarray(embeddings, dtype=np.float64), axis=1)
    norms = norms[np.isfinite(norms)]
    length = float(np.median(norms)) if len(norms) else 0.0
    if length == 0.0 or np.max(np.abs(norms / length - 1.0)) > _LENGTH_TOLERANCE:
        return None
    return Similarity(metric, length**2)


def thresholds_at(points: Iterable[OperatingPoint], similarity: Similarity | None) -> tuple[Threshold, ...]:
    """Take what is saved of operating points."""
    return tuple(
        Threshold(
            point.far_target,
            point.far,
            point.val,
            point.threshold,
            None if similarity is None else similarity(point.threshold),
        )
        for point in points
        if any(math.isclose(point.far_target, far) for far in SAVED_FARS)
    )


def save_thresholds(thresholds: Thresholds, model_path: str) -> str:
    """Write thresholds beside a model, aside first, and return the file's path.

    A run folder and its checkpoints have ``RUN/thresholds.json``; ``MODEL.pb`` has
    ``MODEL.pb.thresholds.json``, and so have ``.keras`` files. What was there is replaced.

    Raises
    ------
    UserError
        If the folder cannot be written.
    """
    text = json.dumps(to_record(thresholds), indent=2, allow_nan=False)
    return write_text_aside(thresholds_path(model_path), text + "\n")


def load_thresholds(model_path: str) -> Thresholds | None:
    """Read the thresholds of a model; None if it has none.

    Those of a model file may be in the file itself, where `facenet_fast.export.freeze` puts a run's; a file
    beside it is newer and goes first. Where a run has gone on since, a warning says so.

    Parameters
    ----------
    model_path : str
        As of `facenet_fast.models.load_embedder`.

    Returns
    -------
    Thresholds or None

    Raises
    ------
    UserError
        If the file is there and cannot be read.
    """
    # Only here, since it imports TensorFlow.
    from facenet_fast.models import name_of_model, read_metadata

    path = thresholds_path(model_path)
    try:
        with open(path, encoding="utf-8") as file:
            thresholds = from_record(json.load(file), path)
    except FileNotFoundError:
        metadata = read_metadata(model_path)
        return from_record(metadata.thresholds, model_path) if metadata and metadata.thresholds else None
    except OSError as error:
        raise UserError(f"the thresholds {path!r} cannot be read: {error}") from error
    except ValueError as error:
        raise _no_thresholds(path, error) from error
    verified, current = thresholds.checkpoint, name_of_model(model_path)
    if verified != current:
        _logger.warning("the thresholds in %s are those of %s, and the model is %s", path, verified, current)
    return thresholds


def thresholds_path(model_path: str) -> str:
    """Return where a model's thresholds are kept, there or not."""
    path = os.path.expanduser(model_path)
    is_checkpoint = os.path.isfile(path + ".index") or _FILE_OF_CHECKPOINT.search(path)
    is_saved_model = os.path.isfile(os.path.join(path, "saved_model.pb"))
    if is_checkpoint or (os.path.isdir(path) and not is_saved_model):
        return os.path.join(os.path.dirname(path) if is_checkpoint else path, "thresholds.json")
    return path.rstrip(os.sep) + ".thresholds.json"


def to_record(thresholds: Thresholds) -> dict[str, Any]:
    """Return thresholds as what JSON can hold, for people and programs."""
    record = asdict(thresholds)
    record["points"] = list(record["points"])
    record["distance"] = METRICS[thresholds.metric]
    record["facenet_fast"] = facenet_fast.__version__
    return record


def from_record(record: Any, path: str) -> Thresholds:
    """Read what `to_record` gave; `path` is for messages."""
    try:
        points = tuple(_checked_point(point) for point in record["points"])
        thresholds = Thresholds(
            metric=record["metric"],
            flipped=record["flipped"],
            standardisation=record["standardisation"],
            checkpoint=record["checkpoint"],
            n_same=record["n_same"],
            n_different=record["n_different"],
            source=record["source"],
            points=points,
        )
        if thresholds.metric not in METRICS:
            raise ValueError(f"metric {thresholds.metric!r}")
    except (ValueError, TypeError, KeyError) as error:
        raise _no_thresholds(path, error) from error
    return thresholds


def _no_thresholds(path: str, error: Exception) -> UserError:
    return UserError(f"{path!r} must hold thresholds as `facenet-fast validate` writes them; {error}")


def _checked_point(record: Any) -> Threshold:
    point = Threshold(**record)
    numbers = [point.far_target, point.far, point.val, point.threshold]
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
        raise ValueError(f"a threshold's numbers must be finite; got {record}")
    return point
