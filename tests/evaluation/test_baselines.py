from __future__ import annotations

import numpy as np
import pytest

from facenet_fast.data.identities import scan_identities, split_identities
from facenet_fast.data.images import ImageStore
from facenet_fast.data.pairs import draw_pairs
from facenet_fast.errors import UserError
from facenet_fast.evaluation.baselines import (
    fit_whitened_pca,
    pixel_embedder,
    pixel_embeddings,
    whitened_pca_embedder,
)
from facenet_fast.evaluation.verification import distances, verify
from facenet_fast.evaluation.verify_images import verify_images


def test_pixel_distance_is_two_minus_twice_the_correlation():
    images = np.random.default_rng(0).integers(0, 256, (2, 20, 20, 3)).astype(np.uint8)
    rows = pixel_embeddings(images)
    grey = images.mean(axis=3).reshape(2, -1)
    correlation = np.corrcoef(grey)[0, 1]
    assert distances(rows[:1], rows[1:])[0] == pytest.approx(2 - 2 * correlation, abs=1e-5)


def test_light_and_contrast_do_not_change_pixel_embeddings():
    images = np.random.default_rng(0).normal(size=(4, 12, 12, 3)).astype(np.float32)
    np.testing.assert_allclose(pixel_embeddings(3 * images + 20), pixel_embeddings(images), atol=1e-5)


@pytest.mark.parametrize(("side", "wanted"), [(8, 8), (32, 32), (33, 17), (64, 32), (80, 27), (160, 32)])
def test_large_images_are_averaged_down(side, wanted):
    rows = pixel_embeddings(np.random.default_rng(0).normal(size=(2, side, side, 3)))
    assert rows.shape == (2, wanted**2)
    assert pixel_embedder(side).embedding_size == wanted**2


def test_averaging_takes_the_mean_of_each_block_also_of_the_last():
    image = np.random.default_rng(0).normal(size=(1, 33, 33, 1)).astype(np.float32)
    blocks = [[image[0, i : i + 2, j : j + 2].mean() for j in range(0, 33, 2)] for i in range(0, 33, 2)]
    wanted = np.ravel(blocks) - np.mean(blocks)
    np.testing.assert_allclose(pixel_embeddings(image)[0], wanted / np.linalg.norm(wanted), atol=1e-5)


def test_even_grey_is_zeros_not_nan():
    assert not pixel_embeddings(np.full((1, 9, 9, 3), 7)).any()


def test_pixel_embeddings_refuse_other_shapes():
    with pytest.raises(UserError, match=r"\(n, height, width, channels\); got \(9, 9, 3\)"):
        pixel_embeddings(np.zeros((9, 9, 3)))


def draw_rows(n_identities, n_images, seed, size=30):
    """Rows that differ between identities in all directions, and within them strongly, in three."""
    rng = np.random.default_rng(seed)
    wild = np.random.default_rng(99).normal(size=(3, size))
    labels = np.repeat(np.arange(n_identities), n_images)
    rows = rng.normal(size=(n_identities, size))[labels]
    rows += 0.3 * rng.normal(size=rows.shape) + 3 * rng.normal(size=(len(rows), 3)) @ wild
    return rows.astype(np.float32), labels


def test_without_shrinkage_the_within_covariance_becomes_the_identity():
    rows, labels = draw_rows(40, 10, seed=0)
    fitted = fit_whitened_pca(rows, labels, n_components=12, shrinkage=0.0)
    projected = (rows - fitted.mean) @ fitted.projection
    within = projected - np.stack([projected[labels == one].mean(axis=0) for one in labels])
    covariance = within.T @ within / (len(rows) - 40)
    np.testing.assert_allclose(covariance, np.eye(12), atol=1e-3)


def test_whitening_finds_new_identities_where_rows_do_not():
    fitted = fit_whitened_pca(*draw_rows(40, 10, seed=0))
    rows, labels = draw_rows(10, 6, seed=1)
    left, right = np.triu_indices(len(rows), 1)
    fold = np.random.default_rng(0).permutation(len(left)) % 5

    def auc(rows):
        return verify(rows[left], rows[right], labels[left] == labels[right], fold).auc

    assert auc(rows) < 0.75
    assert auc(fitted(rows)) > 0.95


def test_few_rows_give_few_components():
    rows, labels = draw_rows(2, 3, seed=0)
    projected = fit_whitened_pca(rows, labels)(rows)
    assert projected.shape == (6, 5)
    assert np.isfinite(projected).all()


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        (np.eye(4, dtype=np.float32), [0, 1, 2, 3], "an identity with at least 2 images; got none"),
        (np.eye(4, dtype=np.float32)[[0, 0, 1, 1]], [0, 0, 1, 1], "each identity's are all equal"),
    ],
)
def test_whitening_refuses_what_it_cannot_whiten_by(rows, labels, message):
    with pytest.raises(UserError, match=message):
        fit_whitened_pca(rows, labels)


class CountingStore:
    paths = tuple(map(str, range(300)))
    store_size = 8

    def __init__(self, bad=()):
        self.bad = bad
        self.read_indices = []

    def read(self, indices):
        self.read_indices += list(indices)
        rng = np.random.default_rng(int(indices[0]))
        return rng.integers(0, 256, (len(indices), 8, 8, 3)).astype(np.uint8), ~np.isin(indices, self.bad)


def test_large_training_sets_give_whole_identities_up_to_the_limit():
    store, labels = CountingStore(), np.repeat(np.arange(30), 10)
    whitened_pca_embedder(store, np.arange(300), labels, 8, max_images=75)
    assert len(store.read_indices) == 70
    assert np.unique(labels[store.read_indices], return_counts=True)[1].tolist() == [10] * 7


def test_one_huge_identity_is_cut_at_the_limit():
    store = CountingStore()
    whitened_pca_embedder(store, np.arange(300), np.zeros(300, int), 8, max_images=75)
    assert len(store.read_indices) == 75


def test_unreadable_images_are_left_out_of_the_fit():
    store, labels = CountingStore(bad=np.arange(0, 300, 3)), np.repeat(np.arange(30), 10)
    embedder = whitened_pca_embedder(store, np.arange(300), labels, 8)
    assert embedder.embed(np.random.default_rng(0).normal(size=(2, 8, 8, 3))).shape == (
        2,
        embedder.embedding_size,
    )
    with pytest.raises(UserError, match="none of the training images can be read"):
        whitened_pca_embedder(CountingStore(bad=np.arange(300)), np.arange(300), labels, 8)


def test_baselines_on_real_faces(orl_dir):
    train, held_out = split_identities(scan_identities(str(orl_dir)), 10, seed=0)
    pairs = draw_pairs(held_out, 0, 10, 20000)
    store = ImageStore(train.paths, 32)
    whitened = whitened_pca_embedder(store, np.arange(train.n_images), train.labels, 32)
    auc_of_pixels = verify_images(pixel_embedder(32), pairs).auc
    auc_of_pca = verify_images(whitened, pairs).auc
    assert 0.84 < auc_of_pixels < 0.95
    assert auc_of_pixels + 0.02 < auc_of_pca < 0.995
