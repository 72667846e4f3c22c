"""Batches of embeddings that mining is tested on."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def clustered(
    n_identities: int, n_images: int, size: int, *, noise: float = 0.7, seed: int = 0
) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any]]:
    """Unit rows around one centre an identity, in shuffled order, and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(n_identities), n_images))
    rows = rng.standard_normal((n_identities, size))[labels] + noise * rng.standard_normal(
        (len(labels), size)
    )
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32), labels


def tied(
    n_rows: int, n_identities: int, size: int = 6, *, seed: int = 4
) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any]]:
    """Rows of halves, none of zeros alone: most distances tie with each other, and with a band's edges."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(-1, 2, (n_rows, size))
    rows[~rows.any(axis=1), 0] = 1
    return (0.5 * rows).astype(np.float32), rng.integers(0, n_identities, n_rows)


def uneven(
    n_rows: int, share: float, size: int, *, seed: int = 1
) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any]]:
    """Rows anywhere, of identities of all sizes, one after the other."""
    rng = np.random.default_rng(seed)
    labels = np.sort(rng.geometric(share, n_rows))
    return rng.standard_normal((n_rows, size)).astype(np.float32), labels
