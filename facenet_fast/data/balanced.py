"""Batches of P identities x K images from arrays or a `tf.data.Dataset`, for `model.fit` and for tf.data."""

from __future__ import annotations

import hashlib
import logging
import operator
from collections.abc import Callable, Iterator
from threading import Lock
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from facenet_fast.data.sampling import IdentitySampler
from facenet_fast.errors import UserError

__all__ = ["FEW", "BalancedBatches", "balanced_batches"]

#: What an identity with fewer than K images gives.
FEW = {
    "fewer": "all that it has: the batch is smaller",
    "repeat": "all that it has, some of them several times, so that they are K",
    "drop": "nothing: it is never drawn",
}

_GATHERED_AT_A_TIME = 256  # elements of a tf.data.Dataset

_logger = logging.getLogger("facenet_fast")

_Rows = npt.NDArray[np.int64]


def balanced_batches(
    x: Any,
    labels: npt.ArrayLike | None = None,
    *,
    identities: int,
    images: int,
    seed: int = 0,
    batches: int | None = None,
    few: str = "fewer",
    codes: bool | None = None,
    load: Callable[[Any], Any] | None = None,
    workers: int = 1,
) -> BalancedBatches:
    """Make batches of P identities with K images each, as losses over triplets need them.

    A batch drawn blindly from many identities hardly holds two images of one, so it has hardly a positive
    pair. Here identities are dealt from a shuffled queue that is filled again only when it is empty, and so
    are the images of each identity, across batches and epochs (`IdentitySampler`): every identity is visited
    before any is visited again, and so is every image of an identity.

    Parameters
    ----------
    x : array, list, tuple or dict of these, or tf.data.Dataset
        Images, or anything else with one row an image: NumPy, memory-mapped or HDF5 arrays, which are read
        batch by batch; a list is one array, a tuple or a dict holds several. Or an unbatched dataset of
        ``(x, label)`` elements, of equal shapes and with an end: it is read once and **kept in memory**. The
        size is that of all its elements (10,000 images of 112 x 112 x 3 are 376 MB in uint8, 1.5 GB in
        float32), and twice that while it is read.
    labels : array, shape (n,)
        Who is on each image: numbers, text or whatever sorts. Only with arrays.
    identities : int
        P, identities a batch; 2 to as many as there are.
    images : int
        K, images an identity; 2 to as many as the largest identity has, and with ``few="repeat"`` more.
    seed : int, default=0
        The same seed, labels and settings give the same batches.
    batches : int, optional
        Batches an epoch. By default as many as visit about every image once.
    few : {"fewer", "repeat", "drop"}, default="fewer"
        What an identity with fewer than K images gives: ``"fewer"`` all that it has, so **batches differ in
        size**, up to P * K; ``"repeat"`` all that it has, some of them several times, so every batch has
        P * K rows (an image then makes positive pairs with itself, at distance 0); ``"drop"`` nothing, it is
        never drawn.
    codes : bool, optional
        Whether labels come out as codes: int32, ``classes_[code]`` being the label. By default labels come
        out as they are wherever they can: numbers everywhere, text in `BalancedBatches.as_dataset` only,
        since `model.fit` takes no text from a `keras.utils.PyDataset`. See Notes for when to ask for codes.
    load : callable, optional
        ``load(rows of x)`` is what comes out in place of these rows; say, pixels for paths. Called once a
        batch, in several threads if there are several workers.
    workers : int, default=1
        Threads in which `model.fit` makes batches ahead; more than 1 pays off for a slow `load`.

    Returns
    -------
    BalancedBatches
        A `keras.utils.PyDataset` to be given to `model.fit`; its `as_dataset` is the same as a
        `tf.data.Dataset`.

    Raises
    ------
    UserError
        If a value is not as described, labels are NaN or not as many as rows of x, or no identity has two
        images.

    Notes
    -----
    Give ``shuffle=False`` to `model.fit`. Without, Keras asks for the batches of an epoch in an order drawn
    from Python's global `random`, and warns about a `tf.data.Dataset`. An epoch's batches are the same then,
    but their order is left to chance, and a state taken within an epoch does not know it.

    `facenet_fast.losses` take labels as they are. For other losses given to `model.compile`, Keras turns them
    into float32: text fails, and whole numbers beyond 2**24 may become equal to others. ``codes=True`` avoids
    both.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.zeros((12, 8, 8, 3), dtype=np.float32)
    >>> names = np.repeat(["ann", "bob", "eve"], 4)
    >>> batches = balanced_batches(images, names, identities=2, images=2, seed=1)
    >>> len(batches)
    3
    >>> x, y = batches[0]
    >>> x.shape, batches.classes_[y].tolist()
    ((4, 8, 8, 3), ['ann', 'ann', 'bob', 'bob'])
    >>> batches.as_dataset().element_spec[0].shape
    TensorShape([4, 8, 8, 3])
    """
    if isinstance(x, tf.data.Dataset):
        if labels is not None:
            raise UserError("labels must come with a tf.data.Dataset's elements; got labels besides it")
        x, labels = _gather(x)
    elif labels is None:
        raise UserError("labels must be given, unless x is a tf.data.Dataset of (x, label) elements")
    return BalancedBatches(
        x,
        labels,
        identities=identities,
        images=images,
        seed=seed,
        batches=batches,
        few=few,
        codes=codes,
        load=load,
        workers=workers,
    )


class BalancedBatches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of P identities x K images; made by `balanced_batches`, which says what the parameters mean.

    The batches are one endless stream, cut into epochs of ``len(batches)``. ``batches[i]`` is batch i of this
    epoch, whoever asks, in which order and how often.

    There are two ways to the next epoch, each after this one was read to its end:

    - `on_epoch_end`, which `model.fit` calls, once all batches of this epoch were asked for. An epoch that
      was cut short is given again; with `steps_per_epoch`, take a divisor of ``len(batches)``.
    - ``for x, y in batches``, and each pass over `as_dataset`: making the last batch moves on.

    Attributes
    ----------
    classes_ : array, shape (n_classes,)
        The different labels, ascending, whether drawn or not; a label's place is its code.

    Notes
    -----
    Under a `tf.distribute` strategy `model.fit` reads some batches before its first epoch; if these are a
    whole epoch, training starts with the next one.
    """

    def __init__(
        self,
        x: Any,
        labels: npt.ArrayLike,
        *,
        identities: int,
        images: int,
        seed: int = 0,
        batches: int | None = None,
        few: str = "fewer",
        codes: bool | None = None,
        load: Callable[[Any], Any] | None = None,
        workers: int = 1,
    ) -> None:
        super().__init__(workers=_at_least("workers", workers, 1))
        self._identities = _at_least("identities", identities, 2)
        self._images = _at_least("images", images, 2)
        seed = _at_least("seed", seed, 0)
        if few not in FEW:
            raise UserError(f"few must be one of {', '.join(FEW)}; got {few!r}")
        if codes is not None and not isinstance(codes, (bool, np.bool_)):
            raise UserError(f"codes must be True, False or None; got {codes!r}")
        if load is not None and not callable(load):
            raise UserError(f"load must be callable; got {load!r}")
        self._few = few
        self._load = load
        self._x = _map(_as_rows, x)
        row = _checked_labels(labels, _n_rows(self._x))
        self.classes_, code_of = _coded(row)
        counts = np.bincount(code_of, minlength=len(self.classes_))
        is_drawn = self._check_counts(counts)
        as_codes = code_of.astype(np.int32)
        self._keras_labels = as_codes if codes or (codes is None and row.dtype.kind not in "biuf") else row
        self._tf_labels = as_codes if codes or not _fits_tensors(row) else row

        grouped = np.argsort(code_of, kind="stable")
        self._order: _Rows = grouped[is_drawn[code_of[grouped]]]
        counts = counts[is_drawn]
        given = np.minimum(counts, self._images)
        if batches is None:
            # Images there are, by different images in a batch on average, rounded up.
            batches = -(-int(counts.sum()) * len(counts) // (self._identities * int(given.sum())))
        self._n_batches = _at_least("batches", batches, 1)
        self._is_full = few == "repeat" or int(given.min()) == self._images
        self._fingerprint = hashlib.blake2b(code_of.astype("<i8").tobytes(), digest_size=8).hexdigest()
        self._draws = _Draws(
            np.concatenate([[0], np.cumsum(counts)]), self._identities, self._images, seed, self._n_batches
        )
        self._lock = Lock()
        self._position = 0
        self._asked: set[int] = set()  # batches of this epoch
        self._has_begun = False  # on_epoch_begin came, on_epoch_end did not yet
        self._moved_unbegun = False  # the last on_epoch_end moved on without an on_epoch_begin before it

    def __len__(self) -> int:
        """Return the number of batches an epoch."""
        return self._n_batches

    def __getitem__(self, index: int) -> tuple[Any, npt.NDArray[Any]]:
        """Return batch `index` of this epoch.

        Parameters
        ----------
        index : int
            In ``0 .. len(self) - 1``.

        Returns
        -------
        x : array, or tuple or dict of arrays, shape (n, ...)
            What `load` makes of the rows of x, or these rows; n is P * K, or less with ``few="fewer"``.
        labels : array, shape (n,)
            Labels or their codes, those of an identity side by side.

        Raises
        ------
        IndexError
            If there is no such batch.
        """
        index = operator.index(index)
        if not 0 <= index < self._n_batches:
            raise IndexError(f"batch must be in 0 .. {self._n_batches - 1}; got {index}")
        with self._lock:
            pool = self._draws.pool(self._position + index)
            self._asked.add(index)
        return self._batch(pool, self._keras_labels)

    def __iter__(self) -> Iterator[tuple[Any, npt.NDArray[Any]]]:
        """Yield this epoch's batches; the last of them moves on to the next epoch."""
        return self._pass(self._keras_labels)

    def as_dataset(self, *, n_prefetched: int = 2) -> tf.data.Dataset:
        """Return the same batches, in the same order, as a `tf.data.Dataset`.

        Each pass over it is an epoch: this one, then the next. It and this object share what epoch it is; a
        pass that is given up before its last batch was read ahead changes nothing.

        Parameters
        ----------
        n_prefetched : int, default=2
            Batches that are made ahead; 0 for none.

        Returns
        -------
        tf.data.Dataset
            Of ``(x, labels)``, of known cardinality ``len(self)``. Batches have a known size if all of them
            have P * K rows. To find shapes, one batch is made here.

        Raises
        ------
        UserError
            If `n_prefetched` is negative.
        """
        n_prefetched = _at_least("n_prefetched", n_prefetched, 0)
        size = self._identities * self._images if self._is_full else None
        with self._lock:
            pool = self._draws.pool(self._position)
        signature = tuple(
            _map(lambda rows: _spec(rows, size), part) for part in self._batch(pool, self._tf_labels)
        )
        dataset = tf.data.Dataset.from_generator(
            lambda: self._pass(self._tf_labels), output_signature=signature
        ).apply(tf.data.experimental.assert_cardinality(self._n_batches))
        return dataset.prefetch(n_prefetched) if n_prefetched else dataset

    @property
    def position(self) -> int:
        """How many batches of the stream come before this epoch."""
        return self._position

    def state(self, position: int | None = None) -> dict[str, Any]:
        """Return all that decides the batches from a position on, as plain values that `json.dumps` takes.

        Parameters
        ----------
        position : int, optional
            How many batches of the stream were used; by default those before this epoch. Within an epoch only
            the trainer knows, since batches are made ahead: in training that started with the stream, and
            takes a step a batch, it is ``int(model.optimizer.iterations.numpy())``.

        Returns
        -------
        dict
            For `restore`. Its size grows with the number of images.

        Raises
        ------
        UserError
            If the position is before the previous epoch, which is all that is remembered.
        """
        with self._lock:
            position = self._position if position is None else _at_least("position", position, 0)
            return {**self._settings(), "position": position, "sampler": self._draws.state(position)}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a `state`: an epoch starts there, and the batches are those that would have followed.

        The seed and the number of batches an epoch may be others than those of the object that the state is
        of; the stream is that of the state. Passes that are going on must not be continued.

        Raises
        ------
        UserError
            If the state is of other labels, `identities`, `images` or `few`, or no state.
        """
        if not {*self._settings(), "position", "sampler"} <= state.keys():
            raise UserError("state must be what state() returned; got other keys: " + ", ".join(state))
        for name, value in self._settings().items():
            if state[name] != value:
                its = "" if name == "labels" else f", {state[name]!r}; got {value!r}"
                raise UserError(f"{name} must be as they were when the state was saved{its}")
        with self._lock:
            self._draws.restore(state["position"], state["sampler"])
            self._position = state["position"]
            self._asked.clear()
            self._has_begun = self._moved_unbegun = False

    def on_epoch_begin(self) -> None:
        """Tell that an epoch begins, before the first of its batches is asked for; `model.fit` does."""
        with self._lock:
            if self._moved_unbegun and not self._asked:
                self._position -= self._n_batches
            self._moved_unbegun = False
            self._has_begun = True

    def on_epoch_end(self) -> None:
        """Move on to the next epoch, if all batches of this one were asked for.

        `model.fit` calls it. A loop of your own calls it too; with several workers, `on_epoch_begin` besides.
        """
        # model.fit makes a batch or two to see their shapes and then calls this, before its first epoch.
        # Where these are a whole epoch, on_epoch_begin, which follows at once, takes the move back; with
        # threads that were started before on_epoch_begin it would come too late.
        with self._lock:
            is_over = len(self._asked) == self._n_batches and (self._has_begun or self.workers == 1)
            if is_over:
                self._move_on()
            elif not self._has_begun:
                self._asked.clear()
            self._moved_unbegun = is_over and not self._has_begun
            self._has_begun = False

    @property
    def use_multiprocessing(self) -> bool:
        """False: what epoch it is is known to this process only."""
        return False

    @use_multiprocessing.setter
    def use_multiprocessing(self, value: bool) -> None:
        if value:
            raise UserError("use_multiprocessing must be False; set workers for more threads")

    def _check_counts(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Demand that P x K can be drawn, and tell which identities are."""
        most = int(counts.max(initial=0))
        if most == 1:
            raise UserError(
                "at least one identity must have two images (there is no positive pair without); "
                f"each of the {len(counts)} identities has one"
            )
        if self._identities > len(counts):
            raise UserError(
                f"identities must be at most the number of identities, {len(counts)}; got {self._identities}"
            )
        if self._images > most and self._few != "repeat":
            raise UserError(
                f'images must be at most the images of the largest identity, {most}, unless few="repeat"; '
                f"got {self._images}"
            )
        is_drawn = counts >= (self._images if self._few == "drop" else 1)
        n_drawn = np.count_nonzero(is_drawn)
        if self._identities > n_drawn:
            raise UserError(
                f"identities must be at most the number of identities with at least {self._images} images, "
                f"{n_drawn}; got {self._identities}"
            )
        return is_drawn

    def _settings(self) -> dict[str, Any]:
        """Return what a state must agree with."""
        return {
            "identities": self._identities,
            "images": self._images,
            "few": self._few,
            "labels": self._fingerprint,
        }

    def _move_on(self) -> None:
        self._draws.forget_before(self._position)  # this epoch is kept, for states
        self._position += self._n_batches
        self._asked.clear()

    def _pass(self, labels: npt.NDArray[Any]) -> Iterator[tuple[Any, npt.NDArray[Any]]]:
        position = self._position
        for index in range(self._n_batches):
            with self._lock:
                pool = self._draws.pool(position + index)
                # Before it is handed out, so that whoever has got it finds the next epoch.
                if index == self._n_batches - 1 and self._position == position:
                    self._move_on()
                    self._moved_unbegun = False
            yield self._batch(pool, labels)

    def _batch(self, pool: _Pool, labels: npt.NDArray[Any]) -> tuple[Any, npt.NDArray[Any]]:
        rows = self._order[self._repeated(pool) if self._few == "repeat" else pool[0]]
        x = _map(lambda leaf: _take(leaf, rows), self._x)
        if self._load is not None:
            x = _map(np.asarray, self._load(x))
            n_rows = _n_rows(x)
            if n_rows != len(rows):
                raise UserError(f"load must return as many rows as it is given, {len(rows)}; got {n_rows}")
        return x, labels[rows]

    def _repeated(self, pool: _Pool) -> _Rows:
        """Return K images of each identity of the pool, again from its first one where it has fewer."""
        images, identities = pool
        starts = np.flatnonzero(np.diff(identities)) + 1
        # Those of an identity are in a random order, so chance decides which come once more.
        return np.concatenate([np.resize(part, self._images) for part in np.split(images, starts)])


_Pool = tuple[_Rows, npt.NDArray[np.int32]]


class _Draws:
    """An `IdentitySampler`'s pools by their position in its stream, kept as long as they may be asked for.

    Pools are drawn in order, whatever is asked for, and the sampler's state is kept at every `stride`-th.
    """

    def __init__(self, offsets: _Rows, identities: int, images: int, seed: int, stride: int) -> None:
        self._settings = (offsets, identities, images)
        self._sampler = IdentitySampler(*self._settings, seed)
        self._stride = stride
        self._origin = self._first = self._next = 0
        self._pools: dict[int, _Pool] = {}
        self._marks: dict[int, dict[str, Any]] = {}

    def pool(self, position: int) -> _Pool:
        if position < self._first:
            raise UserError("a pass over batches must end within the epoch after its own")
        self._draw_to(position + 1)
        return self._pools[position]

    def state(self, position: int) -> dict[str, Any]:
        """Return the sampler's state before the pool at a position."""
        if position < self._first:
            raise UserError(f"position must be at least {self._first}, the previous epoch's; got {position}")
        self._draw_to(position)
        if position == self._next:
            return self._sampler.state()
        marked = position - (position - self._origin) % self._stride
        sampler = IdentitySampler(*self._settings, seed=0)
        sampler.restore(self._marks[marked])
        for _ in range(marked, position):
            sampler.next_pool()
        return sampler.state()

    def restore(self, position: int, state: dict[str, Any]) -> None:
        self._sampler.restore(state)
        self._origin = self._first = self._next = position
        self._pools.clear()
        self._marks.clear()

    def forget_before(self, position: int) -> None:
        """Forget the pools before a position, `stride` or a multiple of it from the first."""
        self._first = position
        self._pools = {n: pool for n, pool in self._pools.items() if n >= position}
        self._marks = {n: mark for n, mark in self._marks.items() if n >= position}

    def _draw_to(self, position: int) -> None:
        while self._next < position:
            if (self._next - self._origin) % self._stride == 0:
                self._marks[self._next] = self._sampler.state()
            self._pools[self._next] = self._sampler.next_pool()
            self._next += 1


def _gather(dataset: tf.data.Dataset) -> tuple[Any, npt.NDArray[Any]]:
    """Read a dataset of (x, label) elements into arrays."""
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) != 2:
        raise UserError(f"a tf.data.Dataset's elements must be pairs (x, label); got {spec}")
    if not all(isinstance(leaf, tf.TensorSpec) for leaf in tf.nest.flatten(spec)):
        raise UserError(f"a tf.data.Dataset's elements must be dense tensors; got {spec}")
    if isinstance(spec[1], (tuple, dict)) or spec[1].shape.rank not in (0, None):
        raise UserError(
            "a tf.data.Dataset's elements must be one image each, with a scalar label (unbatch() takes "
            f"batches apart); got labels {spec[1]}"
        )
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise UserError("a tf.data.Dataset must have an end, since it is read once; got an infinite one")
    try:
        parts = list(dataset.batch(_GATHERED_AT_A_TIME).as_numpy_iterator())
        if not parts:
            raise UserError("a tf.data.Dataset must have elements; got none")
        x, labels = _concatenated(parts)
    except (tf.errors.InvalidArgumentError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"a tf.data.Dataset's elements must have equal shapes; got {spec}") from error
    n_bytes = sum(leaf.nbytes for leaf in tf.nest.flatten(x))
    _logger.info("keeping %d elements of a dataset in memory: %.1f MB", len(labels), n_bytes / 1e6)
    return x, labels


def _concatenated(parts: list[Any]) -> Any:
    """Join equal structures of arrays, array by array."""
    first = parts[0]
    if isinstance(first, dict):
        return {key: _concatenated([part[key] for part in parts]) for key in first}
    if isinstance(first, tuple):
        return tuple(_concatenated(list(items)) for items in zip(*parts, strict=True))
    return np.concatenate(parts)


def _map(function: Callable[[Any], Any], structure: Any) -> Any:
    """Apply a function to each array of a structure of tuples and dicts."""
    if isinstance(structure, dict):
        return {key: _map(function, item) for key, item in structure.items()}
    if isinstance(structure, tuple):
        return tuple(_map(function, item) for item in structure)
    return function(structure)


def _as_rows(leaf: Any) -> Any:
    """Return what can be indexed by an array of rows; arrays that live on a disk stay there."""
    if isinstance(leaf, np.ndarray):
        return leaf
    # A tensor takes no array of rows as its index, and a pandas table takes columns.
    is_array = hasattr(leaf, "shape") and hasattr(leaf, "dtype")
    if is_array and not (tf.is_tensor(leaf) or hasattr(leaf, "iloc")):
        return leaf
    return np.asarray(leaf)


def _n_rows(x: Any) -> int:
    """Return how many rows each array of a structure has."""
    shapes: list[tuple[int, ...]] = []
    _map(lambda leaf: shapes.append(tuple(leaf.shape)), x)
    if not shapes or not all(shapes):
        raise UserError(f"x must be an array with one row an image, or several; got shapes {shapes}")
    if len({shape[0] for shape in shapes}) > 1:
        raise UserError(f"the arrays of x must have equally many rows; got shapes {shapes}")
    return shapes[0][0]


def _take(leaf: Any, rows: _Rows) -> npt.NDArray[Any]:
    if isinstance(leaf, np.ndarray):
        return leaf[rows]
    ascending, places = np.unique(rows, return_inverse=True)  # as HDF5 demands
    return np.asarray(leaf[ascending])[places]


def _checked_labels(labels: npt.ArrayLike, n_rows: int) -> npt.NDArray[Any]:
    row = np.asarray(labels)
    if row.ndim != 1:
        raise UserError(f"labels must be a row, one label an image; got shape {row.shape}")
    if len(row) != n_rows:
        raise UserError(f"labels must be as many as rows of x, {n_rows}; got {len(row)}")
    return row


def _coded(row: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], _Rows]:
    """Return the different labels, ascending, and for each label its place among them."""
    try:
        is_missing = np.asarray(row != row, dtype=bool)
        if is_missing.any():
            raise UserError(f"labels must not be NaN; got it at {np.flatnonzero(is_missing)[0]}")
        classes, code_of = np.unique(row, return_inverse=True)
    except TypeError as error:
        raise UserError(f"labels must be of one kind that sorts; {error}") from error
    return classes, code_of.astype(np.int64)


def _is_text(row: npt.NDArray[Any]) -> bool:
    return row.dtype.kind in "SU" or (
        row.dtype.kind == "O" and all(isinstance(label, (str, bytes)) for label in row.tolist())
    )


def _fits_tensors(row: npt.NDArray[Any]) -> bool:
    return row.dtype.kind in "biuf" or _is_text(row)


def _spec(rows: npt.NDArray[Any], size: int | None) -> tf.TensorSpec:
    dtype = tf.string if rows.dtype.kind in "SUO" else tf.as_dtype(rows.dtype)
    return tf.TensorSpec((size, *rows.shape[1:]), dtype)


def _at_least(name: str, value: int, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError as error:
        raise UserError(f"{name} must be a whole number; got {value!r}") from error
    if number < least:
        raise UserError(f"{name} must be at least {least}; got {number}")
    return number
