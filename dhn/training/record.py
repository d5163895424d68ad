"""What a training shows and writes: a bar, a line for each epoch, `metrics.jsonl`, TensorBoard."""

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dhn.base.environment import peak_memory
from dhn.base.errors import DhnError
from dhn.base.progress import Progress, silent
from dhn.training.loss import PoseLoss

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_log = logging.getLogger(__name__)

# The heatmaps of networks with one, two and four of them, coarse before fine and 1/4 before 1/2.
# A network of one stage learns the targets of the fine one.
_HEATMAPS = {
    1: ("fine_quarter",),
    2: ("fine_quarter", "fine_half"),
    4: ("coarse_quarter", "coarse_half", "fine_quarter", "fine_half"),
}


def loss_parts(network: str) -> int:
    """How many losses a record adds up: those of the heatmaps, total, flat, pull and push."""
    heatmaps = {"hrnet": 1, "higherhrnet": 2, "doublehighernet": 4, "doublehighernet_lite": 4}
    return 4 + heatmaps[network]


def unseen(line: str) -> None:
    """Shows a line to nobody."""


@dataclass
class _Epoch:
    """Sums over the updates of the epoch so far; a checkpoint holds them.

    Attributes:
        sums: float [parts of the loss]. They stay on their device, because reading them waits for
            the device.
        steps: the number of updates in `sums`.
        images: the number of images that the network learnt from.
        skipped: the number of updates that were skipped.
        lr: the latest learning rate.
        waited: how many seconds passed without a batch.
        seconds: how many seconds passed altogether.
    """

    sums: Tensor = field(default_factory=lambda: torch.zeros(()))
    steps: int = 0
    images: int = 0
    skipped: int = 0
    lr: float = 0.0
    waited: float = 0.0
    seconds: float = 0.0


class Record:
    """Shows and writes how a run goes.

    Each epoch is a line of `metrics.jsonl` with
    - `loss`, `heatmap_STAGE_LEVEL`, `heatmap` (the last one of these), `pull` and `push`: means of
      the losses; `flat` is what `heatmap` would be for a map of zeros;
    - `lr`: the latest learning rate; `skipped`: how many updates were skipped;
    - `images_per_second`; `data_wait`: the share of the time in which the network had no images;
    - `memory_gb` and `cuda_memory_gb`: the most so far;
    - AP and the like, where the held-out split was scored.
    TensorBoard gets the same numbers, and images.

    The state of the record is part of a checkpoint. A resume takes back lines that were written
    after the checkpoint, and goes on with the means of its epoch.

    Args:
        run: the folder.
        epochs, batches: how many there are; their product is the number of updates.
        main: whether this process shows and writes; the others only count.
        tensorboard: whether to write for TensorBoard, where it is installed.
        progress: shows each update.
        report: is called with a line for each epoch.
    """

    def __init__(
        self,
        run: Path,
        epochs: int,
        batches: int,
        *,
        main: bool = True,
        tensorboard: bool = False,
        progress: Progress = silent,
        report: Callable[[str], None] = unseen,
    ) -> None:
        self.path = run / "metrics.jsonl"
        self.epochs = epochs
        self.main = main
        self.bar = (progress if main else silent)("Training", epochs * batches)
        self._report = report if main else unseen
        self._tensorboard = tensorboard and main
        self._writer: SummaryWriter | None = None
        self._size = 0  # bytes of the file
        self._epoch = _Epoch()

    def __enter__(self) -> "Record":
        self.bar.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.bar.__exit__(*error)
        if self._writer is not None:
            self._writer.close()

    def start(self, updates: int) -> None:
        """Call once, before the first update.

        Args:
            updates: how many earlier sessions have done.
        """
        if self.main and self.path.exists():
            self._take_back()
        self.bar.begin_at(updates)
        self._mark = time.monotonic()

    def step(self, loss: PoseLoss | None, images: int, waited: float, lr: float) -> None:
        """Call after each update.

        Args:
            loss: the loss of the batch; None where none of its images could be read.
            images: how many images the batch has.
            waited: how many seconds it was waited for.
            lr: the learning rate.
        """
        self._epoch.lr = lr
        self._epoch.waited += waited
        if loss is not None:
            row = torch.stack([part.detach().float() for part in loss.parts()])
            self._epoch.sums = row + self._epoch.sums.to(row.device)
            self._epoch.steps += 1
            self._epoch.images += images
        self._tick()

    def skip(self, names: Sequence[str]) -> None:
        """Call instead of `step` where an update was skipped.

        Args:
            names: the images, where they may be to blame.
        """
        self._epoch.skipped += 1
        if names:
            _log.warning(f"loss or gradient not finite, update skipped; images: {', '.join(names)}")
        self._tick()

    def epoch(self, epoch: int, stats: dict[str, float]) -> None:
        """Call after each epoch.

        Args:
            stats: the scores of the held-out split; empty where it was not scored.
        """
        line = {
            "epoch": epoch,
            "lr": self._epoch.lr,
            **self._means(),
            "skipped": self._epoch.skipped,
            **stats,
        }
        if self.main:
            self._append(line)
        self._report(_epoch_line(line, self.epochs))
        if writer := self._open_tensorboard(epoch):
            for key, value in line.items():
                if key != "epoch" and math.isfinite(value):
                    writer.add_scalar(_tag(key), value, epoch)
            writer.flush()
        self._epoch = _Epoch(lr=self._epoch.lr)
        self._mark = time.monotonic()

    def sheets(self, epoch: int, sheets: Iterable[np.ndarray]) -> None:
        """Writes RGB uint8 [H, W, 3] images for TensorBoard; without it, takes none of them."""
        if writer := self._open_tensorboard(epoch):
            for number, sheet in enumerate(sheets):
                writer.add_image(f"images/{number}", sheet, epoch, dataformats="HWC")

    def state_dict(self) -> dict[str, Any]:
        return {"size": self._size, **vars(self._epoch)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        sums = dict(state)
        self._size = sums.pop("size")
        self._epoch = _Epoch(**sums)

    def _tick(self) -> None:
        # Only the time of updates counts, not that of an evaluation.
        now = time.monotonic()
        self._epoch.seconds += now - self._mark
        self._mark = now
        self.bar.advance(1, self._note)

    def _means(self) -> dict[str, float]:
        """The numbers of the epoch so far. Reads the losses from the device."""
        epoch = self._epoch
        means = dict.fromkeys(("loss", "heatmap", "flat", "pull", "push"), math.nan)
        if epoch.steps:
            total, *heatmaps, flat, pull, push = (epoch.sums / epoch.steps).tolist()
            names = (f"heatmap_{name}" for name in _HEATMAPS[len(heatmaps)])
            means = {"loss": total, **dict(zip(names, heatmaps, strict=True))}
            means |= {"heatmap": heatmaps[-1], "flat": flat, "pull": pull, "push": push}
        seconds = max(epoch.seconds, 1e-9)
        means["images_per_second"] = epoch.images / seconds
        means["data_wait"] = epoch.waited / seconds
        return means | _memory(epoch.sums.device)

    def _note(self) -> str:
        """Describes the epoch so far, for the progress bar."""
        means = self._means()
        return f"{_losses(means)}\n{_speed(means)}"

    def _take_back(self) -> None:
        """Cuts the file to its recorded size; one that lost its end keeps its whole lines."""
        try:
            with self.path.open("r+b") as log:
                kept = log.read(self._size)
                whole = kept[: kept.rfind(b"\n") + 1]
                log.truncate(len(whole))
        except OSError as error:
            raise DhnError(f"{self.path}: cannot be written ({error.strerror})") from error
        if len(whole) < self._size:
            _log.warning(
                f"{self.path}: was cut short after the checkpoint; lines of finished epochs are "
                f"missing ({len(whole)} of {self._size} bytes are left)"
            )
            self._size = len(whole)

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
                self._report(
                    "no curves and images for TensorBoard, which is not installed: "
                    "pip install 'dhn[curves]', or train.tensorboard=off"
                )
                return None
            # Take back what an earlier session wrote about this epoch and later ones.
            self._writer = SummaryWriter(str(self.path.parent), purge_step=epoch)
        return self._writer


def _tag(key: str) -> str:
    """The name of a number in TensorBoard, which groups names by the word before the slash."""
    group = "loss" if key in ("loss", "flat", "pull", "push") else key.partition("_")[0]
    groups = {"AP": "score", "AR": "score", "images": "speed", "data": "speed", "cuda": "memory"}
    return f"{groups.get(group, group)}/{key}"


def _memory(device: torch.device) -> dict[str, float]:
    """The most memory in use so far, of this process and on its GPU, in GB (1e9 bytes)."""
    memory = {}
    if process := peak_memory():  # 0 where the system does not say
        memory["memory_gb"] = process / 1e9
    if device.type == "cuda":
        memory["cuda_memory_gb"] = peak_memory(device) / 1e9
    return memory


def _epoch_line(line: dict[str, float], epochs: int) -> str:
    ap = f", AP {100 * line['AP']:.1f}" if "AP" in line else ""
    return f"epoch {line['epoch']}/{epochs}: {_losses(line)}, {_speed(line)}{ap}"


def _losses(means: dict[str, float]) -> str:
    heatmaps = []
    for stage in ("coarse", "fine"):
        values = [f"{v:.5f}" for k, v in means.items() if k.startswith(f"heatmap_{stage}")]
        if values:
            heatmaps.append(f"{stage} {' '.join(values)}")
    return (
        f"loss {means['loss']:.5f}, "
        f"heatmaps {', '.join(heatmaps) or format(means['heatmap'], '.5f')} "
        f"(an all-zero map: {means['flat']:.5f}), "
        f"pull {means['pull']:.3f}, push {means['push']:.3f}"
    )


def _speed(means: dict[str, float]) -> str:
    text = f"{means['images_per_second']:.1f} images/s, data wait {means['data_wait']:.1%}"
    if "memory_gb" in means:
        text += f", memory {means['memory_gb']:.1f} GB"
    if "cuda_memory_gb" in means:
        text += f", CUDA {means['cuda_memory_gb']:.1f} GB"
    return text
