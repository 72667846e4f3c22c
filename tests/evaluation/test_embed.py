from __future__ import annotations

import numpy as np
import pytest

from facenet_fast.data.images import standardise
from facenet_fast.errors import UserError
from facenet_fast.evaluation.embed import Embedder, embed_images


class MemoryStore:
    """Images in memory; some cannot be read."""

    def __init__(self, n_images, store_size=6, bad=()):
        rng = np.random.default_rng(0)
        self.paths = tuple(f"image{n}.png" for n in range(n_images))
        self.store_size = store_size
        self.images = rng.integers(0, 256, (n_images, store_size, store_size, 3)).astype(np.uint8)
        self.bad = bad
        self.n_read = 0

    def read(self, indices):
        self.n_read += len(indices)
        ok = ~np.isin(indices, self.bad)
        return self.images[indices] * ok[:, None, None, None], ok


def corner_embedder(**changes):
    """Embeds an image as the first and last pixel of its first row, in red."""
    settings = {"embed": lambda batch: batch[:, 0, [0, -1], 0], "image_size": 6, "embedding_size": 2}
    settings |= {"standardisation": "fixed", "description": "corners"} | changes
    return Embedder(**settings)


def corners(images):
    return ((images[:, 0, [0, -1], 0] - 127.5) / 128).astype(np.float32)


@pytest.mark.parametrize("batch_size", [1, 4, 10, 11, 100])
def test_rows_are_in_order_whatever_the_batch_size(batch_size):
    store = MemoryStore(10)
    wanted = corners(store.images)
    np.testing.assert_allclose(
        embed_images(corner_embedder(), store, batch_size=batch_size), wanted, rtol=1e-6
    )
    chosen = np.array([7, 0, 7, 3])
    got = embed_images(corner_embedder(), store, chosen, batch_size=batch_size)
    np.testing.assert_allclose(got, wanted[chosen], rtol=1e-6)
    assert got.dtype == np.float32


def test_middle_is_cut_from_larger_images():
    store = MemoryStore(3, store_size=8)
    got = embed_images(corner_embedder(), store)
    np.testing.assert_allclose(got, corners(store.images[:, 1:7, 1:7]), rtol=1e-6)


def test_images_are_standardised_as_the_embedder_says():
    store = MemoryStore(3)
    got = embed_images(corner_embedder(standardisation="per_image"), store)
    np.testing.assert_allclose(
        got, np.asarray(standardise(store.images, "per_image"))[:, 0, [0, -1], 0], rtol=1e-6
    )


def test_flipped_embedding_is_appended():
    store = MemoryStore(5)
    got = embed_images(corner_embedder(), store, flipped=True, batch_size=2)
    wanted = corners(store.images)
    np.testing.assert_allclose(got, np.hstack([wanted, wanted[:, ::-1]]), rtol=1e-6)


def test_unreadable_images_are_rows_of_nan():
    store = MemoryStore(7, bad=(0, 3, 4, 5))
    got = embed_images(corner_embedder(), store, batch_size=3)
    np.testing.assert_array_equal(np.isnan(got).all(axis=1), np.isin(np.arange(7), store.bad))
    np.testing.assert_allclose(got[[1, 2, 6]], corners(store.images)[[1, 2, 6]], rtol=1e-6)


def test_a_batch_without_any_readable_image_is_not_embedded():
    got = embed_images(corner_embedder(embed=None), MemoryStore(2, bad=(0, 1)))
    assert np.isnan(got).all()


def test_progress_counts_images_and_each_is_read_once():
    store, calls = MemoryStore(7), []
    embed_images(corner_embedder(), store, batch_size=3, progress=lambda *call: calls.append(call))
    assert calls == [(3, 7), (6, 7), (7, 7)]
    assert store.n_read == 7


def test_no_images():
    assert embed_images(corner_embedder(), MemoryStore(3), np.array([], dtype=int)).shape == (0, 2)


def test_network_that_gives_nan_is_named_with_the_image():
    def embed(batch):
        rows = batch[:, 0, [0, -1], 0].copy()
        rows[1] = np.nan
        return rows

    with pytest.raises(
        UserError, match=r"must be finite; 1 of 3 images gave NaN or infinity, first image1\.png"
    ):
        embed_images(corner_embedder(embed=embed), MemoryStore(3))


def test_network_that_gives_another_shape_is_named():
    message = r"must have the shape \(3, 5\); corners gave \(3, 2\)"
    with pytest.raises(UserError, match=message):
        embed_images(corner_embedder(embedding_size=5), MemoryStore(3))


def test_batch_size_must_be_positive():
    with pytest.raises(UserError, match="batch size must be at least 1; got 0"):
        embed_images(corner_embedder(), MemoryStore(3), batch_size=0)


def test_error_while_reading_ahead_is_raised():
    class Broken(MemoryStore):
        def read(self, indices):
            if indices[0] > 0:
                raise MemoryError("no more")
            return super().read(indices)

    with pytest.raises(MemoryError, match="no more"):
        embed_images(corner_embedder(), Broken(9), batch_size=2)


def test_store_size_is_the_image_size_unless_given():
    assert corner_embedder().store_size == 6
    assert corner_embedder(store_size=9).store_size == 9
