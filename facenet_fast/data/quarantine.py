"""Images that training leaves out: a text file of paths and reasons, which anybody may edit."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from facenet_fast.data.identities import IdentityDataset, resolve_data_dirs, shorten
from facenet_fast.errors import UserError
from facenet_fast.files import write_text_aside

__all__ = ["read_quarantine", "without_quarantined", "write_quarantine"]

_logger = logging.getLogger("facenet_fast")


def write_quarantine(reasons: Mapping[str, str], path: str, data_dir: str) -> None:
    """Write images and the reasons to leave them out, one ``PATH<TAB>REASON`` a line.

    Parameters
    ----------
    reasons : mapping of str to str
        By the image's path, relative to the folder. A path with a line break cannot be written and is named
        in a warning.
    path : str
        The file to write.
    data_dir : str
        The folder, named in the file's head.

    Raises
    ------
    UserError
        If the file cannot be written.
    """
    lines = [
        f"# Images of {_one_line(data_dir)} to leave out: facenet-fast train --quarantine FILE",
        "# IDENTITY/FILE, TAB, reason. Take out a line to keep the image.",
    ]
    broken = []
    for image, reason in reasons.items():
        if "\n" in image or "\r" in image:
            broken.append(repr(image))
            continue
        # A first "#" would make it a comment.
        shown = f"./{image}" if image.startswith("#") else image
        lines.append(f"{shown}\t{_one_line(reason)}")
    if broken:
        _logger.warning("left out of the list, for line breaks in their names: %s", shorten(broken))
    write_text_aside(path, "\n".join(lines) + "\n")


def read_quarantine(path: str) -> list[str]:
    """Return the paths in a file that `write_quarantine` or a person wrote, in its order.

    Lines that begin with ``#`` and empty ones are passed over; the reason may be missing.

    Parameters
    ----------
    path : str
        The file.

    Raises
    ------
    UserError
        If the file cannot be read.
    """
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            lines = file.read().split("\n")
    except OSError as error:
        raise UserError(f"the quarantine file must be readable; {path!r}: {error.strerror}") from error
    # The last TAB: reasons have none, and names may.
    return [line.rpartition("\t")[0] or line for line in lines if line.strip() and not line.startswith("#")]


def without_quarantined(dataset: IdentityDataset, data_dir: str, quarantine_path: str) -> IdentityDataset:
    """Return the dataset less the images that a file lists; identities that lose their last image go too.

    Parameters
    ----------
    dataset : IdentityDataset
        What `scan_identities` found.
    data_dir : str
        Where it found it. A listed path is relative to this folder, to any of several, or to the current one.
    quarantine_path : str
        The file. Paths in it that are no image of the dataset are named in one warning.

    Returns
    -------
    IdentityDataset

    Raises
    ------
    UserError
        If the file cannot be read.

    Examples
    --------
    >>> import os
    >>> from facenet_fast.data.identities import scan_identities
    >>> for path in ("people/ann/1.jpg", "people/ann/2.jpg", "people/bob/1.jpg"):
    ...     os.makedirs(os.path.dirname(path), exist_ok=True)
    ...     open(path, "w").close()
    >>> write_quarantine({"ann/2.jpg": "empty"}, "quarantine.txt", "people")
    >>> without_quarantined(scan_identities("people"), "people", "quarantine.txt").counts.tolist()
    [1, 1]
    """
    roots = (*resolve_data_dirs(data_dir), "")
    known = {os.path.normpath(path): path for path in dataset.paths}
    unwanted, unknown = set(), []
    for listed in read_quarantine(quarantine_path):
        candidates = {os.path.normpath(os.path.join(root, listed)) for root in roots}
        found = [known[candidate] for candidate in candidates if candidate in known]
        unwanted.update(found)
        if not found:
            unknown.append(listed)
    if unknown:
        _logger.warning(
            "paths in %s that are no images of %s: %s",
            quarantine_path,
            data_dir,
            shorten(unknown),
        )
    return dataset.without(unwanted)


def _one_line(text: str) -> str:
    return " ".join(text.split())
