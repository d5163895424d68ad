"""Decode against the official code of HigherHRNet: from heatmaps and tags to people.

One run on one machine, the same maps, the sides in turn; official.py says how to get the official
code. The maps are made from the annotations of a COCO-format keypoint file, as in `dhn bench
--annotations`. The official parser gets them upsampled to the input's resolution beforehand, which
is not counted; ours reads them as they are.

    python benchmarks/decode.py /tmp/official crowdpose_val.json

Writes benchmarks/results/decode.json.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
import torch.nn.functional as F
from torch import Tensor

from dhn.base.environment import environment
from dhn.base.files import write_json
from dhn.bench.operators import machine
from dhn.bench.scenes import annotated_scenes
from dhn.commands.console import Bar
from dhn.data.joints import CROWDPOSE
from dhn.inference.decode import decode_poses
from official import Official

RESULTS = Path(__file__).parent / "results" / "decode.json"
OURS_PER_ROUND = 20  # calls of ours for each call of theirs, which takes a thousand times as long


@click.command()
@click.argument(
    "repository", metavar="OFFICIAL", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.argument("annotations", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--images", default=10, show_default=True, help="Scenes, each made from an image.")
@click.option("--rounds", default=5, show_default=True, help="Timings of each scene and side.")
@click.option("--threads", default=2, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS)
def main(
    repository: Path, annotations: Path, images: int, rounds: int, threads: int, output: Path
) -> None:
    """Time our decode and that of the code in OFFICIAL on scenes made from ANNOTATIONS."""
    torch.set_num_threads(threads)
    official = Official(repository)
    settings = official.settings(CROWDPOSE)
    rows: list[dict[str, Any]] = []
    with Bar("Scenes", images) as bar:
        for scene in annotated_scenes(annotations, images):
            heatmaps, tags = (upsampled(maps, scene.size) for maps in (scene.heatmaps, scene.tags))
            tags = tags.permute(0, 1, 3, 4, 2).contiguous()
            ours, theirs = [], []
            for _ in range(rounds + 1):
                theirs.append(seconds(official.parse, settings, heatmaps, tags))
                for _ in range(OURS_PER_ROUND):
                    ours.append(seconds(decode_poses, scene.heatmaps, scene.tags, scene.size))
            # The first round warms up.
            median = statistics.median(ours[OURS_PER_ROUND:])
            published = statistics.median(theirs[1:])
            rows.append(
                {
                    "people": scene.people,
                    "size": scene.size,
                    "official_ms": 1e3 * published,
                    "ours_ms": 1e3 * median,
                    "official_over_ours": published / median,
                }
            )
            bar.advance()
    ratios = [row["official_over_ours"] for row in rows]
    result = {
        "settings": {"annotations": annotations.name, "rounds": rounds, "calls": OURS_PER_ROUND},
        "official_over_ours": {
            "median": statistics.median(ratios),
            "least": min(ratios),
            "most": max(ratios),
        },
        "rows": rows,
        "machine": machine(torch.device("cpu")),
        "environment": environment(),
    }
    write_json(output, result, indent=1)
    for row in sorted(rows, key=lambda row: row["people"]):
        click.echo(
            f"{row['people']} people: {row['official_ms']:.0f} ms and {row['ours_ms']:.2f} ms, "
            f"{row['official_over_ours']:.0f} times"
        )
    click.echo(f"Median {statistics.median(ratios):.0f} times, least {min(ratios):.0f}")


def upsampled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """[1, J, ..., h, w] at input resolution."""
    flat = maps.flatten(0, -3)[None]
    return F.interpolate(flat, size=size, mode="bilinear").view(*maps.shape[:-2], *size)


def seconds(call: Callable[..., Any], *arguments: Any) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
