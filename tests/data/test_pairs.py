from __future__ import annotations

import itertools
import os

import numpy as np
import pytest
from sklearn.model_selection import KFold

from facenet_fast.data.identities import IdentityDataset, scan_identities
from facenet_fast.data.pairs import Pairs, draw_pairs, read_pairs, write_pairs
from facenet_fast.errors import UserError


@pytest.fixture
def faces(tmp_path):
    """Ann has 4 images, Bob 3, Carl Gustaf 2; empty files, as reading pairs opens none."""
    for name, n_images in (("Ann", 4), ("Bob", 3), ("Carl Gustaf", 2)):
        (tmp_path / "faces" / name).mkdir(parents=True)
        for n in range(1, n_images + 1):
            (tmp_path / "faces" / name / f"{name}_{n:04d}.jpg").touch()
    return tmp_path / "faces"


@pytest.fixture
def read(tmp_path, faces):
    def read(text, **options):
        path = tmp_path / "pairs.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_pairs(str(path), str(faces), **{"n_folds": 2, **options})

    return read


def short(pairs):
    names = [
        [os.path.basename(path).rsplit(".", 1)[0] for path in side] for side in (pairs.left, pairs.right)
    ]
    return [(*pair, bool(same)) for *pair, same in zip(*names, pairs.is_same, strict=True)]


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


# --- Pairs


@pytest.mark.parametrize(
    "change", [{"left": ("a",)}, {"is_same": [True]}, {"fold": [0]}, {"fold": [0, 2]}, {"fold": [[0, 1]]}]
)
def test_pairs_must_fit_together(change):
    good = {"left": ("a", "b"), "right": ("c", "d"), "is_same": [True, False], "fold": [0, 1], "n_folds": 2}
    assert len(Pairs(**good)) == 2
    with pytest.raises(ValueError, match="fold"):
        Pairs(**{**good, **change})


def test_images_lists_each_image_once():
    pairs = Pairs(("a", "b", "a"), ("b", "c", "c"), np.ones(3, bool), np.zeros(3, int), 2)
    paths, left, right = pairs.images()
    assert sorted(paths) == ["a", "b", "c"]
    assert tuple(paths[n] for n in left) == pairs.left
    assert tuple(paths[n] for n in right) == pairs.right


# --- read_pairs


def test_reads_the_format_of_lfw(read, faces):
    pairs = read("10\t300\nAnn\t1\t4\nAnn\t2\tBob\t3\n")
    assert short(pairs) == [("Ann_0001", "Ann_0004", True), ("Ann_0002", "Bob_0003", False)]
    assert pairs.left[0] == str(faces / "Ann" / "Ann_0001.jpg")
    assert pairs.fold.tolist() == [0, 1]
    assert (pairs.n_folds, pairs.skipped) == (2, ())


@pytest.mark.parametrize("header", ["", "10 300\n", "2200\n", "9\t300\r\n", "\n", "\ufeff10 300\n"])
def test_the_first_line_is_not_needed(read, header):
    assert len(read(header + "Ann 1 2\nAnn 1 Bob 2\n")) == 2


def test_blanks_tabs_blank_lines_and_line_ends_do_not_matter(read):
    expected = [("Ann_0001", "Ann_0002", True), ("Ann_0003", "Bob_0002", False)]
    for text in (
        "Ann 1 2\nAnn 3 Bob 2",
        "  Ann   1  2 \r\n\r\nAnn\t3\tBob\t2\r\n\n\n",
        "Ann\t1 2\nAnn 0003 Bob 02",
    ):
        assert short(read("2 1\n" + text)) == expected


def test_names_may_hold_blanks_where_tabs_separate(read):
    pairs = read("Carl Gustaf\t1\t2\nCarl Gustaf\t1\tAnn\t1\n")
    assert short(pairs) == [
        ("Carl Gustaf_0001", "Carl Gustaf_0002", True),
        ("Carl Gustaf_0001", "Ann_0001", False),
    ]


def test_names_need_not_be_utf8(tmp_path, faces, read):
    name = b"J\xf6rg"
    folder = os.path.join(os.fsencode(faces), name)
    try:
        os.mkdir(folder)
    except OSError:
        pytest.skip("this file system wants names in UTF-8")
    for n in (b"1", b"2"):
        open(os.path.join(folder, name + b"_000" + n + b".png"), "wb").close()
    pairs = read(name + b" 1 2\nAnn 1 " + name + b" 1\n")
    assert os.path.isfile(pairs.left[0])
    write_pairs(pairs, str(tmp_path / "again.txt"), str(faces))
    assert read_pairs(str(tmp_path / "again.txt"), str(faces), n_folds=2).left == pairs.left


def test_extensions_are_tried_in_order_and_any_case(faces, read):
    (faces / "Ann" / "Ann_0001.png").touch()
    (faces / "Bob" / "Bob_0004.PNG").touch()
    (faces / "Bob" / "Bob_0005.pgm").touch()
    pairs = read("Ann 1 2\nBob 4 5\n")
    assert [os.path.basename(path) for path in pairs.left] == ["Ann_0001.jpg", "Bob_0004.PNG"]
    assert pairs.right[1].endswith("Bob_0005.pgm")


def test_an_image_may_be_named_by_its_file(faces, read):
    (faces / "Ann" / "at the beach.png").touch()
    (faces / "Bob" / "7.pgm").touch()
    pairs = read("Ann\tat the beach.png\t2\nAnn\t1\tBob\t7.pgm\n")
    assert short(pairs) == [("at the beach", "Ann_0002", True), ("Ann_0001", "7", False)]


@pytest.mark.parametrize("n_pairs", [10, 11, 19, 20, 23])
@pytest.mark.parametrize("n_folds", [2, 3, 10])
def test_folds_are_those_of_kfold_without_shuffling(read, n_pairs, n_folds):
    pairs = read("Ann 1 2\n" * n_pairs, n_folds=n_folds)
    for fold, (_, test) in enumerate(KFold(n_folds).split(np.zeros(n_pairs))):
        np.testing.assert_array_equal(np.flatnonzero(pairs.fold == fold), test)


def test_folds_of_one_kind_are_legal(read):
    pairs = read("Ann 1 2\nAnn 2 3\nAnn 1 Bob 1\nAnn 2 Bob 2\n")
    assert pairs.is_same.tolist() == [True, True, False, False]
    assert pairs.fold.tolist() == [0, 0, 1, 1]


def test_missing_images_are_skipped_and_listed(read, caplog):
    text = "2 3\nAnn 1 2\nAnn 1 9\nDora 1 2\nAnn 1 Bob 3\nAnn 8 Bob 9\nBob 1 2\nBob nose.png 2\n"
    pairs = read(text)
    assert [pair[0] for pair in short(pairs)] == ["Ann_0001", "Ann_0001", "Bob_0001"]
    assert pairs.fold.tolist() == [0, 0, 1]
    assert len(pairs.skipped) == 4
    assert pairs.skipped[0].startswith("line 3:")
    assert "Ann/9" in pairs.skipped[0]
    assert all(name in pairs.skipped[2] for name in ("Ann/8", "Bob/9"))
    (record,) = caplog.records
    assert "skipped 4 of 7 pairs" in record.getMessage()
    assert "Dora/1" in record.getMessage()


def test_missing_images_are_an_error_if_strict(read, caplog):
    with pytest.raises(UserError, match=r"1 pairs lack one: line 2: no image Ann/9") as error:
        read("Ann 1 2\nAnn 1 9\nBob 1 2\n", strict=True)
    one_line(error)
    assert not caplog.records
    assert len(read("Ann 1 2\nBob 1 2\n", strict=True)) == 2


@pytest.mark.parametrize(
    "line",
    [
        "Ann",
        "Ann 1",
        "Ann 1 2 Bob 3",
        "Ann\t1\t2\tBob\t3",
        "Ann\t\t2",
        "10 300",
        "Ann 1 -2",
        "Ann -1 Bob 2",
        "Ann 1 Ann 2",
        "Ann 1 \0",
        "x" * 500,
    ],
)
def test_odd_lines_are_named_by_their_number(read, line):
    with pytest.raises(UserError, match=r"pairs\.txt', line 3: ") as error:
        read(f"10 300\nAnn 1 2\n{line}\nBob 1 2\n")
    assert len(one_line(error)) < 400


@pytest.mark.parametrize("line", ["Ann", "Ann 3", "1 2 3 4 5", "-1"])
def test_an_odd_first_line_is_named(read, line):
    with pytest.raises(UserError, match=r"line 1: a line must be 'NAME I J'"):
        read(f"{line}\nAnn 1 2\nBob 1 2\n")


def test_a_picture_is_no_pairs_file(read):
    with pytest.raises(UserError, match="line 1") as error:
        read(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\1\0\0\0\1\0")
    one_line(error)


@pytest.mark.parametrize("text", ["", "10 300\n", "Ann 1 2\n", "Zoe 1 2\n" * 9])
def test_too_few_pairs_are_refused(read, text):
    with pytest.raises(
        UserError, match=r"at least as many pairs .* as there are folds, 2; got [01]"
    ) as error:
        read(text)
    one_line(error)


def test_one_fold_is_refused(read):
    with pytest.raises(UserError, match="at least 2; got 1"):
        read("Ann 1 2\nBob 1 2\n", n_folds=1)


def test_a_missing_file_or_folder_is_refused(tmp_path, faces):
    with pytest.raises(UserError, match=r"pairs file must be readable.*gone\.txt.*No such file") as error:
        read_pairs(str(tmp_path / "gone.txt"), str(faces))
    one_line(error)
    with pytest.raises(UserError, match="pairs file must be readable"):
        read_pairs(str(tmp_path), str(faces))
    (tmp_path / "pairs.txt").write_text("Ann 1 2\n" * 10)
    with pytest.raises(UserError, match=r"nowhere.*nothing"):
        read_pairs(str(tmp_path / "pairs.txt"), str(tmp_path / "nowhere"))


def test_reads_and_writes_lfw_itself(lfw_dir, tmp_path, caplog):
    pairs = read_pairs(str(lfw_dir / "pairs.txt"), str(lfw_dir / "images"), n_folds=9)
    assert len(pairs) == 5400
    assert not pairs.skipped
    for fold in range(9):
        assert pairs.is_same[pairs.fold == fold].tolist() == [True] * 300 + [False] * 300
    assert not caplog.records
    write_pairs(pairs, str(tmp_path / "pairs.txt"), str(lfw_dir / "images"))
    assert (tmp_path / "pairs.txt").read_text() == (lfw_dir / "pairs.txt").read_text()


# --- draw_pairs


def dataset_of(*counts):
    paths = tuple(f"p{identity}/{n}.png" for identity, count in enumerate(counts) for n in range(count))
    return IdentityDataset(paths, np.cumsum([0, *counts]), tuple(f"p{n}" for n in range(len(counts))))


def identity(path):
    return path.split("/")[0]


def check_drawn(pairs, dataset):
    """Each pair once, truly labelled; each fold has both kinds and differs by one pair at most."""
    unordered = {frozenset(pair) for pair in zip(pairs.left, pairs.right, strict=True)}
    assert len(unordered) == len(pairs)
    assert all(len(pair) == 2 for pair in unordered)
    assert set(pairs.left + pairs.right) <= set(dataset.paths)
    truth = [identity(a) == identity(b) for a, b in zip(pairs.left, pairs.right, strict=True)]
    assert pairs.is_same.tolist() == truth
    for kind in (True, False):
        n_each = np.bincount(pairs.fold[pairs.is_same == kind], minlength=pairs.n_folds)
        assert n_each.min() > 0
        assert np.ptp(n_each) <= 1
    assert np.ptp(np.bincount(pairs.fold)) <= 1
    assert np.all(np.diff(pairs.fold) >= 0)


@pytest.mark.parametrize("counts", [(4, 3, 5), (1, 6, 1, 1), (10, 10), (5, 0, 5)])
def test_all_pairs_are_all_pairs(counts):
    dataset = dataset_of(*counts)
    pairs = draw_pairs(dataset, seed=0, n_folds=3, max_pairs=10_000)
    check_drawn(pairs, dataset)
    every = {frozenset(pair) for pair in itertools.combinations(dataset.paths, 2)}
    assert {frozenset(pair) for pair in zip(pairs.left, pairs.right, strict=True)} == every


@pytest.mark.parametrize(
    ("counts", "max_pairs", "n_same"),
    [((6,) * 6, 40, 20), ((2,) * 30, 100, 30), ((30, 1), 100, 70), ((6,) * 6, 41, 20)],
)
def test_a_draw_takes_half_of_each_kind_as_far_as_there_are(counts, max_pairs, n_same):
    dataset = dataset_of(*counts)
    pairs = draw_pairs(dataset, seed=1, n_folds=5, max_pairs=max_pairs)
    check_drawn(pairs, dataset)
    assert max_pairs - 1 <= len(pairs) <= max_pairs
    assert pairs.is_same.sum() == n_same


def test_the_seed_decides_the_draw():
    dataset = dataset_of(*[5] * 8)
    draws = [draw_pairs(dataset, seed, 4, 30) for seed in (0, 0, 1)]
    assert draws[0].left == draws[1].left
    assert draws[0].right == draws[1].right
    assert draws[0].left != draws[2].left


def test_a_draw_is_uniform():
    dataset = dataset_of(3, 2, 1, 4)
    n_different = 10 * 9 // 2 - 3 - 1 - 6
    seen: dict[tuple[str, str], int] = {}
    for seed in range(1500):
        pairs = draw_pairs(dataset, seed, 2, 12)
        for pair in zip(pairs.left, pairs.right, strict=True):
            seen[pair] = seen.get(pair, 0) + 1
    different = [n for pair, n in seen.items() if identity(pair[0]) != identity(pair[1])]
    same = [n for pair, n in seen.items() if identity(pair[0]) == identity(pair[1])]
    assert len(same) == 10
    assert len(different) == n_different
    for counts, share in ((same, 6 / 10), (different, 6 / n_different)):
        deviation = np.sqrt(1500 * share * (1 - share))
        assert np.abs(np.array(counts) - 1500 * share).max() < 4.5 * deviation


def test_a_draw_from_a_million_images_lists_no_pairs():
    offsets = np.arange(0, 1_000_001, 10)
    dataset = IdentityDataset(("p",) * 1_000_000, offsets, ("n",) * 100_000)
    pairs = draw_pairs(dataset, seed=0, n_folds=10, max_pairs=6000)
    assert pairs.is_same.sum() == 3000


def test_fewer_pairs_than_folds_make_fewer_folds(caplog):
    pairs = draw_pairs(dataset_of(3, 2), seed=0, n_folds=10, max_pairs=1000)
    assert pairs.n_folds == 4
    check_drawn(pairs, dataset_of(3, 2))
    assert "4 folds instead of 10: only 4 pairs of one identity" in caplog.text


@pytest.mark.parametrize("counts", [(), (5,), (1, 1, 1, 1), (2, 1, 1)])
def test_held_out_images_without_both_kinds_are_refused(counts):
    with pytest.raises(
        UserError, match="the images must make at least 2 pairs of one identity and 2 of different ones"
    ) as error:
        draw_pairs(dataset_of(*counts), seed=0, n_folds=10, max_pairs=100)
    one_line(error)


@pytest.mark.parametrize(("n_folds", "max_pairs"), [(1, 100), (10, 19), (2, 0)])
def test_folds_and_pairs_must_be_possible(n_folds, max_pairs):
    with pytest.raises(UserError, match=f"got {n_folds} folds and at most {max_pairs} pairs"):
        draw_pairs(dataset_of(5, 5), 0, n_folds, max_pairs)


# --- write_pairs


def equal(a, b):
    return (
        a.left == b.left
        and a.right == b.right
        and np.array_equal(a.is_same, b.is_same)
        and np.array_equal(a.fold, b.fold)
    )


@pytest.mark.parametrize("max_pairs", [61, 100_000])
def test_drawn_pairs_survive_writing_and_reading(faces, tmp_path, max_pairs):
    for name in ("x y.png", "0003.png", "Ann_0003.gif", "Ann_12.jpg", "Ann_7.tar.png"):
        (faces / "Ann" / name).touch()
    dataset = scan_identities(str(faces))
    pairs = draw_pairs(dataset, seed=0, n_folds=4, max_pairs=max_pairs)
    write_pairs(pairs, str(tmp_path / "p.txt"), str(faces))
    assert equal(read_pairs(str(tmp_path / "p.txt"), str(faces), n_folds=4, strict=True), pairs)


def test_orl_pairs_survive_and_the_word_orl_is_a_folder(orl_dir, tmp_path):
    pairs = draw_pairs(scan_identities("orl").subset(range(30, 40)), seed=0, n_folds=10, max_pairs=10_000)
    assert (len(pairs), pairs.is_same.sum()) == (4950, 450)
    write_pairs(pairs, str(tmp_path / "p.txt"), "orl")
    assert equal(read_pairs(str(tmp_path / "p.txt"), "orl"), pairs)
    assert equal(read_pairs(str(tmp_path / "p.txt"), str(orl_dir)), pairs)


def test_several_folders_survive(faces, tmp_path):
    (tmp_path / "more" / "Ann").mkdir(parents=True)
    (tmp_path / "more" / "Ann" / "more.png").touch()
    both = f"{faces}{os.pathsep}{tmp_path / 'more'}"
    pairs = draw_pairs(scan_identities(both), seed=0, n_folds=3, max_pairs=10_000)
    write_pairs(pairs, str(tmp_path / "p.txt"), both)
    assert equal(read_pairs(str(tmp_path / "p.txt"), both, n_folds=3), pairs)


def test_what_could_not_be_read_back_is_not_written(faces, tmp_path):
    def write(left, right, is_same=True):
        pairs = Pairs((left,) * 2, (right,) * 2, np.full(2, is_same), np.arange(2), 2)
        write_pairs(pairs, str(tmp_path / "p.txt"), str(faces))

    good = str(faces / "Ann" / "Ann_0001.jpg")
    odd = [str(faces / "Ann" / name) for name in ("a\tb.png", "a\nb.png", " a.png")]
    for path in odd:
        open(path, "w").close()
    for bad in (*odd, str(tmp_path / "elsewhere" / "Ann" / "Ann_0001.jpg"), str(faces / "Ann" / "gone.png")):
        with pytest.raises(UserError, match="IMAGES_DIR/IDENTITY/FILE"):
            write(good, bad)
    with pytest.raises(UserError, match="say otherwise"):
        write(good, str(faces / "Bob" / "Bob_0001.jpg"), is_same=True)
    assert not (tmp_path / "p.txt").exists()
