"""The network of docs/extending.md, saved as the page says, is found by the command and trains."""

import re
import sys
from pathlib import Path

import pytest

from facenet_fast.cli import main
from tests.tiny_run import make_faces

PAGE = Path(__file__).resolve().parents[2] / "docs/extending.md"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with the page's file, as it is for somebody who begins."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    block = re.search(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)[1]
    (tmp_path / "my_networks.py").write_text(block)
    yield tmp_path
    sys.modules.pop("my_networks", None)


def test_a_network_of_ones_own_trains_and_is_frozen(folder, capsys):
    make_faces(folder / "faces")
    assert "--backbone my_networks:features" in PAGE.read_text()
    settings = (
        "--backbone my_networks:features --data-dir faces --runs-dir runs --image-size 24 --embedding-size 8 "
        "--identities-per-batch 4 --images-per-identity 4 --epochs 1 --epoch-size 2 --n-held-out 2 --folds 2"
    )
    assert main(["train", *settings.split()]) == 0, capsys.readouterr().err
    (run_dir,) = (folder / "runs").iterdir()
    assert main(["freeze", str(run_dir), "model.pb"]) == 0, capsys.readouterr().err
    (folder / "my_networks.py").unlink()
    sys.modules.pop("my_networks")
    assert main(["embed", "faces", "model.pb", "faces.npz"]) == 0, capsys.readouterr().err
    assert main(["freeze", str(run_dir), "again.pb"]) == 2
    assert "my_networks" in capsys.readouterr().err
