"""The one exception for what a user can mend: a sentence, not a trace."""

from __future__ import annotations

import re

__all__ = ["UserError", "first_line"]


class UserError(ValueError):
    """A mistake in what the user gave: a path, an option, a file's contents.

    The message is one line that says what must hold and what came. The command line prints it as
    ``facenet-fast: error: ...`` and exits with status 2; library users catch it as the `ValueError` it is.
    """


def first_line(error: Exception) -> str:
    """Say what an exception says, in one line, without where in TensorFlow's graph it happened.

    Examples
    --------
    >>> first_line(OSError("{{function_node SaveV2}} run/model; No space left on device [Op:SaveV2] name: x"))
    'run/model; No space left on device'
    """
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"^\{\{.*?\}\} | \[Op:\w*(\].*)?$", "", line)
