"""Processes that train together, or one with several devices, for tests of what they come to."""

import json
import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from facenet_fast.checkpoints import find_checkpoint

SECONDS = 240


class Worker:
    """A process of `facenet-fast train`, and what it has said so far."""

    def __init__(self, words, environment, log_path):
        self.log_path = log_path
        with open(log_path, "w") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log, env=environment)

    def said(self):
        return self.log_path.read_text()

    def wait_for(self, text):
        deadline = time.monotonic() + SECONDS
        while text not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)

    def end(self):
        """Return the exit status, once it has ended by itself."""
        try:
            return self.process.wait(timeout=SECONDS)
        finally:
            self.kill()

    def kill(self):
        self.process.kill()
        self.process.wait()


def environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}


def start_workers(folder, *settings, words=(), described_by="TF_CONFIG"):
    """Start a worker for each of some settings, which know of each other by environment variables."""
    folder.mkdir(parents=True, exist_ok=True)
    addresses = [f"localhost:{port}" for port in free_ports(len(settings))]
    workers = []
    for n, one in enumerate(settings):
        (folder / f"settings_{n}.json").write_text(json.dumps({**one, "distribute": "multiworker"}))
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": n}}
        told = {
            "TF_CONFIG": {"TF_CONFIG": json.dumps(task)},
            "Slurm": {
                "SLURM_JOB_ID": str(os.getpid()),
                "SLURM_PROCID": str(n),
                "SLURM_STEP_NUM_TASKS": str(len(settings)),
                "SLURM_STEP_NODELIST": "localhost",
                "SLURM_STEP_TASKS_PER_NODE": str(len(settings)),
            },
        }
        command = [sys.executable, "-m", "facenet_fast", "train"]
        command += words or ["--config", str(folder / f"settings_{n}.json")]
        workers.append(Worker(command, {**environment(), **told[described_by]}, folder / f"log_{n}"))
    return workers


def free_ports(n):
    sockets = [socket.socket() for _ in range(n)]
    try:
        for one in sockets:
            one.bind(("localhost", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def train_on_devices(folder, n_devices, all_settings):
    """Train in one process of several devices, once by each of some settings.

    Where they have `resume`, it is a folder of one run, to go on with by the other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(all_settings))
    command = [sys.executable, __file__, str(n_devices), str(folder / "settings.json")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_equal_training(run_dir, other_dir):
    """Compare all that training left but the moving averages of batch-norm, to float32 rounding."""
    one, other = (tf.train.load_checkpoint(find_checkpoint(str(path))) for path in (run_dir, other_dir))
    shapes = one.get_variable_to_shape_map()
    assert shapes == other.get_variable_to_shape_map()
    n_compared = 0
    for name, shape in shapes.items():
        value, its_value = one.get_tensor(name), other.get_tensor(name)
        if name.startswith("progress"):
            state, its_state = progress_of(value), progress_of(its_value)
            averages, its_averages = (one.pop("averages", []) for one in (state, its_state))
            assert averages == pytest.approx(its_averages, rel=1e-4)
            assert state == its_state, f"{state}\n{its_state}"
        elif name.startswith(("model", "averaged", "optimizer", "random")):
            part, number = name.split("/")[:2]
            if part in ("model", "averaged") and int(number) in MOVING:
                continue
            n_compared += int(np.prod(shape))
            np.testing.assert_allclose(value, its_value, rtol=2e-4, atol=2e-6, err_msg=name)
    assert n_compared > 1000


def progress_of(text):
    """Return what a checkpoint knows beside weights, verifications left out."""
    state = json.loads(text)
    averages = state.get("auto_mining", {}).pop("averages", [])
    rest = {name: one for name, one in state.items() if name not in ("best", "evaluated_at")}
    return {**rest, "averages": averages}


# Among the weights of `tests.tiny_run:features` with its head: means and variances of two batch-norms.
MOVING = {3, 4, 9, 10}


if __name__ == "__main__":
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * int(sys.argv[1])
    )
    from facenet_fast.config import TrainConfig
    from facenet_fast.training.loop import train
    from facenet_fast.training.run_folder import resumed_config

    with open(sys.argv[2]) as file:
        for one in json.load(file):
            if runs_dir := one.pop("resume", None):
                (run_dir,) = os.scandir(runs_dir)
                train(resumed_config(run_dir.path, one))
            else:
                train(TrainConfig(**one, distribute="mirrored"))
