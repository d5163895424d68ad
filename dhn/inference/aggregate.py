"""What runs for each batch of images, as one module: to call, to compile, to export."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dhn import ops
from dhn.model import PoseMaps
from dhn.model.normalise import normalise


class PoseInference(nn.Module):
    """Images in, the maps that `decode_poses` reads out: flip test, network, aggregation.

    Args:
        network: maps normalised images to `PoseMaps`; its weights are of `dtype`.
        flip: J joints, the mirrored image's for each (`JointSet.flip`), to average with the
            mirrored images, which run in the same batch; None runs the plain ones alone.
        fine_only: leave the coarse heatmaps out (paper, Table 2 without "Aggregation").
        dtype: what the network computes in.
        native: aggregate by our operator; without it the graph is of PyTorch's operators alone.
    """

    def __init__(
        self,
        network: nn.Module,
        flip: Sequence[int] | None = None,
        *,
        fine_only: bool = False,
        dtype: torch.dtype = torch.float32,
        native: bool = True,
    ) -> None:
        super().__init__()
        self.network = network
        self.flip = None if flip is None else list(flip)
        self.fine_only = fine_only
        self.dtype = dtype
        self.native = native

    def on(self, network: nn.Module, *, native: bool = True) -> "PoseInference":
        """The same with another form of the network."""
        return PoseInference(
            network, self.flip, fine_only=self.fine_only, dtype=self.dtype, native=native
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Runs a batch.

        Args:
            images: uint8 [B, 3, H, W], RGB, padded with black; H and W multiples of 32.

        Returns:
            heatmaps float32 [B, J, h, w] and tags float32 [B, J, T, h, w]; T = 2 with the flip
            test, and h = H / 2 for networks that have 1/2 maps, else H / 4.
        """
        B = images.shape[0]  # len() would fix the batch size of an exported graph
        if self.flip is not None:
            images = torch.cat([images, images.flip(3)])
        images = normalise(images).to(self.dtype)
        maps: PoseMaps = self.network(images)
        plain = PoseMaps([h[:B] for h in maps.heatmaps], [t[:B] for t in maps.tags])
        if self.flip is None:
            return aggregate(plain, None, (), fine_only=self.fine_only, native=self.native)
        mirrored = PoseMaps([h[B:] for h in maps.heatmaps], [t[B:] for t in maps.tags])
        return aggregate(plain, mirrored, self.flip, fine_only=self.fine_only, native=self.native)


def aggregate(
    plain: PoseMaps,
    mirrored: PoseMaps | None,
    flip: Sequence[int],
    *,
    fine_only: bool = False,
    native: bool = True,
) -> tuple[Tensor, Tensor]:
    """Aggregates the maps of all stages, levels and both passes (paper section 3.5).

    Coarse and fine heatmaps are averaged at 1/4 and at 1/2; the 1/4 mean is upsampled to 1/2
    and averaged in; plain and mirrored passes are averaged. The last stage's tags are upsampled
    to 1/2 and not averaged: each pass is a tag dimension.

    Args:
        plain: maps of the images.
        mirrored: maps of the mirrored images, or None.
        flip: the joint whose mirror image each joint is.
        fine_only: leave the coarse heatmaps out.
        native: by `ops.aggregate_heatmaps`; else by PyTorch's operators, to the same values.

    Returns:
        heatmaps float32 [B, J, h, w], tags float32 [B, J, T, h, w].
    """
    passes = [plain] if mirrored is None else [plain, mirrored]
    levels = [_levels(maps, fine_only) for maps in passes]
    tags = [plain.tags[-1].float()]
    if mirrored is not None:
        tags.append(_mirror(mirrored.tags[-1].float(), flip))
    quarter, half = levels[0]
    if half:  # bottom-up HRNet has 1/4 maps only
        size = half[0].shape[2:]
        tags = [F.interpolate(t, size=size, mode="bilinear") for t in tags]
    if half and native:
        flipped_quarter, flipped_half = ([], []) if mirrored is None else levels[1]
        heatmaps = ops.aggregate_heatmaps(quarter, half, flipped_quarter, flipped_half, flip)
    else:
        averaged = [_average(*level) for level in levels]
        heatmaps = averaged[0]
        if mirrored is not None:
            heatmaps = (heatmaps + _mirror(averaged[1], flip)) / 2
    return heatmaps, torch.stack(tags, dim=2)


def _levels(maps: PoseMaps, fine_only: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Heatmaps at 1/4 and at 1/2, coarse before fine."""
    heatmaps = maps.heatmaps[-2:] if fine_only else maps.heatmaps
    return list(heatmaps[0::2]), list(heatmaps[1::2])


def _average(quarter: list[Tensor], half: list[Tensor]) -> Tensor:
    """`ops.aggregate_heatmaps` of one pass; float32."""
    coarse = torch.stack(quarter).float().mean(0)
    if not half:
        return coarse
    coarse = F.interpolate(coarse, size=half[0].shape[2:], mode="bilinear")
    return (torch.stack(half).float().mean(0) + coarse) / 2


def _mirror(maps: Tensor, flip: Sequence[int]) -> Tensor:
    """Maps of the mirrored image as those of the image."""
    return maps.flip(3)[:, list(flip)]
