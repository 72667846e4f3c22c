"""The best verified weights of a run, kept beside its newest ones."""

from __future__ import annotations

import math
import os
import shutil
from typing import Any

import keras

from facenet_fast.checkpoints import CONFIG_FILE, TRAINING_SET_FILE, Checkpoints
from facenet_fast.errors import UserError
from facenet_fast.evaluation.verification import Verification
from facenet_fast.files import written_aside

__all__ = ["BEST_DIR", "BestWeights"]

BEST_DIR = "best"

# Measures of which less is better.
_FALLING = ("eer",)


class BestWeights:
    """Keep the averaged weights of the best verification in ``RUN/best``, which is a run folder of its own.

    Parameters
    ----------
    run_dir : str
        The run's folder, with its `config.json` and `training_set.json`.
    averaged : keras.Model
        The network that is verified.
    measure : str
        Field of `Verification`: ``auc``, ``accuracy``, ``val`` or ``eer``.

    Attributes
    ----------
    value : float or None
        The best so far; None before the first verification.
    step : int
        When that was.
    n_since : int
        Verifications since then.
    """

    def __init__(self, run_dir: str, averaged: keras.Model, measure: str) -> None:
        self.measure = measure
        self.value: float | None = None
        self.step = 0
        self.n_since = 0
        self.best_dir = os.path.join(run_dir, BEST_DIR)
        self._run_dir = run_dir
        self._averaged = averaged
        self._checkpoints: Checkpoints | None = None

    def see(self, result: Verification, step: int) -> bool:
        """Take a verification into account; save the weights and return True if it is the best so far.

        Raises
        ------
        UserError
            If the folder cannot be written.
        """
        value = float(getattr(result, self.measure))
        sign = -1.0 if self.measure in _FALLING else 1.0
        # VAL may be NaN, which is no better than anything.
        if math.isnan(value) or (self.value is not None and sign * value <= sign * self.value):
            self.n_since += 1
            return False
        self._save(step)
        self.value, self.step, self.n_since = value, step, 0
        return True

    def state(self) -> dict[str, Any]:
        """Return what a resumed run must know, as plain values for JSON."""
        return {"measure": self.measure, "value": self.value, "step": self.step, "n_since": self.n_since}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`, unless it is of another measure: then the next verification is the best."""
        if state.get("measure") == self.measure:
            self.value, self.step, self.n_since = state["value"], state["step"], state["n_since"]

    def line(self) -> str:
        """Say what is best."""
        return f"Best by {self.measure}: {self.value:.5f} at step {self.step}, kept in {self.best_dir}"

    def _save(self, step: int) -> None:
        try:
            os.makedirs(self.best_dir, exist_ok=True)
            for name in (CONFIG_FILE, TRAINING_SET_FILE):
                with written_aside(os.path.join(self.best_dir, name)) as aside:
                    shutil.copyfile(os.path.join(self._run_dir, name), aside)
        except OSError as error:
            raise UserError(
                f"the folder of the best weights must be writable; {self.best_dir!r}: {error.strerror}"
            ) from error
        if self._checkpoints is None:
            self._checkpoints = Checkpoints(self.best_dir, {"averaged": self._averaged.weights}, keep=1)
        self._checkpoints.save(step)
