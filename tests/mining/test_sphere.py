"""The weights of distance-weighted sampling, against the formula and against points on a sphere."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy import integrate, stats

from facenet_fast.mining.sphere import weights

from .contract import attempt

SIZES = [3, 4, 5, 8, 32, 128, 512, 2048]
CUTOFFS = [
    (0.5, 1.4),
    (0.05, 1.4),
    (0.5, 2.0),
    (1.2, 1.95),
    (1.39, 1.4),
    (1.5, 1.9),
    (0.5, math.inf),
    (1.9, 7.0),
]


def log_density(size: int, d: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of Euclidean distances between random points on the unit sphere, but for a constant."""
    return (size - 2) * np.log(d) + (size - 3) / 2 * np.log1p(-d * d / 4)


@pytest.mark.parametrize("size", [3, 5, 32])
def test_the_density_is_that_of_random_points(size: int) -> None:
    rng = np.random.default_rng(size)
    x, y = rng.standard_normal((2, 4000, size))
    x, y = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, y))
    grid = np.linspace(1e-6, 2 - 1e-6, 4001)
    density = np.exp(log_density(size, grid))
    cumulated = integrate.cumulative_trapezoid(density, grid, initial=0.0)
    found = np.linalg.norm(x - y, axis=1)
    assert stats.kstest(np.interp(found, grid, cumulated / cumulated[-1]), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("unit", [1.0, 2.0])
@pytest.mark.parametrize(("near", "far"), CUTOFFS)
@pytest.mark.parametrize("size", SIZES)
def test_weights_are_the_inverse_density_below_a_limit(
    size: int, near: float, far: float, unit: float
) -> None:
    table = weights(size, near, far, unit)
    d = np.random.default_rng(0).uniform(0.0, min(far, 2.0), 2000)
    # Nearer than ``near`` is as near, farther is never likelier than that.
    limit = -log_density(size, np.array(near))
    expected = np.where(d < near, limit, np.minimum(limit, -log_density(size, np.maximum(d, near))))
    got = [table.log_weight(x) for x in (d * d / unit).tolist()]
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("unit", [1.0, 2.0])
@pytest.mark.parametrize(("near", "far"), CUTOFFS)
@pytest.mark.parametrize("size", SIZES)
def test_a_bin_holds_weights_within_a_factor_of_e(size: int, near: float, far: float, unit: float) -> None:
    table = weights(size, near, far, unit)
    assert len(table.log_bounds) == len(table.edges) + 1
    assert all(lower <= upper for lower, upper in zip(table.edges, table.edges[1:], strict=False))
    assert (table.size, table.unit) == (size, unit)
    rng = np.random.default_rng(1)
    squared = np.concatenate(
        (rng.uniform(0.0, min(far, 2.0) ** 2, 2000), np.array(table.edges) * unit, [0.0, 4.0, 4.5])
    )
    bins = [table.bin(d) for d in (squared / unit).tolist()]
    for d, b in zip((squared / unit).tolist(), bins, strict=True):
        assert b == 0 or table.edges[b - 1] <= d
        assert b == len(table.edges) or d < table.edges[b]
        below = table.log_bounds[b] - table.log_weight(d)
        assert -1e-8 <= below <= 1 + 1e-8


def test_every_distance_has_a_weight() -> None:
    for size in SIZES:
        table = weights(size, 0.5, 2.0, 1.0)
        for d in (0.0, 5e-324, 1e-30, 3.9999999999, 4.0, 4.0000001, 1e300, math.inf):
            assert math.isfinite(table.log_weight(d))
            assert 0 <= table.bin(d) <= len(table.edges)


@pytest.mark.parametrize("size", [1, 2])
def test_fewer_than_three_dimensions_have_no_such_density(size: int) -> None:
    with pytest.raises(
        ValueError, match=f"distance_weighted needs embeddings of 3 numbers at least; got {size}$"
    ):
        weights(size, 0.5, 1.4, 1.0)


@pytest.mark.parametrize("near", [1e-300, 5e-324, 1e-170])
def test_a_limit_that_is_hardly_one(near: float) -> None:
    # Such a square is none any more: there are weights all the same, or a sentence about it.
    for size in (3, 8):
        table = attempt(lambda size=size: weights(size, near, 1.4, 1.0))
        assert "near" in table[1] if isinstance(table, tuple) else math.isfinite(table.log_weight(0.0))
