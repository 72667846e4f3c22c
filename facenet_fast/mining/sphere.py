"""How likely a distance is between random points of a sphere, and weights that make all equally likely.

On the unit sphere of ``size`` dimensions the distance ``D`` has the density
``q(D) ~ D^(size - 2) (1 - D^2 / 4)^((size - 3) / 2)``. Distance-weighted sampling (Wu et al. 2017, section 4)
takes a negative with a probability proportional to ``min(1 / q(D), limit)``: far more near ones than chance.

The weights span hundreds of powers of ten, so they are logarithms, and to draw by them the squared distances
are cut into bins within which the weight changes by a factor of e at most.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

__all__ = ["Weights", "weights"]


# Just below the squared distance of antipodes, whose logarithm is none.
_FARTHEST = 4.0 * (1.0 - 2.0**-40)


# A square that is none any more would have no logarithm either.
_NEAREST = 2.0**-1000


@dataclass(frozen=True)
class Weights:
    """Weights of squared distances ``d`` of the mined rows; those on the unit sphere are ``unit * d``.

    Attributes
    ----------
    size : int
        Dimensions of the sphere's space.
    unit : float
        1 for Euclidean distances, squared or not, 2 for cosine distances.
    lowest, highest : float
        Squared distances on the sphere between which the weight varies; beyond, it is that of the end.
    edges : tuple of float
        Distances ``d`` between bins, ascending: bin ``b`` is ``edges[b - 1] <= d < edges[b]``.
    log_bounds : tuple of float, one more than edges
        No weight in a bin is greater, and none is smaller by more than a factor of about e.
    """

    size: int
    unit: float
    lowest: float
    highest: float
    edges: tuple[float, ...]
    log_bounds: tuple[float, ...]

    def log_weight(self, d: float) -> float:
        """Return the logarithm of the weight of a negative at distance ``d``."""
        return _log_weight(self.size, min(max(self.unit * d, self.lowest), self.highest))

    def bin(self, d: float) -> int:
        """Return the bin that a distance lies in."""
        return bisect_right(self.edges, d)


@lru_cache(maxsize=32)
def weights(size: int, near: float, far: float, unit: float) -> Weights:
    """Return the weights for rows of ``size`` numbers; ``near`` and ``far`` are Euclidean distances.

    Raises
    ------
    ValueError
        If there are fewer than three dimensions: in two, distances have no such density.
    """
    if size < 3:
        raise ValueError(f"distance_weighted needs embeddings of 3 numbers at least; got {size}")
    lowest = max(near * near, _NEAREST)
    # The density's only maximum, where the weight is least.
    middle = 4.0 * (size - 2) / (2 * size - 5) if size > 3 else 4.0
    top = max(lowest, min(far * far, _FARTHEST))
    limit = _log_weight(size, lowest)
    if top > middle:
        # Beyond it, weights rise again: as far as that of the nearest.
        top = _solve(size, limit, middle, top) if lowest < middle else lowest
    corners = [lowest, *([middle] if lowest < middle < top else []), top]
    edges, bounds = [lowest], [limit]
    for begin, end in pairwise(corners):
        first, last = _log_weight(size, begin), _log_weight(size, end)
        n_bins = max(1, math.ceil(abs(last - first)))
        levels = [first + (last - first) * i / n_bins for i in range(n_bins + 1)]
        inner = [_solve(size, level, begin, end) for level in levels[1:-1]]
        edges += [*inner, end]
        bounds += [
            max(_log_weight(size, s), _log_weight(size, t))
            for s, t in zip([begin, *inner], [*inner, end], strict=True)
        ]
    bounds.append(_log_weight(size, top))
    return Weights(size, unit, lowest, top, tuple(edge / unit for edge in edges), tuple(bounds))


def _log_weight(size: int, squared: float) -> float:
    # csrc/mining/weigh.cpp computes the same, operation by operation.
    return (2 - size) / 2 * math.log(squared) - (size - 3) / 2 * math.log(1.0 - squared / 4.0)


def _solve(size: int, level: float, begin: float, end: float) -> float:
    """Return where, in an interval on which it is monotone, the logarithm of the weight has that level."""
    falls = _log_weight(size, begin) > level
    for _ in range(80):
        middle = 0.5 * (begin + end)
        if (_log_weight(size, middle) > level) == falls:
            begin = middle
        else:
            end = middle
    return begin
