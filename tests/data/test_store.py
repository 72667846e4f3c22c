from __future__ import annotations

import fcntl
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facenet_fast.config import TrainConfig
from facenet_fast.data import image_cache
from facenet_fast.data import store as store_module
from facenet_fast.data.images import ImageStore
from facenet_fast.errors import UserError
from facenet_fast.training.evaluators import image_store


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


@pytest.mark.parametrize("where", ["memory", "file"])
def test_threads_may_read_at_the_same_time(make_images, caplog, tmp_path, where):
    paths, images = make_images(60)
    open(paths[11], "wb").close()
    images[11] = 0
    cache_dir = str(tmp_path) if where == "file" else None
    store = ImageStore(paths, 8, cache_bytes=40 * 3 * 8 * 8, cache_dir=cache_dir, threads=3)
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
    assert store.n_cached == (59 if where == "file" else 40)
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


# --- a cache in a file


@pytest.fixture
def kept(make_images, tmp_path):
    """Paths and pixels of 20 images, and stores of them that share a folder."""
    paths, images = make_images(20)

    def store(size=8, which=paths):
        return ImageStore(which, size, cache_dir=str(tmp_path / "cache"))

    return paths, images, store


def cache_file(tmp_path):
    (path,) = (tmp_path / "cache").iterdir()
    return path


def replace_image(path, pixels):
    """Overwrite an image so that only its time tells; its size stays (PNG without compression)."""
    Image.fromarray(pixels).save(path, compress_level=0)
    os.utime(path, ns=(1, time.time_ns()))


def test_another_run_decodes_nothing(kept, decoded, caplog):
    paths, images, store = kept
    first = store()
    for indices in ([3, 3, 7], range(20), [5]):
        np.testing.assert_array_equal(first.read(indices)[0], images[list(indices)])
    assert sorted(decoded) == sorted(paths)
    for _ in range(2):
        again = store()
        for indices in ([19, 0, 19], range(20)):
            read, ok = again.read(indices)
            np.testing.assert_array_equal(read, images[list(indices)])
            assert ok.all()
        assert again.n_cached == 20
    assert len(decoded) == 20
    assert caplog.records == []


def test_a_file_holds_what_was_read_and_no_more(kept, decoded, tmp_path):
    paths, _, store = kept
    store().read([4, 2])
    store().check()
    assert sorted(decoded) == sorted(paths)
    store().read(range(20))
    assert len(decoded) == 20
    assert cache_file(tmp_path).stat().st_size == 20 * (3 * 8 * 8 + 8)


def test_all_space_is_there_before_the_first_image(kept, tmp_path):
    store = kept[2](100)
    n_bytes = 20 * (3 * 100 * 100 + 8)
    assert cache_file(tmp_path).stat().st_blocks * 512 >= n_bytes
    assert store.n_cached == 0


def test_other_sizes_lists_and_versions_have_other_files(kept, decoded, tmp_path, monkeypatch):
    paths, images, store = kept
    store().read([0])
    store(16).read([0])
    store(which=paths[:19]).read([0])
    store(which=paths[::-1]).read([19])
    monkeypatch.setattr(image_cache.PIL, "__version__", "0")
    store().read([0])
    assert decoded == [paths[0]] * 5
    assert len(list((tmp_path / "cache").iterdir())) == 5
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    relative = store(which=[os.path.relpath(path) for path in paths])
    np.testing.assert_array_equal(relative.read([0])[0], images[:1])
    assert len(list((tmp_path / "cache").iterdir())) == 5


def test_training_keeps_its_images_in_a_file_if_asked(kept, tmp_path):
    paths, images, _ = kept
    config = TrainConfig(image_size=8, cache_dir=str(tmp_path / "cache"))
    np.testing.assert_array_equal(image_store(config, tuple(paths)).read(range(20))[0], images)
    cache_file(tmp_path)
    image_store(TrainConfig(image_size=16), tuple(paths)).read([0])
    cache_file(tmp_path)


def test_no_images_need_no_file(tmp_path):
    assert ImageStore([], 8, cache_dir=str(tmp_path / "cache")).read([])[0].shape == (0, 8, 8, 3)
    assert not (tmp_path / "cache").exists()


def test_a_changed_image_is_decoded_anew_and_no_other(kept, decoded, caplog, make_images):
    paths, images, store = kept
    for path, image in zip(paths, images, strict=True):
        replace_image(path, image)
    store().read(range(20))
    decoded.clear()
    for n in (6, 9):
        images[n] = 255 - images[n]
        size = os.path.getsize(paths[n])
        replace_image(paths[n], images[n])
        assert os.path.getsize(paths[n]) == size
    np.testing.assert_array_equal(store().read(range(20))[0], images)
    assert sorted(decoded) == sorted([paths[6], paths[9]])
    (record,) = caplog.records
    assert "have changed, or were not written whole" in record.getMessage()
    np.testing.assert_array_equal(store().read(range(20))[0], images)
    assert len(decoded) == 2


def test_an_image_that_changes_while_it_is_decoded_is_looked_at_again(kept, monkeypatch):
    _, images, store = kept
    decode_square = store_module.decode_square

    def decode_and_replace(path, size):
        pixels = decode_square(path, size)
        replace_image(path, images[1])
        return pixels

    monkeypatch.setattr(store_module, "decode_square", decode_and_replace)
    np.testing.assert_array_equal(store().read([0])[0], images[:1])
    monkeypatch.undo()
    np.testing.assert_array_equal(store().read([0])[0], images[1:2])


def damages(n, image_bytes):
    """Names of damages, and what each leaves of the file's content."""
    marks = 8 * n

    def with_bytes(content, start, new):
        return content[:start] + new + content[start + len(new) :]

    return {
        "one bit of an image": lambda c: with_bytes(c, marks + 700, bytes([c[marks + 700] ^ 1])),
        "one bit of a mark": lambda c: with_bytes(c, 17, bytes([c[17] ^ 128])),
        "half an image": lambda c: with_bytes(c, marks + 3 * image_bytes, bytes(image_bytes // 2)),
        "images lost, marks there": lambda c: c[:marks] + bytes(len(c) - marks),
        "marks lost, images there": lambda c: bytes(marks) + c[marks:],
        "images of two places exchanged": lambda c: (
            c[:marks]
            + c[marks + image_bytes : marks + 2 * image_bytes]
            + c[marks : marks + image_bytes]
            + c[marks + 2 * image_bytes :]
        ),
        "cut short": lambda c: c[: marks + 5 * image_bytes + 9],
        "cut in the marks": lambda c: c[:20],
        "emptied": lambda c: b"",
        "longer": lambda c: c + b"more",
        "nonsense": lambda c: np.random.default_rng(0).bytes(len(c)),
    }


@pytest.mark.parametrize("damage", damages(1, 1))
def test_damage_costs_a_decoding_and_nothing_else(kept, decoded, tmp_path, damage):
    _, images, store = kept
    store().read(range(20))
    path = cache_file(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(damages(20, 3 * 8 * 8)[damage](whole))
    decoded.clear()
    np.testing.assert_array_equal(store().read(range(20))[0], images)
    n_lost = len(decoded)
    assert (n_lost > 0) == (damage != "longer")
    assert (n_lost == 1) == (damage in ("one bit of an image", "one bit of a mark", "half an image"))
    np.testing.assert_array_equal(store().read(range(20))[0], images)
    assert len(decoded) == n_lost
    assert path.read_bytes()[: len(whole)] == whole


def test_damage_is_said(kept, caplog, tmp_path):
    _, _, store = kept
    store().read(range(20))
    path = cache_file(tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    again = store()
    again.read(range(10))
    again.read(range(20))
    messages = [record.getMessage() for record in caplog.records]
    assert [str(path) in message for message in messages] == [True, True]
    assert "cut short" in messages[0]
    assert "decoded anew" in messages[1]


def test_space_is_given_back_to_pages_that_a_copy_left_out(kept, tmp_path):
    _, images, store = kept
    store().read(range(20))
    path = cache_file(tmp_path)
    n_bytes = path.stat().st_size
    os.truncate(path, 0)
    os.truncate(path, n_bytes)
    again = store()
    assert path.stat().st_blocks * 512 >= n_bytes
    np.testing.assert_array_equal(again.read(range(20))[0], images)


def test_bad_files_are_not_kept_and_are_named_by_every_run(kept, decoded, caplog):
    paths, images, store = kept
    store().read([3])
    open(paths[3], "wb").close()
    os.remove(paths[4])
    images[3:5] = 0
    for n_runs in (1, 2):
        one = store()
        for _ in range(2):
            read, ok = one.read(range(20))
            np.testing.assert_array_equal(read, images)
            assert np.flatnonzero(~ok).tolist() == [3, 4]
        assert len([record for record in caplog.records if paths[3] in record.getMessage()]) == n_runs
        assert one.n_cached == 18
        assert len(decoded) == 1 + 20 + 2 * (n_runs - 1)


def test_who_would_have_to_wait_leaves_its_images_out(kept, decoded, tmp_path):
    _, images, store = kept
    one = store()
    one.read([0])
    with open(cache_file(tmp_path), "rb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)  # an exclusive one would hide a store that asks for less
        for _ in range(2):
            np.testing.assert_array_equal(one.read([0, 1, 2])[0], images[:3])
        assert one.n_cached == 1
        assert len(decoded) == 5
    one.read([0, 1, 2])
    one.read([0, 1, 2])
    assert one.n_cached == 3
    assert len(decoded) == 7


def test_stores_see_what_others_wrote_since(kept, decoded):
    _, images, store = kept
    one, other = store(), store()
    for n in range(20):
        np.testing.assert_array_equal((one, other)[n % 2].read([n])[0], images[n : n + 1])
    for each in (one, other):
        np.testing.assert_array_equal(each.read(range(20))[0], images)
    assert len(decoded) == 20


CHILD = """
import json, sys
import numpy as np
from facenet_fast.data.images import ImageStore
paths = json.load(open(sys.argv[1]))
expected = np.load(sys.argv[2])
seed = int(sys.argv[3])
while True:
    store = ImageStore(paths, expected.shape[1], cache_dir=sys.argv[4], threads=2)
    order = np.random.default_rng(seed).permutation(len(paths))
    for start in range(0, len(order), 7):
        wanted = order[start : start + 7]
        images, ok = store.read(wanted)
        assert ok.all() and np.array_equal(images, expected[wanted])
    print("read", flush=True)
    seed += 1
"""


@pytest.fixture
def child(tmp_path, make_images):
    """Start processes that fill one cache and check what they read, again and again."""
    import json

    paths, images = make_images(120, size=32)
    (tmp_path / "paths.json").write_text(json.dumps(paths))
    np.save(tmp_path / "images.npy", images)
    (tmp_path / "child.py").write_text(CHILD)
    root = str(Path(store_module.__file__).parents[2])
    processes = []

    def start(seed):
        files = [str(tmp_path / name) for name in ("child.py", "paths.json", "images.npy")]
        arguments = [sys.executable, *files, str(seed), str(tmp_path / "cache")]
        process = subprocess.Popen(
            arguments, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root}
        )
        processes.append(process)
        return process

    yield paths, images, start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.slow
def test_a_killed_process_leaves_nothing_wrong(child, tmp_path):
    paths, images, start = child
    cache_dir = tmp_path / "cache"
    for seed, delay in enumerate((0.0, 0.003, 0.01, 0.02, 0.05)):
        for path in cache_dir.glob("*"):
            path.unlink()
        process = start(seed)
        while not any(cache_dir.glob("*")):
            time.sleep(0.0005)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        store = ImageStore(paths, 32, cache_dir=str(cache_dir))
        np.testing.assert_array_equal(store.read(range(120))[0], images)
        np.testing.assert_array_equal(store.read(range(120))[0], images)
        assert store.n_cached == 120


@pytest.mark.slow
def test_processes_share_a_file(child, tmp_path, decoded):
    paths, images, start = child
    processes = [start(1000 * seed) for seed in range(3)]
    for _ in range(3):
        for process in processes:
            assert process.stdout.readline() == "read\n"
    for process in processes:
        process.kill()
        process.wait()
    store = ImageStore(paths, 32, cache_dir=str(tmp_path / "cache"))
    np.testing.assert_array_equal(store.read(range(120))[0], images)
    assert decoded == []


def test_a_disk_without_room_is_told_at_once(kept, tmp_path):
    _, _, store = kept
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"room for 0.0 MB; .*images-8-\w+\.cache': File too large"):
            store()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "cache").iterdir()) == []
    store().read([0])


def test_a_folder_that_is_none_is_told(kept, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UserError, match="cache_dir must be a folder to write to"):
        kept[2]()
