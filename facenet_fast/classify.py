"""`facenet-fast classify`: give faces the names of people it was trained on, and call the others unknown."""

from __future__ import annotations

import dataclasses
import logging
import math
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

import facenet_fast
from facenet_fast.config import ClassifyConfig
from facenet_fast.data.identities import IdentityDataset, scan_identities, short_name
from facenet_fast.data.images import ImageStore, standardise
from facenet_fast.errors import UserError
from facenet_fast.evaluation.embed import Embedder, embed_images
from facenet_fast.files import check_output, written_aside
from facenet_fast.mining.neighbors import nearest_neighbors
from facenet_fast.report.progress import image_progress

__all__ = ["FaceClassifier", "Naming", "classify", "fit_classifier", "load_classifier", "save_classifier"]

_FORMAT = "facenet-fast classifier 1"
# Inverse strength of the regression's penalty. On LFW crops of 54 people, 10 images of each to train on, it
# changes the accuracy by 0.03 at most (from 1 to 300; weak embeddings that give 0.67, and sharpened ones that
# give 0.99). But with scikit-learn's default, 1, the probability of the best name averages 0.08 and 0.23, and
# with 100 it is 0.55 and 0.88.
_REGRESSION_C = 100.0
_UNKNOWN_RATE = 0.01
# Two networks' embeddings of one image differ by about their length; one network's on two machines hardly.
_PROBE_TOLERANCE = 0.02

_logger = logging.getLogger("facenet_fast")

Floats = NDArray[np.float64]
Strings = NDArray[np.str_]


@dataclass(frozen=True, eq=False)
class FaceClassifier:
    """A linear rule that names embeddings, and the distance from which on it does not.

    An embedding x is given the identity with the greatest score ``coefficients[i] @ x + intercepts[i]``. It
    is unknown if its Euclidean distance to the nearest embedding of that identity that was trained on is not
    below `threshold`.

    Attributes
    ----------
    kind : {"logistic", "linear_svm", "nearest"}
        How the rule was found.
    names : array of str (n_identities,)
    coefficients : float64 (n_identities, D)
    intercepts : float64 (n_identities,)
    embeddings : float32 (n, D)
        What it was trained on.
    labels : int32 (n,)
        Their identities, indices into `names`.
    images : array of str (n,)
        Their files, ``IDENTITY/FILE``; empty if they are not known.
    stranger_distances : float64 (n,)
        Ascending: how near each of them is to another identity.
    unknown_rate : float
        Share of `stranger_distances` below the threshold, at most.
    model : str
        The network that embedded, in words.
    probe : float32 (D,)
        Its embedding of one certain image, by which another network is told; empty if it is not known.
    """

    kind: str
    names: Strings
    coefficients: Floats
    intercepts: Floats
    embeddings: NDArray[np.float32]
    labels: NDArray[np.int32]
    images: Strings
    stranger_distances: Floats
    unknown_rate: float
    model: str
    probe: NDArray[np.float32]

    @property
    def threshold(self) -> float:
        """Distance from which on an embedding is unknown; infinite if `unknown_rate` is 1."""
        n_accepted = math.floor(self.unknown_rate * len(self.stranger_distances))
        if n_accepted >= len(self.stranger_distances):
            return math.inf
        return float(self.stranger_distances[n_accepted])

    def name(self, embeddings: ArrayLike) -> Naming:
        """Name embeddings.

        Parameters
        ----------
        embeddings : array_like (n, D)
            By the network that those trained on are by.

        Returns
        -------
        Naming

        Raises
        ------
        UserError
            If they are not of D numbers.
        """
        rows = np.asarray(embeddings, dtype=np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.embeddings.shape[1]:
            raise UserError(
                f"embeddings must have the shape (n, {self.embeddings.shape[1]}), as those trained on; "
                f"got {rows.shape}"
            )
        values = rows.astype(np.float64) @ self.coefficients.T + self.intercepts
        identities = np.argmax(values, axis=1)
        distances = np.empty(len(rows))
        for identity in np.unique(identities):
            chosen = identities == identity
            found = nearest_neighbors(
                rows[chosen], self.embeddings[self.labels == identity], distance="euclidean"
            )
            distances[chosen] = found.distances[:, 0]
        if self.kind == "logistic":
            exponentials = np.exp(values - values.max(axis=1, keepdims=True))
            scores = np.max(exponentials, axis=1) / np.sum(exponentials, axis=1)
        else:
            nearer = np.searchsorted(self.stranger_distances, distances, side="right")
            scores = 1.0 - nearer / len(self.stranger_distances)
        return Naming(identities, scores, distances, ~(distances < self.threshold))

    def share_of_known_refused(self) -> float:
        """Return the share of embeddings trained on that would be unknown, were each of them left out.

        Each one's nearest other embedding of its identity is beyond the threshold. Those that are alone in
        their identity are not counted; NaN if all are.
        """
        refused = []
        for identity in range(len(self.names)):
            rows = self.embeddings[self.labels == identity]
            if len(rows) > 1:
                distances = nearest_neighbors(rows, distance="euclidean").distances[:, 0]
                refused.append(~(distances < self.threshold))
        return float(np.mean(np.concatenate(refused))) if refused else math.nan


@dataclass(frozen=True, eq=False)
class Naming:
    """What a classifier says of embeddings.

    Attributes
    ----------
    identities : int (n,)
        The best identity of each, an index into the classifier's names.
    scores : float64 (n,)
        Of a logistic rule the probability of that identity among those trained on. Of the others, which have
        no probabilities, the share of `FaceClassifier.stranger_distances` beyond the embedding's distance: 1
        if no stranger came as near.
    distances : float64 (n,)
        Euclidean, to the nearest embedding of that identity.
    is_unknown : bool (n,)
        Whether it is called unknown instead.
    """

    identities: NDArray[np.intp]
    scores: Floats
    distances: Floats
    is_unknown: NDArray[np.bool_]


def fit_classifier(
    embeddings: ArrayLike,
    labels: Sequence[str] | Strings,
    *,
    kind: str = "logistic",
    unknown_rate: float = _UNKNOWN_RATE,
    images: Sequence[str] | Strings = (),
    model: str = "",
    probe: ArrayLike = (),
) -> FaceClassifier:
    """Fit a rule that names embeddings, and find the distance from which on they are unknown.

    The rule is scikit-learn's `LogisticRegression`, its `LinearSVC`, or that of its `NearestCentroid`, which
    is linear too: the nearest mean c has the greatest ``2 c @ x - c @ c``.

    The distance is found on the embeddings themselves, one identity left out at a time: to the others each of
    its embeddings is what one of a stranger would be, and is as near as its nearest among them. At most
    `unknown_rate` of these distances are below the threshold. It is an estimate. A stranger is compared with
    the identity the rule gives him, which need not be the nearest, so that he is refused rather more often;
    but he may be more like the people trained on than these are like each other, and with few of them a low
    rate rests on the two who are most alike. On LFW (54 people, 10 images each, and 4,555 images of others) a
    rate of 0.01 let 0.005 of the strangers through, and 0.1 let 0.034.

    Parameters
    ----------
    embeddings : array_like (n, D)
        Finite.
    labels : sequence of str (n,)
        Name of each one's identity; at least two.
    kind : {"logistic", "linear_svm", "nearest"}
    unknown_rate : float
        In 0 .. 1; 1 never says unknown.
    images, model, probe
        See `FaceClassifier`.

    Returns
    -------
    FaceClassifier

    Raises
    ------
    UserError
        If there are fewer than two identities.
    ValueError
        If an embedding is not finite.

    Examples
    --------
    >>> embeddings = [[0.0, 1.0], [0.1, 1.0], [1.0, 0.0], [1.0, 0.1]]
    >>> classifier = fit_classifier(embeddings, ["ann", "ann", "bob", "bob"])
    >>> naming = classifier.name([[0.0, 0.9], [1.0, 0.05], [-1.0, -0.8]])
    >>> classifier.names[naming.identities].tolist(), naming.is_unknown.tolist()
    (['ann', 'bob', 'ann'], [False, False, True])
    """
    rows = np.asarray(embeddings, dtype=np.float32)
    names, codes = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    if len(names) < 2:
        raise UserError(f"a classifier needs images of at least 2 identities; got {len(names)}")
    strangers = nearest_neighbors(rows, exclude="same_identity", labels=codes, distance="euclidean")
    coefficients, intercepts = _fit(kind, rows.astype(np.float64), codes)
    return FaceClassifier(
        kind=kind,
        names=names,
        coefficients=coefficients,
        intercepts=intercepts,
        embeddings=rows,
        labels=codes.astype(np.int32),
        images=np.array(images, dtype=str),
        stranger_distances=np.sort(strangers.distances[:, 0]),
        unknown_rate=float(unknown_rate),
        model=model,
        probe=np.asarray(probe, dtype=np.float32),
    )


def _fit(kind: str, rows: Floats, codes: NDArray[np.intp]) -> tuple[Floats, Floats]:
    if kind == "nearest":
        means = np.stack([rows[codes == code].mean(axis=0) for code in range(codes.max() + 1)])
        return 2.0 * means, -np.sum(means**2, axis=1)
    if kind == "logistic":
        from sklearn.linear_model import LogisticRegression

        fitted = LogisticRegression(C=_REGRESSION_C, max_iter=1000).fit(rows, codes)
    else:
        from sklearn.svm import LinearSVC

        fitted = LinearSVC(random_state=0, max_iter=10000).fit(rows, codes)
    coefficients, intercepts = fitted.coef_, fitted.intercept_
    if len(coefficients) == 1:
        # Of two identities only the second's score is kept, beside which the first's is 0.
        coefficients, intercepts = np.vstack([0.0 * coefficients, coefficients]), np.append(0.0, intercepts)
    return coefficients, intercepts


def save_classifier(classifier: FaceClassifier, path: str) -> None:
    """Write a classifier as arrays (``.npz``), which can be read without running anything.

    Raises
    ------
    UserError
        If the file cannot be written.
    """
    import sklearn

    versions = f"facenet-fast {facenet_fast.__version__}, scikit-learn {sklearn.__version__}"
    with written_aside(path) as aside, open(aside, "wb") as file:
        np.savez(file, format=np.array(_FORMAT), versions=np.array(versions), **vars(classifier))


def load_classifier(path: str) -> FaceClassifier:
    """Read a classifier that `save_classifier` wrote.

    Raises
    ------
    UserError
        If there is none, or the file is something else: a pickle of the predecessor's, say.
    """
    _refuse_pickle(path)
    try:
        with open(path, "rb") as file:
            is_pickle = file.read(1) == b"\x80"
            _refuse_pickle(path, is_pickle)
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                if str(arrays["format"]) != _FORMAT:
                    raise ValueError("another format")
                values: dict[str, Any] = {
                    field.name: arrays[field.name] for field in dataclasses.fields(FaceClassifier)
                }
        for name in ("kind", "model"):
            values[name] = str(values[name])
        values["unknown_rate"] = float(values["unknown_rate"])
        classifier = FaceClassifier(**values)
        _check_shapes(classifier)
    except UserError:
        raise
    except OSError as error:
        reason = error.strerror or "it is cut short"
        raise UserError(f"the classifier must be a file that TRAIN wrote; {path!r}: {reason}") from error
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise UserError(
            f"the classifier must be a file that TRAIN wrote; {path!r} is something else"
        ) from error
    return classifier


def _check_shapes(classifier: FaceClassifier) -> None:
    n_identities, (n, size) = len(classifier.names), classifier.embeddings.shape
    wanted = {
        "coefficients": (n_identities, size),
        "intercepts": (n_identities,),
        "labels": (n,),
        "stranger_distances": (n,),
    }
    # Every identity has an image, or its distance could not be told.
    if any(getattr(classifier, name).shape != shape for name, shape in wanted.items()) or not np.array_equal(
        np.unique(classifier.labels), np.arange(n_identities)
    ):
        raise ValueError("arrays that do not fit each other")


def _refuse_pickle(path: str, is_pickle: bool = False) -> None:
    if is_pickle or path.endswith((".pkl", ".pickle")):
        raise UserError(
            "the classifier must be CLASSIFIER.npz, since to read a pickle is to run what its writer put in "
            f"it; got {path!r}; train it anew"
        )


def classify(config: ClassifyConfig) -> Naming | None:
    """Train a classifier on a folder of identities and write it, or name a folder's faces with one.

    For each image one line is printed, ``%4d  %s: %.3f``: its number in the folder, the name (with blanks for
    underscores) or ``unknown``, and `Naming.scores`. ``Accuracy: %.3f`` is the share of images of people it
    was trained on that are given their name; then comes how many of these, and of the others, are called
    unknown. With ``unknown_rate=1`` none is, as by the predecessor.

    With `use_split_dataset`, TRAIN takes `train_images_per_identity` images, drawn by `seed`, of each
    identity that has at least `min_images_per_identity`; CLASSIFY takes all others, and so meets strangers
    where an identity has fewer.

    Parameters
    ----------
    config : ClassifyConfig
        What to do, the images, the model and the classifier's file.

    Returns
    -------
    Naming or None
        Of the images that could be read; None where none were to be named.

    Raises
    ------
    UserError
        If images, model or classifier cannot be read, there are too few identities, or the model's embeddings
        have another size than the classifier's.
    """
    if config.mode == "TRAIN":
        classifier, embedder = _train(config)
        if not config.test_data_dir:
            return None
        dataset = scan_identities(config.test_data_dir)
    else:
        classifier = load_classifier(config.classifier_path)
        if config.unknown_rate is not None:
            classifier = dataclasses.replace(classifier, unknown_rate=config.unknown_rate)
        print(f"Classifier: {len(classifier.names)} identities, {config.classifier_path}")
        dataset = scan_identities(config.test_data_dir or config.data_dir)
        if config.use_split_dataset:
            dataset = dataset.without(_drawn(dataset, config).paths)
        embedder = _load_embedder(config)
        _check_network(embedder, classifier)
    return _name_faces(classifier, embedder, dataset, config.batch_size)


def _train(config: ClassifyConfig) -> tuple[FaceClassifier, Embedder]:
    _refuse_pickle(config.classifier_path)
    check_output(config.classifier_path, ".npz", "a classifier")
    dataset = scan_identities(config.data_dir, min_identities=2)
    if config.use_split_dataset:
        n_scanned = dataset.n_identities
        dataset = _drawn(dataset, config)
        if dataset.n_identities < 2:
            raise UserError(
                f"at least 2 identities must have {config.min_images_per_identity} images "
                f"(min_images_per_identity); of the {n_scanned} in {config.data_dir!r} "
                f"{dataset.n_identities} have"
            )
    embedder = _load_embedder(config)
    print(f"Number of classes: {dataset.n_identities}")
    print(f"Number of images: {dataset.n_images}")
    embeddings = _embed(embedder, dataset, config.batch_size)
    readable = np.flatnonzero(~np.isnan(embeddings[:, 0]))
    classifier = fit_classifier(
        embeddings[readable],
        [dataset.names[label] for label in dataset.labels[readable]],
        kind=config.kind,
        unknown_rate=_UNKNOWN_RATE if config.unknown_rate is None else config.unknown_rate,
        images=[short_name(dataset.paths[index]) for index in readable],
        model=embedder.description,
        probe=_probe(embedder),
    )
    if math.isfinite(classifier.threshold):
        print(
            f"Unknown from distance {classifier.threshold:.3f} on: "
            f"at most {classifier.unknown_rate:g} of strangers' images are nearer, "
            f"{classifier.share_of_known_refused():.3f} of those trained on are not"
        )
    save_classifier(classifier, config.classifier_path)
    print(f"Classifier: {len(classifier.names)} identities, {config.classifier_path}")
    return classifier, embedder


def _drawn(dataset: IdentityDataset, config: ClassifyConfig) -> IdentityDataset:
    """Return what the split trains on; an identity's images are drawn alike whatever others there are."""
    n_each = config.train_images_per_identity
    chosen = np.flatnonzero(dataset.counts >= config.min_images_per_identity)
    paths: list[str] = []
    for identity in chosen:
        name = dataset.names[identity].encode("utf-8", "surrogateescape")
        rng = np.random.default_rng([config.seed, zlib.crc32(name)])
        drawn = rng.permutation(dataset.counts[identity])[:n_each] + dataset.offsets[identity]
        paths += [dataset.paths[index] for index in np.sort(drawn)]
    names = tuple(dataset.names[identity] for identity in chosen)
    return IdentityDataset(tuple(paths), np.arange(len(names) + 1) * n_each, names)


def _load_embedder(config: ClassifyConfig) -> Embedder:
    from facenet_fast.models import load_embedder  # imports TensorFlow

    embedder = load_embedder(
        config.model,
        image_size=config.image_size,
        standardisation="fixed" if config.use_fixed_image_standardization else None,
    )
    print(f"Model: {embedder.description}")
    return embedder


def _embed(embedder: Embedder, dataset: IdentityDataset, batch_size: int) -> NDArray[np.float32]:
    store = ImageStore(dataset.paths, embedder.store_size, cache_bytes=0)  # each image is read once
    with image_progress(dataset.n_images) as progress:
        return embed_images(embedder, store, batch_size=batch_size, progress=lambda n, _: progress(n))


def _probe(embedder: Embedder) -> NDArray[np.float32]:
    side = embedder.image_size
    noise = np.random.default_rng(0).integers(0, 256, (1, side, side, 3)).astype(np.uint8)
    images: NDArray[np.float32] = standardise(noise, embedder.standardisation)
    return np.asarray(embedder.embed(images), dtype=np.float32).reshape(-1)


def _check_network(embedder: Embedder, classifier: FaceClassifier) -> None:
    size = classifier.embeddings.shape[1]
    if embedder.embedding_size != size:
        raise UserError(
            f"the model must give embeddings of {size} numbers, as {classifier.model} did, with which the "
            f"classifier was trained; {embedder.description} gives {embedder.embedding_size}"
        )
    difference = np.linalg.norm(_probe(embedder) - classifier.probe)
    if difference > _PROBE_TOLERANCE * np.linalg.norm(classifier.probe):
        _logger.warning(
            "%s gives other embeddings than %s, with which the classifier was trained: names will be wrong",
            embedder.description,
            classifier.model,
        )


def _name_faces(
    classifier: FaceClassifier, embedder: Embedder, dataset: IdentityDataset, batch_size: int
) -> Naming:
    n_seen = len({short_name(path) for path in dataset.paths} & set(classifier.images.tolist()))
    if n_seen:
        _logger.warning(
            "%d of %d images were trained on; others are named less well", n_seen, dataset.n_images
        )
    embeddings = _embed(embedder, dataset, batch_size)
    readable = np.flatnonzero(~np.isnan(embeddings[:, 0]))
    if not len(readable):
        raise UserError(f"there must be images that can be read; of {dataset.n_images} none can")
    naming = classifier.name(embeddings[readable])
    given = classifier.names[naming.identities]
    for index, name, score, is_unknown in zip(readable, given, naming.scores, naming.is_unknown, strict=True):
        print(f"{index:4d}  {'unknown' if is_unknown else name.replace('_', ' ')}: {score:.3f}")
    true = np.array(dataset.names, dtype=str)[dataset.labels[readable]]
    is_known = np.isin(true, classifier.names)
    if is_known.any():
        accuracy = np.mean((given == true)[is_known] & ~naming.is_unknown[is_known])
        n_refused = np.count_nonzero(naming.is_unknown & is_known)
        print(f"Accuracy: {accuracy:.3f}")
        print(
            f"Known: {n_refused} of {np.count_nonzero(is_known)} images of people trained on called unknown"
        )
    if not is_known.all():
        n_refused = np.count_nonzero(naming.is_unknown & ~is_known)
        n_strangers = np.count_nonzero(~is_known)
        print(f"Unknown: {n_refused} of {n_strangers} images of people not trained on recognised as unknown")
    return naming
