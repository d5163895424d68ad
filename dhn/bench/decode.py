"""Times decode, from heatmaps and tags to people: on scenes, and as the work grows."""

import os
import statistics
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dhn.base.files import written_whole
from dhn.bench import scenes
from dhn.bench.published import published_decode
from dhn.bench.scenes import DecodeScene, crowd, scene_from_keypoints
from dhn.bench.timing import measure
from dhn.inference.decode import decode_poses

# The values along each axis of the sweep; sizes are short sides of the network input in pixels.
SWEEP = {
    "people": (1, 2, 4, 8, 14, 20, 30),
    "size": (256, 384, 512, 640, 768),
    "batch": (1, 2, 4, 8),
}


def time_decode(
    some_scenes: Iterable[DecodeScene], device: torch.device, seconds: float
) -> dict[str, Any]:
    """Times decode on scenes, beside the published decode and one maximum over the heatmaps.

    Args:
        some_scenes: what to decode.
        device: where to decode.
        seconds: how long decode is timed on each scene. The published decode, which may take
            seconds, runs three times.

    Returns:
        `rows`, one for each scene: how many people, the input's (H, W), the timings (as `Timing`,
        in seconds) of our decode, the published one and `amax`, and how many times as long as
        ours the published one takes (`ratio`), and ours as one `amax` (`of_amax`). Also the
        median of the ratios, `median_ratio`.
    """
    rows: list[dict[str, Any]] = []
    for scene in some_scenes:
        heatmaps, tags = scene.heatmaps.to(device), scene.tags.to(device)
        ours = measure(partial(decode_poses, heatmaps, tags, scene.size), device, seconds)
        amax = measure(heatmaps.amax, device, seconds)
        published = measure(partial(published_decode, heatmaps, tags, scene.size), device, 0.0)
        rows.append(
            {
                "people": scene.people,
                "size": scene.size,
                "ours": asdict(ours),
                "published": asdict(published),
                "amax": asdict(amax),
                "ratio": published.median / ours.median,
                "of_amax": ours.median / amax.median,
            }
        )
    return {"median_ratio": statistics.median(row["ratio"] for row in rows), "rows": rows}


class _Point(NamedTuple):
    """One measurement of the sweep: `size` is the short side of the input, in pixels."""

    axis: str
    people: int
    size: int
    batch: int
    threads: int


def time_sweep(device: torch.device, seconds: float) -> list[dict[str, Any]]:
    """Times how decode grows with people, size, batch and, on the CPU, threads.

    Returns:
        A row for each measurement: the `axis`, the `value` along it, and the timing of our decode
        (as `Timing`, in seconds).
    """
    threads = torch.get_num_threads()
    rows = []
    for point in _points(device, threads):
        torch.set_num_threads(point.threads)
        size = (point.size, point.size * 3 // 2)
        scene = scene_from_keypoints(crowd(point.people, size), size)
        heatmaps = torch.cat([scene.heatmaps] * point.batch).to(device)
        tags = torch.cat([scene.tags] * point.batch).to(device)
        timing = measure(partial(decode_poses, heatmaps, tags, size), device, seconds)
        value = point._asdict()[point.axis]
        rows.append({"axis": point.axis, "value": value, "ours": asdict(timing)})
    torch.set_num_threads(threads)
    return rows


def _points(device: torch.device, threads: int) -> list[_Point]:
    short = scenes.INPUT[0]
    points = [_Point("people", people, short, 1, threads) for people in SWEEP["people"]]
    points += [_Point("size", 4, size, 1, threads) for size in SWEEP["size"]]
    points += [_Point("batch", 4, short, batch, threads) for batch in SWEEP["batch"]]
    if device.type == "cpu":
        cores = os.cpu_count() or 1
        points += [_Point("threads", 14, short, 1, count) for count in range(1, cores + 1)]
    return points


def plot_sweep(rows: list[dict[str, Any]], path: Path) -> None:
    """Draws what `time_sweep` returned, a panel for each axis, into an image file."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    axes = list(dict.fromkeys(row["axis"] for row in rows))
    figure, panels = plt.subplots(1, len(axes), figsize=(3.2 * len(axes), 3), squeeze=False)
    for panel, axis in zip(panels[0], axes, strict=True):
        along = [row for row in rows if row["axis"] == axis]
        values = [row["value"] for row in along]
        median, low, high = (
            [1e3 * row["ours"][name] for row in along] for name in ("median", "low", "high")
        )
        panel.plot(values, median, marker="o")
        panel.fill_between(values, low, high, alpha=0.25, linewidth=0)
        panel.set(xlabel=axis, ylim=(0, None))
    panels[0][0].set_ylabel("decode, ms")
    figure.tight_layout()
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=150)
    plt.close(figure)
