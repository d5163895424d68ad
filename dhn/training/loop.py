"""Training, from the settings to checkpoints, read from top to bottom."""

import itertools
import logging
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import click
import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from dhn.base.distributed import ALONE, World
from dhn.base.errors import DhnError, SettingError
from dhn.base.progress import Progress, silent
from dhn.data.annotations import Annotations, load_annotations
from dhn.data.dataset import Augmentation, Batch, EpochSampler, PoseDataset, collate
from dhn.evaluation.evaluate import predict_dataset
from dhn.evaluation.scoring import score
from dhn.inference.predictor import Predictor
from dhn.model import PoseNetwork, build_model
from dhn.synth import generate, is_unfinished
from dhn.training.config import Config
from dhn.training.learner import Learner, foreground_weight, learning_rate
from dhn.training.record import Record
from dhn.training.runs import Checkpoints, StopSignals, open_run, seed_everything
from dhn.training.sheets import draw_sheets

_log = logging.getLogger(__name__)

SHEETS = 4  # images for TensorBoard at each evaluation


def train(
    config: Config,
    run: Path,
    device: torch.device,
    *,
    world: World = ALONE,
    offline: bool = False,
    quiet: bool = False,
    progress: Progress = silent,
) -> Path:
    """Trains a network, or goes on with the run that lies in `run`.

    A run folder holds `config.yaml`, `environment.json`, `metrics.jsonl` and `last.pt`; `best.pt`
    (by AP) where a split is held out; `epochN.pt` where `train.keep_every` asks for them. Ctrl-C
    and SIGTERM write `last.pt` and stop; however a run ended, it goes on from `last.pt` to the
    weights it would have had.

    The processes of `world` share every batch; rank 0 reads and writes the run folder.

    Args:
        device: of this process.
        offline: use weights to start from (`train.init`) only where they are at hand.

    Returns:
        the checkpoint that is the result: `best.pt`, or `last.pt` where nothing is held out.

    Raises:
        DhnError: the data cannot be used, the loss stays non-finite, or the disk is full.
    """
    settings = config.train
    if world.main:
        _draw_crowds(config, progress)
    world.barrier()
    annotations = _annotations(config, "split")
    held_out = _annotations(config, "eval_split") if config.data.eval_split else None
    dataset = _dataset(config, annotations, quiet or not world.main)
    sampler = EpochSampler(
        len(dataset),
        settings.batch_size,
        settings.seed,
        parts=settings.accumulate,
        rank=world.rank,
        processes=world.size,
    )
    loader = _loader(config, dataset, sampler)

    seed_everything(settings.seed)
    network = config.network.model_dump() | {"num_joints": len(annotations.joints)}
    model = build_model(**network)
    if world.main and settings.init and not (run / "last.pt").exists():
        _start_from(model, settings.init, offline, quiet, progress)
    learner = Learner(config, model, device, world)
    record = Record(
        run,
        settings.epochs,
        sampler.batches,
        main=world.main,
        tensorboard=settings.tensorboard == "auto",
        quiet=quiet,
        progress=progress,
    )
    checkpoints = Checkpoints(run, config, network, annotations.joints, world)
    at = checkpoints.restore(learner, record)
    if world.main:
        open_run(config, run)

    updates = settings.epochs * sampler.batches
    skipped = 0  # in a row
    unreadable: set[str] = set()
    with StopSignals() as stop, record:
        record.start(at.epoch * sampler.batches + at.step)
        while at.epoch < settings.epochs:
            sampler.epoch, sampler.start = at.epoch, at.step
            for parts, waited in _batches(loader, settings.accumulate):
                _report_unreadable(config, parts, unreadable, len(dataset), world)
                done = at.epoch * sampler.batches + at.step
                lr = learning_rate(settings, done / updates, done / sampler.batches)
                foreground = foreground_weight(config.loss, done / updates)
                update = learner.update(parts, sampler.size(at.step), lr, foreground)
                at.step += 1
                if update.applied:
                    skipped = 0
                    record.step(update.loss, update.images, waited, lr)
                else:
                    skipped += 1
                    names = world.gather([name for part in parts for name in part.names])
                    record.skip([] if update.overflow else list(itertools.chain(*names)))
                    if skipped == settings.max_bad_steps:
                        raise DhnError(
                            f"{run}: loss or gradient was not finite for {skipped} updates in a "
                            "row; lower train.lr or set train.amp=off"
                        )
                stopped = world.any(bool(stop))
                if stopped or checkpoints.due():
                    checkpoints.save(["last.pt"], at, learner, record)
                if stopped:
                    world.barrier()  # the first process that ends may take the others with it
                    raise _stopped(run)

            stats: dict[str, float] = {}
            epoch = at.epoch + 1
            due = epoch == settings.epochs or epoch % settings.eval_every == 0
            if held_out and due:
                # It takes long, and a stop meanwhile must not cost the updates before it.
                checkpoints.save(["last.pt"], at, learner, record)
                with stop.at_once(_stopped(run)):
                    stats = _evaluate(config, learner, held_out, world)
            if due:
                record.sheets(epoch, _sheets(config, learner, held_out or annotations))
            at.epoch, at.step = epoch, 0
            record.epoch(epoch, stats)
            checkpoints.save_epoch(at, stats.get("AP"), learner, record)
    best = run / "best.pt"
    return best if held_out and best.exists() else run / "last.pt"


def _stopped(run: Path) -> DhnError:
    return DhnError(f"stopped; go on with: dhn train --resume {run}")


def _draw_crowds(config: Config, progress: Progress) -> None:
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
        progress=progress,
    )


def _annotations(config: Config, setting: Literal["split", "eval_split"]) -> Annotations:
    split = getattr(config.data, setting)
    try:
        annotations = load_annotations(config.data.dataset, split)
    except SettingError as error:
        raise DhnError(error.line(f"data.{setting}")) from error
    images = annotations.images
    if images and not any(image.path.is_file() for image in images):
        raise DhnError(
            f"{images[0].path.parent}: none of the {len(images)} images of split {split} "
            "is there; put them there"
        )
    return annotations


def _dataset(config: Config, annotations: Annotations, quiet: bool) -> PoseDataset:
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
        raise DhnError(f"{data.dataset}: no image of split {data.split} has a labelled joint")
    if dataset.left_out and not quiet:
        _log.warning(
            f"{len(dataset.left_out)} images show more than data.max_people={data.max_people} "
            f"people; their {sum(dataset.left_out)} smallest are not learnt"
        )
    return dataset


def _start_from(
    model: PoseNetwork, init: str, offline: bool, quiet: bool, progress: Progress
) -> None:
    """Loads what fits; published weights that cannot be had are no reason not to train."""
    from dhn.weights.download import fetch
    from dhn.weights.load import warm_start
    from dhn.weights.zoo import PUBLISHED

    try:
        path = fetch(init, offline=offline, progress=progress)
    except DhnError as error:
        if init not in PUBLISHED:
            raise
        _log.warning(f"{error}; training starts from scratch (train.init=null says so at once)")
        return
    try:
        told = warm_start(model, path)
    except DhnError as error:
        raise DhnError(f"{error}; train.init=null starts from scratch") from error
    if not quiet:
        click.echo(told)


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
    config: Config, parts: Sequence[Batch], known: set[str], images: int, world: World
) -> None:
    """Warns of each image once, whichever process met it."""
    failures = [failure for part in parts for failure in part.failures]
    if not world.any(bool(failures)):
        return
    for failure in itertools.chain(*world.gather(failures)):
        if failure not in known:
            _log.warning(failure)
            known.add(failure)
    limit = config.data.max_bad_images
    if len(known) > limit or len(known) == images:
        raise DhnError(
            f"{len(known)} of {images} images cannot be read; check the data, or raise "
            f"data.max_bad_images ({limit})"
        )


def _evaluate(
    config: Config, learner: Learner, held_out: Annotations, world: World
) -> dict[str, float]:
    """AP of the averaged weights, where there are any."""
    learner.agree()
    size = config.data.eval_size or config.data.input_size
    predictor = _predictor(learner, held_out, size)
    results, failures = predict_dataset(predictor, held_out, world=world)
    for failure in failures:
        _log.warning(failure)
    stats = score(held_out.raw, results, held_out.scoring) if world.main else {}
    return world.broadcast(stats)


def _sheets(config: Config, learner: Learner, annotations: Annotations) -> Iterator[np.ndarray]:
    """What the network makes of the first images, whole and centred."""
    size, loss = config.data.input_size, config.loss
    dataset = PoseDataset(annotations, input_size=size, augmentation=None)
    yield from draw_sheets(
        _predictor(learner, annotations, size),
        dataset,
        SHEETS,
        sigma=loss.sigma,
        tau=loss.tau[-1],
        units=loss.units,
        target=loss.target,
    )


def _predictor(learner: Learner, annotations: Annotations, input_size: int) -> Predictor:
    return Predictor(
        learner.best,
        annotations.joints,
        device=learner.device,
        input_size=input_size,
        precision="bfloat16" if learner.amp == torch.bfloat16 else "float32",
    )
