"""What is wrong with a folder of identities: broken files, duplicates, one photograph under two names.

Each file is read and decoded once, as training would decode it. Nothing is changed or deleted.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from facenet_fast.data.decoding import UnreadableImage, decode_image, in_tasks, n_usable_cpus
from facenet_fast.data.identities import list_images, relative_paths, scan_identities, shorten
from facenet_fast.data.pairs import read_pairs
from facenet_fast.errors import UserError
from facenet_fast.mining.neighbors import nearest_neighbors

__all__ = ["FINDINGS", "NEAR", "TINY_PIXELS", "DataCheck", "Finding", "Kind", "check_folder"]

TINY_PIXELS = 32
"""Images whose smaller side has fewer pixels are called tiny."""

NEAR = 0.98
"""Correlation of thumbnails from which on two images are one photograph.

Of the 10,602 aligned faces of LFW's sets 2 to 10, 13 pairs of one person reach it, all of them one photograph
twice by eye, and none of 56 million pairs of two people: the most alike of those have 0.951. The next pair of
one person, 0.979, is of two photographs. For comparison, 64-bit hashes at a Hamming distance of up to 10, a
usual limit, call 6,413 pairs alike there: aligned faces differ by less than most pictures do.
"""

# Pillow's formats that are decoded, and the endings that tell the truth about them.
_ENDINGS = {
    "JPEG": ("jpg", "jpeg"),
    "PNG": ("png",),
    "BMP": ("bmp",),
    "GIF": ("gif",),
    "WEBP": ("webp",),
    "PPM": ("pgm",),
}
# How these files begin; a file that begins so and has no whole header was cut off in it.
_BEGINNINGS = {"JPEG": b"\xff\xd8\xff", "PNG": b"\x89PNG\r\n\x1a\n", "GIF": b"GIF8"}
_CUT_OFF = ("truncated", "reached eof", "not enough image data")  # Pillow's words for it, in small letters
_ORIENTATION = 0x0112  # EXIF tag

_SIDE = 32  # of thumbnails
_LOW = 8  # cosines a side that sieve them
_LEAST_CONTRAST = 1.0  # standard deviation in grey levels, below which a thumbnail is flat and like anything
_ROUNDING = 1e-5  # of float32 correlations of 1024 numbers, at most
_ROWS = 1024
_QUERIES_AT_A_TIME = 16384  # a second or so of searching among 100,000: how long an interrupt waits
_FIRST_NEIGHBORS, _MOST_NEIGHBORS = 8, 128

_Digest = bytes
_Bytes = npt.NDArray[np.uint8]
_Floats = npt.NDArray[np.float32]
_Integers = npt.NDArray[np.int64]
Progress = Callable[[int], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True)
class Kind:
    """A kind of finding: what it is called, and which of its images the quarantine takes.

    Attributes
    ----------
    title : str
        For the table.
    leaves_out : {"none", "all", "all but the first"}
    reason : str
        Of leaving an image out; ``{first}`` stands for the finding's first image, ``{also}`` for that of the
        test set, ``{people}`` and ``{detail}`` for what they are in `Finding`.
    is_of_people : bool
        Whether it is about people rather than images.
    """

    title: str
    leaves_out: str = "none"
    reason: str = ""
    is_of_people: bool = False


FINDINGS: dict[str, Kind] = {
    "empty": Kind("zero-byte files", "all", "zero-byte file"),
    "truncated": Kind("truncated images", "all", "truncated: {detail}"),
    "no_image": Kind("called images, and none inside", "all", "no image: {detail}"),
    "unreadable": Kind("images that cannot be read", "all", "unreadable: {detail}"),
    "test_people": Kind("people also in the test set, by name", "all", "the test set has this person", True),
    "test_duplicates": Kind("images also in the test set", "all", "the test set's {also}"),
    "test_near": Kind("images nearly in the test set", "all", "nearly the test set's {also}"),
    "duplicates_across": Kind("same picture, several people", "all", "same picture under {people}"),
    "near_across": Kind("nearly the same, two people", "all", "nearly the same picture under {people}"),
    "duplicates": Kind("same picture, one person", "all but the first", "same picture as {first}"),
    "near": Kind("nearly the same, one person"),
    "one_image": Kind("people with one readable image", is_of_people=True),
    "no_images": Kind("people without a readable image", is_of_people=True),
    "tiny": Kind("tiny images"),
    "wrong_ending": Kind("format is not what the name says"),
    "several_frames": Kind("animated: the first frame is read"),
    "strays": Kind("other files and folders, never read"),
}
"""All that is looked for, in the order of the table; where several apply, the first gives the reason."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes
    ----------
    images : tuple of str
        The images it is about, relative to the folder (as found where several folders were given).
    people : tuple of str
        Whose images they are.
    detail : str
        What else there is to say.
    also : str
        The image of the test set that is the same.
    correlation : float or None
        Of the thumbnails; in a group, the least that links two of it.
    """

    images: tuple[str, ...] = ()
    people: tuple[str, ...] = ()
    detail: str = ""
    also: str = ""
    correlation: float | None = None


@dataclass(frozen=True)
class DataCheck:
    """What `check_folder` saw and found.

    Attributes
    ----------
    data_dir : str
    n_people, n_images, n_readable : int
        Folders of people, files with an image's name in them, and how many of those are images.
    n_test_images : int
        Readable images of the test set.
    images_per_person : dict of int to int
        How many people have how many images.
    sizes : dict of str to int
        Images of each ``WIDTHxHEIGHT``, as stored; the most frequent first.
    formats, modes : dict of str to int
        Images of each of Pillow's formats (``JPEG``) and modes (``RGB``, ``L``, ``CMYK``, ``I;16``, ...).
    n_turned : int
        Images that EXIF says to turn or mirror, which is done when they are read.
    findings : dict of str to tuple of Finding
        By the names in `FINDINGS`.
    quarantine : dict of str to str
        Images to leave out and why, in the order of the scan.
    """

    data_dir: str
    n_people: int
    n_images: int
    n_readable: int
    n_test_images: int
    images_per_person: dict[int, int]
    sizes: dict[str, int]
    formats: dict[str, int]
    modes: dict[str, int]
    n_turned: int
    findings: dict[str, tuple[Finding, ...]]
    quarantine: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as a dictionary that JSON can hold."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one file is: `fault` is the name of a finding, or empty for an image."""

    fault: str = ""
    detail: str = ""
    file_digest: _Digest = b""
    pixel_digest: _Digest = b""
    format: str = ""
    mode: str = ""
    size: tuple[int, int] = (0, 0)
    is_turned: bool = False
    has_frames: bool = False


@contextmanager
def _untold(n_images: int) -> Iterator[Callable[[int], None]]:
    yield lambda n_done: None


def check_folder(
    data_dir: str,
    *,
    against: str = "",
    against_dir: str = "",
    tiny_pixels: int = TINY_PIXELS,
    near: float = NEAR,
    threads: int | None = None,
    progress: Progress = _untold,
) -> DataCheck:
    """Look at every image of a folder of identities once, and say what is wrong.

    Two images are the same picture if their decoded pixels are, whatever the files are. They are nearly the
    same if their grey 32 x 32 thumbnails a and b correlate: ``corr(a, b) >= near``. Mirrored, turned and
    cropped copies correlate less and are not found. Within a person every two images are compared; across
    people and with the test set each image is compared with all others, by exact search, and the 128 nearest
    count at most. Images without contrast are only compared by their pixels.

    Parameters
    ----------
    data_dir : str
        As for `scan_identities`.
    against : str, default=""
        The test set: a folder of identities or a pairs file in LFW's format (``.txt``); "" for none.
    against_dir : str, default=""
        Where the images of the pairs file are; default: ``images`` beside it, or its own folder.
    tiny_pixels : int, default=32
        Images whose smaller side is below that are tiny.
    near : float, default=0.98
        See `NEAR`; 0.9 to 1 (aligned faces of two people reach 0.95).
    threads : int, optional
        Number of threads; by default as many as there are CPUs for this process.
    progress : callable, optional
        Called as ``progress(n_images)`` for each pass over them; returns a context manager that gives what to
        call with the number done, as `facenet_fast.report.progress.image_progress` does.

    Returns
    -------
    DataCheck

    Raises
    ------
    UserError
        If a folder or the pairs file cannot be read, or the folder has no images.

    Notes
    -----
    ``corr(a, b) = 1 - |a - b|^2 / 2`` for thumbnails of mean 0 and length 1. Their 8 x 8 lowest
    cosines are an orthonormal projection, in which no two are farther apart than in full: a search among
    these misses nothing, and the thumbnails decide on what it finds. A perceptual hash has the signs of such
    cosines, which alone cannot tell aligned faces apart (see `NEAR`).

    Examples
    --------
    >>> import os
    >>> from PIL import Image
    >>> for person in ("ann", "bob"):
    ...     os.makedirs(f"faces/{person}")
    ...     Image.linear_gradient("L").save(f"faces/{person}/1.png")
    >>> check_folder("faces").quarantine["bob/1.png"]
    'same picture under ann, bob'
    """
    groups, strays = list_images(data_dir)
    if not any(groups.values()):
        scan_identities(data_dir)  # which says what is there instead
    names = list(groups)
    paths = [path for group in groups.values() for path in group]
    labels = np.repeat(np.arange(len(names)), [len(group) for group in groups.values()])
    test_paths = _test_images(against, against_dir) if against else ()
    seen, thumbnails = _look_at_all((*paths, *test_paths), threads, progress)
    looks = _Looks(seen, thumbnails, labels, near, threads, progress)

    images = _relative(paths, data_dir)
    findings: dict[str, list[Finding]] = {name: [] for name in FINDINGS}

    def found(kind: str, which: Sequence[int], **more: Any) -> None:
        people = tuple(dict.fromkeys(names[labels[n]] for n in which))
        findings[kind].append(Finding(tuple(images[n] for n in which), people, **more))

    for n, one in enumerate(seen[: len(paths)]):
        _judge(n, one, paths[n], tiny_pixels, found)
    for group in looks.same_pictures():
        is_one = len(set(labels[group].tolist())) == 1
        is_file = len({seen[n].file_digest for n in group}) == 1
        detail = "the same file" if is_file else "the same pixels"
        found("duplicates" if is_one else "duplicates_across", group, detail=detail)
    for group, correlation in looks.near_within():
        found("near", group, correlation=correlation)
    for pair, correlation in looks.near_across():
        found("near_across", pair, correlation=correlation)
    for n, other, closeness in looks.in_test_set():
        kind = "test_duplicates" if closeness is None else "test_near"
        found(kind, [n], also=test_paths[other - len(paths)], correlation=closeness)

    test_names = {_person_of(path) for path in test_paths}
    is_readable = np.array([not one.fault for one in seen])
    n_readable = np.bincount(labels[is_readable[: len(paths)]], minlength=len(names))
    ends = np.cumsum([len(group) for group in groups.values()]).tolist()
    for person, name in enumerate(names):
        own = range(ends[person] - len(groups[name]), ends[person])
        everything = tuple(images[n] for n in own)
        if name in test_names:
            findings["test_people"].append(Finding(everything, (name,)))
        if n_readable[person] == 0:
            findings["no_images"].append(Finding(everything, (name,)))
        elif n_readable[person] == 1:
            findings["one_image"].append(Finding(tuple(images[n] for n in own if is_readable[n]), (name,)))
    findings["strays"] = [Finding((image,)) for image in _relative(strays, data_dir)]

    readable = [one for one in seen[: len(paths)] if not one.fault]
    kept = {name: tuple(some) for name, some in findings.items()}
    return DataCheck(
        data_dir=data_dir,
        n_people=len(names),
        n_images=len(paths),
        n_readable=len(readable),
        n_test_images=int(is_readable[len(paths) :].sum()),
        images_per_person=dict(sorted(Counter(len(group) for group in groups.values()).items())),
        sizes=_counted(f"{one.size[0]}x{one.size[1]}" for one in readable),
        formats=_counted(one.format for one in readable),
        modes=_counted(one.mode for one in readable),
        n_turned=sum(one.is_turned for one in readable),
        findings=kept,
        quarantine=_quarantine(kept, images),
    )


def _test_images(against: str, against_dir: str) -> tuple[str, ...]:
    if not os.path.isfile(against):
        if against_dir:
            raise UserError(f"against must be a pairs file, if against_dir is given; got {against!r}")
        return scan_identities(against).paths
    if not against_dir:
        beside = os.path.dirname(os.path.abspath(against))
        inner = os.path.join(beside, "images")
        against_dir = inner if os.path.isdir(inner) else beside
    return read_pairs(against, against_dir, n_folds=2).images()[0]


def _judge(n: int, one: _Seen, path: str, tiny_pixels: int, found: Callable[..., None]) -> None:
    """Report what there is to say about a file by itself."""
    if one.fault:
        found(one.fault, [n], detail=one.detail)
        return
    if min(one.size) < tiny_pixels:
        found("tiny", [n], detail=f"{one.size[0]}x{one.size[1]}")
    if one.has_frames:
        found("several_frames", [n], detail=one.format)
    # A phone's MPO is JPEG with more pictures behind.
    if os.path.splitext(path)[1][1:].lower() not in _ENDINGS.get(one.format, _ENDINGS["JPEG"]):
        found("wrong_ending", [n], detail=one.format)


def _look_at_all(paths: Sequence[str], threads: int | None, progress: Progress) -> tuple[list[_Seen], _Bytes]:
    """Return what each file is, and its thumbnail in a row of 1024 (zeros where there is none)."""
    thumbnails: _Bytes = np.zeros((len(paths), _SIDE * _SIDE), dtype=np.uint8)

    def look(paths: Sequence[str], positions: range) -> list[_Seen]:
        return [_look_at(paths[n], thumbnails[n]) for n in positions]

    seen: list[_Seen] = []
    with (
        progress(len(paths)) as tell,
        ThreadPoolExecutor(threads or n_usable_cpus(), thread_name_prefix="facenet-fast-check") as executor,
    ):
        for part in in_tasks(executor, look, paths):
            seen += part
            tell(len(seen))
    return seen, thumbnails


def _look_at(path: str, thumbnail: _Bytes) -> _Seen:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        return _Seen("unreadable", error.strerror or str(error))
    if not data:
        return _Seen("empty")
    try:
        pixels = decode_image(path, data)
    except UnreadableImage as error:
        return _Seen(*_why_not(data, error.reason))
    grey = Image.fromarray(pixels).convert("L")
    # By whole pixels first, where it is large: 0.7 instead of 4.9 ms for 1500 x 1500.
    small = grey.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0)
    thumbnail[:] = np.asarray(small).reshape(-1)
    with Image.open(io.BytesIO(data), formats=tuple(_ENDINGS)) as image:
        return _Seen(
            file_digest=_digest(data),
            pixel_digest=_digest(repr(pixels.shape).encode(), pixels),
            format=image.format or "",
            mode=image.mode,
            size=image.size,
            is_turned=_is_turned(image),
            has_frames=_has_frames(image),
        )


def _digest(*parts: Any) -> _Digest:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.digest()


def _why_not(data: bytes, reason: str) -> tuple[str, str]:
    """Name the finding that an undecodable file is, and say more."""
    if any(words in reason.lower() for words in _CUT_OFF):
        return "truncated", reason
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP" and int.from_bytes(data[4:8], "little") + 8 > len(data):
        return "truncated", f"{len(data)} bytes of {int.from_bytes(data[4:8], 'little') + 8}"
    if _is_identified(data):
        return "unreadable", reason
    for name, beginning in _BEGINNINGS.items():
        if beginning.startswith(data[: len(beginning)]):
            return "truncated", f"begins as {name}, and its header is not whole"
    return "no_image", reason


def _is_identified(data: bytes) -> bool:
    try:
        Image.open(io.BytesIO(data), formats=tuple(_ENDINGS)).close()
    except UnidentifiedImageError:
        return False
    except Exception:  # a reader took it for its own, and failed
        return True
    return True


def _is_turned(image: Image.Image) -> bool:
    try:
        return "exif" in image.info and image.getexif().get(_ORIENTATION, 1) in range(2, 9)
    except Exception:  # broken notes about a picture
        return False


def _has_frames(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # the second frame is broken, which nobody reads
        return False


class _Looks:
    """Which images look alike: by their pixels' digests, and by their thumbnails."""

    def __init__(
        self,
        seen: Sequence[_Seen],
        thumbnails: _Bytes,
        labels: _Integers,
        near: float,
        threads: int | None,
        progress: Progress,
    ) -> None:
        self._thumbnails, self._labels = thumbnails, labels
        self._near, self._threads, self._progress = near, threads, progress
        numbers: dict[_Digest, int] = {}
        picture_of = [
            numbers.setdefault(one.pixel_digest, len(numbers)) if not one.fault else -1 for one in seen
        ]
        self._picture = np.array(picture_of, dtype=np.int64)
        self._low = _low_cosines(thumbnails)
        # One of each picture a person, so that copies are not compared; of the test set, one of each picture.
        n_own = len(labels)
        has_contrast = _contrast(thumbnails) >= _LEAST_CONTRAST
        own: dict[tuple[int, int], int] = {}
        test: dict[int, int] = {}
        for n in np.flatnonzero(self._picture >= 0).tolist():
            if n < n_own:
                own.setdefault((picture_of[n], int(labels[n])), n)
            else:
                test.setdefault(picture_of[n], n)
        self._first_in_test = test
        self._own, self._test = (
            np.array([n for n in some if has_contrast[n]], dtype=np.int64)
            for some in (own.values(), test.values())
        )

    def same_pictures(self) -> list[list[int]]:
        """Return groups of images whose pixels are the same."""
        groups: dict[int, list[int]] = {}
        for n, picture in enumerate(self._picture[: len(self._labels)].tolist()):
            if picture >= 0:
                groups.setdefault(picture, []).append(n)
        return [group for group in groups.values() if len(group) > 1]

    def near_within(self) -> list[tuple[list[int], float]]:
        """Return groups of one person's images that are linked by nearness, and the weakest link of each."""
        groups = []
        starts = np.flatnonzero(np.diff(self._labels[self._own])) + 1
        for images in np.split(self._own, starts):
            if len(images) > 1:
                units = _units(self._thumbnails[images])
                for members, least in _linked(units, self._near):
                    groups.append((images[members].tolist(), least))
        return groups

    def near_across(self) -> list[tuple[tuple[int, int], float]]:
        """Return pairs of two people's images that are near and not the same, the nearest first."""
        pairs: dict[tuple[int, int], float] = {}
        for n, other, correlation in self._search(self._own, self._own, self._labels):
            if self._picture[n] != self._picture[other]:
                pairs[min(n, other), max(n, other)] = correlation
        return sorted(pairs.items(), key=lambda item: (-item[1], item[0]))

    def in_test_set(self) -> list[tuple[int, int, float | None]]:
        """Return images, the most alike image of the test set, and how near it is (None: the same)."""
        found: dict[int, tuple[int, float | None]] = {}
        for n, picture in enumerate(self._picture[: len(self._labels)].tolist()):
            if picture in self._first_in_test:
                found[n] = self._first_in_test[picture], None
        rest = np.array([n for n in self._own.tolist() if n not in found], dtype=np.int64)
        best: dict[int, tuple[int, float]] = {}
        for n, other, correlation in self._search(rest, self._test):
            if n not in best or correlation > best[n][1]:
                best[n] = other, correlation
        return [(n, *match) for n, match in sorted({**found, **best}.items())]

    def _search(
        self, queries: _Integers, database: _Integers, labels: _Integers | None = None
    ) -> Iterator[tuple[int, int, float]]:
        """Yield near images, those of two people if `labels` are given, in blocks: an interrupt is heard."""
        if not len(queries) or not len(database):
            return
        with self._progress(len(queries)) as tell:
            for start in range(0, len(queries), _QUERIES_AT_A_TIME):
                block = queries[start : start + _QUERIES_AT_A_TIME]
                yield from self._search_block(block, database, labels)
                tell(start + len(block))

    def _search_block(
        self, queries: _Integers, database: _Integers, labels: _Integers | None
    ) -> Iterator[tuple[int, int, float]]:
        radius = 2 * (1 - self._near + _ROUNDING)
        most = min(_MOST_NEIGHBORS, len(database))
        k = min(_FIRST_NEIGHBORS, most)
        while len(queries):
            hits = nearest_neighbors(
                self._low[queries],
                self._low[database],
                k,
                exclude="none" if labels is None else "same_identity",
                labels=None if labels is None else labels[database],
                query_labels=None if labels is None else labels[queries],
                threads=self._threads,
            )
            is_inside = hits.distances <= radius
            # If even the farthest is inside, there may be more.
            is_full = is_inside[:, -1] & (k < most)
            rows, columns = np.nonzero(is_inside & ~is_full[:, None])
            left, right = queries[rows], database[hits.indices[rows, columns]]
            for first in range(0, len(left), _ROWS):
                some = slice(first, first + _ROWS)
                units = [_units(self._thumbnails[which[some]]) for which in (left, right)]
                correlations = np.einsum("ij,ij->i", *units)
                for n in np.flatnonzero(correlations >= self._near - _ROUNDING).tolist():
                    yield int(left[first + n]), int(right[first + n]), _rounded(correlations[n])
            queries = queries[is_full]
            k = min(4 * k, most)


def _units(thumbnails: _Bytes) -> _Floats:
    """Return thumbnails with mean 0 and length 1, whose products are correlations."""
    units = thumbnails.astype(np.float32)
    units -= units.mean(axis=1, keepdims=True)
    length = np.linalg.norm(units, axis=1, keepdims=True)
    np.divide(units, length, out=units, where=length > 0)
    return units


def _contrast(thumbnails: _Bytes) -> _Floats:
    """Return the standard deviation of each thumbnail, in grey levels."""
    contrast: _Floats = np.empty(len(thumbnails), dtype=np.float32)
    for start in range(0, len(thumbnails), _ROWS):
        contrast[start : start + _ROWS] = thumbnails[start : start + _ROWS].std(axis=1, dtype=np.float32)
    return contrast


def _low_cosines(thumbnails: _Bytes) -> _Floats:
    """Return the lowest 8 x 8 coefficients of the orthonormal cosine transform of `_units`."""
    frequency, place = np.mgrid[:_LOW, :_SIDE]
    waves = np.cos(np.pi * frequency * (place + 0.5) / _SIDE) * np.sqrt(
        np.where(frequency == 0, 1, 2) / _SIDE
    )
    basis = np.einsum("ux,vy->xyuv", waves, waves).reshape(_SIDE * _SIDE, _LOW * _LOW).astype(np.float32)
    low: _Floats = np.empty((len(thumbnails), _LOW * _LOW), dtype=np.float32)
    for start in range(0, len(thumbnails), _ROWS):
        low[start : start + _ROWS] = _units(thumbnails[start : start + _ROWS]) @ basis
    return low


def _linked(units: _Floats, near: float) -> list[tuple[_Integers, float]]:
    """Return groups of rows that are linked by correlations of at least `near`, and their weakest links."""
    parts = []
    for start in range(0, len(units), _ROWS):
        correlations = units[start : start + _ROWS] @ units.T
        rows, columns = np.nonzero(correlations >= near - _ROUNDING)
        is_upper = rows + start < columns
        rows, columns = rows[is_upper], columns[is_upper]
        parts.append((rows + start, columns, correlations[rows, columns]))
    left, right, links = (np.concatenate(part) for part in zip(*parts, strict=True))
    if not len(links):
        return []
    _, group_of = connected_components(coo_array((links, (left, right)), (len(units),) * 2), directed=False)
    return [
        (np.flatnonzero(group_of == group), _rounded(links[group_of[left] == group].min()))
        for group in dict.fromkeys(group_of[left].tolist())
    ]


def _rounded(correlation: np.float32) -> float:
    return round(min(float(correlation), 1.0), 4)


def _quarantine(findings: Mapping[str, Sequence[Finding]], images: Sequence[str]) -> dict[str, str]:
    reasons: dict[str, str] = {}
    for name, kind in FINDINGS.items():
        if kind.leaves_out == "none":
            continue
        for finding in findings[name]:
            n_kept = 1 if kind.leaves_out == "all but the first" else 0
            for image in finding.images[n_kept:]:
                reason = kind.reason.format(
                    first=finding.images[0],
                    also=finding.also,
                    people=shorten(finding.people, 3),
                    detail=finding.detail,
                )
                reasons.setdefault(image, reason)
    return {image: reasons[image] for image in images if image in reasons}


def _counted(words: Iterator[str]) -> dict[str, int]:
    return dict(Counter(words).most_common())


def _person_of(path: str) -> str:
    return os.path.basename(os.path.dirname(path))


def _relative(paths: Sequence[str], data_dir: str) -> list[str]:
    """Return paths as reports and quarantine files name them: with slashes, relative to a single folder."""
    return [path.replace(os.sep, "/") for path in relative_paths(paths, data_dir)]
