"""Keep down what libraries say of their own doings, unless they fail."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator

from facenet_fast.errors import UserError

__all__ = ["quiet"]

# File descriptor 2 belongs to the whole process: threads that turn it over at once would not turn it back.
_turned = threading.RLock()


@contextlib.contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Leave out what is written to standard error in a block, C++ libraries' straight writing included.

    If the block fails it is shown after all, but for a `UserError`, which says by itself what is wrong.

    Parameters
    ----------
    *loggers : str
        Names of Python loggers to silence in the block.
    """
    with _turned, tempfile.TemporaryFile() as noise, _silenced(loggers):
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(noise.fileno(), 2)
        try:
            yield
        except UserError:
            raise
        except BaseException:
            sys.stderr.flush()
            noise.seek(0)
            os.write(stderr, noise.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)


@contextlib.contextmanager
def _silenced(names: tuple[str, ...]) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
