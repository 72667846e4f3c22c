"""`facenet-fast embed`: what is written, and that stopping it anywhere changes nothing of that."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import facenet_fast.embed
import facenet_fast.models
from facenet_fast.checkpoints import load_model
from facenet_fast.config import EmbedConfig
from facenet_fast.data.images import decode_square
from facenet_fast.embed import embed_folder
from facenet_fast.errors import UserError
from facenet_fast.evaluation.embed import Embedder
from facenet_fast.report import progress
from tests.tiny_run import EMBEDDING_SIZE, IMAGE_SIZE, N_IDENTITIES, N_IMAGES, make_faces, make_run, name_of

N = N_IDENTITIES * N_IMAGES
N_MANY = 100


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("embed") / "20240101-120000")


@pytest.fixture
def faces(tmp_path):
    return make_faces(tmp_path / "faces")


@pytest.fixture
def many(tmp_path):
    """A folder of 100 tiny images of 10 identities."""
    rng = np.random.default_rng(0)
    for n in range(N_MANY):
        path = tmp_path / "many" / f"p{n // 10}" / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).save(path)
    return tmp_path / "many"


@pytest.fixture
def corners(tmp_path, monkeypatch):
    """A model file whose network is three corners; `seen` counts images, `at` says when to do what."""

    class Corners:
        path = tmp_path / "corners.pb"
        seen = 0
        action = None

        def at(self, n_images, action):
            self.action = n_images, action

        def embed(self, batch):
            if self.action and self.seen >= self.action[0]:
                self.action[1]()
            self.seen += len(batch)
            return batch[:, [0, 0, 3], [0, 3, 0], 0]

        def load(self, *_, **__):
            return Embedder(self.embed, 4, "fixed", 3, "corners")

    corners = Corners()
    corners.path.write_bytes(b"weights")
    monkeypatch.setattr(facenet_fast.models, "load_embedder", corners.load)
    return corners


def run(images_dir, model, output_path, **settings):
    return embed_folder(EmbedConfig(str(images_dir), str(model), str(output_path), **settings))


def stop():
    raise KeyboardInterrupt


def arrays_of(path):
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def embeddings_one_by_one(run_dir, paths):
    model, _ = load_model(str(run_dir))
    rows = []
    for path in paths:
        image = decode_square(str(path), IMAGE_SIZE).astype(np.float64)
        image = (image - image.mean()) / max(image.std(), 1 / np.sqrt(image.size))
        rows.append(model(image[None].astype(np.float32), training=False).numpy()[0])
    return np.array(rows)


def test_every_image_is_embedded_in_order(faces, run_dir, tmp_path, capsys):
    out = tmp_path / "out.npz"
    result = run(faces, run_dir, out, batch_size=7)
    arrays = arrays_of(out)
    wanted = [
        f"{name_of(n)}/{name_of(n)}_{image:04d}.png"
        for n in range(N_IDENTITIES)
        for image in range(1, N_IMAGES + 1)
    ]
    assert arrays["paths"].tolist() == wanted
    assert arrays["names"].tolist() == [name_of(n) for n in range(N_IDENTITIES)]
    assert arrays["labels"].tolist() == [n // N_IMAGES for n in range(N)]
    assert (arrays["embeddings"].dtype, arrays["labels"].dtype) == (np.float32, np.int32)
    np.testing.assert_allclose(
        arrays["embeddings"], embeddings_one_by_one(run_dir, [faces / path for path in wanted]), atol=1e-5
    )
    assert arrays["unreadable"].shape == (0,)
    assert (arrays["image_size"], arrays["standardisation"], arrays["flipped"]) == (
        IMAGE_SIZE,
        "per_image",
        False,
    )
    assert str(run_dir) in str(arrays["model"])
    for name, array in vars(result).items():
        np.testing.assert_array_equal(array, arrays[name])
    assert sorted(os.listdir(tmp_path)) == ["faces", "out.npz", "pairs.txt"]
    told = capsys.readouterr().out
    assert f"{N} embeddings of {EMBEDDING_SIZE} numbers: {out}\n" in told
    assert f"Embedded {N} images in " in told


def test_mirror_images_and_standardisation_reach_the_network(many, corners, tmp_path):
    plain = run(many, corners.path, tmp_path / "out.npz")
    flipped = run(many, corners.path, tmp_path / "out.npz", use_flipped_images=True)
    np.testing.assert_array_equal(flipped.embeddings[:, :3], plain.embeddings)
    np.testing.assert_array_equal(flipped.embeddings[:, [4, 3]], plain.embeddings[:, [0, 1]])
    assert arrays_of(tmp_path / "out.npz")["flipped"]


def test_options_reach_the_model(faces, run_dir, tmp_path):
    plain = run(faces, run_dir, tmp_path / "plain.npz")
    fixed = run(faces, run_dir, tmp_path / "fixed.npz", use_fixed_image_standardization=True)
    assert np.abs(plain.embeddings - fixed.embeddings).max() > 1e-3
    assert arrays_of(tmp_path / "fixed.npz")["standardisation"] == "fixed"
    with pytest.raises(UserError, match=f"image size must be {IMAGE_SIZE}"):
        run(faces, run_dir, tmp_path / "out.npz", image_size=IMAGE_SIZE + 1)


def test_a_folder_of_images_has_no_identities(many, corners, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for n in (3, 12, 57):
        os.replace(many / f"p{n // 10}" / f"{n}.png", flat / f"{n:03}.PNG")
    (flat / "notes.txt").write_text("no image")
    (flat / ".hidden.png").write_text("")
    (flat / "folder.png").mkdir()
    result = run(flat, corners.path, tmp_path / "out.npz")
    assert result.paths.tolist() == ["003.PNG", "012.PNG", "057.PNG"]
    assert (result.labels.tolist(), result.names.shape) == ([-1, -1, -1], (0,))
    wanted = [decode_square(str(flat / path), 4)[[0, 0, 3], [0, 3, 0], 0] for path in result.paths]
    np.testing.assert_allclose(result.embeddings, (np.array(wanted) - 127.5) / 128)


def test_several_folders_keep_their_paths(many, corners, tmp_path):
    second = tmp_path / "second" / "p3"
    second.mkdir(parents=True)
    os.replace(many / "p0" / "0.png", second / "0.png")
    result = run(f"{many}{os.pathsep}{tmp_path / 'second'}", corners.path, tmp_path / "out.npz")
    assert str(second / "0.png") in result.paths.tolist()
    assert all(os.path.isfile(path) for path in result.paths)
    assert result.names[result.labels[result.paths.tolist().index(str(second / "0.png"))]] == "p3"


def test_unreadable_images_are_left_out_and_named(many, corners, tmp_path, caplog, capsys):
    (many / "p1" / "13.png").write_bytes(b"")
    (many / "p9" / "99.png").write_bytes(b"no image")
    result = run(many, corners.path, tmp_path / "out.npz", batch_size=10)
    assert result.unreadable.tolist() == ["p1/13.png", "p9/99.png"]
    assert len(result.embeddings) == len(result.labels) == len(result.paths) == N_MANY - 2
    assert np.isfinite(result.embeddings).all()
    assert not set(result.unreadable) & set(result.paths)
    assert [name in caplog.text for name in ("13.png", "99.png")] == [True, True]
    assert "Left out 2 images that cannot be read\n" in capsys.readouterr().out


def test_no_readable_image_is_an_error(many, corners, tmp_path):
    for path in many.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match=f"there must be images that can be read; of {N_MANY} none can"):
        run(many, corners.path, tmp_path / "out.npz")
    assert sorted(os.listdir(tmp_path)) == ["corners.pb", "many"]


# Stopped and gone on with


def test_an_interrupted_run_goes_on(many, corners, tmp_path, capsys):
    out = tmp_path / "out.npz"
    (many / "p1" / "13.png").write_bytes(b"")
    wanted = run(many, corners.path, tmp_path / "wanted.npz", batch_size=8)
    out.write_bytes(b"old")
    capsys.readouterr()

    corners.seen = 0
    corners.at(40, stop)
    with pytest.raises(KeyboardInterrupt):
        run(many, corners.path, out, batch_size=8)
    assert out.read_bytes() == b"old"
    assert (
        f"Stopped after 48 of {N_MANY} images; the same command goes on from there" in capsys.readouterr().out
    )

    corners.seen = 0
    corners.action = None
    result = run(many, corners.path, out, batch_size=8)
    assert corners.seen == N_MANY - 48
    told = capsys.readouterr().out
    assert f"Going on after 48 of {N_MANY} images that an earlier run embedded\n" in told
    assert f"Embedded {N_MANY - 48} images in " in told
    for name in vars(wanted):
        assert getattr(result, name).tobytes() == getattr(wanted, name).tobytes()
    assert sorted(os.listdir(tmp_path)) == ["corners.pb", "many", "out.npz", "wanted.npz"]


def test_real_network_gives_the_same_bits_after_an_interrupt(faces, run_dir, tmp_path, monkeypatch):
    wanted = run(faces, run_dir, tmp_path / "wanted.npz", batch_size=5, use_flipped_images=True)
    append = facenet_fast.embed._Part.append

    def append_and_stop(part, rows):
        append(part, rows)
        if part.n_done == 15:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(facenet_fast.embed._Part, "append", append_and_stop)
        with pytest.raises(KeyboardInterrupt):
            run(faces, run_dir, tmp_path / "out.npz", batch_size=5, use_flipped_images=True)
    result = run(faces, run_dir, tmp_path / "out.npz", batch_size=5, use_flipped_images=True)
    assert result.embeddings.tobytes() == wanted.embeddings.tobytes()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_killed_run_goes_on(many, corners, tmp_path, capsys):
    wanted = run(many, corners.path, tmp_path / "wanted.npz", batch_size=5)
    out = tmp_path / "out.npz"
    program = """
        import sys, time, types
        from facenet_fast.evaluation.embed import Embedder

        def embed(batch):
            time.sleep(0.05)
            return batch[:, [0, 0, 3], [0, 3, 0], 0]

        def load_embedder(*_, **__):
            return Embedder(embed, 4, "fixed", 3, "corners")

        sys.modules["facenet_fast.models"] = types.SimpleNamespace(load_embedder=load_embedder)
        import facenet_fast.embed
        from facenet_fast.config import EmbedConfig
        facenet_fast.embed._SECONDS_BETWEEN_SAVES = 0.0
        facenet_fast.embed.embed_folder(EmbedConfig(*sys.argv[1:], batch_size=5))
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(many), str(corners.path), str(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        state = tmp_path / "out.npz.part" / "state.json"
        deadline = time.monotonic() + 60
        while not (state.exists() and json.loads(state.read_text())["n_done"] >= 20):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not out.exists()
    n_saved = json.loads(state.read_text())["n_done"]
    assert 20 <= n_saved < N_MANY
    assert (tmp_path / "out.npz.part" / "rows.f32").stat().st_size >= n_saved * 3 * 4

    corners.seen = 0
    capsys.readouterr()
    result = run(many, corners.path, out, batch_size=5)
    assert f"Going on after {n_saved} of" in capsys.readouterr().out
    assert corners.seen == N_MANY - n_saved
    assert result.embeddings.tobytes() == wanted.embeddings.tobytes()


def interrupted(many, corners, out):
    corners.seen = 0
    corners.at(50, stop)
    with pytest.raises(KeyboardInterrupt):
        run(many, corners.path, out, batch_size=10)
    corners.seen = 0
    corners.action = None


def touch(path):
    status = os.stat(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


@pytest.mark.parametrize(
    ("change", "settings", "told"),
    [
        (None, {"batch_size": 20}, "batch_size"),
        (None, {"use_flipped_images": True}, "use_flipped_images"),
        (lambda many: (many.parent / "corners.pb").write_bytes(b"others"), {}, "model"),
        (lambda many: touch(many / "p0" / "3.png"), {}, "images"),
        (lambda many: os.remove(many / "p7" / "70.png"), {}, "images"),
        (
            lambda many: touch(many.parent / "corners.pb"),
            {"use_flipped_images": True},
            "model, use_flipped_images",
        ),
    ],
)
def test_what_changed_is_told_and_all_is_embedded_anew(
    many, corners, tmp_path, capsys, change, settings, told
):
    out = tmp_path / "out.npz"
    interrupted(many, corners, out)
    if change:
        change(many)
    capsys.readouterr()
    result = run(many, corners.path, out, **{"batch_size": 10} | settings)
    assert capsys.readouterr().out.splitlines()[1] == (
        f"Starting anew: since an earlier run was stopped, {told} changed"
    )
    n_images = len(list(many.rglob("*.png")))
    assert corners.seen == n_images * (2 if settings.get("use_flipped_images") else 1)
    wanted = run(many, corners.path, tmp_path / "wanted.npz", **{"batch_size": 10} | settings)
    assert result.embeddings.tobytes() == wanted.embeddings.tobytes()


@pytest.mark.parametrize("damage", ["rows", "no rows", "state", "no count", "another count"])
def test_damaged_parts_are_not_used(many, corners, tmp_path, capsys, damage):
    out = tmp_path / "out.npz"
    interrupted(many, corners, out)
    part = tmp_path / "out.npz.part"
    state = json.loads((part / "state.json").read_text())
    if damage == "rows":
        os.truncate(part / "rows.f32", state["n_done"] * 3 * 4 - 1)
    elif damage == "no rows":
        os.remove(part / "rows.f32")
    elif damage == "state":
        (part / "state.json").write_text('{"n_done"')
    elif damage == "no count":
        (part / "state.json").write_text(json.dumps({"task": state["task"]}))
    else:
        (part / "state.json").write_text(json.dumps(state | {"n_done": -10}))
    capsys.readouterr()
    assert len(run(many, corners.path, out, batch_size=10).embeddings) == N_MANY == corners.seen
    assert "Starting anew: what an earlier run left is damaged\n" in capsys.readouterr().out


def test_rows_beyond_the_count_are_embedded_again(many, corners, tmp_path):
    out = tmp_path / "out.npz"
    wanted = run(many, corners.path, tmp_path / "wanted.npz", batch_size=10)
    interrupted(many, corners, out)
    with open(tmp_path / "out.npz.part" / "rows.f32", "ab") as file:
        file.write(b"half of a row that came before a power cut")
    assert run(many, corners.path, out, batch_size=10).embeddings.tobytes() == wanted.embeddings.tobytes()


def test_a_count_of_another_task_is_forgotten_at_once(many, corners, tmp_path, monkeypatch):
    # Stopped under one setting, killed at once under another, begun again under the first.
    out = tmp_path / "out.npz"
    wanted = run(many, corners.path, tmp_path / "wanted.npz", batch_size=10)
    interrupted(many, corners, out)
    with monkeypatch.context() as patch:
        patch.setattr(facenet_fast.embed._Part, "__exit__", lambda part, *_: part._file.close())
        corners.at(20, stop)
        with pytest.raises(KeyboardInterrupt):
            run(many, corners.path, out, batch_size=10, use_flipped_images=True)
    corners.action = None
    assert run(many, corners.path, out, batch_size=10).embeddings.tobytes() == wanted.embeddings.tobytes()


def test_rows_are_on_the_disk_before_they_are_counted(many, corners, tmp_path, monkeypatch):
    part = tmp_path / "out.npz.part"
    fsync, replace, on_disk, counted = os.fsync, os.replace, [0], []

    def watch_fsync(descriptor):
        fsync(descriptor)
        if os.path.samestat(os.fstat(descriptor), os.stat(part / "rows.f32")):
            on_disk.append(os.fstat(descriptor).st_size)

    def watch_replace(source, target):
        if str(target).endswith("state.json"):
            counted.append((json.loads(Path(source).read_text())["n_done"] * 3 * 4, on_disk[-1]))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watch_fsync)
    monkeypatch.setattr(os, "replace", watch_replace)
    monkeypatch.setattr(facenet_fast.embed, "_SECONDS_BETWEEN_SAVES", 0.0)
    run(many, corners.path, tmp_path / "out.npz", batch_size=30)
    assert counted == [(n * 3 * 4, n * 3 * 4) for n in (0, 30, 60, 90, 100, 100)]


def test_network_that_gives_nan_is_named(many, corners, tmp_path, monkeypatch):
    monkeypatch.setattr(type(corners), "embed", lambda self, batch: np.full((len(batch), 3), np.nan))
    with pytest.raises(UserError, match=r"embeddings must be finite; .* first .*0\.png"):
        run(many, corners.path, tmp_path / "out.npz")
    assert not (tmp_path / "out.npz").exists()


# Bad input


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("nowhere/out.npz", r"the output's folder must exist; got '.*nowhere/out\.npz'"),
        ("folder.npz", r"must be a file, OUT\.npz; '.*folder\.npz' is a folder"),
        ("out.npy", r"must be called OUT\.npz, for embeddings; got '.*out\.npy'"),
    ],
)
def test_output_that_cannot_be_is_refused_before_any_work(tmp_path, output, message):
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(UserError, match=message):
        run(tmp_path / "no_images", tmp_path / "no_model", tmp_path / output)


def test_missing_images_and_models_are_errors(many, tmp_path):
    with pytest.raises(UserError, match=r"the images must be in a folder .*; '.*gone' is nothing"):
        run(tmp_path / "gone", tmp_path / "model", tmp_path / "out.npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"'.*empty' has none: it is empty"):
        run(tmp_path / "empty", tmp_path / "model", tmp_path / "out.npz")
    with pytest.raises(UserError, match=r"'.*gone\.pb' does not exist"):
        run(many, tmp_path / "gone.pb", tmp_path / "out.npz")
    assert sorted(os.listdir(tmp_path)) == ["empty", "many"]


def test_a_disk_that_is_full_is_told(many, corners, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write '.*out\.npz\.part': No space left on device"):
        run(many, corners.path, tmp_path / "out.npz")


# Progress


def test_lines_of_progress_come_now_and_then(monkeypatch):
    seconds = iter([0.0, 10.0, 31.0, 40.0, 62.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    stream = io.StringIO()
    with progress.image_progress(1000, 100, stream) as told:
        for n_done in (200, 410, 500, 720):
            told(n_done)
    assert stream.getvalue() == "410 of 1000 images, 10 a second\n720 of 1000 images, 10 a second\n"


def test_a_terminal_shows_a_bar():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    with progress.image_progress(30, 10, stream) as told:
        told(20)
    assert "20/30" in stream.getvalue()
