"""Who trains together: devices of one process, or several processes, by TensorFlow's `tf.distribute`.

Each device has a network of its own and each process a part of every pool. What they tell each other are sums
(`Replicas.sum`, and `all_reduce` in a step), in the same order everywhere. A *replica* is a device that
trains, a *worker* a process, the *chief* the first of them, which alone writes.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from facenet_fast.config import TrainConfig
from facenet_fast.errors import UserError, first_line

__all__ = ["Replicas", "WorkerLost", "all_reduce", "replicas_for"]

# What TensorFlow raises where another process has gone.
_LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.UnavailableError,
)

# Of Slurm's jobs, whose tasks on one node take ports one after the other, below those that systems give away.
_FIRST_PORT, _N_PORTS, _MOST_TASKS = 12_000, 160, 128

_Array = npt.NDArray[Any]


class WorkerLost(UserError):
    """Another worker has ended, so that this one cannot go on."""


class Replicas:
    """One device, which trains alone, or those of a strategy.

    Parameters
    ----------
    strategy : tf.distribute.Strategy, optional
        Of one process or several, as many devices in each; default: one device.

    Attributes
    ----------
    n_replicas : int
        Devices in all processes.
    n_local : int
        Devices of this process.
    first : int
        Number, among all, of this process' first device.
    devices : tuple of str
        Names of this process' devices.
    n_workers, worker : int
        Processes, and which of them this is.
    """

    def __init__(self, strategy: Any = None) -> None:
        self.strategy = strategy
        self.n_replicas, self.first = 1, 0
        self.devices: tuple[str, ...] = ("",)
        if strategy is not None:
            numbers: list[int] = []

            def number(context: Any) -> tf.Tensor:
                numbers.append(int(context.replica_id_in_sync_group))
                return tf.constant(0)

            strategy.experimental_distribute_values_from_function(number)
            self.devices = tuple(strategy.extended.worker_devices)
            self.n_replicas, self.first = strategy.num_replicas_in_sync, min(numbers)
        self.n_local = len(self.devices)
        self.n_workers, self.worker = self.n_replicas // self.n_local, self.first // self.n_local
        self._total = tf.function(self._total_of, autograph=False, reduce_retracing=True)

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes."""
        return self.worker == 0

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Say of a failed exchange that another worker has gone.

        Raises
        ------
        WorkerLost
            If TensorFlow finds one unreachable in the block.
        """
        try:
            yield
        except _LOST as error:
            if self.n_workers == 1:
                raise
            raise WorkerLost("another worker has ended") from error

    def on_each(self, piece: Callable[..., Any], *columns: Sequence[Any]) -> tuple[Any, ...]:
        """Call a function on each device of this process, within a `tf.function`.

        Parameters
        ----------
        piece : callable
            Takes the device's number in this process, and its values; it may call `all_reduce`.
        columns : sequence of sequence
            Values for each device.

        Returns
        -------
        tuple
            What each returned.
        """

        def on_one(*columns: Sequence[Any]) -> Any:
            # A number, or a constant of the graph.
            number = tf.distribute.get_replica_context().replica_id_in_sync_group
            place = int(tf.get_static_value(tf.convert_to_tensor(number))) - self.first
            return piece(place, *(column[place] for column in columns))

        results = self.strategy.run(on_one, args=columns)
        return tuple(self.strategy.experimental_local_results(results))

    def sum(self, values: npt.ArrayLike) -> _Array:
        """Add up what each worker has: arrays of one shape and of float32, float64 or int64.

        Raises
        ------
        WorkerLost
            If another worker has ended.
        """
        array = np.asarray(values)
        if self.n_workers == 1:
            return array
        flat = array.ravel()
        with self.watched():
            total = self._total([flat, *[np.zeros_like(flat)] * (self.n_local - 1)])
            return np.asarray(total.numpy().reshape(array.shape))

    def _total_of(self, values: Sequence[Any]) -> Any:
        return self.on_each(lambda _, value: all_reduce(value), values)[0]

    def share(self, arrays: Sequence[_Array]) -> list[_Array]:
        """Give every worker the chief's arrays, bit for bit; all workers have arrays of the same forms.

        Raises
        ------
        WorkerLost
            If another worker has ended.
        """
        if self.n_workers == 1:
            return list(arrays)
        raw = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
        # Whole numbers are added without rounding, and nothing is added to the chief's.
        words = np.frombuffer(raw + bytes(-len(raw) % 8), np.int64)
        received = self.sum(words if self.is_chief else np.zeros_like(words)).tobytes()
        shared, begin = [], 0
        for array in arrays:
            end = begin + array.nbytes
            shared.append(np.frombuffer(received[begin:end], array.dtype).reshape(array.shape))
            begin = end
        return shared

    def share_text(self, text: str) -> str:
        """Give every worker the chief's text."""
        raw = np.frombuffer(text.encode(), np.uint8)
        (length,) = self.share([np.array([len(raw)], np.int64)])
        mine = np.zeros(int(length[0]), np.uint8)
        if self.is_chief:
            mine = raw
        return self.share([mine])[0].tobytes().decode()

    def share_decision(self, decision: bool) -> bool:
        """Give every worker the chief's yes or no."""
        return bool(self.share([np.array([decision], np.int64)])[0][0])


def all_reduce(values: Any) -> Any:
    """Add up what each replica has, a nest of tensors; called on each device, within `Replicas.on_each`."""
    context = tf.distribute.get_replica_context()
    # The ring takes no variables.
    flat = [tf.identity(value) for value in tf.nest.flatten(values)]
    # What is sent together is of one type.
    for dtype in dict.fromkeys(value.dtype for value in flat):
        places = [place for place, value in enumerate(flat) if value.dtype == dtype]
        summed = context.all_reduce(tf.distribute.ReduceOp.SUM, [flat[place] for place in places])
        for place, value in zip(places, summed, strict=True):
            flat[place] = value
    return tf.nest.pack_sequence_as(values, flat)


def _tell(line: str) -> None:
    print(line, flush=True)


def replicas_for(config: TrainConfig, tell: Callable[[str], None] = _tell) -> Replicas:
    """Find who trains, by `TrainConfig.distribute`; before TensorFlow's first operation.

    With ``multiworker`` it waits until all workers are there; Ctrl-C ends the process meanwhile.

    Parameters
    ----------
    config : TrainConfig
        Read: `distribute`.
    tell : callable, optional
        Takes a line that says who is waited for; default: standard output.

    Raises
    ------
    UserError
        If what describes the workers is missing or cannot be read.
    """
    if config.distribute == "none":
        return Replicas()
    if config.distribute == "mirrored":
        kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
        devices = [device.name for device in tf.config.list_logical_devices(kind)]
        return Replicas(tf.distribute.MirroredStrategy(devices) if len(devices) > 1 else None)
    text = _tf_config()
    _check_tf_config(text)
    os.environ["TF_CONFIG"] = text
    addresses = [one for job in json.loads(text)["cluster"].values() for one in job]
    tell(f"Waiting until all workers are there: {', '.join(addresses)}")
    try:
        with _interruptible():
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise UserError(
            "distribute='multiworker' must be the first that a process asks of TensorFlow, which was in use "
            f"before: {first_line(error)}"
        ) from error
    except (ValueError, tf.errors.OpError) as error:
        raise UserError(f"the workers must be able to reach each other: {first_line(error)}") from error
    return Replicas(strategy if strategy.num_replicas_in_sync > 1 else None)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Have Ctrl-C end the process in a block that is not Python's, and would not hear of it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _tf_config() -> str:
    """Return what describes the workers, as TF_CONFIG has it or, without it, Slurm."""
    if text := os.environ.get("TF_CONFIG", ""):
        return text
    if "SLURM_PROCID" not in os.environ:
        raise UserError(
            "distribute='multiworker' must be told of the workers by the environment variable TF_CONFIG "
            '({"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": N}}), or be '
            "started by Slurm's srun; got neither"
        )
    try:
        # Which GPUs a task has is left to Slurm: the resolver would count those that this task sees.
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            port_base=_port_of_job(), gpus_per_node=_MOST_TASKS, gpus_per_task=1, auto_set_gpu=False
        )
        cluster = resolver.cluster_spec().as_dict()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"Slurm must tell of the tasks of this step: {first_line(error)}") from error
    kind, number = resolver.get_task_info()
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": number}})


def _port_of_job() -> int:
    """Return the port of a node's first task: jobs that meet on a node should have others."""
    return _FIRST_PORT + int(os.environ.get("SLURM_JOB_ID", "0")) % _N_PORTS * _MOST_TASKS


def _check_tf_config(text: str) -> None:
    try:
        given = json.loads(text)
        jobs = {job: len(addresses) for job, addresses in given["cluster"].items()}
        kind, number = given["task"]["type"], int(given["task"]["index"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            'TF_CONFIG must be JSON of the form {"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": '
            f'"worker", "index": N}}}}; got {text!r}'
        ) from error
    # One of them writes; `ps` and `evaluator` have no part in a training of this kind.
    other = sorted(set(jobs) - {"chief", "worker"})
    if other or jobs.get("chief", 1) != 1:
        raise UserError(
            f"the cluster in TF_CONFIG must be of workers, and of one chief or none; got {', '.join(jobs)}"
        )
    if not 0 <= number < jobs.get(kind, 0):
        raise UserError(
            f"the task in TF_CONFIG must be in its cluster, {jobs}; got type {kind!r}, index {number}"
        )
