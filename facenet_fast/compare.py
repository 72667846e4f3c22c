"""`facenet-fast compare`: how far images are from each other, and which show one person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facenet_fast.config import CompareConfig
from facenet_fast.errors import UserError
from facenet_fast.evaluation.embed import embed_images
from facenet_fast.evaluation.verification import EUCLIDEAN, METRICS, distances
from facenet_fast.thresholds import Thresholds, load_thresholds, similarity_of

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `compare` found.

    Attributes
    ----------
    images : tuple of str
        The files.
    distances : float64 (n_images, n_images)
        Between every two.
    metric : {0, 1}
        Squared Euclidean distance, or angle / pi.
    threshold : float or None
        Below it two images are taken for one person; None if none is known.
    """

    images: tuple[str, ...]
    distances: NDArray[np.float64]
    metric: int
    threshold: float | None

    @property
    def is_same(self) -> NDArray[np.bool_] | None:
        """Whether every two images are taken for one person, (n_images, n_images), or None."""
        return None if self.threshold is None else self.distances < self.threshold


def compare(config: CompareConfig) -> Comparison:
    """Embed images, print the matrix of their distances and, where a threshold is known, who is whom.

    The threshold is `CompareConfig.threshold` or that which `validate` kept with the model, for
    `CompareConfig.far`; images are then mirrored and measured as they were there. Faces are not looked for:
    images must be cut as those are that the model was trained on.

    Parameters
    ----------
    config : CompareConfig
        The model, two or more images, and which threshold to use.

    Returns
    -------
    Comparison

    Raises
    ------
    UserError
        If the model or an image cannot be read, there are fewer than two images, or the model has no
        threshold for the FAR asked for.
    """
    if len(config.images) < 2:
        raise UserError(f"compare needs at least 2 images; got {len(config.images)}")
    if config.threshold is not None and config.far is not None:
        raise UserError(
            f"threshold and far must not be given together; got {config.threshold} and {config.far}"
        )
    # Only here, since it imports TensorFlow.
    from facenet_fast.data.images import ImageStore
    from facenet_fast.models import load_embedder

    known = load_thresholds(config.model)
    threshold, source = _threshold(config, known)
    metric = _metric(config, known)
    embedder = load_embedder(
        config.model, image_size=config.image_size, standardisation=_standardisation(config, known)
    )
    store = ImageStore(config.images, embedder.store_size, cache_bytes=0)
    flipped = known is not None and known.flipped
    embeddings = embed_images(embedder, store, flipped=flipped)
    if store.bad:
        index, reason = next(iter(store.bad.items()))
        raise UserError(f"an image must be readable; {config.images[index]!r}: {reason}")
    n = len(embeddings)
    rows, columns = np.repeat(np.arange(n), n), np.tile(np.arange(n), n)
    matrix = distances(embeddings[rows], embeddings[columns], metric).reshape(n, n)
    result = Comparison(config.images, matrix, metric, threshold)
    similarity = similarity_of(embeddings, metric)
    _print(result, source, None if similarity is None else np.vectorize(similarity)(matrix))
    return result


def _standardisation(config: CompareConfig, known: Thresholds | None) -> str | None:
    if config.use_fixed_image_standardization:
        return "fixed"
    return None if known is None else known.standardisation


def _threshold(config: CompareConfig, known: Thresholds | None) -> tuple[float | None, str]:
    """Return the threshold to use, and where it is from."""
    if config.threshold is not None:
        return config.threshold, "as given"
    if known is None:
        if config.far is not None:
            raise UserError(
                f"far={config.far:g} needs thresholds, and {config.model!r} has none; "
                "run `facenet-fast validate` on it first"
            )
        return None, ""
    point = known.at(config.far)
    return point.threshold, (
        f"FAR={point.far_target:g}, VAL={point.val:.3f} on {known.source}, "
        f"{known.n_same} pairs of one person and {known.n_different} of two"
    )


def _metric(config: CompareConfig, known: Thresholds | None) -> int:
    kept = EUCLIDEAN if known is None else known.metric
    asked = kept if config.distance_metric is None else config.distance_metric
    if known is not None and config.threshold is None and asked != known.metric:
        raise UserError(
            f"distance_metric must be that of the model's thresholds, {known.metric}, unless a threshold of "
            f"your own is given; got {asked}"
        )
    return asked


def _print(result: Comparison, source: str, cosines: NDArray[np.float64] | None) -> None:
    n = len(result.images)
    print("Images:")
    for number, path in enumerate(result.images):
        print(f"{number:4d}: {path}")
    print()
    print(f"Distance matrix ({METRICS[result.metric]}):")
    print("    " + "".join(f"{number:10d}" for number in range(n)))
    for number, row in enumerate(result.distances):
        print(f"{number:4d}" + "".join(f"{distance:10.4f}" for distance in row))
    print()
    if result.is_same is None:
        print("Same or not? The model has no thresholds: run `facenet-fast validate`, or give --threshold")
        return
    print(f"Same below {result.threshold:.4f} ({source}):")
    for left in range(n):
        for right in range(left + 1, n):
            verdict = "same" if result.is_same[left, right] else "different"
            cosine = "" if cosines is None else f", cosine {cosines[left, right]:.4f}"
            print(f"{left:4d} {right:4d}  {verdict:9}  {result.distances[left, right]:.4f}{cosine}")
