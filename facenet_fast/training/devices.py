"""How many threads and how much GPU memory TensorFlow may take, said before it takes them."""

from __future__ import annotations

import logging
import shutil
import subprocess

import tensorflow as tf

from facenet_fast.config import TrainConfig

__all__ = ["configure_devices"]

_logger = logging.getLogger("facenet_fast")


def configure_devices(config: TrainConfig) -> None:
    """Limit TensorFlow to `threads` and `gpu_memory_fraction`.

    TensorFlow can be told only before its first operation; later the wish is answered with a warning.

    Parameters
    ----------
    config : TrainConfig
        Read: `threads` (0: all cores) and `gpu_memory_fraction` (1: TensorFlow's own ways).
    """
    try:
        if config.threads:
            tf.config.threading.set_intra_op_parallelism_threads(config.threads)
            tf.config.threading.set_inter_op_parallelism_threads(config.threads)
        if config.gpu_memory_fraction < 1.0:
            _limit_gpu_memory(config.gpu_memory_fraction)
    except RuntimeError as error:
        _logger.warning("TensorFlow was in use before its limits were set: %s", error)


def _limit_gpu_memory(fraction: float) -> None:
    gpus = tf.config.list_physical_devices("GPU")
    megabytes = _gpu_megabytes() if gpus else []
    if len(megabytes) < len(gpus):
        _logger.warning("gpu_memory_fraction is not heeded: nvidia-smi does not tell the GPUs' memory")
        return
    for gpu, total in zip(gpus, megabytes, strict=False):
        limit = tf.config.LogicalDeviceConfiguration(memory_limit=int(fraction * total))
        tf.config.set_logical_device_configuration(gpu, [limit])


def _gpu_megabytes() -> list[int]:
    """Memory of each GPU; TensorFlow itself does not tell it before it has taken all of it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False)
    return [int(line) for line in answer.stdout.split() if line.isdecimal()]
