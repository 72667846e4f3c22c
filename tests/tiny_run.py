"""A run folder with a tiny network and a folder of tiny faces, for tests of what reads them."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from facenet_fast.checkpoints import Checkpoints, build_model
from facenet_fast.config import TrainConfig

IMAGE_SIZE = 24
EMBEDDING_SIZE = 6
N_IDENTITIES = 6
N_IMAGES = 4


def features(images):
    """Convolve twice: the network of the tests, for `--backbone tests.tiny_run:features`."""
    x = keras.layers.Conv2D(6, 5, strides=3, use_bias=False)(images)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.ReLU()(x)
    return keras.layers.Conv2D(8, 3, strides=2, activation="relu")(x)


def make_run(run_dir: Path, **settings: object) -> Path:
    """Write config.json and a checkpoint of step 7 with random weights and batch-norm averages."""
    config = TrainConfig(
        backbone="tests.tiny_run:features",
        image_size=IMAGE_SIZE,
        embedding_size=EMBEDDING_SIZE,
        **settings,
    )
    run_dir.mkdir(parents=True)
    (run_dir / "config.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
    model = make_model(config)
    Checkpoints(str(run_dir), {"averaged": model.weights}).save(7)
    return run_dir


def make_model(config: TrainConfig) -> keras.Model:
    keras.utils.set_random_seed(3)
    model = build_model(config)
    rng = np.random.default_rng(3)
    for weight in model.non_trainable_weights:
        if weight.path.endswith("moving_mean"):
            weight.assign(rng.uniform(-0.3, 0.3, weight.shape).astype(np.float32))
        if weight.path.endswith("moving_variance"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape).astype(np.float32))
    return model


def make_faces(images_dir: Path) -> Path:
    """Write identities of a few small images each; pairs.txt beside them has as many same pairs as others."""
    rng = np.random.default_rng(0)
    lines = ["6\t6"]
    for n in range(N_IDENTITIES):
        face = rng.uniform(0, 255, (5, 5, 3))
        (images_dir / name_of(n)).mkdir(parents=True)
        for image in range(1, N_IMAGES + 1):
            noisy = np.clip(face + rng.normal(scale=25, size=face.shape), 0, 255).astype(np.uint8)
            path = images_dir / name_of(n) / f"{name_of(n)}_{image:04d}.png"
            Image.fromarray(noisy).resize((30, 30), Image.Resampling.BICUBIC).save(path)
        for left in range(1, N_IMAGES + 1):
            for right in range(left + 1, N_IMAGES + 1):
                lines.append(f"{name_of(n)}\t{left}\t{right}")
        other = (n + 1) % N_IDENTITIES
        lines += [
            f"{name_of(n)}\t{left}\t{name_of(other)}\t{right}" for left in (1, 2) for right in (1, 3, 4)
        ]
    (images_dir.parent / "pairs.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return images_dir


def name_of(identity: int) -> str:
    return f"Person_{identity}"
