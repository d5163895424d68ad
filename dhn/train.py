"""Training, from the settings to checkpoints, read from top to bottom."""

import itertools
import json
import math
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import cv2
import torch
from torch.utils.data import DataLoader

from dhn.annotations import Annotations, load_annotations
from dhn.config import Config
from dhn.console import Bar, warn
from dhn.data import Augmentation, Batch, EpochSampler, PoseDataset, collate
from dhn.errors import DhnError
from dhn.evaluate import predict_dataset
from dhn.learner import Learner, learning_rate
from dhn.loss import PoseLoss
from dhn.model import build_model, channels_last
from dhn.predictor import Predictor
from dhn.runs import Checkpoints, StopSignals, open_run
from dhn.scoring import score
from dhn.synth import generate, is_unfinished


def train(config: Config, run: Path, device: torch.device, *, quiet: bool = False) -> Path:
    """Trains a network, or goes on with the run that lies in `run`.

    A run folder holds `config.yaml`, `environment.json`, `metrics.jsonl` and `last.pt`; `best.pt`
    (by AP) where a split is held out; `epochN.pt` where `train.keep_every` asks for them. Ctrl-C
    and SIGTERM write `last.pt` and stop; however a run ended, it goes on from `last.pt` to the
    weights it would have had.

    Returns:
        the checkpoint that is the result: `best.pt`, or `last.pt` where nothing is held out.

    Raises:
        DhnError: the data cannot be used, the loss stays non-finite, or the disk is full.
    """
    settings = config.train
    _draw_crowds(config, quiet)
    annotations = _annotations(config, config.data.split)
    held_out = _annotations(config, config.data.eval_split) if config.data.eval_split else None
    dataset = _dataset(config, annotations)
    sampler = EpochSampler(
        len(dataset), settings.batch_size, settings.seed, parts=settings.accumulate
    )
    loader = _loader(config, dataset, sampler)

    torch.manual_seed(settings.seed)
    network = config.network.model_dump() | {"num_joints": len(annotations.joints)}
    learner = Learner(config, channels_last(build_model(**network).to(device)), device)
    record = Record(run, settings.epochs, sampler.batches, quiet=quiet)
    checkpoints = Checkpoints(run, config, network, annotations.joints)
    at = checkpoints.restore(learner, record)
    open_run(config, run)

    updates = settings.epochs * sampler.batches
    skipped = 0  # in a row
    unreadable: set[str] = set()
    with StopSignals() as stop, record:
        record.start(at.epoch * sampler.batches + at.step)
        while at.epoch < settings.epochs:
            sampler.epoch, sampler.start = at.epoch, at.step
            for parts, waited in _batches(loader, settings.accumulate):
                _report_unreadable(config, parts, unreadable, len(dataset))
                done = at.epoch * sampler.batches + at.step
                lr = learning_rate(settings, done / updates, done / sampler.batches)
                update = learner.update(parts, sampler.size(at.step), lr)
                at.step += 1
                if update.applied:
                    skipped = 0
                    record.step(update.loss, update.images, waited, lr)
                else:
                    skipped += 1
                    record.skip([name for part in parts for name in part.names])
                if skipped == settings.max_bad_steps:
                    raise DhnError(
                        f"{run}: loss or gradient was not finite for {skipped} updates in a row; "
                        "lower train.lr or set train.amp=off"
                    )
                if stop or checkpoints.due():
                    checkpoints.save(["last.pt"], at, learner, record)
                if stop:
                    raise _stopped(run)

            stats: dict[str, float] = {}
            epoch = at.epoch + 1
            if held_out and (epoch == settings.epochs or epoch % settings.eval_every == 0):
                # It takes long, and a stop meanwhile must not cost the updates before it.
                checkpoints.save(["last.pt"], at, learner, record)
                with stop.at_once(_stopped(run)):
                    stats = _evaluate(config, learner, held_out)
            at.epoch, at.step = epoch, 0
            record.epoch(epoch, stats)
            names = ["last.pt"]
            if settings.keep_every and epoch % settings.keep_every == 0:
                names.insert(0, f"epoch{epoch}.pt")
            if stats and stats["AP"] > at.best_ap:
                at.best_ap = stats["AP"]
                names.insert(0, "best.pt")
            # In this order, last.pt comes last: a kill before it repeats the end of the epoch.
            checkpoints.save(names, at, learner, record)
    best = run / "best.pt"
    return best if held_out and best.exists() else run / "last.pt"


def _stopped(run: Path) -> DhnError:
    return DhnError(f"stopped; go on with: dhn train --resume {run}")


def _draw_crowds(config: Config, quiet: bool) -> None:
    """Makes the procedural crowds that the settings ask for, unless there is a data set already."""
    folder = Path(config.data.dataset)
    elsewhere = config.data.dataset in ("crowdpose", "coco") or folder.suffix == ".json"
    if not config.data.synthetic or elsewhere or (folder.exists() and not is_unfinished(folder)):
        return
    generate(
        folder,
        config.data.synthetic,
        seed=0,
        processes=os.cpu_count() or 1,
        overwrite=True,
        quiet=quiet,
    )


def _annotations(config: Config, split: str) -> Annotations:
    annotations = load_annotations(config.data.dataset, split)
    pictures = annotations.pictures
    if pictures and not any(picture.path.is_file() for picture in pictures):
        raise DhnError(
            f"{pictures[0].path.parent}: none of the {len(pictures)} pictures of split {split} "
            "is there; put them there"
        )
    return annotations


def _dataset(config: Config, annotations: Annotations) -> PoseDataset:
    data = config.data
    augmentation = Augmentation(data.rotation, data.scale, data.translation, data.flip, data.colour)
    dataset = PoseDataset(
        annotations,
        input_size=data.input_size,
        augmentation=augmentation,
        max_people=data.max_people,
        keep_empty=data.keep_empty,
        seed=config.train.seed,
    )
    if not len(dataset):
        raise DhnError(f"{data.dataset}: no picture of split {data.split} has a labelled joint")
    return dataset


def _loader(config: Config, dataset: PoseDataset, sampler: EpochSampler) -> DataLoader:
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=config.data.workers,
        collate_fn=collate,
        worker_init_fn=_start_worker,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=False,
        # Of its own: it draws a number for each epoch that is begun, also after a resume.
        generator=torch.Generator(),
    )


def _start_worker(_: int) -> None:
    # Signals may reach the whole group; only the parent answers them, and then ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _batches(loader: DataLoader, parts: int) -> Iterator[tuple[list[Batch], float]]:
    """The parts of each batch, and for how many seconds they were waited for."""
    every = iter(loader)
    while True:
        started = time.monotonic()
        batch = list(itertools.islice(every, parts))
        if not batch:
            return
        yield batch, time.monotonic() - started


def _report_unreadable(
    config: Config, parts: Sequence[Batch], known: set[str], pictures: int
) -> None:
    for part in parts:
        for failure in part.failures:
            if failure not in known:
                warn(failure)
                known.add(failure)
    limit = config.data.max_bad_pictures
    if len(known) > limit or len(known) == pictures:
        raise DhnError(
            f"{len(known)} of {pictures} pictures cannot be read; check the data, or raise "
            f"data.max_bad_pictures ({limit})"
        )


def _evaluate(config: Config, learner: Learner, held_out: Annotations) -> dict[str, float]:
    """AP of the averaged weights, where there are any."""
    predictor = Predictor(
        learner.best,
        held_out.joints,
        device=learner.device,
        input_size=config.data.eval_size or config.data.input_size,
        precision="bfloat16" if learner.amp == torch.bfloat16 else "float32",
    )
    results, failures = predict_dataset(predictor, held_out, quiet=True)
    for failure in failures:
        warn(failure)
    return score(held_out.raw, results, held_out.scoring)


class Record:
    """What is seen of a run: a progress bar, a line per epoch, and `metrics.jsonl`.

    Its state is part of a checkpoint: lines written after it are taken back on a resume, and
    the means of an epoch go on where they were.
    """

    _sums: torch.Tensor

    def __init__(self, run: Path, epochs: int, batches: int, *, quiet: bool = False) -> None:
        self.path = run / "metrics.jsonl"
        self.epochs = epochs
        self.quiet = quiet
        self.bar = Bar("Training", epochs * batches, quiet=quiet)
        self._note = ""
        self._size = 0  # bytes of the file
        self._started = time.monotonic()
        self._lr = 0.0
        self._clear()

    def __enter__(self) -> "Record":
        self.bar.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.bar.__exit__(*error)

    def start(self, updates: int) -> None:
        """Call once, before the first update: so many were done in earlier sessions."""
        self.bar.advance(updates)
        self._started = time.monotonic()

    def step(self, loss: PoseLoss | None, images: int, waited: float, lr: float) -> None:
        """Call after each update; `loss` is None where no picture of the batch could be read."""
        self._lr = lr
        self._waited += waited
        if loss is not None:
            parts = [loss.total, loss.heatmaps[-1], loss.flat, loss.pull, loss.push]
            self._sums = self._sums.to(loss.total.device) + torch.stack(parts)
            self._steps += 1
            self._images += images
        # Read from the device now and then, not every time.
        if self._steps % 10 == 0:
            m = self._means()
            self._note = (
                f"loss {m['loss']:.4f} heatmap {m['heatmap']:.5f} (flat {m['flat']:.5f}) "
                f"pull {m['pull']:.3f} push {m['push']:.3f} "
                f"{m['images_per_second']:.1f} images/s"
            )
        self.bar.advance(1, self._note)

    def skip(self, names: Sequence[str]) -> None:
        """Call instead of `step` where loss or gradient were not finite."""
        self._skipped += 1
        warn(f"loss or gradient not finite, update skipped; pictures: {', '.join(names)}")
        self.bar.advance(1, self._note)

    def epoch(self, epoch: int, stats: dict[str, float]) -> None:
        """Call after each epoch; `stats` are of the held-out split, empty where not scored."""
        line = {"epoch": epoch, "lr": self._lr, **self._means(), "skipped": self._skipped, **stats}
        # JSON has no NaN: the mean of no steps is null.
        finite = {k: v if math.isfinite(v) else None for k, v in line.items()}
        try:
            with self.path.open("a") as log:
                log.write(json.dumps(finite) + "\n")
            self._size = self.path.stat().st_size
        except OSError as error:
            raise DhnError(f"{self.path}: cannot be written ({error.strerror})") from error
        if not self.quiet:
            click.echo(_epoch_line(line, self.epochs))
        self._clear()
        self._started = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        return {"size": self._size} | {key: getattr(self, f"_{key}") for key in self._KEYS}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for key in self._KEYS:
            setattr(self, f"_{key}", state[key])
        self._size = state["size"]
        if self.path.exists() and self.path.stat().st_size > self._size:
            os.truncate(self.path, self._size)

    _KEYS = ("sums", "steps", "images", "skipped", "lr", "waited")

    def _clear(self) -> None:
        self._sums = torch.zeros(5)
        self._steps: int = 0
        self._images: int = 0
        self._skipped: int = 0
        self._waited: float = 0

    def _means(self) -> dict[str, float]:
        names = ("loss", "heatmap", "flat", "pull", "push")
        sums = self._sums.tolist() if self._steps else [math.nan] * len(names)
        means = {n: s / max(1, self._steps) for n, s in zip(names, sums, strict=True)}
        return means | {"images_per_second": self._images / (time.monotonic() - self._started)}


def _epoch_line(line: dict[str, float], epochs: int) -> str:
    ap = f", AP {100 * line['AP']:.1f}" if "AP" in line else ""
    return (
        f"epoch {line['epoch']}/{epochs}: loss {line['loss']:.5f}, last heatmap "
        f"{line['heatmap']:.5f} (flat map {line['flat']:.5f}), pull {line['pull']:.3f}, "
        f"push {line['push']:.3f}, {line['images_per_second']:.1f} images/s{ap}"
    )
