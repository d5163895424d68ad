"""The training loss: masked heatmap MSE and associative-embedding grouping loss.

Everything is computed in float32, whatever the network's precision, without a loop over people
and without a copy to the host.
"""

from typing import NamedTuple

import torch
from torch import Tensor

PULL_FACTOR = 1e-3  # HigherHRNet's
PUSH_FACTOR = 1e-3


class GroupingLoss(NamedTuple):
    pull: Tensor  # scalar: how far a person's tags lie from their mean
    push: Tensor  # scalar: how near the mean tags of two people lie


def grouping_loss(tags: Tensor, keypoints: Tensor, stride: float = 4.0) -> GroupingLoss:
    """Associative-embedding loss (Newell et al. 2017), averaged over the batch.

    A tag is read at floor(x / stride), floor(y / stride); joints outside the map are left out.
    With N people who have a tag read,
    pull = mean over people of the mean squared distance of a person's tags from their mean;
    push = 0.5 * sum over ordered pairs p != q of exp(-(m_p - m_q)^2) / (N (N - 1)).
    Pictures without people give 0 for both, with one person 0 for push.

    Args:
        tags: float [B, J, h, w].
        keypoints: float [B, P, J, 3], (x, y) in input pixels and visibility (> 0 counts).
        stride: input pixels per map pixel.
    """
    B, J, h, w = tags.shape
    tags = tags.float()
    column = torch.floor(keypoints[..., 0] / stride)  # [B, P, J]
    row = torch.floor(keypoints[..., 1] / stride)
    seen = (keypoints[..., 2] > 0) & (column >= 0) & (column < w) & (row >= 0) & (row < h)
    # A joint that is not seen reads pixel 0; `seen` takes it out again.
    pixel = torch.where(seen, row * w + column, 0).long()  # [B, P, J]
    read = tags.flatten(2).gather(2, pixel.transpose(1, 2)).transpose(1, 2)  # [B, P, J]

    joints = seen.sum(2)  # [B, P]
    person = joints > 0
    mean = torch.where(seen, read, 0).sum(2) / joints.clamp(min=1)  # [B, P]
    spread = torch.where(seen, (read - mean[..., None]) ** 2, 0).sum(2) / joints.clamp(min=1)
    people = person.sum(1)  # [B]
    pull = spread.sum(1) / people.clamp(min=1)

    near = torch.exp(-((mean[:, :, None] - mean[:, None, :]) ** 2))  # [B, P, P]
    other = ~torch.eye(mean.shape[1], dtype=torch.bool, device=tags.device)
    pairs = person[:, :, None] & person[:, None, :] & other
    push = 0.5 * torch.where(pairs, near, 0).sum((1, 2)) / (people * (people - 1)).clamp(min=1)
    return GroupingLoss(pull.mean(), push.mean())
