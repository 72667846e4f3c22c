"""One optimiser step of one pool by many devices, equal to that of one device in as many chunks.

Each replica passes its chunks of the pool and tells the others its embeddings, so that all know the whole
pool. Each mines for its own rows as anchors, against all rows. The gradients at the embeddings are added up,
each replica carries those of its own chunks into the weights, and what all have of that is added up, too. So
every network takes the same step: their weights stay equal without being sent.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from facenet_fast.checkpoints import build_model
from facenet_fast.data.decoding import n_usable_cpus
from facenet_fast.losses.labelled import not_finite, prepare
from facenet_fast.losses.log_sum_exp import pair_sums
from facenet_fast.losses.triplet import mined_triplet_loss
from facenet_fast.training.optimizers import build_optimizer
from facenet_fast.training.pools import Pool, PoolShare
from facenet_fast.training.replicas import Replicas, all_reduce
from facenet_fast.training.step import Mined, Outcome, UniqueStep, dense, step_seed

__all__ = ["SharedStep", "random_states"]

_ROW = tf.TensorSpec((), tf.int32)


class SharedStep(UniqueStep):
    """One step a pool, every image passed with a gradient once, each by one of several replicas.

    Draws of augmentation and dropout are keyed by the chunk, and the miner's by anchor and positive, so that
    they are those of one device that steps on the same chunks. Batch-norm normalises in each chunk; the
    moving averages of all replicas are averaged at the end of a step.

    Parameters
    ----------
    model, optimizer, averaged, prepare, config
        As of `UniqueStep`: those of this process' first device. For its others there are made more.
    replicas : Replicas
        Who trains.
    """

    def __init__(self, *args: Any, replicas: Replicas) -> None:
        super().__init__(*args)
        n_local = replicas.n_local
        if n_local > 1:
            # They mine at the same time.
            threads = max((self.config.threads or n_usable_cpus()) // n_local, 1)
            self.config = dataclasses.replace(self.config, threads=threads)
        config, model = self.config, self.model
        self._replicas = replicas
        self._locals: list[UniqueStep] = [self]
        for device in replicas.devices[1:]:
            with tf.device(device):
                twin = build_model(config, config.precision)
                its_optimizer = build_optimizer(config, twin.trainable_variables)
            step = UniqueStep(twin, its_optimizer, twin, self.prepare, config)
            step.auto = self.auto
            self._locals.append(step)
        self._calls = self._seeds_a_call()
        self._before: list[tf.Tensor] = []
        images, seeds = [self.images_spec] * n_local, [self.seed_spec] * n_local
        rows, firsts = [self.embeddings_spec] * n_local, [_ROW] * n_local
        sums = [[tf.TensorSpec(one.shape, one.dtype) for one in model.trainable_variables]] * n_local
        labels = self.targets_spec
        # Which device a piece of work is for is known when its graph is made.
        graph = functools.partial(tf.function, autograph=False)
        self._whole_share = graph(
            self._whole_of_each, input_signature=[images, seeds, firsts, labels, self.seed_spec]
        )
        self._embed_share = graph(self._embed_on_each, input_signature=[images, seeds])
        self._loss_share = graph(self._loss_on_each, input_signature=[rows, firsts, labels, self.seed_spec])
        self._carry_share = graph(self._carry_on_each, input_signature=[images, seeds, rows, sums])
        self._sum_share = graph(self._sum_on_each, input_signature=[sums])

    def run(self, work: Pool, step: int) -> Outcome:
        """Embed, mine, and step, with all other replicas.

        Raises
        ------
        WorkerLost
            If another worker has ended; `undo` leaves the network as it was before.
        """
        if not isinstance(work, PoolShare):
            raise TypeError(f"work must be a PoolShare; got {type(work).__name__}")
        self._before = self.state()
        with self._replicas.watched():
            outcome, gradients = self._differentiate_share(work, step)
        self._before = []
        learning_rate = self.optimizer.learning_rate
        for device, local, its_gradients in zip(self._replicas.devices, self._locals, gradients, strict=True):
            with tf.device(device):
                if local is not self:
                    local.optimizer.learning_rate = learning_rate
                finished = local.finish(outcome, its_gradients)
        return finished

    def undo(self) -> None:
        """Put back what a step that was not finished has changed of the network."""
        if self._before:
            self._restore(self._before)
            self._before = []

    def settle(self) -> None:
        """Give every replica the weights and the optimizer of the chief's first one."""
        self._before = []
        averaged = [] if self.averaged is self.model else self.averaged.variables
        mine = [*self.model.variables, *self.optimizer.variables]
        values = self._replicas.share([variable.numpy() for variable in [*mine, *averaged]])
        if not self._replicas.is_chief:
            _assign([*mine, *averaged], values)
        for twin in self._locals[1:]:
            _assign([*twin.model.variables, *twin.optimizer.variables], values[: len(mine)])

    # -- the step, chunk by chunk ----------------------------------------------------------------------------

    def _differentiate_share(self, work: PoolShare, step: int) -> tuple[Outcome, list[list[Any]]]:
        """Return what a step comes to, and the gradient for each network here."""
        n_each = len(work.ends) // self._replicas.n_replicas
        begins = [0, *work.ends[:-1]]
        # Numbers of the chunks of each network here.
        chunks = [
            range(place * n_each, (place + 1) * n_each)
            for place in range(self._replicas.first, self._replicas.first + self._replicas.n_local)
        ]
        images = [
            [work.images[begins[n] - work.start : work.ends[n] - work.start] for n in numbers]
            for numbers in chunks
        ]
        seeds = [[step_seed(self.config.seed, step, n) for n in numbers] for numbers in chunks]
        firsts = [begins[numbers[0]] for numbers in chunks]
        first_seed = step_seed(self.config.seed, step)
        started = [variable.numpy() for variable in random_states(self.model)]
        self._set_seeds(started, [numbers[0] for numbers in chunks])
        if n_each == 1:
            results = self._whole_share(_firsts(images), _firsts(seeds), firsts, work.labels, first_seed)
        else:
            results = self._in_chunks_of_each(images, seeds, firsts, work.labels, first_seed)
        self._set_seeds(started, [len(work.ends)] * len(chunks))
        loss, norm, found, _ = results[0]
        n_terms, n_triplets, n_pairs, seconds = (float(value) for value in found)
        mined = Mined(int(n_pairs), int(n_triplets), seconds, is_finite=n_pairs >= 0)
        outcome = Outcome(float(loss), int(n_terms), len(work.labels), float(norm), mined)
        return outcome, [gradients for *_, gradients in results]

    def _in_chunks_of_each(
        self,
        images: list[list[npt.NDArray[np.uint8]]],
        seeds: list[list[npt.NDArray[np.int64]]],
        firsts: list[int],
        labels: npt.NDArray[np.int32],
        first_seed: npt.NDArray[np.int64],
    ) -> list[Any]:
        """Do as `UniqueStep.in_chunks` does, on each device."""
        states = [local.state() for local in self._locals]
        columns = zip(zip(*images, strict=True), zip(*seeds, strict=True), strict=True)
        by_chunk = [(list(some), list(their_seeds)) for some, their_seeds in columns]
        embedded = [self._embed_share(*chunk) for chunk in by_chunk]
        rows = [tf.concat(parts, axis=0) for parts in zip(*embedded, strict=True)]
        losses = self._loss_share(rows, firsts, labels, first_seed)
        for local, state in zip(self._locals, states, strict=True):
            local._restore(state)
        sizes = [[len(chunk) for chunk in chunks] for chunks in images]
        parts = [tf.split(at_rows, size) for (_, _, at_rows), size in zip(losses, sizes, strict=True)]
        sums = [
            [tf.zeros_like(one.value) for one in local.model.trainable_variables] for local in self._locals
        ]
        for chunk, at_rows in zip(by_chunk, zip(*parts, strict=True), strict=True):
            sums = list(self._carry_share(*chunk, list(at_rows), sums))
        summed = self._sum_share(sums)
        return [
            (loss, norm, found, gradients)
            for (loss, found, _), (norm, gradients) in zip(losses, summed, strict=True)
        ]

    # -- what each device does, as graphs --------------------------------------------------------------------

    def _whole_of_each(
        self, images: Sequence[Any], seeds: Sequence[Any], firsts: Sequence[Any], labels: Any, first_seed: Any
    ) -> Any:
        def whole(place: int, images: Any, seed: Any, first: Any) -> Any:
            local = self._locals[place]
            with tf.GradientTape() as tape:
                embeddings = local._embed_chunk(images, seed)
            loss, found, at_rows = self._shared_loss(local, embeddings, first, labels, first_seed)
            variables = local.model.trainable_variables
            gradients = tape.gradient(
                embeddings, [variable.value for variable in variables], output_gradients=at_rows
            )
            norm, summed = self._shared_gradients(local, dense(gradients, variables))
            return loss, norm, found, summed

        return self._replicas.on_each(whole, images, seeds, firsts)

    def _embed_on_each(self, images: Sequence[Any], seeds: Sequence[Any]) -> Any:
        return self._replicas.on_each(
            lambda place, images, seed: self._locals[place]._embed_chunk(images, seed), images, seeds
        )

    def _loss_on_each(self, rows: Sequence[Any], firsts: Sequence[Any], labels: Any, first_seed: Any) -> Any:
        return self._replicas.on_each(
            lambda place, rows, first: self._shared_loss(
                self._locals[place], rows, first, labels, first_seed
            ),
            rows,
            firsts,
        )

    def _carry_on_each(
        self, images: Sequence[Any], seeds: Sequence[Any], at_rows: Sequence[Any], sums: Sequence[Any]
    ) -> Any:
        return self._replicas.on_each(
            lambda place, *values: self._locals[place]._carry_chunk(*values), images, seeds, at_rows, sums
        )

    def _sum_on_each(self, sums: Sequence[Any]) -> Any:
        return self._replicas.on_each(
            lambda place, gradients: self._shared_gradients(self._locals[place], gradients), sums
        )

    def _shared_loss(
        self, local: UniqueStep, rows: Any, first: Any, labels: Any, first_seed: Any
    ) -> tuple[Any, Any, Any]:
        """Return the pool's loss, what `Mined` holds, and the loss' gradient at a replica's own rows."""
        n_rows = tf.shape(rows)[0]
        last = first + n_rows
        # The sum of what is 0 elsewhere: all rows, without rounding.
        every = all_reduce(tf.pad(rows, [[first, tf.size(labels) - last], [0, 0]]))
        numbers, at_every, seconds = self._own_loss(local, every, labels, first_seed, first, last)
        numbers, at_every = all_reduce((numbers, at_every))
        loss, n_terms, n_triplets, n_pairs = tf.unstack(numbers)
        share = tf.cast(1.0 / tf.maximum(n_terms, 1.0), tf.float32)
        loss = tf.cast(loss, tf.float32) * share + local.regularisation()
        at_rows = at_every[first:last] * (share * local.loss_scale)
        return loss, (n_terms, n_triplets, n_pairs, seconds), at_rows

    def _own_loss(
        self, local: UniqueStep, every: Any, labels: Any, first_seed: Any, first: Any, last: Any
    ) -> tuple[Any, Any, Any]:
        """Return sums over a replica's own anchors: loss and counts, and the gradient of the loss."""
        config = self.config
        with tf.GradientTape() as tape:
            tape.watch(every)
            if config.loss == "log_sum_exp":
                y, x = prepare(labels, every)
                sums, n_terms, n_triplets = pair_sums(
                    y, x, config.margin, config.sharpness, anchors=(first, last)
                )
                loss = tf.reduce_sum(sums) + not_finite(x)
                n_pairs = tf.where(tf.reduce_all(tf.math.is_finite(every)), n_terms, -1)
                seconds = tf.constant(0.0)
                tf.numpy_function(local.see, [every, labels], [])
            else:
                anchor, positive, negative, n_pairs, seconds = tf.numpy_function(
                    lambda every, labels, seed, *rows: local.mine(
                        every, labels, seed, slice(*map(int, rows))
                    ),
                    [every, labels, first_seed, first, last],
                    [tf.int32, tf.int32, tf.int32, tf.int64, tf.float32],
                )
                for index in (anchor, positive, negative):
                    index.set_shape([None])
                n_terms = n_triplets = tf.size(anchor)
                loss = mined_triplet_loss(every, anchor, positive, negative, config.margin, self.is_soft)
                loss *= tf.cast(n_terms, loss.dtype)
        numbers = tf.stack([tf.cast(one, tf.float64) for one in (loss, n_terms, n_triplets, n_pairs)])
        return numbers, tf.convert_to_tensor(tape.gradient(loss, every)), seconds

    def _shared_gradients(self, local: UniqueStep, gradients: list[Any]) -> tuple[Any, list[Any]]:
        """Add up all replicas' gradients, average what batch-norm has seen; return the norm and the sums."""
        variables = local.model.trainable_variables
        averages = [
            variable for variable in local.model.non_trainable_variables if _is_floating(variable.dtype)
        ]
        n_replicas = self._replicas.n_replicas
        gradients, means = all_reduce((gradients, [variable.value / n_replicas for variable in averages]))
        for variable, mean in zip(averages, means, strict=True):
            variable.value.assign(mean)
        if self.loss_weight_decay:
            with tf.GradientTape() as tape:
                penalty = local.scaled(local.regularisation())
            of_penalty = tape.gradient(penalty, [variable.value for variable in variables])
            gradients = [a + b for a, b in zip(gradients, dense(of_penalty, variables), strict=True)]
        return local.norm(gradients), gradients

    # -- dropout ---------------------------------------------------------------------------------------------

    def _seeds_a_call(self) -> list[npt.NDArray[Any]]:
        """Return how far one call of the network moves the state of each of its dropouts."""
        seeds = random_states(self.model)
        if not seeds:
            return []
        state = self.state()
        before = [variable.numpy() for variable in seeds]
        size = self.config.image_size
        self.model(tf.zeros((2, size, size, 3)), training=True)
        calls = [variable.numpy() - value for variable, value in zip(seeds, before, strict=True)]
        self._restore(state)
        return calls

    def _set_seeds(self, started: list[npt.NDArray[Any]], n_chunks: list[int]) -> None:
        """Have dropouts draw as they would after so many chunks of a step, on each device."""
        for local, n in zip(self._locals, n_chunks, strict=True):
            for variable, start, call in zip(random_states(local.model), started, self._calls, strict=True):
                variable.value.assign(start + call * start.dtype.type(n))


def random_states(model: keras.Model) -> list[keras.Variable]:
    """Return the states of a network's random generators."""
    weights = {id(weight) for weight in model.weights}
    return [variable for variable in model.non_trainable_variables if id(variable) not in weights]


def _firsts(lists: list[list[Any]]) -> list[Any]:
    return [one[0] for one in lists]


def _is_floating(dtype: str) -> bool:
    return bool(tf.as_dtype(dtype).is_floating)


def _assign(variables: Sequence[Any], values: Sequence[Any]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
