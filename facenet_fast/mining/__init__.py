"""Exact triplet mining for any labelled batch of embeddings; never imports TensorFlow."""

from .miner import CandidateCounts, Triplets, count_triplets, mine_triplets, stream_triplets
from .neighbors import NearestIdentities, Neighbors, nearest_identities, nearest_neighbors
from .select import select_triplets
from .strategies import PRESETS, Interval, Strategy

__all__ = [
    "PRESETS",
    "CandidateCounts",
    "Interval",
    "NearestIdentities",
    "Neighbors",
    "Strategy",
    "Triplets",
    "count_triplets",
    "mine_triplets",
    "nearest_identities",
    "nearest_neighbors",
    "select_triplets",
    "stream_triplets",
]
