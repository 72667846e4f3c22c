import keras
import numpy as np
import pytest
import tensorflow as tf

from facenet_fast.losses.triplet import l2_regularisation, loss_of_triplets, mined_triplet_loss


def pool_and_triplets(n_images=12, n_triplets=40, seed=0):
    generator = np.random.default_rng(seed)
    pool = generator.normal(size=(n_images, 5)).astype(np.float32)
    pool /= np.linalg.norm(pool, axis=1, keepdims=True)
    return pool, generator.integers(0, n_images, (3, n_triplets)).astype(np.int32)


def literal_loss_and_gradient(pool, triplets, margin):
    """The definition, one triplet after the other, in float64."""
    pool = pool.astype(np.float64)
    loss, gradient = 0.0, np.zeros_like(pool)
    n_triplets = triplets.shape[1]
    for a, p, n in triplets.T:
        violation = np.sum((pool[a] - pool[p]) ** 2) - np.sum((pool[a] - pool[n]) ** 2) + margin
        if violation > 0:
            loss += violation / n_triplets
            gradient[a] += 2 * (pool[n] - pool[p]) / n_triplets
            gradient[p] += 2 * (pool[p] - pool[a]) / n_triplets
            gradient[n] += 2 * (pool[a] - pool[n]) / n_triplets
    return loss, gradient


@pytest.mark.parametrize("margin", [0.05, 0.2, 1.0])
def test_loss_and_gradient_are_those_of_the_definition(margin):
    pool, triplets = pool_and_triplets()
    expected_loss, expected_gradient = literal_loss_and_gradient(pool, triplets, margin)
    embeddings = tf.Variable(pool)
    with tf.GradientTape() as tape:
        loss = mined_triplet_loss(embeddings, *triplets, margin)
    gradient = tf.convert_to_tensor(tape.gradient(loss, embeddings))
    assert expected_loss > 0
    np.testing.assert_allclose(float(loss), expected_loss, rtol=1e-5)
    np.testing.assert_allclose(gradient.numpy(), expected_gradient, atol=1e-6)


def test_gathered_form_equals_the_plain_one():
    pool, (a, p, n) = pool_and_triplets(seed=1)
    plain = loss_of_triplets(tf.constant(pool[a]), tf.constant(pool[p]), tf.constant(pool[n]), 0.3)
    assert float(mined_triplet_loss(tf.constant(pool), a, p, n, 0.3)) == float(plain)


def test_satisfied_triplets_count_in_the_mean_but_add_nothing():
    near, far = tf.constant([[1.0, 0.0]] * 2), tf.constant([[1.0, 0.0], [-1.0, 0.0]])
    # First triplet: negative on the positive, hinge = margin. Second: squared distance 4, hinge 0.
    assert float(loss_of_triplets(near, near, far, 0.2)) == pytest.approx(0.1)


def test_no_triplets_give_zero_loss_and_zero_gradient():
    embeddings = tf.Variable(np.ones((4, 3), np.float32))
    none = np.empty(0, np.int32)

    @tf.function
    def loss_and_gradient():
        with tf.GradientTape() as tape:
            loss = mined_triplet_loss(embeddings, none, none, none, 0.2)
        return loss, tf.convert_to_tensor(tape.gradient(loss, embeddings))

    loss, gradient = loss_and_gradient()
    assert float(loss) == 0.0
    np.testing.assert_array_equal(gradient.numpy(), np.zeros((4, 3), np.float32))


def test_coinciding_embeddings_have_a_finite_gradient():
    embeddings = tf.Variable(np.full((3, 2), 0.5, np.float32))
    with tf.GradientTape() as tape:
        loss = mined_triplet_loss(embeddings, [0], [1], [2], 0.2)
    assert float(loss) == pytest.approx(0.2)
    assert np.isfinite(tf.convert_to_tensor(tape.gradient(loss, embeddings)).numpy()).all()


def test_l2_regularisation_is_half_the_squares_of_the_kernels_only():
    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            keras.layers.Conv2D(4, 3),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    for variable in model.trainable_variables:
        variable.assign(tf.random.stateless_normal(variable.shape, seed=(1, 2)))
    kernels = [model.layers[0].kernel.numpy(), model.layers[-1].kernel.numpy()]
    expected = 0.5 * 0.03 * sum(float((kernel.astype(np.float64) ** 2).sum()) for kernel in kernels)
    assert float(l2_regularisation(model.trainable_variables, 0.03)) == pytest.approx(expected, rel=1e-5)


def test_l2_regularisation_of_nothing_is_zero():
    assert float(l2_regularisation([], 0.1)) == 0.0
