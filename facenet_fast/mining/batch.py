"""A labelled batch of embeddings, checked and grouped by identity, and who may be what in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .arrays import as_array, lies_on_device, view_on_device
from .checks import check_flag, check_word
from .devices import choose_device

__all__ = [
    "DISTANCES",
    "Batch",
    "Distance",
    "check_embeddings",
    "embeddings_as",
    "first_bad_row",
    "group",
    "join_labels",
    "make_batch",
    "raise_bad_row",
]

# What rows are, one after the other: a name, and how many.
Parts = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Distance:
    """How a distance comes from the squared Euclidean distance of the rows that a backend is handed.

    Attributes
    ----------
    unit : float
        What a squared distance on the unit sphere is divided by to give that of those rows.
    root : bool
        Whether the distance is its root; ranks are those of the square in any case.
    """

    unit: float = 1.0
    root: bool = False


DISTANCES: dict[str, Distance] = {
    "squared_euclidean": Distance(),
    "euclidean": Distance(root=True),
    "cosine": Distance(unit=2.0),
}

# Squared distances between longer rows could leave float64's range; csrc/mining/batch.cpp holds its square.
_LARGEST_NORM = 1e150

# Stands for a mask of anchors where all rows are.
_ALL = np.empty(0, np.uint8)

# Rows are on the unit sphere if their norms are this near to 1: half precision is.
_UNIT_TOLERANCE = 1e-2


@dataclass(frozen=True, eq=False)
class Batch:
    """What a backend is handed: rows of the batch, then those of the bank, and how they are grouped.

    Attributes
    ----------
    rows : float32 or float64 array, shape (n_rows, embedding_size)
        Their squared Euclidean distances, or the roots of those, are the distances asked for. Numpy's, or
        rows on a device as a ``_cuda.DeviceView``.
    parts : ((name, n_rows), ...)
        What the rows are, one after the other, for messages.
    order : int32 array, shape (n_rows,)
        Rows by identity, those of one identity in the order of the batch.
    offsets : int64 array, shape (n_identities + 1,)
        Where each identity begins in `order`.
    members : int64 array, shape (n_identities,)
        Where each identity's rows of the bank begin in `order`.
    bank_positives : bool
    is_anchor : uint8 array, shape (n_rows,) or (0,)
        In grouped order; empty where all rows of the batch are anchors.
    distance : Distance
    device : {"cpu", "cuda"}
        Whose miner it is for.
    """

    rows: Any
    parts: Parts
    order: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    members: npt.NDArray[np.int64]
    bank_positives: bool
    is_anchor: npt.NDArray[np.uint8]
    distance: Distance
    device: str

    @property
    def rows_on_host(self) -> npt.NDArray[Any]:
        """The rows as numpy's: a copy, if they lie on a device."""
        rows: npt.NDArray[Any] = self.rows if isinstance(self.rows, np.ndarray) else self.rows.to_numpy()
        return rows

    def raise_bad_row(self, bad_row: int) -> None:
        """Name the row that is not finite, if there is one."""
        if bad_row >= 0:
            raise_bad_row(self.rows_on_host, bad_row, self.parts)


def make_batch(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    distance: str,
    anchors: slice | npt.ArrayLike | None,
    bank: tuple[npt.ArrayLike, npt.ArrayLike] | None,
    bank_positives: bool,
    on_sphere: bool,
    device: str = "cpu",
) -> Batch:
    """Check what `mine_triplets` was given and group it; `on_sphere` demands rows of unit length.

    Rows that lie on a device stay there if it mines them, and if nothing but the miner has to read them: no
    bank to put behind them, no lengths to take or to change.
    """
    check_word("distance", distance, DISTANCES)
    rows, device = _check_rows(
        embeddings, device, may_stay=bank is None and distance != "cosine" and not on_sphere
    )
    n = rows.shape[0]
    check_flag("bank_positives", bank_positives)
    if bank is None:
        order, offsets = group(labels, n)
        members = offsets[1:]
    else:
        rows, labels = _with_bank(rows, labels, bank)
        order, offsets = group(labels, len(rows))
        members = offsets[:-1] + np.add.reduceat(order < n, offsets[:-1]) if len(rows) else offsets[1:]
    parts = (("embeddings", n), ("the bank's embeddings", rows.shape[0] - n))
    is_anchor = _ALL
    if anchors is not None:
        marks = np.zeros(rows.shape[0], np.uint8)
        marks[:n] = _check_anchors(anchors, n)
        is_anchor = marks[order]
    if on_sphere and distance != "cosine":
        _check_unit(rows, parts)
    return Batch(
        rows=embeddings_as(distance, rows, parts),
        parts=parts,
        order=order,
        offsets=offsets,
        members=members.astype(np.int64, copy=False),
        bank_positives=bank_positives,
        is_anchor=is_anchor,
        distance=DISTANCES[distance],
        device=device,
    )


def _check_rows(embeddings: npt.ArrayLike, device: str, *, may_stay: bool) -> tuple[Any, str]:
    """Return checked embeddings where they are to be mined, and whose miner that is."""
    if device != "cpu" and lies_on_device(embeddings):
        device = choose_device(device, True, 0)
        if device == "cuda" and may_stay:
            view = view_on_device(embeddings, "embeddings")
            # Others go over the host, and are widened, laid out or refused there.
            if view.can_be_mined and view.shape[1]:
                return view, device
    rows = check_embeddings(embeddings)
    return rows, choose_device(device, False, len(rows))


def embeddings_as(distance: str, rows: npt.NDArray[Any], parts: Parts) -> npt.NDArray[Any]:
    """Return rows whose squared Euclidean distances give the distances of that name between the given ones.

    For ``"cosine"``, ``1 - cos(x, y)``, these are the rows at length ``1 / sqrt(2)``, in float64.
    """
    if distance != "cosine":
        return rows
    wide = rows.astype(np.float64)
    with np.errstate(over="ignore"):
        squared_norms = np.einsum("ij,ij->i", wide, wide)
    extreme = ~((squared_norms > 1e-280) & (squared_norms < 1e280))
    if extreme.any():
        largest = np.abs(wide[extreme]).max(axis=1)
        bad = np.flatnonzero(extreme)[~((largest > 0) & np.isfinite(largest))]
        if len(bad):
            name, row = _name_row(int(bad[0]), parts)
            raise ValueError(
                f"{name} must be finite and not all zeros: their cosine is asked for; "
                f"row {row} has norm {math.hypot(*wide[bad[0]].tolist())}"
            )
        wide[extreme] /= largest[:, None]
        squared_norms[extreme] = np.einsum("ij,ij->i", wide[extreme], wide[extreme])
    wide /= np.sqrt(2.0 * squared_norms)[:, None]
    return wide


def raise_bad_row(rows: npt.NDArray[Any], bad_row: int, parts: Parts) -> None:
    """Name the row that is not finite, if there is one."""
    if bad_row >= 0:
        name, row = _name_row(bad_row, parts)
        norm = math.hypot(*rows[bad_row].tolist())
        raise ValueError(
            f"{name} must be finite, with norms below {_LARGEST_NORM:g}; row {row} has norm {norm}"
        )


def _name_row(row: int, parts: Parts) -> tuple[str, int]:
    """Return whose row it is, and its number there."""
    for name, n in parts:
        if row < n:
            return name, row
        row -= n
    raise IndexError(row)


def first_bad_row(rows: npt.NDArray[Any]) -> int:
    """Return the first row that is not finite or too long, or -1."""
    with np.errstate(over="ignore"):
        squared_norms = np.square(rows, dtype=np.float64).sum(axis=1)
    bad = np.flatnonzero(~(squared_norms < _LARGEST_NORM**2))  # NaN compares false: "not below" finds it too
    return int(bad[0]) if len(bad) else -1


def check_embeddings(embeddings: npt.ArrayLike, name: str = "embeddings") -> npt.NDArray[Any]:
    """Return embeddings as a C-contiguous float32 or float64 matrix in native byte order."""
    rows = as_array(embeddings, name)
    is_half = rows.dtype.name in ("float16", "bfloat16")
    if not is_half and (rows.dtype.kind != "f" or rows.dtype.itemsize not in (4, 8)):
        raise TypeError(f"{name} must be float32 or float64; got {rows.dtype}")
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ValueError(f"{name} must have shape (n_images, embedding_size); got {rows.shape}")
    if len(rows) >= 2**31:
        raise ValueError(f"{name} must have fewer than 2**31 rows; got {len(rows)}")
    dtype = np.dtype(np.float32) if is_half else rows.dtype.newbyteorder("=")
    return np.require(rows, dtype, ["C_CONTIGUOUS", "ALIGNED"])


def group(labels: npt.ArrayLike, n_rows: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Return the stable order of the rows by identity, and where each identity begins in it."""
    identities = as_array(labels, "labels")
    if identities.shape != (n_rows,):
        raise ValueError(
            f"labels must have shape ({n_rows},), one for each embedding; got {identities.shape}"
        )
    kind = identities.dtype.kind
    try:
        if kind not in "biuSU" and (identities != identities).any():
            raise ValueError("labels must not be NaN or NaT: those equal no identity, not even themselves")
        # numpy makes mixed values one type, in which 1 and "1", or two large numbers, are the same.
        if kind in "SUfc" and isinstance(labels, list | tuple) and identities.tolist() != list(labels):
            raise TypeError(f"some of them change when all are taken as {identities.dtype}")
        order = np.argsort(identities, kind="stable")
        ordered = identities[order]
        starts = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
        # Some of Python's own types are "sorted" without complaint into no order at all, as sets are.
        if kind == "O" and not (ordered[starts - 1] < ordered[starts]).all():
            raise TypeError("some of them are neither equal nor one before the other")
    except TypeError as error:
        raise TypeError(f"labels must be of one sortable type; {error}") from error
    offsets = np.concatenate(([0], starts, [n_rows])) if n_rows else np.zeros(1, np.int64)
    return order.astype(np.int32), offsets.astype(np.int64, copy=False)


def _with_bank(
    rows: npt.NDArray[Any], labels: npt.ArrayLike, bank: Any
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the rows of the batch and of the bank together, and their labels."""
    if not isinstance(bank, tuple | list) or len(bank) != 2:
        got = f"{len(bank)} of them" if isinstance(bank, tuple | list) else type(bank).__name__
        raise TypeError(f"bank must be two arrays, (embeddings, labels); got {got}")
    bank_rows = check_embeddings(bank[0], "the bank's embeddings")
    if bank_rows.shape[1] != rows.shape[1]:
        raise ValueError(
            f"the bank's embeddings must have {rows.shape[1]} numbers as the batch; got {bank_rows.shape[1]}"
        )
    if len(rows) + len(bank_rows) >= 2**31:
        raise ValueError("the batch and the bank must have fewer than 2**31 rows together")
    joined = join_labels(labels, len(rows), bank[1], len(bank_rows), "the bank's ")
    return np.concatenate((rows, bank_rows)), joined


def join_labels(
    labels: npt.ArrayLike, n: int, more: npt.ArrayLike, n_more: int, whose: str
) -> npt.NDArray[Any]:
    """Return two checked arrays of labels as one, in which the same are the same; `whose` are the second."""
    group(labels, n)
    try:
        group(more, n_more)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{whose}{error}") from error
    own, others = as_array(labels, "labels"), as_array(more, f"{whose}labels")
    if not n or not n_more:
        return own if n else others
    if _family(own) != _family(others):
        raise TypeError(f"labels must be of one type, and {whose}too; got {own.dtype} and {others.dtype}")
    if np.result_type(own, others).kind == "f" and {own.dtype.kind, others.dtype.kind} != {"f"}:
        # Floats do not hold all whole numbers; Python compares them all.
        own, others = own.astype(object), others.astype(object)
    return np.concatenate((own, others))


def _family(labels: npt.NDArray[Any]) -> str:
    return "number" if labels.dtype.kind in "biuf" else labels.dtype.kind


def _check_anchors(anchors: slice | npt.ArrayLike, n_rows: int) -> npt.NDArray[np.uint8]:
    """Return for each row whether it is an anchor."""
    rows = anchors if isinstance(anchors, slice) else as_array(anchors, "anchors")
    if isinstance(rows, np.ndarray) and rows.size == 0:
        rows = rows.astype(np.intp)
    is_anchor = np.zeros(n_rows, np.uint8)
    try:
        is_anchor[rows] = 1
    except IndexError as error:
        raise ValueError(f"anchors must index the {n_rows} embeddings; {error}") from error
    except TypeError as error:
        raise TypeError(f"anchors must be a slice, row numbers or a mask; {error}") from error
    return is_anchor


def _check_unit(rows: npt.NDArray[Any], parts: Parts) -> None:
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    bad = np.flatnonzero(~(np.abs(norms - 1.0) < _UNIT_TOLERANCE))
    if len(bad):
        name, row = _name_row(int(bad[0]), parts)
        raise ValueError(
            "distance_weighted needs embeddings of norm 1, or distance='cosine': its weights are those of "
            f"distances on the unit sphere; row {row} of {name} has norm {norms[bad[0]]:g}"
        )
