"""A train step and mining take turns in one process: neither slows the other by more than a tenth."""

from __future__ import annotations

from typing import Any

from .beside_tensorflow import compare

ALLOWED = 1.10


def test_neither_slows_the_other(benchmark: Any) -> None:
    n_turns, n_calls = (1, 1) if benchmark.disabled else (10, 10)
    arguments = ((45, 40, 128), "trained", "facenet", 2, n_turns, n_calls)
    found = benchmark.pedantic(compare, arguments, rounds=1)
    ms = {name: timing.median * 1e3 for name, timing in found.items()}
    benchmark.extra_info.update(ms)
    assert all(milliseconds > 0 for milliseconds in ms.values())
    if not benchmark.disabled:
        assert ms["step, alternating"] < ALLOWED * ms["step"], ms
        # Any other work that uses the caches costs mining what it costs: threads must not cost more.
        assert ms["mining, alternating"] < ALLOWED * max(ms["mining"], ms["mining, caches used"]), ms
