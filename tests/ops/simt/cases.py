"""Calls of the CUDA operators, each as small as what it shows allows: sanitizers are slow.

Together they reach every barrier and every bound of the kernels; bug_table.py says which call
reaches which.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Call = Callable[[], object]


def cases(ops, device: str = "cpu") -> dict[str, Call]:
    """The calls by name, of torch.ops.dhn or of the SIMT runner's; None: for the names alone."""
    made = _training(ops, _Random(5, device))
    made |= _peaks(ops, _Random(6, device)) | _reading(ops, _Random(7, device))
    made |= _grouping(ops, _Random(8, device)) | _refinement(ops, _Random(9, device))
    return made | _aggregation(ops, _Random(10, device)) | _types(ops, _Random(11, device))


class _Random:
    """Uniform tensors from a seeded generator."""

    def __init__(self, seed: int, device: str) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.device = device

    def __call__(self, *shape: int, scale: float = 1.0) -> Tensor:
        return (torch.rand(*shape, generator=self.generator) * scale).to(self.device)

    def people(self, B: int, P: int, width: float, height: float) -> Tensor:
        """Keypoints [B, P, 2, 3] on an image, all visible."""
        xy = self(B, P, 2, 2) * torch.tensor([width, height], device=self.device)
        return torch.cat([xy, torch.ones_like(xy[..., :1])], -1)


def _training(ops, random: _Random) -> dict[str, Call]:
    few, crowd = random.people(2, 5, 150, 150), random.people(1, 260, 128, 32)
    maps, mask, grad = random(2, 2, 19, 71), random(2, 19, 71), random(2)
    tile = random(1, 2, 16, 64)
    target = (2.0, 7.0, 10.0, "disc")
    # Of the first three people the second joint is unknown, somewhere in their boxes.
    unknown, masks = few.clone(), random(2, 2, 19, 71)
    unknown[:, :3, 1, 2] = -1
    boxes = torch.cat([random(2, 5, 2, scale=30), random(2, 5, 2, scale=60) + 40], -1)
    return {
        "targets": lambda: ops.render_heatmaps(
            few, [37, 19], [71, 36], [2.0, 4.0], [7.0, 7.0], [10.0, 7.0], "disc"
        ),
        # More people on one tile than a block looks at between two barriers.
        "targets of a crowd": lambda: ops.render_heatmaps(
            crowd, [16], [64], [2.0], [7.0], [10.0], "disc"
        ),
        "loss": lambda: ops.heatmap_mse(maps, few, None, *target),
        "loss of a crowd": lambda: ops.heatmap_mse(tile, crowd, None, *target),
        "loss of unknown joints": lambda: ops.heatmap_mse(maps, unknown, None, *target, boxes),
        "gradient of unknown joints": lambda: ops.heatmap_mse_backward(
            grad, maps, unknown, masks, *target, boxes
        ),
        "gradient": lambda: ops.heatmap_mse_backward(grad, maps, few, mask, *target),
    }


def _peaks(ops, random: _Random) -> dict[str, Call]:
    maps, wide, many = random(1, 2, 19, 71), random(1, 1, 10, 40), random(1, 1, 16, 128)
    wide[0, 0, 7:9, 10] = torch.tensor([2.0, 1.0])  # a peak in the last row of a tile
    many[..., :64] += 1  # one block's list holds all the best
    tile = random(1, 1, 9, 33)
    tile[..., -1] += 1
    # Read at 32 x 4: three maps broken in rows that no output pixel reads, one with a ridge.
    shrunk = torch.zeros(1, 4, 140, 9, device=random.device)
    shrunk[0, [0, 1, 2], [0, 69, 139]] = torch.nan
    shrunk[0, 3, :, -1] = 2
    return {
        "peaks": lambda: ops.topk_peaks(maps, 30, 5, 38, 142, 0.1),
        "peaks of one tile": lambda: ops.topk_peaks(tile, 30, 5, 9, 33, 0.1),
        "peaks in the widest window": lambda: ops.topk_peaks(wide, 30, 15, 20, 80, 0.1),
        # Every pixel is one: more candidates than the sorted buffer holds.
        "many peaks": lambda: ops.topk_peaks(many, 700, 1, 16, 128, 0.0),
        "peaks of shrunk maps": lambda: ops.topk_peaks(shrunk, 30, 5, 32, 4, 0.1),
    }


def _reading(ops, random: _Random) -> dict[str, Call]:
    maps, tags = random(2, 2, 19, 71), random(2, 2, 2, 19, 71, scale=3)
    small, small_tags = random(1, 4, 20, 20), random(1, 4, 1, 20, 20)
    indices = torch.arange(28, device=random.device).view(2, 2, 7) * 191
    corners = torch.tensor([0, 8, 72, 80], device=random.device).expand(1, 4, 4)
    outside = torch.tensor([-3, 85, 1 << 40], device=random.device).expand(1, 4, 3)
    return {
        "reading": lambda: ops.read_peaks(maps, tags, indices, 38, 142, False),
        "reading at corners": lambda: ops.read_peaks(small, small_tags, corners, 9, 9, False),
        "fitting at corners": lambda: ops.read_peaks(small, small_tags, corners, 9, 9, True),
        "reading outside": lambda: ops.read_peaks(small, small_tags, outside, 9, 9, False),
        "fitting outside": lambda: ops.read_peaks(small, small_tags, outside, 9, 9, True),
    }


def _grouping(ops, random: _Random) -> dict[str, Call]:
    scores, xy, tags = random(2, 2, 40), random(2, 2, 40, 2), random(2, 2, 40, 2, scale=50)
    full_scores, full_xy = random(1, 3, 128) + 0.2, random(1, 3, 128, 2)
    full_tags = torch.arange(384.0, device=random.device).view(1, 3, 128, 1) * 5
    full_tags[:, 1] = full_tags[:, 0] + 2
    full_scores[:, 2, 1:] = 0
    alike, one_joint = random(2, 2, 40, 2, scale=3), (scores[:, :1], xy[:, :1], tags[:, :1])
    return {
        "grouping": lambda: ops.group_tags(scores, xy, tags, [1, 0], 50, 1.0, 0.1),
        "grouping of one joint": lambda: ops.group_tags(*one_joint, [0], 50, 1.0, 0.1),
        # As many candidates and people as a block has room for; no two belong together.
        "grouping of all that fit": lambda: ops.group_tags(
            full_scores, full_xy, full_tags, [0, 1, 2], 128, 1.0, 0.1
        ),
        # More candidates than people to join: the people take the rows of the assignment.
        "grouping by people": lambda: ops.group_tags(scores, xy, alike, [1, 0], 10, 1.0, 0.1),
    }


def _refinement(ops, random: _Random) -> dict[str, Call]:
    maps, tags = random(1, 2, 19, 71), random(1, 2, 2, 19, 71, scale=3)
    found, counts = random(1, 40, 2, 5), torch.tensor([40], device=random.device)
    found[:, [0, 32], 1] = 0  # one block looks for both
    too_many = torch.tensor([1000], device=random.device)
    one, two_joints = random(1, 1, 2, 4) + 1, torch.tensor([1], device=random.device)
    one[..., 3] = 0
    one[:, :, 1] = 0
    # 257 tiles of 32 x 32 pixels. The last one promises most, as the best score and the best tag
    # of different pixels, so that all 256 others are queued; then the first one beats them all.
    row, row_tags = torch.full((1, 2, 1, 8224), 0.1), torch.zeros(1, 2, 1, 1, 8224)
    row[..., -2], row_tags[..., -2], row[..., 4] = 2.0, 5.0, 1.0
    row, row_tags = row.to(random.device), row_tags.to(random.device)
    return {
        "refinement": lambda: ops.refine_people(maps, tags, found, counts, 38, 142, False),
        "refinement of more people than there are": lambda: ops.refine_people(
            maps, tags, found, too_many, 38, 142, False
        ),
        "refinement in many tiles": lambda: ops.refine_people(
            row, row_tags, one, two_joints, 1, 8224, False
        ),
    }


def _aggregation(ops, random: _Random) -> dict[str, Call]:
    quarter, half = [random(1, 2, 9, 35) for _ in range(2)], [random(1, 2, 18, 70)] * 2
    return {
        "aggregation": lambda: ops.aggregate_heatmaps(quarter, half, quarter, half, [1, 0]),
    }


def _types(ops, random: _Random) -> dict[str, Call]:
    """Other types and settings, and tags as far apart as finite numbers are."""
    double = random.people(2, 5, 150, 150).double()
    scores, xy, huge = random(1, 2, 6) + 0.2, random(1, 2, 6, 2), random(1, 2, 6, 1) * 3e38
    huge[:, :, ::2] *= -1
    made: dict[str, Call] = {
        "square targets in float64": lambda: ops.render_heatmaps(
            double, [37], [71], [2.0], [2.0], [10.0], "square"
        ),
        "grouping of huge tags": lambda: ops.group_tags(scores, xy, huge, [1, 0], 4, 1.0, 0.1),
    }
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        made |= _of_type(ops, random, dtype)
    return made


def _of_type(ops, random: _Random, dtype: torch.dtype) -> dict[str, Call]:
    """Maps as a network gives them: channels last, heatmaps and tags two halves of its channels."""
    half = random(2, 2, 18, 70).to(dtype).to(memory_format=torch.channels_last)
    quarter = random(2, 4, 9, 35).to(dtype).to(memory_format=torch.channels_last)
    heatmaps, tags = quarter[:, :2], quarter[:, 2:, None] * 3
    keypoints, grad = random.people(2, 5, 150, 150), random(2)
    if dtype == torch.float64:
        keypoints = keypoints.double()
    square = (2.0, 2.0, 10.0, "square")
    corners = torch.tensor([0, 700, 1259], device=random.device).expand(2, 2, 3)
    people, counts = random(2, 3, 2, 4), torch.full((2,), 3, device=random.device)
    people[:, :, 1] = 0
    name = str(dtype).removeprefix("torch.")
    return {
        f"square loss in {name}": lambda: ops.heatmap_mse(half, keypoints, None, *square),
        f"square gradient in {name}": lambda: ops.heatmap_mse_backward(
            grad, half, keypoints, None, *square
        ),
        f"peaks in {name}": lambda: ops.topk_peaks(heatmaps, 5, 5, 18, 70, 0.1),
        f"fitting in {name}": lambda: ops.read_peaks(heatmaps, tags, corners, 18, 70, True),
        f"refinement between pixels in {name}": lambda: ops.refine_people(
            heatmaps, tags, people, counts, 18, 70, True
        ),
        f"aggregation in {name}": lambda: ops.aggregate_heatmaps(
            [heatmaps], [half], [heatmaps], [half], [1, 0]
        ),
    }
