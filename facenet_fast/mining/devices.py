"""Which native module serves the miner, on which device, and a readable sentence where one is missing."""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from types import ModuleType

from .checks import check_word

__all__ = ["DEVICES", "choose_device", "load_core", "load_cuda"]

DEVICES = ("cpu", "cuda", "auto")

# From so many rows on, "auto" takes rows of the host to a device. A guess: no GPU of ours has timed it.
_WORTH_THE_WAY = 4096

# The oldest compute capability that CUDA 13 compiles for.
_OLDEST = (7, 5)


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


def load_cuda() -> ModuleType:
    """Import the CUDA miner once, and see that there is a device for it.

    Raises
    ------
    ImportError
        If the extension was not built or cannot be loaded; the message says what to do.
    RuntimeError
        If there is no driver, no device, or none that is new enough; the message says which.
    """
    found = _find_cuda()
    if isinstance(found, ModuleType):
        return found
    kind, sentence = found
    raise kind(sentence)


def choose_device(device: str, on_device: bool, n_rows: int) -> str:
    """Return ``"cpu"`` or ``"cuda"``: what was asked for, or for ``"auto"`` what suits rows.

    Parameters
    ----------
    device : {"cpu", "cuda", "auto"}
    on_device : bool
        Whether the rows lie on a CUDA device.
    n_rows : int

    Raises
    ------
    ImportError, RuntimeError
        As `load_cuda`, where ``"cuda"`` is asked for.
    """
    check_word("device", device, DEVICES)
    if device == "cuda":
        load_cuda()
    if device != "auto":
        return device
    if not on_device and n_rows < _WORTH_THE_WAY:
        return "cpu"
    found = _find_cuda()
    return "cuda" if isinstance(found, ModuleType) and not found.is_emulated() else "cpu"


@cache
def _find_cuda() -> ModuleType | tuple[type[ImportError | RuntimeError], str]:
    """Return the CUDA miner, or what to say in its place."""
    try:
        cuda = import_module("facenet_fast._cuda")
    except ImportError as error:
        what = "was not built" if isinstance(error, ModuleNotFoundError) else f"cannot be loaded ({error})"
        return ImportError, (
            f"the CUDA miner facenet_fast._cuda {what}: put nvcc on PATH and run 'CMAKE_ARGS="
            "-DFACENET_FAST_CUDA=ON pip install .' in the source folder, or mine with device='cpu'"
        )
    try:
        devices = cuda.devices()
    except RuntimeError as error:
        return RuntimeError, f"the CUDA miner has no device: {error}; mine with device='cpu'"
    if not any(capability >= _OLDEST for _, _, capability, _ in devices):
        got = ", ".join(f"{name} of {major}.{minor}" for _, name, (major, minor), _ in devices)
        return RuntimeError, (
            "the CUDA miner needs a device of compute capability "
            f"{_OLDEST[0]}.{_OLDEST[1]} at least; got {got}; mine with device='cpu'"
        )
    return cuda
