"""Times decode, from maps to people, against the official code of HigherHRNet.

    python benchmarks/decode.py ../higherhrnet

Both sides run on one machine, in turn, in float32 on one thread of the CPU. The CPU time of this
process is counted, without the time that it waits for other work on the machine. (On a busy
machine, the time of day would favour ours, whose calls are too short to be interrupted.)
official.py says how to get the official code.

No network takes part. A scene holds the annotated people of one image, and heatmaps and tags that
a network might give for them (see `dhn.bench.scenes`).

The official code is handed maps at the resolution of the network input, because its network step
upsamples them there; that upsampling is not timed. Ours is handed the same maps at half that
resolution, because it reads them as they are. Both search for missing joints (refinement).

Two settings of ours are timed: the default one, and the one of `--parity`, whose people must be
those of the official code. Writes benchmarks/results/decode.json.
"""

import time
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from dhn.base.environment import environment
from dhn.base.files import write_json
from dhn.bench.scenes import DecodeScene, annotated_scenes
from dhn.bench.timing import machine, measure
from dhn.commands.console import Bar
from dhn.data.joints import CROWDPOSE, official_order
from dhn.inference.decode import DecodeConfig, decode_poses
from measures import distances, quartiles, upsampled
from official import Official

RESULTS = Path(__file__).parent / "results" / "decode.json"
CPU = torch.device("cpu")
SETTINGS = {
    "default": DecodeConfig(joint_order=CROWDPOSE.grouping_order),
    "parity": DecodeConfig(joint_order=official_order(CROWDPOSE), munkres=True),
}


@click.command()
@click.argument(
    "repository", metavar="OFFICIAL", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option(
    "--annotations",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=Path("data/crowdpose/json/crowdpose_val.json"),
    show_default=True,
    help="Whose people to decode; 14 joints, in CrowdPose's order.",
)
@click.option(
    "--scenes",
    "count",
    type=click.IntRange(min=4),
    default=10,
    show_default=True,
    help="How many images to take people from, drawn at random.",
)
@click.option("--size", default=512, show_default=True, help="Short side of the network input.")
@click.option(
    "--seconds",
    default=1.0,
    show_default=True,
    help="How long to time each setting of ours on a scene.",
)
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS)
def main(
    repository: Path,
    annotations: Path,
    count: int,
    size: int,
    seconds: float,
    output: Path,
) -> None:
    """Time our decode and that of the code in OFFICIAL."""
    torch.set_num_threads(1)
    official = Official(repository)
    scenes = annotated_scenes(annotations, count, short=size)
    rows = []
    with Bar("Scenes", len(scenes)) as bar:
        for scene in scenes:
            rows.append(time_scene(official, scene, seconds))
            bar.advance()
    ratios = {name: spread(row["official_over_ours"][name] for row in rows) for name in SETTINGS}
    result = {
        "settings": {
            "annotations": annotations.name,
            "scenes": len(scenes),
            "short_side": size,
            "precision": "float32",
            "seconds": "CPU time of one thread",
            "network": "none: maps drawn from the annotations",
        },
        "official_over_ours": ratios,
        "rows": rows,
        "machine": machine(CPU),
        "environment": environment(),
    }
    write_json(output, result, indent=1)
    for name, times in ratios.items():
        click.echo(
            f"{name}: {times['median']:,.0f} times faster at the median of {len(scenes)} scenes "
            f"({times['least']:,.0f} at least, {times['most']:,.0f} at most)"
        )


def time_scene(official: Any, scene: DecodeScene, seconds: float) -> dict[str, Any]:
    """Decodes one scene by both sides: seconds, their ratios, and how far the people are apart.

    The official code, which may take seconds, is timed three times after two runs to warm up.
    """
    settings = official.settings(CROWDPOSE)
    heatmaps = upsampled(scene.heatmaps, scene.size)
    tags = upsampled(scene.tags, scene.size).permute(0, 1, 3, 4, 2).contiguous()
    theirs = measure(partial(official.parse, settings, heatmaps, tags), CPU, 0.0, time.process_time)
    expected, _ = official.people(settings, heatmaps, tags)
    row: dict[str, Any] = {
        "annotated": scene.people,
        "size": scene.size,
        "found_by_official": len(expected),
        "official": asdict(theirs),
        "ours": {},
        "official_over_ours": {},
        "pixels_apart": {},
    }
    for name, config in SETTINGS.items():
        decode = partial(decode_poses, scene.heatmaps, scene.tags, scene.size, config)
        ours = measure(decode, CPU, seconds, time.process_time)
        (people,) = decode()
        row["ours"][name] = asdict(ours)
        row["official_over_ours"][name] = theirs.median / ours.median
        row["pixels_apart"][name] = apart(distances(people.keypoints.numpy(), expected))
    return row


def apart(pixels: np.ndarray) -> dict[str, float | int]:
    """Distances of keypoints from the official ones, in pixels of the network input."""
    return {
        "keypoints": len(pixels),
        "missing": int(np.isinf(pixels).sum()),
        "beyond 0.01": int((pixels > 0.01).sum()),
    }


def spread(values: Iterable[float]) -> dict[str, float]:
    """Least, quartiles and most of at least two values."""
    ordered = sorted(values)
    return {"least": ordered[0], **quartiles(ordered), "most": ordered[-1]}


if __name__ == "__main__":
    main()
