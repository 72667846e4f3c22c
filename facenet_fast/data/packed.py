"""Packed verification sets (`lfw.bin` and its kin): images and pairs in one pickle, read without running it.

Such a file is a pickle of ``(images, flags)``: a list of encoded image files, of which 2 i and 2 i + 1 make
pair i, and a list that says of each pair whether it shows one identity. A pickle is a program that may call
any function. The reader here calls none of Python's or NumPy's: it knows the few names that such a file
needs, puts builders of its own in their place, and refuses all others.
"""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from facenet_fast.data.decoding import decode_square
from facenet_fast.data.pairs import Pairs
from facenet_fast.data.store import ImageStore
from facenet_fast.errors import UserError

__all__ = ["PackedImages", "PackedPairs", "read_packed"]


@dataclass(frozen=True, eq=False)
class PackedPairs:
    """A packed verification set.

    Attributes
    ----------
    path : str
        The file.
    images : tuple of bytes, length 2 n_pairs
        Encoded images (JPEG or another format of `decode_image`), not decoded yet.
    pairs : Pairs
        Pair i is of the images ``PATH#{2 i}`` and ``PATH#{2 i + 1}``, numbered from 0.
    """

    path: str
    images: tuple[bytes, ...]
    pairs: Pairs


class PackedImages(ImageStore):
    """Read the images of a packed set as squares of one size, decoded in parallel; bad ones are named.

    Parameters
    ----------
    packed : PackedPairs
        The set. The store's images are those of ``packed.pairs.images()``, in that order: the left ones of
        all pairs, then the right ones.
    store_size : int
        Side of the squares in pixels; images of another size are stretched (`decode_square`).
    cache_bytes : int, default=0
        Most memory for decoded images.
    threads : int, optional
        As for `ImageStore`, whose attributes and methods this has.

    Raises
    ------
    UserError
        As `ImageStore`.
    """

    def __init__(
        self, packed: PackedPairs, store_size: int, *, cache_bytes: int = 0, threads: int | None = None
    ) -> None:
        paths = (*packed.pairs.left, *packed.pairs.right)
        super().__init__(paths, store_size, cache_bytes=cache_bytes, threads=threads)
        self._encoded = (*packed.images[::2], *packed.images[1::2])

    def _decode_one(self, index: int) -> npt.NDArray[np.uint8]:
        return decode_square(self.paths[index], self.store_size, self._encoded[index])


def read_packed(path: str | os.PathLike[str], *, n_folds: int = 10) -> PackedPairs:
    """Read a packed verification set, as insightface's tools write them (``lfw.bin``, ``cfp_fp.bin``, ...).

    Pickles of every protocol are read, from Python 2 or 3, of bytes or of NumPy arrays of uint8 that hold
    them; flags may be bools, 0 and 1, or an array of these. Nothing that the file names is run, whoever
    wrote it. How much it holds is not limited: all of it is read into memory.

    Parameters
    ----------
    path : str
        The file.
    n_folds : int, default=10
        Number of folds, at least 2: consecutive blocks in file order, as of `read_pairs`.

    Returns
    -------
    PackedPairs

    Raises
    ------
    UserError
        If the file cannot be read, is cut short, is no pickle, asks for anything but lists, tuples, bytes,
        bools, integers and arrays of uint8 or bool, or describes no pairs or fewer than folds.
    """
    if n_folds < 2:
        raise UserError(f"the number of folds must be at least 2; got {n_folds}")
    path = os.fspath(path)
    images, is_same = _checked(_unpickle(path), path)
    n_pairs = len(is_same)
    if n_pairs < n_folds:
        raise UserError(
            f"a packed set must hold at least as many pairs as there are folds, {n_folds}; "
            f"{path!r} holds {n_pairs}"
        )
    names = [f"{path}#{number}" for number in range(len(images))]
    # The first n_pairs % n_folds blocks have one pair more, as array_split has it.
    fold = np.repeat(np.arange(n_folds), [len(block) for block in np.array_split(is_same, n_folds)])
    return PackedPairs(path, images, Pairs(tuple(names[::2]), tuple(names[1::2]), is_same, fold, n_folds))


def _checked(content: Any, path: str) -> tuple[tuple[bytes, ...], npt.NDArray[np.bool_]]:
    is_pair = isinstance(content, (tuple, list)) and len(content) == 2
    if not is_pair or not isinstance(content[0], (tuple, list)):
        raise UserError(f"a packed set must be (list of images, list of flags); {path!r} is something else")
    images = tuple(_bytes_of(image, number, path) for number, image in enumerate(content[0]))
    flags = _flags_of(content[1], path)
    if not images:
        raise UserError(f"a packed set must hold images; {path!r} holds none")
    if len(images) % 2:
        raise UserError(f"a packed set must hold two images a pair; {path!r} holds {len(images)}")
    if len(flags) != len(images) // 2:
        raise UserError(
            f"a packed set must hold one flag a pair; "
            f"{path!r} holds {len(flags)} for {len(images) // 2} pairs"
        )
    return images, np.array(flags, dtype=bool)


def _bytes_of(image: Any, number: int, path: str) -> bytes:
    if isinstance(image, bytes):
        return image
    if isinstance(image, _Row) and image.code == "u1":
        return image.data
    what = "an array of bool" if isinstance(image, _Row) else f"a {type(image).__name__}"
    raise UserError(f"the images of a packed set must be bytes; image {number} of {path!r} is {what}")


def _flags_of(flags: Any, path: str) -> list[Any]:
    values = list(flags.data) if isinstance(flags, _Row) else flags
    if not isinstance(values, (list, tuple)):
        raise UserError(f"the flags of a packed set must be a list; {path!r} has a {type(flags).__name__}")
    for number, value in enumerate(values):
        if not isinstance(value, int) or value not in (0, 1):
            what = value if isinstance(value, int) else f"a {type(value).__name__}"
            raise UserError(
                f"the flags of a packed set must be true or false; flag {number} of {path!r} is {what}"
            )
    return list(values)


def _unpickle(path: str) -> Any:
    try:
        with open(path, "rb") as file:
            # In memory, where a length that the file does not have reads to its end and reserves nothing.
            whole = io.BytesIO(file.read())
        # What Python 2 called str are bytes.
        return _Unpickler(whole, encoding="bytes").load()
    except UserError as error:
        raise UserError(
            f"a packed set must hold only lists, bytes, bools and arrays; {path!r} asks for {error}"
        ) from None
    except OSError as error:
        raise UserError(f"the packed set must be readable; {path!r}: {error.strerror}") from error
    except Exception as error:
        # A broken or hostile pickle drives the unpickler into every exception there is.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"a packed set must be a whole pickle; {path!r} is cut short or something else: {reason}"
        ) from error


class _Unpickler(pickle._Unpickler):
    """An unpickler that knows the names of `_BUILDERS` and no other.

    The one written in Python, for its memo is a dictionary: that of the one in C makes room for whatever
    number a file gives an object, up to 2**32.
    """

    def find_class(self, module: str, name: str) -> Any:
        builder = _BUILDERS.get((module, name))
        if builder is None:
            _refuse(f"{module}.{name}")
        return builder

    def persistent_load(self, pid: Any) -> NoReturn:
        _refuse("an object outside the file")


def _refuse(wanted: object) -> NoReturn:
    # Escaped, since it goes to a terminal.
    raise UserError(ascii(str(wanted))[1:-1])


class _Row:
    """A row of numbers in a pickle: a NumPy array, of which only bytes are kept."""

    __slots__ = ("code", "data")

    def __init__(self) -> None:
        self.code, self.data = "u1", b""

    def __setstate__(self, state: Any) -> None:
        _, shape, number_type, _, data = state
        self.fill(shape, number_type, data)

    def fill(self, shape: Any, number_type: Any, data: Any) -> None:
        if not isinstance(number_type, _NumberType):
            _refuse("an array of an unknown type")
        if len(shape) != 1:
            _refuse(f"an array of {len(shape)} dimensions")
        if not isinstance(data, (bytes, bytearray)) or len(data) != shape[0]:
            _refuse("an array without its numbers")
        self.code, self.data = number_type.code, bytes(data)


class _NumberType:
    """A NumPy dtype in a pickle: uint8 or bool."""

    __slots__ = ("code",)

    def __init__(self, code: str) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        """Pass over byte order and the like: one byte has none."""


class _Builder:
    """What a pickle gets for a name: something to call, of which it can change nothing and make no other."""

    __slots__ = ("_build",)

    def __init__(self, build: Callable[..., Any]) -> None:
        self._build = build

    def __call__(self, *arguments: Any) -> Any:
        return self._build(*arguments)

    def __setstate__(self, state: Any) -> NoReturn:
        _refuse("a change of what it may call")


def _number_type(code: Any, *_: Any) -> _NumberType:
    text = code.decode("latin1") if isinstance(code, bytes) else code
    if text not in ("u1", "b1"):
        _refuse(f"an array of dtype {text}")
    return _NumberType(text)


def _array_type(*_: Any) -> NoReturn:
    _refuse("a call of numpy.ndarray")


def _empty_row(array_type: Any, *_: Any) -> _Row:
    if array_type is not _ARRAY_TYPE:
        _refuse("an array of another class")
    return _Row()


def _row_of_buffer(data: Any, number_type: Any, shape: Any, *_: Any) -> _Row:
    row = _Row()
    row.fill(shape, number_type, data)
    return row


def _scalar(number_type: Any, data: Any) -> int:
    row = _row_of_buffer(data, number_type, (1,))
    return row.data[0]


def _latin1(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        _refuse("text in another encoding than latin1")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


_ARRAY_TYPE = _Builder(_array_type)
_NUMPY_CORES = ("numpy.core", "numpy._core")  # before NumPy 2 and since
_BUILDERS = {
    ("numpy", "ndarray"): _ARRAY_TYPE,
    ("numpy", "dtype"): _Builder(_number_type),
    # How protocols 0 to 2 write bytes; the second is for b"".
    ("_codecs", "encode"): _Builder(_latin1),
    ("__builtin__", "bytes"): _Builder(_no_bytes),
}
for _core in _NUMPY_CORES:
    _BUILDERS |= {
        (f"{_core}.multiarray", "_reconstruct"): _Builder(_empty_row),
        (f"{_core}.multiarray", "scalar"): _Builder(_scalar),
        (f"{_core}.numeric", "_frombuffer"): _Builder(_row_of_buffer),
    }
