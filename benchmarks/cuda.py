"""The CUDA miner beside one matrix product, and beside its rule in PyTorch: ``python -m benchmarks.cuda``.

The product is that of the rows with themselves, in float32 (not TensorFloat-32), by cuBLAS: what a look at
all distances has to cost. Times are between two events of the device's, medians of many calls after some
that do not count, and the batches take turns, so that none is found in a cache. Needs PyTorch, and a device.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from facenet_fast import mine_triplets
from facenet_fast.mining.devices import load_cuda
from facenet_fast.mining.miner import check_request
from facenet_fast.mining.strategies import resolve_strategy

from .pages import ROOT, markdown_table, write_section
from .regimes import REGIMES, Regime, pool
from .rules import MARGIN

__all__ = ["SIZES", "STRATEGIES", "Batches", "mine_with_torch", "torch_or_why_not"]

# Identities, images of each, and numbers of an embedding; the last without room for all of its distances.
SIZES = ((45, 40, 128), (450, 4, 128), (450, 40, 128), (450, 40, 512), (2500, 40, 128))
STRATEGIES = ("vgg_face", "facenet", "batch_hard", "distance_weighted")

# Rows of one batch more: of more of them the output of the product would be larger than most devices' memory.
_MOST_PRODUCT_ROWS = 40_000

_N_BATCHES = 4
_N_WARM_UP = 3


def torch_or_why_not() -> tuple[ModuleType | None, str]:
    """Return PyTorch where it and the miner have a device, or a sentence that says what is missing."""
    try:
        cuda = load_cuda()
    except (ImportError, RuntimeError) as error:
        return None, str(error)
    if cuda.is_emulated():
        return None, "an emulated device is not timed"
    try:
        import torch
    except ImportError:
        return None, "PyTorch is not installed"
    if not torch.cuda.is_available():
        return None, "this PyTorch has no CUDA device"
    torch.backends.cuda.matmul.allow_tf32 = False
    return torch, ""


@dataclass(frozen=True)
class Batches:
    """Some batches of one kind, on the device, that take turns."""

    torch: Any
    rows: list[Any]
    labels: Any

    @classmethod
    def of(cls, torch: Any, size: tuple[int, int, int], regime: Regime) -> Batches:
        """Make them."""
        made = [pool(*size, regime, seed=seed) for seed in range(_N_BATCHES)]
        return cls(torch, [torch.from_numpy(rows).cuda() for rows, _ in made], made[0][1])

    def product(self) -> Callable[[int], Any]:
        """Return a function of a turn that multiplies its rows with themselves."""
        n = len(self.labels)
        out = self.torch.empty((n, n), device="cuda")
        return lambda turn: self.torch.mm(self.rows[turn], self.rows[turn].T, out=out)

    def miner(self, strategy: str) -> Callable[[int], Any]:
        """Return a function of a turn that mines its rows, which were checked and grouped before."""
        requests = [
            check_request(
                rows,
                self.labels,
                resolve_strategy(strategy),
                MARGIN,
                "cosine" if strategy == "distance_weighted" else "squared_euclidean",
                1,
                None,
                None,
                None,
                False,
                "native",
                "cuda",
            )
            for rows in self.rows
        ]
        return lambda turn: requests[turn].mined()

    def milliseconds(self, call: Callable[[int], Any], n_calls: int) -> float:
        """Return the median time of a call by the device's clock."""
        seconds = []
        for i in range(_N_WARM_UP + n_calls):
            begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            call(i % len(self.rows))
            end.record()
            end.synchronize()
            if i >= _N_WARM_UP:
                seconds.append(begin.elapsed_time(end))
        return statistics.median(seconds)


def mine_with_torch(torch: Any, rows: Any, labels: Any, n_anchors: int = 64) -> Any:
    """Return ``vgg_face`` triplets, shape (n_triplets, 3), as one writes it in PyTorch: by masks.

    Some anchors at a time, with room for all their pairs x rows; each pair's negative is drawn uniformly.
    `labels` must be of the device too.
    """
    n = len(rows)
    norms = rows.square().sum(1)
    found = []
    for begin in range(0, n, n_anchors):
        anchors = torch.arange(begin, min(begin + n_anchors, n), device=rows.device)
        distances = (norms[anchors, None] + norms[None] - 2 * rows[anchors] @ rows.T).clamp_min_(0)
        same = labels[anchors, None] == labels[None]
        anchor, positive = torch.nonzero(
            same & (torch.arange(n, device=rows.device) > anchors[:, None]), as_tuple=True
        )
        violates = ~same[anchor] & (distances[anchor] < distances[anchor, positive][:, None] + MARGIN)
        # The greatest of random numbers is as likely anywhere.
        best, negative = torch.where(violates, torch.rand(violates.shape, device=rows.device), -1.0).max(1)
        has = best >= 0
        found.append(torch.stack((anchors[anchor[has]], positive[has], negative[has]), 1))
    return torch.cat(found)


def _table(torch: Any, n_calls: int) -> str:
    rows = []
    for size in SIZES:
        for regime in REGIMES:
            batches = Batches.of(torch, size, regime)
            n = len(batches.labels)
            product = batches.milliseconds(batches.product(), n_calls) if n <= _MOST_PRODUCT_ROWS else None
            times = [batches.milliseconds(batches.miner(strategy), n_calls) for strategy in STRATEGIES]
            with_torch = None
            if n <= _MOST_PRODUCT_ROWS:
                labels = torch.from_numpy(np.asarray(batches.labels)).cuda()
                with_torch = batches.milliseconds(
                    lambda turn, b=batches, y=labels: mine_with_torch(torch, b.rows[turn], y),
                    max(n_calls // 10, 2),
                )
            begin = time.perf_counter()
            mine_triplets(
                batches.rows[0], batches.labels, strategy="vgg_face", margin=MARGIN, seed=1, device="cuda"
            )
            whole = 1e3 * (time.perf_counter() - begin)
            rows.append(
                [
                    " x ".join(map(str, size)),
                    regime,
                    "-" if product is None else f"{product:.2f}",
                    *(f"{t:.2f}" + ("" if product is None else f" ({t / product:.1f})") for t in times),
                    f"{whole:.1f}",
                    "-" if with_torch is None else f"{with_torch:.1f}",
                ]
            )
            print("  ".join(rows[-1]), flush=True)
    header = ["identities x images x numbers", "", "cuBLAS", *(f"`{name}`" for name in STRATEGIES)]
    return markdown_table([*header, "whole call", "`vgg_face` in PyTorch"], rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write where that is wished."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cuda", description=__doc__)
    parser.add_argument(
        "--calls", type=int, default=50, metavar="N", help="calls a time is the median of (default: 50)"
    )
    parser.add_argument("--write", action="store_true", help="put the table into docs/gpu.md")
    given = parser.parse_args(arguments)
    torch, why_not = torch_or_why_not()
    if torch is None:
        print(why_not)
        return 1
    device = torch.cuda.get_device_name()
    text = (
        f"Milliseconds on one {device}, in brackets multiples of the product's; "
        f"medians of {given.calls} calls.\n\n" + _table(torch, given.calls)
    )
    print(text)
    if given.write:
        write_section("cuda", text, [ROOT / "docs" / "gpu.md"])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
