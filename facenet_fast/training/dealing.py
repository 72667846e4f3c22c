"""Which rows of a pool go through the network together, and who passes them."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from facenet_fast.errors import UserError

__all__ = ["deal", "spread"]


def spread(labels: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Order rows so that each stretch mixes identities: first images of all, then second images, and so on.

    Batch-norm in a chunk then sees many identities instead of two or three.

    Examples
    --------
    >>> spread(np.array([7, 7, 7, 2, 2])).tolist()
    [0, 3, 1, 4, 2]
    """
    order = np.argsort(labels, kind="stable")
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    rank = np.empty(len(labels), dtype=np.int64)
    rank[order] = np.arange(len(labels)) - np.repeat(starts, counts)
    return np.argsort(rank, kind="stable")


def deal(labels: npt.NDArray[np.integer], n_replicas: int, batch_size: int) -> list[npt.NDArray[np.int64]]:
    """Divide a pool into chunks, as many for each replica: the first few are the first one's, and so on.

    Parameters
    ----------
    labels : int array, shape (n_images,)
        The identity of each row.
    n_replicas : int
        Among whom the chunks are dealt.
    batch_size : int
        Images in a chunk at most.

    Returns
    -------
    list of int64 array
        Rows of each chunk, `spread`; sizes differ by one at most.

    Raises
    ------
    UserError
        If there are fewer images than chunks.

    Examples
    --------
    >>> [rows.tolist() for rows in deal(np.array([7, 7, 7, 2, 2]), n_replicas=2, batch_size=2)]
    [[0, 3], [1], [4], [2]]
    """
    n_chunks = n_replicas * math.ceil(len(labels) / (n_replicas * batch_size))
    if len(labels) < n_chunks:
        raise UserError(
            f"a pool must have an image for each of the {n_replicas} replicas; got {len(labels)} images: "
            "raise identities_per_batch"
        )
    return np.array_split(spread(labels), n_chunks)
