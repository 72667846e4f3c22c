"""The loss over triplets, as FaceNet defines it or soft, and the weight penalty that goes with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

__all__ = ["l2_regularisation", "loss_of_triplets", "mined_triplet_loss", "penalties"]


def loss_of_triplets(
    anchor: tf.Tensor, positive: tf.Tensor, negative: tf.Tensor, margin: float, soft: bool = False
) -> tf.Tensor:
    r"""Mean hinge over triplets of embeddings, or mean soft margin.

    .. math:: \frac{1}{n} \sum_i \max(d_{ap,i} - d_{an,i} + m, 0)

    with squared Euclidean distances :math:`d`: equation 3 of Schroff, Kalenichenko and Philbin, "FaceNet:
    A Unified Embedding for Face Recognition and Clustering" (CVPR 2015), section 3.1, as a mean instead of a
    sum so that the learning rate does not depend on how many triplets were found.

    Parameters
    ----------
    anchor, positive, negative : tf.Tensor
        Embeddings (n, E), one row a triplet.
    margin : float
        By how much the negative must be farther than the positive, in squared distance. FaceNet: 0.2.
    soft : bool, default False
        :math:`\log(1 + \exp(d_{ap,i} - d_{an,i}))`, without the margin, in the place of the hinge (Hermans,
        Beyer and Leibe 2017, In Defense of the Triplet Loss, section 2).

    Returns
    -------
    tf.Tensor
        A scalar. Without triplets it is 0 and so are its gradients, never NaN.

    Examples
    --------
    >>> near, far = tf.constant([[1.0, 0.0]]), tf.constant([[0.0, 1.0]])
    >>> float(loss_of_triplets(near, near, far, margin=0.2))
    0.0
    >>> round(float(loss_of_triplets(near, far, near, margin=0.2)), 6)
    2.2
    """
    squared_distance_ap = tf.reduce_sum(tf.math.squared_difference(anchor, positive), axis=-1)
    squared_distance_an = tf.reduce_sum(tf.math.squared_difference(anchor, negative), axis=-1)
    costs = penalties(squared_distance_ap, squared_distance_an, margin, soft)
    return tf.math.divide_no_nan(tf.reduce_sum(costs), tf.cast(tf.size(costs), costs.dtype))


def mined_triplet_loss(
    embeddings: tf.Tensor,
    anchor: tf.Tensor,
    positive: tf.Tensor,
    negative: tf.Tensor,
    margin: float,
    soft: bool = False,
) -> tf.Tensor:
    """`loss_of_triplets` of triplets given as rows of one pool of embeddings.

    The pool goes through the network once, however many triplets an image is in; gathering from it
    lets the gradients of all its triplets meet in its row.

    Parameters
    ----------
    embeddings : tf.Tensor
        The pool (N, E).
    anchor, positive, negative : tf.Tensor
        Integer rows of the pool (n,), as `facenet_fast.mining.mine_triplets` returns them.
    margin, soft
        As for `loss_of_triplets`.

    Returns
    -------
    tf.Tensor
        A scalar; 0 without triplets.

    Examples
    --------
    >>> pool = tf.constant([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])
    >>> round(float(mined_triplet_loss(pool, [0], [1], [2], margin=0.5)), 6)
    0.1
    """
    anchors, positives, negatives = (tf.gather(embeddings, rows) for rows in (anchor, positive, negative))
    return loss_of_triplets(anchors, positives, negatives, margin, soft)


def penalties(d_ap: tf.Tensor, d_an: tf.Tensor, margin: float, soft: bool) -> tf.Tensor:
    """Return what triplets cost by their distances.

    Parameters
    ----------
    d_ap, d_an : tf.Tensor
        From anchors to positives and to negatives, of one shape.
    margin : float
        In the unit of the distances.
    soft : bool
        ``log(1 + exp(d_ap - d_an))``, without a margin, instead of ``max(d_ap - d_an + margin, 0)``.
    """
    return tf.math.softplus(d_ap - d_an) if soft else tf.nn.relu(d_ap - d_an + margin)


def l2_regularisation(variables: Iterable[Any], weight_decay: float) -> tf.Tensor:
    """Half the weight decay times the sum of squares of all kernels.

    Kernels are the weights of convolutions and dense layers; biases and batch-norm offsets are free.
    With this added to the loss, a step of plain gradient descent shrinks each kernel by
    ``learning_rate * weight_decay``.

    Parameters
    ----------
    variables : iterable of keras.Variable
        For example ``model.trainable_variables``; whatever is not named ``...kernel`` is passed over.
    weight_decay : float
        0 gives 0.

    Returns
    -------
    tf.Tensor
        A float32 scalar.

    Examples
    --------
    >>> import keras
    >>> kernel = keras.Variable([[3.0, 4.0]], name="kernel")
    >>> float(l2_regularisation([kernel, keras.Variable([7.0], name="bias")], weight_decay=0.1))
    1.25
    """
    squares = [
        tf.nn.l2_loss(tf.cast(variable.value, tf.float32))  # half the sum of squares
        for variable in variables
        if variable.name.endswith("kernel")
    ]
    return weight_decay * tf.add_n(squares) if squares else tf.constant(0.0)
