"""Output files and folders: refused before any work where they cannot be written, and whole or not there."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator

from facenet_fast.errors import UserError

__all__ = ["check_output", "check_output_folder", "folder_written_aside", "write_text_aside", "written_aside"]


def check_output(path: str, ending: str, what: str) -> None:
    """Refuse a file that could not be written.

    Parameters
    ----------
    path : str
        The file to write, later.
    ending : str
        What its name must end in, like ``.npz``.
    what : str
        What it will hold, for people.

    Raises
    ------
    UserError
        If it is a folder, is in none, is in one that cannot be written, or is called otherwise.
    """
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path) or not os.path.basename(path):
        raise UserError(f"the output must be a file, OUT{ending}; {path!r} is a folder")
    if not os.path.isdir(folder):
        raise UserError(f"the output's folder must exist; got {path!r}")
    if not os.access(folder, os.W_OK):
        raise UserError(f"the output's folder must be writable; got {path!r}")
    if not path.endswith(ending):
        raise UserError(f"the output must be called OUT{ending}, for {what}; got {path!r}")


@contextlib.contextmanager
def written_aside(path: str) -> Iterator[str]:
    """Give the name of a file to write beside `path`, which gets that name once the block is left.

    What bears the name is whole, or what it was before, or is not there; nothing is left on failure.

    Parameters
    ----------
    path : str
        The file to write; the other's name ends as this one's does.

    Yields
    ------
    str

    Raises
    ------
    UserError
        If the file cannot be written.
    """
    folder, name = os.path.split(os.path.abspath(path))
    aside = os.path.join(folder, f".{name}.{os.getpid()}{os.path.splitext(name)[1]}")
    try:
        yield aside
        os.replace(aside, path)
    except OSError as error:
        raise UserError(f"cannot write {path!r}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.remove(aside)


def write_text_aside(path: str, text: str) -> str:
    """Write a text in UTF-8 aside, give it its name once it is whole, and return `path`.

    Raises
    ------
    UserError
        If the file cannot be written.
    """
    # Paths of data sets, which texts may hold, may hold bytes that are no text.
    with (
        written_aside(path) as aside,
        open(aside, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as file,
    ):
        file.write(text)
    return path


def check_output_folder(path: str, is_ours: Callable[[str], bool], what: str) -> None:
    """Refuse a folder that could not be written, or that would take something else's place.

    Parameters
    ----------
    path : str
        The folder to write, later.
    is_ours : callable
        Says of a folder whether it may be replaced.
    what : str
        What such a folder is, for people, like "a SavedModel".

    Raises
    ------
    UserError
        If it is a file, is in no folder or in one that cannot be written, or holds something else.
    """
    folder = os.path.dirname(os.path.realpath(path))
    rule = f"the output must be a folder, new, empty or {what}"
    if not path or (os.path.exists(path) and not os.path.isdir(path)):
        raise UserError(f"{rule}; " + (f"{path!r} is a file" if path else "got ''"))
    if not os.path.isdir(folder):
        raise UserError(f"the output's folder must exist; got {path!r}")
    if not os.access(folder, os.W_OK):
        raise UserError(f"the output's folder must be writable; got {path!r}")
    if os.path.isdir(path) and not is_ours(path):
        try:
            found = sorted(os.listdir(path))
        except OSError as error:
            raise UserError(f"{rule}; {path!r} cannot be read: {error.strerror}") from error
        if found:
            raise UserError(
                f"{rule}; {path!r} holds {', '.join(found[:3])}" + (", ..." if len(found) > 3 else "")
            )


@contextlib.contextmanager
def folder_written_aside(path: str, is_ours: Callable[[str], bool]) -> Iterator[str]:
    """Give the name of a folder to write beside `path`, which gets that name once the block is left.

    What bears the name is whole, or what it was before, or is not there; nothing is left on failure. A folder
    that is there is replaced with all that it holds; for a moment between nothing bears the name.

    Parameters
    ----------
    path : str
        The folder to write. Where it is a link, the folder that it leads to is replaced.
    is_ours : callable
        Says of a folder whether it may be replaced; of others only empty ones are.

    Yields
    ------
    str
        Of no folder yet; its last component is that of `path`.

    Raises
    ------
    UserError
        If the folder cannot be written, or something else is there.
    """
    folder = os.path.realpath(path)
    parent, name = os.path.split(folder)
    try:
        # In here are the new folder and, for a moment, the old one: mkdtemp's own is for its owner alone.
        aside = tempfile.mkdtemp(prefix=f".{name}.", dir=parent)
    except OSError as error:
        raise UserError(f"cannot write {path!r}: {error.strerror or error}") from error
    new, old = os.path.join(aside, name), os.path.join(aside, f"{name}.old")
    try:
        yield new
        try:
            if is_ours(folder):
                os.replace(folder, old)
            os.replace(new, folder)
        except BaseException:
            if os.path.isdir(old):
                os.replace(old, folder)
            raise
    except OSError as error:
        raise UserError(f"cannot write {path!r}: {error.strerror or error}") from error
    finally:
        # The only copy of the old folder is never removed: not even where it could not be put back.
        if os.path.exists(folder) or not os.path.exists(old):
            shutil.rmtree(aside, ignore_errors=True)
