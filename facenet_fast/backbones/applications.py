"""Networks that Keras ships, as published, with new weights and without their classifiers.

Each function maps standardised images (n, S, S, 3) to features averaged over the image. Where Keras would put
the scaling of raw pixels into the network, it is left out: images arrive standardised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

__all__ = ["densenet121", "efficientnet_v2_b0", "inception_resnet_v2", "mobilenet_v3_small"]


def densenet121(images: Any) -> Any:
    """Huang et al., "Densely Connected Convolutional Networks" (CVPR 2017): (n, 1024)."""
    return _features(keras.applications.DenseNet121, images)


def mobilenet_v3_small(images: Any) -> Any:
    """Howard et al., "Searching for MobileNetV3" (ICCV 2019): (n, 576)."""
    return _features(keras.applications.MobileNetV3Small, images, include_preprocessing=False)


def inception_resnet_v2(images: Any) -> Any:
    """Szegedy et al., "Inception-v4, Inception-ResNet ..." (AAAI 2017): (n, 1536)."""
    return _features(keras.applications.InceptionResNetV2, images)


def efficientnet_v2_b0(images: Any) -> Any:
    """Tan and Le, "EfficientNetV2: Smaller Models and Faster Training" (ICML 2021): (n, 1280)."""
    return _features(keras.applications.EfficientNetV2B0, images, include_preprocessing=False)


def _features(application: Callable[..., Any], images: Any, **settings: Any) -> Any:
    network = application(include_top=False, weights=None, input_tensor=images, pooling="avg", **settings)
    return network.output
