"""Pairs of images to verify: read from a pairs file (LFW's format and a little more), drawn, and written."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from facenet_fast.data.identities import IMAGE_EXTENSIONS, IdentityDataset, resolve_data_dirs, shorten
from facenet_fast.errors import UserError

__all__ = ["Pairs", "draw_pairs", "read_pairs", "write_pairs"]

_logger = logging.getLogger("facenet_fast")

_FORMS = "'NAME I J' (same identity) or 'NAME_A I NAME_B J' (different ones)"

_Image = tuple[str, str]  # the identity's name, and what stands for the image: a number or a file name


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of image paths, whether both show one identity, and the fold each belongs to.

    Parameters
    ----------
    left, right : tuple of str, length n_pairs
        Image paths.
    is_same : array of bool, shape (n_pairs,)
        True where both images show one identity.
    fold : array of int64, shape (n_pairs,)
        Fold of each pair, in ``0 .. n_folds - 1``.
    n_folds : int
        Number of folds.
    skipped : tuple of str, default=()
        Pairs of the file that are left out because an image is missing, one description each.

    Raises
    ------
    ValueError
        If the lengths differ or a fold is out of range.
    """

    left: tuple[str, ...]
    right: tuple[str, ...]
    is_same: npt.NDArray[np.bool_]
    fold: npt.NDArray[np.int64]
    n_folds: int
    skipped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        is_same = np.array(self.is_same, dtype=bool)
        fold = np.array(self.fold, dtype=np.int64)
        lengths = {len(self.left), len(self.right), *is_same.shape, *fold.shape}
        if is_same.ndim != 1 or fold.ndim != 1 or len(lengths) != 1:
            raise ValueError("left, right, is_same and fold must be rows of one length")
        if len(fold) and not 0 <= fold.min() <= fold.max() < self.n_folds:
            raise ValueError(f"folds must be in 0 .. {self.n_folds - 1}")
        is_same.flags.writeable = fold.flags.writeable = False
        object.__setattr__(self, "is_same", is_same)
        object.__setattr__(self, "fold", fold)

    def __len__(self) -> int:
        return len(self.left)

    def images(self) -> tuple[tuple[str, ...], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the different images and, for each pair, which of them is left and right.

        An image that is in many pairs needs to be embedded only once.

        Returns
        -------
        paths : tuple of str
            Each image once, in the order of first use.
        left, right : array of int64, shape (n_pairs,)
            Indices into `paths`.
        """
        index = {path: n for n, path in enumerate(dict.fromkeys((*self.left, *self.right)))}
        left = np.array([index[path] for path in self.left], dtype=np.int64)
        right = np.array([index[path] for path in self.right], dtype=np.int64)
        return tuple(index), left, right

    def identities(self) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.str_]] | tuple[None, None]:
        """Return who the left and the right images show, by the names of their folders.

        Returns
        -------
        left, right : array of str, shape (n_pairs,)
            None and None where folders tell nothing: those of a packed set, whose images are in one file.
        """
        left, right = (
            np.array([os.path.basename(os.path.dirname(path)) for path in paths], dtype=np.str_)
            for paths in (self.left, self.right)
        )
        return (left, right) if np.array_equal(left == right, self.is_same) else (None, None)

    def subset(self, chosen: npt.NDArray[np.bool_]) -> Pairs:
        """Return the pairs that are chosen, in their folds; `chosen` has the shape (n_pairs,)."""
        kept = np.flatnonzero(chosen).tolist()
        return dataclasses.replace(
            self,
            left=tuple(self.left[n] for n in kept),
            right=tuple(self.right[n] for n in kept),
            is_same=self.is_same[chosen],
            fold=self.fold[chosen],
        )


def read_pairs(pairs_path: str, images_dir: str, *, n_folds: int = 10, strict: bool = False) -> Pairs:
    """Read a pairs file in the format of Labeled Faces in the Wild.

    The first line (``10 300`` or ``2200``: how many folds and pairs) is not needed and is passed over. Each
    other line is ``NAME I J``, two images of one identity, or ``NAME_A I NAME_B J``, images of two. Fields
    are separated by blanks or by TABs; with TABs a name may hold blanks. ``I`` stands for the image
    ``IMAGES_DIR/NAME/NAME_%04d.EXT``, whichever extension is found; where it is not a number, it is
    the name of a file in the identity's folder, so that any folder can be described.

    Folds are consecutive blocks in file order, as scikit-learn's `KFold` without shuffling makes them from
    the pairs that are not skipped: the first ``n_pairs % n_folds`` folds have one pair more. A fold of one
    kind only is legal here.

    Parameters
    ----------
    pairs_path : str
        The file.
    images_dir : str
        Folder of identities (several joined by ``os.pathsep``, or ``orl``, as in `scan_identities`).
    n_folds : int, default=10
        Number of folds, at least 2.
    strict : bool, default=False
        Whether a missing image is an error; else its pairs are skipped, with one warning.

    Returns
    -------
    Pairs
        In file order.

    Raises
    ------
    UserError
        If the file or the folder cannot be read, a line is in neither form (with its number), fewer pairs
        than folds are left, or, if `strict`, an image is missing.

    References
    ----------
    G. Huang, M. Ramesh, T. Berg, E. Learned-Miller, 2007, "Labeled Faces in the Wild", section III.
    """
    if n_folds < 2:
        raise UserError(f"the number of folds must be at least 2; got {n_folds}")
    find = _ImageFinder(images_dir)
    left, right, is_same, skipped = [], [], [], []
    for n, image_a, image_b in _parse_file(pairs_path):
        paths = find(*image_a), find(*image_b)
        missing = [
            os.path.join(*image) for image, path in zip((image_a, image_b), paths, strict=True) if not path
        ]
        if paths[0] is None or paths[1] is None:
            skipped.append(f"line {n}: no image {' nor '.join(missing)}")
            continue
        left.append(paths[0])
        right.append(paths[1])
        is_same.append(image_a[0] == image_b[0])
    if skipped and strict:
        raise UserError(
            f"every image of {pairs_path!r} must be in {images_dir!r}; {len(skipped)} pairs lack one: "
            f"{shorten(skipped, 3)}"
        )
    if len(left) < n_folds:
        detail = f" ({len(skipped)} are skipped: {shorten(skipped, 3)})" if skipped else ""
        raise UserError(
            f"{pairs_path!r} must describe at least as many pairs with images in {images_dir!r} as there are "
            f"folds, {n_folds}; got {len(left)}{detail}"
        )
    if skipped:
        _logger.warning(
            "skipped %d of %d pairs for want of an image: %s",
            len(skipped),
            len(skipped) + len(left),
            shorten(skipped, 5),
        )
    fold = _consecutive_folds(len(left), n_folds)
    return Pairs(tuple(left), tuple(right), np.array(is_same), fold, n_folds, tuple(skipped))


def draw_pairs(dataset: IdentityDataset, seed: int, n_folds: int, max_pairs: int) -> Pairs:
    """Make pairs from a dataset: all there are, or a draw of at most `max_pairs`.

    Where all pairs number more than `max_pairs`, half are drawn from each kind (all of a kind that has fewer
    than that, and the more of the other). Each kind is dealt out to the folds at random, so that every
    fold has both.

    Parameters
    ----------
    dataset : IdentityDataset
        The images.
    seed : int
        The same seed draws the same pairs and folds.
    n_folds : int
        Number of folds, at least 2; where a kind has fewer pairs than that, as many folds as it has pairs,
        with a warning.
    max_pairs : int
        The most pairs to return, at least ``2 * n_folds``.

    Returns
    -------
    Pairs
        Sorted by fold; in each fold pairs of one identity first.

    Raises
    ------
    UserError
        If `max_pairs` is too small for the folds, or fewer than two pairs of either kind exist.
    """
    if n_folds < 2 or max_pairs < 2 * n_folds:
        raise UserError(
            "there must be at least 2 folds, and 2 pairs a fold; "
            f"got {n_folds} folds and at most {max_pairs} pairs"
        )
    # Pairs are numbered without listing them. Image j is the later one of as many pairs as there are earlier
    # images of its identity (same) or of earlier identities (different).
    starts = np.repeat(dataset.offsets[:-1], dataset.counts)
    positions = np.arange(dataset.n_images)
    n_same, n_different = int((positions - starts).sum()), int(starts.sum())
    least = min(n_same, n_different)
    if least < 2:
        raise UserError(
            "the images must make at least 2 pairs of one identity and 2 of different ones; "
            f"{dataset.n_images} images of {dataset.n_identities} identities make {n_same} and {n_different}"
        )
    if least < n_folds:
        _logger.warning(
            "%d folds instead of %d: only %d pairs of %s",
            least,
            n_folds,
            least,
            "one identity" if least == n_same else "different identities",
        )
        n_folds = least
    take_same, take_different = _share(n_same, n_different, max_pairs)
    rng = np.random.default_rng(seed)
    same = rng.permutation(_choose(n_same, take_same, rng))
    different = rng.permutation(_choose(n_different, take_different, rng))
    left_same, right_same = _unrank(same, positions - starts)
    left_different, right_different = _unrank(different, starts)
    left = np.concatenate([left_same + starts[right_same], left_different])
    right = np.concatenate([right_same, right_different])
    # Dealt like cards, so that fold sizes are those of consecutive blocks and survive writing and reading.
    fold = np.arange(len(left)) % n_folds
    order = np.argsort(fold, kind="stable")
    return Pairs(
        tuple(dataset.paths[index] for index in left[order].tolist()),
        tuple(dataset.paths[index] for index in right[order].tolist()),
        (np.arange(len(left)) < take_same)[order],
        fold[order],
        n_folds,
    )


def write_pairs(pairs: Pairs, path: str, images_dir: str) -> None:
    """Write pairs so that `read_pairs` with the same folder and number of folds gives them back.

    An image called ``NAME/NAME_%04d.EXT`` is written as its number, as LFW does, any other as its file name.

    Parameters
    ----------
    pairs : Pairs
        The pairs; written in the order of their folds.
    path : str
        The file to write.
    images_dir : str
        The folder (or folders) of identities that holds every image, as for `read_pairs`.

    Raises
    ------
    UserError
        If an image is not in an identity's folder of `images_dir`, or its name cannot be written (a TAB or
        a line break in it, a blank at an end).
    """
    find = _ImageFinder(images_dir)
    described: dict[str, _Image] = {}
    for image in pairs.images()[0]:
        described[image] = _describe(image, find, images_dir)
    lines = [_header(pairs)]
    for n in np.argsort(pairs.fold, kind="stable").tolist():
        (name_a, image_a), (name_b, image_b) = described[pairs.left[n]], described[pairs.right[n]]
        if (name_a == name_b) != pairs.is_same[n]:
            raise UserError(
                "a pair is of one identity where both images are in one folder; "
                f"{pairs.left[n]!r} and {pairs.right[n]!r} say otherwise"
            )
        fields = (name_a, image_a, image_b) if pairs.is_same[n] else (name_a, image_a, name_b, image_b)
        lines.append("\t".join(fields))
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        file.write("\n".join(lines) + "\n")


def _parse_file(pairs_path: str) -> list[tuple[int, _Image, _Image]]:
    try:
        # Names on disk need not be UTF-8: surrogateescape reads them as Python's file functions know them.
        with open(pairs_path, encoding="utf-8-sig", errors="surrogateescape") as file:
            lines = file.read().split("\n")
    except OSError as error:
        raise UserError(f"the pairs file must be readable; {pairs_path!r}: {error.strerror}") from error
    parsed = []
    for n, line in enumerate(lines, start=1):
        if not line.strip() or (n == 1 and _is_header(line)):
            continue
        try:
            parsed.append((n, *_parse_line(line)))
        except UserError as error:
            raise UserError(f"{pairs_path!r}, line {n}: {error}") from None
    return parsed


def _is_header(line: str) -> bool:
    fields = line.split()
    return len(fields) <= 2 and all(field.isdecimal() for field in fields)


def _parse_line(line: str) -> tuple[_Image, _Image]:
    fields = [field.strip() for field in line.strip("\r\n").split("\t")]
    if len(fields) not in (3, 4) or "" in fields:
        fields = line.split()
    if len(fields) not in (3, 4) or "\0" in line:
        raise UserError(f"a line must be {_FORMS}; got {_quote(line)}")
    name_a, image_a, image_b = fields[0], fields[1], fields[-1]
    name_b = fields[2] if len(fields) == 4 else name_a
    if len(fields) == 4 and name_a == name_b:
        raise UserError(f"two images of one identity must be written 'NAME I J'; got {_quote(line)}")
    for image in (image_a, image_b):
        if image.startswith("-") and image[1:].isdecimal():
            raise UserError(f"an image's number must not be negative; got {_quote(line)}")
    return (name_a, image_a), (name_b, image_b)


def _quote(line: str) -> str:
    line = line.strip()
    return repr(line if len(line) <= 80 else line[:77] + "...")


class _ImageFinder:
    """Look up an image of an identity by number or file name, listing each identity's folder once."""

    def __init__(self, images_dir: str) -> None:
        self.data_dirs = resolve_data_dirs(images_dir)
        self._listings: dict[str, dict[str, str]] = {}

    def __call__(self, name: str, image: str) -> str | None:
        if not image.isdecimal():
            return self._listing(name).get(image)
        stem = f"{name}_{int(image):04d}"
        for extension in IMAGE_EXTENSIONS:
            # Cameras write .JPG; one listing serves both spellings.
            path = self._lowered(name).get(f"{stem}.{extension}".lower())
            if path is not None:
                return path
        return None

    def _listing(self, name: str) -> dict[str, str]:
        """Return file name -> path of an identity's folder; where two folders have it, the first one's."""
        if name not in self._listings:
            listing: dict[str, str] = {}
            for data_dir in self.data_dirs:
                identity_dir = os.path.join(data_dir, name)
                try:
                    files = os.listdir(identity_dir)
                except OSError:
                    continue
                for file in files:
                    listing.setdefault(file, os.path.join(identity_dir, file))
            self._listings[name] = listing
        return self._listings[name]

    def _lowered(self, name: str) -> dict[str, str]:
        key = "\0" + name  # no name of a folder holds a NUL, so both kinds of listing share one table
        if key not in self._listings:
            self._listings[key] = {file.lower(): path for file, path in sorted(self._listing(name).items())}
        return self._listings[key]


def _describe(path: str, find: Callable[[str, str], str | None], images_dir: str) -> _Image:
    name, file = os.path.basename(os.path.dirname(path)), os.path.basename(path)
    number = os.path.splitext(file)[0].removeprefix(f"{name}_")
    forms = [str(int(number)), file] if number.isdecimal() else [file]
    for form in forms:
        found = find(name, form)
        is_found = found is not None and os.path.normpath(found) == os.path.normpath(path)
        if is_found and all(_is_writable(field) for field in (name, form)):
            return name, form
    raise UserError(
        f"an image must be IMAGES_DIR/IDENTITY/FILE, without TAB, line break or blank at an end in its name, "
        f"and found in {images_dir!r}; got {path!r}"
    )


def _is_writable(field: str) -> bool:
    return field == field.strip() and not any(separator in field for separator in "\t\r\n")


def _header(pairs: Pairs) -> str:
    n_same = np.bincount(pairs.fold[pairs.is_same], minlength=pairs.n_folds)
    n_different = np.bincount(pairs.fold[~pairs.is_same], minlength=pairs.n_folds)
    is_regular = np.all(n_same == n_same[0]) and np.all(n_different == n_same[0])
    return f"{pairs.n_folds}\t{n_same[0]}" if is_regular else str(len(pairs))


def _consecutive_folds(n_pairs: int, n_folds: int) -> npt.NDArray[np.int64]:
    sizes = np.full(n_folds, n_pairs // n_folds)
    sizes[: n_pairs % n_folds] += 1
    return np.repeat(np.arange(n_folds, dtype=np.int64), sizes)


def _share(n_same: int, n_different: int, max_pairs: int) -> tuple[int, int]:
    """How many of either kind to take: half each, and what one kind lacks from the other."""
    if n_same + n_different <= max_pairs:
        return n_same, n_different
    half = max_pairs // 2
    if n_same < half:
        return n_same, max_pairs - n_same
    if n_different < half:
        return max_pairs - n_different, n_different
    return half, half


def _choose(n: int, n_taken: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    if n_taken == n:
        return np.arange(n, dtype=np.int64)
    return rng.choice(n, size=n_taken, replace=False, shuffle=False)


def _unrank(
    ranks: npt.NDArray[np.int64], n_earlier: Sequence[int] | npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Turn the rank of a pair into (which of the earlier images, later image)."""
    ends = np.cumsum(n_earlier)
    later = np.searchsorted(ends, ranks, side="right").astype(np.int64)
    return ranks - (ends[later] - np.asarray(n_earlier)[later]), later
