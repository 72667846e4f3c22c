"""`facenet-fast validate`: how well a trained network tells faces apart, by the LFW protocol and exactly."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenet_fast.config import ValidateConfig
from facenet_fast.data.identities import IdentityDataset, scan_identities, short_name
from facenet_fast.data.packed import PackedImages, read_packed
from facenet_fast.data.pairs import Pairs, draw_pairs, read_pairs, write_pairs
from facenet_fast.errors import UserError
from facenet_fast.evaluation.all_pairs import AllPairs, all_pairs_mistakes, compare_all_pairs
from facenet_fast.evaluation.embed import Embedder, ImageReader, embed_images
from facenet_fast.evaluation.exact import ExactVerification, exact_verification, of_roc
from facenet_fast.evaluation.mistakes import IdentityErrors, identity_errors, worst_pairs
from facenet_fast.evaluation.retrieval import Identification, Retrieval, identification, retrieval
from facenet_fast.evaluation.verification import METRICS, Verification, verify
from facenet_fast.evaluation.verify_images import EmbeddedPairs, embed_pairs, find_pairs_file
from facenet_fast.report.page import Page, ShownPair, write_page
from facenet_fast.report.plots import DistanceHistogram
from facenet_fast.report.table import exact_lines, search_lines, threshold_lines
from facenet_fast.report.versions import versions
from facenet_fast.thresholds import (
    Similarity,
    Thresholds,
    save_thresholds,
    similarity_of,
    thresholds_at,
    thresholds_path,
)

__all__ = ["Validation", "validate"]

HELD_OUT_PAIRS_FILE = "held_out_pairs.txt"
AUTO = "auto"

# FAR at whose threshold the mistakes among all pairs are shown, or at the next above that they can give.
_SHOWN_FAR = 1e-3
_MOST_SHOWN = 24


@dataclass(frozen=True, eq=False)
class Validation:
    """What `validate` found.

    Attributes
    ----------
    lfw : Verification or None
        By the LFW protocol, on the predecessor's grid; None of all pairs, which have no folds.
    exact : ExactVerification
        Without a grid.
    thresholds : Thresholds
        Those that are kept with the model.
    retrieval, identification : Retrieval and Identification, or None
        Of all pairs only.
    """

    lfw: Verification | None
    exact: ExactVerification
    thresholds: Thresholds
    retrieval: Retrieval | None = None
    identification: Identification | None = None


def validate(config: ValidateConfig) -> Validation:
    """Verify pairs of images with a trained network, print what was found, and keep its thresholds.

    Parameters
    ----------
    config : ValidateConfig
        The images, the model, the pairs and the options. Without `pairs` they are those in
        ``IMAGES_DIR/pairs.txt`` or ``IMAGES_DIR/../pairs.txt``, and if there are none but the model is a run,
        those of the run's held-out identities.

    Returns
    -------
    Validation

    Raises
    ------
    UserError
        If pairs, images or model are missing or cannot be read, or a file cannot be written; with `strict`
        also if any image cannot be read.
    """
    if config.report:
        _check_report_dir(config.report)
    return _validate_all_pairs(config) if config.all_pairs else _validate_pairs(config)


def print_verification(result: Verification) -> None:
    """Print a verification in the predecessor's four lines."""
    print(f"Accuracy: {result.accuracy:2.5f}+-{result.accuracy_std:2.5f}")
    print(f"Validation rate: {result.val:2.5f}+-{result.val_std:2.5f} @ FAR={result.far:2.5f}")
    print(f"Area Under Curve (AUC): {result.auc:1.3f}")
    print(f"Equal Error Rate (EER): {result.eer:1.3f}")


def _validate_pairs(config: ValidateConfig) -> Validation:
    # Read before the model is: a mistake in the pairs shows at once.
    pairs, images, source = _pairs_of(config)
    embedder = _load(config)
    store = images(embedder)
    print("Runnning forward pass on LFW images")  # spelled as the predecessor's, for scripts that look for it
    embedded = embed_pairs(
        embedder,
        pairs,
        store,
        batch_size=config.batch_size,
        flipped=config.use_flipped_images,
        progress=_Dots(),
    )
    print()
    n_unreadable = len(pairs) - len(embedded.pairs)
    if n_unreadable and config.strict:
        raise UserError(
            f"strict: every image must be readable; {n_unreadable} of {len(pairs)} pairs hold one that is not"
        )
    if n_unreadable or pairs.skipped:
        print(f"Skipped {n_unreadable + len(pairs.skipped)} image pairs")
    kept = embedded.pairs
    lfw = verify(
        embedded.embeddings[embedded.left],
        embedded.embeddings[embedded.right],
        kept.is_same,
        kept.fold,
        metric=config.distance_metric,
        subtract_mean=config.subtract_mean,
    )
    left, right = kept.identities()
    exact = exact_verification(
        lfw.distances,
        kept.is_same,
        fold=kept.fold,
        left_identity=left,
        right_identity=right,
        n_resamples=config.resamples,
        confidence=config.confidence,
        seed=config.seed,
    )
    if config.protocol == "lfw":
        print_verification(lfw)
    similarity = None if config.subtract_mean else similarity_of(embedded.embeddings, config.distance_metric)
    thresholds = _conclude(config, embedder, exact, similarity, source, len(kept))
    if config.report:
        page = _page_of_pairs(config, embedder, embedded, store, lfw, exact, similarity, source)
        print(f"Report: {write_page(config.report, page)}")
    return Validation(lfw, exact, thresholds)


def _validate_all_pairs(config: ValidateConfig) -> Validation:
    from facenet_fast.data.images import ImageStore

    if config.images_dir.endswith(".bin"):
        raise UserError("all_pairs needs a folder of identities; a packed set names none")
    dataset = scan_identities(config.images_dir, min_identities=2)
    embedder = _load(config)
    store = ImageStore(dataset.paths, embedder.store_size, cache_bytes=0)
    print(f"Embedding {dataset.n_images} images of {dataset.n_identities} identities")
    embeddings = embed_images(
        embedder, store, batch_size=config.batch_size, flipped=config.use_flipped_images, progress=_Dots()
    )
    print()
    readable = ~np.isnan(embeddings[:, 0])
    n_unreadable = int(np.count_nonzero(~readable))
    if n_unreadable and config.strict:
        raise UserError(f"strict: every image must be readable; {n_unreadable} are not")
    if not readable.any():
        raise UserError(f"verification needs images; of {dataset.n_images} none can be read")
    rows = np.flatnonzero(readable)
    embeddings, labels = embeddings[rows], dataset.labels[rows]
    metric = config.distance_metric
    counted = compare_all_pairs(embeddings, labels, metric=metric)
    roc = counted.roc
    exact = of_roc(roc)
    similarity = similarity_of(embeddings, metric)
    source = f"all pairs of {os.path.basename(os.path.abspath(config.images_dir))}"
    thresholds = _conclude(config, embedder, exact, similarity, source, roc.n_same + roc.n_different)
    print(f"Distances are known to {roc.threshold_error:.1e}, and rates at thresholds shifted by as much")
    found = retrieval(embeddings, labels, metric=metric)
    try:
        searched = identification(embeddings, labels, seed=config.seed, metric=metric)
        reason = ""
    except UserError as error:  # too few people for a gallery are no reason to lose the rest
        searched, reason = None, str(error)
    for line in search_lines(found, searched, reason):
        print(line)
    if config.report:
        page = _page_of_all_pairs(
            config, embedder, dataset, rows, embeddings, counted, exact, similarity, source, (found, searched)
        )
        print(f"Report: {write_page(config.report, page)}")
    return Validation(None, exact, thresholds, found, searched)


def _conclude(
    config: ValidateConfig,
    embedder: Embedder,
    exact: ExactVerification,
    similarity: Similarity | None,
    source: str,
    n_pairs: int,
) -> Thresholds:
    """Print the exact measures and the thresholds, and keep the latter with the model."""
    from facenet_fast.models import name_of_model  # imports TensorFlow

    for line in exact_lines(exact, n_pairs):
        print(line)
    for line in threshold_lines(exact, METRICS[config.distance_metric], similarity):
        print(line)
    thresholds = Thresholds(
        metric=config.distance_metric,
        flipped=config.use_flipped_images,
        standardisation=embedder.standardisation,
        checkpoint=name_of_model(config.model),
        n_same=exact.roc.n_same,
        n_different=exact.roc.n_different,
        source=source,
        points=thresholds_at(exact.operating_points, similarity),
    )
    if not config.save_thresholds:
        return thresholds
    if config.subtract_mean:
        print("Not kept with the model: a single image has no folds whose mean could be subtracted")
    elif not thresholds.points:
        print("Not kept with the model: there are too few pairs for any")
    else:
        instead = ", in the place of those before" if os.path.exists(thresholds_path(config.model)) else ""
        try:
            print(f"Kept for `facenet-fast compare` in {save_thresholds(thresholds, config.model)}{instead}")
        except UserError as error:  # a model in a folder that is not ours to write is verified all the same
            print(f"Not kept with the model: {error}")
    return thresholds


def _pairs_of(config: ValidateConfig) -> tuple[Pairs, Callable[[Embedder], ImageReader], str]:
    """Return the pairs, what makes a store of their images for an embedder, and what they are."""
    if config.images_dir.endswith(".bin"):
        if config.pairs:
            raise UserError(
                f"pairs must not be given with a packed set, which holds its own; got {config.pairs!r}"
            )
        packed = read_packed(config.images_dir, n_folds=config.lfw_folds)
        return (
            packed.pairs,
            lambda embedder: PackedImages(packed, embedder.store_size),
            os.path.basename(config.images_dir),
        )
    if config.pairs == AUTO:
        pairs, source = _drawn_pairs(config)
    else:
        pairs_path, images_dir = _pairs_and_images(config)
        pairs = read_pairs(pairs_path, images_dir, n_folds=config.lfw_folds, strict=config.strict)
        source = os.path.join(os.path.basename(os.path.dirname(os.path.abspath(pairs_path))), "")
        source += os.path.basename(pairs_path)

    def images(embedder: Embedder) -> ImageReader:
        from facenet_fast.data.images import ImageStore

        return ImageStore(pairs.images()[0], embedder.store_size, cache_bytes=0)  # each image is read once

    return pairs, images, source


def _drawn_pairs(config: ValidateConfig) -> tuple[Pairs, str]:
    dataset = scan_identities(config.images_dir, min_identities=2)
    pairs = draw_pairs(dataset, config.seed, config.lfw_folds, config.max_pairs)
    name = os.path.basename(os.path.abspath(config.images_dir))
    path = _free_path(config.report or ".", f"pairs_{name}_{config.seed}", ".txt")
    try:
        write_pairs(pairs, path, config.images_dir)
    except OSError as error:
        raise UserError(f"cannot write the drawn pairs to {path!r}: {error.strerror}") from error
    print(f"Drew {len(pairs)} pairs; the same again: --pairs {path} --lfw-folds {pairs.n_folds}")
    return pairs, f"{len(pairs)} pairs drawn from {name} with seed {config.seed}"


def _free_path(folder: str, stem: str, suffix: str) -> str:
    """Return a path at which nothing is, so that nothing of the user's is lost."""
    os.makedirs(folder, exist_ok=True)
    path, number = os.path.join(folder, stem + suffix), 1
    while os.path.exists(path):
        number += 1
        path = os.path.join(folder, f"{stem}_{number}{suffix}")
    return path


def _pairs_and_images(config: ValidateConfig) -> tuple[str, str]:
    try:
        return find_pairs_file(config.images_dir, config.pairs)
    except UserError:
        # Those of a run, of one of its checkpoints, or of its best weights.
        for folder in (config.model, os.path.dirname(os.path.abspath(config.model))):
            held_out = os.path.join(folder, HELD_OUT_PAIRS_FILE)
            if not config.pairs and os.path.isfile(held_out):
                return find_pairs_file(config.images_dir, held_out)
        raise


def _load(config: ValidateConfig) -> Embedder:
    # Only here, since it imports TensorFlow.
    from facenet_fast.models import describe, load_network

    network = load_network(
        config.model,
        image_size=config.image_size,
        standardisation="fixed" if config.use_fixed_image_standardization else None,
    )
    for line in describe(config.model):
        print(line)
    if config.use_fixed_image_standardization:
        reason = "as asked"
    elif network.metadata is not None:
        reason = "as the model says"
    else:
        reason = "the model does not say; --use-fixed-image-standardization if it was trained so"
    print(f"Images standardised: {network.embedder.standardisation} ({reason})")
    return network.embedder


def _page_of_pairs(
    config: ValidateConfig,
    embedder: Embedder,
    embedded: EmbeddedPairs,
    store: ImageReader,
    lfw: Verification,
    exact: ExactVerification,
    similarity: Similarity | None,
    source: str,
) -> Page:
    kept = embedded.pairs
    accepts, rejects = worst_pairs(lfw.distances, kept.is_same, exact.threshold, _MOST_SHOWN)
    left, right = kept.identities()
    errors = (
        []
        if left is None or right is None
        else identity_errors(left, right, lfw.distances, kept.is_same, exact.threshold)
    )
    accepted = lfw.distances < exact.threshold

    def shown(chosen: NDArray[np.int64]) -> list[ShownPair]:
        pairs = np.stack([embedded.left[chosen], embedded.right[chosen]], axis=1)
        return _shown_pairs(store, pairs, lfw.distances[chosen])

    return _page(
        config,
        embedder,
        exact,
        similarity,
        source,
        grid=lfw,
        histogram=DistanceHistogram.of(lfw.distances, kept.is_same),
        false_accepts=shown(accepts),
        false_rejects=shown(rejects),
        n_false_accepts=int(np.count_nonzero(accepted & ~kept.is_same)),
        n_false_rejects=int(np.count_nonzero(~accepted & kept.is_same)),
        judged_at=exact.threshold,
        judged_as="best accuracy",
        identity_errors=errors,
        measures={},
    )


def _page_of_all_pairs(
    config: ValidateConfig,
    embedder: Embedder,
    dataset: IdentityDataset,
    rows: NDArray[np.int64],
    embeddings: NDArray[np.float32],
    counted: AllPairs,
    exact: ExactVerification,
    similarity: Similarity | None,
    source: str,
    searched: tuple[Retrieval, Identification | None],
) -> Page:
    from facenet_fast.data.images import ImageStore
    from facenet_fast.evaluation.verification import distances

    metric = config.distance_metric
    judged_at, judged_as = exact.threshold, "best accuracy"
    for point in exact.operating_points:  # by falling FAR
        if point.far_target >= _SHOWN_FAR:
            judged_at, judged_as = point.threshold, f"FAR={point.far_target:g}"
    names = np.array(dataset.names)[dataset.labels[rows]]
    mistakes = all_pairs_mistakes(embeddings, names, judged_at, metric=metric, n=_MOST_SHOWN)
    store = ImageStore(dataset.paths, embedder.store_size, cache_bytes=0)

    def shown(pairs: NDArray[np.int64]) -> list[ShownPair]:
        measured = distances(embeddings[pairs[:, 0]], embeddings[pairs[:, 1]], metric)
        return _shown_pairs(store, rows[pairs], measured)

    return _page(
        config,
        embedder,
        exact,
        similarity,
        source,
        grid=None,
        histogram=DistanceHistogram(counted.edges, counted.n_same, counted.n_different),
        false_accepts=shown(mistakes.false_accepts),
        false_rejects=shown(mistakes.false_rejects),
        n_false_accepts=mistakes.n_false_accepts,
        n_false_rejects=mistakes.n_false_rejects,
        judged_at=judged_at,
        judged_as=judged_as,
        identity_errors=mistakes.identity_errors,
        measures=_search_measures(*searched),
    )


def _page(
    config: ValidateConfig,
    embedder: Embedder,
    exact: ExactVerification,
    similarity: Similarity | None,
    source: str,
    *,
    identity_errors: Sequence[IdentityErrors],
    **parts: Any,
) -> Page:
    from facenet_fast.models import name_of_model  # imports TensorFlow

    return Page(
        title=f"Verification of {name_of_model(config.model)}",
        subtitle=f"{source}, {embedder.description}",
        exact=exact,
        distance_name=METRICS[config.distance_metric],
        similarity=similarity,
        identity_errors=[one for one in identity_errors if one.n_errors],
        n_identities=len(identity_errors),
        settings={name: str(value) for name, value in config.to_dict().items()},
        versions=versions(),
        **parts,
    )


def _search_measures(found: Retrieval, searched: Identification | None) -> dict[str, float | str]:
    measures: dict[str, float | str] = {f"recall@{k}": share for k, share in found.recall_at.items()}
    measures["MAP@R"] = found.map_at_r
    if searched is None:
        return measures
    return {
        **measures,
        **{f"closed-set identification, rank {rank}": share for rank, share in searched.rank.items()},
        **{f"open-set identification at FAR={point.far_target:g}": point.rate for point in searched.open_set},
    }


def _shown_pairs(
    store: ImageReader, pairs: NDArray[np.int64], measured: NDArray[np.float64]
) -> list[ShownPair]:
    """Read the images of pairs, given as indices into the store, again."""
    shown = []
    for (left, right), distance in zip(pairs.tolist(), measured.tolist(), strict=True):
        images, _ = store.read(np.array([left, right]))
        names = [short_name(store.paths[index]) for index in (left, right)]
        shown.append(ShownPair(images[0], images[1], names[0], names[1], distance))
    return shown


def _check_report_dir(report_dir: str) -> None:
    """Refuse what could not be written before any work is done."""
    try:
        os.makedirs(report_dir, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the folder of the report must be writable; {report_dir!r}: {error.strerror}"
        ) from error
    if not os.access(report_dir, os.W_OK):
        raise UserError(f"the folder of the report must be writable; got {report_dir!r}")


class _Dots:
    """Print a dot for every ten batches."""

    def __init__(self) -> None:
        self.n_batches = 0

    def __call__(self, n_done: int, n_images: int) -> None:
        self.n_batches += 1
        if self.n_batches % 10 == 0:
            print(".", end="", flush=True)
