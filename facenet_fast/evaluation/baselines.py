"""What faces can be told apart by without any network: plain pixels, and PCA whitened within identities.

Both are given as embedders, so that whatever measures a network measures them on the same images. They look
at the image in grey, averaged down to at most 32 pixels a side: on the ORL faces larger ones were no better
(AUC of plain pixels 0.909 at 32 and 0.907 at 64 pixels, mean of five splits).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facenet_fast.errors import UserError
from facenet_fast.evaluation.embed import Embedder, ImageReader

__all__ = [
    "WhitenedPCA",
    "fit_whitened_pca",
    "pixel_embedder",
    "pixel_embeddings",
    "whitened_pca_embedder",
]

Floats = NDArray[np.float32]

_SIDE = 32
# On the ORL faces, five splits of 30 people against 10: 80 components with a tenth of shrinkage gave AUC
# 0.959, 80 without shrinkage 0.958, 120 without shrinkage 0.955; without unit length all stayed below 0.94.
_N_COMPONENTS = 80
_SHRINKAGE = 0.1
# Enough to estimate 80 x 80 numbers by, and little enough memory for any data set (4000 x 1024 x 4 bytes).
_MAX_IMAGES = 4000


def pixel_embeddings(images: ArrayLike) -> Floats:
    """Turn images into unit vectors of their grey pixels.

    Each image is averaged over its channels, averaged down to at most 32 x 32, freed of its mean and scaled
    to length 1, so that the squared distance of two is ``2 - 2 r``, with r the correlation of their pixels.

    Parameters
    ----------
    images : array_like (n, S, S, channels)
        Standardised or not: scale and offset cancel.

    Returns
    -------
    float32 (n, side * side)
        Images of one even grey become zeros.

    Raises
    ------
    UserError
        If the images do not have four axes.

    Examples
    --------
    >>> images = np.arange(2 * 8 * 8 * 3).reshape(2, 8, 8, 3) % 7
    >>> embeddings = pixel_embeddings(images)
    >>> embeddings.shape, np.linalg.norm(embeddings, axis=1).round(3).tolist()
    ((2, 64), [1.0, 1.0])
    """
    grey = _shrunk(_checked_images(images).mean(axis=3, dtype=np.float32))
    flat = grey.reshape(len(grey), -1)
    centred: Floats = flat - flat.mean(axis=1, keepdims=True, dtype=np.float32)
    return _unit_rows(centred)


@dataclass(frozen=True)
class WhitenedPCA:
    """A linear map of pixels, found by `fit_whitened_pca`.

    Attributes
    ----------
    mean : float32 (n_pixels,)
        Subtracted first.
    projection : float32 (n_pixels, n_components)
        Then multiplied by.
    """

    mean: Floats
    projection: Floats

    def __call__(self, pixels: Floats) -> Floats:
        """Project rows of `pixel_embeddings` to unit vectors, float32 (n, n_components)."""
        return _unit_rows(((pixels - self.mean) @ self.projection).astype(np.float32, copy=False))


def fit_whitened_pca(
    pixels: Floats, labels: ArrayLike, *, n_components: int = _N_COMPONENTS, shrinkage: float = _SHRINKAGE
) -> WhitenedPCA:
    """Fit a PCA whose components are whitened by how one identity's images vary.

    With W the covariance, within identities, of the `n_components` principal components, shrunk to
    ``(1 - shrinkage) W + shrinkage (tr W / n_components) I``, the projection is the PCA's times ``W^(-1/2)``:
    directions in which one face changes from image to image count little.

    Parameters
    ----------
    pixels : float32 (n, n_pixels)
        Rows of `pixel_embeddings`.
    labels : array_like of int (n,)
        The identity of each row; at least one must have two rows.
    n_components : int
        Components at most; fewer where there are fewer rows or pixels.
    shrinkage : float
        0 (trust W) to 1 (plain PCA).

    Returns
    -------
    WhitenedPCA

    Raises
    ------
    UserError
        If no identity has two images.

    References
    ----------
    .. [1] Belhumeur et al., "Eigenfaces vs. Fisherfaces", PAMI 1997: the half of it that is within classes.
    """
    from sklearn.decomposition import PCA

    _, identities, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    n_free = len(pixels) - len(counts)
    if n_free < 1:
        raise UserError("whitening within identities needs an identity with at least 2 images; got none")
    n_components = min(n_components, len(pixels) - 1, pixels.shape[1])
    pca = PCA(n_components, svd_solver="auto", random_state=0).fit(pixels)
    components = pca.transform(pixels).astype(np.float64)

    sums = np.zeros((len(counts), n_components))
    np.add.at(sums, identities, components)
    within = components - (sums / counts[:, None])[identities]
    covariance = within.T @ within / n_free
    even = np.trace(covariance) / n_components
    if even <= 0:
        raise UserError("whitening within identities needs images that differ; each identity's are all equal")
    shrunk = (1 - shrinkage) * covariance + shrinkage * even * np.eye(n_components)
    variances, directions = np.linalg.eigh(shrunk)
    # Without shrinkage a direction may not vary at all; it must not outweigh everything.
    whitening = directions / np.sqrt(np.maximum(variances, 1e-6 * even))
    projection = pca.components_.T.astype(np.float64) @ whitening
    return WhitenedPCA(pca.mean_.astype(np.float32), projection.astype(np.float32))


def pixel_embedder(image_size: int, *, standardisation: str = "per_image", store_size: int = 0) -> Embedder:
    """Make an embedder of plain pixels (`pixel_embeddings`).

    Parameters
    ----------
    image_size, standardisation, store_size
        As of the network to compare with; see `Embedder`.

    Returns
    -------
    Embedder
    """
    return Embedder(
        embed=pixel_embeddings,
        image_size=image_size,
        standardisation=standardisation,
        embedding_size=_side_after(image_size) ** 2,
        description="plain pixels",
        store_size=store_size,
    )


def whitened_pca_embedder(
    store: ImageReader,
    indices: NDArray[np.integer],
    labels: ArrayLike,
    image_size: int,
    *,
    standardisation: str = "per_image",
    max_images: int = _MAX_IMAGES,
) -> Embedder:
    """Fit a whitened PCA on a store's images and make an embedder of it.

    Parameters
    ----------
    store : ImageStore
        Where the images are.
    indices : int array (n,)
        The training images, in any order. Where there are more than `max_images`, whole identities are taken,
        spread evenly over all, until there are that many.
    labels : array_like of int (n,)
        The identity of each.
    image_size, standardisation
        As of the network to compare with; see `Embedder`.
    max_images : int
        How many images to read at most.

    Returns
    -------
    Embedder

    Raises
    ------
    UserError
        If no identity has two readable images.
    """
    from facenet_fast.data.images import centre_crop, standardise

    wanted, identities = np.asarray(indices, dtype=np.int64), np.asarray(labels)
    chosen = _some_identities(identities, max_images)
    pixels, kept = [], []
    for start in range(0, len(chosen), 256):
        rows = chosen[start : start + 256]
        images, ok = store.read(wanted[rows])
        if ok.any():
            cut = standardise(centre_crop(images[ok], image_size), standardisation)
            pixels.append(pixel_embeddings(cut))
            kept.append(identities[rows][ok])
    if not pixels:
        raise UserError("PCA needs images; none of the training images can be read")
    fitted = fit_whitened_pca(np.concatenate(pixels), np.concatenate(kept))
    return Embedder(
        embed=lambda batch: fitted(pixel_embeddings(batch)),
        image_size=image_size,
        standardisation=standardisation,
        embedding_size=fitted.projection.shape[1],
        description="PCA whitened within identities",
        store_size=store.store_size,
    )


def _some_identities(identities: NDArray[np.integer], max_images: int) -> NDArray[np.intp]:
    """Give the rows of whole identities, spread evenly, that number about `max_images` at most."""
    if len(identities) <= max_images:
        return np.arange(len(identities))
    names, inverse, counts = np.unique(identities, return_inverse=True, return_counts=True)
    # A stride by the golden ratio visits the identities evenly, whatever number of them is taken.
    order = np.argsort((np.arange(len(names)) * 0.6180339887498949) % 1.0)
    taken = order[np.cumsum(counts[order]) <= max_images]
    if len(taken) == 0:
        taken = order[:1]
    return np.flatnonzero(np.isin(inverse, taken))[:max_images]


def _checked_images(images: ArrayLike) -> NDArray[np.float32]:
    checked = np.asarray(images, dtype=np.float32)
    if checked.ndim != 4:
        raise UserError(f"images must have the shape (n, height, width, channels); got {checked.shape}")
    return checked


def _side_after(side: int) -> int:
    return -(-side // _factor(side))


def _factor(side: int) -> int:
    return max(1, -(-side // _SIDE))


def _shrunk(grey: Floats) -> Floats:
    """Average blocks of whole pixels, so that no side exceeds 32; the last block may be smaller."""
    for axis in (1, 2):
        starts = np.arange(0, grey.shape[axis], _factor(grey.shape[axis]))
        sizes = np.diff(np.append(starts, grey.shape[axis])).astype(np.float32)
        shape = [1, 1, 1]
        shape[axis] = len(starts)
        grey = (np.add.reduceat(grey, starts, axis=axis) / sizes.reshape(shape)).astype(np.float32)
    return grey


def _unit_rows(rows: Floats) -> Floats:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Floats = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 1e-6)
    return unit
