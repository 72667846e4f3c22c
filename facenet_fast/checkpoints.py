"""Checkpoints: everything a run needs to go on exactly, under the predecessor's file names.

A checkpoint ``RUN/model-<stamp>.ckpt-<step>`` holds lists of variables (weights, averaged weights, optimizer,
dropout's seeds, sampler, step) by position. Positions follow from how the network is built, which the run's
`config.json` says; so neither layer names nor Keras' object graph are part of the format.

Whenever a process dies, the checkpoint that the file ``checkpoint`` names is whole: a new one is written
aside, gets its name, its index last, and is named there before an old one is removed.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from facenet_fast import backbones
from facenet_fast.config import TrainConfig, read_train_config
from facenet_fast.errors import UserError, first_line
from facenet_fast.files import write_text_aside

__all__ = [
    "Checkpoints",
    "build_model",
    "copy_weights",
    "find_checkpoint",
    "load_model",
    "read_training_set",
]

CONFIG_FILE = "config.json"
TRAINING_SET_FILE = "training_set.json"
# TensorFlow's, too, finds the newest checkpoint by this file.
_STATE_FILE = "checkpoint"
# Where a checkpoint is written; one that a process left when it died is overwritten.
_ASIDE_DIR = ".checkpoint.aside"
_STEP = re.compile(r"\.ckpt-(\d+)$")
_FILE_OF_PREFIX = re.compile(r"(\.ckpt-\d+)\.(index|data-\d{5}-of-\d{5}|meta)$")

_logger = logging.getLogger("facenet_fast")


class Checkpoints:
    """Save and restore named lists of variables in a run folder, keeping the newest few.

    Parameters
    ----------
    run_dir : str
        The folder; its name is the stamp in ``model-<stamp>.ckpt-<step>``.
    parts : mapping of str to sequence of variables
        What is saved, list by list (`keras.Variable` or `tf.Variable`).
    keep : int
        How many of the newest checkpoints stay on disk.

    Examples
    --------
    >>> import tempfile, tensorflow as tf
    >>> weight = tf.Variable(1.0)
    >>> checkpoints = Checkpoints(tempfile.mkdtemp(), {"model": [weight]})
    >>> prefix = checkpoints.save(5)
    >>> _ = weight.assign(2.0)
    >>> checkpoints.restore()
    5
    >>> float(weight)
    1.0
    """

    def __init__(self, run_dir: str, parts: Mapping[str, Sequence[Any]], keep: int = 3) -> None:
        self.run_dir = os.path.abspath(run_dir)
        self._checkpoint = _checkpoint_of(parts)
        self._keep = keep

    def save(self, step: int) -> str:
        """Write a checkpoint and return its prefix.

        Raises
        ------
        UserError
            If the folder cannot be written (no space, no permission). The checkpoints before are whole.
        """
        name = f"model-{os.path.basename(self.run_dir)}.ckpt-{step}"
        try:
            self._write(name)
            kept = [one for one in _recorded(self.run_dir) if one != name] + [name]
            # Named before the oldest are removed, and once more without these: whenever this is cut short,
            # the newest that is named is there.
            _record(self.run_dir, kept)
            for old in kept[: -self._keep]:
                _remove_checkpoint(self.run_dir, old)
            _record(self.run_dir, kept[-self._keep :])
        except (OSError, tf.errors.OpError) as error:
            raise UserError(
                f"cannot write a checkpoint to {self.run_dir!r}, where those before stay: {first_line(error)}"
            ) from error
        return os.path.join(self.run_dir, name)

    def restore(self, prefix: str | None = None) -> int:
        """Restore every variable from a checkpoint, the newest by default, and return its step.

        Raises
        ------
        UserError
            If there is no checkpoint, it cannot be read, or it holds other variables.
        """
        prefix = find_checkpoint(self.run_dir) if prefix is None else prefix
        _restore(self._checkpoint, prefix)
        return step_of(prefix)

    def restore_whole(self) -> str:
        """Restore every variable from the newest checkpoint that is whole, and return its prefix.

        A damaged one is passed over with a warning that names both.

        Raises
        ------
        UserError
            If there is no checkpoint, none can be read, or the newest whole one holds other variables.
        """
        failed: UserError | None = None
        for prefix in _find_checkpoints(self.run_dir):
            try:
                _restore(self._checkpoint, prefix)
            except UserError as error:
                # Files that are whole, of another network or optimizer: older ones would hide that.
                if isinstance(error.__cause__, AssertionError | ValueError):
                    raise
                failed = failed or error
                continue
            if failed is not None:
                _logger.warning("%s; going on from the one before, %s", failed, prefix)
            return prefix
        assert failed is not None
        raise failed

    def _write(self, name: str) -> None:
        aside_dir = os.path.join(self.run_dir, _ASIDE_DIR)
        shutil.rmtree(aside_dir, ignore_errors=True)
        os.mkdir(aside_dir)
        try:
            self._checkpoint.write(os.path.join(aside_dir, name))
            files = sorted(os.listdir(aside_dir))  # name.data-..., name.index
            # A checkpoint is there once its index is. Of an older one of the same step nothing is mixed in.
            _remove_checkpoint(self.run_dir, name)
            for file in files:
                os.replace(os.path.join(aside_dir, file), os.path.join(self.run_dir, file))
        finally:
            shutil.rmtree(aside_dir, ignore_errors=True)


def build_model(config: TrainConfig, precision: str = "float32") -> keras.Model:
    """Build the network of a configuration, with new weights from Keras' global seed.

    Parameters
    ----------
    config : TrainConfig
        The settings.
    precision : {"float32", "bfloat16", "float16"}
        What it computes in; its weights and embeddings are float32 in any case.
    """
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32" if precision == "float32" else f"mixed_{precision}")
    try:
        return backbones.build(
            config.backbone, config.image_size, config.embedding_size, dropout=config.dropout
        )
    finally:
        keras.config.set_dtype_policy(policy)


def load_model(path: str) -> tuple[keras.Model, TrainConfig]:
    """Load the network of a run with the weights that are verified: the averaged ones.

    Parameters
    ----------
    path : str
        A run folder (its newest checkpoint is taken) or a checkpoint's prefix
        ``RUN/model-<stamp>.ckpt-<step>``. The run may have been moved since.

    Returns
    -------
    model : keras.Model
        float32 standardised (n, S, S, 3) to float32 (n, E).
    config : TrainConfig
        The settings of the run.

    Raises
    ------
    UserError
        If there is no checkpoint, no `config.json` beside it, or it cannot be read.
    """
    prefix = find_checkpoint(path)
    config = read_train_config(os.path.join(os.path.dirname(prefix), CONFIG_FILE))
    model = build_model(config)
    _restore(_checkpoint_of({"averaged": model.weights}), prefix)
    return model, config


def read_training_set(run_dir: str) -> tuple[int, int] | None:
    """Return how many images of how many identities a run was trained on; None if it does not say."""
    try:
        with open(os.path.join(run_dir, TRAINING_SET_FILE), encoding="utf-8") as file:
            record = json.load(file)
        return int(record["n_images"]), int(record["n_identities"])
    except (OSError, ValueError, KeyError, TypeError):  # runs of earlier versions, or moved by hand
        return None


def copy_weights(source: keras.Model, model: keras.Model, path: str) -> list[str]:
    """Start a model from trained weights; the head may have another embedding size.

    Parameters
    ----------
    source : keras.Model
        The trained network.
    model : keras.Model
        The network that is filled.
    path : str
        Where the source is from, for messages.

    Returns
    -------
    list of str
        Paths of the weights that keep their new values, because the embedding size differs.

    Raises
    ------
    UserError
        If the two are not one network.
    """
    if len(source.weights) != len(model.weights):
        raise UserError(
            f"{path!r} must hold the network {model.name!r} with its {len(model.weights)} weights; "
            f"got {source.name!r} with {len(source.weights)}"
        )
    kept = []
    pairs = list(zip(model.weights, source.weights, strict=True))
    for target, weight in pairs:
        if tuple(target.shape) != tuple(weight.shape):
            if not target.path.startswith("bottleneck"):
                raise UserError(
                    f"{path!r} must hold the network {model.name!r}; {target.path} must have the shape "
                    f"{tuple(target.shape)}, got {tuple(weight.shape)}"
                )
            kept.append(target.path)
    # Half a head would be worse than a new one: where one of its shapes differs, all of it stays new.
    for target, weight in pairs:
        if kept and target.path.startswith("bottleneck"):
            if target.path not in kept:
                kept.append(target.path)
            continue
        target.assign(weight.value)
    if kept:
        _logger.warning("the embedding size differs from %s: the head starts from new weights", path)
    return kept


def find_checkpoint(path: str) -> str:
    """Find the checkpoint that a run folder or a prefix stands for.

    In a folder it is the one that the file ``checkpoint`` names (by its last component, so that moved runs
    work), or the one of the highest step.

    Returns
    -------
    str
        The absolute prefix ``.../model-<stamp>.ckpt-<step>``.

    Raises
    ------
    UserError
        If there is none; the message says what was found.
    """
    return _find_checkpoints(path)[0]


def step_of(prefix: str) -> int:
    """Step in a checkpoint's name.

    Examples
    --------
    >>> step_of("runs/20240101-120000/model-20240101-120000.ckpt-500")
    500
    """
    match = _STEP.search(prefix)
    if match is None:
        raise UserError(f"a checkpoint's name must end in .ckpt-STEP; got {prefix!r}")
    return int(match.group(1))


def _find_checkpoints(path: str) -> list[str]:
    """Prefixes of the checkpoints that `find_checkpoint` chooses from, the chosen one first, then by step."""
    path = os.path.abspath(path)
    if not os.path.isdir(path):
        prefix = _FILE_OF_PREFIX.sub(r"\1", path)
        if os.path.isfile(prefix + ".index"):
            return [prefix]
        raise UserError(f"no run folder and no checkpoint {path!r}")
    prefixes = [file.removesuffix(".index") for file in os.listdir(path) if file.endswith(".index")]
    prefixes = sorted((prefix for prefix in prefixes if _STEP.search(prefix)), key=step_of, reverse=True)
    for named in _recorded(path, "model_checkpoint_path"):
        if named in prefixes:
            prefixes.remove(named)
            prefixes.insert(0, named)
    if not prefixes:
        raise UserError(f"{path!r} must hold a checkpoint (model-*.ckpt-STEP.index); found none")
    return [os.path.join(path, prefix) for prefix in prefixes]


def _recorded(run_dir: str, key: str = "all_model_checkpoint_paths") -> list[str]:
    """Last components of the prefixes that the file ``checkpoint`` names, oldest first."""
    try:
        with open(os.path.join(run_dir, _STATE_FILE), encoding="utf-8", errors="surrogateescape") as file:
            paths = re.findall(rf'^{key}: "(.+)"$', file.read(), re.MULTILINE)
    except OSError:
        return []
    return [re.split(r"[/\\]", re.sub(r"\\(.)", r"\1", path))[-1] for path in paths]


def _record(run_dir: str, names: Sequence[str]) -> None:
    """Write the file ``checkpoint``: a CheckpointState as protocol buffers' text, as TensorFlow does."""
    quoted = [re.sub(r'(["\\])', r"\\\1", name) for name in names]
    lines = [f'model_checkpoint_path: "{quoted[-1]}"']
    lines += [f'all_model_checkpoint_paths: "{name}"' for name in quoted]
    write_text_aside(os.path.join(run_dir, _STATE_FILE), "\n".join(lines) + "\n")


def _remove_checkpoint(run_dir: str, name: str) -> None:
    # The index first: half a checkpoint must not be found.
    files = [file for file in os.listdir(run_dir) if _FILE_OF_PREFIX.sub(r"\1", file) == name != file]
    for file in sorted(files, key=lambda file: not file.endswith(".index")):
        os.remove(os.path.join(run_dir, file))


def _checkpoint_of(parts: Mapping[str, Sequence[Any]]) -> tf.train.Checkpoint:
    return tf.train.Checkpoint(
        **{name: [_bare(variable) for variable in part] for name, part in parts.items()}
    )


def _bare(variable: Any) -> Any:
    # Under a Keras variable is the tf.Variable; TensorFlow then needs to know nothing of Keras.
    return variable.value if isinstance(variable, keras.Variable) else variable


def _restore(checkpoint: tf.train.Checkpoint, prefix: str) -> None:
    try:
        status = checkpoint.read(prefix)
        status.assert_existing_objects_matched().expect_partial()
    # A damaged file shows as any of these, depending on where TensorFlow stumbles.
    except (AssertionError, IndexError, RuntimeError, ValueError, tf.errors.OpError) as error:
        raise UserError(
            f"the checkpoint {prefix!r} cannot be read into this network: {first_line(error)}"
        ) from error
