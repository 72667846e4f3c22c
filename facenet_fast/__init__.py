"""facenet-fast: face embeddings trained with triplet loss, and the exact native miner that feeds it.

Importing this package, and all of its mining, does not import TensorFlow.
"""

from importlib.metadata import PackageNotFoundError, version

from .errors import UserError
from .mining import (
    PRESETS,
    BatchAllLoss,
    CandidateCounts,
    Interval,
    NearestIdentities,
    Neighbors,
    PairHistogram,
    Strategy,
    Triplets,
    batch_all_loss,
    count_triplets,
    mine_triplets,
    nearest_identities,
    nearest_neighbors,
    pair_histogram,
    select_triplets,
    stream_triplets,
)

try:
    __version__ = version("facenet-fast")
except PackageNotFoundError:  # a source folder on the path, not installed
    __version__ = "0+unknown"

__all__ = [
    "PRESETS",
    "BatchAllLoss",
    "CandidateCounts",
    "Interval",
    "NearestIdentities",
    "Neighbors",
    "PairHistogram",
    "Strategy",
    "Triplets",
    "UserError",
    "__version__",
    "batch_all_loss",
    "count_triplets",
    "mine_triplets",
    "nearest_identities",
    "nearest_neighbors",
    "pair_histogram",
    "select_triplets",
    "stream_triplets",
]
