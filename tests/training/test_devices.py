"""Limits on threads and GPU memory, each in a process of its own: TensorFlow takes them once."""

import subprocess
import sys

import pytest

from facenet_fast.training import devices


def run(code):
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return answer


def test_threads_are_limited():
    run(
        "import tensorflow as tf\n"
        "from facenet_fast.config import TrainConfig\n"
        "from facenet_fast.training.devices import configure_devices\n"
        "configure_devices(TrainConfig(threads=1))\n"
        "assert tf.config.threading.get_intra_op_parallelism_threads() == 1\n"
        "assert tf.config.threading.get_inter_op_parallelism_threads() == 1\n"
    )


def test_a_late_wish_is_a_warning():
    answer = run(
        "import logging, sys\n"
        "logging.basicConfig(stream=sys.stdout)\n"
        "import tensorflow as tf\n"
        "tf.constant(1) + 1\n"
        "from facenet_fast.config import TrainConfig\n"
        "from facenet_fast.training.devices import configure_devices\n"
        "configure_devices(TrainConfig(threads=1))\n"
    )
    assert "TensorFlow was in use before its limits were set" in answer.stdout


@pytest.fixture
def two_gpus(monkeypatch):
    """Two pretended GPUs; what they are limited to."""
    limits = {}
    monkeypatch.setattr(devices.tf.config, "list_physical_devices", lambda kind: ["GPU:0", "GPU:1"])
    monkeypatch.setattr(
        devices.tf.config,
        "set_logical_device_configuration",
        lambda gpu, logical: limits.update({gpu: logical[0].memory_limit}),
    )
    return limits


def test_gpu_memory_is_a_fraction_of_what_there_is(two_gpus, monkeypatch, tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 81559\necho 40960\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    devices.configure_devices(devices.TrainConfig(gpu_memory_fraction=0.5))
    assert two_gpus == {"GPU:0": 40779, "GPU:1": 20480}


def test_gpu_memory_that_is_not_known_is_a_warning(two_gpus, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("PATH", str(tmp_path))
    devices.configure_devices(devices.TrainConfig(gpu_memory_fraction=0.5))
    assert two_gpus == {}
    assert "gpu_memory_fraction is not heeded" in caplog.text
