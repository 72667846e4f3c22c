"""`select_triplets`: the predecessor's function by name, with its arguments and its return."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from .checks import check_integer, check_word
from .miner import count_and_take, mine_triplets

__all__ = ["select_triplets"]

Path = TypeVar("Path")


def select_triplets(
    embeddings: npt.ArrayLike,
    nrof_images_per_class: Sequence[int],
    image_paths: Sequence[Path],
    people_per_batch: int,
    alpha: float,
    rng: Literal["keyed", "numpy"] = "keyed",
) -> tuple[list[tuple[Path, Path, Path]], int, int]:
    """Pick triplets as davidsandberg/facenet's function of this name does: same arguments, same return.

    Each pair of images of one class, the earlier one as the anchor, gets a uniformly drawn negative with
    ``d_an - d_ap < alpha`` (`mine_triplets` with ``strategy="vgg_face"``). The triplets come shuffled. Chance
    is taken from numpy's global generator: ``np.random.seed`` makes the result repeatable.

    Parameters
    ----------
    embeddings : array_like, shape (n_images, embedding_size)
        The images of the first class, then those of the second, and so on.
    nrof_images_per_class : sequence of int
        How many rows each class has; they add up to ``n_images``.
    image_paths : sequence, length n_images
        What the triplets are made of: ``image_paths[row]`` stands for a row.
    people_per_batch : int
        Anchors are taken from the first so many classes; negatives from all.
    alpha : float
        The margin, in squared distance.
    rng : {"keyed", "numpy"}, default "keyed"
        ``"numpy"`` draws as the predecessor's loop does: after ``np.random.seed``, the same triplets in the
        same order as its loop gives on float64 embeddings, and numpy's generator left in the same state. It
        needs the number of candidates of every pair, and so looks at all distances, twice; ``"keyed"`` takes
        one number from numpy's generator and draws the rest from a stream for each pair.

    Returns
    -------
    triplets : list of (anchor_path, positive_path, negative_path)
    n_pairs : int
        Pairs that were looked at.
    n_triplets : int
        ``len(triplets)``.

    Raises
    ------
    ValueError
        If the counts, the paths and the embeddings do not fit each other; otherwise as `mine_triplets`.
    """
    whole = [
        check_integer("every count in nrof_images_per_class", count, 0, len(image_paths))
        for count in nrof_images_per_class
    ]
    n_anchor_classes = check_integer("people_per_batch", people_per_batch, 1, len(whole))
    if sum(whole) != len(image_paths):
        raise ValueError(
            "nrof_images_per_class must be counts that add up to the number of image_paths "
            f"({len(image_paths)}); got {whole}"
        )
    counts = np.array(whole, dtype=np.int64)
    labels = np.repeat(np.arange(len(counts)), counts)
    anchors = slice(counts[:n_anchor_classes].sum())
    check_word("rng", rng, ("keyed", "numpy"))
    if rng == "numpy":
        pairs, take = count_and_take(embeddings, labels, strategy="vgg_face", margin=alpha, anchors=anchors)
        has_negative = pairs.n_candidates > 0
        ranks = np.full(len(pairs), -1, np.int64)
        ranks[has_negative] = np.random.randint(pairs.n_candidates[has_negative].astype(np.int64))
        rows = np.stack((pairs.anchor, pairs.positive, take(ranks)), axis=1)[has_negative]
        triplets = [(image_paths[a], image_paths[p], image_paths[n]) for a, p, n in rows.tolist()]
        np.random.shuffle(triplets)
        return triplets, len(pairs), len(triplets)
    seed = int(np.random.randint(2**63, dtype=np.int64))
    mined = mine_triplets(embeddings, labels, strategy="vgg_face", margin=alpha, seed=seed, anchors=anchors)
    rows = np.stack((mined.anchor, mined.positive, mined.negative), axis=1)
    triplets = [
        (image_paths[a], image_paths[p], image_paths[n]) for a, p, n in np.random.permutation(rows).tolist()
    ]
    return triplets, mined.n_pairs, len(triplets)
