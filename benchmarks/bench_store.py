"""Reading a pool of images: from their files, from memory, from a mapped file, from that of another run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facenet_fast.data.images import ImageStore

# Side of the files, of what is read, and images in a pool: those of the demo, and a common size of faces.
POOLS = [(112, 56, 150), (160, 112, 128)]


def write_faces(folder: Path, side: int, n: int) -> list[str]:
    """Write JPEG pictures as soft as faces are: decoding takes longer, the more detail there is."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        soft = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), dtype=float)
        noisy = np.clip(soft + rng.normal(0, 6, soft.shape), 0, 255).astype(np.uint8)
        paths.append(str(folder / f"{number}.jpg"))
        Image.fromarray(noisy).save(paths[-1], quality=90)
    return paths


@pytest.mark.parametrize(("file_side", "side", "n"), POOLS)
@pytest.mark.parametrize("way", ["decoding", "memory", "file", "file, first time in a run"])
def test_reading_a_pool(benchmark: Any, tmp_path: Path, way: str, file_side: int, side: int, n: int) -> None:
    benchmark.group = f"{n} images of {side} x {side} pixels, from JPEG files of {file_side} x {file_side}"
    paths = write_faces(tmp_path, file_side, n)
    order = np.random.default_rng(1).permutation(n)
    expected = ImageStore(paths, side).read(order)[0]

    def store() -> ImageStore:
        if way.startswith("file"):
            return ImageStore(paths, side, cache_dir=str(tmp_path / "cache"))
        return ImageStore(paths, side, cache_bytes=0 if way == "decoding" else 1 << 30)

    used = store()
    used.check()

    def set_up() -> tuple[tuple[ImageStore], dict[str, Any]]:
        return (store() if way == "file, first time in a run" else used,), {}

    # A new run's store begins its threads with the first pool, and that is part of its time.
    images, ok = benchmark.pedantic(lambda one: one.read(order), setup=set_up, rounds=30, warmup_rounds=2)
    np.testing.assert_array_equal(images, expected)
    assert ok.all()
    assert used.n_cached == (0 if way == "decoding" else n)
