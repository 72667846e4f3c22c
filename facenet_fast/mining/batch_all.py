"""`batch_all_loss`: the loss over every triplet of a batch and its gradient, without a list of triplets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .arrays import as_array
from .batch import Batch, check_embeddings
from .checks import check_flag
from .miner import Device, Request, check_request, stream_blocks
from .strategies import Strategy, resolve_strategy

__all__ = ["BatchAllLoss", "batch_all_loss", "batch_all_sums"]

# Triplets that are listed at a time, where they have to be.
_LISTED = 2**18


@dataclass(frozen=True, eq=False)
class BatchAllLoss:
    """The loss over every triplet of a batch.

    Attributes
    ----------
    loss : float
        Mean over the triplets, each times its anchor's weight; 0 without triplets.
    n_triplets : int
        Triplets in the band.
    gradient : float32 or float64 array, shape (n_images, embedding_size)
        Of `loss`, by the embeddings; of their dtype. On the device that the embeddings lie on, if they were
        summed up there, as the arrays of `Triplets`.
    loss_by_anchor : float64 array, shape (n_images,)
        The sum of the losses of each anchor's triplets; weights are not in it.
    n_by_anchor : int64 array, shape (n_images,)
        Triplets of each anchor.
    """

    loss: float
    n_triplets: int
    gradient: npt.NDArray[Any] | Any
    loss_by_anchor: npt.NDArray[np.float64]
    n_by_anchor: npt.NDArray[np.int64]


def batch_all_loss(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    strategy: str | Strategy = "batch_all",
    margin: float = 0.2,
    soft: bool = False,
    distance: str = "squared_euclidean",
    weights: npt.ArrayLike | None = None,
    seed: int = 0,
    threads: int | None = None,
    device: Device = "cpu",
) -> BatchAllLoss:
    r"""Compute the triplet loss over every candidate of every pair, and its gradient.

    .. math:: \frac{1}{n} \sum_{(a, p, n)} w_a \max(d_{ap} - d_{an} + m, 0)

    over the ``n`` triplets in the strategy's band; with ``"batch_all"`` those that violate the margin. Which
    triplets these are is decided as in float64, and their number is exact; the sum and the gradient have
    float32's precision. Results do not depend on the number of threads.

    One number for each two images sums up all of their triplets, so that N images of K an identity take
    O(N² (E + K)) steps, and memory is O(N (E + K)): 30 bytes a pair of images of one identity. Strategies
    with an absolute `Interval`, ``"moderate_positive"`` pairs, ``skip_hardest`` or a band that reaches beyond
    the margin, and the soft loss, are listed block by block instead: exact too, and as slow as there are
    triplets.

    Parameters
    ----------
    embeddings, labels, margin, distance, seed, threads, device
        As of `mine_triplets`. What is listed block by block is found on the device, and added up by numpy.
    strategy : str or Strategy, default "batch_all"
        Its pairs and band are taken, and every candidate, however many it would pick.
    soft : bool, default False
        ``log(1 + exp(d_ap - d_an))`` in the place of the hinge; the margin then matters to the band only.
    weights : array_like, shape (n_images,), optional
        What an anchor's triplets count; default: 1.

    Returns
    -------
    BatchAllLoss

    Raises
    ------
    TypeError
        If an argument is of the wrong type.
    ValueError
        As `mine_triplets`; or if there is not a finite weight for each of the images.

    References
    ----------
    Hermans, Beyer and Leibe 2017, In Defense of the Triplet Loss, section 2 (equation 6).

    Examples
    --------
    >>> import numpy as np
    >>> from facenet_fast import batch_all_loss
    >>> embeddings = np.array([[0.0], [1.0], [1.5], [9.0]], dtype=np.float32)
    >>> found = batch_all_loss(embeddings, ["ann", "ann", "bob", "eve"], margin=2.0)
    >>> found.loss, found.n_triplets, found.gradient.ravel().tolist()
    (1.75, 2, [-0.5, 2.5, -2.0, 0.0])
    """
    losses, counts, gradient = batch_all_sums(
        embeddings,
        labels,
        strategy=strategy,
        margin=margin,
        soft=soft,
        distance=distance,
        weights=weights,
        seed=seed,
        threads=threads,
        device=device,
        mean=True,
    )
    n_triplets = int(counts.sum())
    loss = 0.0
    if n_triplets:
        loss = float(_check_weights(weights, len(losses)) @ losses) / n_triplets
    return BatchAllLoss(loss, n_triplets, gradient, losses, counts)


def batch_all_sums(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    strategy: str | Strategy,
    margin: float,
    soft: bool,
    distance: str,
    weights: npt.ArrayLike | None,
    seed: int,
    threads: int | None = None,
    device: str = "cpu",
    mean: bool = False,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], Any]:
    """Return `loss_by_anchor`, `n_by_anchor`, and the gradient of the former's weighted sum or `mean`."""
    check_flag("soft", soft)
    request = check_request(
        embeddings,
        labels,
        resolve_strategy(strategy),
        margin,
        distance,
        seed,
        threads,
        None,
        None,
        False,
        "native",
        device,
    )
    batch = request.batch
    w = _check_weights(weights, len(batch.order))
    to_divide = mean
    if soft or not _is_summable(request, margin):
        losses, counts, gradient = _listed(request, distance, margin, soft, w)
    elif batch.device == "cuda":  # which divides where the gradient is
        losses, counts, gradient, bad_row = request.native("hinge", margin, w, mean)
        batch.raise_bad_row(bad_row)
        to_divide = False
    else:
        losses, counts, gradient, bad_row = request.native("hinge", margin, w)
        batch.raise_bad_row(bad_row)
    gradient = _by_embeddings(gradient, embeddings, batch)
    if to_divide:
        gradient /= max(int(counts.sum()), 1)
    return losses, counts, gradient


def _check_weights(weights: npt.ArrayLike | None, n: int) -> npt.NDArray[np.float64]:
    if weights is None:
        return np.ones(n)
    given = as_array(weights, "weights")
    if given.shape != (n,) or given.dtype.kind not in "fiub":
        raise ValueError(
            f"weights must be a number for each of the {n} embeddings; "
            f"got {given.dtype} of shape {given.shape}"
        )
    w = np.ascontiguousarray(given, dtype=np.float64)
    if not np.isfinite(w).all():
        raise ValueError(f"weights must be finite; that of row {int(np.argmin(np.isfinite(w)))} is not")
    return w


def _is_summable(request: Request, margin: float) -> bool:
    """Whether the core sums these triplets up; the others are listed."""
    rule = request.rule
    return (
        rule.band.relative
        and rule.band.high <= margin
        and rule.pairs != "moderate_positive"
        and rule.skip_hardest == 0
        and rule.reach == np.inf
    )


def _listed(
    request: Request, distance: str, margin: float, soft: bool, weights: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[Any]]:
    """Sum up triplets block by block: losses and numbers by anchor, and the gradient by the rows."""
    import scipy.sparse

    given = request.batch.rows_on_host
    rows = given.astype(np.float64)
    n = len(rows)
    losses, counts = np.zeros(n), np.zeros(n, np.int64)
    gradient = np.zeros_like(rows)
    for block in stream_blocks(request, _LISTED):
        anchor = block.anchor
        for begin in range(0, len(anchor), _LISTED):  # a single anchor may have more
            a, p, n_ = (
                column[begin : begin + _LISTED] for column in (anchor, block.positive, block.negative)
            )
            d_ap, slope_ap = _distances(rows[a] - rows[p], distance)
            d_an, slope_an = _distances(rows[a] - rows[n_], distance)
            if soft:
                value = np.logaddexp(0.0, d_ap - d_an)
                slope = np.exp(d_ap - d_an - value)
            else:
                value = np.maximum(d_ap - d_an + margin, 0.0)
                slope = (value > 0).astype(np.float64)
            losses += np.bincount(a, value, n)
            counts += np.bincount(a, minlength=n)
            slope *= weights[a]
            # By the squared distance of each two rows.
            by_two = scipy.sparse.csr_matrix(
                (
                    np.concatenate((slope * slope_ap, -slope * slope_an)),
                    (np.concatenate((a, a)), np.concatenate((p, n_))),
                ),
                shape=(n, n),
            )
            by_two = by_two + by_two.T
            gradient += 2.0 * (np.asarray(by_two.sum(axis=1)) * rows - by_two @ rows)
    return losses, counts, gradient.astype(given.dtype)


def _distances(
    differences: npt.NDArray[np.float64], distance: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return distances, and their derivatives by the squared distances of the rows."""
    squared = np.einsum("ij,ij->i", differences, differences)
    if distance != "euclidean":
        return squared, np.ones_like(squared)
    roots = np.sqrt(squared)
    return roots, np.divide(0.5, roots, out=np.zeros_like(roots), where=roots > 0)


def _by_embeddings(gradient: Any, embeddings: npt.ArrayLike, batch: Batch) -> Any:
    """Return the gradient by the embeddings, given that by the rows that stand for them."""
    if batch.distance.unit == 1.0:
        return gradient
    # Rows are the embeddings at length 1 / sqrt(2).
    given = check_embeddings(embeddings)
    wide = given.astype(np.float64)
    # Squares of rows as long or as short as float64 holds would leave its range.
    largest = np.abs(wide).max(axis=1, keepdims=True)
    norms = largest * np.linalg.norm(wide / largest, axis=1, keepdims=True)
    along = 2.0 * np.einsum("ij,ij->i", gradient, batch.rows)[:, None] * batch.rows
    scaled: npt.NDArray[Any] = (gradient - along) / (np.sqrt(2.0) * norms)
    return scaled.astype(given.dtype)
