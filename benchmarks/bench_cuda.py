"""The miner on a CUDA device beside cuBLAS and PyTorch; skipped where there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from facenet_fast import mine_triplets

from .cuda import STRATEGIES, Batches, mine_with_torch, torch_or_why_not
from .regimes import REGIMES, Regime
from .rules import MARGIN

pytestmark = pytest.mark.cuda

SIZE = (45, 40, 128)


@pytest.fixture(scope="module")
def torch() -> Any:
    module, why_not = torch_or_why_not()
    if module is None:
        pytest.skip(why_not)
    return module


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("name", ["cuBLAS", "PyTorch", *STRATEGIES])
def test_on_the_device(benchmark: Any, torch: Any, name: str, regime: Regime) -> None:
    benchmark.group = f"45 identities x 40 images x 128 numbers, {regime}, on the device"
    batches = Batches.of(torch, SIZE, regime)
    if name == "PyTorch":
        labels = torch.from_numpy(batches.labels).cuda()
        found = mine_with_torch(torch, batches.rows[0], labels)
        ours = mine_triplets(
            batches.rows[0], batches.labels, strategy="vgg_face", margin=MARGIN, device="cuda"
        )
        assert len(found) == len(ours)
    call = {
        "cuBLAS": batches.product,
        "PyTorch": lambda: lambda turn: mine_with_torch(torch, batches.rows[turn], labels),
    }
    run = call[name]() if name in call else batches.miner(name)

    def wait() -> None:
        run(0)
        torch.cuda.synchronize()

    benchmark(wait)


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("name", STRATEGIES)
def test_equals_the_cpu(torch: Any, name: str, regime: Regime) -> None:
    batches = Batches.of(torch, SIZE, regime)
    mined = batches.miner(name)(0)
    expected = mine_triplets(
        batches.rows[0].cpu().numpy(),
        batches.labels,
        strategy=name,
        margin=MARGIN,
        distance="cosine" if name == "distance_weighted" else "squared_euclidean",
        seed=1,
    )
    for column in ("anchor", "positive", "negative"):
        np.testing.assert_array_equal(np.asarray(getattr(mined, column)), getattr(expected, column))
