"""`train.batch_size=auto`: the largest batch that fits in memory."""

import gc
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dhn.base.distributed import World
from dhn.base.environment import free_memory, peak_memory, reset_peak_memory
from dhn.base.errors import DhnError
from dhn.data.dataset import Batch
from dhn.model import build_model
from dhn.training.config import load_config
from dhn.training.learner import Learner
from dhn.training.settings import Config

SHARE = 0.8  # of the free memory; masks, workers and fragments take some, too
_GROWTH = 256e6  # bytes: less is lost in what else the process does
_TRIAL = 64  # images at most, on a processor

Step = Callable[[int], None]  # an update with so many images


def with_batch_size(config: Config, size: int) -> Config:
    """The settings with a batch of `size` images."""
    return config.model_copy(update={"train": config.train.model_copy(update={"batch_size": size})})


def fitting_batch(
    config: Config,
    network: dict[str, Any],
    samples: int,
    run: Path,
    device: torch.device,
    world: World,
    report: Callable[[str], None],
) -> int:
    """The largest batch whose parts fit in the memory of every process.

    A run that has begun keeps the batch that it had. Trials use a network of their own, so nothing
    of the run depends on them.

    Args:
        config: the settings; their batch size is not read.
        network: arguments of `build_model`.
        samples: how many an epoch has; no batch is larger.
        run: the folder of the run.
        device: where this process computes.
        world: the processes that share the batch; all of them call this.
        report: is called with a line for people.

    Raises:
        DhnError: not even one image fits, or this system does not say how much memory is free.
    """
    before = world.broadcast(_batch_of(run) if world.main else None)
    if before is not None:
        report(f"batch: {before} images, as this run has had so far")
        return before
    shares = world.size * config.train.accumulate
    limit = math.ceil(samples / shares)
    step = _trial(config, network, device)
    if device.type == "cuda":
        part, why = _by_trial(step, limit, device)
    elif device.type == "cpu" and reset_peak_memory() and free_memory():
        world.barrier()  # all look at the free memory before one of them takes some
        budget = SHARE * free_memory() / world.local_size
        world.barrier()
        part, why = _by_measurement(step, limit, budget)
    else:
        raise DhnError(
            "train.batch_size: auto works on CUDA, and on processors under Linux; give a number"
        )
    part = world.broadcast(min(world.gather(part), default=0))
    if not part:
        raise DhnError(
            f"train.batch_size: not even one image of data.input_size={config.data.input_size} "
            "fits in memory; lower that, or the network's width"
        )
    size = min(samples, part * shares)
    each = f", {part} at a time" if shares > 1 else ""
    report(f"batch: {size} images{each}; {why}")
    return size


def _batch_of(run: Path) -> int | None:
    """The batch size of a run that has a checkpoint."""
    if not ((run / "last.pt").exists() and (run / "config.yaml").exists()):
        return None
    size = load_config(str(run / "config.yaml")).train.batch_size
    return None if size == "auto" else size


def _trial(config: Config, network: dict[str, Any], device: torch.device) -> Step:
    """An update of a network that is like the run's, with as many people as there may be."""
    plain = config.train.model_copy(update={"compile": False})  # which takes minutes for each size
    learner = Learner(config.model_copy(update={"train": plain}), build_model(**network), device)
    S, P, J = config.data.input_size, config.data.max_people, network["num_joints"]
    foreground = max(config.loss.foreground)

    def step(images: int) -> None:
        keypoints = torch.rand(images, P, J, 3) * S
        pixels = torch.zeros(images, S, S, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
        mask = torch.ones(images, S, S, dtype=torch.uint8)
        learner.update([Batch(pixels, keypoints, mask, [], [])], images, 1e-6, foreground)

    return step


def largest(fits: Callable[[int], bool], limit: int) -> int:
    """The largest number up to `limit` that fits, if all smaller ones do; 0 if not even 1 does.

    It doubles, then halves the gap: about 2 log2 of the result are tried.
    """
    low, high = 0, 1
    while high <= limit and fits(high):
        low, high = high, 2 * high
    high = min(high, limit + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _by_trial(step: Step, limit: int, device: torch.device) -> tuple[int, str]:
    """How many images fit on a GPU, and why so many."""
    free, total = torch.cuda.mem_get_info(device)
    own = torch.cuda.memory_reserved(device)
    torch.cuda.set_per_process_memory_fraction((own + SHARE * free) / total, device)

    def fits(images: int) -> bool:
        try:
            step(images)
            torch.cuda.synchronize(device)
        except torch.OutOfMemoryError:
            return False
        finally:
            torch.cuda.empty_cache()
        return True

    try:
        part = largest(fits, limit)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    why = "all that there are" if part == limit else f"more do not fit in {_gb(SHARE * free)}"
    return part, f"{why} of GPU memory" if part < limit else why


def _by_measurement(step: Step, limit: int, budget: float) -> tuple[int, str]:
    """How many images fit in `budget` bytes beyond what the process has now, and why so many.

    The peak grows by the same amount with each image. Two trials, one of them with twice as many
    images as the other, say by how much.
    """
    start = _peak_of(lambda: None)
    step(1)  # makes moments and gradients
    images, peak = 1, _peak_of(partial(step, 1))
    while True:
        more = min(2 * images, limit)
        if more == images:
            return (images if peak - start <= budget else 0), "all that there are"
        next_peak = _peak_of(partial(step, more))
        growth = next_peak - peak
        if growth >= _GROWTH or more >= min(_TRIAL, limit):
            break
        images, peak = more, next_peak
    each = max(growth, 1.0) / (more - images)
    fixed = max(0.0, next_peak - start - more * each)
    part = max(0, min(limit, math.floor((budget - fixed) / each)))
    what = f"{_gb(fixed)} and {_gb(each)} for each"
    if part == limit:
        return part, f"all that there are ({what})"
    return part, f"more do not fit in {_gb(budget)} of free memory ({what})"


def _peak_of(work: Callable[[], None]) -> int:
    """The most memory that this process has while it works, in bytes."""
    gc.collect()
    reset_peak_memory()
    work()
    return peak_memory()


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB"
