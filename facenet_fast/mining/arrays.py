"""Anybody's arrays as numpy's: TensorFlow's, PyTorch's, JAX's and others', none of which is imported here."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .devices import load_cuda

__all__ = ["as_array", "lies_on_device", "view_on_device"]

# DLPack's numbers of what a CUDA device holds: its own memory, and managed memory.
_CUDA = (2, 13)


def as_array(values: Any, name: str) -> npt.NDArray[Any]:
    """Return values as a numpy array, without a copy where they lie in the CPU's memory.

    Whoever made them is known by what they can do (``__array__``, ``__dlpack__``, ``detach``). Tensors that
    record gradients are detached, those on another device are brought over (where those who made them do not
    say how, as CuPy, by the CUDA miner), and PyTorch's bfloat16, which numpy cannot hold, becomes float32.

    Parameters
    ----------
    values : array_like
        Numbers, strings or other labels.
    name : str
        What they are called in messages.

    Raises
    ------
    TypeError
        If they have no values yet, as a graph's tensors and Keras inputs, or cannot be numpy's.

    Examples
    --------
    >>> import tensorflow as tf
    >>> as_array(tf.constant([[1.0, 2.0]]), "embeddings")
    array([[1., 2.]], dtype=float32)
    """
    if isinstance(values, np.ndarray):
        return np.asarray(values)
    try:
        if callable(getattr(values, "detach", None)):
            return np.asarray(_torch_like(values).__array__())
        # Called by ourselves: numpy 2 passes arguments that not everybody's __array__ takes.
        if hasattr(type(values), "__array__"):
            return np.asarray(values.__array__())
        if hasattr(type(values), "__dlpack__"):
            return np.from_dlpack(values)
    except Exception as error:
        _raise_symbolic(values, name, error)
        if lies_on_device(values):
            return _brought_over(values, name, error)
        raise TypeError(f"{name} must be what numpy can take; got {_kind(values)}: {error}") from error
    if lies_on_device(values):
        return _brought_over(values, name, "which lies on a CUDA device")
    try:
        return np.asarray(values)
    except NotImplementedError as error:  # a list of symbolic tensors
        _raise_symbolic(values, name, error)
        raise


def lies_on_device(values: Any) -> bool:
    """Whether values say that they lie on a CUDA device."""
    if isinstance(values, np.ndarray):
        return False
    try:
        if hasattr(type(values), "__dlpack_device__"):
            return values.__dlpack_device__()[0] in _CUDA
        return hasattr(values, "__cuda_array_interface__")
    except Exception:  # of a graph, or nowhere: asked for their values, they say so
        return False


def view_on_device(values: Any, name: str) -> Any:
    """Return a ``_cuda.DeviceView`` of values that lie on a CUDA device.

    Raises
    ------
    TypeError
        If they cannot be looked into.
    """
    cuda = load_cuda()
    if callable(getattr(values, "detach", None)):
        values = values.detach()
    try:
        return cuda.device_view(values)
    except Exception as error:
        raise TypeError(f"{name} must be what DLPack can hand over; got {_kind(values)}: {error}") from error


def _brought_over(values: Any, name: str, got: object) -> npt.NDArray[Any]:
    """Return a copy on the host of values on a CUDA device; `got` says why numpy cannot make it."""
    try:
        copied: npt.NDArray[Any] = view_on_device(values, name).to_numpy()
    except (ImportError, RuntimeError, TypeError) as error:
        raise TypeError(f"{name} must be what numpy can take; got {_kind(values)}: {got}; {error}") from error
    return copied


def _torch_like(tensor: Any) -> Any:
    """Return a tensor of the same values that numpy may look into."""
    tensor = tensor.detach()
    if callable(getattr(tensor, "cpu", None)):
        tensor = tensor.cpu()  # itself, where it is there
    return tensor.float() if str(tensor.dtype).endswith("bfloat16") else tensor


def _raise_symbolic(values: Any, name: str, error: Exception) -> None:
    """Say what to do instead, if the values are not there yet."""
    if "Tracer" in type(error).__name__:
        raise TypeError(
            f"{name} must have values; got {_kind(values)}, which is being traced: "
            "call this through jax.pure_callback"
        ) from error
    # Variables inside a tf.function say "not implemented"; other tensors and Keras inputs say what they are.
    if isinstance(error, NotImplementedError) or "symbolic" in str(error):
        raise TypeError(
            f"{name} must have values; got {_kind(values)}, which is symbolic here: inside a model or a "
            "tf.function use facenet_fast.losses, or call this through tf.numpy_function"
        ) from error


def _kind(values: Any) -> str:
    return f"{type(values).__module__.partition('.')[0]}'s {type(values).__name__}"
