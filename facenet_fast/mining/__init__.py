"""Exact triplet mining for any labelled batch of embeddings; never imports TensorFlow."""

from .batch_all import BatchAllLoss, batch_all_loss
from .histogram import PairHistogram, pair_histogram
from .miner import CandidateCounts, Triplets, count_triplets, mine_triplets, stream_triplets
from .neighbors import NearestIdentities, Neighbors, nearest_identities, nearest_neighbors
from .select import select_triplets
from .strategies import PRESETS, Interval, Strategy

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
    "batch_all_loss",
    "count_triplets",
    "mine_triplets",
    "nearest_identities",
    "nearest_neighbors",
    "pair_histogram",
    "select_triplets",
    "stream_triplets",
]
