"""The networks by name: a table that is read without TensorFlow, and `build`, which makes one of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from facenet_fast.errors import UserError

if TYPE_CHECKING:
    import keras

__all__ = ["Backbone", "build", "describe", "names"]


@dataclass(frozen=True)
class Backbone:
    """One network of the table: where its code is and what it asks for."""

    builder: str
    """``module:function``; the function maps standardised images (n, S, S, 3) to features."""
    description: str
    """One line for the list that the command line prints."""
    smallest_image: int = 1
    """Images with a smaller side vanish on their way through the network, or are smaller than its stride."""
    head_momentum: float = 0.99
    """How slowly the head's batch-norm averages move."""


BACKBONES: dict[str, Backbone] = {
    "small_resnet": Backbone(
        "facenet_fast.backbones.small_resnet:features",
        "residual network of 0.4 M parameters for small images and few CPU cores (the demo's)",
        smallest_image=16,
        head_momentum=0.9,
    ),
    "medium_resnet": Backbone(
        "facenet_fast.backbones.small_resnet:medium_features",
        "residual network of 2.3 M parameters at 112 pixels for few CPU cores (the LFW recipe's)",
        smallest_image=16,
        head_momentum=0.9,
    ),
    "inception_resnet_v1": Backbone(
        "facenet_fast.backbones.inception_resnet_v1:features",
        "the predecessor's network, 22.8 M parameters, made for 160 pixels",
        smallest_image=75,
        head_momentum=0.995,
    ),
    "squeezenet": Backbone(
        "facenet_fast.backbones.squeezenet:features",
        "SqueezeNet v1.0, 0.8 M parameters",
        smallest_image=29,
    ),
    "mobilefacenet": Backbone(
        "facenet_fast.backbones.mobilefacenet:features",
        "MobileFaceNet, 1.0 M parameters, made for 112 pixels",
        smallest_image=16,
    ),
    "se_resnet50": Backbone(
        "facenet_fast.backbones.se_resnet50:features",
        "SE-ResNet-50 (SENet), 26.4 M parameters",
        smallest_image=32,
    ),
    "mobilenet_v3_small": Backbone(
        "facenet_fast.backbones.applications:mobilenet_v3_small",
        "MobileNetV3-Small of keras.applications, 1.0 M parameters",
        smallest_image=32,
    ),
    "mobilenet_v3_large": Backbone(
        "facenet_fast.backbones.applications:mobilenet_v3_large",
        "MobileNetV3-Large of keras.applications, 3.1 M parameters",
        smallest_image=32,
    ),
    "efficientnet_v2_b0": Backbone(
        "facenet_fast.backbones.applications:efficientnet_v2_b0",
        "EfficientNetV2-B0 of keras.applications, 6.1 M parameters",
        smallest_image=32,
    ),
    "densenet121": Backbone(
        "facenet_fast.backbones.applications:densenet121",
        "DenseNet-121 of keras.applications, 7.2 M parameters",
        smallest_image=32,
    ),
    "densenet169": Backbone(
        "facenet_fast.backbones.applications:densenet169",
        "DenseNet-169 of keras.applications, 12.9 M parameters",
        smallest_image=32,
    ),
    "resnet50_v2": Backbone(
        "facenet_fast.backbones.applications:resnet50_v2",
        "ResNet-50 v2 of keras.applications, 23.8 M parameters",
        smallest_image=32,
    ),
    "convnext_tiny": Backbone(
        "facenet_fast.backbones.applications:convnext_tiny",
        "ConvNeXt-Tiny of keras.applications, 27.9 M parameters",
        smallest_image=32,
    ),
    "inception_resnet_v2": Backbone(
        "facenet_fast.backbones.applications:inception_resnet_v2",
        "Inception-ResNet-v2 of keras.applications, 54.5 M parameters",
        smallest_image=75,
    ),
}


def names() -> tuple[str, ...]:
    """Names of all networks that `build` knows, without importing TensorFlow.

    Examples
    --------
    >>> "small_resnet" in names()
    True
    """
    return tuple(BACKBONES)


def describe() -> dict[str, str]:
    """One line about each network, by name, without importing TensorFlow.

    Examples
    --------
    >>> describe()["small_resnet"].startswith("residual network")
    True
    """
    return {name: backbone.description for name, backbone in BACKBONES.items()}


def build(name: str, image_size: int, embedding_size: int, *, dropout: float = 0.0) -> keras.Model:
    """Make a network with new weights, drawn from Keras' global seed (`keras.utils.set_random_seed`).

    Parameters
    ----------
    name : str
        One of `names()`, with or without the predecessor's ``models.`` before it; or ``module:function`` for
        a network of your own: the function takes the Keras tensor of images (n, S, S, 3) and returns
        features (n, F) or (n, h, w, F); the head is put on them as on ours.
    image_size : int
        Side S of the square images in pixels.
    embedding_size : int
        How many numbers describe a face. FaceNet: 128.
    dropout : float, default 0
        Share of the features dropped before the embedding while training.

    Returns
    -------
    keras.Model
        float32 standardised images (n, S, S, 3) to float32 embeddings (n, embedding_size) of length 1.
        ``model.save("....keras")`` works; `keras.saving.load_model` reads it once
        `facenet_fast.backbones.head` has been imported.

    Raises
    ------
    UserError
        Unknown name, a function that cannot be imported or does not return features, an image too small
        for the network, sizes below 1, dropout outside [0, 1).

    Examples
    --------
    >>> model = build("small_resnet", image_size=32, embedding_size=16)
    >>> model.output_shape
    (None, 16)
    """
    backbone = _find(name)
    if image_size < backbone.smallest_image:
        raise UserError(
            f"image_size must be at least {backbone.smallest_image} for backbone {name}; got {image_size}"
        )
    if embedding_size < 1:
        raise UserError(f"embedding_size must be at least 1; got {embedding_size}")
    if not 0.0 <= dropout < 1.0:
        raise UserError(f"dropout must be at least 0 and less than 1; got {dropout}")

    import keras

    from facenet_fast.backbones import head

    features_of = _import_builder(backbone.builder)
    images = keras.Input((image_size, image_size, 3), name="images")
    features = features_of(images)
    if not isinstance(features, keras.KerasTensor) or len(features.shape) not in (2, 4):
        raise UserError(
            f"{backbone.builder} must return a Keras tensor (n, F) or (n, h, w, F); got {features!r}"
        )
    embeddings = head.embed(features, embedding_size, dropout=dropout, momentum=backbone.head_momentum)
    return keras.Model(images, embeddings, name=name.rpartition(":")[2].rpartition(".")[2])


def _find(name: str) -> Backbone:
    if ":" in name:
        return Backbone(name, "a network of the user's")
    found = BACKBONES.get(name.removeprefix("models."))
    if found is None:
        raise UserError(f"backbone must be one of {', '.join(names())}, or module:function; got {name!r}")
    return found


def _import_builder(path: str) -> Callable[[Any], Any]:
    module_name, _, function_name = path.partition(":")
    try:
        builder = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"backbone {path!r} cannot be imported: {error}") from error
    if not callable(builder):
        raise UserError(f"backbone {path!r} must be a function of the images; got {builder!r}")
    function: Callable[[Any], Any] = builder
    return function
