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
from facenet_fast.checkpoints import CONFIG_FILE, TRAINING_SET_FILE, find_checkpoint
from facenet_fast.config import TrainConfig, from_mapping, read_train_config
from facenet_fast.errors import UserError
from facenet_fast.files import write_text_aside
from facenet_fast.report.versions import versions

__all__ = ["RunFolder", "check_resumable", "make_run_folder", "resumed_config"]


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

    def logs_path(self, name: str) -> str:
        """Return where a file of the logs is."""
        return os.path.join(self.logs_dir, name)

    def write_text(self, name: str, text: str) -> str:
        """Write a file of the logs, aside first, and return its path."""
        return write_text_aside(self.logs_path(name), text)

    def append_line(self, name: str, line: str) -> None:
        """Add a line to a file of the logs.

        Raises
        ------
        UserError
            If it cannot be written.
        """
        path = self.logs_path(name)
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise UserError(f"cannot write {path!r}: {error.strerror}") from error

    def write_settings(self, config: TrainConfig) -> None:
        """Write `config.json` and, for people, the settings, versions and the source's revision."""
        settings = dataclasses.replace(config, resume="").to_dict()
        write_text_aside(os.path.join(self.run_dir, CONFIG_FILE), json.dumps(settings, indent=2) + "\n")
        self.write_text("arguments.txt", "".join(f"{name}: {value}\n" for name, value in settings.items()))
        self.write_text("revision_info.txt", _revision_info())

    def write_training_set(self, n_images: int, n_identities: int) -> None:
        """Note in the run's folder how much it learns from, for the files that `freeze` makes of it."""
        record = {"n_images": n_images, "n_identities": n_identities}
        write_text_aside(os.path.join(self.run_dir, TRAINING_SET_FILE), json.dumps(record) + "\n")


def make_run_folder(config: TrainConfig) -> RunFolder:
    """Make the folder of a new run, named by the time, with its settings, or open that of a run to resume.

    Of a run to resume nothing is changed yet: it may turn out that it cannot go on with these settings.

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
    except OSError as error:
        raise UserError(
            f"the folder of the run must be writable; {error.filename!r}: {error.strerror}"
        ) from error
    folder = RunFolder(run_dir, logs_dir)
    if not config.resume:
        folder.write_settings(config)
    return folder


def check_resumable(run_dir: str) -> None:
    """Refuse to resume what has no checkpoint.

    Raises
    ------
    UserError
        If there is none; the message says what that means.
    """
    try:
        find_checkpoint(run_dir)
    except UserError as error:
        if not os.path.isdir(run_dir):
            raise
        raise UserError(
            f"the run to resume must have a checkpoint; {run_dir!r} has none: it ended before the first was "
            "written, and there is nothing to go on from"
        ) from error


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
        If the folder holds no checkpoint or no `config.json`, or a change is refused.
    """
    check_resumable(os.path.expanduser(run_dir))
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
