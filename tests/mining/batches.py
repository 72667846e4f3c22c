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
