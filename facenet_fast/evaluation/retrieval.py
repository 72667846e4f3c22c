"""Search instead of pairs: is who is nearest the right one, among all images and in a gallery of people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facenet_fast.errors import UserError
from facenet_fast.evaluation.roc import exact_roc, reachable_fars
from facenet_fast.evaluation.verification import EUCLIDEAN, check_metric, distances
from facenet_fast.mining import nearest_neighbors

__all__ = ["Identification", "OpenSetPoint", "Retrieval", "identification", "retrieval"]

Indices = NDArray[np.int64]
Rows = NDArray[np.float32] | NDArray[np.float64]

# Neighbors asked for at a time: 200 MB of their rows and distances.
_NEIGHBORS_AT_A_TIME = 2**24
# At least one identity of so many stays out of the gallery.
_OUTSIDE = 5


@dataclass(frozen=True)
class Retrieval:
    """How well an image finds the others of its identity.

    Attributes
    ----------
    n_queries : int
        Images whose identity has another one.
    recall_at : mapping of int to float
        By k: share of queries with an image of their identity among the k nearest.
    precision_at_1 : float
        Share of queries whose nearest image is of their identity; recall at 1 by another name.
    map_at_r : float
        Mean average precision at R; see `retrieval`.
    """

    n_queries: int
    recall_at: Mapping[int, float]
    precision_at_1: float
    map_at_r: float


@dataclass(frozen=True)
class OpenSetPoint:
    """What a search of the gallery does at one threshold.

    Attributes
    ----------
    far_target, far : float
        False positive identification rate asked for and reached: share of searches for people outside the
        gallery that return somebody below the threshold.
    rate : float
        True positive identification rate: share of searches for people in the gallery whose nearest image
        there is of the right identity and below the threshold.
    threshold : float
        Accept distances below it; it lies as that of `facenet_fast.evaluation.roc.OperatingPoint`.
    """

    far_target: float
    far: float
    rate: float
    threshold: float


@dataclass(frozen=True)
class Identification:
    """How well a gallery with one image of each identity tells who somebody is.

    Attributes
    ----------
    n_gallery : int
        Identities in the gallery.
    n_mated, n_unmated : int
        Searches for people who are in it, and for people who are not.
    rank : mapping of int to float
        By k, closed set: share of mated searches with the right identity among the k nearest.
    open_set : tuple of OpenSetPoint
        At each false accept rate that so many unmated searches can give.
    refused : tuple of str
        A sentence for each rank and false accept rate that cannot be given.
    """

    n_gallery: int
    n_mated: int
    n_unmated: int
    rank: Mapping[int, float]
    open_set: tuple[OpenSetPoint, ...]
    refused: tuple[str, ...]


def retrieval(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    ks: Sequence[int] = (1, 5, 10),
    metric: int = EUCLIDEAN,
    threads: int | None = None,
) -> Retrieval:
    """Search all images for those of an identity, given one of them.

    Each image whose identity has another one is searched for among all other images, exactly. With R the
    number of other images of its identity, and P(i) the share of right ones among the i nearest, its average
    precision at R is ``sum(P(i) for i in 1..R if the i-th nearest is right) / R``: 1 if the R nearest are all
    right, less the later the wrong ones are left behind [1]_. MAP@R is its mean over the queries.

    Parameters
    ----------
    embeddings : array_like (n_images, D)
    labels : array_like (n_images,)
        The identity of each: of any one sortable type.
    ks : sequence of int
        How many of the nearest to look at for recall, 1 or more.
    metric : {0, 1}
        Squared Euclidean distance, or angle; see `facenet_fast.evaluation.verification.distances`. Equally
        near images come in their order.
    threads : int, optional
        Default: as many as OpenMP would use.

    Returns
    -------
    Retrieval

    Raises
    ------
    UserError
        If shapes do not fit, an embedding is not finite or, for angles, all zeros, no identity has two
        images, or an option is out of range.

    References
    ----------
    .. [1] Musgrave, Belongie and Lim, "A Metric Learning Reality Check", ECCV 2020, section 3.2.

    Examples
    --------
    >>> found = retrieval([[0.0], [1.0], [1.5], [9.0]], ["ann", "ann", "bob", "ann"], ks=(1, 2))
    >>> found.n_queries, found.recall_at, found.map_at_r
    (3, {1: 0.3333333333333333, 2: 1.0}, 0.3333333333333333)
    """
    rows, codes, n_images = _checked(embeddings, labels, metric)
    _check_positive("ks", ks)
    n_others = n_images[codes] - 1
    queries = np.flatnonzero(n_others > 0)
    if len(queries) == 0:
        raise UserError(f"retrieval needs an identity with 2 images; each of the {len(n_images)} has one")

    # Most identities have few images and some have hundreds: who needs about as many neighbors goes together.
    n_wanted = np.maximum(n_others[queries], max(ks, default=1))
    group = np.ceil(np.log2(n_wanted))
    first_right = []
    average_precisions = []
    for one in np.unique(group):
        members = queries[group == one]
        k = min(int(n_wanted[group == one].max()), len(rows) - 1)
        for part in np.array_split(members, -(-len(members) * k // _NEIGHBORS_AT_A_TIME)):
            nearest = _nearest_others(rows, part, k, metric, threads)
            right = codes[nearest] == codes[part][:, None]
            ranks = np.arange(1, k + 1)
            precisions = np.cumsum(right, axis=1) / ranks
            counted = right & (ranks <= n_others[part][:, None])
            average_precisions.append(np.sum(precisions * counted, axis=1) / n_others[part])
            first_right.append(np.where(right.any(axis=1), np.argmax(right, axis=1) + 1, len(rows)))
    first = np.concatenate(first_right)
    return Retrieval(
        n_queries=len(queries),
        recall_at={int(k): float(np.mean(first <= k)) for k in ks},
        precision_at_1=float(np.mean(first == 1)),
        map_at_r=float(np.mean(np.concatenate(average_precisions))),
    )


def identification(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    ranks: Sequence[int] = (1, 5, 10),
    fars: Sequence[float] = (1e-1, 1e-2, 1e-3),
    seed: int = 0,
    metric: int = EUCLIDEAN,
    threads: int | None = None,
) -> Identification:
    """Search a gallery that holds one image of each enrolled person.

    Enrolled is who has two images or more, but for a fifth of all identities that at least stays outside:
    people with one image and, if they are too few, others drawn. One image of each who is enrolled, drawn,
    makes the gallery. The others of these people are searched for as mated probes, all images of people
    outside as unmated ones.

    Closed set: share of mated probes with the right person among the k nearest. Open set: the same for the
    nearest alone, if it is below a threshold that lets no more than a given share of the unmated probes
    through. These are the identification rates (CMC, TPIR at a FPIR) of NIST's tests [1]_ and of IJB-B [2]_,
    with candidate lists of length one.

    Parameters
    ----------
    embeddings : array_like (n_images, D)
    labels : array_like (n_images,)
        The identity of each: of any one sortable type.
    ranks : sequence of int
        k, 1 or more.
    fars : sequence of float
        False positive identification rates, above 0 and at most 1.
    seed : int
        For what is drawn.
    metric, threads
        As of `retrieval`.

    Returns
    -------
    Identification

    Raises
    ------
    UserError
        As `retrieval`; also if fewer than two identities have two images.

    References
    ----------
    .. [1] Grother, Ngan and Hanaoka, "Face Recognition Vendor Test (FRVT) Part 2: Identification", NIST
       Interagency Report 8271, 2019.
    .. [2] Whitelam et al., "IARPA Janus Benchmark-B Face Dataset", CVPR Workshops 2017.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels = np.arange(40) % 10
    >>> embeddings = rng.normal(size=(10, 8))[labels] + 0.3 * rng.normal(size=(40, 8))
    >>> found = identification(embeddings, labels, ranks=(1, 5), fars=(0.25,))
    >>> found.n_gallery, found.n_mated, found.n_unmated, found.rank
    (8, 24, 8, {1: 1.0, 5: 1.0})
    """
    rows, codes, n_images = _checked(embeddings, labels, metric)
    _check_positive("ranks", ranks)
    if seed < 0:
        raise UserError(f"seed must not be negative; got {seed}")
    if np.count_nonzero(n_images > 1) < 2:
        raise UserError(
            "identification needs 2 identities with 2 images; "
            f"got {np.count_nonzero(n_images > 1)} among {len(n_images)}"
        )
    gallery, mated, unmated = _gallery_and_probes(codes, n_images, seed)
    possible_ranks = [int(k) for k in ranks if k <= len(gallery)]
    reachable, refused_fars = reachable_fars(
        len(unmated), fars, rate="identification", counted="images of people outside the gallery"
    )

    nearest = _nearest(rows[mated], rows[gallery], max(possible_ranks, default=1), metric, threads)
    right = codes[gallery][nearest] == codes[mated][:, None]
    open_set = []
    if reachable:
        nearest_to_unmated = _nearest(rows[unmated], rows[gallery], 1, metric, threads)
        mated_distances = distances(rows[mated], rows[gallery[nearest[:, 0]]], metric)
        unmated_distances = distances(rows[unmated], rows[gallery[nearest_to_unmated[:, 0]]], metric)
        roc = exact_roc(
            np.concatenate([mated_distances, unmated_distances]),
            np.arange(len(mated) + len(unmated)) < len(mated),
        )
        for point in map(roc.at_far, reachable):
            found = right[:, 0] & (mated_distances < point.threshold)
            open_set.append(OpenSetPoint(point.far_target, point.far, float(np.mean(found)), point.threshold))
    return Identification(
        n_gallery=len(gallery),
        n_mated=len(mated),
        n_unmated=len(unmated),
        rank={k: float(np.mean(right[:, :k].any(axis=1))) for k in possible_ranks},
        open_set=tuple(open_set),
        refused=(
            *(
                f"rank {k} needs a gallery of at least {k} identities; got {len(gallery)}"
                for k in dict.fromkeys(ranks)
                if k > len(gallery)
            ),
            *refused_fars,
        ),
    )


def _gallery_and_probes(codes: Indices, n_images: Indices, seed: int) -> tuple[Indices, Indices, Indices]:
    """Return the images of the gallery, of those enrolled who are searched for, and of all others."""
    rng = np.random.default_rng(seed)
    enrolled = np.flatnonzero(n_images > 1)
    n_alone = len(n_images) - len(enrolled)
    n_left_out = max(0, len(n_images) // _OUTSIDE - n_alone)
    enrolled = np.sort(rng.choice(enrolled, len(enrolled) - n_left_out, replace=False))
    by_identity = np.argsort(codes, kind="stable")
    starts = np.cumsum(n_images) - n_images
    gallery = by_identity[starts[enrolled] + rng.integers(n_images[enrolled])]
    is_enrolled = np.isin(codes, enrolled)
    is_mated = is_enrolled.copy()
    is_mated[gallery] = False
    return gallery, np.flatnonzero(is_mated), np.flatnonzero(~is_enrolled)


def _nearest_others(rows: Rows, queries: Indices, k: int, metric: int, threads: int | None) -> Indices:
    """Return for each of some rows the k nearest others, nearest first."""
    nearest = _nearest(rows[queries], rows, k + 1, metric, threads)
    kept = nearest != queries[:, None]
    # Its own row is missing where as many others are just as near; then one too many is there.
    kept[kept.all(axis=1), -1] = False
    others: Indices = nearest[kept].reshape(len(queries), k)
    return others


def _nearest(queries: Rows, database: Rows, k: int, metric: int, threads: int | None) -> Indices:
    found = nearest_neighbors(
        queries,
        database,
        k,
        distance="squared_euclidean" if metric == EUCLIDEAN else "cosine",  # ordered as angles are
        threads=threads,
    )
    return found.indices.astype(np.int64)


def _checked(embeddings: ArrayLike, labels: ArrayLike, metric: int) -> tuple[Rows, Indices, Indices]:
    """Return the embeddings, each one's identity as 0, 1, ..., and the number of images of each identity."""
    check_metric(metric)
    try:
        rows = np.asarray(embeddings)
        if rows.dtype not in (np.float32, np.float64):
            rows = rows.astype(np.float64)
    except (TypeError, ValueError):
        raise UserError("embeddings must be an array of numbers (n_images, D)") from None
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise UserError(f"embeddings must have the shape (n_images, D); got {rows.shape}")
    for what, bad in (
        ("finite", ~np.isfinite(rows).all(axis=1)),
        ("not all zeros to be at an angle", ~rows.any(axis=1) & (metric != EUCLIDEAN)),
    ):
        if bad.any():
            raise UserError(
                f"embeddings must be {what}; {np.count_nonzero(bad)} of {len(rows)} rows are not, "
                f"first row {np.argmax(bad)}"
            )
    identities = np.asarray(labels)
    if identities.shape != (len(rows),):
        raise UserError(f"labels must have one entry an image, ({len(rows)},); got shape {identities.shape}")
    try:
        _, codes, n_images = np.unique(identities, return_inverse=True, return_counts=True)
    except TypeError as error:
        raise UserError(f"labels must be of one sortable type; {error}") from None
    return rows, codes, n_images


def _check_positive(name: str, values: Sequence[int]) -> None:
    for value in values:
        if not (isinstance(value, int | np.integer) and value > 0):
            raise UserError(f"{name} must be whole numbers, 1 or more; got {value}")
