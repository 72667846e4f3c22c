"""Watch training, and say in one sentence what goes wrong and what to do about it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from facenet_fast.config import TrainConfig

__all__ = ["LOOK_EVERY", "MOST_ROLLBACKS", "Doctor", "Spread", "effective_rank", "loss_at_rest", "spread_of"]

LOOK_EVERY = 10
"""Steps between two looks: eigenvalues of 128 x 128 are milliseconds."""

MOST_ROLLBACKS = 5
"""Rollbacks in a row, no epoch ended in between, after which training stops."""

# Looks in a row that must find the same before it is said: what begins badly often mends itself.
_PATIENCE = 5
# Length of the mean of unit vectors, d_an then being 0.02. While the demo trained it was at most 0.07, as
# batch-norm in the head keeps it near 0; in inference mode (step="triplets"), before any training, 0.93.
_ONE_POINT = 0.995
# Part of the dimensions there could be that must be in use: the least while the demo trained was 0.6.
_LEAST_RANK = 0.05
# Fewer dimensions than that may be all there is to tell a few people apart.
_FEWEST_DIMENSIONS = 5
# Part of the loss at rest: while the demo trained, mean d_an - d_ap was never below a tenth of it.
_AT_REST = 0.02

_LOWER_RATE = "lower --learning-rate, or mine less hard triplets (--strategy vgg_face or facenet)"

_logger = logging.getLogger("facenet_fast")

_Integers = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Spread:
    """How the embeddings of a pool lie.

    Attributes
    ----------
    mean_length : float
        Euclidean length of the mean embedding: of unit vectors 1 if all are one.
    rank : float
        See `effective_rank`.
    most_rank : int
        What it is at most for as many identities and numbers in an embedding, were all images of an identity
        one.
    d_ap, d_an : float
        Mean squared distance of two images of one identity, and of two. NaN where there are none.
    """

    mean_length: float
    rank: float
    most_rank: int
    d_ap: float
    d_an: float


class Doctor:
    """Look at a step now and then, and warn of each ailment once until it clears.

    An ailment is one that five looks in a row have found, each at another pool.

    Parameters
    ----------
    config : TrainConfig
        Read: `loss`, `margin`, `sharpness`.
    names : sequence of str
        Of the identities that are trained on.

    Attributes
    ----------
    rate_factor : float
        What learning rates are multiplied with since training was rolled back.
    n_rollbacks : int
        In a row, no epoch ended in between.
    n_empty : int
        Pools in a row that gave no triplet.
    """

    def __init__(self, config: TrainConfig, names: Sequence[str]) -> None:
        self._config = config
        self._names = names
        self.rate_factor = 1.0
        self.n_rollbacks = 0
        self.n_empty = 0
        self._n_found: dict[str, int] = {}  # looks in a row that found it
        self._missing: list[int] = []  # identities named as never drawn
        self._last: Any = None

    def look(
        self, seen: tuple[npt.NDArray[np.float32], _Integers] | None, loss: Callable[[], float], step: int
    ) -> dict[str, float]:
        """Look at a pool's embeddings every tenth step, at no pool twice.

        Parameters
        ----------
        seen : tuple of float32 array, shape (N, E), and int array, shape (N,)
            Finite embeddings and their identities; None: there are none to look at.
        loss : callable
            Returns the loss of the step without the weight penalty.
        step : int
            Optimiser steps made.

        Returns
        -------
        dict of str to float
            Measures, empty without a look.
        """
        # With `step="triplets"` one pool makes many steps.
        if step % LOOK_EVERY or seen is None or seen is self._last:
            return {}
        self._last = seen
        embeddings, labels = seen
        spread = spread_of(embeddings, labels)
        found = self._found(spread, loss(), loss_at_rest(self._config, labels))
        self._n_found = {kind: self._n_found.get(kind, 0) + 1 for kind in found}
        for kind, sentence in found.items():
            if self._n_found[kind] == _PATIENCE:
                _logger.warning("step %d: %s", step, sentence)
        return {"health/effective_rank": spread.rank, "health/mean_length": spread.mean_length}

    def _found(self, spread: Spread, loss: float, rest: float) -> dict[str, str]:
        """Return a sentence for each ailment; what follows from one that is told is not told."""
        if spread.mean_length > _ONE_POINT:
            return {
                "one_point": f"all embeddings are becoming one (their mean has the length "
                f"{spread.mean_length:.4f} of 1): {_LOWER_RATE}"
            }
        found = {}
        is_small = spread.rank < max(1.0, _LEAST_RANK * spread.most_rank) + 1.0
        if spread.most_rank >= _FEWEST_DIMENSIONS and is_small:
            found["low_rank"] = (
                f"the embeddings use {spread.rank:.1f} of the {spread.most_rank} dimensions they could: "
                f"{_LOWER_RATE}"
            )
        # NaN compares as false: a pool without pairs shows nothing.
        if abs(spread.d_an - spread.d_ap) < _AT_REST * rest and abs(loss - rest) < _AT_REST * rest:
            found["at_rest"] = (
                f"the loss rests at {loss:.3f}, its value where images of one person are as far apart as "
                f"those of two: {_LOWER_RATE}; or see whether each folder is a person"
            )
        return found

    def went_back(self) -> None:
        """Halve the rate after a rollback; what was found before counts no more."""
        self.rate_factor *= 0.5
        self.n_rollbacks += 1
        self._n_found = {}

    def name_missing(self, missing: _Integers, single_image_weight: float) -> None:
        """Name identities that can be in no pool, each once.

        Parameters
        ----------
        missing : int array
            All of them, those named before included.
        single_image_weight : float
            The setting, one of the two reasons.
        """
        fresh = sorted(set(missing.tolist()) - set(self._missing))
        if not fresh:
            return
        self._missing = missing.tolist()
        why = "none of their images can be read"
        if single_image_weight == 0:
            why = "single_image_weight is 0, and they have fewer than two images that can be read"
        names = ", ".join(self._names[one] for one in fresh[:5]) + (", ..." if len(fresh) > 5 else "")
        _logger.warning(
            "never in a pool, as %s: %d of %d people: %s", why, len(fresh), len(self._names), names
        )

    def state(self) -> dict[str, Any]:
        """Return what a resumed run must know, as plain values for JSON."""
        return {
            "rate_factor": self.rate_factor,
            "n_rollbacks": self.n_rollbacks,
            "n_empty": self.n_empty,
            "n_found": self._n_found,
            "missing": self._missing,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`, if there is one."""
        self.rate_factor = state.get("rate_factor", 1.0)
        self.n_rollbacks = state.get("n_rollbacks", 0)
        self.n_empty = state.get("n_empty", 0)
        self._n_found = dict(state.get("n_found", {}))
        self._missing = list(state.get("missing", []))


def effective_rank(embeddings: npt.ArrayLike) -> float:
    r"""How many dimensions points use, as a number that need not be whole.

    .. math:: \exp\Big(-\sum_i p_i \log p_i\Big)

    with the eigenvalues of the points' covariance, divided by their sum, as :math:`p_i` (O. Roy and
    M. Vetterli, 2007, "The effective rank: a measure of effective dimensionality", section 2, who take
    singular values).

    Parameters
    ----------
    embeddings : array_like, shape (N, E)
        Finite numbers.

    Returns
    -------
    float
        From 1, all on one line, to the smaller of E and N - 1; 1 also where all are one point.

    Examples
    --------
    >>> round(effective_rank([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), 6)
    2.0
    """
    points = np.asarray(embeddings, dtype=np.float64)
    points = points - points.mean(axis=0)
    # Both products have the same eigenvalues but for zeros.
    product = points @ points.T if len(points) < points.shape[1] else points.T @ points
    values = np.clip(np.linalg.eigvalsh(product), 0.0, None)
    if not values.sum() > 0:
        return 1.0
    shares = values / values.sum()
    shares = shares[shares > 0]
    return float(np.exp(-np.sum(shares * np.log(shares))))


def spread_of(embeddings: npt.NDArray[np.floating], labels: _Integers) -> Spread:
    """Describe how embeddings lie, without looking at each pair.

    Parameters
    ----------
    embeddings : float array, shape (N, E)
        Finite numbers.
    labels : int array, shape (N,)
        The identity of each.
    """
    points = embeddings.astype(np.float64)
    mean = points.mean(axis=0)
    points -= mean
    _, of, counts = np.unique(labels, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), points.shape[1]))
    np.add.at(sums, of, points)
    squares = np.einsum("ij,ij->i", points, points)
    # Over ordered pairs of rows x, y of a set of n: sum |x - y|^2 = 2 n sum |x|^2 - 2 |sum x|^2.
    same = 2.0 * (np.sum(counts[of] * squares) - np.sum(sums**2))
    every = 2.0 * (len(points) * np.sum(squares) - np.sum(np.sum(points, axis=0) ** 2))
    n_same = int(np.sum(counts * (counts - 1)))
    n_different = len(points) ** 2 - int(np.sum(counts**2))
    return Spread(
        mean_length=float(np.linalg.norm(mean)),
        rank=effective_rank(embeddings),
        most_rank=min(len(counts) - 1, points.shape[1]),
        d_ap=float(same / n_same) if n_same else math.nan,
        d_an=float((every - same) / n_different) if n_different else math.nan,
    )


def loss_at_rest(config: TrainConfig, labels: _Integers) -> float:
    """Loss of a pool all of whose distances are equal, without the weight penalty.

    Parameters
    ----------
    config : TrainConfig
        Read: `loss`, `margin`, `sharpness`.
    labels : int array, shape (N,)
        Identities of the pool, which `log_sum_exp` depends on: NaN where it has no pair with a negative.

    Examples
    --------
    >>> loss_at_rest(TrainConfig(margin=0.3), np.array([0, 0, 1]))
    0.3
    """
    if config.loss == "hinge":
        return config.margin
    if config.loss == "soft_margin":
        return math.log(2.0)
    counts = np.unique(labels, return_counts=True)[1]
    n_pairs = counts * (counts - 1.0)
    if len(counts) < 2 or not n_pairs.any():
        return math.nan
    each = np.logaddexp(0.0, config.sharpness * config.margin + np.log(len(labels) - counts))
    return float(np.average(each, weights=n_pairs) / config.sharpness)
