"""Training, from the settings to checkpoints, read from top to bottom."""

import json
import math
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import cv2
import torch
from torch.utils.data import DataLoader

from dhn.annotations import Annotations, load_annotations
from dhn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from dhn.config import Config, override_config
from dhn.console import Bar, warn
from dhn.data import Augmentation, Batch, EpochSampler, PoseDataset, collate, normalise
from dhn.device import multiplies_bfloat16
from dhn.errors import DhnError
from dhn.evaluate import predict_dataset
from dhn.files import write_json, written_whole
from dhn.info import environment
from dhn.loss import PoseLoss, pose_loss
from dhn.model import PoseNetwork, build_model, channels_last
from dhn.predictor import Predictor
from dhn.scoring import score
from dhn.synth import generate, is_unfinished

MAX_BAD_STEPS = 20  # in a row, with a loss that is not finite
MAX_BAD_PICTURES = 100


def train(config: Config, run: Path, device: torch.device, *, quiet: bool = False) -> Path:
    """Trains a network, or goes on with the run that lies in `run`.

    A run folder holds `config.yaml`, `environment.json`, `metrics.jsonl` and `last.pt`, and
    `best.pt` (by AP) where a split is held out. Ctrl-C and SIGTERM write `last.pt` and stop.

    Returns:
        the checkpoint that is the result: `best.pt`, or `last.pt` where nothing is held out.

    Raises:
        DhnError: the data cannot be used, the loss stays non-finite, or the disk is full.
    """
    _draw_crowds(config, quiet)
    annotations = _annotations(config, config.data.split)
    held_out = _annotations(config, config.data.eval_split) if config.data.eval_split else None
    dataset = _dataset(config, annotations)
    sampler = EpochSampler(len(dataset), config.train.seed)
    loader = _loader(config, dataset, sampler)
    steps_per_epoch = math.ceil(len(dataset) / config.train.batch_size)

    torch.manual_seed(config.train.seed)
    network = config.network.model_dump() | {"num_joints": len(annotations.joints)}
    model = channels_last(build_model(**network).to(device))
    optimiser = _optimiser(config, model)
    state: dict[str, Any] = {"epoch": 0, "step": 0, "best_ap": -1.0}
    if (run / "last.pt").exists():
        state = _restore(run / "last.pt", network, model, optimiser)
    _open_run(config, run)

    def save(name: str) -> None:
        progress = state | {"optimiser": optimiser.state_dict()}
        settings = config.model_dump(mode="json")
        weights = model.state_dict()
        save_checkpoint(
            run / name, Checkpoint(network, annotations.joints, weights, settings, progress)
        )

    amp = _amp_dtype(config, device)
    failures: set[str] = set()
    bad_steps = 0
    total = config.train.epochs * steps_per_epoch
    with Bar("Training", total, quiet=quiet) as bar, _StopSignals() as stop:
        bar.advance(state["epoch"] * steps_per_epoch + state["step"])
        while state["epoch"] < config.train.epochs:
            model.train()
            sampler.epoch = state["epoch"]
            sampler.start = state["step"] * config.train.batch_size
            meter = _Meter()
            for batch in loader:
                _report_failures(batch, failures, len(dataset))
                done = state["epoch"] * steps_per_epoch + state["step"]
                for group in optimiser.param_groups:
                    group["lr"] = learning_rate(config, done / total, done / steps_per_epoch)
                loss = training_step(config, model, optimiser, batch, device, amp)
                bad_steps = bad_steps + 1 if loss is None and len(batch.image) else 0
                if bad_steps >= MAX_BAD_STEPS:
                    raise DhnError(
                        f"{run}: the loss was not finite for {bad_steps} steps in a row; "
                        "lower train.lr or set train.amp=off"
                    )
                state["step"] += 1
                if loss is not None:
                    meter.add(loss, len(batch.image))
                bar.advance(1, meter.note())
                if stop:
                    save("last.pt")
                    raise DhnError(f"stopped; go on with: dhn train --resume {run}")
            state["epoch"], state["step"] = state["epoch"] + 1, 0
            line = {"epoch": state["epoch"], "lr": optimiser.param_groups[0]["lr"], **meter.means()}
            last = state["epoch"] == config.train.epochs
            if held_out and (last or state["epoch"] % config.train.eval_every == 0):
                line |= _evaluate(config, model, held_out, device)
                if line["AP"] > state["best_ap"]:
                    state["best_ap"] = line["AP"]
                    save("best.pt")
            save("last.pt")
            with (run / "metrics.jsonl").open("a") as log:
                # JSON has no NaN: the mean of no steps is null.
                finite = {k: v if math.isfinite(v) else None for k, v in line.items()}
                log.write(json.dumps(finite) + "\n")
            if not quiet:
                click.echo(_epoch_line(line, config.train.epochs))
    best = run / "best.pt"
    return best if held_out and best.exists() else run / "last.pt"


def training_step(
    config: Config,
    model: PoseNetwork,
    optimiser: torch.optim.Optimizer,
    batch: Batch,
    device: torch.device,
    amp: torch.dtype | None,
) -> PoseLoss | None:
    """Forward, loss, backward, update. A loss that is not finite updates nothing: None."""
    if not len(batch.image):
        return None
    image = normalise(batch.image.to(device, non_blocking=True))
    with torch.autocast(device.type, amp, enabled=amp is not None):
        maps = model(image)
    settings = config.loss
    loss = pose_loss(
        maps,
        batch.keypoints.to(device, non_blocking=True),
        None if batch.mask is None else batch.mask.to(device, non_blocking=True),
        input_size=config.data.input_size,
        sigma=settings.sigma,
        taus=settings.tau,
        units=settings.units,
        form=settings.target,
        foreground=settings.foreground,
        pull=settings.pull,
        push=settings.push,
    )
    if not torch.isfinite(loss.total):
        return None
    optimiser.zero_grad(set_to_none=True)
    loss.total.backward()
    if config.train.clip_grad_norm:
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.train.clip_grad_norm)
    optimiser.step()
    return loss


def learning_rate(config: Config, share: float, epoch: float) -> float:
    """The learning rate after `share` (0..1) of the run, `epoch` epochs."""
    settings = config.train
    if share < settings.warmup:
        return settings.lr * max(share / settings.warmup, 1e-3)
    if settings.schedule == "step":
        return settings.lr * settings.gamma ** sum(epoch >= m for m in settings.milestones)
    rest = (share - settings.warmup) / (1 - settings.warmup)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * rest))


def new_run(config: Config) -> Path:
    """A folder for a run, named by network, data and time."""
    data = Path(config.data.dataset).stem
    name = f"{config.network.name}_w{config.network.width}_{data}"
    return Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def resumed_config(run: Path, overrides: Sequence[str] = ()) -> Config:
    """The settings that a run was started with, some of them changed.

    Raises:
        DhnError: `run` holds no checkpoint, or an override is wrong.
    """
    if not (run / "last.pt").exists():
        raise DhnError(f"--resume {run}: no last.pt there; give the folder of a run")
    return override_config(load_checkpoint(run / "last.pt").config, overrides, str(run))


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
    workers = config.data.workers
    return DataLoader(
        dataset,
        batch_size=config.train.batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=_start_worker,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=False,
    )


def _start_worker(_: int) -> None:
    # Signals may reach the whole group; only the parent answers them, and then ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _optimiser(config: Config, model: PoseNetwork) -> torch.optim.Optimizer:
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.train.optimiser]
    settings = config.train
    # Fused: one pass over hundreds of small tensors.
    return kind(model.parameters(), settings.lr, weight_decay=settings.weight_decay, fused=True)


def _amp_dtype(config: Config, device: torch.device) -> torch.dtype | None:
    if config.train.amp == "bf16" or (config.train.amp == "auto" and multiplies_bfloat16(device)):
        return torch.bfloat16
    return None


def _open_run(config: Config, run: Path) -> None:
    with written_whole(run / "config.yaml") as path:
        path.write_text(config.to_yaml())
    write_json(run / "environment.json", environment(), indent=2)


def _restore(
    path: Path, network: dict[str, Any], model: PoseNetwork, optimiser: torch.optim.Optimizer
) -> dict[str, Any]:
    checkpoint = load_checkpoint(path)
    for key, value in network.items():
        before = checkpoint.network.get(key)
        if before != value:
            raise DhnError(f"{path}: its network has {key} {before}, which cannot become {value}")
    model.load_state_dict(checkpoint.weights)
    progress = dict(checkpoint.progress)
    # Moments as they were, but lr and weight_decay as the settings now say.
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict(progress.pop("optimiser") | {"param_groups": groups})
    return progress


def _report_failures(batch: Batch, known: set[str], pictures: int) -> None:
    for failure in batch.failures:
        if failure not in known:
            warn(failure)
            known.add(failure)
    if len(known) > MAX_BAD_PICTURES or len(known) == pictures:
        raise DhnError(f"{len(known)} of {pictures} pictures cannot be read; check the data")


def _evaluate(
    config: Config, model: PoseNetwork, held_out: Annotations, device: torch.device
) -> dict[str, float]:
    model.eval()
    predictor = Predictor(
        model,
        held_out.joints,
        device=device,
        input_size=config.data.eval_size or config.data.input_size,
        precision="bfloat16" if _amp_dtype(config, device) else "float32",
    )
    results, failures = predict_dataset(predictor, held_out, quiet=True)
    for failure in failures:
        warn(failure)
    return score(held_out.raw, results, held_out.scoring)


def _epoch_line(line: dict[str, float], epochs: int) -> str:
    ap = f", AP {100 * line['AP']:.1f}" if "AP" in line else ""
    return (
        f"epoch {line['epoch']}/{epochs}: loss {line['loss']:.5f}, last heatmap "
        f"{line['heatmap']:.5f} (flat map {line['flat']:.5f}), pull {line['pull']:.3f}, "
        f"push {line['push']:.3f}, {line['images_per_second']:.1f} images/s{ap}"
    )


class _Meter:
    """Means of the losses since it was made; read from the device when shown, not every step."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.steps = self.images = 0
        self.sums: torch.Tensor | None = None
        self._note = ""

    def add(self, loss: PoseLoss, images: int) -> None:
        parts = [loss.total.detach(), loss.heatmaps[-1], loss.flat, loss.pull, loss.push]
        row = torch.stack([part.float() for part in parts])
        self.sums = row if self.sums is None else self.sums + row
        self.steps += 1
        self.images += images

    def means(self) -> dict[str, float]:
        names = ("loss", "heatmap", "flat", "pull", "push")
        sums = [math.nan] * len(names) if self.sums is None else self.sums.tolist()
        means = {n: s / max(1, self.steps) for n, s in zip(names, sums, strict=True)}
        return means | {"images_per_second": self.images / (time.monotonic() - self.started)}

    def note(self) -> str:
        """For the progress bar; anew every ten steps."""
        if self.steps % 10:
            return self._note
        m = self.means()
        self._note = (
            f"loss {m['loss']:.4f} heatmap {m['heatmap']:.5f} (flat {m['flat']:.5f}) "
            f"pull {m['pull']:.3f} push {m['push']:.3f} "
            f"{m['images_per_second']:.1f} images/s"
        )
        return self._note


class _StopSignals:
    """Turns SIGINT and SIGTERM into a list that is no longer empty; a second one interrupts."""

    def __enter__(self) -> list[int]:
        self.received: list[int] = []
        self.before = {
            number: signal.signal(number, self._receive)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self.received

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _: Any) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received.append(number)
