"""Scenes to decode: people, made up or annotated, and maps that a network might give for them."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dhn.base.errors import DhnError
from dhn.base.limits import max_pixels
from dhn.data.coco_file import read_coco

INPUT = (512, 768)  # (H, W) of the network input in inference

# A standing person of height 1 in CrowdPose's order (dhn.data.joints.CROWDPOSE): shoulders, elbows,
# wrists, hips, knees, ankles (left, right), head, neck; x to the right, y down from the head.
_BODY = (
    *((0.11, 0.18), (-0.11, 0.18), (0.16, 0.34), (-0.16, 0.34), (0.18, 0.48), (-0.18, 0.48)),
    *((0.07, 0.5), (-0.07, 0.5), (0.08, 0.74), (-0.08, 0.74), (0.08, 0.97), (-0.08, 0.97)),
    *((0.0, 0.02), (0.0, 0.14)),
)


@dataclass(frozen=True)
class DecodeScene:
    """The people of one image, and maps that a network might give for them.

    Attributes:
        keypoints: float32 [1, P, J, 3]: x and y in input pixels, and the visibility.
        heatmaps: float32 [1, J, H / 2, W / 2].
        tags: float32 [1, J, 2, H / 2, W / 2].
        size: (H, W) of the network input, in pixels.
    """

    keypoints: Tensor
    heatmaps: Tensor
    tags: Tensor
    size: tuple[int, int]

    @property
    def people(self) -> int:
        """How many people there are."""
        return self.keypoints.shape[1]


def crowd(people: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Generates a crowd.

    Args:
        people: P, how many people stand in it.
        size: (H, W) of the network input, in pixels.
        seed: the same seed gives the same crowd.

    Returns:
        float32 [1, P, 14, 3]: x and y in input pixels, and visibility 2, or 0 for joints outside
        the image and for a sixth of the others.
    """
    g = torch.Generator().manual_seed(seed)
    H, W = size
    height = H * (0.25 + 0.6 * torch.rand(people, 1, 1, generator=g))
    feet = torch.rand(people, 1, 2, generator=g) * torch.tensor([W, 0.5 * H])
    feet = feet + torch.tensor([0, 0.5 * H])
    angle = 0.3 * torch.randn(people, generator=g)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).view(-1, 2, 2)
    body = torch.tensor(_BODY) + 0.04 * torch.randn(people, len(_BODY), 2, generator=g)
    xy = (body - torch.tensor([0, 1.0])) @ turn * height + feet
    seen = torch.rand(people, len(_BODY), generator=g) > 1 / 6
    inside = (xy >= 0).all(-1) & (xy < torch.tensor([W, H])).all(-1)
    return torch.cat([xy, 2.0 * (seen & inside)[..., None]], dim=-1)[None]


def scene_from_keypoints(keypoints: Tensor, size: tuple[int, int], seed: int = 0) -> DecodeScene:
    """Draws maps at half the input's resolution.

    Heatmaps have a peak of .05 to 1 at every visible joint, and noise. The tags of one person and
    of the next are 2 apart.

    Args:
        keypoints: float32 [1, P, J, 3]: x and y in input pixels, and the visibility.
        size: (H, W) of the network input, in pixels.
        seed: the same seed gives the same maps.
    """
    g = torch.Generator().manual_seed(seed)
    _, P, J, _ = keypoints.shape
    h, w = size[0] // 2, size[1] // 2
    heatmaps = torch.zeros(J, h, w)
    tags = 0.3 * torch.randn(J, 2, h, w, generator=g)
    rows, columns = torch.arange(h)[:, None], torch.arange(w)
    for p in range(P):
        for j, (x, y, visibility) in enumerate(keypoints[0, p].tolist()):
            score = 0.05 + 0.95 * torch.rand((), generator=g)
            drift = 0.1 * torch.randn(2, 1, 1, generator=g)
            if visibility <= 0:
                continue
            u, v = x / 2 - 0.5, y / 2 - 0.5
            disc = torch.exp(-((columns - u) ** 2) / 8) * torch.exp(-((rows - v) ** 2) / 8)
            heatmaps[j] = heatmaps[j].maximum(torch.where(disc < 0.01, 0, disc) * score)
            top, left = max(0, round(v) - 4), max(0, round(u) - 4)
            tags[j, :, top : round(v) + 5, left : round(u) + 5] = 2.0 * p + drift
    heatmaps += (0.02 * torch.randn(J, h, w, generator=g)).abs()
    return DecodeScene(keypoints, heatmaps[None], tags[None], size)


def generated_scenes(count: int, size: tuple[int, int]) -> list[DecodeScene]:
    """Scenes with crowds of 1 to 30 people, most of them small, as in CrowdPose."""
    sizes = [2, 4, 1, 3, 5, 14, 2, 8, 4, 30]
    return [
        scene_from_keypoints(crowd(sizes[i % len(sizes)], size, seed=i), size, seed=i)
        for i in range(count)
    ]


def annotated_scenes(path: Path, count: int, short: int = 512, seed: int = 0) -> list[DecodeScene]:
    """Makes scenes of the annotated people of some images.

    Args:
        path: a keypoint file in COCO's format, like CrowdPose's.
        count: how many images to draw from it at random.
        short: the short side of the network input, in pixels; sides become multiples of 64.
        seed: the same seed draws the same images.

    Raises:
        DhnError: the file is not in this format, or has no image with people.
    """
    file = read_coco(path)
    people_of: dict[int, list[Any]] = {}
    for person, keypoints in zip(file.raw["annotations"], file.keypoints, strict=True):
        people_of.setdefault(person["image_id"], []).append(keypoints)
    images = [image for image in file.raw["images"] if image["id"] in people_of]
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    scenes = []
    for i in order[:count].tolist():
        image = images[i]
        scale = short / min(image["height"], image["width"])
        H = 64 * math.ceil(image["height"] * scale / 64)
        W = 64 * math.ceil(image["width"] * scale / 64)
        if max_pixels() < H * W:
            raise DhnError(f"{path}: image {image['id']}: too narrow for a short side of {short}")
        people = torch.from_numpy(np.stack(people_of[image["id"]]))
        people *= torch.tensor([scale, scale, 1])
        scenes.append(scene_from_keypoints(people[None], (H, W), seed=i))
    if not scenes:
        raise DhnError(f"{path}: has no image with people")
    return scenes
