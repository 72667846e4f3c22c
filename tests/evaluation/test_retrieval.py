from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from facenet_fast.errors import UserError
from facenet_fast.evaluation import retrieval as module
from facenet_fast.evaluation.retrieval import identification, retrieval
from tests.evaluation.literal import literal_distance


def make_faces(sizes, size=4, seed=0, noise=0.8, whole=False):
    """Embeddings of identities with so many images each, in mixed order; whole numbers make ties."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    rows = rng.normal(size=(len(sizes), size))[labels] + noise * rng.normal(size=(len(labels), size))
    return (np.rint(rows) + 0.5 if whole else rows), labels


def ordered(row, others, rows, metric):
    """Return which of the others are nearest, equally near ones in their order."""
    return sorted(others, key=lambda other: (order_key(rows[row], rows[other], metric), other))


def order_key(a, b, metric):
    if metric == 0:
        return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
    dot, squares = sum(a * b), math.fsum(a * a) * math.fsum(b * b)
    return round(1 - dot / math.sqrt(squares), 12)  # so that equal angles compare equal


def literal_retrieval(rows, labels, ks, metric):
    firsts, precisions = [], []
    for i in range(len(rows)):
        others = [j for j in range(len(rows)) if j != i]
        r = sum(labels[j] == labels[i] for j in others)
        if r == 0:
            continue
        nearest = ordered(i, others, rows, metric)
        right = [labels[j] == labels[i] for j in nearest]
        firsts.append(right.index(True) + 1)
        precisions.append(sum(sum(right[: at + 1]) / (at + 1) for at in range(r) if right[at]) / r)
    return (
        len(firsts),
        {k: sum(first <= k for first in firsts) / len(firsts) for k in ks},
        sum(precisions) / len(precisions),
    )


@pytest.mark.parametrize("metric", [0, 1])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("sizes", [[1, 2, 3, 2, 1], [2, 2], [5, 1], [17, 1, 2, 4, 9], [3]])
def test_retrieval_equals_brute_force(metric, whole, sizes):
    rows, labels = make_faces(sizes, seed=len(sizes), whole=whole and metric == 0)
    found = retrieval(rows, labels, ks=(1, 2, 50), metric=metric)
    n_queries, recall_at, map_at_r = literal_retrieval(rows, labels, (1, 2, 50), metric)
    assert found.n_queries == n_queries
    assert found.recall_at == pytest.approx(recall_at)
    assert found.precision_at_1 == found.recall_at[1]
    assert found.map_at_r == pytest.approx(map_at_r)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_retrieval_of_identities_of_very_different_size(dtype, monkeypatch):
    sizes = [150, 60, 20, 9] + 40 * [2] + 20 * [1]
    rows, labels = make_faces(sizes, size=6, seed=1)
    rows, names = rows.astype(dtype), np.array([f"name {label}" for label in labels])
    wide = rows.astype(np.float64)
    squared = np.square(wide[:, None] - wide[None]).sum(axis=-1)
    np.fill_diagonal(squared, np.inf)
    right = labels[np.argsort(squared, axis=1, kind="stable")[:, :-1]] == labels[:, None]
    recalls, precisions = {1: [], 10: []}, []
    for row in right:
        if row.any():
            r = np.count_nonzero(row)
            precisions.append(np.sum((np.cumsum(row) / np.arange(1, len(row) + 1) * row)[:r]) / r)
            for k, recall in recalls.items():
                recall.append(row[:k].any())
    for at_a_time in (2**24, 500):
        monkeypatch.setattr(module, "_NEIGHBORS_AT_A_TIME", at_a_time)
        found = retrieval(rows, names, ks=(1, 10), threads=2)
        assert found.n_queries == len(precisions) == 319
        assert found.map_at_r == pytest.approx(np.mean(precisions))
        assert found.recall_at == pytest.approx({k: np.mean(recall) for k, recall in recalls.items()})


def test_an_image_never_finds_itself_even_among_copies():
    # Five copies of one image, of two identities: what is found is decided by the order of rows alone.
    rows = np.zeros((5, 2))
    labels = np.array([0, 0, 1, 1, 1])
    found = retrieval(rows, labels, ks=(1, 2))
    assert (found.n_queries, found.recall_at, found.map_at_r) == literal_retrieval(rows, labels, (1, 2), 0)
    # Rows 0 and 1 find each other; all of the rest find row 0, which is not theirs.
    assert found.recall_at[1] == 2 / 5


def test_perfect_embeddings():
    labels = np.repeat(np.arange(6), 3)
    found = retrieval(np.eye(6)[labels], labels, ks=())
    assert (found.n_queries, found.recall_at, found.precision_at_1, found.map_at_r) == (18, {}, 1.0, 1.0)
    assert retrieval(np.eye(6)[labels], labels, metric=1).map_at_r == 1.0


def test_whole_numbers_and_lists_are_embeddings_too():
    assert retrieval([[0], [1], [5]], ["a", "a", "b"]).recall_at[1] == 1.0


@pytest.mark.parametrize("metric", [0, 1])
@pytest.mark.parametrize(
    ("sizes", "n_gallery", "n_unmated"),
    [
        ([1] * 10 + [4] * 10, 10, 10),  # enough people with one image: nobody is left out
        ([4] * 20, 16, 16),  # a fifth of the people are left out
        ([1] * 2 + [3] * 28, 24, 14),  # four besides the two
        ([2, 2], 2, 0),
        ([2, 3, 4], 3, 0),
    ],
)
def test_identification_equals_brute_force(metric, sizes, n_gallery, n_unmated):
    rows, labels = make_faces(sizes, size=5, seed=3, noise=0.5)
    fars = (0.5, 0.25, 0.1)
    found = identification(rows, labels, ranks=(1, 2, 5), fars=fars, metric=metric, seed=4)
    codes, n_images = np.unique(labels, return_inverse=True, return_counts=True)[1:]
    gallery, mated, unmated = module._gallery_and_probes(codes, n_images, seed=4)
    assert (found.n_gallery, found.n_mated, found.n_unmated) == (n_gallery, len(mated), n_unmated)

    nearest = {i: ordered(i, gallery.tolist(), rows, metric) for i in [*mated.tolist(), *unmated.tolist()]}
    for k, share in found.rank.items():
        hits = [any(labels[g] == labels[i] for g in nearest[i][:k]) for i in mated]
        assert share == pytest.approx(np.mean(hits))
    assert list(found.rank) == [k for k in (1, 2, 5) if k <= n_gallery]

    assert [point.far_target for point in found.open_set] == [far for far in fars if n_unmated * far >= 1]
    d = {i: literal_distance(rows[i], rows[nearest[i][0]], metric) for i in nearest}
    for point in found.open_set:
        allowed = [t for t in (0.0, *d.values()) if np.mean([d[i] <= t for i in unmated]) <= point.far_target]
        accepted = [i for i in nearest if d[i] <= max(allowed)]
        assert point.far == np.mean([i in accepted for i in unmated])
        assert point.rate == np.mean([i in accepted and labels[nearest[i][0]] == labels[i] for i in mated])
        assert [i for i in nearest if d[i] < point.threshold] == accepted


def test_gallery_and_probes_are_every_image_once():
    rng = np.random.default_rng(0)
    for sizes in ([1] * 3 + [5] * 9, [2, 2], [3] * 11, [1] * 30 + [2] * 2):
        n_images = np.array(sizes)
        codes = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
        galleries, enrolled = set(), set()
        for seed in range(20):
            gallery, mated, unmated = module._gallery_and_probes(codes, n_images, seed)
            assert sorted([*gallery, *mated, *unmated]) == list(range(len(codes)))
            in_gallery = codes[gallery].tolist()
            assert len(set(in_gallery)) == len(in_gallery) >= 2
            assert (n_images[in_gallery] > 1).all()
            assert set(codes[mated].tolist()) == set(in_gallery)
            assert not set(codes[unmated].tolist()) & set(in_gallery)
            assert len(sizes) - len(in_gallery) >= len(sizes) // 5
            galleries.add(tuple(gallery.tolist()))
            enrolled.add(tuple(sorted(in_gallery)))
        assert len(galleries) > 1
        assert (len(enrolled) > 1) == (len(sizes) // 5 > sizes.count(1))  # who is left out is drawn
        again = module._gallery_and_probes(codes, n_images, 19)
        assert [one.tolist() for one in again] == [gallery.tolist(), mated.tolist(), unmated.tolist()]


def test_what_cannot_be_given_is_refused_by_name():
    rows, labels = make_faces([2, 2, 1, 1, 1])
    found = identification(rows, labels, ranks=(1, 2, 3, 10, 3), fars=(1.0, 0.5, 1e-3, 1e-3))
    assert list(found.rank) == [1, 2]
    assert found.rank[2] == 1.0
    assert [point.far_target for point in found.open_set] == [1.0, 0.5]
    assert found.open_set[0].far == 1.0
    assert found.refused == (
        "rank 3 needs a gallery of at least 3 identities; got 2",
        "rank 10 needs a gallery of at least 10 identities; got 2",
        "identification at FAR=0.001 needs at least 1000 images of people outside the gallery; got 3",
    )


def test_all_images_alike():
    rows = np.ones((12, 3))
    labels = np.repeat(np.arange(6), 2)
    found = identification(rows, labels, ranks=(1, 5), fars=(0.5, 1.0))
    assert found.n_gallery == 5
    assert found.rank == {1: 1 / 5, 5: 1.0}
    # All or nobody is accepted; accepted as somebody else is not identified.
    nobody, everybody = found.open_set
    assert (nobody.far, nobody.rate, nobody.threshold) == (0.0, 0.0, 0.0)
    assert (everybody.far, everybody.rate) == (1.0, 1 / 5)


def with_value(rows, value):
    rows = rows.copy()
    rows[[2, 4], 1] = value
    return rows


ROWS, LABELS = make_faces([2, 3, 1])


@pytest.mark.parametrize("measure", [retrieval, identification])
@pytest.mark.parametrize(
    ("rows", "labels", "options", "message"),
    [
        (with_value(ROWS, np.nan), LABELS, {}, r"must be finite; 2 of 6 rows are not, first row 2$"),
        (with_value(ROWS, np.inf), LABELS, {}, r"must be finite; 2 of 6 rows are not, first row 2$"),
        (
            ROWS * (LABELS != 2)[:, None],
            LABELS,
            {"metric": 1},
            r"not all zeros .*; 1 of 6 rows are not, first",
        ),
        (ROWS[0], LABELS, {}, r"embeddings must have the shape \(n_images, D\); got \(4,\)"),
        (ROWS[:, :0], LABELS, {}, r"embeddings must have the shape \(n_images, D\); got \(6, 0\)"),
        ([["a"]], ["b"], {}, r"embeddings must be an array of numbers"),
        (ROWS, LABELS[1:], {}, r"labels must have one entry an image, \(6,\); got shape \(5,\)"),
        (ROWS, np.array([1, "a"] * 3, dtype=object), {}, r"labels must be of one sortable type"),
        (ROWS, LABELS, {"metric": 2}, r"distance metric must be one of .*; got 2"),
        (ROWS, np.arange(6), {}, r"needs (an identity|2 identities) with 2 images; "),
        (ROWS[:0], LABELS[:0], {}, r"needs (an identity|2 identities) with 2 images; "),
        (ROWS[:1], LABELS[:1], {}, r"needs (an identity|2 identities) with 2 images; "),
    ],
)
def test_mistakes_are_told_in_one_line(measure, rows, labels, options, message):
    with pytest.raises(UserError, match=message) as caught:
        measure(rows, labels, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: retrieval(ROWS, LABELS, ks=(1, 0)), r"ks must be whole numbers, 1 or more; got 0"),
        (lambda: retrieval(ROWS, LABELS, ks=(1.5,)), r"ks must be whole numbers, 1 or more; got 1.5"),
        (
            lambda: identification(ROWS, LABELS, ranks=(-1,)),
            r"ranks must be whole numbers, 1 or more; got -1",
        ),
        (lambda: identification(ROWS, LABELS, fars=(2.0,)), r"FAR must be above 0 and at most 1; got 2.0"),
        (lambda: identification(ROWS, LABELS, seed=-1), r"seed must not be negative; got -1"),
        (
            lambda: identification(ROWS, [0, 0, 1, 2, 3, 4]),
            r"^identification needs 2 identities with 2 images; got 1 among 5$",
        ),
        (
            lambda: retrieval(ROWS, np.arange(6)),
            r"^retrieval needs an identity with 2 images; each of the 6 has one$",
        ),
    ],
)
def test_mistakes_in_options(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_retrieval_imports_no_tensorflow():
    code = "import sys, facenet_fast.evaluation.retrieval; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
