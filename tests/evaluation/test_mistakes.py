"""Pairs judged wrongly, against loops."""

import numpy as np
import pytest

from facenet_fast.errors import UserError
from facenet_fast.evaluation.mistakes import IdentityErrors, identity_errors, worst_pairs


def random_pairs(seed, n_pairs=300, n_identities=12):
    """Pairs with few different distances, so that there are ties, some at the threshold."""
    rng = np.random.default_rng(seed)
    names = np.array([f"Person {n:02}" for n in range(n_identities)])
    left = rng.integers(0, n_identities, n_pairs)
    right = np.where(rng.random(n_pairs) < 0.4, left, rng.integers(0, n_identities, n_pairs))
    return names[left], names[right], rng.integers(0, 21, n_pairs) / 10, left == right


def literal_worst(distances, is_same, threshold, n):
    accepts, rejects = [], []
    for pair, (d, same) in enumerate(zip(distances, is_same, strict=True)):
        if same and not d < threshold:
            rejects.append((-d, pair))
        if not same and d < threshold:
            accepts.append((d, pair))
    return [pair for _, pair in sorted(accepts)][:n], [pair for _, pair in sorted(rejects)][:n]


def literal_errors(left, right, distances, is_same, threshold):
    counts = {}
    for a, b, d, same in zip(left, right, distances, is_same, strict=True):
        for name in {str(a), str(b)}:
            n = counts.setdefault(name, [0, 0, 0, 0])
            if same:
                n[0] += 1
                n[1] += not d < threshold
            else:
                n[2] += 1
                n[3] += d < threshold
    errors = [IdentityErrors(name, *map(int, n)) for name, n in counts.items()]
    return sorted(sorted(errors, key=lambda e: e.name), key=lambda e: e.n_errors, reverse=True)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("threshold", "n"), [(1.0, 24), (1.0, 999), (0.3, 5), (5.0, 24), (0.0, 24), (1.0, 0)]
)
def test_worst_pairs_equal_the_loops(seed, threshold, n):
    _, _, distances, is_same = random_pairs(seed)
    got = worst_pairs(distances, is_same, threshold, n)
    assert [one.tolist() for one in got] == list(literal_worst(distances, is_same, threshold, n))


def test_worst_pairs_are_24_by_default():
    accepts, rejects = worst_pairs(np.arange(200) / 100, np.arange(200) % 2 == 0, 1.0)
    assert (len(accepts), len(rejects)) == (24, 24)
    assert accepts[0] == 1
    assert rejects[0] == 198


def test_a_distance_equal_to_the_threshold_is_rejected():
    accepts, rejects = worst_pairs([0.5, 0.5], [True, False], 0.5)
    assert (accepts.tolist(), rejects.tolist()) == ([], [0])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("threshold", [-1.0, 0.3, 1.0, 5.0])
def test_identity_errors_equal_the_loops(seed, threshold):
    pairs = random_pairs(seed)
    assert identity_errors(*pairs, threshold) == literal_errors(*pairs, threshold)


def test_numbers_are_names_too():
    left, right, distances, is_same = random_pairs(0)
    numbers = [np.array([int(name[-2:]) for name in names]) for names in (left, right)]
    got = identity_errors(*numbers, distances, is_same, 1.0)
    wanted = identity_errors(left, right, distances, is_same, 1.0)
    assert {f"Person {int(e.name):02}": e.n_errors for e in got} == {e.name: e.n_errors for e in wanted}


@pytest.mark.parametrize("kind", [True, False])
def test_pairs_of_one_kind(kind):
    left, right, distances, is_same = random_pairs(1)
    some = is_same == kind
    pairs = left[some], right[some], distances[some], is_same[some]
    assert identity_errors(*pairs, 1.0) == literal_errors(*pairs, 1.0)
    accepts, rejects = worst_pairs(distances[some], is_same[some], 1.0)
    assert len(rejects if kind else accepts) == 24
    assert len(accepts if kind else rejects) == 0


def test_no_pairs_have_no_errors():
    accepts, rejects = worst_pairs([], [], 1.0)
    assert len(accepts) == len(rejects) == 0
    assert identity_errors([], [], [], [], 1.0) == []


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ((["a"], ["a"], [np.nan], [True], 1.0), "distances must be numbers; got NaN for pair 0"),
        ((["a"], ["a"], [0.5], [True], np.nan), "threshold must be a number"),
        ((["a"], ["a"], [0.5, 0.6], [True], 1.0), r"one length; got the shapes \(2,\) and \(1,\)"),
        ((["a", "b"], ["a"], [0.5], [True], 1.0), r"each of 1 pairs; got the shapes \(2,\) and \(1,\)"),
        ((["a"], ["b"], [0.5], [True], 1.0), "pair 0 is of 'a' and 'b' with is_same True"),
        ((["b", "a"], ["c", "a"], [0.5, 0.5], [False, False], 1.0), "pair 1 is of 'a' and 'a'"),
    ],
)
def test_what_cannot_be_is_refused(pairs, message):
    with pytest.raises(UserError, match=message):
        identity_errors(*pairs)


def test_worst_pairs_refuse_too():
    with pytest.raises(UserError, match="NaN for pair 1"):
        worst_pairs([0.1, np.nan], [True, False], 1.0)
    with pytest.raises(UserError, match="n must be 0 or more; got -1"):
        worst_pairs([0.1], [True], 1.0, n=-1)
