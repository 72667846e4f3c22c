"""What the report measures, each job in a process of its own: ``python -m benchmarks.jobs NAME ARGUMENTS``.

`run` starts such a process and returns what the job returned; both ways it is JSON. `JOBS` is the only list.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from facenet_fast import BatchAllLoss, batch_all_loss, mine_triplets

from .backbones import count_multiply_adds, prepare_backbone
from .loss_rules import MARGINS, judge_some_rows
from .losses import RIVALS as LOSS_RIVALS
from .neighbors import RIVALS as NEIGHBOR_RIVALS
from .regimes import REGIMES, Regime, pool
from .rivals import RIVALS, prepare_predecessors_loop
from .rules import MARGIN, Rows
from .steps import prepare_step
from .strategies import BASE, TIMED, prepare
from .timing import Contestant, Timing, take_turns
from .verification import (
    ALL_PAIRS_RIVALS,
    draw_identities,
    evaluate,
    evaluate_as_the_predecessor,
    evaluate_exactly,
    image_files,
    judge_embeddings,
    judge_evaluation,
    judge_resamples,
    lfw_like,
    network_and_files,
    resample_by_scikit_learn,
    resample_natively,
)

STRATEGIES = ("vgg_face", "facenet")

# An N x N output of more numbers is made in stripes, which takes less time than to write it all.
MOST_PRODUCTS = 5 * 10**7

# Anchors x rows that the predecessor's loop is timed on; the rest of a larger batch is more of the same.
LOOP_WORK = 4 * 10**6

# Resamples that scikit-learn's loop is timed on; the others are more of the same.
N_LOOPED_RESAMPLES = 20

Shape = tuple[int, int, int]


def run(job: str, n_threads: int, environment: dict[str, str] | None = None, **arguments: Any) -> Any:
    """Do a job in a fresh process in which every library uses so many threads."""
    names = ("OMP", "OPENBLAS", "MKL", "NUMBA")
    limits = {f"{name}_NUM_THREADS": str(n_threads) for name in names}
    command = [
        sys.executable,
        "-m",
        "benchmarks.jobs",
        job,
        json.dumps({**arguments, "n_threads": n_threads}),
    ]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).resolve().parents[1],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **limits, **(environment or {})},
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


# -- contestants ---------------------------------------------------------------------------------------------


def native(rows: Rows, labels: Any, strategy: str, threads: int | None, isa: str | None = None) -> Contestant:
    """Mining with a strategy, a number of threads, and an instruction set other than the best."""

    @contextmanager
    def with_isa() -> Iterator[None]:
        from facenet_fast.mining.devices import load_core

        before = load_core().instruction_set()
        load_core().set_instruction_set(isa or before)
        yield
        load_core().set_instruction_set(before)

    return Contestant(
        lambda: mine_triplets(rows, labels, strategy=strategy, margin=MARGIN, seed=1, threads=threads),
        with_isa,
    )


def matrix_product(rows: Rows, n_threads: int) -> Contestant:
    """All N x N inner products by the BLAS that numpy brings, into memory that was used before."""
    from threadpoolctl import ThreadpoolController

    blas = ThreadpoolController()
    columns = np.ascontiguousarray(rows.T)  # another matrix to BLAS, so that it makes both halves
    n = min(len(rows), MOST_PRODUCTS // len(rows) + 1)
    out = np.zeros((n, len(rows)), np.float32)

    def multiply() -> None:
        for begin in range(0, len(rows), n):
            stripe = rows[begin : begin + n]
            np.matmul(stripe, columns, out=out[: len(stripe)])

    return Contestant(multiply, lambda: blas.limit(limits=n_threads, user_api="blas"))


def predecessors_share(n_identities: int, n_images: int) -> int:
    """Return how many identities the predecessor's loop is timed on."""
    return min(n_identities, max(1, round(LOOP_WORK / (n_identities * n_images**2))))


def judge(rival_name: str, answer: Any, rows: Rows, labels: Any) -> None:
    """Hold an answer against the definition that the rival of that name implements."""
    next(rival for rival in RIVALS if rival.name.endswith(rival_name)).judge(answer, rows, labels)


# -- jobs ----------------------------------------------------------------------------------------------------


def measure_size(
    shape: Shape, regime: Regime, n_threads: int, seconds: float, n_turns: int, with_all: bool = True
) -> dict[str, Any]:
    """Time both strategies beside the matrix product; with all: also on one thread, and the old loop."""
    rows, labels = pool(*shape, regime)
    contestants: dict[str, Contestant] = {}
    for threads in (n_threads, 1) if with_all and n_threads > 1 else (n_threads,):
        contestants |= {f"{name}@{threads}": native(rows, labels, name, threads) for name in STRATEGIES}
        contestants[f"product@{threads}"] = matrix_product(rows, threads)
    if with_all:
        n_part = predecessors_share(*shape[:2])
        contestants["loop"] = Contestant(prepare_predecessors_loop(rows, labels, n_part))
    timings = take_turns(contestants, seconds, n_turns)
    if with_all:
        timings["loop"] = _scaled(timings["loop"], shape[0] / n_part)
        for name in STRATEGIES:
            mined = mine_triplets(rows, labels, strategy=name, margin=MARGIN, seed=1)
            judge(f"`{name}`", (mined.anchor, mined.positive, mined.negative), rows, labels)
    return {name: asdict(timing) for name, timing in timings.items()}


def measure_instruction_sets(
    shape: Shape, regime: Regime, strategy: str, n_threads: int, seconds: float, n_turns: int
) -> dict[str, Any]:
    """Time every instruction set that this build and machine offer, best first."""
    from facenet_fast.mining.devices import load_core

    rows, labels = pool(*shape, regime)
    names = load_core().instruction_sets()
    timings = take_turns(
        {isa: native(rows, labels, strategy, n_threads, isa) for isa in names}, seconds, n_turns
    )
    return {name: asdict(timing) for name, timing in timings.items()}


def measure_first_calls(shape: Shape, regime: Regime, strategy: str, n_threads: int) -> list[float]:
    """Time the first calls of this process; the first one also loads the extension and starts the threads."""
    rows, labels = pool(*shape, regime)
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        mine_triplets(rows, labels, strategy=strategy, margin=MARGIN, seed=1)
        seconds.append(time.perf_counter() - begin)
    return seconds


def measure_small(shape: Shape, n_threads: int, seconds: float, n_turns: int) -> dict[str, Any]:
    """Time small batches from Python to Python, with the threads that the library chooses itself."""
    contestants: dict[str, Contestant] = {}
    for regime in REGIMES:
        rows, labels = pool(*shape, regime)
        contestants |= {f"{regime} {name}": native(rows, labels, name, None) for name in STRATEGIES}
    return {name: asdict(timing) for name, timing in take_turns(contestants, seconds, n_turns).items()}


def measure_peers(
    shape: Shape, regime: Regime, n_threads: int, seconds: float, n_turns: int, memory_limit: float
) -> dict[str, Any]:
    """Time every rival that can mine such a batch here, its answer judged; say why the others cannot."""
    rows, labels = pool(*shape, regime)
    found: dict[str, Any] = {}
    contestants: dict[str, Contestant] = {}
    scales: dict[str, float] = {}
    # This library comes first and asks OpenMP not to spin; the others read the environment before that.
    for rival in reversed(RIVALS):
        reason = rival.why_not(len(rows), shape[1], memory_limit)
        if reason:
            found[rival.name] = {"reason": reason}
            continue
        n_part = predecessors_share(*shape[:2])
        if rival.prepare_part is not None and n_part < shape[0]:
            contestants[rival.name] = Contestant(rival.prepare_part(rows, labels, n_part))
            scales[rival.name] = shape[0] / n_part
        else:
            mine = rival.prepare(rows, labels, n_threads)
            rival.judge(mine(), rows, labels)
            contestants[rival.name] = Contestant(mine)
    for name, timing in take_turns(contestants, seconds, n_turns).items():
        found[name] = {**asdict(_scaled(timing, scales.get(name, 1.0))), "is_scaled": name in scales}
    return found


def measure_strategies(
    shape: Shape, regime: Regime, n_threads: int, seconds: float, n_turns: int
) -> dict[str, Any]:
    """Time every strategy; with them, by the name of the base, the one that all are compared with."""
    contestants: dict[str, Contestant] = {}
    rows, labels = pool(*shape, regime)
    for name in (*TIMED, "`batch_all`, counted"):
        contestants[name] = Contestant(prepare(name, rows, labels))
    contestants["base"] = Contestant(prepare(BASE, *pool(*shape, "trained")))
    return {name: asdict(timing) for name, timing in take_turns(contestants, seconds, n_turns).items()}


def measure_neighbors(shape: Shape, k: int, n_threads: int, seconds: float, n_turns: int) -> dict[str, Any]:
    """Time every way to find each row's k nearest others, and the matrix product; answers are judged."""
    rows, _ = pool(*shape, "trained")
    contestants = {"product": matrix_product(rows, n_threads)}
    for rival in NEIGHBOR_RIVALS:
        if not rival.why_not():
            find = rival.prepare(rows, k, n_threads)
            rival.judge(find(), rows, k)
            contestants[rival.name] = Contestant(find)
    return {name: asdict(timing) for name, timing in take_turns(contestants, seconds, n_turns).items()}


def measure_memory(rival: str, shape: Shape, regime: Regime, n_threads: int) -> float | None:
    """Return by how many bytes a rival raises the peak of a process that has mined only a tiny batch before.

    Its copies of the batch, its results and whatever stays allocated for the next call are counted. None
    where the system does not tell.
    """
    prepare = next(r for r in RIVALS if r.name == rival).prepare
    return _extra_bytes(lambda rows, labels: prepare(rows, labels, n_threads), shape, regime)


def measure_losses(
    shape: Shape,
    regime: Regime,
    distance: str,
    n_threads: int,
    seconds: float,
    n_turns: int,
    with_one_thread: bool,
) -> dict[str, Any]:
    """Time the loss over all violating triplets beside the matrix product; with them, the violating share."""
    rows, labels = pool(*shape, regime)

    def sum_up(threads: int) -> BatchAllLoss:
        return batch_all_loss(rows, labels, margin=MARGINS[distance], distance=distance, threads=threads)

    found = sum_up(n_threads)
    judge_some_rows(found, rows, labels, distance)
    contestants: dict[str, Contestant] = {}
    for threads in (n_threads, 1) if with_one_thread else (n_threads,):
        contestants[f"loss@{threads}"] = Contestant(partial(sum_up, threads))
        contestants[f"product@{threads}"] = matrix_product(rows, threads)
    timings = take_turns(contestants, seconds, n_turns)
    n, k = len(rows), shape[1]
    share = found.n_triplets / (n * (k - 1) * (n - k))
    return {**{name: asdict(timing) for name, timing in timings.items()}, "share": share}


def measure_loss_peers(
    shape: Shape,
    regime: Regime,
    distance: str,
    n_threads: int,
    seconds: float,
    n_turns: int,
    memory_limit: float,
) -> dict[str, Any]:
    """Time every loss that can be computed here, its answer judged; say why the others cannot."""
    rows, labels = pool(*shape, regime)
    found: dict[str, Any] = {}
    contestants: dict[str, Contestant] = {}
    # This library last, as in `measure_peers`.
    for rival in sorted(LOSS_RIVALS, key=lambda rival: rival.name.startswith("facenet-fast")):
        reason = rival.why_not(len(rows), shape[1], memory_limit)
        if reason:
            found[rival.name] = {"reason": reason}
            continue
        compute = rival.prepare(rows, labels, distance, n_threads)
        rival.judge(compute(), shape, regime, distance)
        contestants[rival.name] = Contestant(compute)
    return found | {name: asdict(t) for name, t in take_turns(contestants, seconds, n_turns).items()}


def measure_loss_memory(
    rival: str, shape: Shape, regime: Regime, distance: str, n_threads: int
) -> float | None:
    """Return by how many bytes a loss and its gradient raise the peak of a process, as `measure_memory`."""
    prepare = next(r for r in LOSS_RIVALS if r.name == rival).prepare
    return _extra_bytes(lambda rows, labels: prepare(rows, labels, distance, n_threads), shape, regime)


def measure_beside_tensorflow(
    shape: Shape, regime: Regime, strategy: str, n_threads: int, n_turns: int
) -> dict[str, Any]:
    """Time a train step and mining, alone and in alternation."""
    from .beside_tensorflow import compare

    return {name: asdict(t) for name, t in compare(shape, regime, strategy, n_threads, n_turns).items()}


def measure_evaluation(
    n_pairs: int, size: int, metric: int, subtract_mean: bool, n_threads: int, seconds: float, n_turns: int
) -> dict[str, Any]:
    """Time verification by the protocol of LFW beside the predecessor's formulation; they must agree."""
    pairs = lfw_like(n_pairs, size)
    expected: list[dict[str, float]] = []  # a call takes seconds, so the judge has what was timed
    contestants = {
        "ours": Contestant(lambda: evaluate(pairs, metric, subtract_mean)),
        "theirs": Contestant(
            lambda: expected.append(evaluate_as_the_predecessor(pairs, metric, subtract_mean))
        ),
    }
    timings = take_turns(contestants, seconds, n_turns)
    judge_evaluation(evaluate(pairs, metric, subtract_mean), expected[-1])
    return {name: asdict(timing) for name, timing in timings.items()}


def measure_resamples(
    n_pairs: int, size: int, n_resamples: int, n_threads: int, seconds: float, n_turns: int
) -> dict[str, Any]:
    """Time intervals beside scikit-learn's weighted curves, and the whole evaluation with intervals."""
    pairs = lfw_like(n_pairs, size)
    distances = evaluate(pairs, 0, False).distances
    some = draw_identities(pairs, N_LOOPED_RESAMPLES)
    judge_resamples(
        resample_natively(pairs, distances, some), resample_by_scikit_learn(pairs, distances, some)
    )

    def loop() -> None:
        resample_by_scikit_learn(pairs, distances, draw_identities(pairs, N_LOOPED_RESAMPLES))

    def all_of_it() -> None:
        evaluate_exactly(pairs, evaluate(pairs, 0, False).distances, n_resamples)

    contestants = {
        "ours": Contestant(lambda: evaluate_exactly(pairs, distances, n_resamples)),
        "theirs": Contestant(loop),
        "all": Contestant(all_of_it),
    }
    timings = take_turns(contestants, seconds, n_turns)
    timings["theirs"] = _scaled(timings["theirs"], n_resamples / N_LOOPED_RESAMPLES)
    return {name: asdict(timing) for name, timing in timings.items()}


def measure_all_pairs(
    shape: Shape, n_threads: int, seconds: float, n_turns: int, memory_limit: float
) -> dict[str, Any]:
    """Time every way to measure all pairs, each judged, and the matrix product; say why others cannot."""
    rows, labels = pool(*shape, "trained")
    found: dict[str, Any] = {}
    contestants = {"product": matrix_product(rows, n_threads)}
    for rival in ALL_PAIRS_RIVALS:
        reason = rival.why_not(len(rows), memory_limit)
        if reason:
            found[rival.name] = {"reason": reason}
            continue
        compute = rival.prepare(rows, labels, n_threads)
        rival.judge(compute(), rows, labels)
        contestants[rival.name] = Contestant(compute)
    return found | {name: asdict(t) for name, t in take_turns(contestants, seconds, n_turns).items()}


def measure_all_pairs_memory(rival: str, shape: Shape, n_threads: int) -> float | None:
    """Return by how many bytes a way to measure all pairs raises the peak of a process."""
    prepare = next(r for r in ALL_PAIRS_RIVALS if r.name == rival).prepare
    return _extra_bytes(lambda rows, labels: prepare(rows, labels, n_threads), shape, "trained")


def measure_embedding(
    backbone: str, image_size: int, n_images: int, n_threads: int, seconds: float, n_turns: int
) -> dict[str, Any]:
    """Time images through a network, from files and decoded, beside the network and the reading alone."""
    with image_files(n_images) as paths:
        ways = network_and_files(backbone, image_size, paths, n_threads)
        expected = ways["network"]()
        judge_embeddings(ways["files"](), expected)
        judge_embeddings(ways["kept"](), expected)
        contestants = {name: Contestant(way) for name, way in ways.items()}
        return {name: asdict(t) for name, t in take_turns(contestants, seconds, n_turns).items()}


def measure_backbone(
    name: str, image_size: int, n_images: int, n_threads: int, seconds: float, n_turns: int
) -> dict[str, Any]:
    """Time a batch through a network and a train step of it; with them, its parameters and multiply-adds."""
    network, ways = prepare_backbone(name, image_size, n_images, n_threads)
    embeddings, loss = (way() for way in ways.values())  # which also traces them
    assert np.allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=1e-4)
    assert np.isfinite(loss)
    timings = take_turns({way: Contestant(call) for way, call in ways.items()}, seconds, n_turns)
    return {
        **{way: asdict(timing) for way, timing in timings.items()},
        "n_parameters": network.count_params(),
        "n_multiply_adds": count_multiply_adds(network),
    }


def measure_epochs(settings: dict[str, Any], n_threads: int) -> dict[str, float]:
    """Train on the ORL faces for three epochs; return where the time of the last two went, in seconds."""
    from facenet_fast.config import AUGMENTATIONS, TrainConfig
    from facenet_fast.training.loop import train
    from facenet_fast.training.time_split import PARTS

    augmentation = AUGMENTATIONS.get(settings.pop("augment", ""), {})
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        config = TrainConfig(
            **augmentation, **settings, epochs=3, baselines=False, evaluate_every=0, runs_dir=folder
        )
        result = train(config)
        assert result.n_steps == config.n_steps
        lines = Path(result.run_dir, "metrics.jsonl").read_text().splitlines()
    measured = [json.loads(line) for line in lines]
    return {
        part: sum([one["value"] for one in measured if one["name"] == f"time/epoch_{part}"][1:])
        for part in PARTS
    }


def measure_step(
    n_images: int, batch_size: int, image_size: int, n_threads: int, n_turns: int
) -> dict[str, float | None]:
    """Return by how many bytes exact steps raise the peak of a process, and the seconds of one.

    A tiny pool is stepped on before, so that what TensorFlow takes anyway is not counted; the pool itself is.
    """
    prepare_step(8, 8, image_size, n_threads)()
    _give_memory_back()
    before = _restart_peak()
    step = prepare_step(n_images, batch_size, image_size, n_threads)
    step()
    seconds = []
    for _ in range(n_turns):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    extra = None if before is None else _peak_bytes() - before
    return {"bytes": extra, "seconds": float(np.median(seconds))}


def describe_machine(n_threads: int) -> dict[str, Any]:
    """Say what the numbers of this report are from."""
    import platform

    from threadpoolctl import threadpool_info

    from facenet_fast.mining.devices import load_core

    np.ones((2, 2)) @ np.ones((2, 2))
    found = [library for library in threadpool_info() if library["user_api"] == "blas"]
    blas = (
        " ".join(str(found[0][key]) for key in ("internal_api", "version", "architecture"))
        if found
        else "BLAS"
    )
    return {
        "instruction_sets": load_core().instruction_sets(),
        "processor": _processor(),
        "n_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": blas,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0,
    }


def _scaled(timing: Timing, factor: float) -> Timing:
    return Timing(timing.median * factor, timing.least * factor, timing.n_calls)


def _extra_bytes(
    prepare: Callable[[Rows, Any], Callable[[], Any]], shape: Shape, regime: Regime
) -> float | None:
    prepare(*pool(4, 4, shape[2], regime))()
    rows, labels = pool(*shape, regime)
    _give_memory_back()
    before = _restart_peak()
    if before is None:
        return None
    answer = prepare(rows, labels)()
    extra = _peak_bytes() - before
    del answer
    return extra


def _give_memory_back() -> None:
    """Return to the system what making the batch left in the heap: it would serve the rival uncounted."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # GNU's C library has it
    if trim is not None:
        trim(0)


def _restart_peak() -> float | None:
    """Have the process' peak start anew; return it, or None where the system cannot."""
    forget = Path("/proc/self/clear_refs")
    if not forget.exists():
        return None
    forget.write_text("5")
    return _peak_bytes()


def _peak_bytes() -> float:
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return float(found[1]) * 1024 if found else 0.0


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.*)", path.read_text()) if path.exists() else None
    return found[1] if found else "unknown processor"


JOBS: dict[str, Callable[..., Any]] = {
    job.__name__: job
    for job in (
        measure_size,
        measure_instruction_sets,
        measure_first_calls,
        measure_small,
        measure_peers,
        measure_strategies,
        measure_neighbors,
        measure_memory,
        measure_losses,
        measure_loss_peers,
        measure_loss_memory,
        measure_beside_tensorflow,
        measure_evaluation,
        measure_resamples,
        measure_all_pairs,
        measure_all_pairs_memory,
        measure_embedding,
        measure_backbone,
        measure_epochs,
        measure_step,
        describe_machine,
    )
}

if __name__ == "__main__":
    result = JOBS[sys.argv[1]](**json.loads(sys.argv[2]))
    print()
    print(json.dumps(result))
