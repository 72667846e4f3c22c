"""Exact triplet mining for any labelled batch of embeddings; never imports TensorFlow."""

from .miner import Triplets, mine_triplets, select_triplets
from .strategies import PRESETS, Strategy

__all__ = ["PRESETS", "Strategy", "Triplets", "mine_triplets", "select_triplets"]
