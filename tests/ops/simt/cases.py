"""Calls of the CUDA operators, each as small as what it shows allows: sanitizers are slow.

Together they come to every barrier and every bound of the kernels; bugs.py says which of them comes
to which.
"""

from collections.abc import Callable

import torch
from torch import Tensor

OUTPUTS = Callable[[], object]


def cases(ops, device: str = "cpu") -> dict[str, OUTPUTS]:
    """By name; `ops` are torch.ops.dhn, the SIMT runner's, or None to know the names alone."""
    made = _training(ops, _Random(5, device))
    made |= _peaks(ops, _Random(6, device)) | _grouping(ops, _Random(7, device))
    return made | _refinement(ops, _Random(8, device)) | _aggregation(ops, _Random(9, device))


class _Random:
    """Tensors from a seeded generator."""

    def __init__(self, seed: int, device: str) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.device = device

    def __call__(self, *shape: int, scale: float = 1.0) -> Tensor:
        return (torch.rand(*shape, generator=self.generator) * scale).to(self.device)

    def people(self, B: int, P: int, width: float, height: float) -> Tensor:
        """Keypoints [B, P, 2, 3] on an image, all labelled."""
        xy = self(B, P, 2, 2) * torch.tensor([width, height], device=self.device)
        return torch.cat([xy, torch.ones_like(xy[..., :1])], -1)


def _training(ops, random: _Random) -> dict[str, OUTPUTS]:
    few, crowd = random.people(2, 5, 150, 150), random.people(1, 260, 128, 32)
    maps, mask, grad = random(2, 2, 19, 71), random(2, 19, 71), random(2)
    tile = random(1, 2, 16, 64)
    target = (2.0, 7.0, 10.0, "disc")
    return {
        "targets": lambda: ops.render_heatmaps(
            few, [37, 19], [71, 36], [2.0, 4.0], [7.0, 7.0], [10.0, 7.0], "disc"
        ),
        # More people on one tile than a block looks at between two barriers.
        "targets of a crowd": lambda: ops.render_heatmaps(
            crowd, [16], [64], [2.0], [7.0], [10.0], "disc"
        ),
        "loss": lambda: ops.heatmap_mse(maps, few, mask, *target),
        "loss of a crowd": lambda: ops.heatmap_mse(tile, crowd, None, *target),
        "gradient": lambda: ops.heatmap_mse_backward(grad, maps, few, mask, *target),
    }


def _peaks(ops, random: _Random) -> dict[str, OUTPUTS]:
    maps, tags = random(2, 2, 19, 71), random(2, 2, 2, 19, 71, scale=3)
    indices = torch.arange(28, device=random.device).view(2, 2, 7) * 191
    wide, many, small = random(1, 1, 10, 40), random(1, 1, 32, 128), random(1, 1, 40, 40)
    return {
        "peaks": lambda: ops.topk_peaks(maps, 30, 5, 38, 142, 0.1),
        "peaks in the widest window": lambda: ops.topk_peaks(wide, 9, 15, 20, 80, 0.1),
        # Every pixel is one: the sorted buffer overflows where it is not kept short.
        "many peaks": lambda: ops.topk_peaks(many, 300, 1, 32, 128, 0.0),
        "peaks of shrunk maps": lambda: ops.topk_peaks(small, 30, 5, 9, 9, 0.1),
        "reading": lambda: ops.read_peaks(maps, tags, indices, 38, 142, False),
    }


def _grouping(ops, random: _Random) -> dict[str, OUTPUTS]:
    scores, xy, tags = random(2, 2, 40), random(2, 2, 40, 2), random(2, 2, 40, 2, scale=50)
    return {
        "grouping": lambda: ops.group_tags(scores, xy, tags, [1, 0], 50, 1.0, 0.1),
    }


def _refinement(ops, random: _Random) -> dict[str, OUTPUTS]:
    maps, tags = random(2, 2, 19, 71), random(2, 2, 2, 19, 71, scale=3)
    found, counts = random(2, 40, 2, 5), torch.tensor([3, 40], device=random.device)
    found[:, ::2, 1] = 0
    return {
        "refinement": lambda: ops.refine_people(maps, tags, found, counts, 38, 142, False),
    }


def _aggregation(ops, random: _Random) -> dict[str, OUTPUTS]:
    quarter, half = [random(1, 2, 9, 35) for _ in range(2)], [random(1, 2, 18, 70)] * 2
    return {
        "aggregation": lambda: ops.aggregate_heatmaps(quarter, half, quarter, half, [1, 0]),
    }
