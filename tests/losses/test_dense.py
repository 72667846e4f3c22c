import dataclasses
import math
from itertools import combinations

import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import chi2

from facenet_fast import Interval, Strategy, mine_triplets, stream_triplets
from facenet_fast.losses import dense
from facenet_fast.losses.dense import loss_and_slopes, loss_by_anchor
from facenet_fast.losses.distances import pairwise_distances
from facenet_fast.losses.recipe import DISTANCES, Recipe
from facenet_fast.mining.sphere import weights
from tests.mining.batches import clustered, tied
from tests.mining.obvious import look
from tests.mining.strategies_table import STRATEGIES

# One batch for most tests: graphs are kept by recipe and number of columns.
SIZE = 6
SEED = tf.constant([3, 4])
MARGIN = 0.5


def batch(dtype=np.float64, seed=0):
    rows, labels = clustered(6, 4, SIZE, seed=seed)
    rows = np.concatenate((rows, clustered(3, 1, SIZE, seed=seed + 1)[0])).astype(np.float64)
    # Of unit length to float64, as weights by distance need it.
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(dtype), np.concatenate((labels, [0, 50, 51]))


def is_chance(strategy):
    return strategy.pick in ("uniform", "distance_weighted") or strategy.pairs == "random_positives"


def without_chance(strategy):
    """The strategy with all that may be picked: pairs, band and what is left out stay as they are."""
    if strategy.pick in ("uniform", "distance_weighted"):
        strategy = dataclasses.replace(strategy, pick="every", n_negatives=1, if_empty="drop")
    if strategy.pairs == "random_positives":
        strategy = dataclasses.replace(strategy, pairs="both_ways", n_positives=1)
    return strategy


def facts(rows, labels, recipe):
    """What is certain, by loops; Euclidean distances are ordered as their squares are."""
    strategy, margin = recipe.strategy, recipe.margin
    if recipe.distance != "euclidean":
        return look(rows, labels, strategy, margin=margin, distance=recipe.distance)
    limit = strategy.max_positive_distance
    squared = dataclasses.replace(strategy, max_positive_distance=None if limit is None else limit**2)
    found = look(rows, labels, squared, margin=margin)
    d, band = np.sqrt(found.d), strategy.interval(margin)
    reach = strategy.far if strategy.pick == "distance_weighted" else math.inf
    candidates = {
        (a, p): [n for n in found.negatives[a] if band.holds(d[a, p], d[a, n]) and d[a, n] < reach]
        for a, p in found.pairs
    }
    return dataclasses.replace(found, d=d, candidates=candidates)


def listed(rows, labels, recipe):
    """All triplets of a strategy without chance, shape (3, n_triplets)."""
    strategy, found = recipe.strategy, facts(rows, labels, recipe)
    triplets = []
    for a, p in found.pairs:

        def order(n, a=a, sign=-1.0 if strategy.pick == "farthest" else 1.0):
            return sign * found.d[a, n], found.place[n]

        picks = sorted(found.candidates[a, p], key=order)
        if strategy.pick != "every":
            picks = picks[: strategy.n_negatives]
        if not picks and found.negatives[a] and strategy.if_empty != "drop":
            sign = -1.0 if strategy.if_empty == "farthest" else 1.0
            picks = [min(found.negatives[a], key=lambda n: order(n, sign=sign))]
        triplets += [(a, p, n) for n in picks]
    return np.array(triplets, np.int64).reshape(-1, 3).T


def literal_loss(rows, triplets, recipe):
    """The losses of listed triplets, summed by anchor: the formula, differentiable."""
    if recipe.distance == "cosine":
        rows = tf.math.l2_normalize(rows, axis=1, epsilon=0.0)
    anchors, positives, negatives = (tf.gather(rows, column) for column in triplets)
    d_ap, d_an = (tf.reduce_sum(tf.square(anchors - others), axis=1) for others in (positives, negatives))
    if recipe.distance == "euclidean":
        d_ap, d_an = tf.sqrt(d_ap), tf.sqrt(d_an)
    if recipe.distance == "cosine":
        d_ap, d_an = 0.5 * d_ap, 0.5 * d_an
    if recipe.soft:
        losses = tf.math.log(1.0 + tf.exp(d_ap - d_an))
    else:
        losses = tf.nn.relu(d_ap - d_an + recipe.margin)
    return tf.math.unsorted_segment_sum(losses, triplets[0], len(rows))


def upstream(n):
    """What the sums are multiplied with, so that no anchor's gradient passes for another's."""
    return tf.constant(np.random.default_rng(9).uniform(0.5, 1.5, n))


def with_gradient(rows, function):
    """Call ``function(rows) -> sums, ...`` and return it with the gradient."""
    rows = tf.convert_to_tensor(rows)
    with tf.GradientTape() as tape:
        tape.watch(rows)
        sums, *more = function(rows)
        total = tf.reduce_sum(sums * tf.cast(upstream(len(rows)), rows.dtype))
    gradient = tape.gradient(total, rows)
    return sums, *more, tf.convert_to_tensor(gradient)


def found_by(labels, rows, recipe, seed=SEED):
    """Return sums, n_triplets and the gradient."""
    labels = tf.constant(labels)
    return with_gradient(rows, lambda x: loss_by_anchor(labels, x, recipe, seed))


def assert_is_literal(rows, labels, recipe, triplets=None, tolerance=1e-9):
    triplets = listed(rows, labels, recipe) if triplets is None else np.stack(triplets)
    expected, gradient = with_gradient(
        rows.astype(np.float64), lambda x: (literal_loss(x, triplets, recipe),)
    )
    found = found_by(labels, rows, recipe)
    assert all(value.dtype == rows.dtype for value in found)
    assert float(found[1]) == triplets.shape[1]
    np.testing.assert_allclose(found[0], expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(found[2], gradient, rtol=tolerance, atol=tolerance)
    return triplets.shape[1]


NAMES = sorted(STRATEGIES)
# Those that are one without chance are looked at once.
SURE = {dataclasses.replace(without_chance(STRATEGIES[name]), source=""): name for name in NAMES}
RECIPES = {
    "batch_all": Recipe("batch_all", MARGIN),
    "batch_all_euclidean": Recipe("batch_all", 0.3, "euclidean"),
    "batch_all_cosine_soft": Recipe("batch_all", 0.3, "cosine", soft=True),
    "batch_hard_euclidean_soft": Recipe("batch_hard", MARGIN, "euclidean", soft=True),
    "semi_hard_every_euclidean": Recipe(Strategy("semi_hard", "both_ways", "every"), 0.3, "euclidean"),
    "screened_every_euclidean": Recipe(
        Strategy("violating", "both_ways", "every", max_positive_distance=1.1), 0.2, "euclidean"
    ),
    "absolute_euclidean": Recipe(Strategy(Interval(1.0, 1.3, relative=False), pick="every"), 1, "euclidean"),
    "more_than_there_are": Recipe(
        Strategy("all", "hardest_positive", "nearest", n_positives=99, n_negatives=99), MARGIN
    ),
    # Each strategy once, the distances and losses in turn.
    **{
        name: Recipe(strategy, MARGIN, [*DISTANCES][i % 3], soft=i % 4 == 3)
        for i, (strategy, name) in enumerate(SURE.items())
    },
}


@pytest.mark.parametrize("name", RECIPES)
def test_every_strategy_is_its_literal_formula(name):
    assert_is_literal(*batch(), RECIPES[name])


def test_the_batch_is_no_trivial_one():
    n_triplets = {name: listed(*batch(), recipe).shape[1] for name, recipe in RECIPES.items()}
    assert min(n_triplets.values()) >= 2, n_triplets


@pytest.mark.parametrize("distance", ["squared_euclidean", "cosine"])
@pytest.mark.parametrize("name", ["batch_hard", "easy_positive", "quantile_hardest", "farthest_3"])
def test_triplets_are_the_miners(name, distance):
    rows, labels = batch(seed=3)
    recipe = Recipe(STRATEGIES[name], MARGIN, distance)
    given = {"strategy": recipe.strategy, "margin": MARGIN, "distance": distance}
    mined = mine_triplets(rows, labels, backend="reference", **given)
    assert assert_is_literal(rows, labels, recipe, (mined.anchor, mined.positive, mined.negative)) > 0


def test_all_violating_triplets_are_the_miners():
    rows, labels = batch(seed=3)
    (block,) = stream_triplets(rows, labels, strategy="batch_all", margin=MARGIN)
    columns = (block.anchor, block.positive, block.negative)
    assert assert_is_literal(rows, labels, RECIPES["batch_all"], columns) > 100


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("batch_hard", np.float32),
        ("skip_many", np.float32),
        *((name, np.float64) for name in ("hard", "farther", "nearest_3", "quantile", "relative_open")),
    ],
)
def test_ties_are_decided_as_the_miner_decides_them(name, dtype):
    rows, labels = tied(28, 5, SIZE)
    # Then the first by identity is the first in the batch.
    recipe = Recipe(without_chance(STRATEGIES[name]), MARGIN)
    triplets = listed(rows, np.sort(labels), recipe)
    assert_is_literal(
        rows.astype(dtype), np.sort(labels), recipe, triplets, 1e-5 if dtype == np.float32 else 1e-12
    )


@pytest.mark.parametrize("name", ["batch_all", "batch_hard_euclidean_soft", "skip_nearest"])
def test_float32_is_near_float64(name):
    rows, labels = batch(np.float32)
    assert_is_literal(rows, labels, RECIPES[name], tolerance=1e-5)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("distance", DISTANCES)
def test_gradients_are_finite_differences(distance, soft):
    rows, labels = batch()
    rows, labels, step = 1.3 * rows[:9, :SIZE], np.array([0, 1, 0, 1, 2, 2, 0, 1, 3]), 1e-6
    recipe = Recipe(Strategy("all", "both_ways", "every"), 0.3, distance, soft)
    _, n_triplets, gradient = (value.numpy() for value in found_by(labels, rows, recipe))
    assert float(n_triplets) == 6 * 6 + 6 * 6 + 2 * 7

    def total(x):
        sums, _ = loss_by_anchor(tf.constant(labels), tf.constant(x), recipe, SEED)
        return float(tf.reduce_sum(sums * upstream(9)))

    for place in np.ndindex(*rows.shape):
        up, down = rows.copy(), rows.copy()
        up[place] += step
        down[place] -= step
        assert gradient[place] == pytest.approx((total(up) - total(down)) / (2 * step), abs=1e-6)


def test_slopes_are_of_the_distances():
    rows, labels = batch()
    recipe = Recipe("batch_hard", MARGIN)
    triplets = listed(rows, labels, recipe)
    d = pairwise_distances(tf.constant(rows), recipe.distance)
    sums, n_triplets, slopes = loss_and_slopes(labels[:, None] == labels, d, SEED, recipe, SIZE)
    expected = np.zeros(d.shape)
    active = np.array([d[a, p] - d[a, n] + MARGIN > 0 for a, p, n in triplets.T])
    np.add.at(expected, (triplets[0], triplets[1]), active)
    np.add.at(expected, (triplets[0], triplets[2]), -1.0 * active)
    np.testing.assert_array_equal(slopes, expected)
    assert n_triplets.dtype == tf.int64
    assert sums.shape == (len(rows),)


@pytest.mark.parametrize("elements", [1, 60])
def test_tiles_add_up(elements, monkeypatch):
    rows, labels = batch()
    d = pairwise_distances(tf.constant(rows), "squared_euclidean")
    arguments = labels[:, None] == labels, d, SEED, RECIPES["batch_all"], SIZE
    whole = loss_and_slopes(*arguments)
    monkeypatch.setattr(dense, "_TILE_SIZE", elements)
    for part, expected in zip(loss_and_slopes(*arguments), whole, strict=True):
        np.testing.assert_allclose(part, expected, rtol=1e-12)


# Chance.


@pytest.mark.parametrize("name", [name for name in NAMES if is_chance(STRATEGIES[name])])
def test_what_is_drawn_may_be(name):
    rows, labels = batch(seed=5)
    i = NAMES.index(name)
    # Softly, every triplet has a slope.
    recipe = Recipe(STRATEGIES[name], MARGIN, [*DISTANCES][(i + 1) % 3], soft=True)
    strategy, sure = recipe.strategy, facts(rows, labels, recipe)
    d = pairwise_distances(tf.constant(rows), recipe.distance)
    sums, n_triplets, slopes = loss_and_slopes(labels[:, None] == labels, d, SEED, recipe, SIZE)
    slopes = slopes.numpy()

    def may_be(a, p):
        if sure.candidates[a, p] or strategy.if_empty == "drop":
            return sure.candidates[a, p]
        sign = -1.0 if strategy.if_empty == "farthest" else 1.0
        return sorted(sure.negatives[a], key=lambda n: (sign * sure.d[a, n], sure.place[n]))[:1]

    random_pairs = strategy.pairs == "random_positives"
    if not random_pairs:
        assert int(n_triplets) == sum(min(strategy.n_negatives, len(may_be(*pair))) for pair in sure.pairs)
    assert int(n_triplets) > 0
    for a in range(len(rows)):
        positives = [p for b, p in sure.pairs if b == a]
        looked_at, picks = set(np.flatnonzero(slopes[a] > 0)), set(np.flatnonzero(slopes[a] < 0))
        assert looked_at <= set(positives)
        if random_pairs:
            assert len(looked_at) <= strategy.n_positives
            if all(may_be(a, p) for p in positives):
                assert len(looked_at) == min(strategy.n_positives, len(positives))
        else:
            assert looked_at == {p for p in positives if may_be(a, p)}
        assert picks <= {n for p in looked_at for n in may_be(a, p)}
        if len(looked_at) == 1:
            assert len(picks) == min(strategy.n_negatives, len(may_be(a, *looked_at)))
            (p,) = looked_at
            excess = [sure.d[a, p] - sure.d[a, n] for n in picks]
            np.testing.assert_allclose(sums[a], np.log1p(np.exp(excess)).sum())
        assert (sums[a] > 0) == bool(looked_at)


def assert_distributed(counts, shares):
    """Chi-square, at a level of one in a thousand; seeds are fixed."""
    counts, shares = np.asarray(counts, float).ravel(), np.asarray(shares, float).ravel()
    expected = counts.sum() * shares / shares.sum()
    assert expected.min() > 5
    assert ((counts - expected) ** 2 / expected).sum() < chi2.ppf(0.999, len(counts) - 1)


def picks_of_twins(strategy, distance="squared_euclidean", n_twins=400, seeds=3):
    """Draw for many like pairs: return who of five negatives each has, shape (draws, 5), and their distances.

    Two images an identity, all at the north pole; and five images on other parallels.
    """
    rng = np.random.default_rng(0)
    heights = np.cos([0.4, 0.7, 1.0, 1.2, 1.6])
    rows = np.zeros((2 * n_twins + 5, SIZE))
    rows[:-5, 0] = 1.0
    around = rng.standard_normal((5, SIZE - 1))
    rows[-5:, 0] = heights
    rows[-5:, 1:] = around / np.linalg.norm(around, axis=1)[:, None] * np.sqrt(1 - heights**2)[:, None]
    labels = np.concatenate((np.repeat(np.arange(n_twins), 2), n_twins + np.arange(5)))
    recipe = Recipe(strategy, 1.0, distance, soft=True)
    d = pairwise_distances(tf.constant(rows), distance)
    anchors = slice(0, 2 * n_twins, 2)
    drawn = [
        loss_and_slopes(labels[:, None] == labels, d, tf.constant([seed, 0]), recipe, SIZE)[2].numpy()
        for seed in range(seeds)
    ]
    assert all((slopes[anchors, :-5] <= 0).sum() == n_twins * (2 * n_twins - 1) for slopes in drawn)
    return np.concatenate([slopes[anchors, -5:] < 0 for slopes in drawn]), d[0, -5:].numpy()


# Twins of other identities coincide with the anchor.
OTHERS = Interval(0.01, 1.9, relative=False)


def test_uniform_picks_are_uniform_and_independent():
    picks, _ = picks_of_twins(Strategy(OTHERS))
    np.testing.assert_array_equal(picks.sum(axis=1), 1)
    which = picks.argmax(axis=1)
    # The farthest is no candidate.
    assert which.max() == 3
    assert_distributed(np.bincount(which), np.ones(4))
    joint = np.zeros((4, 4))
    np.add.at(joint, (which[0::2], which[1::2]), 1)
    assert_distributed(joint, np.ones(16))


def test_tiles_draw_independently(monkeypatch):
    monkeypatch.setattr(dense, "_TILE_SIZE", 50 * 805)
    picks, _ = picks_of_twins(Strategy(OTHERS))
    by_tile = picks.argmax(axis=1).reshape(-1, 50)
    joint = np.zeros((4, 4))
    np.add.at(joint, (by_tile[0::2], by_tile[1::2]), 1)
    assert_distributed(joint, np.ones(16))


def test_several_uniform_picks_are_uniform_without_replacement():
    picks, _ = picks_of_twins(Strategy(Interval(0.01, relative=False), n_negatives=2))
    np.testing.assert_array_equal(picks.sum(axis=1), 2)
    counts = [(picks[:, i] & picks[:, j]).sum() for i, j in combinations(range(5), 2)]
    assert_distributed(counts, np.ones(10))


@pytest.mark.parametrize("n_negatives", [1, 2])
@pytest.mark.parametrize("distance", DISTANCES)
def test_weighted_picks_are_drawn_by_the_weights(distance, n_negatives):
    strategy = Strategy(
        Interval(0.01, relative=False), pick="distance_weighted", n_negatives=n_negatives, near=0.5, far=1.3
    )
    picks, d = picks_of_twins(strategy, distance, n_twins=300)
    squared = {"squared_euclidean": d, "euclidean": d**2, "cosine": 2 * d}[distance]
    assert not picks[:, squared >= 1.3**2].any()
    np.testing.assert_array_equal(picks.sum(axis=1), n_negatives)
    law = weights(SIZE, 0.5, 1.3, 1.0)
    shares = np.exp([law.log_weight(s) for s in squared[:4]])
    assert (squared[:4] < 1.3**2).all()
    assert shares.max() > 4 * shares.min()
    shares /= shares.sum()
    if n_negatives == 1:
        assert_distributed(picks[:, :4].sum(axis=0), shares)
    else:
        pairs = list(combinations(range(4), 2))
        counts = [(picks[:, i] & picks[:, j]).sum() for i, j in pairs]
        chances = [shares[i] * shares[j] * (1 / (1 - shares[i]) + 1 / (1 - shares[j])) for i, j in pairs]
        assert_distributed(counts, chances)


@pytest.mark.parametrize("n_positives", [1, 2])
def test_random_positives_are_uniform(n_positives):
    rows = np.random.default_rng(1).standard_normal((800, SIZE))
    labels = np.repeat(np.arange(200), 4)
    recipe = Recipe(Strategy("all", "random_positives", "nearest", n_positives=n_positives), soft=True)
    d = pairwise_distances(tf.constant(rows), recipe.distance)
    slopes = loss_and_slopes(labels[:, None] == labels, d, SEED, recipe, SIZE)[2].numpy()
    within = np.stack([slopes[a, a - a % 4 : a - a % 4 + 4] > 0 for a in range(800)])
    np.testing.assert_array_equal(within.sum(axis=1), n_positives)
    for place in range(4):
        others = np.delete(within[place::4], place, axis=1)
        assert not within[place::4, place].any()
        assert_distributed(others.sum(axis=0), np.ones(3))


@pytest.mark.parametrize("name", ["vgg_face", "distance_weighted", "random_positives"])
def test_equal_seeds_give_equal_picks(name):
    rows, labels = batch()
    recipe = Recipe(STRATEGIES[name], 1.0, soft=True)
    first, again, other = (
        found_by(labels, rows, recipe, tf.constant(seed))[0].numpy() for seed in ([1, 2], [1, 2], [1, 3])
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


# Graphs.


def graph_of(recipe, **options):
    def function(labels, rows, weights):
        with tf.GradientTape() as tape:
            tape.watch(rows)
            sums, n_triplets = loss_by_anchor(labels, rows, recipe, SEED)
            total = tf.reduce_sum(sums * weights)
        return sums, n_triplets, tape.gradient(total, rows)

    signature = [tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, SIZE], tf.float64)]
    signature.append(tf.TensorSpec([None], tf.float64))
    return tf.function(function, signature, autograph=False, **options)


# Compiling takes seconds: much in little.
COMPILED = {
    "uniform": Recipe("facenet", MARGIN),
    "hardest": Recipe("batch_hard", MARGIN, "euclidean", soft=True),
    "weighted": Recipe(
        Strategy(
            "semi_hard",
            "random_positives",
            "distance_weighted",
            n_positives=2,
            n_negatives=2,
            positive_quantile=0.9,
            skip_hardest=0.1,
            if_empty="farthest",
        ),
        0.1,
        "cosine",
    ),
}


@pytest.mark.parametrize("name", COMPILED)
def test_xla_finds_the_same(name):
    rows, labels = batch()
    recipe = COMPILED[name]
    compiled = graph_of(recipe, jit_compile=True)
    for n in (len(rows), 14) if name == "hardest" else (len(rows),):
        expected = found_by(labels[:n], rows[:n], recipe)
        assert float(expected[1]) > 0
        for found, value in zip(compiled(labels[:n], rows[:n], upstream(n)), expected, strict=True):
            np.testing.assert_allclose(found, value, rtol=1e-9, atol=1e-12)


def test_graphs_take_any_number_of_rows():
    rows, labels = batch()
    graph = graph_of(RECIPES["batch_all"])
    for n in (0, 1, 5, len(rows)):
        expected = found_by(labels[:n], rows[:n], RECIPES["batch_all"])
        for found, value in zip(graph(labels[:n], rows[:n], upstream(n)), expected, strict=True):
            np.testing.assert_allclose(found, value, rtol=1e-9, atol=1e-12)


def test_gradients_keep_no_tiles():
    definition = graph_of(RECIPES["batch_all"]).get_concrete_function().graph.as_graph_def()
    operations = {node.op for node in definition.node}
    operations |= {node.op for function in definition.library.function for node in function.node_def}
    assert {"StatelessWhile", "While"} & operations
    # How a loop's gradient would keep what each turn made.
    assert not {name for name in operations if name.startswith("TensorList")}


# The nasty inputs.


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_batches_without_triplets_give_zeros(name):
    rows, _ = batch()
    for labels in ([], [7], [7] * 5, [1, 2, 3]):
        n = len(labels)
        sums, n_triplets, gradient = found_by(np.array(labels, np.int32), rows[:n], RECIPES[name])
        assert float(n_triplets) == 0
        np.testing.assert_array_equal(sums, np.zeros(n))
        np.testing.assert_array_equal(gradient, np.zeros((n, SIZE)))


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("soft", [False, True])
def test_a_collapsed_batch_has_a_loss_and_no_gradient(distance, soft):
    rows = np.repeat(batch(np.float32)[0][:1], 8, axis=0)
    recipe = Recipe("batch_all", 0.2, distance, soft)
    sums, n_triplets, gradient = found_by([0, 0, 0, 0, 1, 1, 1, 1], rows, recipe)
    assert float(n_triplets) == 8 * 3 * 4
    np.testing.assert_allclose(sums, 12 * (math.log(2) if soft else 0.2), rtol=1e-6)
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("distance", DISTANCES)
def test_some_coincident_rows_and_rows_of_zeros_have_finite_gradients(distance):
    rows, labels = batch()
    rows[[1, 2]] = rows[0]
    rows[[5, 9]] = 0.0
    recipe = Recipe(Strategy("all", "both_ways", "every"), 0.3, distance)
    sums, n_triplets, gradient = found_by(labels, rows, recipe)
    assert float(n_triplets) > 0
    assert np.isfinite(sums).all()
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", ["batch_hard", "quantile", "skip_many", "distance_weighted"])
def test_embeddings_that_are_not_finite_raise_nothing(name):
    rows, labels = batch()
    recipe = Recipe("distance_weighted") if name == "distance_weighted" else RECIPES[name]
    for bad in (np.nan, np.inf, 1e200):
        rows[3] = bad
        found_by(labels, rows, recipe)


@pytest.mark.parametrize("name", ["batch_hard_euclidean_soft", "quantile"])
def test_labels_of_any_type(name):
    rows, labels = batch()
    expected = found_by(labels, rows, RECIPES[name])
    words = np.array([f"who {label}" for label in labels])
    large = (labels + 2**53).astype(np.int64)
    for others in (words, large, labels.astype(np.uint8), labels.astype(np.float32), labels == 3):
        if others.dtype == bool:
            expected = found_by((labels == 3).astype(np.int32), rows, RECIPES[name])
        for found, value in zip(found_by(others, rows, RECIPES[name]), expected, strict=True):
            np.testing.assert_array_equal(found, value)


def test_weights_need_a_known_size_of_three():
    recipe = Recipe("distance_weighted")
    with pytest.raises(ValueError, match="distance_weighted needs embeddings of 3 numbers at least; got 2"):
        loss_by_anchor(tf.constant([1, 1]), tf.zeros((2, 2)), recipe, SEED)

    @tf.function(input_signature=[tf.TensorSpec([None, None])], autograph=False)
    def of_any_size(rows):
        return loss_by_anchor(tf.zeros(tf.shape(rows)[:1]), rows, recipe, SEED)

    with pytest.raises(ValueError, match=r"needs embeddings of a known size; got shape \(n_images, None\)"):
        of_any_size(tf.zeros((2, 3)))


def test_a_graph_first_made_on_a_device_or_in_a_graph_serves_elsewhere():
    rows, labels = batch()
    recipe = Recipe("hardest", 0.123)
    with tf.device("CPU:0"):
        first = graph_of(recipe)(labels, rows, upstream(len(rows)))
    for found, value in zip(found_by(labels, rows, recipe), first, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-12)
    definition = dense._graph(recipe, SIZE, tf.float64).graph.as_graph_def()
    assert {node.device for node in definition.node} == {""}
