"""Times whole predictions, from pixels in memory to poses, against the official HigherHRNet code.

    python benchmarks/inference.py ../higherhrnet

All contestants run on one machine, on the CPU, with the flip test and with the same weights, one
after the other on each image; official.py says how to get the official code. They are

- official: the official code, in float32;
- float32: dhn in float32;
- default: dhn as it runs by default, which is in bfloat16 on processors that multiply it (AMX,
  AVX512-BF16), else in float32;
- compile: the same as default, fused by torch.compile.

The fair comparison is float32 with official, which is float32 as well.

The weights are random, so the maps that the networks compute mean nothing. Each contestant
computes its maps of the image, which takes as long as with trained weights, and then decodes other
maps: those of a generated crowd of 1 to 30 people, the same for all. What the maps of the
contestants differ by is in the results.

Writes benchmarks/results/inference.json.
"""

import json
import time
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import torch
from torch import Tensor, nn

from dhn.base.device import multiplies_bfloat16
from dhn.base.environment import environment
from dhn.base.files import write_json
from dhn.bench.scenes import DecodeScene, generated_scenes
from dhn.bench.timing import machine
from dhn.commands.console import Bar
from dhn.data.joints import CROWDPOSE
from dhn.inference.predictor import Predictor
from dhn.model import HigherHRNet, HRNet
from measures import quartiles, upsampled
from official import Official

RESULTS = Path(__file__).parent / "results" / "inference.json"
CPU = torch.device("cpu")


@click.command()
@click.argument(
    "repository", metavar="OFFICIAL", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option("--width", default=32, show_default=True, help="C of HigherHRNet-w{C}.")
@click.option("--size", default=512, show_default=True, help="Side of the square image, in pixels.")
@click.option(
    "--rounds",
    type=click.IntRange(min=2),
    default=15,
    show_default=True,
    help="How often each contestant is timed, after a warm-up.",
)
@click.option("--threads", default=2, show_default=True)
@click.option(
    "--compile/--no-compile",
    default=True,
    show_default=True,
    help="Whether torch.compile takes part, which compiles for minutes.",
)
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS)
def main(
    repository: Path,
    width: int,
    size: int,
    rounds: int,
    threads: int,
    compile: bool,
    output: Path,
) -> None:
    """Time our predictions and those of the code in OFFICIAL."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = HigherHRNet(HRNet(width), len(CROWDPOSE)).eval()
    # The image has the size of the input, because the two sides place a scaled image differently.
    image = textured(size)
    scenes = generated_scenes(rounds, (size, size))

    official = Theirs(repository, model, width, size)
    ours = {"float32": Ours(model, size, precision="float32"), "default": Ours(model, size)}
    if compile:
        ours["compile"] = Ours(model, size, compile=True)
    contestants: dict[str, Ours | Theirs] = {"official": official, **ours}
    first = {name: sum(side.time(image, scenes[0])) for name, side in contestants.items()}
    same = {name: difference(side, official, (size, size)) for name, side in ours.items()}

    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    with Bar("Predictions", rounds) as bar:
        for scene in scenes:
            for name, side in contestants.items():
                times[name].append(side.time(image, scene))
            bar.advance()
    whole = {name: [sum(row) for row in rows] for name, rows in times.items()}
    result = {
        "settings": {
            "network": f"higherhrnet_w{width} with random weights",
            "input": [size, size],
            "flip": True,
            "refine": True,
            "rounds": rounds,
            "default": "bfloat16" if multiplies_bfloat16(CPU) else "float32",
            "decoded": "maps of generated crowds, the same for all, in place of those computed",
            "people": [scene.people for scene in scenes],
        },
        "milliseconds": {name: milliseconds(rows) for name, rows in times.items()},
        "official_over_ours": {
            name: quartiles(a / b for a, b in zip(whole["official"], whole[name], strict=True))
            for name in ours
        },
        "first_prediction_s": first,
        "largest_difference_to_official_maps": same,
        "machine": machine(CPU),
        "environment": environment(),
    }
    write_json(output, result, indent=1)
    for name in ("milliseconds", "official_over_ours"):
        click.echo(f"{name}: {json.dumps(result[name], indent=1)}")


class Ours(Predictor):
    """A predictor that computes its own maps and then decodes those of a scene."""

    def __init__(self, model: nn.Module, size: int, **settings: Any) -> None:
        super().__init__(model, CROWDPOSE, input_size=size, flip=True, **settings)
        self.heatmaps = self.tags = torch.empty(0)

    def time(self, image: np.ndarray, scene: DecodeScene) -> tuple[float, float]:
        """Predicts the image, and returns the seconds up to the maps and the seconds after that."""
        self.scene = scene
        network, decode = self.timing.network_seconds, self.timing.decode_seconds
        self([image])
        return self.timing.network_seconds - network, self.timing.decode_seconds - decode

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.heatmaps, self.tags = super().maps(images)
        return self.scene.heatmaps, self.scene.tags


class Theirs:
    """What the official test loop (tools/valid.py) does with one image."""

    def __init__(self, repository: Path, model: HigherHRNet, width: int, size: int) -> None:
        self.official = Official(repository)
        self.settings = self.official.settings(CROWDPOSE, width=width, input_size=size)
        self.network = self.official.network(self.settings, model)
        self.heatmaps = self.tags = torch.empty(0)

    def time(self, image: np.ndarray, scene: DecodeScene) -> tuple[float, float]:
        """Predicts the image, and returns the seconds up to the maps and the seconds after that."""
        heatmaps, tags = (upsampled(maps, scene.size) for maps in (scene.heatmaps, scene.tags))
        tags = tags.permute(0, 1, 3, 4, 2).contiguous()
        official, settings = self.official, self.settings
        started = time.perf_counter()
        placed, centre, scale = official.place(image, settings.DATASET.INPUT_SIZE)
        self.heatmaps, self.tags = official.maps(settings, self.network, placed)
        computed = time.perf_counter()
        people, _ = official.parse(settings, heatmaps, tags)
        size = [placed.shape[1], placed.shape[0]]
        official.transforms.get_final_preds(people, centre, scale, size)
        return computed - started, time.perf_counter() - computed


def textured(side: int) -> np.ndarray:
    """An image of soft colours, uint8 [side, side, 3]."""
    coarse = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


def difference(ours: Ours, official: Theirs, size: tuple[int, int]) -> dict[str, float]:
    """The largest difference of the maps that both computed, as a share of the largest value."""
    pairs = {
        "heatmaps": (upsampled(ours.heatmaps, size), official.heatmaps),
        "tags": (upsampled(ours.tags, size), official.tags.permute(0, 1, 4, 2, 3)),
    }
    return {name: float((a - b).abs().max() / b.abs().max()) for name, (a, b) in pairs.items()}


def milliseconds(rows: list[tuple[float, float]]) -> dict[str, dict[str, float]]:
    """Medians and quartiles of seconds for maps and for decode, and of their sums."""
    return {
        "maps": quartiles(1e3 * maps for maps, _ in rows),
        "decode": quartiles(1e3 * decode for _, decode in rows),
        "whole": quartiles(1e3 * (maps + decode) for maps, decode in rows),
    }


if __name__ == "__main__":
    main()
