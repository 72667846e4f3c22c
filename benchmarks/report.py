"""Make the tables of docs/performance.md: ``python -m benchmarks.report [SECTION ...] [--quick] [--write]``.

Every measurement runs in a process of its own (jobs.py), so that no batch finds the heap, the threads or the
caches that another left; within one, contestants take turns (timing.py). `SECTIONS` is the only list.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facenet_fast.backbones import BACKBONES

from .jobs import STRATEGIES, Shape, run
from .loss_rules import MARGINS
from .losses import BASES, NATIVE, PEER_DISTANCE
from .losses import RIVALS as LOSS_RIVALS
from .pages import ROOT, markdown_table, write_section
from .plots import Curves, plot_growth
from .regimes import LOSS_REGIMES, REGIMES
from .rivals import RIVALS, say_bytes
from .verification import ALL_PAIRS_RIVALS

GROWTH_PLOT = ROOT / "docs/images/mining_growth.png"

# What measuring all pairs may allocate: who lists them soon takes all there is.
ALL_PAIRS_BYTES = 2e9


@dataclass(frozen=True)
class Scope:
    """How much is measured, and with how many threads."""

    n_threads: int
    write: bool
    seconds: float = 2.0
    sizes: tuple[Shape, ...] = (
        (45, 40, 128),
        (45, 40, 512),
        (450, 4, 128),
        (450, 40, 128),
        (2500, 40, 128),
    )
    peer_sizes: tuple[Shape, ...] = ((45, 10, 128), (450, 4, 128), (45, 40, 128), (450, 40, 128))
    strategy_sizes: tuple[Shape, ...] = ((45, 40, 128), (450, 40, 128))
    neighbor_sizes: tuple[Shape, ...] = ((45, 40, 128), (450, 40, 128))
    loss_sizes: tuple[Shape, ...] = ((45, 40, 128), (45, 40, 512), (500, 40, 128))
    loss_peer_sizes: tuple[Shape, ...] = ((32, 4, 128), (45, 10, 128), (45, 40, 128))
    n_identities: tuple[int, ...] = (3, 6, 12, 25, 45, 90, 180, 450)
    embedding_sizes: tuple[int, ...] = (32, 64, 128, 256, 512, 1024)
    n_images: tuple[int, ...] = (2, 4, 10, 20, 40, 100, 200)
    n_pairs: int = 6000
    n_resamples: int = 1000
    all_pairs_sizes: tuple[Shape, ...] = ((100, 10, 512), (1300, 10, 128), (1300, 10, 512))
    # Network, image size, and how many images.
    embedding: tuple[tuple[str, int, int], ...] = (
        ("small_resnet", 56, 1500),
        ("small_resnet", 112, 1500),
        ("inception_resnet_v1", 160, 100),
    )
    backbones: tuple[str, ...] = tuple(BACKBONES)
    backbone_image_size: int = 112
    backbone_n_images: int = 32
    epochs: Mapping[str, Mapping[str, Any]] = field(
        default_factory=lambda: {
            "the demo: 150 images of 56 pixels": {},
            "112 pixels, 30 x 4, `--augment medium`": {
                "image_size": 112,
                "images_per_identity": 4,
                "augment": "medium",
                "epoch_size": 8,
            },
            "the demo, `--step triplets`": {"step": "triplets"},
        }
    )
    pool_sizes: tuple[int, ...] = (128, 256, 512, 1024, 2048, 4096)
    step_batch_size: int = 128
    step_image_size: int = 64
    n_processes: int = 9
    n_turns: int = 6

    @property
    def memory_limit(self) -> float:
        """Bytes that a rival may need: half of what is free."""
        if self.seconds < 1:
            return 2e9
        found = re.search(r"MemAvailable:\s*(\d+) kB", _read("/proc/meminfo"))
        return float(found[1]) * 512 if found else 4e9


def quick(n_threads: int, write: bool) -> Scope:
    """Return a scope that takes a few minutes, and whose numbers are good for a look."""
    return Scope(
        n_threads,
        write,
        seconds=0.3,
        sizes=((45, 40, 128), (45, 40, 512), (450, 4, 128), (450, 40, 128)),
        peer_sizes=((45, 10, 128), (45, 40, 128)),
        strategy_sizes=((45, 40, 128),),
        neighbor_sizes=((45, 40, 128), (90, 40, 128)),
        loss_peer_sizes=((32, 4, 128), (45, 10, 128)),
        embedding=(("small_resnet", 56, 1500), ("inception_resnet_v1", 160, 100)),
        pool_sizes=(128, 512, 1024),
        n_identities=(6, 45, 90),
        embedding_sizes=(32, 128, 512),
        n_images=(4, 40, 200),
        n_processes=3,
        n_turns=3,
    )


# -- sections ------------------------------------------------------------------------------------------------


def machine(scope: Scope) -> str:
    """Say what was measured on."""
    about = run("describe_machine", scope.n_threads)
    return (
        f"{about['processor']}, {about['n_cores']} cores of it, best instruction set "
        f"`{about['instruction_sets'][0]}`; {scope.n_threads} threads where nothing else is said; "
        f"Python {about['python']}, numpy {about['numpy']} with {about['blas']}."
    )


def sizes(scope: Scope) -> str:
    """Compare both strategies with the matrix product, one thread, and the predecessor's loop."""
    n = scope.n_threads
    rows = []
    for shape in scope.sizes:
        for regime in REGIMES:
            found = run(
                "measure_size", n, shape=shape, regime=regime, seconds=scope.seconds, n_turns=scope.n_turns
            )
            ms = {name: timing["median"] * 1e3 for name, timing in found.items()}
            for name in STRATEGIES:
                own, alone, loop = ms[f"{name}@{n}"], ms[f"{name}@1"], ms["loop"]
                extra = run("measure_memory", n, rival=f"facenet-fast, `{name}`", shape=shape, regime=regime)
                rows.append(
                    [
                        _shape(shape),
                        regime,
                        f"`{name}`",
                        _ms(own),
                        f"{own / ms[f'product@{n}']:.2f}",
                        _ms(alone),
                        f"{alone / ms['product@1']:.2f}",
                        f"{alone / own:.2f}",
                        "-" if extra is None else f"{extra / 1e6:,.0f}",
                        f"{loop / own:,.0f}" if name == "vgg_face" else "",
                    ]
                )
            rows[-2][-1] += f" ({_ms(loop)} ms)"
    header = (
        f"P x K x D|regime|strategy|ms|times `sgemm`|ms, 1 thread|times `sgemm`, 1 thread|"
        f"faster with {n} threads|extra MB|faster than the predecessor's loop"
    )
    return markdown_table(header.split("|"), rows)


def instruction_sets(scope: Scope) -> str:
    """Compare what one build offers for older processors."""
    rows: list[list[str]] = []
    names: list[str] = []
    for shape in scope.sizes[:3]:
        for regime in REGIMES:
            for strategy in STRATEGIES:
                found = run(
                    "measure_instruction_sets",
                    scope.n_threads,
                    shape=shape,
                    regime=regime,
                    strategy=strategy,
                    seconds=scope.seconds / 2,
                    n_turns=scope.n_turns,
                )
                names = list(found)
                best = found[names[0]]["median"]
                slower = [f"{found[name]['median'] / best:.2f} x" for name in names[1:]]
                rows.append([_shape(shape), regime, f"`{strategy}`", f"{_ms(best * 1e3)} ms", *slower])
    return markdown_table(["P x K x D", "regime", "strategy", *(f"`{name}`" for name in names)], rows)


def calls(scope: Scope) -> str:
    """Time small batches, and the first calls of fresh processes."""
    small = run(
        "measure_small", scope.n_threads, shape=(32, 4, 128), seconds=scope.seconds / 2, n_turns=scope.n_turns
    )
    rows = [
        [f"32 x 4 x 128, {name.split()[0]}, `{name.split()[1]}`", f"{timing['median'] * 1e3:.3f}"]
        for name, timing in small.items()
    ]
    for regime in REGIMES:
        processes = [
            run(
                "measure_first_calls", scope.n_threads, shape=(45, 40, 128), regime=regime, strategy="facenet"
            )
            for _ in range(scope.n_processes)
        ]
        for i, which in enumerate(("first", "second", "third")):
            milliseconds = statistics.median(seconds[i] for seconds in processes) * 1e3
            batch = f"45 x 40 x 128, {regime}, `facenet`, {which} call of a process"
            rows.append([batch, _ms(milliseconds)])
    return markdown_table(["batch", "ms, from Python to Python"], rows)


def peers(scope: Scope) -> str:
    """Compare with what people use today; every answer has been judged."""
    cells: dict[str, list[str]] = {rival.name: [] for rival in RIVALS}
    notes = {}
    for shape in scope.peer_sizes:
        of_shape: dict[str, list[str]] = {name: [] for name in cells}
        for regime in REGIMES:
            found = run(
                "measure_peers",
                scope.n_threads,
                shape=shape,
                regime=regime,
                seconds=scope.seconds,
                n_turns=scope.n_turns,
                memory_limit=scope.memory_limit,
            )
            for name, result in found.items():
                if "installed" in result.get("reason", ""):
                    notes[name] = result["reason"]
                sign = "~" if result.get("is_scaled") else ""
                text = result["reason"] if "reason" in result else sign + _ms(result["median"] * 1e3)
                of_shape[name].append("-" if name in notes else text)
        for name, texts in of_shape.items():
            cells[name].append(_each(texts))
    memory_shape = (45, 40, 128)
    for rival in RIVALS:
        if rival.why_not(1800, 40, scope.memory_limit):
            cells[rival.name].append("-")
            continue
        extra = run("measure_memory", scope.n_threads, rival=rival.name, shape=memory_shape, regime="trained")
        cells[rival.name].append("-" if extra is None else say_bytes(extra))
    header = [
        "",
        "finds",
        *(f"{_shape(shape)}, ms" for shape in scope.peer_sizes),
        f"extra memory, {_shape(memory_shape)}",
    ]
    table = markdown_table(header, [[rival.name, rival.finds, *cells[rival.name]] for rival in RIVALS])
    return table + "".join(f"\n\n{name}: {reason}." for name, reason in notes.items())


def strategies(scope: Scope) -> str:
    """Time every strategy beside the predecessor's rule, trained."""
    cells: dict[str, list[str]] = {}
    for shape in scope.strategy_sizes:
        for regime in REGIMES:
            found = run(
                "measure_strategies",
                scope.n_threads,
                shape=shape,
                regime=regime,
                seconds=scope.seconds / 2,
                n_turns=scope.n_turns,
            )
            base = found.pop("base")["median"]
            for name, timing in found.items():
                text = f"{_ms(timing['median'] * 1e3)} ({timing['median'] / base:.2f})"
                cells.setdefault(name, []).append(text)
    header = ["", *(f"{_shape(shape)}, {regime}" for shape in scope.strategy_sizes for regime in REGIMES)]
    return markdown_table(header, [[name, *texts] for name, texts in cells.items()])


def neighbors(scope: Scope) -> str:
    """Time exact nearest rows beside the libraries that are made for them."""
    cells: dict[str, list[str]] = {}
    for shape in scope.neighbor_sizes:
        for k in (1, 16):
            found = run(
                "measure_neighbors",
                scope.n_threads,
                shape=shape,
                k=k,
                seconds=scope.seconds,
                n_turns=scope.n_turns,
            )
            product = found.pop("product")["median"]
            for name, timing in found.items():
                text = f"{_ms(timing['median'] * 1e3)} ({timing['median'] / product:.2f})"
                cells.setdefault(name, []).append(text)
    columns = [f"{p * k:,} x {d}, {n} nearest" for p, k, d in scope.neighbor_sizes for n in (1, 16)]
    header = ["", *columns]
    return markdown_table(header, [[name, *texts] for name, texts in cells.items()])


def losses(scope: Scope) -> str:
    """Compare the loss over every triplet, and its gradient, with the matrix product."""
    n = scope.n_threads
    rows = []
    for shape in scope.loss_sizes:
        is_large = shape[0] * shape[1] > 10_000
        for distance in MARGINS:
            for regime in LOSS_REGIMES:
                found = run(
                    "measure_losses",
                    n,
                    shape=shape,
                    regime=regime,
                    distance=distance,
                    # A large one's calls take seconds each, and one alone says little.
                    seconds=scope.seconds * (8 if is_large else 1),
                    n_turns=min(scope.n_turns, 3) if is_large else scope.n_turns,
                    with_one_thread=not is_large,
                )
                extra = run(
                    "measure_loss_memory", n, rival=NATIVE, shape=shape, regime=regime, distance=distance
                )
                share = found.pop("share")
                ms = {name: timing["median"] * 1e3 for name, timing in found.items()}
                own, alone = ms[f"loss@{n}"], ms.get("loss@1")
                rows.append(
                    [
                        _shape(shape),
                        distance.replace("_", " "),
                        regime,
                        f"{share * 100:.1f} %",
                        _ms(own),
                        f"{own / ms[f'product@{n}']:.2f}",
                        *(
                            (_ms(alone), f"{alone / ms['product@1']:.2f}", f"{alone / own:.2f}")
                            if alone
                            else ("", "", "")
                        ),
                        "-" if extra is None else f"{extra / 1e6:,.0f}",
                    ]
                )
    header = (
        f"P x K x D|distance|regime|violate|ms|times `sgemm`|ms, 1 thread|times `sgemm`, 1 thread|"
        f"faster with {n} threads|extra MB"
    )
    return markdown_table(header.split("|"), rows)


def loss_peers(scope: Scope) -> str:
    """Compare losses with what people use today; every answer has been judged."""
    cells: dict[str, list[str]] = {rival.name: [] for rival in LOSS_RIVALS}
    notes = {}
    for shape in scope.loss_peer_sizes:
        of_shape: dict[str, list[str]] = {name: [] for name in cells}
        for regime in LOSS_REGIMES:
            found = run(
                "measure_loss_peers",
                scope.n_threads,
                shape=shape,
                regime=regime,
                distance=PEER_DISTANCE,
                seconds=scope.seconds,
                n_turns=scope.n_turns,
                memory_limit=scope.memory_limit,
            )
            for rival in LOSS_RIVALS:
                result = found[rival.name]
                if "reason" in result:
                    if "installed" in result["reason"]:
                        notes[rival.name] = result["reason"]
                    text = "-" if rival.name in notes else result["reason"]
                else:
                    base = found[BASES[rival.definition]]
                    ratio = result["median"] / base["median"] if "median" in base else math.nan
                    text = f"{_ms(result['median'] * 1e3)} ({_multiple(ratio)})"
                of_shape[rival.name].append(text)
        for name, texts in of_shape.items():
            cells[name].append(_each(texts))
    memory_shape = (45, 10, 128)
    for rival in LOSS_RIVALS:
        if rival.why_not(450, 10, scope.memory_limit):
            cells[rival.name].append("-")
            continue
        extra = run(
            "measure_loss_memory",
            scope.n_threads,
            rival=rival.name,
            shape=memory_shape,
            regime="untrained",
            distance=PEER_DISTANCE,
        )
        cells[rival.name].append("-" if extra is None else say_bytes(extra))
    header = [
        "",
        "mean over",
        *(f"{_shape(shape)}, ms" for shape in scope.loss_peer_sizes),
        f"extra memory, {_shape(memory_shape)}",
    ]
    table = markdown_table(
        header, [[rival.name, rival.definition, *cells[rival.name]] for rival in LOSS_RIVALS]
    )
    return table + "".join(f"\n\n{name}: {reason}." for name, reason in notes.items())


def verification(scope: Scope) -> str:
    """Compare evaluation, resamples and all pairs with what people use today; answers have been judged."""
    rows: list[list[str]] = []

    def add(what: str, by: dict[str, float], extra: dict[str, str], scaled: str = "") -> None:
        """Add a row for the seconds of each way, the first of which is this library's."""
        own = next(iter(by.values()))
        for name, seconds in by.items():
            sign = "~" if name == scaled else ""
            ratio = sign + _multiple(seconds / own)
            rows.append([what, name, sign + _ms(seconds * 1e3), ratio, extra.get(name, "")])

    effort: dict[str, Any] = {"seconds": scope.seconds, "n_turns": scope.n_turns}
    pairs: dict[str, Any] = {"n_pairs": scope.n_pairs, "size": 512}
    for metric, how in enumerate(("squared distances", "angles, mean subtracted")):
        found = run(
            "measure_evaluation", scope.n_threads, **pairs, metric=metric, subtract_mean=metric > 0, **effort
        )
        by = {
            "facenet-fast, `verify`": found["ours"]["median"],
            "the predecessor's formulation": found["theirs"]["median"],
        }
        add(f"{scope.n_pairs:,} pairs of 512 numbers, {how}", by, {})

    found = run("measure_resamples", scope.n_threads, **pairs, n_resamples=scope.n_resamples, **effort)
    loop = "numpy and scikit-learn, no accuracy"
    by = {"facenet-fast, `exact_verification`": found["ours"]["median"], loop: found["theirs"]["median"]}
    add(f"their intervals from {scope.n_resamples:,} resamples", by, {}, scaled=loop)
    by = {"facenet-fast, `verify` and `exact_verification`": found["all"]["median"]}
    add("both, squared distances", by, {})

    for shape in scope.all_pairs_sizes:
        found = run("measure_all_pairs", scope.n_threads, shape=shape, memory_limit=ALL_PAIRS_BYTES, **effort)
        n = shape[0] * shape[1]
        what = f"all {n * (n - 1) // 2:,} pairs of {n:,} x {shape[2]}"
        by, extra, reasons = {}, {}, {}
        for rival in ALL_PAIRS_RIVALS:
            if "reason" in found[rival.name]:
                reasons[rival.name] = found[rival.name]["reason"]
                continue
            by[rival.name] = found[rival.name]["median"]
            n_bytes = run("measure_all_pairs_memory", scope.n_threads, rival=rival.name, shape=shape)
            extra[rival.name] = "-" if n_bytes is None else say_bytes(n_bytes)
        by["`sgemm` of both halves, nothing counted"] = found["product"]["median"]
        add(what, by, extra)
        rows += [[what, name, reason, "", ""] for name, reason in reasons.items()]
    return markdown_table(["what", "by", "ms", "times ours", "extra memory"], rows)


def embedding(scope: Scope) -> str:
    """Compare images from files through a network with the network, and the reading, alone."""
    rows = []
    for backbone, image_size, n_images in scope.embedding:
        found = run(
            "measure_embedding",
            scope.n_threads,
            backbone=backbone,
            image_size=image_size,
            n_images=n_images,
            # A call takes a second or more, and one alone says little.
            seconds=scope.seconds * 4,
            n_turns=min(scope.n_turns, 3),
        )
        seconds = {name: timing["median"] for name, timing in found.items()}
        network = seconds["network"]
        row = [f"`{backbone}`, {image_size} x {image_size}"]
        row += [f"{n_images / s:,.0f}" for s in (network, seconds["reading"])]
        for s in (network + seconds["reading"], seconds["files"], seconds["kept"]):
            row.append(f"{n_images / s:,.0f} ({network / s:.2f})")
        rows.append(row)
    header = [
        *("images/s", "network alone", "reading alone", "one after the other"),
        *("`embed_images`, from files", "`embed_images`, kept decoded"),
    ]
    return markdown_table(header, rows)


def epochs(scope: Scope) -> str:
    """Say where the time of an epoch of training goes, the first one apart, which traces the network."""
    rows = []
    for what, settings in scope.epochs.items():
        seconds = run("measure_epochs", scope.n_threads, settings=settings)
        total = sum(seconds.values())
        shares = [f"{100 * value / total:.1f} %" for value in seconds.values()]
        rows.append([what, *shares, f"{100 * (seconds['embed'] + seconds['step']) / total:.1f} %"])
    return markdown_table(["", "read", "embed", "mine", "step", "rest", "network"], rows)


def backbones(scope: Scope) -> str:
    """Say what each network costs, the cheapest image first."""
    found = {
        name: run(
            "measure_backbone",
            scope.n_threads,
            name=name,
            image_size=max(scope.backbone_image_size, BACKBONES[name].smallest_image),
            n_images=scope.backbone_n_images,
            # A step of a large network takes seconds.
            seconds=scope.seconds * 4,
            n_turns=min(scope.n_turns, 3),
        )
        for name in scope.backbones
    }
    rows = [
        [
            f"`{name}`",
            f"{costs['n_parameters'] / 1e6:.1f}",
            f"{costs['n_multiply_adds'] / 1e6:,.0f}",
            *(_rate(scope.backbone_n_images / costs[way]["median"]) for way in ("embed", "step")),
        ]
        for name, costs in sorted(found.items(), key=lambda item: item[1]["n_multiply_adds"])
    ]
    header = ["backbone", "M parameters", "M multiply-adds an image", "images/s, embedding", "training"]
    return markdown_table(header, rows)


def steps(scope: Scope) -> str:
    """Say what an exact step takes as the pool grows: in chunks, and in one pass."""
    rows = []
    for n_images in scope.pool_sizes:
        chunked, whole = (
            run(
                "measure_step",
                scope.n_threads,
                n_images=n_images,
                batch_size=batch_size,
                image_size=scope.step_image_size,
                n_turns=min(scope.n_turns, 3),
            )
            for batch_size in (scope.step_batch_size, n_images)
        )
        row = [f"{n_images:,}"]
        for found in chunked, whole:
            used = found["bytes"]
            row += ["" if used is None else say_bytes(used), f"{found['seconds']:.2f}"]
        rows.append([*row, f"{chunked['seconds'] / whole['seconds']:.2f}"])
    chunks = f"in chunks of {scope.step_batch_size}"
    return markdown_table(
        ["images in the pool", f"{chunks}: memory", "seconds", "in one pass: memory", "seconds", "ratio"],
        rows,
    )


def tensorflow(scope: Scope) -> str:
    """Say what a train step and mining do to each other."""
    rows = []
    for shape in scope.sizes[0], (32, 4, 128):
        for regime in REGIMES:
            found = run(
                "measure_beside_tensorflow",
                scope.n_threads,
                shape=shape,
                regime=regime,
                strategy="facenet",
                n_turns=scope.n_turns,
            )
            ms = {name: timing["median"] * 1e3 for name, timing in found.items()}
            both = [sum(ms[f"{name}{how}"] for name in ("step", "mining")) for how in (", alternating", "")]
            rows.append(
                [
                    _shape(shape),
                    regime,
                    _ms(ms["step"]),
                    _percent(ms["step, alternating"], ms["step"]),
                    _ms(ms["mining"]),
                    _percent(ms["mining, alternating"], ms["mining"]),
                    _percent(ms["mining, caches used"], ms["mining"]),
                    _percent(*both),
                ]
            )
    header = [
        *("mined batch", "regime", "train step alone, ms", "alternating"),
        *("mining alone, ms", "alternating", "after a copy", "both, to their sum alone"),
    ]
    return markdown_table(header, rows)


def growth(scope: Scope) -> str:
    """Plot the cost as the batch grows in each of its dimensions, and as threads are added."""

    def measure(points: Sequence[tuple[float, Shape, int]]) -> Curves:
        curves: Curves = {}
        for regime in REGIMES:
            for x, shape, n in points:
                found = run(
                    "measure_size",
                    n,
                    shape=shape,
                    regime=regime,
                    seconds=scope.seconds / 4,
                    n_turns=scope.n_turns,
                    with_all=False,
                )
                for name in (*STRATEGIES, "product"):
                    point = (x, found[f"{name}@{n}"]["median"] * 1e3)
                    curves.setdefault((regime, name), []).append(point)
        return curves

    n = scope.n_threads
    panels = {
        "images in the batch, 40 an identity": measure(
            [(p * 40, (p, 40, 128), n) for p in scope.n_identities]
        ),
        "numbers in an embedding (45 x 40 images)": measure(
            [(d, (45, 40, d), n) for d in scope.embedding_sizes]
        ),
        "images an identity (1,800 in all)": measure([(k, (1800 // k, k, 128), n) for k in scope.n_images]),
        "threads (45 x 40 x 128)": measure([(t, (45, 40, 128), t) for t in range(1, n + 1)]),
    }
    if scope.write:
        plot_growth(panels, GROWTH_PLOT)
    return "\n\n".join(f"*{panel}*\n\n{_curves_table(curves)}" for panel, curves in panels.items())


SECTIONS: dict[str, Callable[[Scope], str]] = {
    "machine": machine,
    "sizes": sizes,
    "instruction-sets": instruction_sets,
    "calls": calls,
    "peers": peers,
    "strategies": strategies,
    "neighbors": neighbors,
    "losses": losses,
    "loss-peers": loss_peers,
    "verification": verification,
    "embedding": embedding,
    "backbones": backbones,
    "epochs": epochs,
    "steps": steps,
    "tensorflow": tensorflow,
    "growth": growth,
}


# -- text ----------------------------------------------------------------------------------------------------


def _curves_table(curves: Curves) -> str:
    names = list(curves)
    header = ["", *(f"{regime}, `{'sgemm' if name == 'product' else name}`" for regime, name in names)]
    rows = [
        [f"{x:,.0f}", *(_ms(curves[name][i][1]) for name in names)]
        for i, (x, _) in enumerate(curves[names[0]])
    ]
    return markdown_table(header, rows)


def _shape(shape: Shape) -> str:
    return " x ".join(str(n) for n in shape)


def _ms(milliseconds: float) -> str:
    digits = 2 if milliseconds < 10 else 1 if milliseconds < 100 else 0
    return f"{milliseconds:,.{digits}f}"


def _rate(per_second: float) -> str:
    return f"{per_second:,.1f}" if per_second < 10 else f"{per_second:,.0f}"


def _each(texts: Sequence[str]) -> str:
    """Join the texts of the regimes; a single one where all say the same."""
    return " / ".join(texts if len(set(texts)) > 1 else texts[:1])


def _multiple(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:,.0f}"


def _percent(one: float, other: float) -> str:
    return f"{(one / other - 1) * 100:+.0f} %"


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""


def main() -> None:
    """Measure the sections asked for, print them, and write them where that is wished."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; default: all"
    )
    parser.add_argument("--quick", action="store_true", help="small batches, few repetitions")
    parser.add_argument(
        "--write", action="store_true", help="put the tables into docs/performance.md and README.md"
    )
    parser.add_argument("--threads", type=int, default=_n_cores(), help="default: the cores of this process")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"SECTION must be one of {', '.join(SECTIONS)}; got {unknown[0]}")
    if _read("/proc/loadavg") and os.getloadavg()[0] > 0.5:
        print("warning: the machine is busy; its load is", os.getloadavg()[0], file=sys.stderr)
    scope = (
        quick(arguments.threads, arguments.write)
        if arguments.quick
        else Scope(arguments.threads, arguments.write)
    )
    for name in arguments.sections or SECTIONS:
        text = SECTIONS[name](scope)
        print(f"## {name}\n\n{text}\n", flush=True)
        if arguments.write:
            write_section(name, text)


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    main()
