"""The training loop: sample, embed, mine, step, measure, evaluate, save."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from facenet_fast.backbones.tf1_names import NETWORK
from facenet_fast.checkpoints import Checkpoints, build_model, copy_weights, load_model
from facenet_fast.config import TrainConfig
from facenet_fast.data.identities import IdentityDataset, scan_identities, split_identities
from facenet_fast.data.images import Augmentation, ImageStore, augment, centre_crop, standardise
from facenet_fast.data.quarantine import without_quarantined
from facenet_fast.data.sampling import IdentitySampler
from facenet_fast.errors import UserError
from facenet_fast.evaluation.baselines import pixel_embedder, whitened_pca_embedder
from facenet_fast.evaluation.embed import Embedder
from facenet_fast.evaluation.exact import exact_verification
from facenet_fast.evaluation.verification import EUCLIDEAN, Verification
from facenet_fast.mining.strategies import PRESETS
from facenet_fast.models import keras_embedder, load_keras_file
from facenet_fast.models.tf1_weights import is_tf1, load_tf1_model
from facenet_fast.report.console import Console, Progress, console_for
from facenet_fast.report.measure import Measures, forget_after
from facenet_fast.report.plots import plot_verification
from facenet_fast.report.table import verification_line, verification_table
from facenet_fast.report.thumbnails import triplet_grid
from facenet_fast.thresholds import Similarity, Thresholds, save_thresholds, thresholds_at
from facenet_fast.training.best import BestWeights
from facenet_fast.training.devices import configure_devices
from facenet_fast.training.doctor import MOST_ROLLBACKS, Doctor
from facenet_fast.training.evaluators import Evaluator, held_out_evaluator, image_store, lfw_evaluator
from facenet_fast.training.interrupts import interrupt_deferred
from facenet_fast.training.lookalike import Lookalikes
from facenet_fast.training.optimizers import build_optimizer
from facenet_fast.training.pictures import draw_run, drawn, show_embeddings
from facenet_fast.training.pools import Pool, PoolReader, PoolShare, SharedPoolReader
from facenet_fast.training.replicas import Replicas, WorkerLost, replicas_for
from facenet_fast.training.run_folder import RunFolder, check_resumable, make_run_folder
from facenet_fast.training.schedules import learning_rate_schedule
from facenet_fast.training.shared_step import SharedStep, random_states
from facenet_fast.training.step import Outcome, Preparation, Step, TripletBatch
from facenet_fast.training.sub_pools import step_class
from facenet_fast.training.time_split import TimeSplit

__all__ = ["TrainResult", "train"]

_logger = logging.getLogger("facenet_fast")

_LFW_FILE = "lfw_result.txt"

# Settings that may be others on each machine.
_OWN_SETTINGS = {
    *("data_dir", "runs_dir", "logs_dir", "resume", "pretrained_model", "quarantine", "lfw_dir", "lfw_pairs"),
    *("cache_dir", "cache_megabytes", "threads", "gpu_memory_fraction", "log_every"),
}

Results = dict[str, dict[str, Verification]]


@dataclass(frozen=True)
class TrainResult:
    """What a run came to.

    Attributes
    ----------
    run_dir : str
        The run folder, which `load_model`, `validate` and `freeze` take. Of several workers only the chief
        has one; for the others it is empty, as are `checkpoint` and `results`.
    checkpoint : str
        Prefix of the last checkpoint.
    n_steps : int
        Optimiser steps made, those of earlier parts of a resumed run included.
    results : dict of dict of Verification
        By evaluator (``held_out``, ``lfw``), then by what was verified: ``plain pixels``, ``PCA, whitened``,
        ``network before``, ``network after``.
    """

    run_dir: str
    checkpoint: str
    n_steps: int
    results: Results


def train(config: TrainConfig) -> TrainResult:
    """Train a network, verify it, and leave all of it in a run folder.

    The global generators of Python, numpy and Keras are seeded with `TrainConfig.seed`.

    Parameters
    ----------
    config : TrainConfig
        All settings.

    Returns
    -------
    TrainResult

    Raises
    ------
    UserError
        For what the user can mend: folders, files, names, settings that do not fit the data, a loss that is
        not finite, another worker that has ended.
    KeyboardInterrupt
        On Ctrl-C, after a checkpoint was saved and named.
    """
    _check_strategy(config.strategy)
    rate = learning_rate_schedule(config)
    configure_devices(config)
    replicas = replicas_for(config)
    scanned = scan_identities(config.data_dir, min_identities=2)
    kept = without_quarantined(scanned, config.data_dir, config.quarantine) if config.quarantine else scanned
    dataset, held_out = split_identities(kept, config.n_held_out, config.seed)
    _check_same(replicas, config, dataset)
    if config.resume:
        check_resumable(config.resume)
    learner = _build_learner(config)
    sampler = _build_sampler(config, dataset)
    store = image_store(config, dataset.paths)
    with contextlib.ExitStack() as opened:
        if replicas.is_chief:
            folder = make_run_folder(config)
            if not config.resume:
                folder.write_training_set(dataset.n_images, dataset.n_identities)
            console = console_for(every=config.log_every)
            evaluators = _build_evaluators(config, held_out, folder)
        else:
            # What the others have to say of the training is the same.
            with console_for() as told:
                told.line(
                    f"Worker {replicas.worker} of {replicas.n_workers} trains; worker 0 tells how it goes"
                )
            opened.enter_context(_only_errors())
            log_dir = opened.enter_context(tempfile.TemporaryDirectory())
            folder = RunFolder(log_dir, log_dir)
            console = console_for(opened.enter_context(open(os.devnull, "w", encoding="utf-8")))
            evaluators = []
        opened.enter_context(console)
        measures = opened.enter_context(Measures(folder.logs_dir))
        pools = opened.enter_context(_build_reader(config, sampler, store, replicas))
        _introduce(console, config, folder, dataset, learner, replicas)
        if config.quarantine:
            n_left_out = scanned.n_images - kept.n_images
            console.line(f"Left out {n_left_out} of {scanned.n_images} images, as {config.quarantine} says")
        lookalikes = Lookalikes(config, dataset, store, replicas)
        doctor = Doctor(config, dataset.names)
        run = _Run(
            config, replicas, folder, console, measures, evaluators, learner, pools, lookalikes, doctor
        )
        run.compare_baselines(store, dataset.labels)
        if config.resume:
            run.restore()
            # Not before: a run that cannot go on with these settings or data keeps its own.
            if replicas.is_chief:
                folder.write_settings(config)
                folder.write_training_set(dataset.n_images, dataset.n_identities)
        else:
            run.stepper.settle()
            run.evaluate("network before")
        run.train(rate)
        return run.conclude()


@dataclass
class _Learner:
    """The network, its averaged twin and the optimizer."""

    model: keras.Model
    averaged: keras.Model
    optimizer: keras.Optimizer
    restored: str  # which weights are not new


@dataclass
class _Run:
    """One run of the loop, and the actions it is made of."""

    config: TrainConfig
    replicas: Replicas
    folder: RunFolder
    console: Console
    measures: Measures
    evaluators: list[Evaluator]
    learner: _Learner
    pools: PoolReader
    lookalikes: Lookalikes
    doctor: Doctor
    step: int = 0
    saved: str = ""
    saved_at: int = -1
    evaluated_at: int = -1
    results: Results = field(default_factory=dict)

    def __post_init__(self) -> None:
        learner = self.learner
        parts = (
            learner.model,
            learner.optimizer,
            learner.averaged,
            preparation(self.config),
            self.config,
        )
        if self.replicas.n_replicas > 1:
            self.stepper: Step = SharedStep(*parts, replicas=self.replicas)
        else:
            self.stepper = step_class(self.config)(*parts)
        self._progress = tf.Variable("", dtype=tf.string, trainable=False)
        self.checkpoints = Checkpoints(
            self.folder.run_dir,
            {
                "model": learner.model.weights,
                "averaged": learner.averaged.weights,
                "random": random_states(learner.model),
                "optimizer": learner.optimizer.variables,
                "progress": [self._progress],
            },
            keep=self.config.keep_checkpoints,
        )
        self._best = BestWeights(self.folder.run_dir, learner.averaged, self.config.best_by)
        self._split = TimeSplit()
        self._epoch_start = 0

    def train(self, rate: Callable[[int], float | None]) -> None:
        """Go on to the last step; on Ctrl-C save, say where, and raise `KeyboardInterrupt`.

        Raises
        ------
        UserError
            If another worker has ended, after a checkpoint was saved.
        """
        if (self.config.on_nan == "rollback" or self.replicas.n_workers > 1) and not self.saved:
            self.save()
        try:
            going_on = self._go_on()
            while going_on and self.step < self.config.n_steps and self._train_epoch(rate):
                going_on = self._end_epoch()
        except KeyboardInterrupt:
            if self.saved_at != self.step:
                self.save()
            self.console.line(
                f"Interrupted at step {self.step}: saved {self.saved}; "
                f"go on with: facenet-fast train --resume {self.folder.run_dir}"
            )
            raise
        except WorkerLost as error:
            raise self._abandoned() from error

    def _abandoned(self) -> UserError:
        """Save what there is, the rest of a step undone, and say how to go on without the others."""
        message = f"training stopped at step {self.step}, as another worker has ended"
        if not self.replicas.is_chief:
            return UserError(f"{message}; go on with the chief's run folder: facenet-fast train --resume")
        self.stepper.undo()
        if self.saved_at != self.step:
            self.save()
        return UserError(
            f"{message}: saved {self.saved}; go on with: facenet-fast train --resume {self.folder.run_dir}"
        )

    def _go_on(self) -> bool:
        """Do what a resumed run was ended before; return whether there is reason to go on."""
        at_end = self.step > 0 and self.step % self.config.epoch_size == 0
        if at_end and self.evaluated_at != self.step and self._is_to_evaluate():
            self.evaluate("network after")
            self.save()
        return not self._stops_early()

    def _train_epoch(self, rate: Callable[[int], float | None]) -> bool:
        """Make the steps of one epoch; return whether there is reason to go on."""
        config = self.config
        epoch_end = (self.step // config.epoch_size + 1) * config.epoch_size
        self._epoch_start = epoch_end - config.epoch_size
        self._split = TimeSplit()
        if self.lookalikes.is_due(self.step):
            self._find_lookalikes()
        start = time.perf_counter()
        while self.step < epoch_end:
            with self._split.of("read"):
                pool = self.pools.next()
            n_applied = n_rescaled = 0
            went_back = False
            with self._split.of("embed"):
                plan = self._plan(pool)
            if plan is None:
                continue
            if plan and isinstance(plan[0], TripletBatch):
                self._split.move(plan[0].mined.seconds, "mine", within="embed")
            for work in plan:
                learning_rate = rate(self.step)
                if learning_rate is None:
                    self.console.line(f"The schedule file ends training before step {self.step}.")
                    return False
                learning_rate *= self.doctor.rate_factor
                self.learner.optimizer.learning_rate = learning_rate
                with interrupt_deferred():
                    with self._split.of("step"):
                        outcome = self.stepper.run(work, self.step)
                    went_back = not outcome.is_finite
                    if went_back:
                        self._go_back(learning_rate)
                        break
                    self.step += outcome.is_applied
                    if outcome.is_applied:
                        self._measure_step(outcome, learning_rate, time.perf_counter() - start)
                        start = time.perf_counter()
                if not isinstance(work, TripletBatch):
                    self._split.move(outcome.mined.seconds, "mine", within="step")
                    self._split.move(outcome.mined.embed_seconds, "embed", within="step")
                n_applied += outcome.is_applied
                n_rescaled += outcome.is_rescaled
                if self.step == epoch_end:
                    # Its checkpoint is one to go back to.
                    if config.on_nan == "rollback" and not self._has_finite_weights():
                        self._go_back(learning_rate)
                        went_back = True
                    else:
                        self._show_triplets(pool)
                    break
            if went_back:
                continue
            n_empty = self.doctor.n_empty + config.pools_per_step
            self.doctor.n_empty = 0 if n_applied or n_rescaled else n_empty
            if self.doctor.n_empty >= config.max_empty_pools and not self._widen_pools():
                return False
        return True

    def _find_lookalikes(self) -> None:
        """Have pools made of people whom the averaged network confuses as it is now."""
        start = time.perf_counter()
        with self._split.of("embed"):
            neighbors = self.lookalikes.find(self.learner.averaged, self.console.line)
            with interrupt_deferred():
                self.pools.look_alike(neighbors)
                self.lookalikes.found(self.step)
        seconds = time.perf_counter() - start
        self.measures.measure("time/lookalikes", seconds, self.step)
        self.console.detail(f"Lookalikes of {len(neighbors)} people found in {seconds:.2f} seconds")

    def _plan(self, pool: Any) -> list[Any] | None:
        try:
            plan = self.stepper.plan(pool, self.step)
        except FloatingPointError:
            with interrupt_deferred():
                self._go_back(float(self.learner.optimizer.learning_rate))
            return None
        first = plan[0] if plan else None
        if isinstance(first, TripletBatch):
            # The predecessor's line, which calls the pairs it looked at random negatives.
            mined = first.mined
            self.console.detail(
                f"(nrof_random_negs, nrof_triplets) = ({mined.n_pairs}, {mined.n_triplets}): "
                f"time={mined.seconds:.3f} seconds"
            )
        return plan

    def _end_epoch(self) -> bool:
        """Tell, verify and save; return whether there is reason to go on."""
        for part, seconds in self._split.seconds().items():
            self.measures.measure(f"time/epoch_{part}", seconds, self.step)
        self.console.detail(f"Epoch took {self._split.line()}")
        if self._is_to_evaluate():
            self.evaluate("network after")
        self.doctor.name_missing(self.pools.missing(), self.config.single_image_weight)
        self.doctor.n_rollbacks = 0
        self.save()
        self.measures.flush()
        return not self._stops_early()

    def _is_to_evaluate(self) -> bool:
        """Say whether the network is verified after this epoch; what the last comes to is saved with it."""
        every = self.config.evaluate_every
        epoch = self.step // self.config.epoch_size
        return (every > 0 and epoch % every == 0) or self.step >= self.config.n_steps

    def _stops_early(self) -> bool:
        patience = self.config.early_stop
        if not patience or not self.replicas.share_decision(self._best.n_since >= patience):
            return False
        self.console.line(
            f"Stopped early at step {self.step}: {self._best.n_since} verifications no better by "
            f"{self.config.best_by} than that at step {self._best.step}"
        )
        return True

    def evaluate(self, name: str) -> None:
        """Verify the averaged network on every evaluator."""
        embedder = self._embedder()
        timed = {}
        for evaluator in self.evaluators:
            start = time.perf_counter()
            result = evaluator.run(embedder)
            timed[evaluator.name] = result, time.perf_counter() - start
        # All or nothing, as a resumed run verifies again what was not finished.
        with interrupt_deferred():
            # A resumed run that was at its end may verify once more what its checkpoint knows.
            is_known = name == "network after" and self.step > 0 and self.evaluated_at == self.step
            for group, (result, seconds) in timed.items():
                self.results.setdefault(group, {})[name] = result
                if not is_known:
                    self._measure_verification(group, result, seconds)
                if group == "lfw":
                    self._tell_lfw(result, seconds)
                else:
                    self.console.line(f"Held-out people at step {self.step}: {verification_line(result)}")
            if name == "network after" and self.evaluators and not is_known:
                self._best.see(self.results[self.evaluators[0].name][name], self.step)
            self.evaluated_at = self.step

    def _embedder(self) -> Embedder:
        return keras_embedder(
            self.learner.averaged,
            standardisation=self.config.standardisation,
            store_size=self.config.store_size,
        )

    def compare_baselines(self, store: ImageStore, labels: npt.NDArray[np.int32]) -> None:
        """Verify what needs no network on every evaluator; the PCA is fitted on the training images."""
        config = self.config
        if not (config.baselines and self.evaluators):
            return
        pca = whitened_pca_embedder(
            store,
            np.arange(len(labels)),
            labels,
            config.image_size,
            standardisation=config.standardisation,
        )
        pixels = pixel_embedder(
            config.image_size, standardisation=config.standardisation, store_size=config.store_size
        )
        for evaluator in self.evaluators:
            results = self.results.setdefault(evaluator.name, {})
            results["plain pixels"] = evaluator.run(pixels)
            results["PCA, whitened"] = evaluator.run(pca)

    def save(self) -> None:
        """Have the chief write a checkpoint of everything that decides how the run goes on."""
        if not self.replicas.is_chief:
            self.saved_at = self.step
            return
        state = {
            "step": self.step,
            "pools": self.pools.state(),
            "lookalikes": self.lookalikes.state(),
            "best": self._best.state(),
            "doctor": self.doctor.state(),
            "evaluated_at": self.evaluated_at,
        }
        if self.stepper.auto:
            state["auto_mining"] = self.stepper.auto.state()
        self._progress.assign(json.dumps(state))
        start = time.perf_counter()
        self.saved = self.checkpoints.save(self.step)
        self.saved_at = self.step
        seconds = time.perf_counter() - start
        self.measures.measure("time/save_variables", seconds, self.step)
        self.console.detail(f"Variables saved in {seconds:.2f} seconds")

    def restore(self) -> None:
        """Go on from the newest whole checkpoint of the run folder."""
        progress = ""
        if self.replicas.is_chief:
            self.saved = self.checkpoints.restore_whole()
            progress = self._progress.numpy().decode()
        state = json.loads(self.replicas.share_text(progress))
        self.stepper.settle()
        self.step = int(state["step"])
        self.pools.restore(state["pools"])
        self.lookalikes.restore(state.get("lookalikes", {}))
        self._best.restore(state.get("best", {}))
        self.doctor.restore(state.get("doctor", {}))
        if self.stepper.auto:
            self.stepper.auto.restore(state.get("auto_mining", {}))
        self.saved_at = self.step
        self.evaluated_at = int(state.get("evaluated_at", self.step))
        # What was measured since is measured again.
        self.measures.forget_after(self.step)
        forget_after(self.folder.logs_path(_LFW_FILE), self.step, lambda line: int(line.split("\t")[0]))
        self.console.line(f"Resumed from {self.saved}")

    def conclude(self) -> TrainResult:
        """Verify and save what training ended with, print the tables and draw the pictures."""
        if not self.replicas.is_chief:
            # Not before the chief: it would take this one for lost.
            self.replicas.share_decision(True)
            return TrainResult("", "", self.step, {})
        # A resumed run that was at its end knows what its verification came to, but has it not at hand.
        is_known = self.evaluated_at == self.step > 0
        at_hand = [self.results.get(evaluator.name, {}) for evaluator in self.evaluators]
        if not is_known or any("network after" not in results for results in at_hand):
            self.evaluate("network after")
        if not is_known or self.saved_at != self.step:
            self.save()
        for evaluator in self.evaluators:
            results = self.results[evaluator.name]
            self.console.line("")
            self.console.line(evaluator.title)
            for line in verification_table(results):
                self.console.line(line)
            path = self.folder.logs_path(f"verification_{evaluator.name}.png")
            with drawn(path) as aside:
                plot_verification(aside, results, "network after", evaluator.title)
                self.console.line(f"Picture: {path}")
        report_dir = draw_run(self.folder, self.results)
        show_embeddings(self.folder, self.evaluators, self._embedder())
        self._keep_thresholds()
        self.console.line("")
        self.console.line(f"Checkpoint: {self.saved}")
        self.console.line(f"How it went: {report_dir} and tensorboard --logdir {self.folder.logs_dir}")
        if self._best.value is not None:
            self.console.line(self._best.line())
            images_dir = self.config.data_dir if self.config.n_held_out else self.config.lfw_dir
            self.console.line(f"Verify again: facenet-fast validate {images_dir} {self.folder.run_dir}")
        self.console.line(f"For use: facenet-fast freeze {self.folder.run_dir} model.pb")
        with contextlib.suppress(WorkerLost):
            self.replicas.share_decision(True)
        return TrainResult(self.folder.run_dir, self.saved, self.step, self.results)

    def _keep_thresholds(self) -> None:
        """Keep the thresholds of the last evaluator's pairs with the run, for `facenet-fast compare`."""
        if not self.evaluators:
            return
        evaluator = self.evaluators[-1]
        verified = self.results[evaluator.name]["network after"]
        exact = exact_verification(verified.distances, verified.is_same, n_resamples=0)
        # Every network's head ends in L2 normalisation.
        points = thresholds_at(exact.operating_points, Similarity(EUCLIDEAN))
        if not points:
            return
        thresholds = Thresholds(
            metric=EUCLIDEAN,
            flipped=False,
            standardisation=self.config.standardisation,
            checkpoint=os.path.basename(self.saved),
            n_same=exact.roc.n_same,
            n_different=exact.roc.n_different,
            source=evaluator.title,
            points=points,
        )
        path = save_thresholds(thresholds, self.folder.run_dir)
        point = thresholds.at()
        self.console.line("")
        self.console.line(
            f"One person: distance below {point.threshold:.3f}, at FAR={point.far_target:g} (others: {path})"
        )

    def _measure_step(self, outcome: Outcome, learning_rate: float, seconds: float) -> None:
        mined = outcome.mined
        self.measures.measure_all(
            {
                "loss": outcome.loss,
                "learning_rate": learning_rate,
                "gradient_norm": outcome.gradient_norm,
                "mining/n_triplets": mined.n_triplets,
                "mining/active_fraction": mined.n_triplets / max(mined.n_pairs, 1),
                "time/selection": mined.seconds,
                "time/step": seconds,
                "images_per_second": outcome.n_images / seconds,
                **self.doctor.look(
                    self.stepper.seen, lambda: outcome.loss - self.stepper.penalty(), self.step
                ),
                **self._follow_mining(),
            },
            self.step,
        )
        if self.step % self.config.log_every == 0 and (seen := self.stepper.last_mined()):
            self.measures.show_histograms({"mining/d_ap": seen.d_ap, "mining/d_an": seen.d_an}, self.step)
        epoch, step = divmod(self.step - 1, self.config.epoch_size)
        self.console.progress(
            Progress(
                epoch=epoch,
                n_epochs=self.config.epochs,
                step=step + 1,
                epoch_size=self.config.epoch_size,
                seconds=seconds,
                loss=outcome.loss,
                learning_rate=learning_rate,
                n_triplets=mined.n_triplets,
                n_pairs=mined.n_pairs,
            )
        )

    def _follow_mining(self) -> dict[str, float]:
        """Have mining follow training if it is to, and return the level that mined the pool of this step."""
        auto = self.stepper.auto
        if auto is None:
            return {}
        level = auto.level
        if changed := auto.look(self.stepper.seen):
            self.console.line(f"Step {self.step}: {changed}")
        return {"mining/hardness": level}

    def _show_triplets(self, pool: Pool) -> None:
        """Show TensorBoard some triplets of the pool that was mined last."""
        if seen := self.stepper.last_mined():
            # Of a shared pool only those can be shown whose images are all here.
            rows = seen.rows - (pool.start if isinstance(pool, PoolShare) else 0)
            here = ((rows >= 0) & (rows < len(pool.images))).all(axis=1)
            if here.any():
                grid = triplet_grid(pool.images, rows[here], seen.d_ap[here], seen.d_an[here], seed=self.step)
                self.measures.show_image("mining/triplets", grid, self.step)

    def _tell_lfw(self, result: Verification, seconds: float) -> None:
        """Print the predecessor's lines."""
        self.console.line(f"Running forward pass on LFW images: {seconds:.3f}")
        self.console.line(f"Accuracy: {result.accuracy:1.3f}+-{result.accuracy_std:1.3f}")
        self.console.line(
            f"Validation rate: {result.val:2.5f}+-{result.val_std:2.5f} @ FAR={result.far:2.5f}"
        )

    def _measure_verification(self, group: str, result: Verification, seconds: float) -> None:
        for name, value in (
            ("accuracy", result.accuracy),
            ("val_rate", result.val),
            ("auc", result.auc),
            ("eer", result.eer),
        ):
            self.measures.measure(f"{group}/{name}", value, self.step)
        self.measures.measure(f"time/{group}", seconds, self.step)
        if group == "lfw":
            line = f"{self.step}\t{result.accuracy:.5f}\t{result.val:.5f}"
            self.folder.append_line(_LFW_FILE, line)

    def _go_back(self, learning_rate: float) -> None:
        """Go back to where all was finite and on from there with other images at a lower rate.

        To a checkpoint and not a copy in memory: it takes no memory, and is there for a resumed run, too,
        which so goes back to the same step as an unbroken one would.

        Raises
        ------
        UserError
            If that is not wanted, or has not helped.
        """
        doctor = self.doctor
        is_wanted = self.config.on_nan == "rollback"
        if not is_wanted or doctor.n_rollbacks == MOST_ROLLBACKS:
            newest = f"; the newest checkpoint is {self.saved}" if self.saved else ""
            tried = f", after {doctor.n_rollbacks} rollbacks in a row" if is_wanted else ""
            raise UserError(
                f"training stopped at step {self.step}, as the loss is no longer finite{tried}: lower the "
                f"learning rate (it was {learning_rate:g}){newest}"
            )
        step = restored = self.step
        if self.replicas.is_chief:
            name = f"model-{os.path.basename(self.folder.run_dir)}.ckpt-{self._epoch_start}"
            prefix = os.path.join(self.folder.run_dir, name)
            # Ctrl-C saves within an epoch, too, and only so many checkpoints are kept.
            restored = self.checkpoints.restore(prefix if os.path.exists(f"{prefix}.index") else self.saved)
        self.step = int(self.replicas.share([np.array(restored)])[0])
        self.stepper.settle()
        self.measures.forget_after(self.step)
        doctor.went_back()
        _logger.warning(
            "step %d: the loss is no longer finite (learning rate %g): went back to step %d, and go on with "
            "other images at %g times the rate",
            step,
            learning_rate,
            self.step,
            doctor.rate_factor,
        )

    def _has_finite_weights(self) -> bool:
        weights = [*self.learner.model.weights, *self.learner.averaged.weights]
        return all(np.isfinite(weight.numpy()).all() for weight in weights)

    def _widen_pools(self) -> bool:
        """After pools without triplets have pools hold more people, or tell why not; say whether they do."""
        n_empty, self.doctor.n_empty = self.doctor.n_empty, 0
        with interrupt_deferred():
            n_identities = self.pools.widen()
        if not n_identities:
            self._say_no_triplets(n_empty)
            return False
        _logger.warning(
            "step %d: %d pools in a row gave no triplet: pools are of %d people from here on",
            self.step,
            n_empty,
            n_identities,
        )
        return True

    def _say_no_triplets(self, n_empty: int) -> None:
        why = (
            "all negatives are beyond the margin (raise margin), or all embeddings have become one (lower "
            "the learning rate)"
        )
        if self.config.loss == "log_sum_exp":
            why = "none holds two images of one person and one of another"
        _logger.warning(
            "training stopped at step %d, as %d pools in a row gave no triplet: %s", self.step, n_empty, why
        )


def preparation(config: TrainConfig) -> Preparation:
    """Make the functions from uint8 images to the network's input that a configuration asks for."""
    strengths = Augmentation(**{one.name: getattr(config, one.name) for one in fields(Augmentation)})

    def train(images: Any, seed: Any) -> Any:
        changed = augment(images, strengths, seed, image_size=config.image_size)
        return standardise(changed, config.standardisation)

    def plain(images: Any) -> Any:
        return standardise(centre_crop(images, config.image_size), config.standardisation)

    return Preparation(train, plain)


def _build_sampler(config: TrainConfig, dataset: IdentityDataset) -> IdentitySampler:
    return IdentitySampler(
        dataset,
        config.identities_per_batch,
        config.images_per_identity,
        config.seed,
        group=config.lookalike_group if config.sampling == "lookalike" else 0,
        power=config.identity_power,
        repeat=config.repeat_images,
        single_image_weight=config.single_image_weight,
    )


def _build_reader(
    config: TrainConfig, sampler: IdentitySampler, store: ImageStore, replicas: Replicas
) -> PoolReader:
    if replicas.n_replicas > 1:
        return SharedPoolReader(sampler, store, replicas, config.batch_size)
    return PoolReader(sampler, store, config.pools_per_step)


@contextlib.contextmanager
def _only_errors() -> Iterator[None]:
    level = _logger.level
    _logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        _logger.setLevel(level)


def _check_same(replicas: Replicas, config: TrainConfig, dataset: IdentityDataset) -> None:
    """Refuse settings or data that are not the chief's.

    Raises
    ------
    UserError
        If they are not; it names what differs.
    """
    if replicas.n_workers == 1:
        return
    names = [*dataset.names, *map(os.path.basename, dataset.paths), *map(str, dataset.labels)]
    files = hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest()
    settings = {name: one for name, one in config.to_dict().items() if name not in _OWN_SETTINGS}
    here = json.dumps({**settings, "files": files})
    chief = json.loads(replicas.share_text(here))
    for name, one in json.loads(here).items():
        if one != chief[name] and name == "files":
            raise UserError(
                f"data_dir must hold the same files for every worker; {config.data_dir!r} here, with "
                f"{dataset.n_images} images of {dataset.n_identities} people, differs from the chief's"
            )
        if one != chief[name]:
            raise UserError(
                f"{name} must be the same for every worker; got {one!r} here, and the chief {chief[name]!r}"
            )


def _build_learner(config: TrainConfig) -> _Learner:
    keras.utils.set_random_seed(config.seed)
    model = build_model(config, config.precision)
    averaged = model
    if config.moving_average_decay > 0:
        averaged = build_model(config)
    restored = ""
    if config.pretrained_model and not config.resume:
        restored = _start_from(config.pretrained_model, model)
    averaged.set_weights(model.get_weights())
    return _Learner(model, averaged, build_optimizer(config, model.trainable_variables), restored)


def _start_from(path: str, model: keras.Model) -> str:
    """Fill a network with trained weights; return the line that says which."""
    not_used: list[str] = []
    if is_tf1(path):
        if model.name != NETWORK:
            raise UserError(
                f"backbone must be {NETWORK}, which the predecessor's weights are of; got {model.name} for "
                f"pretrained_model {path!r}"
            )
        source, not_used = load_tf1_model(path)
    else:
        source = load_keras_file(path) if path.endswith(".keras") else load_model(path)[0]
    new = copy_weights(source, model, path)
    line = f"Restored {len(model.weights) - len(new)} of {len(model.weights)} weights of {path}"
    line += f"; new: {', '.join(new)}" if new else ""
    if not_used:
        names = ", ".join(not_used[:5]) + (", ..." if len(not_used) > 5 else "")
        line += f"; {len(not_used)} not used: {names}"
    return line


def _build_evaluators(config: TrainConfig, held_out: IdentityDataset, folder: RunFolder) -> list[Evaluator]:
    evaluators = []
    if held_out.n_identities:
        pairs_path = folder.logs_path("held_out_pairs.txt")
        evaluators.append(held_out_evaluator(config, held_out, pairs_path))
    if config.lfw_dir:
        evaluators.append(lfw_evaluator(config))
    return evaluators


def _introduce(
    console: Console,
    config: TrainConfig,
    folder: RunFolder,
    dataset: IdentityDataset,
    learner: _Learner,
    replicas: Replicas,
) -> None:
    model = learner.model
    console.line(f"Model directory: {folder.run_dir}")
    console.line(f"Log directory: {folder.logs_dir}")
    if config.pretrained_model:
        console.line(f"Pre-trained model: {config.pretrained_model}")
    if learner.restored:
        console.line(learner.restored)
    if config.lfw_dir:
        console.line(f"LFW directory: {config.lfw_dir}")
    console.line(
        f"Training {model.name} ({model.count_params():,} weights) on {dataset.n_images} images of "
        f"{dataset.n_identities} people: {config.epochs} epochs of {config.epoch_size} steps"
    )
    if config.distribute != "none":
        console.line(f"Devices that train: {replicas.n_replicas} (processes: {replicas.n_workers})")


def _check_strategy(strategy: str) -> None:
    # What picks every candidate may be billions of triplets, and is for streams and counts.
    names = sorted(["auto", *(name for name, preset in PRESETS.items() if preset.pick != "every")])
    if strategy not in names:
        raise UserError(f"strategy must be one of {', '.join(names)}; got {strategy!r}")
