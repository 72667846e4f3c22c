"""Anybody's arrays as numpy's: TensorFlow's, PyTorch's, JAX's and others', none of which is imported here."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["as_array"]


def as_array(values: Any, name: str) -> npt.NDArray[Any]:
    """Return values as a numpy array, without a copy where they lie in the CPU's memory.

    Whoever made them is known by what they can do (``__array__``, ``__dlpack__``, ``detach``). Tensors that
    record gradients are detached, those on another device are brought over, and PyTorch's bfloat16, which
    numpy cannot hold, becomes float32.

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
        raise TypeError(f"{name} must be what numpy can take; got {_kind(values)}: {error}") from error
    try:
        return np.asarray(values)
    except NotImplementedError as error:  # a list of symbolic tensors
        _raise_symbolic(values, name, error)
        raise


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
