"""Times the operators against their plain PyTorch references and the published decode.

Scenes are made from annotations, or from generated crowds where none are given; everything is
timed in one run on one machine, the copy bandwidth included.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor

from dhn import ops
from dhn.base.files import written_whole
from dhn.base.progress import Progress, silent, tracked
from dhn.bench.scenes import Scene, annotated_scenes, crowd, generated_scenes, scene_from_keypoints
from dhn.inference.decode import DecodeConfig, decode_poses
from dhn.ops import reference

INPUT = (512, 768)  # network input in inference
CROP = 512  # side of the network input in training
COPY_BYTES = 256 << 20
SWEEP = {
    "people": (1, 2, 4, 8, 14, 20, 30),
    "size": (256, 384, 512, 640, 768),  # short side
    "batch": (1, 2, 4, 8),
}


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: median and quartiles of `runs`."""

    median: float
    low: float
    high: float
    runs: int


def measure(call: Callable[[], Any], device: torch.device, seconds: float = 0.3) -> Timing:
    """Times `call` for about `seconds` after a warm-up; three runs at least."""

    def once() -> float:
        synchronize(device)
        start = time.perf_counter()
        call()
        synchronize(device)
        return time.perf_counter() - start

    first = min(once(), once())
    runs = max(3, min(2000, int(seconds / max(first, 1e-6))))
    times = [once() for _ in range(runs)]
    low, median, high = statistics.quantiles(times, n=4)
    return Timing(median, low, high, runs)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Case:
    """One operator on one shape; `bytes` is what it must move at least (0: not counted)."""

    op: str
    shape: str
    ours: Callable[[], Any]
    reference: Callable[[], Any]
    bytes: int


def kernel_cases(device: torch.device, people: int = 4, batch: int = 1) -> list[Case]:
    """Every operator at DoubleHigherNet's sizes, with the targets of training."""
    crowds = [crowd(people, INPUT, seed=b) for b in range(batch)]
    scenes = [scene_from_keypoints(keypoints, INPUT, b) for b, keypoints in enumerate(crowds)]
    heatmaps = torch.cat([scene.heatmaps for scene in scenes]).to(device)
    tags = torch.cat([scene.tags for scene in scenes]).to(device)
    B, J, h, w = heatmaps.shape
    size = scenes[0].size
    keypoints = torch.cat([crowd(people, (CROP, CROP), seed=b) for b in range(batch)]).to(device)
    fine, coarse = CROP // 2, CROP // 4
    pyramid = ([(coarse, coarse), (fine, fine)] * 2, [4, 2] * 2, [7.0] * 4, [10.0, 10.0, 7.0, 7.0])
    prediction = torch.rand(B, J, fine, fine, device=device, requires_grad=True)
    mask = torch.rand(B, fine, fine, device=device) > 0.1
    quarter = [torch.rand(B, J, h // 2, w // 2, device=device) for _ in range(4)]
    half = [torch.rand(B, J, h, w, device=device) for _ in range(4)]
    flip = [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 12, 13]

    scores, indices = ops.topk_peaks(heatmaps, 30, 5, size, 0.1)
    xy, peak_tags = ops.read_peaks(heatmaps, tags, indices, size)
    people_found, counts = ops.group_tags(scores, xy, peak_tags)

    def loss_and_gradient(heatmap_mse: Callable[..., Tensor]) -> Callable[[], Any]:
        def call() -> Any:
            loss = heatmap_mse(prediction, keypoints, mask, 2, 7.0, 10.0).sum()
            return torch.autograd.grad(loss, prediction)

        return call

    def case(op: str, shape: str, args: tuple[Any, ...], moved: Iterable[Tensor]) -> Case:
        ours, theirs = getattr(ops, op), getattr(reference, op)
        return Case(op, shape, lambda: ours(*args), lambda: theirs(*args), _bytes(moved))

    at = f"at {size[0]}x{size[1]}"
    maps = f"{B}x{J}x{h}x{w}"
    drawn = ops.render_heatmap_pyramid(keypoints, *pyramid)
    moved = [prediction, prediction, prediction, mask, mask]
    return [
        case("render_heatmap_pyramid", f"{people} people, 4 maps", (keypoints, *pyramid), drawn),
        Case(
            "heatmap_mse + backward",
            f"{B}x{J}x{fine}x{fine}, {people} people",
            loss_and_gradient(ops.heatmap_mse),
            loss_and_gradient(reference.heatmap_mse),
            _bytes(moved),
        ),
        case(
            "aggregate_heatmaps",
            f"8 maps to {maps}",
            (quarter[:2], half[:2], quarter[2:], half[2:], flip),
            [*quarter, *half, heatmaps],
        ),
        case("topk_peaks", f"{maps} {at}, K=30", (heatmaps, 30, 5, size, 0.1), [heatmaps]),
        case("read_peaks", f"{B}x{J}x30 {at}", (heatmaps, tags, indices, size), []),
        case("group_tags", f"{B}x{J}x30, T=2", (scores, xy, peak_tags), []),
        case(
            "refine_people",
            f"{counts.sum()} people {at}",
            (heatmaps, tags, people_found, counts, size),
            [heatmaps, tags],
        ),
        Case(
            "decode_poses",
            f"{maps}, T=2, {people} people",
            lambda: decode_poses(heatmaps, tags, size),
            lambda: published_decode(heatmaps, tags, size),
            _bytes([heatmaps, tags]),
        ),
    ]


def published_decode(heatmaps: Tensor, tags: Tensor, size: tuple[int, int]) -> Any:
    def interpolate(maps: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(maps, size, mode="bilinear", align_corners=False)

    return reference.decode_poses(heatmaps, tags, size, DecodeConfig(), interpolate)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def copy_bandwidth(device: torch.device) -> float:
    """Bytes read and written per second by a large copy."""
    source = torch.ones(COPY_BYTES // 4, device=device)
    target = torch.empty_like(source)
    return 2 * _bytes([source]) / measure(lambda: target.copy_(source), device).median


def time_kernels(cases: Iterable[Case], device: torch.device, seconds: float) -> dict[str, Any]:
    """Rows of op, shape, reference, ours (milliseconds, with quartiles), ratio and bandwidth."""
    bandwidth = copy_bandwidth(device)
    rows = []
    for case in cases:
        ours = measure(case.ours, device, seconds)
        theirs = measure(case.reference, device, seconds)
        rate = case.bytes / ours.median
        rows.append(
            {
                "op": case.op,
                "shape": case.shape,
                "reference": asdict(theirs),
                "ours": asdict(ours),
                "ratio": theirs.median / ours.median,
                "gb_per_s": rate / 1e9 if case.bytes else None,
                "of_copy_bandwidth": rate / bandwidth if case.bytes else None,
            }
        )
    return {"copy_gb_per_s": bandwidth / 1e9, "rows": rows}


def time_decode(scenes: Iterable[Scene], device: torch.device, seconds: float) -> dict[str, Any]:
    """Per scene: decode, the published decode, and one amax over the heatmaps."""
    rows: list[dict[str, Any]] = []
    for scene in scenes:
        heatmaps, tags = scene.heatmaps.to(device), scene.tags.to(device)
        ours = measure(partial(decode_poses, heatmaps, tags, scene.size), device, seconds)
        amax = measure(heatmaps.amax, device, seconds)
        theirs = measure(partial(published_decode, heatmaps, tags, scene.size), device, 0.0)
        rows.append(
            {
                "people": scene.people,
                "size": scene.size,
                "ours": asdict(ours),
                "published": asdict(theirs),
                "amax": asdict(amax),
                "ratio": theirs.median / ours.median,
                "of_amax": ours.median / amax.median,
            }
        )
    return {"median_ratio": statistics.median(row["ratio"] for row in rows), "rows": rows}


def time_sweep(device: torch.device, seconds: float) -> list[dict[str, Any]]:
    """How decode grows with people, size, batch and (on the CPU) threads."""
    points: list[tuple[str, int, int, int, int]] = []  # axis, people, short side, batch, threads
    threads = torch.get_num_threads()
    points += [("people", n, INPUT[0], 1, threads) for n in SWEEP["people"]]
    points += [("size", 4, n, 1, threads) for n in SWEEP["size"]]
    points += [("batch", 4, INPUT[0], n, threads) for n in SWEEP["batch"]]
    if device.type == "cpu":
        points += [("threads", 14, INPUT[0], 1, n) for n in range(1, (os.cpu_count() or 1) + 1)]
    rows = []
    for axis, people, short, batch, used in points:
        torch.set_num_threads(used)
        size = (short, short * 3 // 2)
        scene = scene_from_keypoints(crowd(people, size), size)
        heatmaps, tags = (
            maps.expand(batch, *maps.shape[1:]).contiguous().to(device)
            for maps in (scene.heatmaps, scene.tags)
        )
        timing = measure(partial(decode_poses, heatmaps, tags, size), device, seconds)
        value = {"people": people, "size": short, "batch": batch, "threads": used}[axis]
        rows.append({"axis": axis, "value": value, "ours": asdict(timing)})
    torch.set_num_threads(threads)
    return rows


def plot_sweep(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    axes = list(dict.fromkeys(row["axis"] for row in rows))
    figure, panels = plt.subplots(1, len(axes), figsize=(3.2 * len(axes), 3), squeeze=False)
    for panel, axis in zip(panels[0], axes, strict=True):
        ours = [row for row in rows if row["axis"] == axis]
        values = [row["value"] for row in ours]
        median, low, high = (
            [1e3 * row["ours"][k] for row in ours] for k in ("median", "low", "high")
        )
        panel.plot(values, median, marker="o")
        panel.fill_between(values, low, high, alpha=0.25, linewidth=0)
        panel.set(xlabel=axis, ylim=(0, None))
    panels[0][0].set_ylabel("decode, ms")
    figure.tight_layout()
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=150)


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were taken on."""
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].split(":")[1].strip() if names else cpu
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu
    return {
        "device": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def run(
    device: torch.device,
    *,
    decode: bool = True,
    sweep: bool = False,
    annotations: Path | None = None,
    images: int = 20,
    threads: int | None = None,
    seconds: float = 0.3,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Everything `dhn bench` times: machine, kernels, and with `decode` and `sweep` those."""
    if threads:
        torch.set_num_threads(threads)
    scenes: list[Scene] = []
    if decode and annotations:
        scenes = annotated_scenes(annotations, images)
    elif decode:
        scenes = generated_scenes(images, INPUT)
    result: dict[str, Any] = {"machine": machine(device)}
    cases = tracked(kernel_cases(device), progress, "Operators")
    result["kernels"] = time_kernels(cases, device, seconds)
    if decode:
        result["decode"] = time_decode(tracked(scenes, progress, "Decode"), device, seconds)
    if sweep:
        result["sweep"] = time_sweep(device, seconds)
    return result


def tables(result: dict[str, Any]) -> list[Table]:
    """What `run` gave, to print."""
    made = [kernel_table(result["kernels"])]
    if "decode" in result:
        made.append(decode_table(result["decode"]))
    if "sweep" in result:
        made.append(sweep_table(result["sweep"]))
    return made


def kernel_table(result: dict[str, Any]) -> Table:
    title = f"Operators (copy: {result['copy_gb_per_s']:.1f} GB/s)"
    table = make_table(
        title, ("reference ms", "ours ms", "ratio", "GB/s", "of copy"), ("op", "shape")
    )
    for row in result["rows"]:
        moved = ("-", "-")
        if row["gb_per_s"] is not None:
            moved = (f"{row['gb_per_s']:.1f}", f"{row['of_copy_bandwidth']:.0%}")
        times = (milliseconds(row["reference"]), milliseconds(row["ours"]))
        table.add_row(row["op"], row["shape"], *times, f"{row['ratio']:.1f}", *moved)
    return table


def decode_table(result: dict[str, Any]) -> Table:
    title = f"Decode: {result['median_ratio']:.0f} times faster at the median"
    table = make_table(title, ("people", "size", "published ms", "ours ms", "ratio", "x amax"))
    for row in sorted(result["rows"], key=lambda row: row["people"]):
        table.add_row(
            str(row["people"]),
            "x".join(map(str, row["size"])),
            milliseconds(row["published"]),
            milliseconds(row["ours"]),
            f"{row['ratio']:.0f}",
            f"{row['of_amax']:.1f}",
        )
    return table


def sweep_table(rows: list[dict[str, Any]]) -> Table:
    table = make_table("Decode, as it grows", ("axis", "value", "ours ms"))
    for row in rows:
        table.add_row(row["axis"], str(row["value"]), milliseconds(row["ours"]))
    return table


def make_table(title: str, numbers: Iterable[str], texts: Iterable[str] = ()) -> Table:
    table = Table(title=title)
    for text in texts:
        table.add_column(text, no_wrap=True)
    for number in numbers:
        table.add_column(number, justify="right", no_wrap=True)
    return table


def milliseconds(timing: dict[str, float]) -> str:
    """Median and quartiles."""
    median, low, high = (1e3 * timing[name] for name in ("median", "low", "high"))
    return f"{median:.3g} ({low:.3g}-{high:.3g})"
