from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from facenet_fast.data import store as store_module
from facenet_fast.data.images import ImageStore
from facenet_fast.errors import UserError


@pytest.fixture
def decoded(monkeypatch):
    """The paths that the store opens, as they are opened."""
    opened = []
    decode_square = store_module.decode_square

    def watch(path, size):
        opened.append(path)
        return decode_square(path, size)

    monkeypatch.setattr(store_module, "decode_square", watch)
    return opened


def test_reads_in_any_order_any_number_of_times(make_images):
    paths, images = make_images(40)
    store = ImageStore(paths, 8)
    for indices in (
        [3],
        [5, 3, 5, 39, 0, 3],
        range(40),
        [],
        np.array([7, 7], dtype=np.int32),
        range(39, -1, -1),
    ):
        read, ok = store.read(indices)
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, images[list(indices)])
        assert ok.tolist() == [True] * len(indices)


def test_images_are_squares_of_the_stores_size(tmp_path, encoded):
    (tmp_path / "x.png").write_bytes(encoded("png"))
    images, _ = ImageStore([str(tmp_path / "x.png")], 16).read([0])
    assert images.shape == (1, 16, 16, 3)


def test_each_file_is_decoded_once_while_there_is_room(make_images, decoded):
    paths, _ = make_images(30)
    store = ImageStore(paths, 8)
    for _ in range(3):
        store.read([1, 2, 1])
        store.read(range(30))
    assert sorted(decoded) == sorted(paths)
    assert store.n_cached == 30


@pytest.mark.parametrize("n_slots", [0, 1, 7])
def test_the_budget_holds_and_what_was_first_stays(make_images, decoded, n_slots):
    paths, images = make_images(20)
    store = ImageStore(paths, 8, cache_bytes=n_slots * 3 * 8 * 8 + 5)
    for _ in range(2):
        read, ok = store.read(range(20))
        np.testing.assert_array_equal(read, images)
        assert ok.all()
    assert store.n_cached == n_slots
    assert len(decoded) == 20 + 20 - n_slots
    assert decoded.count(paths[0]) == (2 if n_slots == 0 else 1)


def test_what_is_read_may_be_written_to(make_images):
    paths, images = make_images(3)
    store = ImageStore(paths, 8)
    for _ in range(3):
        read, _ = store.read([0, 1, 2])
        np.testing.assert_array_equal(read, images)
        read[:] = 0


def test_bad_files_are_named_once_and_never_opened_again(make_images, decoded, caplog):
    paths, images = make_images(12)
    open(paths[4], "wb").close()
    with open(paths[7], "r+b") as file:
        file.truncate(60)
    os.remove(paths[9])
    store = ImageStore(paths, 8)
    for _ in range(3):
        read, ok = store.read(range(12))
        assert np.flatnonzero(~ok).tolist() == [4, 7, 9]
        assert not read[~ok].any()
        np.testing.assert_array_equal(read[ok], images[ok])
    _, ok = store.read([9, 9, 0])
    assert ok.tolist() == [False, False, True]
    assert len(decoded) == 12
    assert sorted(store.bad) == [4, 7, 9]
    assert store.bad[4] == "empty file"
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 3
    for index, message in zip((4, 7, 9), messages, strict=True):
        assert paths[index] in message
        assert store.bad[index] in message


def test_bad_files_do_not_count_against_the_budget(make_images):
    paths, _ = make_images(6)
    for path in paths[:3]:
        open(path, "wb").close()
    store = ImageStore(paths, 8, cache_bytes=3 * 3 * 8 * 8)
    store.read(range(6))
    assert store.n_cached == 3


def test_check_decodes_all_once_and_fills_the_cache(make_images, decoded):
    paths, _ = make_images(25)
    open(paths[20], "wb").close()
    store = ImageStore(paths, 8)
    store.read([3])
    calls = []
    assert list(store.check(lambda done, total: calls.append((done, total)))) == [20]
    assert calls[-1] == (25, 25)
    assert (store.n_cached, len(decoded)) == (24, 25)
    store.check()
    store.read(range(25))
    assert len(decoded) == 25


def test_threads_may_read_at_the_same_time(make_images, caplog):
    paths, images = make_images(60)
    open(paths[11], "wb").close()
    images[11] = 0
    store = ImageStore(paths, 8, cache_bytes=40 * 3 * 8 * 8, threads=3)
    barrier = threading.Barrier(6)

    def read(seed):
        rng = np.random.default_rng(seed)
        barrier.wait()
        for _ in range(15):
            indices = rng.integers(0, 60, 30)
            got, ok = store.read(indices)
            np.testing.assert_array_equal(got, images[indices])
            np.testing.assert_array_equal(ok, indices != 11)

    with ThreadPoolExecutor(6) as executor:
        list(executor.map(read, range(6)))
    assert store.n_cached == 40
    assert len(caplog.records) == 1


@pytest.mark.parametrize("wrong", [[12], [-1], [0, 99]])
def test_indices_must_exist(make_images, wrong):
    store = ImageStore(make_images(12)[0], 8)
    with pytest.raises(IndexError, match=r"0 \.\. 11"):
        store.read(wrong)


@pytest.mark.parametrize("wrong", [[0.5], [[0]], [True], ["0"]])
def test_indices_must_be_integers(make_images, wrong):
    with pytest.raises(TypeError, match="row of integers"):
        ImageStore(make_images(2)[0], 8).read(wrong)


@pytest.mark.parametrize("options", [{"store_size": 0}, {"cache_bytes": -1}, {"threads": 0}])
def test_settings_are_checked(options):
    with pytest.raises(UserError, match=f"{next(iter(options))} must be at least"):
        ImageStore([], **{"store_size": 8, **options})


def test_an_empty_store_reads_nothing():
    images, ok = ImageStore([], 8).read([])
    assert (images.shape, ok.shape) == ((0, 8, 8, 3), (0,))
