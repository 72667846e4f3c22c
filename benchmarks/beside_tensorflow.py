"""Mining in the process of a TensorFlow train step, to see whether either slows the other.

The step trains the library's small network on triplets; the miner mines a pool of its own. Each is timed
alone, back to back, and in alternation. Mining comes a third time, after a copy of much memory: what a train
step does to the caches is done by any other work too, and is not a matter of threads.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from facenet_fast import mine_triplets

from .regimes import Regime, pool
from .rivals import tensorflow
from .rules import MARGIN
from .timing import PAUSE_SECONDS, Timing

N_IMAGES, IMAGE_SIZE = 32, 64
MANY_BYTES = 64 << 20


def train_step(n_threads: int) -> Callable[[], float]:
    """Return an optimiser step on a batch that stays the same; it returns the loss when all is done."""
    tf = tensorflow(n_threads)
    import keras

    from facenet_fast.backbones import build
    from facenet_fast.losses.triplet import mined_triplet_loss

    keras.utils.set_random_seed(0)
    network = build("small_resnet", IMAGE_SIZE, 128)
    optimizer = keras.optimizers.SGD(1e-3)
    optimizer.build(network.trainable_variables)
    images = tf.random.stateless_normal((N_IMAGES, IMAGE_SIZE, IMAGE_SIZE, 3), seed=(0, 1))
    anchor, positive, negative = (tf.constant(np.arange(N_IMAGES - 2) + i) for i in range(3))

    @tf.function  # type: ignore[untyped-decorator]
    def step() -> Any:
        with tf.GradientTape() as tape:
            embeddings = network(images, training=True)
            loss = mined_triplet_loss(embeddings, anchor, positive, negative, MARGIN)
        gradients = tape.gradient(loss, network.trainable_variables)
        optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
        return loss

    return lambda: float(step())


def compare(
    shape: tuple[int, int, int],
    regime: Regime,
    strategy: str,
    n_threads: int,
    n_turns: int,
    n_calls: int = 10,
) -> dict[str, Timing]:
    """Time the train step and mining, each alone and in alternation, a turn of each kind after the other.

    Returns
    -------
    dict
        ``"step"`` and ``"mining"`` alone, ``"step, alternating"``, ``"mining, alternating"``, and
        ``"mining, caches used"``.
    """
    step = train_step(n_threads)
    rows, labels = pool(*shape, regime)
    many = np.zeros((2, MANY_BYTES // 2), np.uint8)
    seconds: dict[str, list[float]] = defaultdict(list)

    def mine() -> None:
        assert len(mine_triplets(rows, labels, strategy=strategy, margin=MARGIN, seed=1))

    def use_caches() -> None:
        np.copyto(many[0], many[1])

    def turn(**calls: Callable[[], Any]) -> None:
        time.sleep(PAUSE_SECONDS)
        for i in range(n_calls + 1):
            for name, call in calls.items():
                begin = time.perf_counter()
                call()
                if i:  # the first wakes the threads
                    seconds[name].append(time.perf_counter() - begin)

    step()
    mine()
    for _ in range(n_turns):
        turn(**{"step": step})
        turn(**{"mining": mine})
        turn(**{"step, alternating": step, "mining, alternating": mine})
        turn(**{"copy": use_caches, "mining, caches used": mine})
    return {name: Timing.of(all_) for name, all_ in seconds.items() if name != "copy"}
