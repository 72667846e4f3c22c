"""`facenet-fast embed`: the embeddings of a folder of images in one file; if stopped, it goes on there."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenet_fast.config import EmbedConfig
from facenet_fast.data.identities import (
    is_image_name,
    relative_paths,
    resolve_data_dirs,
    scan_identities,
)
from facenet_fast.data.images import ImageStore
from facenet_fast.errors import UserError
from facenet_fast.evaluation.embed import Embedder, embed_batches
from facenet_fast.files import check_output, written_aside
from facenet_fast.report.progress import image_progress

__all__ = ["EmbeddedFolder", "embed_folder"]

_SECONDS_BETWEEN_SAVES = 10.0

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class EmbeddedFolder:
    """What is written: the readable images of a folder and their embeddings.

    Attributes
    ----------
    embeddings : float32 (n, D)
        (n, 2 D) with mirror images.
    paths : array of str (n,)
        Relative to the folder; as they were found where several folders were given.
    labels : int32 (n,)
        Identity of each image, an index into `names`; -1 where the images were in no identity's folder.
    names : array of str (n_identities,)
    unreadable : array of str
        Images that are left out, as in `paths`.
    """

    embeddings: Floats
    paths: NDArray[np.str_]
    labels: NDArray[np.int32]
    names: NDArray[np.str_]
    unreadable: NDArray[np.str_]


def embed_folder(config: EmbedConfig) -> EmbeddedFolder:
    """Embed every image of a folder and write ``OUT.npz``.

    The file holds the arrays of `EmbeddedFolder`, and ``model`` (what embedded, a text), ``image_size``,
    ``standardisation`` and ``flipped``; ``numpy.load`` reads it without pickle.

    Until it is whole, rows are kept in the folder ``OUT.npz.part`` and saved every ten seconds. The same
    command goes on from there if it is stopped, even by a power cut, and gives the same numbers, bit for bit.
    Where the model, the images or a setting has changed since, it says so and starts anew.

    Parameters
    ----------
    config : EmbedConfig
        The images, the model and the file to write. The images are in folders of identities, or, where there
        are none, right in the folder.

    Returns
    -------
    EmbeddedFolder

    Raises
    ------
    UserError
        If there is no image or none can be read, the model cannot be read, or the file cannot be written.
    """
    from facenet_fast.models import load_embedder  # imports TensorFlow

    check_output(config.output_path, ".npz", "embeddings")
    paths, labels, names = _find_images(config.images_dir)
    embedder = load_embedder(
        config.model,
        image_size=config.image_size,
        standardisation="fixed" if config.use_fixed_image_standardization else None,
    )
    print(f"Model: {embedder.description}")
    part_dir = f"{config.output_path}.part"
    try:
        rows = _embed_in_parts(part_dir, config, embedder, paths)
    except OSError as error:
        raise UserError(f"cannot write {part_dir!r}: {error.strerror or error}") from error
    readable = ~np.isnan(rows[:, 0])
    if not readable.any():
        shutil.rmtree(part_dir)
        raise UserError(f"there must be images that can be read; of {len(paths)} none can")
    shown = np.array(relative_paths(paths, config.images_dir), dtype=str)
    result = EmbeddedFolder(
        rows if readable.all() else rows[readable],
        shown[readable],
        labels[readable],
        np.array(names, dtype=str),
        shown[~readable],
    )
    with written_aside(config.output_path) as aside, open(aside, "wb") as file:
        np.savez(
            file,
            **vars(result),
            model=np.array(embedder.description),
            image_size=np.array(embedder.image_size),
            standardisation=np.array(embedder.standardisation),
            flipped=np.array(config.use_flipped_images),
        )
        file.flush()
        os.fsync(file.fileno())
    shutil.rmtree(part_dir)
    if len(result.unreadable):
        print(f"Left out {len(result.unreadable)} images that cannot be read")
    print(
        f"{len(result.embeddings)} embeddings of {result.embeddings.shape[1]} numbers: {config.output_path}"
    )
    return result


def _find_images(images_dir: str) -> tuple[tuple[str, ...], NDArray[np.int32], tuple[str, ...]]:
    """Return paths, labels and names of identities; without identities, the images right in the folder."""
    try:
        dataset = scan_identities(images_dir)
    except UserError:
        paths = tuple(
            os.path.join(folder, name)
            for folder in resolve_data_dirs(images_dir)
            for name in sorted(os.listdir(folder))
            if is_image_name(name) and not name.startswith(".") and os.path.isfile(os.path.join(folder, name))
        )
        if not paths:
            raise
        return paths, np.full(len(paths), -1, dtype=np.int32), ()
    return dataset.paths, dataset.labels, dataset.names


def _embed_in_parts(part_dir: str, config: EmbedConfig, embedder: Embedder, paths: Sequence[str]) -> Floats:
    """Return a row for every image, NaN for one that cannot be read, from `part_dir` or fresh."""
    width = embedder.embedding_size * (2 if config.use_flipped_images else 1)
    start = time.monotonic()
    with _Part(part_dir, _task_of(config, embedder, paths), width, len(paths)) as part:
        n_before = part.n_done
        rest = np.arange(n_before, len(paths))
        # Each image is read once, so none is kept.
        store = ImageStore(paths, embedder.store_size, cache_bytes=0)
        batches = embed_batches(
            embedder, store, rest, batch_size=config.batch_size, flipped=config.use_flipped_images
        )
        try:
            with image_progress(len(paths), n_before) as progress:
                for rows in batches:
                    part.append(rows)
                    progress(part.n_done)
        except KeyboardInterrupt:
            print(f"Stopped after {part.n_done} of {len(paths)} images; the same command goes on from there")
            raise
    seconds = time.monotonic() - start
    print(
        f"Embedded {len(rest)} images in {seconds:.1f} seconds, {len(rest) / max(seconds, 1e-9):.0f} a second"
    )
    return part.rows()


def _task_of(config: EmbedConfig, embedder: Embedder, paths: Sequence[str]) -> dict[str, Any]:
    """Describe all that the rows depend on, by the name under which a change is told."""
    return {
        "model": _stamps(_model_files(config.model)),
        "images": hashlib.sha256(json.dumps(_stamps(paths)).encode()).hexdigest(),
        "image_size": [embedder.image_size, embedder.store_size],
        "standardisation": embedder.standardisation,
        "use_flipped_images": config.use_flipped_images,
        # A batch's size may change the last bits of its rows.
        "batch_size": config.batch_size,
    }


def _model_files(model: str) -> list[str]:
    if os.path.isfile(model):
        return [model]
    from facenet_fast.checkpoints import find_checkpoint

    return sorted(glob.glob(f"{glob.escape(find_checkpoint(model))}.*"))


def _stamps(paths: Sequence[str]) -> list[list[Any]]:
    """Return name, size and time of change of files, which tell whether one is still what it was."""
    stamps = []
    for path in paths:
        try:
            status = os.stat(path)
            stamps.append([os.path.abspath(path), status.st_size, status.st_mtime_ns])
        except OSError:
            stamps.append([os.path.abspath(path), -1, -1])
    return stamps


class _Part:
    """Rows done so far: ``rows.f32`` holds them, ``state.json`` says how many count and what they are of.

    The count is written after the rows are on the disk, so that it never promises what is not there.
    """

    def __init__(self, part_dir: str, task: dict[str, Any], width: int, n_images: int) -> None:
        self._rows_path = os.path.join(part_dir, "rows.f32")
        self._state_path = os.path.join(part_dir, "state.json")
        self._task, self._width = task, width
        os.makedirs(part_dir, exist_ok=True)
        self.n_done = self._n_to_keep(n_images)
        with open(self._rows_path, "ab") as file:
            file.truncate(self.n_done * width * 4)
        # At once, so that the count of an earlier task is never taken for one of the rows to come.
        self._write_state()
        self._file = open(self._rows_path, "ab")  # noqa: SIM115 - closed on leaving

    def _n_to_keep(self, n_images: int) -> int:
        """Return how many rows of an earlier run serve this one, and say why not."""
        if not os.path.exists(self._state_path):
            return 0
        try:
            with open(self._state_path, encoding="utf-8") as file:
                state = json.load(file)
            n_done, task = int(state["n_done"]), dict(state["task"])
            n_bytes = os.path.getsize(self._rows_path)
        except (OSError, ValueError, TypeError, KeyError):
            n_done, task, n_bytes = -1, self._task, 0
        changed = [name for name in self._task if task.get(name) != self._task[name]]
        if changed:
            print(f"Starting anew: since an earlier run was stopped, {', '.join(changed)} changed")
            return 0
        if not 0 <= n_done * self._width * 4 <= n_bytes:
            print("Starting anew: what an earlier run left is damaged")
            return 0
        print(f"Going on after {n_done} of {n_images} images that an earlier run embedded")
        return n_done

    def append(self, rows: Floats) -> None:
        """Add rows; now and then all are brought to the disk."""
        self._file.write(rows.tobytes())
        self.n_done += len(rows)
        if time.monotonic() - self._saved >= _SECONDS_BETWEEN_SAVES:
            self._save()

    def rows(self) -> Floats:
        """Return all rows that are done."""
        rows: Floats = np.fromfile(self._rows_path, dtype=np.float32, count=self.n_done * self._width)
        return rows.reshape(self.n_done, self._width)

    def _save(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._write_state()

    def _write_state(self) -> None:
        aside = f"{self._state_path}.new"
        with open(aside, "w", encoding="utf-8") as file:
            json.dump({"n_done": self.n_done, "task": self._task}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, self._state_path)
        self._saved = time.monotonic()

    def __enter__(self) -> _Part:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._save()
        finally:
            self._file.close()
