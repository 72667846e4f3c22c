"""Which native module serves the miner, and a readable sentence where one is missing."""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from types import ModuleType

__all__ = ["load_core"]


@cache
def load_core() -> ModuleType:
    """Import the compiled miner once, set up to live beside TensorFlow's threads and `os.fork`.

    Raises
    ------
    ImportError
        If the extension is missing or cannot be loaded; the message says what to do.
    ValueError
        If ``FACENET_FAST_ISA`` names an instruction set that this machine or build lacks; the message
        lists those it has.
    """
    # OpenMP's idle workers would otherwise spin on for long on cores that TensorFlow wants. A quarter of a
    # millisecond bridges the gaps within a call: workers that sleep at once may be woken on the caller's
    # core, where a two-core virtual machine left them for 0.1 s (9.3 ms instead of 4.7 at 45 x 40 x 128).
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        core = import_module("facenet_fast._core")
    except ImportError as error:
        raise ImportError(
            f"the compiled miner facenet_fast._core cannot be loaded ({error}); "
            "run 'pip install .' in the source folder (needs a C++20 compiler), "
            "or mine slowly with mine_triplets(..., backend='reference')"
        ) from error
    wish = os.environ.get("FACENET_FAST_ISA")
    if wish:
        core.set_instruction_set(wish)
    if hasattr(os, "register_at_fork"):
        # A child inherits the OpenMP pool's book-keeping but not its threads, and would wait for ever.
        os.register_at_fork(before=core.release_threads)
    return core
