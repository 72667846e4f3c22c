"""An image file becomes uint8 RGB, whole or as an antialiased square; one that cannot be read says why."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from facenet_fast.errors import UserError

__all__ = ["UnreadableImage", "check_images", "decode_image", "decode_square"]

#: Pillow's names of the formats behind `IMAGE_EXTENSIONS`. Others stay closed: some of Pillow's readers start
#: programs (PostScript), and a file's ending does not have to be true.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "PPM")

_ORIENTATION = 0x0112  # EXIF tag; its values and what each asks for
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FILES_PER_TASK = 16  # of 0.4 ms each: long enough to hide the cost of a task, short enough to share evenly
_TASKS_AT_A_TIME = 64

_Pixels = npt.NDArray[np.uint8]
_S = TypeVar("_S")
_T = TypeVar("_T")


class UnreadableImage(UserError):
    """A file that is missing, empty, truncated or no image; `path` names it and `reason` says why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"an image must be readable; {path!r}: {reason}")
        self.path = path
        self.reason = reason


def decode_image(path: str, data: bytes | None = None) -> _Pixels:
    """Read an image file: JPEG, PNG, BMP, GIF or WebP (first frame), PGM (P2, P5) and PPM.

    The picture stands as its EXIF orientation says; transparency is dropped, grey is repeated in the three
    channels, 16-bit samples keep their upper 8 bits.

    Parameters
    ----------
    path : str
        The file; what it holds decides, not its ending.
    data : bytes, optional
        What the file holds, where that is in memory; nothing is opened then, and `path` is only its name.

    Returns
    -------
    array of uint8, shape (height, width, 3)
        RGB.

    Raises
    ------
    UnreadableImage
        A `UserError`, if the file is missing, empty, truncated or no image.
    """
    return np.asarray(_read(path, None, data).convert("RGB"))


def decode_square(path: str, size: int, data: bytes | None = None) -> _Pixels:
    """Read an image file as a square: the whole picture, stretched to ``size x size``.

    A portrait's forehead and chin tell people apart; cutting them off costs more than the changed
    proportions, which are the same for all pictures of one shape. Resizing is bilinear with antialiasing (a
    triangle filter as wide as the reduction asks); an image that is ``size x size`` comes through unchanged.

    Parameters
    ----------
    path : str
        As for `decode_image`.
    size : int
        Side of the square in pixels.
    data : bytes, optional
        As for `decode_image`.

    Returns
    -------
    array of uint8, shape (size, size, 3)
        RGB.

    Raises
    ------
    UnreadableImage
        As `decode_image`.
    """
    image = _read(path, size, data)
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image.convert("RGB"))


def check_images(
    paths: Sequence[str],
    *,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, str]:
    """Decode every file once to find those that cannot be read.

    Parameters
    ----------
    paths : sequence of str
        The files.
    threads : int, optional
        Number of threads; by default as many as there are CPUs for this process.
    progress : callable, optional
        Called as ``progress(n_done, n_files)`` now and then, from the calling thread.

    Returns
    -------
    dict of str to str
        Path and reason of each unreadable file, in the order of `paths`; empty if all is well.
    """
    bad: dict[str, str] = {}
    n_done = 0
    with ThreadPoolExecutor(threads or n_usable_cpus(), thread_name_prefix="facenet-fast-check") as executor:
        for found in in_tasks(executor, _unreadable, paths):
            for n, reason in found.items():
                bad[paths[n]] = reason
            n_done = min(n_done + _FILES_PER_TASK, len(paths))
            if progress is not None:
                progress(n_done, len(paths))
    return bad


def in_tasks(
    executor: Executor, work: Callable[[Sequence[_S], range], _T], images: Sequence[_S]
) -> Iterator[_T]:
    """Yield ``work(images, positions)`` for consecutive positions, with a bounded number of tasks at a time.

    Bounded, because the interpreter waits at exit for all that was handed out: an interrupt in the
    middle of a million files must not.
    """
    tasks = [
        range(start, min(start + _FILES_PER_TASK, len(images)))
        for start in range(0, len(images), _FILES_PER_TASK)
    ]
    for first in range(0, len(tasks), _TASKS_AT_A_TIME):
        yield from executor.map(lambda task: work(images, task), tasks[first : first + _TASKS_AT_A_TIME])


def n_usable_cpus() -> int:
    """Return how many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _unreadable(paths: Sequence[str], positions: range) -> dict[int, str]:
    reasons = {}
    for n in positions:
        try:
            # A small square: JPEG then skips most of the arithmetic but still reads the file to its end.
            decode_square(paths[n], 16)
        except UnreadableImage as error:
            reasons[n] = error.reason
    return reasons


def _read(path: str, size: int | None, data: bytes | None) -> Image.Image:
    """Return the loaded image in mode L or RGB or one that converts to RGB without loss of meaning."""
    try:
        with Image.open(path if data is None else io.BytesIO(data), formats=_FORMATS) as image:
            if size is not None:
                # JPEG can be decoded at 1/2, 1/4 or 1/8; twice the wanted size leaves the filter its work.
                image.draft(None, (2 * size, 2 * size))
            image.load()
            return _upright(_eight_bits(image))
    except UnidentifiedImageError:
        n_bytes = os.path.getsize(path) if data is None else len(data)
        reason = "empty file" if n_bytes == 0 else "no image of a known format"
        raise UnreadableImage(path, reason) from None
    except Exception as error:
        # Pillow's decoders raise whatever a broken file drives them into (OSError, SyntaxError, struct.error,
        # IndexError, ...), and none of it may stop a run over a million files.
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UnreadableImage(path, " ".join(reason.split()) or type(error).__name__) from error


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # 16-bit samples; Pillow itself would clip them at 255.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("L", "RGB"):
        return image
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    if "exif" not in image.info:
        return image
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # broken notes about a picture are no reason to lose it
        return image
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)
