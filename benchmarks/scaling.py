"""Two processes that train together beside one: ``python -m benchmarks.scaling [--write]``.

The same pools, of the ORL faces, by one process with one thread, by one with two, and by two with one thread
each (``--distribute multiworker``), which pass the images of one half of each pool and mine for its anchors.
Beside the steps it measures what is sent between the two, and mining. It wants two cores and nothing else on
them: each process of one thread is bound to a core.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facenet_fast.report.learning_curves import read_curves

from .pages import ROOT, markdown_table, write_section

__all__ = ["CASES", "Case", "Steps", "measure_exchanges", "measure_steps", "scaling_table"]

PAGE = ROOT / "docs" / "scaling.md"

# Steps left out at the beginning, in which graphs are made.
N_FIRST = 5


@dataclass(frozen=True)
class Case:
    """What is trained.

    Attributes
    ----------
    title : str
        For people.
    n_identities, n_each : int
        Of a pool.
    n_weights : int
        Numbers in the gradient that is sent.
    flags : sequence of str
        Of ``facenet-fast train``.
    """

    title: str
    n_identities: int
    n_each: int
    n_weights: int
    flags: Sequence[str] = ()

    @property
    def n_images(self) -> int:
        """Images of a pool."""
        return self.n_identities * self.n_each


_MEDIUM = ("--backbone", "medium_resnet", "--image-size", "112")
CASES = [
    Case("small_resnet, 56 pixels, pools of 150", 15, 10, 419_088),
    Case("small_resnet, 56 pixels, pools of 300", 30, 10, 419_088),
    Case("medium_resnet, 112 pixels, pools of 128", 32, 4, 2_283_312, _MEDIUM),
]
EMBEDDING_SIZE = 128


@dataclass(frozen=True)
class Steps:
    """Medians of a training, in seconds: of a whole step, and of mining in it."""

    step: float
    mining: float


def measure_steps(case: Case, n_processes: int, n_threads: int, n_steps: int) -> Steps:
    """Train for some steps and return what one took, as the chief's `metrics.jsonl` has it."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "facenet_fast", "train", "--runs-dir", folder, *case.flags]
        words += ["--identities-per-batch", str(case.n_identities), "--images-per-identity", str(case.n_each)]
        words += ["--batch-size", str(case.n_images // n_processes), "--threads", str(n_threads)]
        words += ["--epochs", "1", "--epoch-size", str(n_steps), "--n-held-out", "0", "--no-baselines"]
        words += ["--log-every", str(n_steps)]
        if n_processes > 1:
            words += ["--distribute", "multiworker"]
        _run_together(words, n_processes, n_threads)
        (run_dir,) = Path(folder).iterdir()
        curves = read_curves(str(run_dir / "metrics.jsonl"))
        names = ("time/step", "time/selection")
        return Steps(*(statistics.median(curves[name].value[N_FIRST:].tolist()) for name in names))


def measure_exchanges(sizes: Sequence[int]) -> list[float]:
    """Return the median seconds in which two processes add up float32 arrays of some sizes."""
    words = [sys.executable, "-m", "benchmarks.scaling", "--exchange", *map(str, sizes)]
    return [float(seconds) for seconds in json.loads(_run_together(words, 2, 1))]


def _run_together(words: Sequence[str], n_processes: int, n_threads: int) -> str:
    """Run a program as some workers, or alone; return what the first one wrote."""
    ports = _free_ports(n_processes)
    cores = sorted(os.sched_getaffinity(0))
    children = []
    for n in range(n_processes):
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        if n_processes > 1:
            cluster = {"worker": [f"localhost:{port}" for port in ports]}
            task = {"cluster": cluster, "task": {"type": "worker", "index": n}}
            environment["TF_CONFIG"] = json.dumps(task)
        bound = ["taskset", "-c", str(cores[n % len(cores)])] if n_threads == 1 else []
        children.append(
            subprocess.Popen(
                [*bound, *words],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
                cwd=ROOT,
            )
        )
    said = [child.communicate() for child in children]
    for child, (out, error) in zip(children, said, strict=True):
        if child.returncode:
            raise RuntimeError(f"a worker must not fail; it said {(out + error)[-1000:]!r}")
    return said[0][0]


def _free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    for one in sockets:
        one.bind(("localhost", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _exchange(sizes: Sequence[int]) -> None:
    """Be one of two workers that measure how long exchanges take, and write it as JSON."""
    from facenet_fast.config import TrainConfig
    from facenet_fast.training.devices import configure_devices
    from facenet_fast.training.replicas import replicas_for

    config = TrainConfig(distribute="multiworker", threads=1)
    configure_devices(config)
    replicas = replicas_for(config, tell=lambda _: None)
    medians = []
    for size in sizes:
        values = np.full(size, 1.0 + replicas.worker, np.float32)
        seconds = []
        for _ in range(N_FIRST + 30):
            start = time.perf_counter()
            total = replicas.sum(values)
            seconds.append(time.perf_counter() - start)
            assert (total == 3.0).all()
        medians.append(statistics.median(seconds[N_FIRST:]))
    print(json.dumps(medians))


def scaling_table(results: Sequence[tuple[Case, dict[str, Steps], Sequence[float]]]) -> str:
    """Write a markdown table, in milliseconds.

    Parameters
    ----------
    results : sequence of tuple
        Each case, its steps by `WAYS`, and the seconds in which embeddings and weights are added up.
    """
    header = ["", *(f"a step, {way}" for way in WAYS), "times faster than one thread"]
    header += ["embeddings added up", "weights added up", "mining, all anchors", "mining, half of them"]
    lines = []
    for case, by_way, (embeddings, weights) in results:
        one, _, both = (by_way[way] for way in WAYS)
        line = [case.title, *(f"{1e3 * by_way[way].step:.0f}" for way in WAYS), f"{one.step / both.step:.2f}"]
        line += [f"{1e3 * seconds:.1f}" for seconds in (embeddings, weights, one.mining, both.mining)]
        lines.append(line)
    return markdown_table(header, lines)


# Processes, and threads of each.
WAYS = {"one thread": (1, 1), "two threads": (1, 2), "two processes": (2, 1)}


def main() -> None:
    """Measure all, print the table, and write it where that is wished."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--steps", type=int, default=60, help="of each training (default: 60)")
    parser.add_argument("--write", action="store_true", help="put the table into docs/scaling.md")
    parser.add_argument("--exchange", type=int, nargs="+", metavar="N", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.exchange:
        _exchange(given.exchange)
        return
    results = []
    for case in CASES:
        steps = {way: measure_steps(case, *shape, given.steps) for way, shape in WAYS.items()}
        exchanges = measure_exchanges([case.n_images * EMBEDDING_SIZE, case.n_weights])
        results.append((case, steps, exchanges))
        print(scaling_table(results[-1:]), file=sys.stderr, flush=True)
    text = scaling_table(results)
    print(text)
    if given.write:
        write_section("scaling", text, pages=[PAGE])


if __name__ == "__main__":
    main()
