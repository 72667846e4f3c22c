"""What training minimises: losses of labelled embeddings for any Keras model, one file a loss.

Importing it imports TensorFlow.
"""

from .addons import TripletHardLoss, TripletSemiHardLoss, triplet_hard_loss, triplet_semihard_loss
from .batch_all import BatchAllTripletLoss, batch_all_triplet_loss
from .log_sum_exp import LogSumExpTripletLoss, log_sum_exp_triplet_loss
from .soft_margin import SoftMarginTripletLoss, soft_margin_triplet_loss
from .strategy import TripletLoss, triplet_loss

__all__ = [
    "BatchAllTripletLoss",
    "LogSumExpTripletLoss",
    "SoftMarginTripletLoss",
    "TripletHardLoss",
    "TripletLoss",
    "TripletSemiHardLoss",
    "batch_all_triplet_loss",
    "log_sum_exp_triplet_loss",
    "soft_margin_triplet_loss",
    "triplet_hard_loss",
    "triplet_loss",
    "triplet_semihard_loss",
]
