"""A shared step on one device is the step of one device; what several add to it is in test_distribute.py."""

import numpy as np
import pytest
import tensorflow as tf

from facenet_fast.config import LOSSES
from facenet_fast.training.dealing import deal
from facenet_fast.training.pools import Pool, PoolShare
from facenet_fast.training.replicas import Replicas
from facenet_fast.training.shared_step import SharedStep
from facenet_fast.training.step import UniqueStep
from tests.training.test_step import (
    config_of,
    counts_of,
    moved_by,
    pool_of,
    small_network,
    step_of,
    with_noise,
)


def shared_step_of(model, config, **options):
    replicas = Replicas(tf.distribute.MirroredStrategy(["CPU:0"]))
    return step_of(lambda *given: SharedStep(*given, replicas=replicas), model, config, **options)


def share_of(pool, batch_size):
    chunks = deal(pool.labels, 1, batch_size)
    order = np.concatenate(chunks)
    ends = np.cumsum([len(rows) for rows in chunks])
    return PoolShare(pool.images[order], pool.labels[order], start=0, ends=tuple(ends.tolist()))


def state_of(step):
    return [variable.numpy() for variable in step.model.non_trainable_variables]


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("batch_size", [5, 12])
@pytest.mark.parametrize("name", LOSSES)
def test_one_replica_steps_as_one_device(name, batch_size, precision):
    config = config_of(loss=name, batch_size=batch_size, precision=precision, weight_decay=0.01)
    pool = pool_of()
    share = share_of(pool, batch_size)
    results = []
    for make, work in ((step_of_unique, Pool(share.images, share.labels)), (shared_step_of, share)):
        step = make(small_network(batch_norm=True, dropout=0.4), config, train=with_noise)
        if batch_size == 5 and make is step_of_unique:
            work = pool
        results.append((*moved_by(step, work), state_of(step)))
    (outcome, moved, state), (its_outcome, its_moved, its_state) = results
    assert counts_of(its_outcome) == counts_of(outcome)
    assert min(counts_of(outcome)) > 5
    assert its_outcome.loss == pytest.approx(outcome.loss, rel=1e-5)
    assert its_outcome.gradient_norm == pytest.approx(outcome.gradient_norm, rel=1e-4)
    for got, wanted in zip(its_moved + its_state, moved + state, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=2e-6)


def step_of_unique(model, config, **options):
    return step_of(UniqueStep, model, config, **options)


def test_weights_stay_where_embeddings_are_not_finite():
    model = small_network()
    model.weights[0].assign(np.full(model.weights[0].shape, np.nan, np.float32))
    outcome, moved = moved_by(shared_step_of(model, config_of(loss="hinge")), share_of(pool_of(), 100))
    assert not outcome.is_finite
    assert not any(np.nan_to_num(one).any() for one in moved)


def test_a_pool_without_triplets_moves_nothing():
    pool = pool_of(n_each=1)
    outcome, moved = moved_by(shared_step_of(small_network(), config_of()), share_of(pool, 100))
    assert outcome.is_finite
    assert not outcome.is_applied
    assert not any(one.any() for one in moved)


def test_what_a_broken_step_has_changed_is_put_back():
    step = shared_step_of(small_network(batch_norm=True, dropout=0.4), config_of(batch_size=5))
    before = [variable.numpy() for variable in step.model.variables]

    def lost(*_):
        raise tf.errors.UnavailableError(None, None, "Socket closed")

    sums, step._sum_share = step._sum_share, lost
    share = share_of(pool_of(), 5)
    with pytest.raises(tf.errors.UnavailableError):
        step.run(share, 0)
    assert any(
        (variable.numpy() != one).any() for variable, one in zip(step.model.variables, before, strict=True)
    )
    step.undo()
    for variable, one in zip(step.model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), one)
    step._sum_share = sums
    assert step.run(share, 0).is_applied
    moved = [variable.numpy() for variable in step.model.variables]
    step.undo()
    for variable, one in zip(step.model.variables, moved, strict=True):
        np.testing.assert_array_equal(variable.numpy(), one)


def test_only_shares_are_shared():
    with pytest.raises(TypeError, match="work must be a PoolShare; got Pool"):
        shared_step_of(small_network(), config_of()).run(pool_of(), 0)
