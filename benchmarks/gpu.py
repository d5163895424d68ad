"""Times the CUDA operators, predict and training on a GPU, and judges them by what it could do.

    python benchmarks/gpu.py --output FILE.json

- The operators run as a CUDA graph, timed by events: no launch from Python is in the times. Each
  graph goes through as many different inputs as it takes to leave none of them in the L2 cache.
  The bytes that an operator must move over its time are compared with the bandwidth of a copy,
  measured in the same run: 100 % is a kernel that nothing can make faster.
- Maps are float32 and contiguous, or bfloat16, channels last and slices of the network's output,
  as they occur. Batches are of 1 and 32 images of 512 x 512, with 5 people each.
- Predict: images per second from pixels in memory to people, with the flip test. Training: the
  time of an update. Of both, the share of the time in which the GPU computes.

`--device cpu --small` runs the same code without graphs on small maps; its figures mean nothing.
benchmarks/gpu_check.sh runs this after the tests.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import click
import numpy as np
import torch
from torch import Tensor

from dhn import ops
from dhn.base.device import multiplies_bfloat16
from dhn.base.files import write_json
from dhn.bench.scenes import crowd, scene_from_keypoints
from dhn.bench.timing import COPY_BYTES, machine, synchronize
from dhn.bench.untrained import randomise
from dhn.data.dataset import Batch
from dhn.data.joints import CROWDPOSE
from dhn.inference.predictor import Predictor
from dhn.model import build_model
from dhn.training.learner import Learner

J, PEOPLE, CANDIDATES = len(CROWDPOSE), 5, 30
TARGET = (2, 7.0, 10.0)  # stride, sigma and tau of a 1/2 map
RUNS = 5  # of each graph; their median counts

Call = Callable[[], Any]


class Problem(NamedTuple):
    """An operator on one set of inputs: what runs it, and the bytes that it must move at least."""

    run: Call
    bytes: int


class Layout(NamedTuple):
    """How the network's maps lie in memory."""

    name: str
    dtype: torch.dtype
    channels_last: bool


LAYOUTS = (
    Layout("float32, contiguous", torch.float32, False),
    Layout("bfloat16, channels last, sliced", torch.bfloat16, True),
)


class Maps:
    """The maps of a batch and the people in it, as the operators get them.

    Attributes:
        keypoints: float32 [B, P, J, 3] in input pixels.
        quarter, half: of two passes with two stages each, [B, J, h / 2, w / 2] and [B, J, h, w].
        heatmaps, tags: what decode reads, [B, J, h, w] and [B, J, 2, h, w], float32.
    """

    def __init__(self, batch: int, side: int, layout: Layout, device: torch.device, seed: int):
        draw = torch.Generator(device).manual_seed(seed)
        size = (side, side)

        def uniform(channels: int, side: int) -> Tensor:
            maps = torch.rand(batch, channels, side, side, generator=draw, device=device)
            maps = maps.to(layout.dtype)
            return maps.to(memory_format=torch.channels_last) if layout.channels_last else maps

        # The 1/4 maps of a network hold heatmaps and tags.
        width = 2 * J if layout.channels_last else J
        self.quarter = [uniform(width, side // 4)[:, :J] for _ in range(4)]
        self.half = [uniform(J, side // 2) for _ in range(4)]
        people = [crowd(PEOPLE, size, seed * batch + b) for b in range(batch)]
        scene = scene_from_keypoints(people[0], size, seed)
        self.keypoints = torch.cat(people).to(device)
        self.heatmaps = scene.heatmaps.to(device).repeat(batch, 1, 1, 1)
        self.tags = scene.tags.to(device).repeat(batch, 1, 1, 1, 1)
        self.size = size


def render(maps: Maps) -> Problem:
    side = maps.size[0]
    sizes = [(side // 4, side // 4), (side // 2, side // 2)] * 2
    run = partial(
        ops.render_heatmap_pyramid,
        maps.keypoints,
        sizes,
        [4, 2] * 2,
        [7.0] * 4,
        [10.0, 10.0, 7.0, 7.0],
    )
    return Problem(run, _bytes(run()))


def mse(maps: Maps) -> Problem:
    return Problem(
        lambda: ops.heatmap_mse(maps.half[0], maps.keypoints, None, *TARGET), _bytes(maps.half[:1])
    )


def mse_backward(maps: Maps) -> Problem:
    scale = torch.ones(len(maps.keypoints), device=maps.keypoints.device)
    stride, sigma, tau = map(float, TARGET)
    arguments = (scale, maps.half[0], maps.keypoints, None, stride, sigma, tau, "disc")
    run = partial(torch.ops.dhn.heatmap_mse_backward, *arguments)
    return Problem(run, 2 * _bytes(maps.half[:1]))


def aggregate(maps: Maps) -> Problem:
    quarter, half = maps.quarter, maps.half
    run = partial(
        ops.aggregate_heatmaps, quarter[:2], half[:2], quarter[2:], half[2:], CROWDPOSE.flip
    )
    return Problem(run, _bytes([*quarter, *half, run()]))


def peaks(maps: Maps) -> Problem:
    run = partial(ops.topk_peaks, maps.heatmaps, CANDIDATES, 5, maps.size, 0.1)
    return Problem(run, _bytes([maps.heatmaps]))


def decode(maps: Maps) -> Problem:
    """Peaks, reading, grouping and refinement, one after the other, without bringing them back."""

    def run() -> Tensor:
        _, indices = scores = ops.topk_peaks(maps.heatmaps, CANDIDATES, 5, maps.size, 0.1)
        xy, tags = ops.read_peaks(maps.heatmaps, maps.tags, indices, maps.size)
        people, counts = ops.group_tags(scores[0], xy, tags)
        return ops.refine_people(maps.heatmaps, maps.tags, people, counts, maps.size)

    # The heatmaps are read for their peaks; refinement reads both, where somebody lacks a joint.
    return Problem(run, _bytes([maps.heatmaps, maps.heatmaps, maps.tags]))


OPERATORS: dict[str, Callable[[Maps], Problem]] = {
    "render_heatmap_pyramid": render,
    "heatmap_mse": mse,
    "heatmap_mse backward": mse_backward,
    "aggregate_heatmaps": aggregate,
    "topk_peaks": peaks,
    "decode, on the GPU": decode,
}


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def seconds_per_call(calls: Sequence[Call], device: torch.device, seconds: float) -> float:
    """The time of one of the calls, which run one after the other; on CUDA as a graph."""
    for call in calls:
        call()  # allocates, and chooses algorithms

    def run_all() -> None:
        for call in calls:
            call()

    replay = run_all
    if device.type == "cuda":
        synchronize(device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run_all()
        replay = graph.replay
    first = _elapsed(replay, device, 1)
    repeats = max(1, int(seconds / RUNS / max(first, 1e-6)))
    runs = [_elapsed(replay, device, repeats) for _ in range(RUNS)]
    return statistics.median(runs) / repeats / len(calls)


def _elapsed(run: Call, device: torch.device, repeats: int) -> float:
    """Seconds that `repeats` runs take, by the clock of the device."""
    if device.type != "cuda":
        started = time.perf_counter()
        for _ in range(repeats):
            run()
        return time.perf_counter() - started
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        run()
    end.record()
    synchronize(device)
    return start.elapsed_time(end) / 1e3


def copies_needed(moved: int, device: torch.device) -> int:
    """How many sets of inputs, of `moved` bytes each, push one another out of the L2 cache."""
    if device.type != "cuda":
        return 2
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    return max(2, min(64, -(-3 * cache // max(moved, 1))))


def judged(moved: int, seconds: float, bandwidth: float) -> dict[str, float]:
    """How near a time comes to that of a copy of the same bytes.

    Args:
        moved: bytes that the operator must read and write.
        seconds: its time.
        bandwidth: bytes that a copy reads and writes per second.

    Returns:
        `us`; `floor_us`, the time of a copy; `gb_per_s`; `of_copy_bandwidth`, 1 at the floor.
    """
    return {
        "us": 1e6 * seconds,
        "floor_us": 1e6 * moved / bandwidth,
        "gb_per_s": moved / seconds / 1e9,
        "of_copy_bandwidth": moved / seconds / bandwidth,
    }


def time_operators(
    batches: Sequence[int], side: int, device: torch.device, seconds: float
) -> dict[str, Any]:
    """Times every operator on each batch size and layout; see the head of this file."""
    source = torch.ones((COPY_BYTES if device.type == "cuda" else 1 << 20) // 4, device=device)
    target = torch.empty_like(source)
    copied = seconds_per_call([lambda: target.copy_(source)], device, seconds)
    bandwidth = 2 * _bytes([source]) / copied
    rows = []
    for batch in batches:
        for layout in LAYOUTS:
            for name, make in OPERATORS.items():
                # Decode gets aggregated maps, which are always float32, and targets have no layout.
                if layout.channels_last and name in (
                    "topk_peaks",
                    "decode, on the GPU",
                    "render_heatmap_pyramid",
                ):
                    continue
                moved = make(Maps(batch, side, layout, device, 0)).bytes
                count = copies_needed(moved, device)
                problems = [make(Maps(batch, side, layout, device, k)) for k in range(count)]
                taken = seconds_per_call([p.run for p in problems], device, seconds)
                row = {"op": name, "batch": batch, "layout": layout.name, "inputs": count}
                rows.append(row | judged(moved, taken, bandwidth))
                del problems
    return {"copy_gb_per_s": bandwidth / 1e9, "rows": rows}


def busy_share(run: Call, device: torch.device) -> float | None:
    """The share of a run's time in which the GPU computes or copies; None without a GPU."""
    if device.type != "cuda":
        return None
    from torch.profiler import ProfilerActivity, profile

    synchronize(device)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        started = time.perf_counter()
        run()
        synchronize(device)
        elapsed = time.perf_counter() - started
    busy = sum(event.self_device_time_total for event in profiler.key_averages())
    return busy / 1e6 / elapsed


def time_predict(
    arguments: dict[str, Any], batches: Sequence[int], side: int, device: torch.device
) -> list[dict[str, Any]]:
    """Times whole predictions of images in memory, by a network with random weights."""
    network = randomise(build_model("doublehighernet", **arguments, num_joints=J))
    predictor = Predictor(network, CROWDPOSE, device=device, input_size=side, flip=True)
    noise = np.random.RandomState(0)
    rows = []
    for batch in batches:
        shape = (batch, side, side, 3)
        images = list(noise.randint(0, 256, shape, dtype=np.uint8))
        run = partial(predictor, images)
        rows.append(
            {"batch": batch, "precision": predictor.precision}
            | {"images_per_s": batch / _repeated(run, device), "gpu_busy": busy_share(run, device)}
        )
    return rows


def time_training(
    arguments: dict[str, Any], batch: int, side: int, device: torch.device
) -> dict[str, Any]:
    """Times updates on one batch that is in memory already, with masks and averaged weights."""
    settings = SimpleNamespace(
        data=SimpleNamespace(input_size=side),
        loss=SimpleNamespace(
            sigma=7.0,
            tau=(10.0, 7.0),
            units="input",
            target="disc",
            pull=1e-3,
            push=1e-3,
        ),
        train=SimpleNamespace(
            amp="auto",
            ema=0.999,
            clip_grad_norm=0.0,
            compile=False,
            freeze=[],
            layer_decay=1.0,
            lr=1e-3,
            optimiser="adam",
            sync_bn=False,
            weight_decay=0.0,
        ),
    )
    # A stand-in, so that this runs where pydantic, which checks a run's settings, is missing.
    learner = Learner(settings, build_model("doublehighernet", **arguments, num_joints=J), device)  # type: ignore[arg-type]
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, generator=draw)
    keypoints = torch.cat([crowd(PEOPLE, (side, side), seed) for seed in range(batch)])
    mask = torch.ones(batch, side, side, dtype=torch.uint8)
    names = [str(k) for k in range(batch)]
    sample = Batch(images.to(memory_format=torch.channels_last), keypoints, mask, [], names)
    run = partial(learner.update, [sample], batch, 1e-3)
    seconds = _repeated(run, device)
    amp = "float32" if learner.amp is None else str(learner.amp).removeprefix("torch.")
    return {
        "batch": batch,
        "precision": amp,
        "step_ms": 1e3 * seconds,
        "images_per_s": batch / seconds,
        "gpu_busy": busy_share(run, device),
    }


def _repeated(run: Call, device: torch.device) -> float:
    """Seconds of a run: the median of five, after two to warm up."""
    times = []
    for _ in range(2 + RUNS):
        synchronize(device)
        started = time.perf_counter()
        run()
        synchronize(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[2:])


@click.command(help=__doc__.split("\n")[0])
@click.option("--device", "name", default="cuda", show_default=True, help="cuda or cpu.")
@click.option("--small", is_flag=True, help="Small maps and a small network, to try this out.")
@click.option("--seconds", default=0.2, show_default=True, help="How long each operator is timed.")
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="JSON file."
)
def main(name: str, small: bool, seconds: float, output: Path) -> None:
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        click.echo("gpu: skipped, torch finds no CUDA GPU here")
        return
    side, batches = (64, (1, 2)) if small else (512, (1, 32))
    arguments = {"width": 8, "modules": (1, 1, 1), "blocks": 1, "stem": 8} if small else {}
    result: dict[str, Any] = {"machine": machine(device), "input": side}
    result["bfloat16_in_hardware"] = multiplies_bfloat16(device)
    result["operators"] = time_operators(batches, side, device, seconds)
    write_json(output, result)  # what is there if the rest fails
    for row in result["operators"]["rows"]:
        share = 100 * row["of_copy_bandwidth"]
        click.echo(f"{row['op']}, B = {row['batch']}, {row['layout']}: {row['us']:.1f} us, "
                   f"{share:.0f} % of copy bandwidth")  # fmt: skip
    result["predict"] = time_predict(arguments, batches, side, device)
    result["training"] = time_training(arguments, batches[-1], side, device)
    write_json(output, result)
    for row in [*result["predict"], result["training"]]:
        click.echo(", ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
