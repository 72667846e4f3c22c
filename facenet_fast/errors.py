"""The one exception for what a user can mend: a sentence, not a trace."""

from __future__ import annotations

__all__ = ["UserError"]


class UserError(ValueError):
    """A mistake in what the user gave: a path, an option, a file's contents.

    The message is one line that says what must hold and what came. The command line prints it as
    ``facenet-fast: error: ...`` and exits with status 2; library users catch it as the `ValueError` it is.
    """
