"""Does dhn give the numbers of the official HigherHRNet code?

Runs the official code (see official.py) and ours on the same weights and images, step by step
and as a whole. Writes benchmarks/results/parity.json; --write-fixtures also what
tests/test_parity.py compares with.

    python benchmarks/parity.py /tmp/official --data ../shared/data/coco_mini
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dhn.base.environment import environment
from dhn.base.files import write_json
from dhn.bench.scenes import scene_from_keypoints
from dhn.bench.untrained import ColourNetwork, randomise
from dhn.commands.console import Bar
from dhn.data.geometry import official_transform
from dhn.data.joints import COCO, CROWDPOSE, JointSet
from dhn.inference.decode import decode_poses
from dhn.inference.predictor import Predictor
from dhn.media.images import read_image
from dhn.model import HigherHRNet, HRNet, PoseMaps, channels_last
from dhn.model.fold import folded
from dhn.weights.checkpoint import load_checkpoint
from official import Official

RESULTS = Path(__file__).parent / "results" / "parity.json"
FIXTURES = Path(__file__).parents[1] / "tests" / "fixtures"
WIDTHS = (8, 32, 48)


def as_official(network: Callable[[Tensor], PoseMaps]) -> Callable[[Tensor], list[Tensor]]:
    """A network of ours, its maps in the order in which the official code takes them."""

    def forward(images: Tensor) -> list[Tensor]:
        heatmaps, tags = network(images)
        quarter = [torch.cat(pair, dim=1) for pair in zip(heatmaps[::2], tags, strict=True)]
        return [level for pair in zip(quarter, heatmaps[1::2], strict=True) for level in pair]

    return forward


# --- measurements -------------------------------------------------------------------------------


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference over the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


@torch.no_grad()
def compare_networks(official: Official) -> list[dict[str, Any]]:
    """Random weights and batch-norm statistics of ours, loaded into the official network."""
    rows = []
    for width in WIDTHS:
        for joints in (CROWDPOSE, COCO):
            ours = random_network(width, joints)
            theirs = official.network(official.settings(joints, width=width), ours)
            images = torch.randn(2, 3, 256, 320, generator=torch.Generator().manual_seed(width))
            expected = theirs(images)
            row: dict[str, Any] = {"width": width, "joints": len(joints)}
            for name, network in (("network", ours), ("folded", channels_last(folded(ours)))):
                got = as_official(network)(images)
                row[name] = max(map(relative, got, expected))
            rows.append(row)
            click.echo(row)
    return rows


def random_network(width: int, joints: JointSet) -> HigherHRNet:
    return randomise(HigherHRNet(HRNet(width, branches=1), len(joints)), seed=width)


def compare_pipelines(
    official: Official,
    network: nn.Module,
    theirs: Callable[[Tensor], list[Tensor]],
    joints: JointSet,
    input_size: int,
    images: Sequence[Path],
) -> dict[str, Any]:
    """Each step alone, on what the official code gives it, and the whole with and without parity.

    Args:
        network: ours.
        theirs: the same, as the official code calls it.
    """
    settings = official.settings(joints, stages=len(theirs(torch.zeros(1, 3, 64, 64))) // 2)
    common: dict[str, Any] = {"input_size": input_size, "flip": True, "precision": "float32"}
    parity = Predictor(network, joints, parity=True, **common)
    default = Predictor(network, joints, **common)
    grey_levels, maps, people = 0, 0.0, 0
    decode: list[np.ndarray] = []
    whole: list[np.ndarray] = []
    by_default: list[np.ndarray] = []
    with Bar("images", len(images)) as bar:
        for path in images:
            image = read_image(path, ignore_orientation=True)
            placed, _, _ = official.place(image, input_size)
            sampling, _, (W, H) = official_transform(image.shape[1::-1], input_size)
            ours = cv2.warpAffine(image, sampling.cv2_matrix(), (W, H))
            grey_levels = max(grey_levels, int(np.abs(placed.astype(int) - ours).max()))

            heatmaps, tags = official.maps(settings, theirs, placed)
            small = parity.maps(torch.from_numpy(placed).permute(2, 0, 1)[None])
            large = [
                F.interpolate(m, (H, W), mode="bilinear") for m in (small[0], *small[1].unbind(2))
            ]
            maps = max(maps, *map(relative, large, (heatmaps, *tags.unbind(4))))

            expected, _ = official.people(settings, heatmaps, tags)
            (poses,) = decode_poses(small[0], small[1], (H, W), parity.decode)
            decode.append(distances(poses.keypoints.numpy(), expected))

            expected = official.predict(settings, theirs, image, input_size)
            whole.append(distances(parity([image])[0].keypoints, expected))
            by_default.append(distances(default([image])[0].keypoints, expected))
            people += len(expected)
            bar.advance()
    return {
        "input_size": input_size,
        "joints": joints.name,
        "images": len(images),
        "people": people,
        "input, grey levels": grey_levels,
        "maps, relative": maps,
        "decode, pixels of the input": summary(decode),
        "whole with parity, pixels of the image": summary(whole),
        "whole by default, pixels of the image": summary(by_default),
    }


def distances(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """For every keypoint of the official code's people, how far ours lies, in pixels.

    People are compared with the nearest of ours; infinite where ours has no such keypoint.
    """
    found = theirs[..., 2] > 0
    if not len(ours):
        return np.full(found.sum(), np.inf)
    both = found[:, None] & (ours[..., 2] > 0)  # [theirs, ours, J]
    apart = np.linalg.norm(theirs[:, None, :, :2] - ours[..., :2], axis=-1)
    apart = np.where(both, apart, np.inf)
    nearest = np.minimum(apart, 1e3).sum(-1).argmin(1)
    return apart[np.arange(len(theirs)), nearest][found]


def summary(parts: list[np.ndarray]) -> dict[str, float | int]:
    pixels = np.concatenate(parts)
    found = pixels[np.isfinite(pixels)]
    return {
        "keypoints": len(pixels),
        "missing": len(pixels) - len(found),
        "median": round(float(np.median(found)), 6),
        "90%": round(float(np.quantile(found, 0.9)), 6),
        "max": round(float(found.max()), 6),
        "beyond 0.01": int((pixels > 0.01).sum()),
    }


# --- fixtures -----------------------------------------------------------------------------------

SIZES = [
    (640, 480),
    (427, 640),
    (640, 427),
    (500, 375),
    (333, 333),
    (1023, 767),
    (57, 41),
    (41, 57),
]
SIZES += [(64, 129), (512, 577), (101, 1000), (1921, 1081)]


def write_fixtures(official: Official) -> None:
    """What the official code makes of our random weights, made-up maps and a made-up image."""
    images = np.random.RandomState(0).randint(0, 256, (1, 3, 64, 64))
    ours = random_network(8, CROWDPOSE)
    theirs = official.network(official.settings(CROWDPOSE, width=8), ours)
    with torch.no_grad():
        quarter, half = theirs(torch.from_numpy(images).float() / 128 - 1)
    write("parity_network", images=images.astype(np.uint8), quarter=quarter, half=half)

    transforms = {}
    for W, H in SIZES:
        for short in (64, 512):
            size, centre, scale = official.transforms.get_multi_scale_size(
                np.empty((H, W, 1)), short, 1.0, 1
            )
            there, back = (
                official.transforms.get_affine_transform(centre, scale, 0, size, inv=inverse)
                for inverse in (0, 1)
            )
            transforms[f"{W} {H} {short}"] = np.stack([there, back, [[*size, 0]] * 2])
    write("parity_geometry", **transforms)

    for joints in (CROWDPOSE, COCO):
        heatmaps, tags = made_up_maps(joints)
        size = (2 * heatmaps.shape[2], 2 * heatmaps.shape[3])
        large, *large_tags = (
            F.interpolate(m, size, mode="bilinear") for m in (heatmaps, *tags.unbind(2))
        )
        people, scores = official.people(
            official.settings(joints), large, torch.stack(large_tags, dim=4)
        )
        write(
            f"parity_decode_{joints.name}",
            heatmaps=heatmaps.half(),
            tags=tags.half(),
            people=people,
            scores=np.float32(scores),
        )

    network = ColourNetwork(14)
    for W, H in ((43, 43), (50, 100)):  # no padding, where all tags are equal
        image = made_up_image(W, H)
        people = official.predict(official.settings(CROWDPOSE), as_official(network), image, 64)
        placed, _, _ = official.place(image, 64)
        write(f"parity_pipeline_{W}x{H}", image=image, placed=placed, people=people)


def made_up_maps(joints: JointSet) -> tuple[Tensor, Tensor]:
    """Maps of a crowd at 32 x 48, exact in float16; tags so near that groupings tie."""
    generator = torch.Generator().manual_seed(len(joints))
    keypoints = 64 * torch.rand(1, 7, len(joints), 3, generator=generator)
    scene = scene_from_keypoints(keypoints, (64, 96), seed=len(joints))
    return scene.heatmaps.half().float(), (scene.tags / 4).half().float()


def made_up_image(width: int, height: int) -> np.ndarray:
    """Blurred noise, uint8 [H, W, 3]."""
    noise = np.random.RandomState(width).randint(0, 256, (height, width, 3))
    blurred = cv2.GaussianBlur(noise.astype(np.float32), (0, 0), 2)
    low, high = blurred.min(), blurred.max()
    return np.round((blurred - low) / (high - low) * 255).astype(np.uint8)


def write(name: str, **arrays: Any) -> None:
    FIXTURES.mkdir(exist_ok=True)
    values: dict[str, Any] = {key: np.asarray(value) for key, value in arrays.items()}
    np.savez_compressed(FIXTURES / f"{name}.npz", **values)


@click.command()
@click.argument("repository", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--data", type=click.Path(exists=True, path_type=Path), help="Folder with images/.")
@click.option(
    "--limit",
    default=3,
    show_default=True,
    help="Images for random weights, whose crowded maps the official code refines for minutes.",
)
@click.option("--checkpoint", type=click.Path(exists=True), help="A trained network of ours, too.")
@click.option("--write-fixtures", "fixtures", is_flag=True, help="Write tests/fixtures as well.")
def main(
    repository: Path, data: Path | None, limit: int, checkpoint: str | None, fixtures: bool
) -> None:
    """Compare with the official code in REPOSITORY."""
    official = Official(repository)
    if fixtures:
        write_fixtures(official)
    result: dict[str, Any] = {"networks": compare_networks(official), "pipelines": []}
    images = sorted((data / "images").glob("*.jpg")) if data else []
    if images:
        for joints in (CROWDPOSE, COCO):
            ours = random_network(8, joints)
            with torch.no_grad():  # tags near each other: people of many joints, not of one each
                ours.get_parameter("final_layers.0.weight")[len(joints) :] /= 20
            theirs = official.network(official.settings(joints, width=8), ours)
            row = compare_pipelines(official, ours, theirs, joints, 128, images[:limit])
            result["pipelines"].append({"network": "higherhrnet_w8, random weights"} | row)
            click.echo(result["pipelines"][-1])
    if images and checkpoint:
        loaded = load_checkpoint(checkpoint)
        trained = loaded.build().eval()
        size = loaded.config["data"].get("eval_size") or loaded.config["data"]["input_size"]
        row = compare_pipelines(
            official, trained, as_official(trained), loaded.joints, size, images
        )
        result["pipelines"].append({"network": f"{loaded.network['name']}, trained"} | row)
        click.echo(result["pipelines"][-1])
    write_json(RESULTS, result | {"environment": environment()})


if __name__ == "__main__":
    main()
