"""The folder of a run and the texts in it: settings, versions, revision."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import facenet_fast
from facenet_fast.checkpoints import CONFIG_FILE
from facenet_fast.config import TrainConfig, from_mapping, read_train_config
from facenet_fast.errors import UserError
from facenet_fast.report.versions import versions

__all__ = ["RunFolder", "make_run_folder", "resumed_config"]


@dataclass(frozen=True)
class RunFolder:
    """Where a run writes.

    Attributes
    ----------
    run_dir : str
        Checkpoints and `config.json`.
    logs_dir : str
        TensorBoard's events, `metrics.jsonl`, texts and pictures; the same folder unless
        `TrainConfig.logs_dir` says otherwise.
    """

    run_dir: str
    logs_dir: str

    def write_text(self, name: str, text: str, *, append: bool = False) -> str:
        """Write a file of the logs and return its path."""
        path = os.path.join(self.logs_dir, name)
        with open(path, "a" if append else "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        return path


def make_run_folder(config: TrainConfig) -> RunFolder:
    """Make the folder of a new run, named by the time, or open that of a run to resume; write the settings.

    Raises
    ------
    UserError
        If it cannot be made.
    """
    try:
        if config.resume:
            run_dir = os.path.abspath(config.resume)
        else:
            run_dir = _make_new_dir(os.path.abspath(config.runs_dir))
        logs_dir = run_dir
        if config.logs_dir:
            logs_dir = os.path.join(os.path.abspath(config.logs_dir), os.path.basename(run_dir))
            os.makedirs(logs_dir, exist_ok=True)
        folder = RunFolder(run_dir, logs_dir)
        _write_settings(folder, dataclasses.replace(config, resume=""))
    except OSError as error:
        raise UserError(
            f"the folder of the run must be writable; {error.filename!r}: {error.strerror}"
        ) from error
    return folder


def resumed_config(run_dir: str, changes: Mapping[str, Any]) -> TrainConfig:
    """Return the settings of a run with some of them given anew.

    Parameters
    ----------
    run_dir : str
        The run folder to resume.
    changes : mapping
        Names of settings and their new values.

    Raises
    ------
    UserError
        If the folder holds no `config.json`, or a change is refused.
    """
    before = read_train_config(os.path.join(os.path.expanduser(run_dir), CONFIG_FILE)).to_dict()
    return from_mapping(TrainConfig, {**before, **changes, "resume": run_dir})


def _make_new_dir(runs_dir: str) -> str:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    os.makedirs(runs_dir, exist_ok=True)
    for suffix in ("", *(f"-{n}" for n in range(1, 1000))):
        path = os.path.join(runs_dir, stamp + suffix)
        try:
            os.mkdir(path)
        except FileExistsError:  # another run began in this second
            continue
        return path
    raise UserError(f"runs_dir must have room for a folder named {stamp}; {runs_dir!r} holds a thousand")


def _write_settings(folder: RunFolder, config: TrainConfig) -> None:
    settings = config.to_dict()
    with open(os.path.join(folder.run_dir, CONFIG_FILE), "w", encoding="utf-8") as file:
        json.dump(settings, file, indent=2)
        file.write("\n")
    folder.write_text("arguments.txt", "".join(f"{name}: {value}\n" for name, value in settings.items()))
    folder.write_text("revision_info.txt", _revision_info())


def _revision_info() -> str:
    lines = [f"arguments: {' '.join(sys.argv)}"]
    lines += [f"{name} version: {version}" for name, version in versions().items()]
    revision, diff = _git_revision()
    lines += [f"git hash: {revision}", diff]
    return "\n".join(lines) + "\n"


def _git_revision() -> tuple[str, str]:
    """Revision and uncommitted changes of the package's source, where it runs from a git work tree."""
    source_dir = os.path.dirname(os.path.dirname(os.path.abspath(facenet_fast.__file__)))
    # The package may be installed somewhere below a work tree that is not its own.
    if not shutil.which("git") or not os.path.exists(os.path.join(source_dir, ".git")):
        return "not a git work tree", ""
    answers = []
    for command in (["rev-parse", "HEAD"], ["diff", "HEAD"]):
        answer = subprocess.run(
            ["git", "-C", source_dir, *command], capture_output=True, text=True, errors="replace", check=False
        )
        answers.append(answer.stdout.strip())
    return answers[0], answers[1]
