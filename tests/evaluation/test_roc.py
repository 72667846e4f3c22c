from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from facenet_fast.errors import UserError
from facenet_fast.evaluation.roc import (
    FARS,
    ROC,
    area_under_curve,
    equal_error_rate,
    exact_roc,
    reachable_fars,
    threshold_above,
)


def tied_pairs(n=500, seed=0, steps=30):
    rng = np.random.default_rng(seed)
    d = rng.integers(0, steps, n) / 10
    return d, rng.random(n) < 1 / (1 + d)


def test_every_entry_accepts_what_it_says():
    d, is_same = tied_pairs()
    roc = exact_roc(d, is_same)
    assert (roc.n_same, roc.n_different) == (np.count_nonzero(is_same), np.count_nonzero(~is_same))
    assert roc.threshold_error == 0.0
    assert roc.thresholds.tolist() == [-np.inf, *sorted(set(d.tolist()))]
    for fpr, tpr, fnr, threshold in zip(roc.fpr, roc.tpr, roc.fnr, roc.thresholds, strict=True):
        assert fpr == np.mean(d[~is_same] <= threshold)
        assert tpr == np.mean(d[is_same] <= threshold)
        assert fnr == pytest.approx(np.mean(d[is_same] > threshold), abs=1e-15)


@pytest.mark.parametrize("steps", [1, 2, 30, 10**6])
def test_auc_is_the_rank_statistic(steps):
    rng = np.random.default_rng(steps)
    d, is_same = rng.integers(0, steps, 120) / steps, rng.random(120) < 0.4
    roc = exact_roc(d, is_same)
    nearer = [(a < b) + (a == b) / 2 for a in d[is_same] for b in d[~is_same]]
    assert roc.auc == pytest.approx(np.mean(nearer), abs=1e-12)
    assert roc.auc == pytest.approx(roc_auc_score(is_same, -d), abs=1e-12)
    assert roc.auc == area_under_curve(roc.fpr, roc.tpr)


def test_equal_error_rate_of_a_step():
    fpr, tpr = np.array([0.0, 0.2, 0.2, 1.0]), np.array([0.0, 0.3, 0.95, 1.0])
    assert equal_error_rate(fpr, tpr) == pytest.approx(0.2)
    assert equal_error_rate(np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0])) == 0.0
    assert exact_roc([0.1, 0.2, 0.3, 0.4], [True, False, True, False]).eer == 0.5
    assert exact_roc([0.1, 0.2, 0.3, 0.4], [True, True, False, False]).eer == 0.0


def test_eer_is_where_the_rates_cross():
    rng = np.random.default_rng(1)
    is_same = np.arange(4000) % 2 == 0
    d = rng.normal(np.where(is_same, 1.0, 2.0), 0.5)
    at = min(np.sort(d), key=lambda t: abs(np.mean(d[~is_same] <= t) - np.mean(d[is_same] > t)))
    assert exact_roc(d, is_same).eer == pytest.approx(np.mean(d[~is_same] <= at), abs=1 / 2000)


@pytest.mark.parametrize("far", [0.007, 0.01, 0.1, 1 / 3, 0.5, 0.999])
@pytest.mark.parametrize("seed", range(4))
def test_val_at_far_is_the_best_of_all_thresholds(far, seed):
    d, is_same = tied_pairs(seed=seed, n=400, steps=60)
    point = exact_roc(d, is_same).at_far(far)
    tried = np.append(-1.0, np.unique(d))
    allowed = max(t for t in tried if np.mean(d[~is_same] <= t) <= far)
    assert point.far_target == far
    assert point.far == np.mean(d[~is_same] <= allowed)
    assert point.val == np.mean(d[is_same] <= allowed)
    assert point.n_false_accepts == np.count_nonzero(d[~is_same] <= allowed)
    assert point.n_true_accepts == np.count_nonzero(d[is_same] <= allowed)
    if point.n_true_accepts + point.n_false_accepts:
        above = min(d[d > allowed])
        assert point.threshold == pytest.approx((allowed + above) / 2)
        np.testing.assert_array_equal(d < point.threshold, d <= point.threshold)
    else:
        assert point.threshold == 0.0
    np.testing.assert_array_equal(d < point.threshold, d <= allowed)


def test_a_far_that_the_pairs_give_exactly_is_reached():
    for n in (10, 49, 1000, 3000):  # 49 * (1 / 49) is below 1 in floating point
        d = np.arange(2 * n, dtype=float)
        roc = exact_roc(d, d % 2 == 1)  # a different pair is nearest
        for k in (1, 3, n - 1):
            assert roc.at_far(k / n).n_false_accepts == k
        assert roc.at_far(0.9999 * 2 / n).n_false_accepts == 1


def test_where_nothing_may_be_accepted_the_threshold_is_zero():
    d, is_same = np.array([0.0, 0.0, 0.5, 0.7]), np.array([True, False, True, False])
    point = exact_roc(d, is_same).at_far(0.5)
    assert (point.far, point.val, point.threshold) == (0.5, 1.0, 0.6)
    d, is_same = np.array([0.3, 0.3, 0.3, 0.7]), np.array([False, False, True, True])
    point = exact_roc(d, is_same).at_far(0.5)
    assert (point.far, point.val, point.threshold, point.n_false_accepts) == (0.0, 0.0, 0.0, 0)
    point = exact_roc(d - 1.0, is_same).at_far(0.5)  # similarities, negated
    assert (point.val, point.threshold) == (0.0, -0.7)


def test_where_all_may_be_accepted_so_is_the_farthest():
    d, is_same = tied_pairs()
    point = exact_roc(d, is_same).at_far(1.0)
    assert (point.far, point.val) == (1.0, 1.0)
    assert (d < point.threshold).all()
    assert point.threshold == pytest.approx(d.max())


def test_threshold_between_neighbouring_floats_still_parts_them():
    a = 1.0
    for _ in range(3):
        b = np.nextafter(a, 2.0)
        t = threshold_above(np.array([-np.inf, a, b]), 1)
        assert a < t <= b
        a = b
    assert threshold_above(np.array([-np.inf, 2.0, 3.0]), 1) == 2.5


def test_of_bins_the_same_rule_holds():
    roc = ROC(
        fpr=np.array([0.0, 0.0, 0.25, 1.0]),
        tpr=np.array([0.0, 0.5, 0.75, 1.0]),
        thresholds=np.array([-np.inf, 0.5, 1.0, 4.0]),
        n_same=8,
        n_different=4,
        threshold_error=0.25,
    )
    point = roc.at_far(0.25)
    assert (point.far, point.val, point.threshold) == (0.25, 0.75, 2.5)
    assert (point.n_false_accepts, point.n_true_accepts) == (1, 6)


def test_far_that_the_pairs_cannot_give_is_refused_by_name():
    roc = exact_roc(np.arange(6.0), np.arange(6) < 3)
    with pytest.raises(
        UserError, match=r"^VAL at FAR=0.1 needs at least 10 pairs of different identities; got 3$"
    ):
        roc.at_far(0.1)
    assert roc.at_far(1 / 3).far == 1 / 3


@pytest.mark.parametrize("far", [0.0, -0.1, 1.1, float("nan")])
def test_far_out_of_range_is_refused(far):
    with pytest.raises(UserError, match=f"FAR must be above 0 and at most 1; got {far}"):
        exact_roc([0.0, 1.0], [True, False]).at_far(far)


def test_reachable_fars():
    assert reachable_fars(10**6) == (FARS, ())
    reachable, refused = reachable_fars(3000, (1e-5, 1e-2, 1e-2, 1e-3, 1e-5))
    assert reachable == (1e-2, 1e-3)
    assert refused == ("VAL at FAR=1e-05 needs at least 100000 pairs of different identities; got 3000",)
    _, refused = reachable_fars(0, (1.0,), rate="identification", counted="searches")
    assert refused == ("identification at FAR=1 needs at least 1 searches; got 0",)
    for n in range(1, 2000):
        assert reachable_fars(n, (1 / n,)) == ((1 / n,), ())
        assert f"at least {n + 1} pairs" in reachable_fars(n, (1 / (n + 1),))[1][0]


@pytest.mark.parametrize(
    ("distances", "is_same", "message"),
    [
        (
            [0.1, np.nan, np.inf],
            [1, 0, 1],
            r"distances must be finite; 2 of 3 are NaN or infinite, first that of pair 1$",
        ),
        (
            [0.1, 0.2],
            [True, True],
            r"needs pairs of one identity and pairs of two; got 2 same and 0 different",
        ),
        ([], [], r"got 0 same and 0 different"),
        ([0.1], [True], r"got 1 same and 0 different"),
        ([0.1, 0.2], [True], r"one entry a pair; got shapes \(2,\) and \(1,\)"),
        ([[0.1, 0.2]], [[True, False]], r"one entry a pair; got shapes \(1, 2\)"),
        ([0.1, 0.2], [0, 2], r"is_same must hold only True and False"),
        (["a", "b"], [0, 1], r"distances must be an array of numbers"),
    ],
)
def test_mistakes_are_told_in_one_line(distances, is_same, message):
    with pytest.raises(UserError, match=message) as caught:
        exact_roc(distances, is_same)
    assert "\n" not in str(caught.value)


def test_imports_no_tensorflow():
    code = "import sys, facenet_fast.evaluation.exact; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
