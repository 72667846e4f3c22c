"""Networks that Keras ships, as published, with new weights and without their classifiers.

Each function maps standardised images (n, S, S, 3) to features averaged over the image. Where Keras would put
the scaling of raw pixels into the network, it is left out: images arrive standardised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

__all__ = [
    "convnext_tiny",
    "densenet121",
    "densenet169",
    "efficientnet_v2_b0",
    "inception_resnet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "resnet50_v2",
]


def densenet121(images: Any) -> Any:
    """Huang et al., "Densely Connected Convolutional Networks" (CVPR 2017): (n, 1024)."""
    return _network(keras.applications.DenseNet121, images).output


def densenet169(images: Any) -> Any:
    """Huang et al., "Densely Connected Convolutional Networks" (CVPR 2017): (n, 1664)."""
    return _network(keras.applications.DenseNet169, images).output


def resnet50_v2(images: Any) -> Any:
    """He et al., "Identity Mappings in Deep Residual Networks" (ECCV 2016): (n, 2048)."""
    return _network(keras.applications.ResNet50V2, images).output


def mobilenet_v3_small(images: Any) -> Any:
    """Howard et al., "Searching for MobileNetV3" (ICCV 2019): (n, 576)."""
    return _network(keras.applications.MobileNetV3Small, images, include_preprocessing=False).output


def mobilenet_v3_large(images: Any) -> Any:
    """Howard et al., "Searching for MobileNetV3" (ICCV 2019): (n, 960)."""
    return _network(keras.applications.MobileNetV3Large, images, include_preprocessing=False).output


def inception_resnet_v2(images: Any) -> Any:
    """Szegedy et al., "Inception-v4, Inception-ResNet ..." (AAAI 2017): (n, 1536)."""
    return _network(keras.applications.InceptionResNetV2, images).output


def efficientnet_v2_b0(images: Any) -> Any:
    """Tan and Le, "EfficientNetV2: Smaller Models and Faster Training" (ICML 2021): (n, 1280)."""
    return _network(keras.applications.EfficientNetV2B0, images, include_preprocessing=False).output


def convnext_tiny(images: Any) -> Any:
    """Liu et al., "A ConvNet for the 2020s" (CVPR 2022): (n, 768)."""
    network = _network(keras.applications.ConvNeXtTiny, images, include_preprocessing=False)
    return keras.models.clone_model(network, input_tensors=images, clone_function=_depthwise).output


def _network(application: Callable[..., Any], images: Any, **settings: Any) -> Any:
    return application(include_top=False, weights=None, input_tensor=images, pooling="avg", **settings)


def _depthwise(layer: Any) -> Any:
    """Copy a layer, a convolution with a group for each channel as the depthwise one that it is.

    Keras has XLA compile grouped convolutions, which only TensorFlow reads from a frozen graph. On two cores,
    embedding took 8 times and a training step 13 times as long with them (ConvNeXt-Tiny, 112 pixels).
    """
    if not isinstance(layer, keras.layers.Conv2D) or layer.groups == 1:
        return layer.__class__.from_config(layer.get_config())
    return keras.layers.DepthwiseConv2D(layer.kernel_size, padding=layer.padding, name=layer.name)
