"""From a folder of identities to batches of standardised images, and from a pairs file to pairs.

`balanced_batches` and its `BalancedBatches` need TensorFlow, which is imported only when they are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facenet_fast.data.balanced import BalancedBatches, balanced_batches

__all__ = ["BalancedBatches", "balanced_batches"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from facenet_fast.data import balanced

    return getattr(balanced, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
