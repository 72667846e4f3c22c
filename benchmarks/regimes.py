"""The kinds of embeddings that mining is measured on: its cost depends on how many negatives qualify.

``untrained``
    One direction that all rows share and little identity: 99.5 % of the negatives violate a margin of 0.2.
``trained``
    Identity centres with a power-law spectrum, noise that varies from image to image: 3 % violate on average,
    very unevenly; for a third of the pairs none does.
``half-violating``
    As trained, with more noise: half of them do. Losses are measured on it too.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Regime = Literal["trained", "untrained", "half-violating"]
REGIMES: tuple[Regime, ...] = ("trained", "untrained")
LOSS_REGIMES: tuple[Regime, ...] = (*REGIMES, "half-violating")

# Noise at which, on average, 3 % or half of the negatives violate a margin of 0.2, by embedding size.
_NOISE = {
    "trained": {
        32: 0.8953075,
        64: 1.0905628,
        128: 1.2813537597656248,
        256: 1.4978084,
        512: 1.656756591796875,
        1024: 1.8086262,
    },
    "half-violating": {32: 3.2976, 128: 3.0736, 512: 3.0541},
}


def pool(
    n_identities: int, n_images: int, size: int, regime: Regime, seed: int = 20240607
) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any]]:
    """Return unit rows, the images of one identity together, and labels; sizes: powers of 2, 32 to 1024.

    Half-violating ones come in sizes 32, 128 and 512.
    """
    rng = np.random.default_rng(seed)
    if regime in _NOISE:
        spectrum = np.sqrt((np.arange(size) + 1.0) ** -0.7)
        centres = _unit(rng.standard_normal((n_identities, size)) * spectrum)
        strength, spread = _NOISE[regime][size], 0.25
    else:
        shared = _unit(rng.standard_normal(size))
        centres = shared + 0.15 * rng.standard_normal((n_identities, size)) / np.sqrt(size)
        strength, spread = 0.30, 0.20
    noise = strength * np.exp(spread * rng.standard_normal((n_identities, n_images, 1)))
    rows = centres[:, None] + noise * rng.standard_normal((n_identities, n_images, size)) / np.sqrt(size)
    labels = np.repeat(np.arange(n_identities), n_images)
    return _unit(rows).reshape(-1, size).astype(np.float32), labels


def _unit(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    unit: npt.NDArray[Any] = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return unit
