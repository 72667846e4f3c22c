"""Output files: refused before any work where they cannot be written, and whole or not there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from facenet_fast.errors import UserError

__all__ = ["check_output", "written_aside"]


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
