"""Training, from the settings to checkpoints, read from top to bottom."""

import contextlib
import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from dhn.base.distributed import ALONE, World
from dhn.base.errors import DhnError
from dhn.base.progress import Progress, silent
from dhn.data.dataset import Batch
from dhn.model import build_model
from dhn.training.batch_size import fitting_batch, with_batch_size
from dhn.training.learner import Learner, Update, foreground_weight, learning_rate
from dhn.training.record import Record, unseen
from dhn.training.runs import (
    Checkpoints,
    Position,
    StoppedError,
    StopSignals,
    locked,
    open_run,
    seed_everything,
)
from dhn.training.settings import Config
from dhn.training.setup import TrainingData, open_data, plan, start_from
from dhn.training.validation import score_held_out, sheets

_log = logging.getLogger(__name__)


def train(
    config: Config,
    run: Path,
    device: torch.device,
    *,
    world: World = ALONE,
    offline: bool = False,
    progress: Progress = silent,
    report: Callable[[str], None] = unseen,
) -> Path:
    """Trains a network, or goes on with the run whose folder is `run`.

    The folder holds `config.yaml`, `environment.json`, `metrics.jsonl` and `last.pt`; `best.pt` (by
    AP), where a split is held out; `epochN.pt`, where `train.keep_every` asks for them. However a
    run ended, it goes on from `last.pt` to the weights that it would have had.

    The processes of `world` share every batch; rank 0 reads and writes the folder.

    Args:
        config: the settings.
        run: the folder; it is made if need be.
        device: where this process computes.
        world: the processes of this job.
        offline: whether weights to start from (`train.init`) must be at hand already.
        progress: shows how far the training is.
        report: is called with lines for people: which weights were loaded, and how each epoch went.
            `print` shows what the command line shows.

    Returns:
        the checkpoint that is the result: `best.pt`, or `last.pt` where nothing is held out.

    Raises:
        StoppedError: SIGINT (Ctrl-C) or SIGTERM came; `last.pt` has been written.
        DhnError: the data cannot be used, another process trains in `run`, the loss stays
            non-finite, or the disk is full.
    """
    with locked(run) if world.main else contextlib.nullcontext():
        return _train(config, run, device, world, offline, progress, report)


def _train(
    config: Config,
    run: Path,
    device: torch.device,
    world: World,
    offline: bool,
    progress: Progress,
    report: Callable[[str], None],
) -> Path:
    data = open_data(config, world, progress)
    network = config.network.arguments() | {"num_joints": len(data.annotations.joints)}
    if config.train.batch_size == "auto":
        size = fitting_batch(config, network, data.sampler.length, run, device, world, report)
        config = with_batch_size(config, size)
        data.sampler.batch_size = size
    seed_everything(config.train.seed)
    model = build_model(**network)
    if world.main and config.train.init and not (run / "last.pt").exists():
        start_from(model, config.train.init, offline=offline, progress=progress, report=report)
    learner = Learner(config, model, device, world)
    record = Record(
        run,
        config.train.epochs,
        data.sampler.batches,
        main=world.main,
        tensorboard=config.train.tensorboard == "auto",
        progress=progress,
        report=report,
    )
    checkpoints = Checkpoints(run, config, network, data.annotations.joints, world)
    at = checkpoints.restore(learner, record)
    if world.main:
        open_run(config, run)
        for line in plan(config, data, learner):
            report(line)
    with StopSignals() as stop, record:
        training = _Training(config, data, learner, record, checkpoints, at, stop)
        record.start(training.updates_done())
        while at.epoch < config.train.epochs and not training.is_patience_over():
            training.run_epoch()
            training.finish_epoch()
    best = run / "best.pt"
    return best if data.held_out and best.exists() else run / "last.pt"


@dataclass
class _Training:
    """A training that is under way; `at` says how far."""

    config: Config
    data: TrainingData
    learner: Learner
    record: Record
    checkpoints: Checkpoints
    at: Position
    stop: StopSignals
    skipped: int = 0  # how many updates in a row
    unreadable: set[str] = field(default_factory=set)  # one line for each image

    def updates_done(self) -> int:
        return self.at.epoch * self.data.sampler.batches + self.at.step

    def is_patience_over(self) -> bool:
        """Whether the last scorings were no better than those before."""
        return 0 < self.config.train.patience <= self.at.since_best

    def run_epoch(self) -> None:
        """Does the remaining updates of the epoch."""
        at, batches, settings = self.at, self.data.sampler.batches, self.config.train
        for parts, waited in self.data.batches(at.epoch, at.step):
            self._check_readable(parts)
            done = self.updates_done()
            share = done / (settings.epochs * batches)
            lr = learning_rate(settings, share, done / batches)
            foreground = foreground_weight(self.config.loss, share)
            update = self.learner.update(parts, self.data.sampler.size(at.step), lr, foreground)
            at.step += 1
            if update.applied:
                self.skipped = 0
                self.record.step(update.loss, update.images, waited, lr)
            else:
                self._skip(update, parts)
            stopped = self.learner.world.any(bool(self.stop))
            if stopped or self.checkpoints.due():
                self.checkpoints.save(["last.pt"], at, self.learner, self.record)
            if stopped:
                # The first process that ends may take the others with it.
                self.learner.world.barrier()
                raise StoppedError(self.checkpoints.run)

    def finish_epoch(self) -> None:
        """Scores the held-out split, if that is due, and records the epoch."""
        at, held_out, settings = self.at, self.data.held_out, self.config.train
        stats: dict[str, float] = {}
        epoch = at.epoch + 1
        due = epoch == settings.epochs or epoch % settings.eval_every == 0
        if held_out and due:
            # Scoring takes long, and a stop meanwhile must not cost the updates before it.
            self.checkpoints.save(["last.pt"], at, self.learner, self.record)
            with self.stop.at_once(StoppedError(self.checkpoints.run)):
                stats = score_held_out(self.config, self.learner, held_out, self.learner.world)
        if due:
            shown = held_out or self.data.annotations
            self.record.sheets(epoch, sheets(self.config, self.learner, shown))
        at.epoch, at.step = epoch, 0
        self.record.epoch(epoch, stats)
        self.checkpoints.save_epoch(at, stats.get("AP"), self.learner, self.record)

    def _skip(self, update: Update, parts: Sequence[Batch]) -> None:
        """Records an update that was not applied; too many in a row end the run."""
        self.skipped += 1
        names = self.learner.world.gather([name for part in parts for name in part.names])
        self.record.skip([] if update.overflow else list(itertools.chain(*names)))
        if self.skipped == self.config.train.max_bad_steps:
            raise DhnError(
                f"{self.checkpoints.run}: loss or gradient was not finite for {self.skipped} "
                "updates in a row; lower train.lr or set train.amp=off"
            )

    def _check_readable(self, parts: Sequence[Batch]) -> None:
        """Warns of each unreadable image once, whichever process met it; too many end the run."""
        failures = [failure for part in parts for failure in part.failures]
        if not self.learner.world.any(bool(failures)):
            return
        for failure in itertools.chain(*self.learner.world.gather(failures)):
            if failure not in self.unreadable:
                _log.warning(failure)
                self.unreadable.add(failure)
        images, limit = len(self.data.dataset), self.config.data.max_bad_images
        if len(self.unreadable) > limit or len(self.unreadable) == images:
            raise DhnError(
                f"{len(self.unreadable)} of {images} images cannot be read; check the data, or "
                f"raise data.max_bad_images ({limit})"
            )
