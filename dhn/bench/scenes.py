"""Made-up or annotated people, the maps a network might give for them, and networks that need no
training, for bench and tests."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dhn.base.errors import DhnError
from dhn.base.files import read_json
from dhn.model import PoseMaps

# A standing person of height 1 in CrowdPose's order (dhn.data.joints.CROWDPOSE): shoulders, elbows,
# wrists, hips, knees, ankles (left, right), head, neck; x to the right, y down from the head.
_BODY = (
    *((0.11, 0.18), (-0.11, 0.18), (0.16, 0.34), (-0.16, 0.34), (0.18, 0.48), (-0.18, 0.48)),
    *((0.07, 0.5), (-0.07, 0.5), (0.08, 0.74), (-0.08, 0.74), (0.08, 0.97), (-0.08, 0.97)),
    *((0.0, 0.02), (0.0, 0.14)),
)


@dataclass(frozen=True)
class Scene:
    """An image's people and the maps that a network might give for them.

    Attributes:
        keypoints: float32 [1, P, J, 3]: x, y in input pixels, v.
        heatmaps: float32 [1, J, H / 2, W / 2].
        tags: float32 [1, J, 2, H / 2, W / 2].
        size: (H, W) of the network input.
    """

    keypoints: Tensor
    heatmaps: Tensor
    tags: Tensor
    size: tuple[int, int]

    @property
    def people(self) -> int:
        return self.keypoints.shape[1]


def crowd(people: int, size: tuple[int, int] = (512, 768), seed: int = 0) -> Tensor:
    """Keypoints [1, P, 14, 3] of a generated crowd; a sixth of all joints is not annotated."""
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


def scene_from_keypoints(keypoints: Tensor, size: tuple[int, int], seed: int = 0) -> Scene:
    """Maps for keypoints [1, P, J, 3] at half the input's resolution.

    Peaks of .05 to 1 where joints are, noise, and tags 2 apart from person to person.
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
    return Scene(keypoints, heatmaps[None], tags[None], size)


def generated_scenes(count: int, size: tuple[int, int] = (512, 768)) -> list[Scene]:
    """Crowds of 1 to 30 people, most of them small, as in CrowdPose."""
    sizes = [2, 4, 1, 3, 5, 14, 2, 8, 4, 30]
    return [
        scene_from_keypoints(crowd(sizes[i % len(sizes)], size, seed=i), size, seed=i)
        for i in range(count)
    ]


def annotated_scenes(path: Path, count: int, short: int = 512, seed: int = 0) -> list[Scene]:
    """Scenes from a COCO-format keypoint file (CrowdPose's too), short side scaled to `short`."""
    data = read_json(path)
    try:
        people_of: dict[Any, list[Any]] = {}
        for person in data["annotations"]:
            people_of.setdefault(person["image_id"], []).append(person["keypoints"])
        images = [image for image in data["images"] if image["id"] in people_of]
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
        scenes = []
        for i in order[:count].tolist():
            image = images[i]
            scale = short / min(image["height"], image["width"])
            H, W = (int(-(-image[side] * scale // 64) * 64) for side in ("height", "width"))
            people = torch.tensor(people_of[image["id"]], dtype=torch.float32)
            people = people.view(len(people), -1, 3) * torch.tensor([scale, scale, 1])
            scenes.append(scene_from_keypoints(people[None], (H, W), seed=i))
    except (KeyError, TypeError, ValueError) as error:
        raise DhnError(f"{path}: is not a COCO keypoint file ({error})") from error
    if not scenes:
        raise DhnError(f"{path}: has no image with people")
    return scenes


Network = TypeVar("Network", bound=nn.Module)


def randomise(network: Network, seed: int = 0) -> Network:
    """Sets random weights, biases and statistics of batch norms, the same on every machine.

    Uniform, from numpy's frozen generator, in the order of the state dict. Maps stay within an
    order of magnitude of 1 at any depth. Returns the network, in eval mode.
    """
    generator = np.random.RandomState(seed)
    ranges = {"running_var": (0.5, 1.5), "running_mean": (-0.2, 0.2), "bias": (-0.2, 0.2)}
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if not value.is_floating_point():
                continue
            low, high = ranges.get(name.rpartition(".")[2], (0.3, 0.7))  # a batch norm's weight
            if value.dim() > 1:
                fan_in = value[0].numel() if "deconv" not in name else value[:, 0].numel() / 4
                low, high = -((3 / fan_in) ** 0.5), (3 / fan_in) ** 0.5
            uniform = generator.random_sample(tuple(value.shape))
            value.copy_(torch.from_numpy(low + (high - low) * uniform))
    return network.eval()


class ColourNetwork(nn.Module):
    """Maps that the image's colours decide: a joint's heatmap is a mixture of the three.

    Takes the place of a network where what counts is the way from image to poses: on any image
    it sees people, whose tags are alike in places. Maps in HigherHRNet's form.
    """

    def __init__(self, joints: int, seed: int = 0) -> None:
        super().__init__()
        generator = np.random.RandomState(seed)
        weight = generator.uniform(-0.5, 0.5, (2 * joints, 3, 1, 1))
        self.weight = nn.Parameter(torch.from_numpy(weight).float(), requires_grad=False)

    def forward(self, x: Tensor) -> PoseMaps:
        """Normalised images [B, 3, H, W] to heatmaps and tags."""
        J = len(self.weight) // 2
        quarter = F.conv2d(F.avg_pool2d(x, 4), self.weight)
        half = F.conv2d(F.avg_pool2d(x, 2), self.weight[:J])
        return PoseMaps([quarter[:, :J], half], [quarter[:, J:]])
