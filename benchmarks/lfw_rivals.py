"""What is learnt from LFW alone without a network: ``python -m benchmarks.lfw_rivals OUT LFW_DIR``.

Plain pixels, whitened PCA, and LDA after PCA on pixels and on histograms of oriented gradients (HOG, of
scikit-image). Each has its settings chosen by the AUC of the choosing pairs, among all of `RIVALS`, and is
judged once on the testing pairs, by the protocol of `lfw_protocol`.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from facenet_fast.data.decoding import n_usable_cpus
from facenet_fast.data.images import ImageStore, centre_crop, standardise
from facenet_fast.data.pairs import Pairs
from facenet_fast.errors import UserError
from facenet_fast.evaluation.verification import distances

from .lfw_protocol import Chosen, Row, choose, flip_averaged, judge, say, table, unit
from .lfw_split import Split, read_split
from .pages import ROOT, write_section

__all__ = ["RIVALS", "Looks", "Rival", "Setting", "try_rival"]

# The side of LFW's crops, by which `Looks.crop` is told, and of a HOG's cell.
FILE_SIZE = 128
CELL = 8

Rows = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]
Project = Callable[[Rows], Rows]


@dataclass(frozen=True)
class Looks:
    """How images become rows.

    Attributes
    ----------
    crop : int
        Side of the square cut out of the middle, of the image's 128 pixels.
    size : int
        Side to which the square is scaled.
    """

    crop: int
    size: int

    @property
    def store_size(self) -> int:
        """Side of the whole image when the square has `size`."""
        return round(FILE_SIZE * self.size / self.crop)


@dataclass(frozen=True)
class Setting:
    """What is chosen besides, of what a rival has; 0 for what it has not.

    Attributes
    ----------
    n_components, n_directions : int
        Of PCA, and of LDA after it.
    mirrored : bool
        Learn from mirror images too.
    flipped : bool
        Average the projections of an image and its mirror image.
    """

    n_components: int = 0
    n_directions: int = 0
    mirrored: bool = False
    flipped: bool = False


@dataclass(frozen=True)
class Rival:
    """A method and the settings that are tried.

    Attributes
    ----------
    name : str
        As the table calls it.
    describe : callable
        Grey images, standardised, float32 (n, S, S), to rows.
    fit : callable
        (training rows, labels, settings that differ in what follows it) to a projection for each.
    looks : sequence of Looks
        Crops and sizes.
    settings : sequence of Setting
        All that is tried with each of them.
    """

    name: str
    describe: Callable[[Rows], Rows]
    fit: Callable[[Rows, Labels, Sequence[Setting]], list[Project]]
    looks: Sequence[Looks]
    settings: Sequence[Setting]


@dataclass(frozen=True, eq=False)
class Found:
    """What a rival came to with which settings, and the seconds in which it was trained."""

    looks: Looks
    setting: Setting
    chosen: Chosen
    seconds: float
    project: Project


def try_rival(
    rival: Rival, split: Split, tell: Callable[[str], object] = lambda line: None
) -> tuple[Found, Row]:
    """Choose the best settings by the AUC of the choosing pairs, and judge them once.

    `tell` hears of everything that is better than all before it.
    """
    best = None
    for found in _tries(rival, split):
        if best is None or found.chosen.auc > best.chosen.auc:
            best = found
            tell(f"{_name(rival, found)}, flip {say(found.setting.flipped)}: AUC {found.chosen.auc:.3f}")
    assert best is not None, "a rival has settings"
    judged = judge(
        best.chosen,
        _measured(best.project, _Described.of(split.test, rival, best.looks), best.setting.flipped),
        split.test.is_same,
    )
    minutes = best.seconds / 60 if best.setting.n_components else None
    return best, Row(_name(rival, best), minutes, best.setting.flipped, best.chosen, judged)


def _tries(rival: Rival, split: Split) -> Iterator[Found]:
    for looks in rival.looks:
        start = time.perf_counter()
        paths, labels = split.train.paths, split.train.labels
        needs_training = any(setting.n_components for setting in rival.settings)
        rows, mirrored_rows = _rows(paths, rival.describe, looks) if needs_training else (None, None)
        seconds = time.perf_counter() - start
        choosing = _Described.of(split.choose, rival, looks)
        for mirrored, group in itertools.groupby(rival.settings, key=lambda setting: setting.mirrored):
            settings = list(group)
            start = time.perf_counter()
            if rows is None:
                projections = rival.fit(np.empty((0, 0), np.float32), labels[:0], settings)
            elif mirrored:
                projections = rival.fit(np.concatenate([rows, mirrored_rows]), np.tile(labels, 2), settings)
            else:
                projections = rival.fit(rows, labels, settings)
            # Of all settings at once: most of it is the PCA, which they share.
            fitted = seconds + time.perf_counter() - start
            for setting, project in zip(settings, projections, strict=True):
                for flipped in (False, True):
                    measured = _measured(project, choosing, flipped)
                    chosen = choose(measured, split.choose.is_same)
                    own = dataclasses.replace(setting, flipped=flipped)
                    yield Found(looks, own, chosen, fitted, project)


@dataclass(frozen=True, eq=False)
class _Described:
    """The images of pairs and their mirror images as rows, and which of them are left and right."""

    rows: Rows
    mirrored: Rows
    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]

    @classmethod
    def of(cls, pairs: Pairs, rival: Rival, looks: Looks) -> _Described:
        paths, left, right = pairs.images()
        return cls(*_rows(paths, rival.describe, looks), left, right)


def _measured(project: Project, described: _Described, flipped: bool) -> npt.NDArray[np.float64]:
    rows = project(described.rows)
    if flipped:
        rows = flip_averaged(rows, project(described.mirrored))
    return distances(rows[described.left], rows[described.right])


def _rows(paths: Sequence[str], describe: Callable[[Rows], Rows], looks: Looks) -> tuple[Rows, Rows]:
    """Describe images and their mirror images."""
    images, ok = ImageStore(paths, looks.store_size, cache_bytes=0).read(np.arange(len(paths)))
    if not ok.all():
        raise UserError(f"all images must be readable; got {paths[int(np.argmin(ok))]!r}, which is not")
    grey = centre_crop(images, looks.size).mean(axis=3, keepdims=True, dtype=np.float32)
    standard = np.asarray(standardise(grey, "per_image"))[..., 0]
    return describe(standard), describe(np.ascontiguousarray(standard[:, :, ::-1]))


def _name(rival: Rival, found: Found) -> str:
    looks, setting = found.looks, found.setting
    parts = [f"middle {looks.crop} pixels at {looks.size} x {looks.size}"]
    if setting.n_components:
        parts.append(f"{setting.n_components} components")
    if setting.n_directions:
        parts.append(f"{setting.n_directions} directions")
    if setting.mirrored:
        parts.append("mirror images learnt from")
    return f"{rival.name}: {', '.join(parts)}"


# -- rivals --------------------------------------------------------------------------------------------------


def _pixels(images: Rows) -> Rows:
    return images.reshape(len(images), -1)


def _hog(images: Rows) -> Rows:
    """Describe by histograms of 9 orientations in cells of 8 x 8 pixels, normalised in blocks of 2 x 2."""
    try:
        from skimage.feature import hog
    except ImportError as error:
        raise UserError("HOG needs scikit-image: pip install '.[bench]'") from error

    def describe(image: Rows) -> Rows:
        rows: Rows = hog(image, 9, (CELL, CELL), (2, 2), block_norm="L2-Hys")
        return rows

    with ThreadPoolExecutor(n_usable_cpus()) as threads:
        return np.stack(list(threads.map(describe, images))).astype(np.float32)


def _nothing(rows: Rows, labels: Labels, settings: Sequence[Setting]) -> list[Project]:
    return [unit for _ in settings]


def _whitened_pca(rows: Rows, labels: Labels, settings: Sequence[Setting]) -> list[Project]:
    pca = _pca(rows, settings)

    def project(n_components: int) -> Project:
        scales = np.sqrt(pca.explained_variance_[:n_components])
        return lambda some: unit(pca.transform(some)[:, :n_components] / scales)

    return [project(setting.n_components) for setting in settings]


def _lda(rows: Rows, labels: Labels, settings: Sequence[Setting]) -> list[Project]:
    """Fit LDA after PCA; people of one image, who tell nothing of how a person varies, are for PCA only."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    pca = _pca(rows, settings)
    components = pca.transform(rows)
    # Told by images: a mirror image is no second one.
    n_images = np.bincount(labels) // (2 if any(setting.mirrored for setting in settings) else 1)
    several = n_images[labels] > 1
    fitted: dict[int, Any] = {}
    for n in {setting.n_components for setting in settings}:
        fitted[n] = LinearDiscriminantAnalysis(solver="svd").fit(components[several, :n], labels[several])

    def project(n_components: int, n_directions: int) -> Project:
        lda = fitted[n_components]
        return lambda some: unit(
            np.asarray(lda.transform(pca.transform(some)[:, :n_components])[:, :n_directions], np.float32)
        )

    return [project(setting.n_components, setting.n_directions) for setting in settings]


def _pca(rows: Rows, settings: Sequence[Setting]) -> Any:
    """Fit as many components as any setting wants: fewer are the first of them."""
    from sklearn.decomposition import PCA

    n_components = min(max(setting.n_components for setting in settings), *rows.shape)
    return PCA(n_components, svd_solver="randomized", random_state=0).fit(rows)


def _settings(n_components: Sequence[int], n_directions: Sequence[int] = (0,)) -> tuple[Setting, ...]:
    return tuple(
        Setting(components, directions, mirrored)
        for mirrored in (False, True)
        for components in n_components
        for directions in n_directions
        if directions <= components
    )


_PIXELS = tuple(Looks(crop, 32) for crop in (64, 72, 80, 88, 96, 112, 128))
_CROPS = tuple(Looks(crop, 48) for crop in (64, 72, 80, 96))
_HOGS = (Looks(80, 64), Looks(96, 64), Looks(96, 96), Looks(112, 96))
_LDA_CROPS = tuple(Looks(crop, 48) for crop in (80, 96, 112))

RIVALS: tuple[Rival, ...] = (
    Rival("grey pixels", _pixels, _nothing, _PIXELS, (Setting(),)),
    Rival("PCA, whitened", _pixels, _whitened_pca, _CROPS, _settings((50, 100, 200, 400))),
    Rival("PCA + LDA on pixels", _pixels, _lda, _LDA_CROPS, _settings((200, 400), (25, 50, 100))),
    Rival("HOG + PCA + LDA", _hog, _lda, _HOGS, _settings((200, 400), (50, 100, 200))),
)


def main(arguments: list[str] | None = None) -> None:
    """Try all rivals and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lfw_rivals", description=__doc__)
    parser.add_argument("out_dir", metavar="OUT", help="folder that benchmarks.lfw_split wrote")
    parser.add_argument("lfw_dir", metavar="LFW_DIR", help="folder of images and pairs.txt")
    parser.add_argument("--write", action="store_true", help="put the table into docs/recipes.md")
    given = parser.parse_args(arguments)
    try:
        split = read_split(given.lfw_dir, given.out_dir)
        rows = [try_rival(rival, split, lambda line: print(line, file=sys.stderr))[1] for rival in RIVALS]
    except UserError as error:
        parser.error(str(error))
    text = table(rows)
    print(text)
    if given.write:
        write_section("lfw-rivals", text, (ROOT / "docs/recipes.md",))


if __name__ == "__main__":
    main()
