"""Multiply-adds are counted as by hand and as papers do; the small networks, timed."""

from __future__ import annotations

import time
from typing import Any

import pytest

from facenet_fast.backbones import build

from .backbones import count_multiply_adds, prepare_backbone
from .timing import PAUSE_SECONDS

keras = pytest.importorskip("keras")
layers = keras.layers

# A layer for images of 10 x 8 with 4 channels, and what it multiplies: a term for each number of its output.
BY_HAND = {
    "3 x 3": (layers.Conv2D(6, 3, padding="same"), (10 * 8 * 6) * (3 * 3 * 4)),
    "not padded": (layers.Conv2D(6, (3, 5), use_bias=False), (8 * 4 * 6) * (3 * 5 * 4)),
    "strides": (layers.Conv2D(5, 3, strides=2, padding="same"), (5 * 4 * 5) * (3 * 3 * 4)),
    "depthwise": (layers.DepthwiseConv2D(3, strides=2, padding="same"), (5 * 4 * 4) * (3 * 3)),
    "depthwise, two each": (layers.DepthwiseConv2D(3, depth_multiplier=2), (8 * 6 * 8) * (3 * 3)),
    "separable": (layers.SeparableConv2D(6, 3, padding="same"), (10 * 8) * (4 * 3 * 3 + 4 * 6)),
    "dense, of each place": (layers.Dense(7), (10 * 8) * 4 * 7),
    "dense": (keras.Sequential([layers.Flatten(), layers.Dense(3)]), (10 * 8 * 4) * 3),
    "no products": (keras.Sequential([layers.BatchNormalization(), layers.MaxPooling2D(2)]), 0),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_multiply_adds_of_layers(case: str) -> None:
    layer, expected = BY_HAND[case]
    images = keras.Input((10, 8, 4))
    assert count_multiply_adds(keras.Model(images, layer(images))) == expected


@pytest.mark.parametrize("layer", [layers.Conv2D(4, 3, groups=2), layers.Conv2DTranspose(2, 3)])
def test_what_is_not_counted_is_refused(layer: Any) -> None:
    images = keras.Input((10, 8, 4))
    network = keras.Model(images, layer(images))
    with pytest.raises(ValueError, match="operations must be among Conv2D"):
        count_multiply_adds(network)


@pytest.mark.parametrize(
    ("name", "image_size", "published"),
    [
        ("mobilefacenet", 112, 221e6),  # Chen et al. 2018, section 3.3
        ("mobilenet_v3_small", 224, 56e6),  # Howard et al. 2019, table 3, with a classifier
        ("se_resnet50", 224, 3.87e9),  # Hu et al. 2018, table 2, with a classifier
    ],
)
def test_multiply_adds_of_networks(name: str, image_size: int, published: float) -> None:
    assert count_multiply_adds(build(name, image_size, 128)) == pytest.approx(published, rel=0.03)


@pytest.mark.parametrize("way", ["embed", "step"])
@pytest.mark.parametrize("name", ["small_resnet", "squeezenet", "mobilefacenet", "mobilenet_v3_small"])
def test_images(benchmark: Any, name: str, way: str) -> None:
    benchmark.group = f"32 images of 112 x 112, {way}"
    _, ways = prepare_backbone(name, 112, 32, 2)
    ways[way]()
    time.sleep(PAUSE_SECONDS)
    found = benchmark(ways[way])
    if way == "embed":
        assert found.shape == (32, 128)
    else:
        assert 0 < found < 1
