"""Times training against the official code of HigherHRNet: samples, updates, memory, and parts.

    python benchmarks/training.py ../higherhrnet --data data/coco

Both sides run on one machine, on the CPU, in turn, on the same decoded images, with fresh weights
and their own published recipes for COCO; official.py says how to get the official code, which
computes in float32. `ours float32` does so as well and is the fair comparison. `ours` is what
`dhn train` does by default (train.amp=auto): bfloat16 where the processor multiplies it.

Besides, it measures how long an update waits for its data, how long each part of ours takes for
HigherHRNet and DoubleHigherNet, and how much memory a process of each side has held at most.

Writes benchmarks/results/training.json.
"""

import contextlib
import itertools
import json
import multiprocessing
import random
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import click
import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, default_collate

import dhn.training.learner
from dhn.base.environment import environment, peak_memory
from dhn.base.files import write_json
from dhn.bench.timing import machine, summarise
from dhn.data.annotations import load_annotations
from dhn.data.dataset import Batch, EpochSampler, PoseDataset, collate
from dhn.data.joints import COCO
from dhn.media.images import read_image
from dhn.model import build_model
from dhn.model.normalise import normalise
from dhn.training.config import Config, load_config
from dhn.training.learner import Learner
from official import Official

RESULTS = Path(__file__).parent / "results" / "training.json"
CPU = torch.device("cpu")
SIDES = ("official", "ours float32", "ours")


@click.command()
@click.argument("official", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--data",
    type=click.Path(exists=True, path_type=Path),
    default=Path("../shared/data/coco_mini"),
    show_default=True,
    help="A folder in COCO's layout with a split train2017; some fifty images are enough.",
)
@click.option("--width", default=32, show_default=True, help="C; the official recipe is w32.")
@click.option(
    "--size", default=512, show_default=True, help="Side of the network input, in pixels."
)
@click.option("--batch-size", default=4, show_default=True)
@click.option(
    "--rounds",
    type=click.IntRange(min=2),
    default=4,
    show_default=True,
    help="How often each update is timed, after a warm-up.",
)
@click.option(
    "--workers", default=1, show_default=True, help="Data-loader workers of the wait for data."
)
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS)
def main(
    official: Path,
    data: Path,
    width: int,
    size: int,
    batch_size: int,
    rounds: int,
    workers: int,
    output: Path,
) -> None:
    """Time our training and that of the code in OFFICIAL."""
    bench = Bench(official, data, width, size, batch_size)
    result: dict[str, Any] = {
        "settings": {"width": width, "size": size, "batch_size": batch_size, "rounds": rounds},
    }

    def add(name: str, figures: Any) -> None:
        result[name] = figures
        click.echo(f"{name}: {json.dumps(figures, indent=1)}")

    add("samples_ms", time_samples(bench, max(5, rounds)))
    add("step_s", time_steps(bench, rounds))
    add("data_wait", data_wait(bench, rounds, workers))
    for network in ("higherhrnet", "doublehighernet"):
        add(f"profile_ms {network}_w{width}", profile(bench, network, rounds))
    add("peak_memory_gb", {side: peak_gigabytes(bench, side) for side in SIDES})
    result |= {"machine": machine(CPU), "environment": environment()}
    write_json(output, result, indent=1)


class Bench:
    """Both sides, set up to train on the same decoded images."""

    def __init__(self, official: Path, data: Path, width: int, size: int, batch_size: int) -> None:
        self.arguments = (official, data, width, size, batch_size)
        self.width, self.batch_size = width, batch_size
        self.official = OfficialTraining(official, data, width, size)
        self.dataset = PoseDataset(load_annotations(data, "train"), input_size=size)
        self.paths = [image.path for image in self.dataset.images]
        self.pixels = [read_image(path, ignore_orientation=True) for path in self.paths]
        self.official.decoded = {
            image.id: pixels for image, pixels in zip(self.dataset.images, self.pixels, strict=True)
        }
        self.overrides = [f"network.width={width}", f"data.input_size={size}"]

    def batches(self) -> list[list[int]]:
        """Indices of the images of each batch; what does not fill the last one is left out."""
        count = len(self.pixels) // self.batch_size * self.batch_size
        return np.arange(count).reshape(-1, self.batch_size).tolist()

    def our_batch(self, indices: list[int], epoch: int = 0) -> Batch:
        return collate([self.dataset.augment(self.pixels[i], epoch, i) for i in indices])

    def official_batch(self, indices: list[int]) -> Any:
        return self.official.batch([self.dataset.images[i].id for i in indices])

    def learner(self, network: str = "higherhrnet", amp: str = "auto") -> Learner:
        # The recipe with our own targets, from scratch: initial weights do not change the speed.
        config = self.config(network, amp)
        model = build_model(**config.network.arguments(), num_joints=len(self.dataset.joints))
        return Learner(config, model, CPU)

    def config(self, network: str, amp: str) -> Config:
        return load_config(f"{network}_w32_coco", [*self.overrides, f"train.amp={amp}"])

    def step(self, side: str) -> Callable[[], Any]:
        indices = self.batches()[0]
        if side == "official":
            return self.official.step(self.official_batch(indices))
        learner = self.learner(amp="off" if side == "ours float32" else "auto")
        batch = self.our_batch(indices)
        return lambda: learner.update([batch], self.batch_size, 1e-4)


class OfficialTraining(Official):
    """The official data set, which is handed decoded images here, and the loop over an epoch."""

    def __init__(self, repository: Path, data: Path, width: int, size: int) -> None:
        super().__init__(repository)
        cfg = self.settings(COCO, width=width, input_size=size)
        cfg.DATASET.ROOT = str(data)
        cfg.RANK = 1  # rank 0 also prints and draws
        self.cfg = cfg
        self.loss = import_module("core.loss").MultiLossFactory(cfg)
        self.do_train = import_module("core.trainer").do_train
        self.new_optimiser = import_module("utils.utils").get_optimizer
        self.decoded: dict[int, np.ndarray] = {}

        def decoded_image(dataset: Any, index: int) -> tuple[np.ndarray, list[Any]]:
            id = dataset.ids[index]
            return self.decoded[id], dataset.coco.loadAnns(dataset.coco.getAnnIds(imgIds=id))

        import_module("dataset.COCODataset").CocoDataset.__getitem__ = decoded_image
        self.dataset = import_module("dataset.build").build_dataset(cfg, True)

    def batch(self, ids: list[int]) -> Any:
        """Input, targets, masks and joints, from decoded images."""
        return default_collate([self.dataset[self.dataset.ids.index(id)] for id in ids])

    def step(self, batch: Any) -> Callable[[], None]:
        network = self.network(self.cfg)
        optimiser = self.new_optimiser(self.cfg, network)
        # The loop over an epoch that consists of one batch.
        return lambda: self.do_train(
            self.cfg, network, [batch], self.loss, optimiser, 0, "", "", None
        )


def time_samples(bench: Bench, rounds: int) -> dict[str, Any]:
    """Milliseconds per image from a decoded image to a sample in a batch, in one thread.

    Our workers hand over bytes, which the training process normalises. `ours` is what a worker
    does, as is all of `official`; `ours and normalise` adds what the training process does.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  the official code draws from it
    times: dict[str, list[float]] = {"official": [], "ours": [], "ours and normalise": []}
    for epoch, indices in itertools.product(range(rounds + 1), bench.batches()):
        theirs = seconds(partial(bench.official_batch, indices))
        started = time.perf_counter()
        batch = bench.our_batch(indices, epoch)
        ours = time.perf_counter() - started
        normalised = ours + seconds(partial(normalise, batch.image))
        if epoch:  # the first one warms up
            for values, taken in zip(times.values(), (theirs, ours, normalised), strict=True):
                values.append(1000 * taken / bench.batch_size)
    torch.set_num_threads(threads)
    return compared(times)


def time_steps(bench: Bench, rounds: int) -> dict[str, Any]:
    """Seconds of an update, from a batch in memory to new weights."""
    steps = {side: bench.step(side) for side in SIDES}
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    for turn in range(rounds + 1):
        for side, step in steps.items():
            taken = seconds(step)
            if turn:  # the first one warms up
                times[side].append(taken)
    return compared(times)


def data_wait(bench: Bench, rounds: int, workers: int) -> dict[str, Any]:
    """How long an update of ours waits for its batch, with workers that also read and decode."""
    learner = bench.learner()
    sampler = EpochSampler(len(bench.dataset), bench.batch_size)
    loader = DataLoader(
        bench.dataset, batch_sampler=sampler, collate_fn=collate, num_workers=workers
    )
    waits, total = [], 0.0
    batches = iter(loader)
    next(batches)  # workers start once
    for _ in range(min(rounds, len(loader) - 1)):
        started = time.perf_counter()
        batch = next(batches)
        waits.append(time.perf_counter() - started)
        learner.update([batch], len(batch.image), 1e-4)
        total += time.perf_counter() - started
    return {"workers": workers, "share_of_step": sum(waits) / total, "seconds": waits}


def profile(bench: Bench, network: str, rounds: int) -> dict[str, Any]:
    """Milliseconds that each part of our training takes for one batch, from files to new weights.

    A single worker would decode, warp and collate. `prepare` copies running statistics and
    normalises; `backward` includes the norm of the gradient and the test that it is finite.
    """
    learner = bench.learner(network)
    times: dict[str, list[float]] = {}
    for epoch, indices in zip(range(rounds + 1), itertools.cycle(bench.batches()), strict=False):
        marks = [("", time.perf_counter())]

        def mark(part: str, marks: list[tuple[str, float]] = marks) -> None:
            marks.append((part, time.perf_counter()))

        images = [read_image(bench.paths[i], ignore_orientation=True) for i in indices]
        mark("decode")
        samples = [
            bench.dataset.augment(image, epoch, i) for image, i in zip(images, indices, strict=True)
        ]
        mark("warp")
        batch = collate(samples)
        mark("collate")
        with marked(learner, mark):
            learner.update([batch], len(indices), 1e-4)
        if epoch:  # the first one warms up
            for (_, before), (part, after) in itertools.pairwise(marks):
                times.setdefault(part, []).append(1000 * (after - before))
    return {part: asdict(summarise(values)) for part, values in times.items()}


@contextlib.contextmanager
def marked(learner: Learner, mark: Callable[[str], None]) -> Iterator[None]:
    """Within it, `learner.update` calls `mark` at the end of each of its parts."""
    pose_loss = dhn.training.learner.pose_loss

    def marked_loss(*args: Any, **kwargs: Any) -> Any:
        loss = pose_loss(*args, **kwargs)
        mark("loss")
        return loss

    hooks = [
        learner.model.register_forward_pre_hook(lambda *_: mark("prepare")),
        learner.model.register_forward_hook(lambda *_: mark("forward")),
        learner.optimiser.register_step_pre_hook(lambda *_: mark("backward")),
        learner.optimiser.register_step_post_hook(lambda *_: mark("optimiser")),
    ]
    with mock.patch.object(dhn.training.learner, "pose_loss", marked_loss):
        yield
    for hook in hooks:
        hook.remove()


def peak_gigabytes(bench: Bench, side: str) -> float:
    """The most memory, in 1e9 bytes, that a process of its own holds during two updates."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as executor:
        return executor.submit(_peak_gigabytes, bench.arguments, side).result()


def _peak_gigabytes(arguments: tuple[Any, ...], side: str) -> float:
    step = Bench(*arguments).step(side)
    step()
    step()
    return peak_memory() / 1e9


def seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def compared(times: dict[str, list[float]]) -> dict[str, Any]:
    """Median and quartiles of each side, and how many times faster it is than the official code."""
    official = statistics.median(times["official"])
    return {
        side: asdict(summarise(values)) | {"ratio": official / statistics.median(values)}
        for side, values in times.items()
    }


if __name__ == "__main__":
    main()
