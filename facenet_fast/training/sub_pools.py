"""Many optimiser steps of one mined pool, or one step of several: how many steps there are is a setting.

`SubPoolStep` embeds and mines a pool as a whole, and deals its identities out: each step is of the triplets
whose anchors are of some of them, by the exact gradient of `UniqueStep`. `SeveralPoolsStep` takes the mean of
the gradients of several pools, which are embedded and mined each for itself.
"""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from facenet_fast.config import TrainConfig
from facenet_fast.losses.triplet import mined_triplet_loss
from facenet_fast.training.dealing import spread
from facenet_fast.training.pools import Pool
from facenet_fast.training.step import STEPS, Mined, Outcome, TripletStep, UniqueStep, step_seed

__all__ = ["SeveralPoolsStep", "SubPool", "SubPoolStep", "step_class"]


@dataclass(frozen=True, eq=False)
class SubPool:
    """The share of a pool that one step is made of.

    Attributes
    ----------
    pool : Pool
        All of it: negatives may be of anybody.
    identities : int array
        Whose images are anchors.
    remaining : int array
        These, and those whose turn comes after theirs.
    """

    pool: Pool
    identities: npt.NDArray[np.int32]
    remaining: npt.NDArray[np.int32]


class SubPoolStep(UniqueStep):
    """Mine a pool in inference mode, then step on the triplets of a few identities at a time.

    Of the P identities of a pool those with two images or more are dealt out at random into as many shares as
    leave ``sub_pool`` or fewer in each, none with more than one more than another. The step of a share is by
    the exact gradient of the mean loss over the triplets with anchors in it. Its images, each passed with a
    gradient once, are those in the triplets: they are fewer than the pool's as far as the strategy picks
    few negatives. Memory is that of ``batch_size`` images, as for `UniqueStep`.

    A pool is mined as its first share has its turn, with the weights of then; after every `remine_every`
    steps the whole pool is embedded again, and mined for the anchors that remain.

    Parameters are those of `UniqueStep`; of `config` also `sub_pool` and `remine_every` are read.
    """

    # Rows of the embeddings: anchor, positive, negative.
    targets_spec = tf.TensorSpec((None, 3), tf.int32)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._pool: Pool | None = None
        self._triplets: npt.NDArray[np.int32] = np.empty((0, 3), np.int32)
        self._found = Mined(0, 0, 0.0)
        self._n_since = 0  # steps since it was mined

    def plan(self, pool: Pool, step: int) -> list[Any]:
        """Deal the identities of a pool that have a pair of images into shares, a `SubPool` each."""
        self._pool = None
        identities, counts = np.unique(pool.labels, return_counts=True)
        draws = np.random.default_rng(step_seed(self.config.seed, step))
        dealt = draws.permutation(identities[counts > 1])
        # Even shares: a last step of one identity would weigh as much as one of many.
        shares = np.array_split(dealt, max(math.ceil(len(dealt) / self.config.sub_pool), 1))
        return [SubPool(pool, one, np.concatenate(shares[n:])) for n, one in enumerate(shares)]

    def run(self, work: Any, step: int) -> Outcome:
        """Make the step of one share, and mine the pool before it if that is due."""
        due = self.config.remine_every
        if self._pool is not work.pool or (due and self._n_since >= due):
            self._mine_pool(work, step)
        found = self._found
        # What mining took is told once.
        self._found = dataclasses.replace(found, seconds=0.0, embed_seconds=0.0)
        is_anchor = np.isin(work.pool.labels, work.identities)
        triplets = self._triplets[is_anchor[self._triplets[:, 0]]]
        if not len(triplets):
            return Outcome(self.penalty() if found.is_finite else math.nan, 0, 0, 0.0, found)
        loss, norm, n_images, gradients = self._differentiate_triplets(work.pool, triplets, step)
        outcome = self.finish(Outcome(float(loss), len(triplets), n_images, float(norm), found), gradients)
        self._n_since += outcome.is_applied
        return outcome

    def _mine_pool(self, work: SubPool, step: int) -> None:
        start = time.perf_counter()
        labels = work.pool.labels
        embeddings = self.embed_plainly(work.pool.images)
        embed_seconds = time.perf_counter() - start
        seed = step_seed(self.config.seed, step)
        anchor, positive, negative, n_pairs, seconds = self.mine(
            embeddings, labels, seed, anchors=np.isin(labels, work.remaining)
        )
        self._triplets = np.stack([anchor, positive, negative], axis=1)
        self._found = Mined(int(n_pairs), len(anchor), float(seconds), bool(n_pairs >= 0), embed_seconds)
        self._pool = work.pool
        self._n_since = 0

    def _differentiate_triplets(
        self, pool: Pool, triplets: npt.NDArray[np.int32], step: int
    ) -> tuple[Any, Any, int, list[Any]]:
        """Return the loss of triplets of a pool, the gradient's norm, how many images, and the gradient."""
        rows = np.unique(triplets)
        in_one_pass = len(rows) <= self.config.batch_size
        order = rows if in_one_pass else rows[spread(pool.labels[rows])]
        place = np.zeros(len(pool.labels), np.int32)
        place[order] = np.arange(len(order))
        if in_one_pass:
            loss, norm, _, gradients = self._whole(
                pool.images[order], place[triplets], step_seed(self.config.seed, step)
            )
        else:
            loss, norm, _, gradients = self.in_chunks(pool.images, order, place[triplets], step, 0)
        return loss, norm, len(rows), gradients

    def _loss_of_targets(self, embeddings: Any, targets: Any, seed: Any) -> tuple[Any, Any]:
        anchor, positive, negative = tf.unstack(targets, axis=1)
        loss = mined_triplet_loss(embeddings, anchor, positive, negative, self.config.margin, self.is_soft)
        return loss, ()


class SeveralPoolsStep(UniqueStep):
    """One step by the mean gradient of several pools, each embedded, mined and passed back by itself.

    Pools without triplets (for `log_sum_exp`: without pairs) have no part in the mean, as such a pool alone
    makes no step. The averages of batch-norm move pool by pool. Memory is that of ``batch_size`` images and
    one more gradient, beside the decoded images.

    Parameters are those of `UniqueStep`.
    """

    def run(self, work: Pool, step: int) -> Outcome:
        """Make one step of all the pools."""
        outcomes: list[Outcome] = []
        sums: list[Any] = []
        n_chunks = n_rows = 0
        for pool in work.parts():
            outcome, gradients = self.differentiate(pool, step, n_chunks)
            n_images = len(pool.labels)
            # Triplets to be looked at are rows of all pools together.
            self._order = n_rows + (np.arange(n_images) if self._order is None else self._order)
            n_rows += n_images
            n_chunks += math.ceil(n_images / self.config.batch_size)
            outcomes.append(outcome)
            if outcome.n_triplets:
                sums = [a + b for a, b in zip(sums, gradients, strict=True)] if sums else gradients
        active = [outcome for outcome in outcomes if outcome.n_triplets] or outcomes[-1:]
        mean = [one / len(active) for one in sums]
        mined = [outcome.mined for outcome in outcomes]
        return self.finish(
            Outcome(
                loss=sum(outcome.loss for outcome in active) / len(active),
                n_triplets=sum(outcome.n_triplets for outcome in outcomes),
                n_images=n_rows,
                gradient_norm=float(self.norm(mean)) if mean else 0.0,
                mined=Mined(
                    sum(one.n_pairs for one in mined),
                    sum(one.n_triplets for one in mined),
                    sum(one.seconds for one in mined),
                    is_finite=all(one.is_finite for one in mined),
                ),
            ),
            mean,
        )


def step_class(config: TrainConfig) -> type[UniqueStep] | type[TripletStep]:
    """Return the class of the step that the settings ask for.

    Examples
    --------
    >>> step_class(TrainConfig(sub_pool=10)).__name__, step_class(TrainConfig(pools_per_step=2)).__name__
    ('SubPoolStep', 'SeveralPoolsStep')
    """
    if config.sub_pool:
        return SubPoolStep
    return SeveralPoolsStep if config.pools_per_step > 1 else STEPS[config.step]
