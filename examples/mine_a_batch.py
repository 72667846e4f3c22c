"""Mine one batch of embeddings with every strategy, and look at what was picked."""

import numpy as np

from facenet_fast import PRESETS, mine_triplets

rng = np.random.default_rng(0)
labels = rng.permutation(np.repeat(np.arange(30), 10))
embeddings = rng.standard_normal((30, 64))[labels] + 1.4 * rng.standard_normal((300, 64))
embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)


def mean_squared_distance(left: np.ndarray, right: np.ndarray) -> float:
    """Return the mean over the triplets of the squared distance between two of their members."""
    return float(((embeddings[left] - embeddings[right]) ** 2).sum(axis=1).mean())


print(f"{'strategy':10} {'pairs':>6} {'with negative':>14} {'mean d_ap':>10} {'mean d_an':>10}")
for name in PRESETS:
    triplets = mine_triplets(embeddings, labels, strategy=name, margin=0.2, seed=0)
    d_ap = mean_squared_distance(triplets.anchor, triplets.positive)
    d_an = mean_squared_distance(triplets.anchor, triplets.negative)
    print(f"{name:10} {triplets.n_pairs:6} {triplets.n_pairs_with_negative:14} {d_ap:10.3f} {d_an:10.3f}")
