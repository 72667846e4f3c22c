"""A small folder of faces, and settings that train a tiny network on it in seconds."""

import os

import numpy as np
import pytest
from PIL import Image


def write_faces(data_dir, n_identities=6, n_each=5, size=20, seed=0):
    """One pattern an identity, with noise; names that LFW's pairs files know too."""
    rng = np.random.default_rng(seed)
    for identity in range(n_identities):
        name = f"person_{identity}"
        (data_dir / name).mkdir(parents=True)
        pattern = np.kron(rng.integers(0, 200, (5, 5, 3)), np.ones((size // 5, size // 5, 1)))
        for n in range(1, n_each + 1):
            pixels = pattern + rng.integers(0, 40, (size, size, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(data_dir / name / f"{name}_{n:04d}.png")
    return data_dir


@pytest.fixture(scope="session")
def make_faces():
    return write_faces


@pytest.fixture(scope="session")
def make_settings():
    return tiny_settings


@pytest.fixture
def faces_dir(tmp_path):
    return write_faces(tmp_path / "faces")


@pytest.fixture
def tiny(tmp_path, faces_dir, monkeypatch):
    """Settings of a run of six steps."""
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    return tiny_settings(faces_dir, tmp_path / "runs")


def tiny_settings(faces_dir, runs_dir):
    return {
        "data_dir": str(faces_dir),
        "runs_dir": str(runs_dir),
        "n_held_out": 2,
        "image_size": 16,
        "backbone": "tiny_network:features",
        "embedding_size": 8,
        "identities_per_batch": 4,
        "images_per_identity": 4,
        "strategy": "vgg_face",
        "margin": 1.0,
        "epochs": 2,
        "epoch_size": 3,
        "learning_rate": 0.01,
        "weight_decay": 0.0,
        "dropout": 0.0,
        "cutout": 0.0,
        "batch_size": 90,
        "folds": 2,
        "log_every": 1,
    }
