"""What several scripts compute: maps at input resolution, distances of keypoints, quartiles."""

import statistics
from collections.abc import Iterable

import numpy as np
import torch.nn.functional as F
from torch import Tensor


def upsampled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [1, ..., h, w] at the input's resolution, [1, ..., H, W], bilinearly."""
    flat = maps.flatten(0, -3)[None]
    return F.interpolate(flat, size=size, mode="bilinear").view(*maps.shape[:-2], *size)


def quartiles(values: Iterable[float]) -> dict[str, float]:
    """The median, and the first and third quartile (`low`, `high`)."""
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": median, "low": low, "high": high}


def distances(ours: np.ndarray, official: np.ndarray) -> np.ndarray:
    """How far from each keypoint of the official code's people ours lies, in pixels.

    A person is compared with the nearest one of ours. The distance is infinite where ours lacks
    the joint.

    Args:
        ours: [P, J, 3]: x, y, and a score that is 0 where the joint is missing.
        official: [Q, J, 3], likewise.

    Returns:
        One distance for each keypoint that the official code found.
    """
    found = official[..., 2] > 0
    if not len(ours):
        return np.full(found.sum(), np.inf)
    both = found[:, None] & (ours[..., 2] > 0)  # [official, ours, J]
    apart = np.linalg.norm(official[:, None, :, :2] - ours[..., :2], axis=-1)
    apart = np.where(both, apart, np.inf)
    nearest = np.minimum(apart, 1e3).sum(-1).argmin(1)
    return apart[np.arange(len(official)), nearest][found]
