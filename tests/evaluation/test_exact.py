from __future__ import annotations

import math
import os
from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from facenet_fast._verification import bootstrap
from facenet_fast.errors import UserError
from facenet_fast.evaluation.exact import ExactVerification, exact_verification, of_roc
from facenet_fast.evaluation.roc import equal_error_rate, exact_roc
from facenet_fast.evaluation.verification import distances as measure_distances

FARS = (0.3, 0.1, 0.02)


def make_pairs(n_pairs=200, n_identities=25, n_folds=4, seed=0, steps=None):
    """Distances, truth, folds and who is who; tied where `steps` says how many values there are."""
    rng = np.random.default_rng(seed)
    is_same = rng.random(n_pairs) < 0.5
    left = rng.integers(0, n_identities, n_pairs)
    right = np.where(is_same, left, (left + rng.integers(1, n_identities, n_pairs)) % n_identities)
    d = rng.normal(np.where(is_same, 1.0, 1.6), 0.4).clip(0)
    if steps is not None:
        d = np.rint(d / 2 * steps) / steps * 2
    return d, is_same, rng.integers(0, n_folds, n_pairs), left, right


def literal_fold_accuracies(d, is_same, fold):
    """Try every distance of the other folds, one after the other."""
    accuracies = []
    for tested in sorted(set(fold.tolist())):
        others = [i for i in range(len(d)) if fold[i] != tested]
        here = [i for i in range(len(d)) if fold[i] == tested]
        if not others:
            continue
        values = sorted({float(d[i]) for i in others})
        candidates = [min(0.0, values[0])]
        candidates += [(a + b) / 2 for a, b in pairwise(values)]
        candidates += [math.nextafter(values[-1], math.inf)]
        right = [sum((d[i] < t) == is_same[i] for i in others) for t in candidates]
        threshold = candidates[right.index(max(right))]
        accuracies.append(sum((d[i] < threshold) == is_same[i] for i in here) / len(here))
    return accuracies


def literal_measures(d, is_same, fold, fars):
    """Accuracy, AUC, EER and VALs of pairs that may be repeated."""
    roc = exact_roc(d, is_same)
    accuracies = literal_fold_accuracies(d, is_same, fold)
    vals = []
    for far in fars:
        allowed = [t for t in (-1.0, *set(d.tolist())) if np.mean(d[~is_same] <= t) <= far]
        vals.append(np.mean(d[is_same] <= max(allowed)))
    return [
        np.mean(accuracies) if accuracies else np.nan,
        roc_auc_score(is_same, -d),
        equal_error_rate(roc.fpr, roc.tpr),
        *vals,
    ]


def resample(counts, d, is_same, fold, left, right, fars=FARS, n_folds=None):
    order = np.argsort(d, kind="stable")
    return bootstrap(
        d[order],
        is_same[order].astype(np.uint8),
        fold[order].astype(np.int32),
        int(fold.max()) + 1 if n_folds is None else n_folds,
        left[order].astype(np.int32),
        right[order].astype(np.int32),
        np.asarray(counts, dtype=np.int32),
        np.array(fars),
    )


@pytest.mark.parametrize("steps", [None, 12, 3])
@pytest.mark.parametrize("n_folds", [2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_measures_equal_the_literal_ones(steps, n_folds, seed):
    d, is_same, fold, *_ = make_pairs(seed=seed, steps=steps, n_folds=n_folds)
    found = exact_verification(d, is_same, fold=10 * fold - 3, fars=FARS, n_resamples=0)
    wanted = literal_measures(d, is_same, fold, FARS)
    got = [found.accuracy, found.auc, found.eer, *(point.val for point in found.operating_points)]
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-12)
    assert found.accuracy_std == pytest.approx(np.std(literal_fold_accuracies(d, is_same, fold)))
    assert (found.intervals, found.n_resamples, found.resampled) == ({}, 0, "")


@pytest.mark.parametrize("steps", [None, 12])
def test_best_threshold_is_the_best_of_all(steps):
    d, is_same, *_ = make_pairs(seed=5, steps=steps)
    found = exact_verification(d, is_same, n_resamples=0)
    values = np.unique(d)
    tried = [0.0, *(values[:-1] + values[1:]) / 2, values[-1] + 1]
    accuracies = [np.mean((d < t) == is_same) for t in tried]
    assert found.best_accuracy == max(accuracies) == np.mean((d < found.threshold) == is_same)
    assert found.threshold == pytest.approx(tried[int(np.argmax(accuracies))])
    assert math.isnan(found.accuracy)
    assert math.isnan(found.accuracy_std)


@pytest.mark.parametrize("steps", [None, 10, 2])
@pytest.mark.parametrize("seed", range(3))
def test_resamples_of_identities_equal_repeated_pairs(steps, seed):
    d, is_same, fold, left, right = make_pairs(seed=seed, steps=steps)
    n_identities = 25
    rng = np.random.default_rng(seed)
    counts = [np.bincount(rng.integers(0, n_identities, n_identities), minlength=25) for _ in range(6)]
    counts.append(np.ones(n_identities, dtype=int))
    measured = resample(counts, d, is_same, fold, left, right)
    for w, got in zip(counts, measured, strict=True):
        times = [w[a] if same else w[a] * w[b] for a, b, same in zip(left, right, is_same, strict=True)]
        rows = np.repeat(np.arange(len(d)), times)
        wanted = literal_measures(d[rows], is_same[rows], fold[rows], FARS)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-12)


def test_resamples_of_pairs_equal_repeated_pairs():
    d, is_same, fold, *_ = make_pairs(n_pairs=90, n_folds=3, seed=4, steps=20)
    units = np.arange(len(d))
    counts = np.random.default_rng(0).integers(0, 3, (5, len(d)))
    measured = resample(counts, d, is_same, fold, units, units)
    for w, got in zip(counts, measured, strict=True):
        rows = np.repeat(units, w)
        wanted = literal_measures(d[rows], is_same[rows], fold[rows], FARS)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-12)


def test_folds_that_lose_all_their_pairs_are_left_out():
    d, is_same, _, left, right = make_pairs(n_pairs=120, n_identities=20, seed=2)
    fold = (left >= 10) * 1 + (left >= 15) * 1  # folds of their own left identities
    empty_fold = np.where(np.arange(20) < 15, 1, 0)
    one_fold_only = np.where(np.arange(20) < 10, 2, 0)
    for w in (empty_fold, one_fold_only):
        times = [w[a] if same else w[a] * w[b] for a, b, same in zip(left, right, is_same, strict=True)]
        rows = np.repeat(np.arange(len(d)), times)
        wanted = literal_measures(d[rows], is_same[rows], fold[rows], FARS)
        np.testing.assert_allclose(resample([w], d, is_same, fold, left, right)[0], wanted, atol=1e-12)
    assert np.isnan(wanted[0])


def test_resample_without_one_kind_is_nan():
    d, is_same, fold, left, right = make_pairs()
    w = np.zeros(25)
    w[3] = 25
    assert np.isnan(resample([w, np.zeros(25)], d, is_same, fold, left, right)).all()


def test_intervals_are_quantiles_of_resamples_drawn_by_seed_and_number():
    d, is_same, fold, left, right = make_pairs(seed=6, steps=15)
    names = np.array([f"person {i}" for i in range(25)])
    found = exact_verification(
        d,
        is_same,
        fold=fold,
        left_identity=names[left],
        right_identity=names[right],
        fars=FARS,
        n_resamples=70,
        confidence=0.8,
        seed=9,
    )
    sorted_names = np.sort(names)  # identities are drawn in their order
    left, right = np.searchsorted(sorted_names, names[left]), np.searchsorted(sorted_names, names[right])
    counts = [np.bincount(np.random.default_rng([9, k]).integers(0, 25, 25), minlength=25) for k in range(70)]
    measures = resample(counts, d, is_same, fold, left, right)
    assert list(found.intervals) == ["accuracy", "auc", "eer", "val@0.3", "val@0.1", "val@0.02"]
    for interval, values in zip(found.intervals.values(), measures.T, strict=True):
        ascending = np.sort(values)
        low, high = 0.1 * 69, 0.9 * 69
        assert interval.low == pytest.approx(np.interp(low, np.arange(70), ascending))
        assert interval.high == pytest.approx(np.interp(high, np.arange(70), ascending))
    assert (found.confidence, found.n_resamples, found.resampled) == (0.8, 70, "identities")


def test_pairs_are_drawn_each_kind_by_itself():
    d, is_same, *_ = make_pairs(n_pairs=60, seed=1)
    found = exact_verification(d, is_same, fars=(0.5,), n_resamples=40, confidence=0.9)
    assert found.resampled == "pairs"
    assert list(found.intervals) == ["auc", "eer", "val@0.5"]
    order = np.argsort(d, kind="stable")
    aucs = []
    for number in range(40):
        rng = np.random.default_rng([0, number])
        rows = []
        for kind in (True, False):
            members = order[is_same[order] == kind]
            rows.extend(members[rng.integers(len(members), size=len(members))])
        aucs.append(roc_auc_score(is_same[rows], -d[rows]))
    assert found.intervals["auc"].low == pytest.approx(np.quantile(aucs, 0.05))
    assert found.intervals["auc"].high == pytest.approx(np.quantile(aucs, 0.95))


def test_results_do_not_depend_on_the_number_of_threads(monkeypatch):
    d, is_same, fold, left, right = make_pairs(seed=3)
    results = []
    for n_threads in (1, 5):
        monkeypatch.setattr(os, "cpu_count", lambda n_threads=n_threads: n_threads)
        found = exact_verification(
            d, is_same, fold=fold, left_identity=left, right_identity=right, n_resamples=200
        )
        results.append(found.intervals)
    assert results[0] == results[1]
    other = exact_verification(d, is_same, left_identity=left, right_identity=right, n_resamples=200, seed=1)
    assert other.intervals["auc"] != results[0]["auc"]


def everybody_with_everybody(rng, n_identities=24, n_images=3):
    """All pairs of images; some people's images are more scattered than others'."""
    centres = rng.normal(size=(n_identities, 1, 6))
    spread = rng.gamma(2.0, 0.35, size=(n_identities, 1, 1))
    rows = (centres + spread * rng.normal(size=(n_identities, n_images, 6))).reshape(-1, 6)
    identity = np.repeat(np.arange(n_identities), n_images)
    left, right = np.triu_indices(len(rows), 1)
    d = measure_distances(rows[left], rows[right])
    return d, identity[left] == identity[right], identity[left], identity[right]


def test_intervals_hold_the_truth_about_as_often_as_they_promise():
    rng = np.random.default_rng(0)
    aucs = []
    for _ in range(400):
        d, is_same, *_ = everybody_with_everybody(rng)
        aucs.append(exact_roc(d, is_same).auc)
    true_auc = np.mean(aucs)
    held, widths = [], []
    for _ in range(60):
        d, is_same, left, right = everybody_with_everybody(rng)
        found = exact_verification(
            d, is_same, left_identity=left, right_identity=right, fars=(), n_resamples=100, confidence=0.9
        )
        auc = found.intervals["auc"]
        held.append(auc.low <= true_auc <= auc.high)
        widths.append(auc.high - auc.low)
    assert 0.8 <= np.mean(held) <= 0.98
    low, high = np.quantile(aucs, (0.05, 0.95))
    assert np.mean(widths) == pytest.approx(high - low, rel=0.25)


def test_all_distances_equal():
    is_same = np.arange(40) % 2 == 0
    found = exact_verification(np.full(40, 0.5), is_same, fold=np.arange(40) // 10, fars=(0.5, 1.0))
    assert (found.auc, found.eer, found.accuracy, found.best_accuracy) == (0.5, 0.5, 0.5, 0.5)
    assert [point.val for point in found.operating_points] == [0.0, 1.0]
    assert found.threshold == 0.0
    for name in ("auc", "eer"):
        assert found.intervals[name].low == found.intervals[name].high == 0.5


@pytest.mark.parametrize("metric", [0, 1])
def test_identical_images_are_at_distance_zero_and_accepted(metric):
    rng = np.random.default_rng(0)
    left = rng.normal(size=(60, 8)).astype(np.float32)
    is_same = np.arange(60) % 2 == 0
    right = np.where(is_same[:, None], left, -left)
    d = measure_distances(left, right, metric)
    found = exact_verification(d, is_same, fold=np.arange(60) // 20, fars=(0.1,))
    assert (found.accuracy, found.auc, found.eer, found.operating_points[0].val) == (1.0, 1.0, 0.0, 1.0)
    assert 0 < found.threshold < 8 * np.abs(left).max() ** 2


def test_scale_of_the_distances_does_not_matter():
    d, is_same, fold, *_ = make_pairs(seed=8)
    plain = exact_verification(d, is_same, fold=fold, fars=FARS, n_resamples=50)
    for scale in (8.0 / d.max(), 2.0**-30, 2.0**20):
        other = exact_verification(scale * d, is_same, fold=fold, fars=FARS, n_resamples=50)
        assert other.accuracy == plain.accuracy
        assert other.auc == plain.auc
        assert [p.val for p in other.operating_points] == [p.val for p in plain.operating_points]
        assert other.intervals == plain.intervals
        assert other.threshold == pytest.approx(scale * plain.threshold)


def test_negated_similarities_will_do():
    d, is_same, fold, *_ = make_pairs(seed=8)
    plain = exact_verification(d, is_same, fold=fold, fars=FARS, n_resamples=30)
    other = exact_verification(d - 8.0, is_same, fold=fold, fars=FARS, n_resamples=30)
    assert (other.accuracy, other.best_accuracy) == (plain.accuracy, plain.best_accuracy)
    # Where the best is to accept nothing, nothing is accepted.
    d = np.array([-3.0, -2.0, -1.0, -3.0, -2.0, -1.0])
    is_same = np.array([False, False, True, False, False, True])
    found = exact_verification(d, is_same, fold=[0, 0, 0, 1, 1, 1], n_resamples=0)
    assert found.accuracy == found.best_accuracy == pytest.approx(2 / 3)
    assert found.threshold == -3.0
    ones = resample([np.ones(6)], d, is_same, np.array([0, 0, 0, 1, 1, 1]), np.arange(6), np.arange(6))
    assert ones[0, 0] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("d", "is_same", "accuracy"),
    [
        ([1.0, 2.0, 3.0], [False, True, True], 2 / 3),  # best is to accept all, the farthest too
        ([1.0, np.nextafter(1.0, 2.0), 3.0], [True, False, False], 1.0),  # no number lies between
    ],
)
def test_thresholds_at_the_ends_of_what_numbers_can_part(d, is_same, accuracy):
    d, is_same, fold = np.tile(d, 2), np.tile(is_same, 2), np.repeat([0, 1], 3)
    found = exact_verification(d, is_same, fold=fold, n_resamples=0)
    assert found.accuracy == found.best_accuracy == pytest.approx(accuracy)
    ones = resample([np.ones(6)], d, is_same, fold, np.arange(6), np.arange(6))
    assert ones[0, 0] == pytest.approx(accuracy)


def test_folds_of_one_kind_are_fine():
    d, is_same, *_ = make_pairs(seed=7)
    order = np.argsort(~is_same, kind="stable")
    d, is_same = d[order], is_same[order]
    fold = np.arange(len(d)) * 3 // len(d)  # all same, mixed, all different
    found = exact_verification(d, is_same, fold=fold, n_resamples=20)
    assert found.accuracy == pytest.approx(np.mean(literal_fold_accuracies(d, is_same, fold)))
    assert np.isfinite(found.intervals["accuracy"].low)
    two = exact_verification(d, is_same, fold=is_same, n_resamples=20)
    assert two.accuracy == pytest.approx(np.mean(literal_fold_accuracies(d, is_same, is_same)))


def test_repeated_and_unreachable_fars():
    d, is_same, *_ = make_pairs()
    n = np.count_nonzero(~is_same)
    found = exact_verification(d, is_same, fars=(1e-6, 0.1, 0.1, 1e-6), n_resamples=10)
    assert [point.far_target for point in found.operating_points] == [0.1]
    assert found.refused == (
        f"VAL at FAR=1e-06 needs at least 1000000 pairs of different identities; got {n}",
    )
    assert list(found.intervals) == ["auc", "eer", "val@0.1"]


def test_interval_of_too_few_defined_resamples_is_nan():
    # Two identities: a resample draws one of them twice half of the time and then has no different pair.
    d, is_same = np.array([0.1, 0.2, 0.3]), np.array([True, True, False])
    found = exact_verification(
        d, is_same, left_identity=["a", "b", "a"], right_identity=["a", "b", "b"], fars=(1.0,)
    )
    assert found.auc == 1.0
    for interval in found.intervals.values():
        assert math.isnan(interval.low)
        assert math.isnan(interval.high)


def test_interval_leaves_out_a_few_undefined_resamples():
    left, right = np.triu_indices(4)  # all pairs of four identities; none is different if one is drawn alone
    d = np.random.default_rng(0).random(len(left))
    drawn = [np.bincount(np.random.default_rng([0, k]).integers(0, 4, 4), minlength=4) for k in range(1000)]
    pairs = list(zip(left, right, strict=True))
    defined = [
        any(w[a] for a, b in pairs if a == b) and any(w[a] * w[b] for a, b in pairs if a != b) for w in drawn
    ]
    assert 5 < 1000 - sum(defined) < 100
    measures = resample(drawn, d, left == right, np.zeros(10, int), left, right)
    assert (np.isfinite(measures[:, 1]) == defined).all()
    found = exact_verification(d, left == right, left_identity=left, right_identity=right, fars=())
    low, high = np.quantile(measures[defined, 1], (0.025, 0.975))
    assert (found.intervals["auc"].low, found.intervals["auc"].high) == pytest.approx((low, high))


def test_of_roc_gives_what_needs_no_pairs():
    d, is_same, *_ = make_pairs(seed=2, steps=30)
    wanted = exact_verification(d, is_same, fars=FARS, n_resamples=0)
    found = of_roc(exact_roc(d, is_same), FARS)
    assert isinstance(found, ExactVerification)
    assert found.operating_points == wanted.operating_points
    assert (found.best_accuracy, found.threshold, found.auc) == (
        wanted.best_accuracy,
        wanted.threshold,
        wanted.auc,
    )
    assert (found.intervals, found.resampled) == ({}, "")


def bad_call(**changes):
    d, is_same, fold, left, right = make_pairs(n_pairs=20)
    arguments = {"distances": d, "is_same": is_same, "fold": fold, "n_resamples": 5}
    arguments |= {"left_identity": left, "right_identity": right}
    arguments |= {
        name: change(arguments[name]) if callable(change) else change for name, change in changes.items()
    }
    return lambda: exact_verification(arguments.pop("distances"), arguments.pop("is_same"), **arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (bad_call(distances=lambda d: np.append(d[:-1], np.nan)), r"finite; 1 of 20 .* pair 19$"),
        (bad_call(distances=lambda d: d[1:]), r"one entry a pair; got shapes \(19,\) and \(20,\)"),
        (bad_call(is_same=lambda same: np.ones_like(same)), r"got 20 same and 0 different"),
        (bad_call(fold=np.zeros(20)), r"at least 2 folds; got 1"),
        (bad_call(fold=[1, 2]), r"fold must have one entry a pair, \(20,\); got shape \(2,\)"),
        (bad_call(left_identity=None), r"must be given together; got one of them"),
        (
            bad_call(right_identity=[1]),
            r"right_identity must have one entry a pair, \(20,\); got shape \(1,\)",
        ),
        (
            bad_call(left_identity=np.arange(20), right_identity=np.arange(20) + 20),
            r"pair \d+ is same, of \d+ and \d+$",
        ),
        (
            bad_call(left_identity=np.zeros(20), right_identity=np.zeros(20)),
            r"pair \d+ is different, of 0.0 and 0.0$",
        ),
        (
            bad_call(left_identity=np.array([1, "a"] * 10, dtype=object)),
            r"identities must be labels of one sortable type",
        ),
        (bad_call(fars=(0.0,)), r"FAR must be above 0 and at most 1; got 0.0"),
        (bad_call(n_resamples=-1), r"n_resamples must not be negative; got -1"),
        (bad_call(confidence=1.0), r"confidence must be above 0 and below 1; got 1.0"),
        (bad_call(seed=-2), r"seed must not be negative; got -2"),
    ],
)
def test_mistakes_are_told_in_one_line(call, message):
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fold": [0, 2, 1]}, r"fold must lie in 0\.\.1; got 2 for pair 1"),
        ({"fold": [0, -1, 1]}, r"fold must lie in 0\.\.1; got -1 for pair 1"),
        ({"fold": [0, 1]}, r"one length; got 3, 3, 2, 3 and 3"),
        ({"left": [0, 1, 2]}, r"left and right must lie in 0\.\.1; got 2 and 1 for pair 2"),
        ({"right": [0, -1, 1]}, r"left and right must lie in 0\.\.1; got 1 and -1 for pair 1"),
        ({"d": [0.0, 2.0, 1.0]}, r"distances must ascend; got 1.0 for pair 2"),
        ({"d": [np.nan, 2.0, 3.0]}, r"distances must ascend; got nan for pair 0"),
        ({"d": [0.0, 2.0, np.nan]}, r"distances must ascend; got nan for pair 2"),
    ],
)
def test_bootstrap_refuses_what_would_corrupt_memory(changes, message):
    values = {"d": [0.0, 1.0, 2.0], "fold": [0, 0, 1], "left": [0, 1, 0], "right": [0, 1, 1]} | changes
    fold, left, right = (np.array(values[name], dtype=np.int32) for name in ("fold", "left", "right"))
    with pytest.raises(ValueError, match=message):
        bootstrap(
            np.array(values["d"]),
            np.array([1, 1, 0], np.uint8),
            fold,
            2,
            left,
            right,
            np.ones((1, 2), np.int32),
            np.array([0.1]),
        )


def test_bootstrap_of_nothing():
    none = np.zeros(0)
    rows = none.astype(np.int32)
    got = bootstrap(none, none.astype(np.uint8), rows, 2, rows, rows, np.ones((3, 2), np.int32), none)
    assert got.shape == (3, 3)
    assert np.isnan(got).all()
