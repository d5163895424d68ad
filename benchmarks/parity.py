"""Compares the results of dhn with those of the official HigherHRNet code, number by number.

    python benchmarks/parity.py ../higherhrnet --data data/coco \
        --checkpoint dhn/weights/bundled/people.safetensors

Both sides compute in float32 on the CPU, with the same weights and images, each step alone and
all of them together, with `--parity` and without. Networks of three widths have random weights;
--checkpoint adds a trained network. official.py says how to get the official code.

Writes benchmarks/results/parity.json. With --write-fixtures, it also writes the files that
tests/inference/test_parity.py compares with.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import cv2
import numpy as np
import torch
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
from measures import distances, upsampled
from official import Official

RESULTS = Path(__file__).parent / "results" / "parity.json"
FIXTURES = Path(__file__).parents[1] / "tests" / "fixtures"
WIDTHS = (8, 32, 48)
SCALES = (0.5, 1.0, 2.0)


def as_official(network: Callable[[Tensor], PoseMaps]) -> Callable[[Tensor], list[Tensor]]:
    """Our network, with its maps in the order that the official code expects."""

    def forward(images: Tensor) -> list[Tensor]:
        heatmaps, tags = network(images)
        quarter = [torch.cat(pair, dim=1) for pair in zip(heatmaps[::2], tags, strict=True)]
        return [level for pair in zip(quarter, heatmaps[1::2], strict=True) for level in pair]

    return forward


# --- measurements -------------------------------------------------------------------------------


def relative(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


@torch.no_grad()
def compare_networks(official: Official) -> list[dict[str, Any]]:
    """Our random weights and batch-norm statistics, loaded into the official network."""
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


class Compared(NamedTuple):
    """One image, predicted by both sides.

    Attributes:
        grey_levels: by how many grey levels the network inputs differ at most.
        maps: the largest difference of the maps, as a share of the largest value.
        people: how many people the official code found.
        decode: distances of keypoints, decoded from the same maps, in pixels of the input.
        whole: distances of keypoints of whole predictions with `parity`, in pixels of the image.
        by_default: the same without `parity`.
        scales: the same with `parity`, at `SCALES`.
    """

    grey_levels: int
    maps: float
    people: int
    decode: np.ndarray
    whole: np.ndarray
    by_default: np.ndarray
    scales: np.ndarray


class Pipelines:
    """The official pipeline and ours around the same network.

    Args:
        official: the official code.
        network: our network.
        theirs: the same network, as the official code calls it.
        joints: what its heatmaps mean.
        input_size: short side of the network input, in pixels.
    """

    def __init__(
        self,
        official: Official,
        network: nn.Module,
        theirs: Callable[[Tensor], list[Tensor]],
        joints: JointSet,
        input_size: int,
    ) -> None:
        self.official, self.theirs = official, theirs
        stages = len(theirs(torch.zeros(1, 3, 64, 64))) // 2
        self.settings = official.settings(joints, stages=stages)
        self.joints, self.input_size = joints, input_size
        common: dict[str, Any] = {"input_size": input_size, "flip": True, "precision": "float32"}
        self.parity = Predictor(network, joints, parity=True, **common)
        self.default = Predictor(network, joints, **common)
        self.scales = Predictor(network, joints, parity=True, scales=SCALES, **common)

    def compare(self, images: Sequence[Path]) -> dict[str, Any]:
        """Compares the predictions of image files, step by step and as a whole."""
        with Bar("images", len(images)) as bar:
            rows = []
            for path in images:
                rows.append(self.compare_image(read_image(path, ignore_orientation=True)))
                bar.advance()
        return {
            "input_size": self.input_size,
            "joints": self.joints.name,
            "images": len(images),
            "people": sum(row.people for row in rows),
            "input, grey levels": max(row.grey_levels for row in rows),
            "maps, relative": max(row.maps for row in rows),
            "decode, pixels of the input": summary([row.decode for row in rows]),
            "whole with parity, pixels of the image": summary([row.whole for row in rows]),
            "whole by default, pixels of the image": summary([row.by_default for row in rows]),
            "whole with parity at three scales": summary([row.scales for row in rows]),
        }

    def compare_image(self, image: np.ndarray) -> Compared:
        """Compares each step, on the input that the official code gives it, and the whole."""
        official, settings = self.official, self.settings
        placed, _, _ = official.place(image, self.input_size)
        sampling, _, (W, H) = official_transform(image.shape[1::-1], self.input_size)
        ours = cv2.warpAffine(image, sampling.cv2_matrix(), (W, H))

        heatmaps, tags = official.maps(settings, self.theirs, placed)
        our_heatmaps, our_tags = self.parity.maps(torch.from_numpy(placed).permute(2, 0, 1)[None])
        large = [upsampled(maps, (H, W)) for maps in (our_heatmaps, *our_tags.unbind(2))]

        grouped, _ = official.people(settings, heatmaps, tags)
        (poses,) = decode_poses(our_heatmaps, our_tags, (H, W), self.parity.decode)

        expected = official.predict(settings, self.theirs, image, self.input_size)
        at_scales = official.predict(settings, self.theirs, image, self.input_size, SCALES)
        return Compared(
            grey_levels=int(np.abs(placed.astype(int) - ours).max()),
            maps=max(map(relative, large, (heatmaps, *tags.unbind(4)))),
            people=len(expected),
            decode=distances(poses.keypoints.numpy(), grouped),
            whole=distances(self.parity([image])[0].keypoints, expected),
            by_default=distances(self.default([image])[0].keypoints, expected),
            scales=distances(self.scales([image])[0].keypoints, at_scales),
        )


def summary(parts: list[np.ndarray]) -> dict[str, float | int]:
    """Distances of keypoints in pixels: how many there are, how many lack, and how they spread."""
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

SIZES = [  # (width, height) of images
    (640, 480),
    (427, 640),
    (640, 427),
    (500, 375),
    (333, 333),
    (1023, 767),
    (57, 41),
    (41, 57),
    (64, 129),
    (512, 577),
    (101, 1000),
    (1921, 1081),
]


def write_fixtures(official: Official) -> None:
    """Writes what the official code computes from random weights, made-up maps and images."""
    images = np.random.RandomState(0).randint(0, 256, (1, 3, 64, 64))
    ours = random_network(8, CROWDPOSE)
    theirs = official.network(official.settings(CROWDPOSE, width=8), ours)
    with torch.no_grad():
        quarter, half = theirs(torch.from_numpy(images).float() / 128 - 1)
    write("parity_network", images=images.astype(np.uint8), quarter=quarter, half=half)

    write("parity_geometry", **transforms(official, (64, 512), (1.0,)))
    write("parity_geometry_scales", **transforms(official, (512,), SCALES))

    for joints in (CROWDPOSE, COCO):
        heatmaps, tags = made_up_maps(joints)
        size = (2 * heatmaps.shape[2], 2 * heatmaps.shape[3])
        large_tags = upsampled(tags, size).permute(0, 1, 3, 4, 2).contiguous()
        people, scores = official.people(
            official.settings(joints), upsampled(heatmaps, size), large_tags
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
        settings = official.settings(CROWDPOSE)
        people = official.predict(settings, as_official(network), image, 64)
        placed, _, _ = official.place(image, 64)
        write(f"parity_pipeline_{W}x{H}", image=image, placed=placed, people=people)
        people = official.predict(settings, as_official(network), image, 128, SCALES)
        write(f"parity_scales_{W}x{H}", image=image, people=people)


def transforms(
    official: Official, shorts: Sequence[int], scales: Sequence[float]
) -> dict[str, np.ndarray]:
    """How images of `SIZES` are placed at each scale: there and back, and the input's size."""
    placed = {}
    for W, H in SIZES:
        for short in shorts:
            for scale in scales:
                size, centre, reach = official.transforms.get_multi_scale_size(
                    np.empty((H, W, 1)), short, scale, min(scales)
                )
                there, back = (
                    official.transforms.get_affine_transform(centre, reach, 0, size, inv=inverse)
                    for inverse in (0, 1)
                )
                name = f"{W} {H} {short}" if len(scales) == 1 else f"{W} {H} {short} {scale:g}"
                placed[name] = np.stack([there, back, [[*size, 0]] * 2])
    return placed


def made_up_maps(joints: JointSet) -> tuple[Tensor, Tensor]:
    """Maps of a crowd at 32 x 48, exact in float16. Tags are so close that groupings tie."""
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
@click.option(
    "--data",
    type=click.Path(exists=True, path_type=Path),
    help="A folder with JPEG images in images/; without it, only networks are compared.",
)
@click.option(
    "--limit",
    default=3,
    show_default=True,
    help="How many images networks with random weights predict. Their maps are crowded, and the "
    "official code refines each for minutes.",
)
@click.option(
    "--checkpoint", type=click.Path(exists=True), help="Compare this trained network as well."
)
@click.option("--write-fixtures", "fixtures", is_flag=True, help="Write tests/fixtures, too.")
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
            # Tags close to each other, so that people have many joints and not one each.
            with torch.no_grad():
                ours.get_parameter("final_layers.0.weight")[len(joints) :] /= 20
            theirs = official.network(official.settings(joints, width=8), ours)
            row = Pipelines(official, ours, theirs, joints, 128).compare(images[:limit])
            result["pipelines"].append({"network": "higherhrnet_w8, random weights"} | row)
            click.echo(result["pipelines"][-1])
    if images and checkpoint:
        loaded = load_checkpoint(checkpoint)
        trained = loaded.build().eval()
        size = loaded.config["data"].get("eval_size") or loaded.config["data"]["input_size"]
        pipelines = Pipelines(official, trained, as_official(trained), loaded.joints, size)
        row = pipelines.compare(images)
        result["pipelines"].append({"network": f"{loaded.network['name']}, trained"} | row)
        click.echo(result["pipelines"][-1])
    write_json(RESULTS, result | {"environment": environment()})


if __name__ == "__main__":
    main()
