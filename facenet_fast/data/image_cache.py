"""Where decoded images are kept: in memory while there is room, or in a file that other runs find again."""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import weakref
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import PIL

from facenet_fast.errors import UserError

__all__ = ["NOT_KEPT", "FileCache", "MemoryCache"]

_logger = logging.getLogger("facenet_fast")

NOT_KEPT = -1  # instead of a place

# Part of a file's name, as is Pillow's: decoding that gives other pixels must not find those of before.
_VERSION = 1
_NO_MARK = 0

_Integers = npt.NDArray[np.int64]
_Marks = npt.NDArray[np.uint64]
_Pixels = npt.NDArray[np.uint8]
_Decode = Callable[[int], _Pixels]


class MemoryCache:
    """Keep what comes first, and nothing more once the room is full.

    Parameters
    ----------
    n_places : int
        Room for that many images.
    size : int
        Side of the images.

    Attributes
    ----------
    pixels : array of uint8, shape (n_places, size, size, 3)
        The images, by place.
    """

    def __init__(self, n_places: int, size: int) -> None:
        # Pages that are never written cost no memory, so the whole room is asked for at once.
        self.pixels: _Pixels = np.empty((n_places, size, size, 3), dtype=np.uint8)
        self._n_filled = 0

    def load(self, index: int, image: _Pixels, decode: _Decode) -> int:
        """Decode an image into `image`; what is returned is for `keep`."""
        image[:] = decode(index)
        return _NO_MARK

    def keep(self, indices: _Integers, images: _Pixels, marks: _Marks) -> _Integers:
        """Keep images that were loaded, and return the place of each, or `NOT_KEPT`. One thread at a time."""
        n_kept = min(len(indices), len(self.pixels) - self._n_filled)
        places = np.full(len(indices), NOT_KEPT, dtype=np.int64)
        places[:n_kept] = np.arange(self._n_filled, self._n_filled + n_kept)
        self.pixels[places[:n_kept]] = images[:n_kept]
        self._n_filled += n_kept
        return places


class FileCache:
    """Keep all images in a memory-mapped file, for this run and others on the same files.

    The file has a mark for each image: a hash of its pixels and of the size and time of the image file that
    they are from. An image is taken from it only if its mark is right. So whatever happens to the file, a
    process killed in the middle of a write, a power cut that loses some pages and not others, a changed or
    replaced image, costs the affected images a decoding and nothing else.

    Any number of processes may share it. They take turns to write (`flock`), and one that would have to wait
    leaves its images out. All space is allocated before the first image, so that a full disk is told then and
    not by a bus error in the middle of a run.

    Parameters
    ----------
    cache_dir : str
        The folder; made if it is not there.
    paths : sequence of str
        The image files. They, their order, `size` and the version of Pillow make the file's name.
    size : int
        Side of the images.

    Attributes
    ----------
    path : str
        The file, of ``len(paths) * (3 * size ** 2 + 8)`` bytes.
    pixels : array of uint8, shape (len(paths), size, size, 3)
        The images; an image's place is its index.

    Raises
    ------
    UserError
        If the file cannot be made or the disk has no room for all of it.
    """

    def __init__(self, cache_dir: str, paths: Sequence[str], size: int) -> None:
        self.path = os.path.join(cache_dir, _file_name(paths, size))
        self._paths = paths
        marks_bytes = 8 * len(paths)
        n_bytes = marks_bytes + 3 * size**2 * len(paths)
        try:
            os.makedirs(cache_dir, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            weakref.finalize(self, os.close, self._file)
            _allocate(self._file, self.path, n_bytes)
            content = mmap.mmap(self._file, n_bytes)
        except OSError as error:
            raise UserError(
                f"cache_dir must be a folder to write to, on a disk with room for {n_bytes / 1e6:.1f} MB; "
                f"{self.path!r}: {error.strerror}"
            ) from error
        self._marks: _Marks = np.ndarray(len(paths), np.uint64, content)
        self.pixels: _Pixels = np.ndarray((len(paths), size, size, 3), np.uint8, content, marks_bytes)
        self._has_said_lost = False

    def load(self, index: int, image: _Pixels, decode: _Decode) -> int:
        """Fill `image` from the file, or else decode it; what is returned is for `keep`."""
        # Before decoding: a file that changes in between then has another mark when next looked at.
        state = _state_of(self._paths[index])
        mark = int(self._marks[index])
        if mark != _NO_MARK:
            # Hashed is the copy, which no other process writes to.
            image[:] = self.pixels[index]
            if _mark(state, image) == mark:
                return _NO_MARK
        image[:] = decode(index)
        return _mark(state, image)

    def keep(self, indices: _Integers, images: _Pixels, marks: _Marks) -> _Integers:
        """Write images that were loaded, and return their places, or `NOT_KEPT`. One thread at a time."""
        import fcntl

        is_new = marks != _NO_MARK
        if not is_new.any():
            return indices
        new = indices[is_new]
        self._say_if_lost(new)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return np.where(is_new, NOT_KEPT, indices)
        try:
            self.pixels[new] = images[is_new]
            self._marks[new] = marks[is_new]
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        return indices

    def _say_if_lost(self, indices: _Integers) -> None:
        if not self._has_said_lost and (self._marks[indices] != _NO_MARK).any():
            self._has_said_lost = True
            _logger.warning(
                "image cache %s: images that have changed, or were not written whole, are decoded anew",
                self.path,
            )


def _file_name(paths: Sequence[str], size: int) -> str:
    digest = hashlib.blake2b(f"{_VERSION} {PIL.__version__}".encode(), digest_size=12)
    for path in paths:
        digest.update(b"\0" + os.fsencode(os.path.abspath(path)))
    return f"images-{size}-{digest.hexdigest()}.cache"


def _allocate(file: int, path: str, n_bytes: int) -> None:
    """Give the file all its space on the disk: a write to a page without may end the process (SIGBUS)."""
    try:
        import fcntl

        allocate = os.posix_fallocate
    except (ImportError, AttributeError):
        raise UserError("cache_dir needs flock and posix_fallocate, which this system lacks") from None
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        n_before = os.fstat(file).st_size
        try:
            # Also where the size is right: whoever copied the file may have left out pages of zeros.
            allocate(file, 0, n_bytes)
        except OSError:
            if n_before == 0:
                os.unlink(path)
            raise
        if 0 < n_before < n_bytes:
            _logger.warning("image cache %s had been cut short; what is lost is decoded anew", path)
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def _state_of(path: str) -> bytes:
    """Return what changes with a file; nothing if there is none, which decoding will say."""
    try:
        found = os.stat(path)
    except OSError:
        return b""
    return f"{found.st_size} {found.st_mtime_ns}".encode()


def _mark(state: bytes, image: _Pixels) -> int:
    digest = hashlib.blake2b(state, digest_size=8)
    digest.update(image.data)
    return int.from_bytes(digest.digest(), "little") or 1
