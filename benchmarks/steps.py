"""What one exact step takes, in memory and time, as the pool grows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .rivals import tensorflow

__all__ = ["prepare_step"]

_N_IMAGES_AN_IDENTITY = 4


def prepare_step(n_images: int, batch_size: int, image_size: int, n_threads: int) -> Callable[[], Any]:
    """Return what makes one step of ``--step unique`` on a pool, with the demo's network and augmentation.

    Parameters
    ----------
    n_images : int
        In the pool: four of each identity.
    batch_size : int
        Images in one pass.
    image_size : int
        Side of the images in pixels.
    """
    tensorflow(n_threads)
    import keras

    from facenet_fast.checkpoints import build_model
    from facenet_fast.config import TrainConfig
    from facenet_fast.training.loop import preparation
    from facenet_fast.training.optimizers import build_optimizer
    from facenet_fast.training.pools import Pool
    from facenet_fast.training.step import UniqueStep

    keras.utils.set_random_seed(0)
    config = TrainConfig(
        image_size=image_size,
        identities_per_batch=n_images // _N_IMAGES_AN_IDENTITY,
        images_per_identity=_N_IMAGES_AN_IDENTITY,
        batch_size=batch_size,
        moving_average_decay=0.0,
        threads=n_threads,
    )
    network = build_model(config)
    optimizer = build_optimizer(config, network.trainable_variables)
    step = UniqueStep(network, optimizer, network, preparation(config), config)
    images = np.random.default_rng(0).integers(0, 256, (n_images, image_size, image_size, 3), np.uint8)
    identities = np.arange(config.identities_per_batch, dtype=np.int32)
    pool = Pool(images, np.repeat(identities, _N_IMAGES_AN_IDENTITY))

    def make() -> Any:
        outcome = step.run(pool, 0)
        assert outcome.is_applied, outcome
        assert outcome.n_images == n_images, outcome
        return outcome

    return make
