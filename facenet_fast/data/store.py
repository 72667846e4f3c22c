"""Images by index: decoded in parallel when first asked for, kept while there is room, bad files named."""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import numpy as np
import numpy.typing as npt

from facenet_fast.data.decoding import UnreadableImage, decode_square, in_tasks, n_usable_cpus
from facenet_fast.data.image_cache import NOT_KEPT, FileCache, MemoryCache
from facenet_fast.errors import UserError

__all__ = ["ImageStore"]

_logger = logging.getLogger("facenet_fast")

_UNKNOWN, _BAD = NOT_KEPT, -2  # values of _places that are no place

_Pixels = npt.NDArray[np.uint8]


class ImageStore:
    """Read images as squares of one size, decoding each file only once as long as there is room.

    Room in memory is filled in the order of reading and nothing is thrown out: under a sampler that visits
    all images before it repeats one, throwing out the oldest would throw out what comes next. A file has room
    for all of them. Any number of threads may read at a time.

    Parameters
    ----------
    paths : sequence of str
        The files; an image's index is its place here.
    store_size : int
        Side of the squares in pixels (see `decode_square`).
    cache_bytes : int, default=2 GiB
        Most memory for decoded images, each ``3 * store_size ** 2`` bytes; 0 keeps none.
    cache_dir : str, optional
        Keep all decoded images in a file of this folder instead, where other runs on the same files find them
        (`facenet_fast.data.image_cache.FileCache`).
    threads : int, optional
        Number of decoding threads; by default as many as there are CPUs for this process.

    Attributes
    ----------
    paths : tuple of str
        The files.
    store_size : int
        Side of the squares.
    bad : dict of int to str
        Index and reason of each file found unreadable so far. It is logged once and never opened again.

    Raises
    ------
    UserError
        If `store_size` or `threads` is less than 1, or `cache_bytes` is negative; or if `cache_dir` has no
        room or cannot be written.
    """

    def __init__(
        self,
        paths: Sequence[str],
        store_size: int,
        *,
        cache_bytes: int = 2 << 30,
        cache_dir: str | None = None,
        threads: int | None = None,
    ) -> None:
        self.paths = tuple(paths)
        self.store_size = _at_least("store_size", store_size, 1)
        self.bad: dict[int, str] = {}
        cache_bytes = _at_least("cache_bytes", cache_bytes, 0)
        n_threads = n_usable_cpus() if threads is None else _at_least("threads", threads, 1)
        self._executor = ThreadPoolExecutor(n_threads, thread_name_prefix="facenet-fast-read")
        self._lock = Lock()
        self._places = np.full(len(self.paths), _UNKNOWN, dtype=np.int64)
        self._cache: FileCache | MemoryCache
        if cache_dir is not None and self.paths:
            self._cache = FileCache(cache_dir, self.paths, self.store_size)
        else:
            n_places = min(len(self.paths), cache_bytes // (3 * self.store_size**2))
            self._cache = MemoryCache(n_places, self.store_size)

    @property
    def n_cached(self) -> int:
        """Number of images that are known to be kept decoded."""
        return int(np.count_nonzero(self._places >= 0))

    def read(self, indices: Sequence[int] | npt.NDArray[np.integer]) -> tuple[_Pixels, npt.NDArray[np.bool_]]:
        """Return images in the order asked for.

        Parameters
        ----------
        indices : sequence of int, length n
            Indices into `paths`; any may come several times.

        Returns
        -------
        images : array of uint8, shape (n, store_size, store_size, 3)
            RGB; zeros where the file is unreadable. A copy: the caller may write to it.
        ok : array of bool, shape (n,)
            False where the file is unreadable.

        Raises
        ------
        IndexError
            If an index is not in ``0 .. len(paths) - 1``.
        """
        wanted = self._checked(indices)
        places = self._places[wanted]
        images: _Pixels = np.empty((len(wanted), *self._shape), dtype=np.uint8)
        if len(wanted) and places.min() >= 0:
            # mode="clip" lets NumPy write into `out` directly; all places are in range.
            np.take(self._cache.pixels, places, axis=0, out=images, mode="clip")
            return images, np.ones(len(wanted), dtype=bool)
        cached = np.flatnonzero(places >= 0)
        images[cached] = self._cache.pixels[places[cached]]
        unknown = np.flatnonzero(places == _UNKNOWN)
        new, first_use = np.unique(wanted[unknown], return_inverse=True)
        ok = places != _BAD
        if len(new):
            # Decoded right where it is wanted, unless an image is wanted in several places.
            in_place = len(new) == len(wanted) and np.array_equal(new, wanted)
            fresh = images if in_place else np.empty((len(new), *self._shape), dtype=np.uint8)
            readable = self._decode(new, fresh)
            if not in_place:
                images[unknown] = fresh[first_use]
            ok[unknown] = readable[first_use]
        images[~ok] = 0
        return images, ok

    def check(self, progress: Callable[[int, int], None] | None = None) -> dict[int, str]:
        """Decode every image once, which finds the unreadable ones and fills the room there is.

        Parameters
        ----------
        progress : callable, optional
            Called as ``progress(n_done, n_images)`` now and then.

        Returns
        -------
        dict of int to str
            `bad`.
        """
        n_images = len(self.paths)
        step = 512
        for start in range(0, n_images, step):
            block = np.arange(start, min(start + step, n_images))
            new = block[self._places[block] == _UNKNOWN]
            self._decode(new, np.empty((len(new), *self._shape), dtype=np.uint8))
            if progress is not None:
                progress(int(block[-1]) + 1, n_images)
        return self.bad

    @property
    def _shape(self) -> tuple[int, int, int]:
        return (self.store_size, self.store_size, 3)

    def _checked(self, indices: Sequence[int] | npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        wanted = np.asarray(indices)
        if wanted.ndim != 1 or (len(wanted) and wanted.dtype.kind not in "iu"):
            raise TypeError(f"indices must be a row of integers; got {wanted.dtype} of shape {wanted.shape}")
        if len(wanted) and not (wanted.min() >= 0 and wanted.max() < len(self.paths)):
            raise IndexError(
                f"image indices must be in 0 .. {len(self.paths) - 1}; got {wanted.min()} .. {wanted.max()}"
            )
        return wanted.astype(np.int64)

    def _decode(self, indices: npt.NDArray[np.int64], images: _Pixels) -> npt.NDArray[np.bool_]:
        """Decode different images into `images`, keep what there is room for, and tell which are readable."""
        reasons: dict[int, str] = {}
        marks = np.zeros(len(indices), dtype=np.uint64)

        def decode(wanted: Sequence[int], positions: range) -> None:
            for n in positions:
                try:
                    marks[n] = self._cache.load(wanted[n], images[n], self._decode_one)
                except UnreadableImage as error:
                    reasons[n] = error.reason

        for _ in in_tasks(self._executor, decode, indices.tolist()):
            pass
        with self._lock:
            for n in sorted(reasons):
                self._report(int(indices[n]), reasons[n])
            readable = np.ones(len(indices), dtype=bool)
            readable[list(reasons)] = False
            # Another thread may have decoded the same images meanwhile.
            rows = np.flatnonzero(readable & (self._places[indices] == _UNKNOWN))
            # Its place only now: a reader in another thread that sees it finds it filled.
            self._places[indices[rows]] = self._cache.keep(indices[rows], images[rows], marks[rows])
        return readable

    def _decode_one(self, index: int) -> _Pixels:
        """Read one image; all that a store of images that are no files does otherwise."""
        return decode_square(self.paths[index], self.store_size)

    def _report(self, index: int, reason: str) -> None:
        if index not in self.bad:
            self.bad[index] = reason
            self._places[index] = _BAD
            _logger.warning("left out unreadable image %s: %s", self.paths[index], reason)


def _at_least(name: str, value: int, least: int) -> int:
    value = operator.index(value)
    if value < least:
        raise UserError(f"{name} must be at least {least}; got {value}")
    return value
