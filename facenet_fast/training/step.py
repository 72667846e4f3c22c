"""One optimiser step: images in, triplets mined, weights moved.

`UniqueStep` passes every image of a pool through the network once and takes the exact gradient of the loss
over all mined triplets, or over all pairs and negatives (`log_sum_exp`). A pool that does not fit in one pass
goes through in chunks, twice: first without a tape for the embeddings, whose gradients are then known, and
again chunk by chunk to carry them into the weights (gradient caching: Gao et al., "Scaling Deep Contrastive
Learning Batch Size under Memory Limited Setup", 2021). `TripletStep` is the predecessor's way: mine first,
then pass batches of triplets, three images each.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from facenet_fast.config import TrainConfig
from facenet_fast.losses.log_sum_exp import mean_over_pairs
from facenet_fast.losses.triplet import l2_regularisation, loss_of_triplets, mined_triplet_loss
from facenet_fast.mining import mine_triplets
from facenet_fast.training.auto_mining import AutoMining
from facenet_fast.training.dealing import spread
from facenet_fast.training.pools import Pool

__all__ = [
    "STEPS",
    "Mined",
    "MinedTriplets",
    "Outcome",
    "Preparation",
    "Step",
    "TripletBatch",
    "TripletStep",
    "UniqueStep",
    "dense",
    "step_seed",
]

# A float16 gradient that overflows at a smaller scale than this is no matter of scale.
_LEAST_LOSS_SCALE = 2.0**-10
# As many show how distances are spread, and cost nothing beside a step.
_MAX_LOOKED_AT = 2048

_logger = logging.getLogger("facenet_fast")

_Integers = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Mined:
    """What mining a pool found and took.

    Attributes
    ----------
    n_pairs, n_triplets : int
        Pairs looked at, and triplets picked. With the loss `log_sum_exp`, which picks none: ordered pairs
        with a negative in the pool, and those of them with one within the margin.
    seconds : float
        That mining took.
    is_finite : bool
        Whether there were embeddings to mine.
    embed_seconds : float
        That a pass before mining took, within the step.
    """

    n_pairs: int
    n_triplets: int
    seconds: float
    is_finite: bool = True
    embed_seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class MinedTriplets:
    """Triplets of a pool, to be looked at.

    Attributes
    ----------
    rows : int array (n_triplets, 3)
        Rows of the pool: anchor, positive, negative.
    d_ap, d_an : float32 (n_triplets,)
        Squared distances, of the embeddings that were mined.
    """

    rows: npt.NDArray[np.integer]
    d_ap: npt.NDArray[np.float32]
    d_an: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Outcome:
    """One optimiser step.

    Attributes
    ----------
    loss : float
        Triplet loss and regularisation before the step. Not finite: the weights were left alone.
    n_triplets : int
        Triplets in the step, or with `log_sum_exp` pairs; without any the weights were left alone. Its pairs
        that have no negative within the margin count, too: their loss is small, but never at rest.
    n_images : int
        Images passed through the network with a gradient.
    gradient_norm : float
        Of all weights together.
    mined : Mined
        The mining that the step's triplets are from.
    is_rescaled : bool
        Whether float16 could not hold the gradient, so that the loss is scaled less from here on. The weights
        were left alone.
    """

    loss: float
    n_triplets: int
    n_images: int
    gradient_norm: float
    mined: Mined
    is_rescaled: bool = False

    @property
    def is_finite(self) -> bool:
        """Whether embeddings, loss and gradient are numbers to go on from."""
        has_gradient = math.isfinite(self.gradient_norm) or self.is_rescaled
        return self.mined.is_finite and math.isfinite(self.loss) and has_gradient

    @property
    def is_applied(self) -> bool:
        """Whether the weights were moved."""
        return self.is_finite and self.n_triplets > 0 and not self.is_rescaled


@dataclass(frozen=True)
class Preparation:
    """How uint8 images become the network's input, as functions of tensors.

    Attributes
    ----------
    train : callable
        (images (n, T, T, 3) uint8, seed (2,) int64) to augmented, standardised float32 (n, S, S, 3).
    plain : callable
        images to standardised float32 (n, S, S, 3), nothing random.
    """

    train: Callable[[Any, Any], Any]
    plain: Callable[[Any], Any]


class Step(Protocol):
    """What the training loop asks of a way to step."""

    seen: tuple[npt.NDArray[np.float32], _Integers] | None
    """Embeddings of the pool that was mined last, and the identity of each."""

    auto: AutoMining | None
    """What chooses the strategy, where that is "auto"."""

    def penalty(self) -> float:
        """Return the part of the loss that is of the weights."""

    def plan(self, pool: Pool, step: int) -> list[Any]:
        """Divide a pool into pieces of work, one an optimiser step."""

    def run(self, work: Any, step: int) -> Outcome:
        """Make one optimiser step; `step` steps have been made before and key its draws."""

    def last_mined(self) -> MinedTriplets | None:
        """Return triplets of the pool that was mined last; None where there were none."""

    def undo(self) -> None:
        """Put back what a step has changed of the network that other replicas' end kept from being made."""

    def settle(self) -> None:
        """Give all replicas the state of the chief's first one, where there are others."""


def step_seed(seed: int, step: int, chunk: int = 0) -> npt.NDArray[np.int64]:
    """Two numbers below 2**32 that key all draws of a chunk of a step.

    Examples
    --------
    >>> (step_seed(666, 3) == step_seed(666, 3)).all(), (step_seed(666, 3) == step_seed(666, 4)).any()
    (np.True_, np.False_)
    """
    return np.random.SeedSequence([seed, step, chunk]).generate_state(2).astype(np.int64)


class _Trainer:
    """The model, what moves its weights, and the average that follows them."""

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.Optimizer,
        averaged: keras.Model,
        prepare: Preparation,
        config: TrainConfig,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.averaged = averaged
        self.prepare = prepare
        self.config = config
        self.is_soft = config.loss == "soft_margin"
        # With adamw the optimizer itself decays weights.
        self.loss_weight_decay = 0.0 if config.optimizer == "adamw" else config.weight_decay
        size = config.store_size
        self.images_spec = tf.TensorSpec((None, size, size, 3), tf.uint8)
        self.seed_spec = tf.TensorSpec((2,), tf.int64)
        self.embeddings_spec = tf.TensorSpec((None, config.embedding_size), tf.float32)
        # Triplets mined last: rows of `seen`, which are the pool's in this order (None: in its own).
        self._mined: npt.NDArray[np.int32] | None = None
        self._order: npt.NDArray[np.int64] | None = None
        self.seen: tuple[npt.NDArray[np.float32], _Integers] | None = None
        self.auto = AutoMining(config) if config.strategy == "auto" else None
        self.apply = tf.function(self._apply)
        self.rescale = tf.function(self._rescale)
        self._plainly = tf.function(self._embed_plainly, input_signature=[self.images_spec])

    @property
    def _may_overflow(self) -> bool:
        return self.config.precision == "float16"

    @property
    def loss_scale(self) -> Any:
        """What loss and gradients are multiplied with on their way through float16; 1 in wider numbers."""
        return self.optimizer.dynamic_scale.value if self._may_overflow else 1.0

    def scaled(self, loss: Any) -> Any:
        """Return what is differentiated in the place of a loss."""
        return loss * self.loss_scale if self._may_overflow else loss

    def norm(self, gradients: list[Any]) -> Any:
        """Return the norm of all gradients together, as of the loss itself."""
        norm = tf.linalg.global_norm(gradients)
        return norm / self.loss_scale if self._may_overflow else norm

    def _rescale(self, gradients: list[tf.Tensor]) -> None:
        """Have the optimizer find that these are not finite: it halves its scale and moves nothing."""
        self.optimizer.apply(gradients, self.model.trainable_variables)

    def _apply(self, gradients: list[tf.Tensor]) -> None:
        if self.config.clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, self.config.clip_norm * self.loss_scale)
        self.optimizer.apply(gradients, self.model.trainable_variables)
        if self.averaged is not self.model:
            # The predecessor's warm-up: young averages follow fast.
            n = tf.cast(self.optimizer.iterations, tf.float32)
            decay = tf.minimum(self.config.moving_average_decay, (1.0 + n) / (10.0 + n))
            for average, weight in zip(self.averaged.weights, self.model.weights, strict=True):
                average.value.assign_sub((1.0 - decay) * (average.value - weight.value))

    def regularisation(self) -> tf.Tensor:
        """Return the weight penalty of the loss."""
        return l2_regularisation(self.model.trainable_variables, self.loss_weight_decay)

    def penalty(self) -> float:
        """Return the weight penalty as the weights are now."""
        return float(self.regularisation()) if self.loss_weight_decay else 0.0

    def see(self, embeddings: npt.NDArray[np.float32], labels: _Integers) -> None:
        """Keep a pool's embeddings for who wants to look at them."""
        # Copies: the memory is the graph's, which may use it again.
        self.seen = embeddings.copy(), labels.copy()

    def finish(self, outcome: Outcome, gradients: list[tf.Tensor]) -> Outcome:
        """Move the weights if the outcome is one to go on from."""
        if outcome.is_applied:
            self.apply(gradients)
        elif self._may_overflow and not outcome.is_finite and float(self.loss_scale) > _LEAST_LOSS_SCALE:
            rescaled = dataclasses.replace(outcome, is_rescaled=True)
            if rescaled.is_finite:
                self.rescale(gradients)
                return rescaled
        return outcome

    def undo(self) -> None:
        """Do nothing: a step of one device is made or not."""

    def settle(self) -> None:
        """Do nothing: there is one device."""

    def embed_plainly(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Embed images in inference mode, nothing random, ``batch_size`` at once."""
        size = self.config.batch_size
        parts = [self._plainly(images[rows : rows + size]).numpy() for rows in range(0, len(images), size)]
        return np.concatenate(parts)

    def _embed_plainly(self, images: Any) -> Any:
        return self.model(self.prepare.plain(images), training=False)

    def mine(
        self, embeddings: npt.NDArray[np.float32], labels: _Integers, seed: _Integers, anchors: Any = None
    ) -> Any:
        """Mine a pool: index arrays, pairs looked at (-1: embeddings are not finite), seconds taken.

        `anchors` are as for `mine_triplets`.
        """
        start = time.perf_counter()
        self._mined = None
        self.see(embeddings, labels)
        if not np.isfinite(embeddings).all():
            none = np.empty(0, np.int32)
            return none, none, none, np.int64(-1), np.float32(0)
        mined = mine_triplets(
            embeddings,
            labels,
            strategy=self.auto.strategy if self.auto else self.config.strategy,
            margin=self.config.margin,
            seed=int(seed[0]) << 32 | int(seed[1]),
            threads=self.config.threads or None,
            anchors=anchors,
        )
        seconds = np.float32(time.perf_counter() - start)
        if len(mined):
            some = np.linspace(0, len(mined) - 1, min(len(mined), _MAX_LOOKED_AT)).astype(np.int64)
            self._mined = np.stack([mined.anchor[some], mined.positive[some], mined.negative[some]], axis=1)
        return mined.anchor, mined.positive, mined.negative, np.int64(mined.n_pairs), seconds

    def last_mined(self) -> MinedTriplets | None:
        """Return triplets of the pool that was mined last, of very many 2,048; None where there were none."""
        if self._mined is None or self.seen is None:
            return None
        rows, embeddings = self._mined, self.seen[0]
        anchor, positive, negative = (embeddings[column] for column in rows.T)
        d_ap, d_an = (np.square(anchor - other).sum(axis=1) for other in (positive, negative))
        return MinedTriplets(rows if self._order is None else self._order[rows], d_ap, d_an)


class UniqueStep(_Trainer):
    """One step a pool, every image passed with a gradient once.

    Parameters
    ----------
    model, averaged : keras.Model
        The network, and the one that holds its averaged weights (the same if none are wanted).
    optimizer : keras.Optimizer
        Built for the model's trainable variables.
    prepare : Preparation
        From uint8 images to the network's input.
    config : TrainConfig
        Read: `strategy`, `margin`, `loss`, `sharpness`, `seed`, `threads`, `batch_size`, `weight_decay`,
        `moving_average_decay`.
    """

    targets_spec = tf.TensorSpec((None,), tf.int32)
    """What the loss is told of the embeddings: here the label of each."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._whole = tf.function(
            self._whole_pool, input_signature=[self.images_spec, self.targets_spec, self.seed_spec]
        )
        self._embed = tf.function(self._embed_chunk, input_signature=[self.images_spec, self.seed_spec])
        self._loss = tf.function(
            self._loss_of_embeddings,
            input_signature=[self.embeddings_spec, self.targets_spec, self.seed_spec],
        )
        # One graph for all sizes. Were graphs made for the sizes that come first, a resumed run would have
        # others than an unbroken one, which round differently.
        sums_spec = [tf.TensorSpec(one.shape, one.dtype) for one in self.model.trainable_variables]
        self._carry = tf.function(
            self._carry_chunk,
            input_signature=[self.images_spec, self.seed_spec, self.embeddings_spec, sums_spec],
        )
        self._restore = tf.function(self._restore_state)

    def plan(self, pool: Pool, step: int) -> list[Pool]:
        """Return the pool itself: it is one step."""
        return [pool]

    def run(self, work: Pool, step: int) -> Outcome:
        """Embed, mine, and step."""
        return self.finish(*self.differentiate(work, step))

    def differentiate(self, pool: Pool, step: int, first_chunk: int = 0) -> tuple[Outcome, list[Any]]:
        """Embed and mine a pool, and return what a step by the gradient comes to, and the gradient.

        Chunks are numbered from `first_chunk` on, which keys their draws.
        """
        n_images = len(pool.labels)
        self._order = None
        if n_images > self.config.batch_size:
            order = self._order = spread(pool.labels)
            loss, norm, mined, gradients = self.in_chunks(
                pool.images, order, pool.labels[order], step, first_chunk
            )
        else:
            loss, norm, mined, gradients = self._whole(
                pool.images, pool.labels, step_seed(self.config.seed, step, first_chunk)
            )
        n_terms, n_triplets, n_pairs, seconds = (float(value) for value in mined)
        found = Mined(int(n_pairs), int(n_triplets), seconds, is_finite=n_pairs >= 0)
        return Outcome(float(loss), int(n_terms), n_images, float(norm), found), gradients

    def in_chunks(
        self, images: npt.NDArray[np.uint8], order: _Integers, targets: _Integers, step: int, first_chunk: int
    ) -> tuple[Any, Any, Any, list[Any]]:
        """Differentiate the loss of some rows of `images`; targets are of the rows in that order."""
        chunks = np.array_split(order, math.ceil(len(order) / self.config.batch_size))
        seeds = [step_seed(self.config.seed, step, first_chunk + chunk) for chunk in range(len(chunks))]
        # The second pass must repeat the first one's dropout and must not move batch-norm's averages again.
        state = self.state()
        embedded = [self._embed(images[rows], seed) for rows, seed in zip(chunks, seeds, strict=True)]
        loss, mined, embedding_gradients, gradients = self._loss(
            tf.concat(embedded, axis=0), targets, seeds[0]
        )
        self._restore(state)
        parts = tf.split(embedding_gradients, [len(rows) for rows in chunks])
        for rows, seed, part in zip(chunks, seeds, parts, strict=True):
            gradients = self._carry(tf.constant(images[rows]), tf.constant(seed), part, gradients)
        return loss, self.norm(gradients), mined, gradients

    def _whole_pool(self, images: Any, targets: Any, seed: Any) -> tuple[Any, Any, Any, list[Any]]:
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            embeddings = self._embed_chunk(images, seed)
            loss, mined = self._loss_of_targets(embeddings, targets, seed)
            loss += self.regularisation()
            scaled = self.scaled(loss)
        gradients = dense(tape.gradient(scaled, [variable.value for variable in variables]), variables)
        return loss, self.norm(gradients), mined, gradients

    def _embed_chunk(self, images: Any, seed: Any) -> Any:
        return self.model(self.prepare.train(images, seed), training=True)

    def _loss_of_targets(self, embeddings: Any, labels: Any, seed: Any) -> tuple[Any, Any]:
        """Return the loss and, as numbers, its terms and what `Mined` holds."""
        config = self.config
        if config.loss == "log_sum_exp":
            loss, n_pairs, n_violating = mean_over_pairs(labels, embeddings, config.margin, config.sharpness)
            is_finite = tf.reduce_all(tf.math.is_finite(embeddings))
            tf.numpy_function(self.see, [embeddings, labels], [])
            return loss, (n_pairs, n_violating, tf.where(is_finite, n_pairs, -1), tf.constant(0.0))
        anchor, positive, negative, n_pairs, seconds = tf.numpy_function(
            self.mine, [embeddings, labels, seed], [tf.int32, tf.int32, tf.int32, tf.int64, tf.float32]
        )
        for index in (anchor, positive, negative):
            index.set_shape([None])
        loss = mined_triplet_loss(embeddings, anchor, positive, negative, config.margin, self.is_soft)
        return loss, (tf.size(anchor), tf.size(anchor), n_pairs, seconds)

    def _loss_of_embeddings(
        self, embeddings: Any, targets: Any, seed: Any
    ) -> tuple[Any, Any, Any, list[Any]]:
        """Loss, its gradient at each embedding, and that of the weight penalty at each weight."""
        variables = self.model.trainable_variables
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(embeddings)
            loss, mined = self._loss_of_targets(embeddings, targets, seed)
            penalty = self.regularisation()
            scaled, scaled_penalty = self.scaled(loss), self.scaled(penalty)
        at_embeddings = tf.convert_to_tensor(tape.gradient(scaled, embeddings))
        at_weights = dense(
            tape.gradient(scaled_penalty, [variable.value for variable in variables]), variables
        )
        return loss + penalty, mined, at_embeddings, at_weights

    def _carry_chunk(self, images: Any, seed: Any, embedding_gradients: Any, sums: list[Any]) -> list[Any]:
        """Add to each weight's gradient what the embeddings of a chunk contribute."""
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            embeddings = self._embed_chunk(images, seed)
        gradients = tape.gradient(
            embeddings, [variable.value for variable in variables], output_gradients=embedding_gradients
        )
        return [total + gradient for total, gradient in zip(sums, dense(gradients, variables), strict=True)]

    def state(self) -> list[tf.Tensor]:
        """Return copies of what a pass moves: averages of batch-norm, states of dropout."""
        return [tf.identity(variable.value) for variable in self.model.non_trainable_variables]

    def _restore_state(self, state: list[Any]) -> None:
        for variable, value in zip(self.model.non_trainable_variables, state, strict=True):
            variable.value.assign(value)


@dataclass(frozen=True, eq=False)
class TripletBatch:
    """A batch of triplets: rows of the pool, anchors first, then positives, then negatives."""

    pool: Pool
    rows: npt.NDArray[np.int32]
    mined: Mined


class TripletStep(_Trainer):
    """Mine a pool in inference mode, then step on batches of its triplets, three images each.

    Parameters are those of `UniqueStep`. ``batch_size // 3`` triplets make a batch.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        size = self.config.batch_size
        if size % 3:
            _logger.warning(
                "batch_size counts images, three a triplet: %d is taken as %d", size, size - size % 3
            )
        self._gradients = tf.function(
            self._gradients_of_triplets, input_signature=[self.images_spec, self.seed_spec]
        )

    def plan(self, pool: Pool, step: int) -> list[TripletBatch]:
        """Embed and mine the pool, and deal its triplets out in random order.

        Raises
        ------
        FloatingPointError
            If the embeddings are not finite.
        """
        embeddings = self.embed_plainly(pool.images)
        seed = step_seed(self.config.seed, step)
        anchor, positive, negative, n_pairs, seconds = self.mine(embeddings, pool.labels, seed)
        if n_pairs < 0:
            raise FloatingPointError("the embeddings are not finite")
        mined = Mined(int(n_pairs), len(anchor), float(seconds))
        order = np.random.default_rng(seed).permutation(len(anchor))
        return [
            TripletBatch(pool, np.concatenate([anchor[batch], positive[batch], negative[batch]]), mined)
            for batch in _slices(order, self.config.batch_size // 3)
        ]

    def run(self, work: TripletBatch, step: int) -> Outcome:
        """Step on one batch of triplets."""
        loss, norm, gradients = self._gradients(
            work.pool.images[work.rows], step_seed(self.config.seed, step, 1)
        )
        n_images = len(work.rows)
        return self.finish(Outcome(float(loss), n_images // 3, n_images, float(norm), work.mined), gradients)

    def _gradients_of_triplets(self, images: Any, seed: Any) -> tuple[Any, Any, list[Any]]:
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            embeddings = self.model(self.prepare.train(images, seed), training=True)
            anchor, positive, negative = tf.split(embeddings, 3)
            loss = loss_of_triplets(anchor, positive, negative, self.config.margin, self.is_soft)
            loss += self.regularisation()
            scaled = self.scaled(loss)
        gradients = dense(tape.gradient(scaled, [variable.value for variable in variables]), variables)
        return loss, self.norm(gradients), gradients


STEPS: dict[str, type[UniqueStep] | type[TripletStep]] = {"unique": UniqueStep, "triplets": TripletStep}
"""What `TrainConfig.step` names."""


def dense(gradients: list[Any], variables: list[keras.Variable]) -> list[Any]:
    """Gradients as tensors; zeros where the loss does not depend on a weight."""
    return [
        tf.zeros_like(variable.value) if gradient is None else tf.convert_to_tensor(gradient)
        for gradient, variable in zip(gradients, variables, strict=True)
    ]


def _slices(order: npt.NDArray[np.int64], size: int) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, len(order), size):
        yield order[start : start + size]
