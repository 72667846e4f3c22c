"""What users get wrong with `facenet-fast train`: one line, status 2, no trace."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from facenet_fast.cli import main


def arguments_of(settings, **changes):
    words = ["train"]
    for name, value in {**settings, **changes}.items():
        words += [f"--{name}", str(value)]
    return words


@pytest.fixture
def error_of(tiny, capsys):
    """Run with some settings changed; return the one line on standard error."""

    def run(**changes):
        assert main(arguments_of(tiny, **changes)) == 2
        captured = capsys.readouterr()
        *_, line = captured.err.splitlines()
        assert captured.err.count("error: ") == 1, captured.err
        assert "Traceback" not in captured.out + captured.err
        prefix = "facenet-fast: error: "
        assert line.startswith(prefix)
        return line.removeprefix(prefix)

    return run


def test_missing_folder(error_of, tmp_path):
    assert str(tmp_path / "nowhere") in error_of(data_dir=tmp_path / "nowhere")


def test_a_file_for_a_folder(error_of, tmp_path):
    path = tmp_path / "file"
    path.write_text("x")
    assert str(path) in error_of(data_dir=path)


def test_empty_folder(error_of, tmp_path):
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in error_of(data_dir=tmp_path / "empty")


def test_one_identity(error_of, tmp_path, faces_dir):
    shutil.copytree(faces_dir / "person_0", tmp_path / "one" / "person_0")
    assert "at least 2" in error_of(data_dir=tmp_path / "one")


def test_one_image_an_identity(error_of, faces_dir):
    for identity in faces_dir.iterdir():
        for path in sorted(identity.iterdir())[1:]:
            path.unlink()
    assert "two readable images" in error_of(n_held_out=0)


def test_nothing_but_broken_files(error_of, faces_dir):
    for path in faces_dir.glob("*/*.png"):
        path.write_bytes(b"")
    assert "readable images" in error_of(n_held_out=0)


def test_too_many_held_out(error_of):
    assert "held-out identities must be in 0 .. 4" in error_of(n_held_out=5)


def test_unknown_backbone_lists_those_there_are(error_of):
    message = error_of(backbone="resnet9000")
    assert "small_resnet" in message
    assert "inception_resnet_v1" in message
    assert "'resnet9000'" in message


def test_backbone_that_cannot_be_imported(error_of):
    assert "no_such_module" in error_of(backbone="no_such_module:features")


def test_image_too_small_for_the_backbone(error_of):
    assert "image_size must be at least" in error_of(backbone="inception_resnet_v1", image_size=20)


def test_unknown_strategy_lists_those_there_are(error_of):
    assert error_of(strategy="hard") == (
        "strategy must be one of auto, batch_hard, distance_weighted, easy_positive, facenet, hardest, "
        "vgg_face; got 'hard'"
    )
    assert "got 'batch_all'" in error_of(strategy="batch_all")


@pytest.mark.parametrize("margin", [0, -0.2, "nan"])
def test_margin_that_is_not_positive(error_of, margin):
    assert error_of(margin=margin).startswith("margin must be")


def test_schedule_file_with_a_malformed_line(error_of, tmp_path):
    path = tmp_path / "schedule.txt"
    path.write_text("0: 0.1\n10 0.01\n")
    message = error_of(learning_rate=-1, learning_rate_schedule_file=path)
    assert "line 2" in message
    assert "'10 0.01'" in message


def test_missing_schedule_file(error_of):
    assert "'/nowhere'" in error_of(learning_rate=0, learning_rate_schedule_file="/nowhere")


def test_pairs_file_with_an_odd_line(error_of, faces_dir):
    (faces_dir.parent / "pairs.txt").write_text("1\t1\nperson_0\t1\t2\nperson_1 1 person_2 3 4\n")
    message = error_of(lfw_dir=faces_dir)
    assert "line 3" in message
    assert "pairs.txt" in message


def test_missing_pairs_file(error_of, faces_dir):
    assert "pairs" in error_of(lfw_dir=faces_dir)


@pytest.mark.parametrize("name", ["pretrained_model", "resume"])
def test_no_checkpoint_where_one_should_be(error_of, tmp_path, name):
    (tmp_path / "run").mkdir()
    message = error_of(**{name: tmp_path / "run"})
    assert str(tmp_path / "run") in message


def test_pretrained_model_that_is_another_network(error_of, tiny, tmp_path, capsys):
    assert main(arguments_of(tiny)) == 0
    (run_dir,) = (tmp_path / "runs").iterdir()
    capsys.readouterr()
    assert "must hold the network" in error_of(pretrained_model=run_dir, backbone="small_resnet")


def test_runs_dir_that_is_a_file(error_of, tmp_path):
    path = tmp_path / "file"
    path.write_text("x")
    assert str(path) in error_of(runs_dir=path)


def test_resuming_with_other_data(error_of, tiny, tmp_path, faces_dir, capsys):
    assert main(arguments_of(tiny)) == 0
    (run_dir,) = (tmp_path / "runs").iterdir()
    shutil.rmtree(faces_dir / "person_1")
    capsys.readouterr()
    assert "the data must be those" in error_of(resume=run_dir, epochs=3)


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is a signal only on POSIX")
def test_interrupt_from_the_keyboard_saves_and_says_where(tiny, tmp_path):
    words = arguments_of(tiny, epochs=100000, evaluate_every=0)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    log_path = tmp_path / "log"
    with open(log_path, "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "facenet_fast", *words], stdout=log, stderr=log, env=environment
        )
        try:
            deadline = time.monotonic() + 120
            while "Epoch: [3]" not in log_path.read_text():
                assert process.poll() is None, log_path.read_text()
                assert time.monotonic() < deadline, log_path.read_text()
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 130
        finally:
            process.kill()
    told = log_path.read_text()
    (run_dir,) = (tmp_path / "runs").iterdir()
    (line,) = [line for line in told.splitlines() if line.startswith("Interrupted at step ")]
    saved = line.split("saved ")[1].split(";")[0]
    assert saved.startswith(str(run_dir))
    assert os.path.isfile(f"{saved}.index")
    assert "Traceback" not in told
