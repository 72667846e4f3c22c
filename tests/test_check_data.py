"""`facenet-fast data check`: what is printed and written, and that `train` leaves out what is listed."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import facenet_fast.check_data
from facenet_fast.check_data import check_data
from facenet_fast.cli import main
from facenet_fast.config import DataConfig
from facenet_fast.data import check
from facenet_fast.data.quarantine import read_quarantine
from facenet_fast.errors import UserError
from tests.tiny_run import N_IDENTITIES, N_IMAGES, make_faces, name_of

N = N_IDENTITIES * N_IMAGES


@pytest.fixture
def faces(tmp_path):
    return make_faces(tmp_path / "faces")


def image_of(person, n):
    return f"{name_of(person)}/{name_of(person)}_{n:04d}.png"


@pytest.fixture
def bad_faces(faces):
    """A truncated image, a picture under two names, eight zero-byte files."""
    data = (faces / image_of(0, 1)).read_bytes()
    (faces / image_of(0, 1)).write_bytes(data[: len(data) // 2])
    shutil.copy(faces / image_of(1, 1), faces / image_of(2, 1))
    for n in range(8):
        (faces / name_of(3) / f"empty_{n}.jpg").touch()
    return faces


def run(folder, **settings):
    return check_data(DataConfig("check", str(folder), **{"tiny_pixels": 0} | settings))


def test_a_table_of_what_is_found(bad_faces, capsys):
    run(bad_faces)
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith(
        f"{N + 8} images of {N_IDENTITIES} people in {bad_faces}; {N - 1} can be read ("
    )
    assert told[1] == f"Images a person: {N_IMAGES} to {N_IMAGES + 8}, median {N_IMAGES}"
    assert told[2].startswith("Sizes: ")
    assert told[3:6] == [f"Formats: PNG ({N - 1})", f"Modes: RGB ({N - 1})", ""]
    table = told[6 : told.index("", 6)]
    assert table[0].split() == ["Found", "count", "left", "out"]
    assert table[1].split() == ["zero-byte", "files", "8", "all"]
    assert table[2] == f"    {name_of(3)}/empty_0.jpg"
    assert table[6:8] == [f"    {name_of(3)}/empty_4.jpg", "    and 3 more"]
    assert table[8].split() == ["truncated", "images", "1", "all"]
    assert table[9].startswith(f"    {image_of(0, 1)} (")
    assert table[10].split() == ["same", "picture,", "several", "people", "1", "all"]
    assert table[11] == f"    {image_of(1, 1)}, {image_of(2, 1)} (the same file)"
    assert table[12].startswith("None: called images, and none inside; ")
    assert len(table) == 13
    assert told[-2:] == [
        "All of it in a file: --report-path OUT.json",
        "11 images to leave out in a file: --quarantine-path OUT.txt",
    ]


def test_nothing_is_written_or_deleted_unasked(bad_faces, tmp_path, monkeypatch):
    def everything():
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    monkeypatch.chdir(tmp_path)
    before = everything()
    run(bad_faces)
    assert everything() == before


def test_all_of_it_is_in_the_report(bad_faces, tmp_path, capsys):
    result = run(bad_faces, report_path=str(tmp_path / "out.json"))
    report = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert list(report) == [field.name for field in dataclasses.fields(check.DataCheck)]
    assert report["n_images"] == N + 8
    assert len(report["findings"]["empty"]) == 8
    assert report["findings"]["duplicates_across"] == [
        {
            "images": [image_of(1, 1), image_of(2, 1)],
            "people": [name_of(1), name_of(2)],
            "detail": "the same file",
            "also": "",
            "correlation": None,
        }
    ]
    assert report["quarantine"] == result.quarantine
    assert f"All of it: {tmp_path / 'out.json'}\n" in capsys.readouterr().out


def test_the_quarantine_is_written(bad_faces, tmp_path, capsys):
    path = tmp_path / "out.txt"
    run(bad_faces, quarantine_path=str(path))
    assert read_quarantine(str(path)) == [
        image_of(0, 1),
        image_of(1, 1),
        image_of(2, 1),
        *(f"{name_of(3)}/empty_{n}.jpg" for n in range(8)),
    ]
    assert f"11 images to leave out: facenet-fast train --quarantine {path}\n" in capsys.readouterr().out


def test_a_clean_folder_says_so(faces, tmp_path, capsys):
    run(faces, quarantine_path=str(tmp_path / "out.txt"))
    told = capsys.readouterr().out
    assert "Found" not in told
    assert "None: zero-byte files; truncated images; " in told
    assert "0 images to leave out: " in told
    assert read_quarantine(str(tmp_path / "out.txt")) == []


def test_people_and_pictures_of_the_test_set_are_shown(faces, tmp_path, capsys):
    shutil.copytree(faces / name_of(1), tmp_path / "test" / name_of(1))
    run(faces, against=str(tmp_path / "test"))
    told = capsys.readouterr().out
    assert f"Test set: {N_IMAGES} readable images\n" in told
    assert f"\n    {name_of(1)}\n" in told
    assert f"\n    {image_of(1, 1)} (as {tmp_path / 'test' / image_of(1, 1)})\n" in told


def test_groups_and_correlations_are_shown(faces, capsys):
    for n in range(4):
        shutil.copy(faces / image_of(1, 1), faces / name_of(1) / f"copy_{n}.png")
    Image.open(faces / image_of(2, 1)).save(faces / name_of(2) / "again.jpg", quality=50)
    result = run(faces)
    (finding,) = result.findings["near"]
    told = capsys.readouterr().out
    assert f"{name_of(1)}/copy_1.png and 2 more (the same file)\n" in told
    assert f"{image_of(2, 1)}, {name_of(2)}/again.jpg (correlation {finding.correlation:.3f})\n" in told


def test_settings_reach_the_check(faces, tmp_path, monkeypatch):
    got = {}

    def record(data_dir, **settings):
        got.update(settings, data_dir=data_dir)
        return check.check_folder(data_dir)

    monkeypatch.setattr(facenet_fast.check_data, "check_folder", record)
    run(faces, near=0.95, tiny_pixels=7, threads=3, against="a", against_dir="b")
    del got["progress"]
    assert got == {
        "data_dir": str(faces),
        "near": 0.95,
        "tiny_pixels": 7,
        "threads": 3,
        "against": "a",
        "against_dir": "b",
    }
    run(faces)
    assert got["threads"] is None


def test_defaults_are_those_of_the_function():
    config = DataConfig("check", "x")
    assert (config.tiny_pixels, config.near) == (check.TINY_PIXELS, check.NEAR)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"near": 0.89}, "near must be at least 0.9; got 0.89"),
        ({"near": 1.5}, "near must be at most 1.0; got 1.5"),
        ({"tiny_pixels": -1}, "tiny_pixels must be at least 0; got -1"),
        ({"action": "clean"}, "action must be one of check; got 'clean'"),
        (
            {"against_dir": "d"},
            "against_dir needs against, the pairs file; got against_dir='d' alone",
        ),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(UserError) as raised:
        DataConfig(**{"action": "check", "data_dir": "x"} | settings)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"report_path": "out.txt"}, r"the output must be called OUT\.json, for a report"),
        ({"report_path": "gone/out.json"}, "the output's folder must exist"),
        ({"quarantine_path": "out.json"}, r"must be called OUT\.txt, for images to leave out"),
    ],
)
def test_files_that_cannot_be_are_refused_before_any_work(tmp_path, monkeypatch, settings, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        run(tmp_path / "gone", **settings)


def test_an_interrupt_leaves_nothing(bad_faces, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(check, "_look_at", stop)
    before = sorted(os.listdir(tmp_path))
    words = ["--report-path", str(tmp_path / "o.json"), "--quarantine-path", str(tmp_path / "o.txt")]
    assert main(["data", "check", str(bad_faces), *words]) == 130
    assert sorted(os.listdir(tmp_path)) == before


def test_a_terminal_shows_a_bar(faces, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    run(faces)
    assert f"{N}/{N}" in terminal.getvalue()


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names on disk are text there")
def test_names_that_are_no_text(faces, tmp_path):
    os.mkdir(os.fsencode(faces) + b"/\xff")
    with open(os.fsencode(faces) + b"/\xff/1.png", "wb"):
        pass
    words = ["--report-path", str(tmp_path / "o.json"), "--quarantine-path", str(tmp_path / "o.txt")]
    command = [sys.executable, "-m", "facenet_fast", "data", "check", str(faces), *words]
    done = subprocess.run(command, capture_output=True, check=False, env=os.environ | {"PYTHONUTF8": "1"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"    \udcff/1.png" in done.stdout
    assert "\udcff/1.png" in json.loads((tmp_path / "o.json").read_text(encoding="utf-8"))["quarantine"]
    assert b"\n\xff/1.png\t" in (tmp_path / "o.txt").read_bytes()


def test_the_command_needs_no_tensorflow(bad_faces):
    program = (
        "import sys; from facenet_fast.cli import main; "
        "status = main(sys.argv[1:]); sys.exit(status or 'tensorflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "data", "check", str(bad_faces)], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"truncated images" in done.stdout


# --- Training


@pytest.fixture
def training(bad_faces, tmp_path):
    """Return words that train a tiny network for one step."""
    settings = {
        "data_dir": bad_faces,
        "runs_dir": tmp_path / "runs",
        "n_held_out": 0,
        "image_size": 16,
        "backbone": "tests.tiny_run:features",
        "embedding_size": 4,
        "identities_per_batch": 3,
        "images_per_identity": 2,
        "batch_size": 6,
        "epochs": 1,
        "epoch_size": 1,
    }
    return ["train", *(word for name, value in settings.items() for word in (f"--{name}", str(value)))]


def test_train_leaves_out_what_is_listed(training, bad_faces, tmp_path, capsys):
    path = tmp_path / "out.txt"
    assert main(["data", "check", str(bad_faces), "--quarantine-path", str(path), "--tiny-pixels", "0"]) == 0
    with open(path, "a", encoding="utf-8") as file:
        file.write("".join(f"{image_of(5, n)}\tnot wanted\n" for n in range(1, N_IMAGES + 1)))
        file.write("nobody/1.png\n")
    capsys.readouterr()
    assert main([*training, "--quarantine", str(path)]) == 0
    captured = capsys.readouterr()
    n_left = N - 3 - N_IMAGES
    assert f"Left out {N + 8 - n_left} of {N + 8} images, as {path} says\n" in captured.out
    assert f"on {n_left} images of {N_IDENTITIES - 1} people" in captured.out
    assert captured.err.count("warning") == 1
    assert f"paths in {path} that are no images of {bad_faces}: nobody/1.png\n" in captured.err
    (run_dir,) = (tmp_path / "runs").iterdir()
    assert json.loads((run_dir / "config.json").read_text())["quarantine"] == str(path)


def test_train_says_what_is_wrong_with_a_quarantine(training, bad_faces, tmp_path, capsys):
    assert main([*training, "--quarantine", str(tmp_path / "gone.txt")]) == 2
    assert "the quarantine file must be readable; " in capsys.readouterr().err
    everything = "".join(f"{path.relative_to(bad_faces)}\n" for path in bad_faces.glob("*/*"))
    (tmp_path / "all.txt").write_text(everything)
    assert main([*training, "--quarantine", str(tmp_path / "all.txt")]) == 2
    assert "error: " in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_numbers_of_a_large_folder_are_short(tmp_path, capsys):
    """Many sizes are one line."""
    rng = np.random.default_rng(0)
    for n in range(6):
        path = tmp_path / "faces" / "ann" / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40 + max(n, 1), 40, 3), dtype=np.uint8)).save(path)
    run(tmp_path / "faces")
    assert "Sizes: 40x41 (2), 40x42 (1), 40x43 (1) and 2 more\n" in capsys.readouterr().out
