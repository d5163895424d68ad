"""The training loss: masked heatmap MSE and associative-embedding grouping loss.

Everything is computed in float32 (float64 where the maps are), whatever the network's precision,
without a loop over people and without a copy to the host.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dhn import ops
from dhn.model import PoseMaps
from dhn.ops.plain import widen

if TYPE_CHECKING:  # with pydantic, which nothing here needs
    from dhn.training.settings import Loss


class GroupingLoss(NamedTuple):
    pull: Tensor  # scalar: how far a person's tags lie from their mean
    push: Tensor  # scalar: how near the mean tags of two people lie


def grouping_loss(tags: Tensor, keypoints: Tensor, stride: float = 4.0) -> GroupingLoss:
    """Associative-embedding loss (Newell et al. 2017), averaged over the batch.

    A tag is read at floor(x / stride), floor(y / stride); joints outside the map are left out.
    With N people of whom a tag was read, and m_p the mean of a person's tags,
    pull = mean over people of the mean squared distance of a person's tags from m_p;
    push = 0.5 * sum over ordered pairs p != q of exp(-(m_p - m_q)^2) / (N (N - 1)).
    Without people both are 0; with one person push is 0.

    Args:
        tags: float [B, J, h, w].
        keypoints: float [B, P, J, 3], (x, y) in input pixels and visibility (> 0 counts).
        stride: input pixels per map pixel.
    """
    B, J, h, w = tags.shape
    tags = widen(tags)
    column = torch.floor(keypoints[..., 0] / stride)  # [B, P, J]
    row = torch.floor(keypoints[..., 1] / stride)
    seen = (keypoints[..., 2] > 0) & (column >= 0) & (column < w) & (row >= 0) & (row < h)
    # A joint that is not seen reads pixel 0, and does not count below.
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


class PoseLoss(NamedTuple):
    """The parts of the training loss, scalars averaged over the batch.

    Attributes:
        total: the sum that is minimised.
        heatmaps: masked MSE of each heatmap, coarse before fine and 1/4 before 1/2.
        flat: what `heatmaps[-1]` would be for a map of zeros; the network has begun to learn where
            joints are once `heatmaps[-1]` is clearly below it.
        pull, push: summed over the tag maps, before their weights.
    """

    total: Tensor
    heatmaps: list[Tensor]
    flat: Tensor
    pull: Tensor
    push: Tensor

    def parts(self) -> list[Tensor]:
        """All of them in one list: total, heatmaps, flat, pull, push."""
        return [self.total, *self.heatmaps, self.flat, self.pull, self.push]


def pose_loss(
    maps: PoseMaps,
    keypoints: Tensor,
    mask: Tensor | None,
    settings: "Loss",
    boxes: Tensor | None = None,
    *,
    input_size: int,
    foreground: float = 0.0,
) -> PoseLoss:
    """The loss of a batch: MSE of all heatmaps, and the grouping loss of all tag maps.

    Args:
        maps: the network's output, any float dtype.
        keypoints: float32 [B, P, J, 3] in input pixels; v = -1 where a joint is unknown.
        mask: uint8 [B, S, S] at input resolution, 0 = ignored; None counts everything.
        settings: the targets (see `dhn.ops.render_heatmaps`) and the weights of pull and push;
            networks of one stage use the fine stage's tau.
        boxes: float32 [B, P, 4], x0, y0, x1, y1 in input pixels. A pixel of joint j inside the box
            of a person whose joint j is unknown does not count, unless somebody else's labelled
            joint j is drawn there. None: no joint is unknown.
        input_size: S.
        foreground: a pixel weighs 1 + foreground * target; 0 is the paper's plain mean. It goes
            from one end of `settings.foreground` to the other while a run trains.
    """
    stages = len(maps.tags)
    per_stage = len(maps.heatmaps) // stages
    taus = settings.tau[-stages:]
    losses, flat = [], keypoints.new_zeros(())
    for k, heatmap in enumerate(maps.heatmaps):
        drawing: dict[str, Any] = {
            "stride": input_size / heatmap.shape[-1],
            "sigma": settings.sigma,
            "tau": taus[k // per_stage],
            "units": settings.units,
            "target": settings.target,
        }
        weight = None if mask is None else _shrink(mask, heatmap.shape[-2:])
        if foreground:
            loss, flat = _weighted_mse(heatmap, keypoints, weight, boxes, foreground, drawing)
        else:
            loss = ops.heatmap_mse(heatmap, keypoints, weight, **drawing, boxes=boxes).mean()
            if k == len(maps.heatmaps) - 1:
                zero = torch.zeros_like(heatmap)
                flat = ops.heatmap_mse(zero, keypoints, weight, **drawing, boxes=boxes).mean()
        losses.append(loss)
    grouping = [grouping_loss(t, keypoints, input_size / t.shape[-1]) for t in maps.tags]
    pull = torch.stack([g.pull for g in grouping]).sum()
    push = torch.stack([g.push for g in grouping]).sum()
    total = torch.stack(losses).sum() + settings.pull * pull + settings.push * push
    return PoseLoss(total, [x.detach() for x in losses], flat, pull.detach(), push.detach())


def _shrink(mask: Tensor, size: Sequence[int]) -> Tensor:
    """uint8 [B, S, S] to float32 [B, h, w]. A map pixel counts if most of its input pixels do."""
    return (F.adaptive_avg_pool2d(mask.float(), (size[0], size[1])) > 0.5).float()


def _weighted_mse(
    heatmap: Tensor,
    keypoints: Tensor,
    mask: Tensor | None,
    boxes: Tensor | None,
    foreground: float,
    drawing: dict[str, Any],
) -> tuple[Tensor, Tensor]:
    """The MSE with pixels weighted by 1 + foreground * target, and that of a map of zeros."""
    h, w = heatmap.shape[-2:]
    drawn = ops.render_heatmaps(keypoints, (h, w), **drawing)  # [B, J, h, w]
    weight = 1 + foreground * drawn
    if boxes is not None:
        unknown = unknown_pixels(keypoints, boxes, (h, w), drawing["stride"])
        weight = torch.where(unknown & (drawn == 0), 0, weight)
    if mask is not None:
        weight = weight * mask[:, None]
    return (weight * (widen(heatmap) - drawn) ** 2).mean(), (weight * drawn**2).mean()


def unknown_pixels(
    keypoints: Tensor, boxes: Tensor, size: tuple[int, int], stride: float
) -> Tensor:
    """Where joints may be of which nobody knows whether they are there.

    Args:
        keypoints: [B, P, J, 3]; v < 0 is unknown.
        boxes: [B, P, 4], x0, y0, x1, y1 in input pixels, of the people.
        size: (h, w) of the map.
        stride: input pixels per map pixel.

    Returns:
        bool [B, J, h, w], true where the pixel's centre lies inside the box of somebody whose
        joint is unknown.
    """
    h, w = size
    x = (torch.arange(w, device=boxes.device) + 0.5) * stride
    y = (torch.arange(h, device=boxes.device) + 0.5) * stride
    x0, y0, x1, y1 = (edge[..., None] for edge in boxes.unbind(-1))  # [B, P, 1]
    columns = ((x >= x0) & (x <= x1)).float()  # [B, P, w]
    rows = ((y >= y0) & (y <= y1)).float()  # [B, P, h]
    unknown = (keypoints[..., 2] < 0).float()  # [B, P, J]
    # The number of boxes over a pixel is a product of matrices: nothing [B, P, J, h, w] is made.
    lines = (unknown[..., None] * rows[:, :, None]).flatten(2)  # [B, P, J h]
    return torch.bmm(lines.mT, columns).unflatten(1, (-1, h)) > 0
