from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def pixels():
    """A smooth coloured picture, 24 high and 40 wide: smooth, so that JPEG keeps it nearly."""
    rows, columns = np.mgrid[:24, :40]
    return np.stack([rows * 10, columns * 6, 255 - rows * 5 - columns * 3], axis=-1).astype(np.uint8)


@pytest.fixture
def encoded(pixels):
    """The picture as the bytes of a file, by extension."""

    def encoded(extension, **options):
        kind = {"jpg": "JPEG", "jpeg": "JPEG", "pgm": "PPM"}.get(extension, extension.upper())
        image = Image.fromarray(pixels)
        if extension == "pgm":
            image = image.convert("L")
        if kind in ("JPEG", "WEBP"):
            options.setdefault("quality", 95)
        if kind == "JPEG":
            options.setdefault("subsampling", 0)
        file = io.BytesIO()
        image.save(file, kind, **options)
        return file.getvalue()

    return encoded


@pytest.fixture
def make_images(tmp_path):
    """Write n differing PNG squares and return their paths and pixels."""

    def make_images(n, size=8):
        images = np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
        paths = []
        for number, image in enumerate(images):
            paths.append(str(tmp_path / f"{number}.png"))
            Image.fromarray(image).save(paths[-1])
        return paths, images

    return make_images
