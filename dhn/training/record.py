"""What is seen of a training run: a bar, a line per epoch, `metrics.jsonl`, TensorBoard."""

import json
import logging
import math
import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import torch

from dhn.base.errors import DhnError
from dhn.base.progress import Progress, silent
from dhn.training.loss import PoseLoss

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

# Of networks with so many heatmaps, coarse before fine and 1/4 before 1/2. A network of one stage
# learns the targets of the fine one.
_HEATMAPS = {
    1: ("fine_quarter",),
    2: ("fine_quarter", "fine_half"),
    4: ("coarse_quarter", "coarse_half", "fine_quarter", "fine_half"),
}


_log = logging.getLogger(__name__)


class Record:
    """Shows and writes how a run goes.

    Each epoch is a line of `metrics.jsonl`: means of the losses (`loss`, `heatmap_STAGE_LEVEL`,
    `heatmap` of the last map beside `flat`, what an all-zero map would have; `pull`, `push`), the
    last `lr`, `skipped` updates, `images_per_second`, `data_wait` (share of the time in which the
    network waited for images), `memory_gb` and `cuda_memory_gb` (the most so far), and AP and the
    like where it was scored. TensorBoard gets the same numbers, and images.

    Its state is part of a checkpoint: lines written after it are taken back on a resume, and
    the means of an epoch go on where they were.

    Args:
        run: the folder.
        epochs, batches: updates of the run are their product.
        main: whether this process is the one that shows and writes; others only count.
        tensorboard: write for TensorBoard, where it is installed.
    """

    _sums: torch.Tensor  # of the losses, on their device: reading it waits for the device
    _STATE = ("sums", "steps", "images", "skipped", "lr", "waited", "seconds")

    def __init__(
        self,
        run: Path,
        epochs: int,
        batches: int,
        *,
        main: bool = True,
        tensorboard: bool = False,
        quiet: bool = False,
        progress: Progress = silent,
    ) -> None:
        self.path = run / "metrics.jsonl"
        self.epochs = epochs
        self.main = main
        self.quiet = quiet or not main
        self.bar = (progress if main else silent)("Training", epochs * batches)
        self._tensorboard = tensorboard and main
        self._writer: SummaryWriter | None = None
        self._size = 0  # bytes of the file
        self._lr = 0.0
        self._clear()

    def __enter__(self) -> "Record":
        self.bar.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.bar.__exit__(*error)
        if self._writer is not None:
            self._writer.close()

    def start(self, updates: int) -> None:
        """Call once, before the first update: so many were done in earlier sessions."""
        if self.main and self.path.exists() and self.path.stat().st_size > self._size:
            os.truncate(self.path, self._size)
        self.bar.begin_at(updates)
        self._mark = time.monotonic()

    def step(self, loss: PoseLoss | None, images: int, waited: float, lr: float) -> None:
        """Call after each update.

        Args:
            loss: of the batch; None where none of its images could be read.
            images: images in it.
            waited: seconds until it was there.
        """
        self._lr = lr
        self._waited += waited
        if loss is not None:
            parts = [loss.total, *loss.heatmaps, loss.flat, loss.pull, loss.push]
            row = torch.stack([part.detach().float() for part in parts])
            self._sums = row + self._sums.to(row.device)
            self._steps += 1
            self._images += images
        self._tick()

    def skip(self, names: Sequence[str]) -> None:
        """Call instead of `step` where an update was skipped.

        Args:
            names: the images, if they are to blame.
        """
        self._skipped += 1
        if names:
            _log.warning(f"loss or gradient not finite, update skipped; images: {', '.join(names)}")
        self._tick()

    def epoch(self, epoch: int, stats: dict[str, float]) -> None:
        """Call after each epoch; `stats` are of the held-out split, empty where not scored."""
        line = {"epoch": epoch, "lr": self._lr, **self._means(), "skipped": self._skipped, **stats}
        if self.main:
            self._append(line)
        if not self.quiet:
            click.echo(_epoch_line(line, self.epochs))
        if writer := self._open_tensorboard(epoch):
            for key, value in line.items():
                if key != "epoch" and math.isfinite(value):
                    writer.add_scalar(_tag(key), value, epoch)
            writer.flush()
        self._clear()
        self._mark = time.monotonic()

    def sheets(self, epoch: int, sheets: Iterable[np.ndarray]) -> None:
        """Writes RGB uint8 [H, W, 3] images for TensorBoard; without it none is asked for."""
        if writer := self._open_tensorboard(epoch):
            for number, sheet in enumerate(sheets):
                writer.add_image(f"images/{number}", sheet, epoch, dataformats="HWC")

    def state_dict(self) -> dict[str, Any]:
        return {"size": self._size} | {key: getattr(self, f"_{key}") for key in self._STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for key in self._STATE:
            setattr(self, f"_{key}", state[key])
        self._size = state["size"]

    def _clear(self) -> None:
        self._sums = torch.zeros(())
        self._steps: int = 0
        self._images: int = 0
        self._skipped: int = 0
        self._waited: float = 0
        self._seconds: float = 0

    def _tick(self) -> None:
        # Between updates only: an evaluation is no part of the speed.
        now = time.monotonic()
        self._seconds += now - self._mark
        self._mark = now
        self.bar.advance(1, self._note)

    def _means(self) -> dict[str, float]:
        """Reads the losses from the device."""
        means = dict.fromkeys(("loss", "heatmap", "flat", "pull", "push"), math.nan)
        if self._steps:
            total, *heatmaps, flat, pull, push = (self._sums / self._steps).tolist()
            names = (f"heatmap_{name}" for name in _HEATMAPS[len(heatmaps)])
            means = {"loss": total, **dict(zip(names, heatmaps, strict=True))}
            means |= {"heatmap": heatmaps[-1], "flat": flat, "pull": pull, "push": push}
        seconds = max(self._seconds, 1e-9)
        means |= {"images_per_second": self._images / seconds, "data_wait": self._waited / seconds}
        return means | _memory(self._sums.device)

    def _note(self) -> str:
        """For the progress bar."""
        return _losses(m := self._means()) + "\n" + _speed(m)

    def _append(self, line: dict[str, float]) -> None:
        # JSON has no NaN: the mean of no steps is null.
        finite = {k: v if math.isfinite(v) else None for k, v in line.items()}
        try:
            with self.path.open("a") as log:
                log.write(json.dumps(finite) + "\n")
            self._size = self.path.stat().st_size
        except OSError as error:
            raise DhnError(f"{self.path}: cannot be written ({error.strerror})") from error

    def _open_tensorboard(self, epoch: int) -> "SummaryWriter | None":
        if self._tensorboard and self._writer is None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                self._tensorboard = False
                if not self.quiet:
                    _log.warning(
                        "no curves and images for TensorBoard, which is not installed: "
                        "pip install 'dhn[curves]', or train.tensorboard=off"
                    )
                return None
            # What an earlier session wrote of this epoch and later ones is taken back.
            self._writer = SummaryWriter(str(self.path.parent), purge_step=epoch)
        return self._writer


def _tag(key: str) -> str:
    """TensorBoard groups by what stands before the slash."""
    group = "loss" if key in ("loss", "flat", "pull", "push") else key.partition("_")[0]
    groups = {"AP": "score", "AR": "score", "images": "speed", "data": "speed", "cuda": "memory"}
    return f"{groups.get(group, group)}/{key}"


def _memory(device: torch.device) -> dict[str, float]:
    """Most memory so far, of this process and on its GPU, in GB (1e9 bytes)."""
    memory = {}
    if sys.platform != "win32":
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        memory["memory_gb"] = peak / (1e9 if sys.platform == "darwin" else 1e9 / 1024)
    if device.type == "cuda":
        memory["cuda_memory_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    return memory


def _epoch_line(line: dict[str, float], epochs: int) -> str:
    ap = f", AP {100 * line['AP']:.1f}" if "AP" in line else ""
    return f"epoch {line['epoch']}/{epochs}: {_losses(line)}, {_speed(line)}{ap}"


def _losses(m: dict[str, float]) -> str:
    stages = [
        f"{stage} " + " ".join(f"{m[key]:.5f}" for key in keys)
        for stage in ("coarse", "fine")
        if (keys := [key for key in m if key.startswith(f"heatmap_{stage}")])
    ]
    heatmaps = ", ".join(stages) or f"{m['heatmap']:.5f}"
    return (
        f"loss {m['loss']:.5f}, heatmaps {heatmaps} (flat map {m['flat']:.5f}), "
        f"pull {m['pull']:.3f}, push {m['push']:.3f}"
    )


def _speed(m: dict[str, float]) -> str:
    memory = "".join(
        f", {name} {m[key]:.1f} GB"
        for key, name in (("memory_gb", "memory"), ("cuda_memory_gb", "CUDA"))
        if key in m
    )
    return f"{m['images_per_second']:.1f} images/s, data wait {m['data_wait']:.1%}{memory}"
