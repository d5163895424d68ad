"""Whole predictions, from pixels in memory to poses, against the official code of HigherHRNet.

One run on one machine, the same weights, the contestants in turn. The official code is no part of
this repository, nor is the package that its configuration wants:

    git clone https://github.com/HRNet/HigherHRNet-Human-Pose-Estimation /tmp/official
    pip install --no-deps --target /tmp/official_packages yacs
    PYTHONPATH=/tmp/official_packages python benchmarks/inference.py /tmp/official

The weights are random, so the maps of the network mean nothing. Each contestant computes its maps
of the picture, which costs what it costs, and then decodes those of a generated crowd instead,
the same for all, with 1 to 30 people as in CrowdPose.

Writes benchmarks/results/inference.json.
"""

import json
import statistics
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import click
import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dhn.bench import machine
from dhn.console import Bar
from dhn.device import multiplies_bfloat16
from dhn.info import environment
from dhn.joints import CROWDPOSE
from dhn.model import build_model
from dhn.predictor import Predictor, Timing
from dhn.scenes import Scene, generated_scenes

RESULTS = Path(__file__).parent / "results"
CPU = torch.device("cpu")
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


@click.command()
@click.argument(
    "repository", metavar="OFFICIAL", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option("--width", default=32, help="C of HigherHRNet-w{C}.")
@click.option("--size", default=512, help="Input size; the picture is a square.")
@click.option("--rounds", default=15, help="How often each contestant is timed, after a warm-up.")
@click.option("--threads", default=2)
@click.option("--compile/--no-compile", default=True)
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS / "inference.json")
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
    model = build_model(f"higherhrnet_w{width}").eval()
    picture = textured(size)  # no scaling: both sides place a scaled picture differently
    scenes = generated_scenes(rounds, (size, size))

    official = Official(repository, model, width, size)
    ours = {"float32": Ours(model, size, precision="float32"), "default": Ours(model, size)}
    if compile:
        ours["compile"] = Ours(model, size, compile=True)
    contestants: dict[str, Ours | Official] = {"official": official, **ours}
    first = {name: sum(side.time(picture, scenes[0])) for name, side in contestants.items()}
    same = {name: difference(side, official, (size, size)) for name, side in ours.items()}

    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    with Bar("Predictions", rounds) as bar:
        for scene in scenes:
            for name, side in contestants.items():
                times[name].append(side.time(picture, scene))
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
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n")
    for name in ("milliseconds", "official_over_ours"):
        click.echo(f"{name}: {json.dumps(result[name], indent=1)}")


class Ours(Predictor):
    """A predictor that decodes a scene's maps once it has computed its own."""

    def __init__(self, model: nn.Module, size: int, **settings: Any) -> None:
        super().__init__(model, CROWDPOSE, input_size=size, flip=True, **settings)
        self.heatmaps = self.tags = torch.empty(0)

    def time(self, picture: np.ndarray, scene: Scene) -> tuple[float, float]:
        """Seconds until the maps are there, and for the rest."""
        self.scene = scene
        self.timing = Timing()
        self([picture])
        return self.timing.network_seconds, self.timing.decode_seconds

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.heatmaps, self.tags = super().maps(images)
        return self.scene.heatmaps, self.scene.tags


class Official:
    """One picture's turn of its test loop (tools/valid.py); its functions are called unchanged."""

    def __init__(self, repository: Path, model: nn.Module, width: int, size: int) -> None:
        # Of its data sets inference needs this table alone; the rest wants many more packages.
        table = SimpleNamespace(FLIP_CONFIG={"CROWDPOSE": list(CROWDPOSE.flip)})
        sys.modules["dataset.transforms"] = cast(Any, table)
        sys.modules["dataset"] = cast(Any, SimpleNamespace(transforms=table))
        sys.path.insert(0, str(repository / "lib"))
        from config import cfg
        from core import inference
        from core.group import HeatmapParser
        from models.pose_higher_hrnet import get_pose_net
        from utils import transforms

        recipe = "experiments/crowd_pose/higher_hrnet/w32_512_adam_lr1e-3.yaml"
        cfg.merge_from_file(str(repository / recipe))
        cfg.DATASET.INPUT_SIZE = size
        for stage in (2, 3, 4):
            channels = cfg.MODEL.EXTRA[f"STAGE{stage}"].NUM_CHANNELS
            cfg.MODEL.EXTRA[f"STAGE{stage}"].NUM_CHANNELS = [c * width // 32 for c in channels]
        cfg.MODEL.EXTRA.DECONV.NUM_CHANNELS = [width]
        self.cfg, self.inference, self.transforms = cfg, inference, transforms
        self.parser = HeatmapParser(cfg)
        self.network = get_pose_net(cfg, is_train=False).eval()
        weights = {k.removeprefix("backbone."): v for k, v in model.state_dict().items()}
        self.network.load_state_dict(weights)
        self.heatmaps = self.tags = torch.empty(0)

    @torch.no_grad()
    def time(self, picture: np.ndarray, scene: Scene) -> tuple[float, float]:
        heatmaps, tags = (upsampled(maps, scene.size) for maps in (scene.heatmaps, scene.tags))
        test = self.cfg.TEST
        started = time.perf_counter()
        placement = (picture, self.cfg.DATASET.INPUT_SIZE, 1.0, 1)
        size, _, _ = self.transforms.get_multi_scale_size(*placement)
        resized, center, scale = self.transforms.resize_align_multi_scale(*placement)
        # What torchvision's ToTensor and Normalize do.
        image = torch.from_numpy(resized).permute(2, 0, 1).contiguous().float().div(255)
        image = image.sub_(MEAN[:, None, None]).div_(STD[:, None, None])[None]
        _, levels, level_tags = self.inference.get_multi_stage_outputs(
            self.cfg, self.network, image, test.FLIP_TEST, test.PROJECT2IMAGE, size
        )
        self.heatmaps, tags_list = self.inference.aggregate_results(
            self.cfg, 1, None, [], levels, level_tags
        )
        self.tags = torch.cat(tags_list, dim=4)
        computed = time.perf_counter()
        people, _ = self.parser.parse(
            heatmaps, tags.permute(0, 1, 3, 4, 2).contiguous(), test.ADJUST, test.REFINE
        )
        self.transforms.get_final_preds(people, center, scale, size)
        return computed - started, time.perf_counter() - computed


def textured(side: int) -> np.ndarray:
    """A picture of soft colours, uint8 [side, side, 3]."""
    coarse = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


def upsampled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """[1, J, ..., h, w] at input resolution."""
    flat = maps.flatten(0, -3)[None]
    return F.interpolate(flat, size=size, mode="bilinear").view(*maps.shape[:-2], *size)


def difference(ours: Ours, official: Official, size: tuple[int, int]) -> dict[str, float]:
    """The largest of what both computed, in shares of the largest value."""
    pairs = {
        "heatmaps": (upsampled(ours.heatmaps, size), official.heatmaps),
        "tags": (upsampled(ours.tags, size), official.tags.permute(0, 1, 4, 2, 3)),
    }
    return {name: float((a - b).abs().max() / b.abs().max()) for name, (a, b) in pairs.items()}


def quartiles(values: Iterable[float]) -> dict[str, float]:
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": median, "low": low, "high": high}


def milliseconds(rows: list[tuple[float, float]]) -> dict[str, dict[str, float]]:
    return {
        "maps": quartiles(1e3 * maps for maps, _ in rows),
        "decode": quartiles(1e3 * decode for _, decode in rows),
        "whole": quartiles(1e3 * (maps + decode) for maps, decode in rows),
    }


if __name__ == "__main__":
    main()
