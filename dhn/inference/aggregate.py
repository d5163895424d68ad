"""Everything that runs for a batch of images as one module, to call, to compile or to export."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dhn import ops
from dhn.base.native import has_kernels
from dhn.model import PoseMaps
from dhn.model.normalise import Normalise


class PoseInference(nn.Module):
    """From images to the maps that `decode_poses` reads: flip test, network and aggregation.

    The constants of normalisation and flip test are buffers beside the network's weights, so that
    nothing is copied from the host but the images.

    Args:
        network: maps normalised images to `PoseMaps`; its weights are of type `dtype`.
        flip: average with the mirrored images, which run in the same batch. It gives for each of
            the J joints the one of the mirrored image (`JointSet.flip`). None runs the images
            alone.
        fine_only: leave out the coarse heatmaps (paper, Table 2 without "Aggregation").
        dtype: what the network computes in.
        native: aggregate by our own operator where the device has it. Without it the graph holds
            PyTorch's operators only.
    """

    order: Tensor | None

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
        device = next((weight.device for weight in network.parameters()), torch.device("cpu"))
        self.normalise = Normalise().to(device)
        order = None if flip is None else torch.tensor(list(flip), device=device)
        self.register_buffer("order", order, persistent=False)
        self.fine_only = fine_only
        self.dtype = dtype
        self.native = native

    def on(self, network: nn.Module, *, native: bool = True) -> "PoseInference":
        """The same inference with another form of the network."""
        return PoseInference(
            network, self.flip, fine_only=self.fine_only, dtype=self.dtype, native=native
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Runs a batch.

        Args:
            images: RGB uint8 [B, 3, H, W], padded with black; H and W are multiples of 32.

        Returns:
            heatmaps float32 [B, J, h, w] and tags float32 [B, J, T, h, w]. T is 2 with the flip
            test, else 1; h is H / 2 for networks that have 1/2 maps, else H / 4.
        """
        B = images.shape[0]  # len() would fix the batch size of an exported graph
        if self.flip is not None:
            images = torch.cat([images, images.flip(3)])
        images = self.normalise(images).to(self.dtype)
        maps: PoseMaps = self.network(images)
        plain = PoseMaps([h[:B] for h in maps.heatmaps], [t[:B] for t in maps.tags])
        if self.flip is None:
            return aggregate(plain, None, (), fine_only=self.fine_only, native=self.native)
        mirrored = PoseMaps([h[B:] for h in maps.heatmaps], [t[B:] for t in maps.tags])
        return aggregate(
            plain,
            mirrored,
            self.flip,
            fine_only=self.fine_only,
            native=self.native,
            order=self.order,
        )


def aggregate(
    plain: PoseMaps,
    mirrored: PoseMaps | None,
    flip: Sequence[int],
    *,
    fine_only: bool = False,
    native: bool = True,
    order: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Aggregates the maps of all stages and levels, and of both passes (paper, section 3.5).

    Coarse and fine heatmaps are averaged at 1/4 and at 1/2, and the mean of 1/4 is upsampled and
    averaged with that of 1/2. Then the plain and the mirrored pass are averaged. The tags of the
    last stage are upsampled to 1/2 but not averaged: each pass becomes a tag dimension.

    Args:
        plain: the maps of the images.
        mirrored: the maps of the mirrored images, or None.
        flip: for each joint, the one that it becomes in a mirror.
        fine_only: leave out the coarse heatmaps.
        native: aggregate by `ops.aggregate_heatmaps`. Without it, and on devices that have no such
            kernel, PyTorch's operators give the same values.
        order: `flip` as a tensor on the device of the maps, so that it is not copied there.

    Returns:
        heatmaps float32 [B, J, h, w], tags float32 [B, J, T, h, w].
    """
    passes = [plain] if mirrored is None else [plain, mirrored]
    levels = [_levels(maps, fine_only) for maps in passes]
    tags = [plain.tags[-1].float()]
    if mirrored is not None:
        if order is None:
            order = torch.tensor(list(flip), device=mirrored.tags[-1].device)
        tags.append(_mirror(mirrored.tags[-1].float(), order))
    quarter, half = levels[0]
    if half:  # else it is bottom-up HRNet, which has 1/4 maps only
        size = half[0].shape[2:]
        tags = [F.interpolate(t, size=size, mode="bilinear") for t in tags]
    if half and native and has_kernels(half[0].device.type):
        flipped_quarter, flipped_half = ([], []) if mirrored is None else levels[1]
        heatmaps = ops.aggregate_heatmaps(quarter, half, flipped_quarter, flipped_half, flip)
    else:
        averaged = [_average(*level) for level in levels]
        heatmaps = averaged[0]
        if order is not None:
            heatmaps = (heatmaps + _mirror(averaged[1], order)) / 2
    return heatmaps, torch.stack(tags, dim=2)


def _levels(maps: PoseMaps, fine_only: bool) -> tuple[list[Tensor], list[Tensor]]:
    """The heatmaps at 1/4 and those at 1/2, coarse before fine."""
    heatmaps = maps.heatmaps[-2:] if fine_only else maps.heatmaps
    return list(heatmaps[0::2]), list(heatmaps[1::2])


def _average(quarter: list[Tensor], half: list[Tensor]) -> Tensor:
    """What `ops.aggregate_heatmaps` gives for one pass; float32."""
    coarse = torch.stack(quarter).float().mean(0)
    if not half:
        return coarse
    coarse = F.interpolate(coarse, size=half[0].shape[2:], mode="bilinear")
    return (torch.stack(half).float().mean(0) + coarse) / 2


def _mirror(maps: Tensor, order: Tensor) -> Tensor:
    """Turns maps of a mirrored image into maps of the image."""
    return maps.flip(3).index_select(1, order)
