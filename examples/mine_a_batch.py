"""Mine a batch of real images by every preset and some composed strategies, and look at what was picked."""

import numpy as np
from sklearn.datasets import load_digits

from facenet_fast import (
    PRESETS,
    Interval,
    Strategy,
    count_triplets,
    mine_triplets,
    nearest_identities,
    nearest_neighbors,
    stream_triplets,
)

# Ten "identities": hand-written digits, their 64 pixels scaled to unit length as the embedding.
digits = load_digits()
images = digits.data / np.linalg.norm(digits.data, axis=1, keepdims=True)
embeddings, labels = images[:300], digits.target[:300]
bank = images[300:600], digits.target[300:600]

composed = {
    "facenet, both ways, 2 each": Strategy("semi_hard", "both_ways", n_negatives=2),
    "facenet, else the nearest": Strategy("semi_hard", if_empty="nearest"),
    "batch_hard, screened": Strategy("all", "hardest_positive", "nearest", positive_quantile=0.95),
    "batch_hard, 1 % skipped": Strategy("all", "hardest_positive", "nearest", skip_hardest=0.01),
    "moderate positive": Strategy("all", "moderate_positive", "nearest"),
    "0.3 <= d_an < 0.5": Strategy(Interval(0.3, 0.5, relative=False), "random_positives", n_positives=2),
}

columns = ("strategy", "pairs", "with negative", "triplets", "mean d_ap", "mean d_an")
print("{:26} {:>6} {:>13} {:>8} {:>9} {:>9}".format(*columns))
for name, strategy in {**PRESETS, **composed}.items():
    if strategy.pick == "every":  # a list of all would be long
        counts = count_triplets(embeddings, labels, strategy=strategy, margin=0.2)
        n_with_negative = np.count_nonzero(counts.n_candidates)
        print(f"{name:26} {len(counts):6} {n_with_negative:13} {counts.n_triplets:8}         -         -")
        continue
    mined = mine_triplets(embeddings, labels, strategy=strategy, margin=0.2, seed=0)
    numbers = f"{mined.n_pairs:6} {mined.n_pairs_with_negative:13} {len(mined):8}"
    print(f"{name:26} {numbers} {mined.mean_d_ap:9.3f} {mined.mean_d_an:9.3f}")

blocks = [len(block) for block in stream_triplets(embeddings, labels, max_triplets=20_000)]
print(f"\nbatch_all in {len(blocks)} blocks of at most {max(blocks)} triplets")

mined = mine_triplets(embeddings, labels, strategy="batch_hard", bank=bank)
print(
    f"with 300 more in a bank, {(mined.negative >= 300).mean():.0%} of the hardest negatives are from there"
)

nearest = nearest_neighbors(embeddings, k=1).indices[:, 0]
alike = nearest_identities(embeddings, labels)
pairs = ", ".join(
    f"{a}: {alike.identities[b]}" for a, (b,) in zip(alike.identities, alike.indices, strict=True)
)
print(f"recall@1 is {(labels[nearest] == labels).mean():.3f}; each digit and the one most like it: {pairs}")
