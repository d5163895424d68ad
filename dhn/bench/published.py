"""The published decode, as the baseline of ours."""

import torch.nn.functional as F
from torch import Tensor

from dhn.ops import DecodeConfig, reference


def published_decode(
    heatmaps: Tensor, tags: Tensor, size: tuple[int, int]
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Decodes as HigherHRNet's paper and code describe it, step by step in plain PyTorch.

    It is our own reference, not the official code: maps are upsampled to the network input by
    torch's interpolation, and people are grouped by a solver of assignments in plain Python.
    `benchmarks/decode.py` times the official code itself.

    Args:
        heatmaps: float32 [B, J, h, w].
        tags: float32 [B, J, T, h, w].
        size: (H, W) of the network input, in pixels.

    Returns:
        keypoints, `grouped` and scores of each of the B images, as `ops.decode_poses` returns them.
    """
    return reference.decode_poses(heatmaps, tags, size, DecodeConfig(), _interpolate)


def _interpolate(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)
