"""Face verification from image files to intervals, each step beside what people use today, answers judged.

*Evaluation*: all that follows the embeddings of pairs, beside the predecessor's formulation. *Resamples*: the
bootstrap beside a loop over scikit-learn. *All pairs*: those of a data set, beside numpy and scikit-learn;
`ALL_PAIRS_RIVALS` lists them. *Embedding*: image files through a network, beside the network alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from facenet_fast._verification import bootstrap
from facenet_fast.evaluation.all_pairs import compare_all_pairs
from facenet_fast.evaluation.exact import ExactVerification, exact_verification
from facenet_fast.evaluation.verification import EUCLIDEAN, Verification, verify

from .regimes import pool
from .rivals import tensorflow, why_not
from .rules import Labels, Rows

__all__ = [
    "ALL_PAIRS_RIVALS",
    "AllPairsRival",
    "Pairs",
    "draw_identities",
    "evaluate",
    "evaluate_as_the_predecessor",
    "evaluate_exactly",
    "image_files",
    "judge_embeddings",
    "judge_evaluation",
    "judge_resamples",
    "lfw_like",
    "network_and_files",
    "resample_by_scikit_learn",
    "resample_natively",
]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

# Folds of LFW, and about as many people in each.
N_FOLDS, N_IDENTITIES, N_IMAGES = 10, 500, 4

# What both evaluations must agree to.
TOLERANCE = 1e-9
MEASURES = ("accuracy", "accuracy_std", "val", "val_std", "far", "auc", "eer")
FARS = (1e-1, 1e-2, 1e-3)

# Bins of distance that all pairs are counted in, and rows whose distances numpy makes at a time.
N_BINS = 2**16
ROWS_AT_A_TIME = 256

# Side in pixels of the image files: LFW's faces, cut out, are stored as small.
FILE_SIZE = 128
BATCH_SIZE = 100
EMBEDDING_SIZE = 128


# -- pairs ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pairs:
    """Embeddings of pairs of images, in folds that share no identity, half of each of one identity."""

    left: Rows
    right: Rows
    is_same: npt.NDArray[np.bool_]
    fold: Indices
    left_identity: Indices
    right_identity: Indices


def lfw_like(n_pairs: int, size: int) -> Pairs:
    """Draw as many pairs for each fold of what a trained network embeds; LFW has 6,000."""
    rows, _ = pool(N_FOLDS * N_IDENTITIES, N_IMAGES, size, "trained")
    rng = np.random.default_rng(n_pairs)
    fold = np.repeat(np.arange(N_FOLDS), n_pairs // N_FOLDS)
    is_same = np.arange(len(fold)) % 2 == 0
    left, step = (rng.integers(low, N_IDENTITIES, size=len(fold)) for low in (0, 1))
    right = np.where(is_same, left, (left + step) % N_IDENTITIES)
    left_image, image_step = (rng.integers(low, N_IMAGES, size=len(fold)) for low in (0, 1))
    right_image = (left_image + image_step) % N_IMAGES
    left, right = fold * N_IDENTITIES + left, fold * N_IDENTITIES + right
    return Pairs(
        rows[left * N_IMAGES + left_image], rows[right * N_IMAGES + right_image], is_same, fold, left, right
    )


# -- evaluation ----------------------------------------------------------------------------------------------


def evaluate(pairs: Pairs, metric: int, subtract_mean: bool) -> Verification:
    """Verify with this library."""
    return verify(
        pairs.left, pairs.right, pairs.is_same, pairs.fold, metric=metric, subtract_mean=subtract_mean
    )


def evaluate_as_the_predecessor(
    pairs: Pairs, metric: int, subtract_mean: bool, far_target: float = 1e-3
) -> dict[str, float]:
    """Verify as the predecessor formulates it: threshold by threshold, each by numpy over all pairs.

    Where thresholds share a false accept rate only the last is interpolated at: the predecessor does the
    same where it does not fail.
    """
    from scipy.interpolate import interp1d
    from scipy.optimize import brentq
    from sklearn.metrics import auc

    left, right = pairs.left.astype(np.float64), pairs.right.astype(np.float64)
    coarse, fine = np.arange(0, 4, 0.01), np.arange(0, 4, 0.001)

    def measure(others: npt.NDArray[np.bool_]) -> Floats:
        mean: Any = np.mean(np.concatenate([left[others], right[others]]), axis=0) if subtract_mean else 0.0
        a, b = left - mean, right - mean
        if metric == EUCLIDEAN:
            return np.asarray(np.sum(np.square(a - b), axis=1))
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        return np.asarray(np.arccos(np.clip(np.sum(a * b, axis=1) / lengths, -1, 1)) / np.pi)

    def judge(threshold: float, d: Floats, same: npt.NDArray[np.bool_]) -> tuple[float, float, float]:
        accepted = np.less(d, threshold)
        true_accepts = np.sum(np.logical_and(accepted, same))
        false_accepts = np.sum(np.logical_and(accepted, np.logical_not(same)))
        true_rejects = np.sum(np.logical_and(np.logical_not(accepted), np.logical_not(same)))
        false_rejects = np.sum(np.logical_and(np.logical_not(accepted), same))
        return (
            float(true_accepts / (true_accepts + false_rejects)),
            float(false_accepts / (false_accepts + true_rejects)),
            float((true_accepts + true_rejects) / len(d)),
        )

    def accept(threshold: float, d: Floats, same: npt.NDArray[np.bool_]) -> tuple[float, float]:
        accepted = np.less(d, threshold)
        true_accepts = np.sum(np.logical_and(accepted, same))
        false_accepts = np.sum(np.logical_and(accepted, np.logical_not(same)))
        return float(true_accepts / np.sum(same)), float(false_accepts / np.sum(np.logical_not(same)))

    curves, accuracies, rates = [], [], []
    for tested in range(N_FOLDS):
        others, own = pairs.fold != tested, pairs.fold == tested
        d = measure(others)
        best = np.argmax([judge(t, d[others], pairs.is_same[others])[2] for t in coarse])
        curves.append([judge(t, d[own], pairs.is_same[own])[:2] for t in coarse])
        accuracies.append(judge(coarse[best], d[own], pairs.is_same[own])[2])
    for tested in range(N_FOLDS):
        others, own = pairs.fold != tested, pairs.fold == tested
        d = measure(others)
        far_of_others = [accept(t, d[others], pairs.is_same[others])[1] for t in fine]
        threshold = 0.0
        if max(far_of_others) >= far_target:
            last = dict(zip(far_of_others, fine, strict=True))
            threshold = float(interp1d(list(last), list(last.values()), kind="slinear")(far_target))
        rates.append(accept(threshold, d[own], pairs.is_same[own]))
    tpr, fpr = np.mean(curves, axis=0).T
    val, far = np.mean(rates, axis=0)
    return {
        "accuracy": float(np.mean(accuracies)),
        "accuracy_std": float(np.std(accuracies)),
        "val": float(val),
        "val_std": float(np.std(rates, axis=0)[0]),
        "far": float(far),
        "auc": float(auc(fpr, tpr)),
        "eer": float(brentq(lambda x: 1.0 - x - interp1d(fpr, tpr)(x), 0.0, 1.0)),
    }


def judge_evaluation(found: Verification, expected: dict[str, float]) -> None:
    """Demand that both evaluations give the same numbers."""
    for name in MEASURES:
        off = abs(getattr(found, name) - expected[name])
        assert off <= TOLERANCE, f"{name}: {getattr(found, name)} and {expected[name]}"


# -- resamples -----------------------------------------------------------------------------------------------


def evaluate_exactly(pairs: Pairs, distances: Floats, n_resamples: int) -> ExactVerification:
    """Verify with this library, and give intervals from resampled identities."""
    return exact_verification(
        distances,
        pairs.is_same,
        fold=pairs.fold,
        left_identity=pairs.left_identity,
        right_identity=pairs.right_identity,
        fars=FARS,
        n_resamples=n_resamples,
    )


def draw_identities(pairs: Pairs, n_resamples: int, seed: int = 0) -> npt.NDArray[np.int32]:
    """Say how often each identity is drawn in each resample."""
    rng = np.random.default_rng(seed)
    n = int(max(pairs.left_identity.max(), pairs.right_identity.max())) + 1
    drawn = [np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(n_resamples)]
    return np.array(drawn, dtype=np.int32)


def resample_natively(pairs: Pairs, distances: Floats, counts: npt.NDArray[np.int32]) -> Floats:
    """Give accuracy, AUC, EER and VALs (columns) of given resamples."""
    order = np.argsort(distances)
    return bootstrap(
        distances[order],
        pairs.is_same[order].astype(np.uint8),
        pairs.fold[order].astype(np.int32),
        N_FOLDS,
        pairs.left_identity[order].astype(np.int32),
        pairs.right_identity[order].astype(np.int32),
        counts,
        np.array(FARS),
    )


def resample_by_scikit_learn(pairs: Pairs, distances: Floats, counts: npt.NDArray[np.int32]) -> Floats:
    """Give AUC, EER and VALs of given resamples, each from one weighted curve; folds are left out."""
    from sklearn.metrics import auc, roc_curve

    measures = []
    for drawn in counts:
        left, right = drawn[pairs.left_identity], drawn[pairs.right_identity]
        weights = np.where(pairs.is_same, left, left * right)
        fpr, tpr, _ = roc_curve(pairs.is_same, -distances, sample_weight=weights, drop_intermediate=False)
        vals = tpr[np.searchsorted(fpr, FARS, side="right") - 1]
        measures.append([auc(fpr, tpr), np.interp(1.0, fpr + tpr, fpr), *vals])
    return np.array(measures)


def judge_resamples(found: Floats, expected: Floats) -> None:
    """Demand that both measure the same resamples alike; the accuracy by folds has no rival."""
    assert ((found[:, 0] > 0.5) & (found[:, 0] <= 1.0)).all()
    np.testing.assert_allclose(found[:, 1:], expected, rtol=0, atol=TOLERANCE)


# -- all pairs -----------------------------------------------------------------------------------------------

# Of pairs of one identity and of two, how many are nearer than the upper edge of each of `N_BINS` bins.
Nearer = tuple[Indices, Indices]


@dataclass(frozen=True)
class AllPairsRival:
    """One way to measure all pairs of a data set.

    Attributes
    ----------
    name : str
        As the table calls it.
    prepare : callable
        (rows, labels, n_threads) to a function without arguments that returns the answer.
    nearer : callable
        (answer, edges of the bins) to `Nearer`, untimed.
    n_bytes : callable
        Number of images to about what it allocates, as measured.
    """

    name: str
    prepare: Callable[[Rows, Labels, int], Callable[[], Any]]
    nearer: Callable[[Any, Floats], Nearer]
    n_bytes: Callable[[int], float] = lambda n: 0.0

    def why_not(self, n_rows: int, memory_limit: float) -> str:
        """Return why it cannot measure so many images here; empty if it can."""
        return why_not((), self.n_bytes(n_rows), memory_limit)

    def judge(self, answer: Any, rows: Rows, labels: Labels) -> None:
        """Demand that no pair is more than a bin from where this library counts it."""
        native = compare_all_pairs(rows, labels)
        ours = np.cumsum(native.n_same), np.cumsum(native.n_different)
        for own, others in zip(self.nearer(answer, native.edges), ours, strict=True):
            padded = np.concatenate([[0], others, others[-1:]])
            assert own[-1] == others[-1]
            assert (padded[:-2] <= own).all()
            assert (own <= padded[2:]).all()


def _all_pairs_natively(rows: Rows, labels: Labels, n_threads: int) -> Callable[[], Any]:
    return lambda: compare_all_pairs(rows, labels, threads=n_threads)


def _all_pairs_in_numpy(rows: Rows, labels: Labels, n_threads: int) -> Callable[[], Any]:
    """Make distances of unit rows a block at a time by BLAS, and sort each kind into bins of 0 to the end."""
    end = compare_all_pairs(rows, labels).edges[-1]

    def count() -> Nearer:
        counts = np.zeros((2, N_BINS), dtype=np.int64)
        norms = np.einsum("ij,ij->i", rows, rows)
        for begin in range(0, len(rows), ROWS_AT_A_TIME):
            own = slice(begin, begin + ROWS_AT_A_TIME)
            squared = rows[own] @ rows[begin:].T
            squared *= -2
            squared += norms[own, None]
            squared += norms[begin:]
            np.maximum(squared, 0, out=squared)  # rounded, equal rows may be nearer than that
            is_pair = np.triu(np.ones(squared.shape, dtype=bool), 1)
            same = labels[own, None] == labels[begin:]
            for kind, of_kind in enumerate((is_pair & same, is_pair & ~same)):
                counts[kind] += np.histogram(squared[of_kind], bins=N_BINS, range=(0, end))[0]
        same_below, different_below = np.cumsum(counts, axis=1)
        return same_below, different_below

    return count


def _all_pairs_by_scikit_learn(rows: Rows, labels: Labels, n_threads: int) -> Callable[[], Any]:
    """List all pairs' distances in float64, and sort them."""
    from scipy.spatial.distance import pdist
    from sklearn.metrics import roc_curve

    def curve() -> tuple[Floats, ...]:
        left, right = np.triu_indices(len(rows), 1)
        same = labels[left] == labels[right]
        fpr, tpr, scores = roc_curve(same, -pdist(rows, "sqeuclidean"), drop_intermediate=False)
        return np.rint(tpr * np.sum(same)), np.rint(fpr * np.sum(~same)), -scores

    return curve


def _of_curve(answer: tuple[Floats, ...], edges: Floats) -> Nearer:
    n_same, n_different, distances = answer
    last = np.searchsorted(distances, edges[1:]) - 1
    return n_same[last].astype(np.int64), n_different[last].astype(np.int64)


ALL_PAIRS_RIVALS = (
    AllPairsRival(
        "facenet-fast, `compare_all_pairs`",
        _all_pairs_natively,
        lambda answer, edges: (np.cumsum(answer.n_same), np.cumsum(answer.n_different)),
    ),
    AllPairsRival(
        "numpy, block by block, and its histogram", _all_pairs_in_numpy, lambda answer, edges: answer
    ),
    AllPairsRival(
        "scikit-learn, `roc_curve` of all distances",
        _all_pairs_by_scikit_learn,
        _of_curve,
        lambda n: 100.0 * n * (n - 1) / 2,
    ),
)


# -- embedding -----------------------------------------------------------------------------------------------


@contextmanager
def image_files(n_images: int) -> Iterator[list[str]]:
    """Write JPEG files of smooth noise, as large as faces of their size, for as long as they are used."""
    from PIL import Image

    rng = np.random.default_rng(n_images)
    with TemporaryDirectory() as folder:
        paths = []
        for i in range(n_images):
            coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
            paths.append(str(Path(folder) / f"{i:05d}.jpg"))
            coarse.resize((FILE_SIZE, FILE_SIZE), Image.Resampling.BICUBIC).save(paths[-1], quality=90)
        yield paths


def network_and_files(
    backbone: str, image_size: int, paths: list[str], n_threads: int
) -> dict[str, Callable[[], Any]]:
    """Return ways through all images, by name.

    ``"network"`` takes ready batches, ``"reading"`` makes them, ``"files"`` does both, and ``"kept"`` does so
    with images that the store keeps decoded, once it has been called.
    """
    tensorflow(n_threads)
    import keras

    from facenet_fast.backbones import build
    from facenet_fast.data.images import ImageStore, centre_crop, standardise
    from facenet_fast.evaluation.embed import embed_images
    from facenet_fast.models import keras_embedder

    keras.utils.set_random_seed(0)
    embedder = keras_embedder(build(backbone, image_size, EMBEDDING_SIZE))
    store, keeping = (
        ImageStore(paths, image_size, cache_bytes=n_bytes, threads=n_threads) for n_bytes in (0, 2 << 30)
    )
    wanted = range(len(paths))
    batches = [wanted[begin : begin + BATCH_SIZE] for begin in wanted[::BATCH_SIZE]]

    def read() -> list[Rows]:
        decoded = (store.read(batch)[0] for batch in batches)
        return [standardise(centre_crop(images, image_size), embedder.standardisation) for images in decoded]

    ready = read()
    return {
        "network": lambda: np.concatenate([embedder.embed(batch) for batch in ready]),
        "reading": read,
        "files": lambda: embed_images(embedder, store, batch_size=BATCH_SIZE),
        "kept": lambda: embed_images(embedder, keeping, batch_size=BATCH_SIZE),
    }


def judge_embeddings(found: Rows, expected: Rows) -> None:
    """Demand the embeddings of the network alone, image by image."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert len(np.unique(np.round(found, 4), axis=0)) == len(found)
