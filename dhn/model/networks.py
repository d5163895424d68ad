"""DoubleHigherNet and its baselines, all on the HRNet backbone.

With J joints, a prediction at 1/4 of the image has 2J channels, J heatmaps and then J tags, and a
prediction at 1/2 has J heatmaps. A tag is one number; a flip test makes it two.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dhn.model.hrnet import (
    Backbone,
    BasicBlock,
    Bottleneck,
    HRNet,
    check_input,
    conv_bn,
    initialise,
)

Fusion = Literal["attention", "concat"]


class PoseMaps(NamedTuple):
    """What a network returns for images [B, 3, H, W].

    Attributes:
        heatmaps: float [B, J, H/s, W/s] each, coarse before fine and s = 4 before s = 2.
        tags: float [B, J, H/4, W/4] each, coarse before fine. Only the last one groups joints.
    """

    heatmaps: list[Tensor]
    tags: list[Tensor]


class AttentionFusion(nn.Module):
    """Concatenation weighted by channel attention (paper section 3.3).

    z = concat(a, b); z * sigmoid(fc2(relu(fc1(mean of z over the image)))), reduction 4.
    """

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        z = torch.cat([a, b], dim=1)  # [B, channels, H, W]
        weight = torch.sigmoid(self.fc2(F.relu(self.fc1(z.mean(dim=(2, 3))))))
        return z * weight.to(z.dtype)[:, :, None, None]


class Concatenation(nn.Module):
    """Plain concatenation, the first row of the paper's Table 2."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.cat([a, b], dim=1)


def fusion_block(kind: Fusion, channels: int) -> nn.Module:
    if kind not in ("attention", "concat"):
        raise ValueError(f"fusion must be 'attention' or 'concat', not {kind!r}")
    return AttentionFusion(channels) if kind == "attention" else Concatenation()


def _upsampling(inputs: int, outputs: int) -> nn.Sequential:
    """Doubles the resolution; the 1x1 after the deconvolution reduces the channels."""
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, inputs, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU(inplace=True),
        *conv_bn(inputs, outputs, 1),
    )


def _bottlenecks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(Bottleneck(channels, channels // 4) for _ in range(count)))


class DoublePyramid(nn.Module):
    """Two cascaded high-resolution pyramids, coarse and fine (paper section 3.1).

    Args:
        backbone: returns one map [B, C, H/4, W/4], and says C as `channels[0]`.
        num_joints: J.
        fusion: `attention` (the paper's block) or `concat` (Table 2, row 1).
        half: channels of the maps at 1/2.
        upsampling: makes the layers that bring a map of so many channels to one of `half`, twice
            as large.
        between_quarter, between_half: make the layers between the stages, at 1/4 and at 1/2.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_joints: int,
        *,
        fusion: Fusion,
        half: int,
        upsampling: Callable[[int, int], nn.Module],
        between_quarter: Callable[[], nn.Module],
        between_half: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        C, J = backbone.channels[0], num_joints
        self.num_joints = J
        self.backbone = backbone
        self.coarse_head_quarter = nn.Conv2d(C, 2 * J, 1)
        self.coarse_fusion = fusion_block(fusion, C + 2 * J)
        self.coarse_upsampling = upsampling(C + 2 * J, half)
        self.coarse_head_half = nn.Conv2d(half, J, 1)
        self.transition_quarter = between_quarter()
        self.transition_half = between_half()
        self.fine_head_quarter = nn.Conv2d(C, 2 * J, 1)
        self.fine_fusion = fusion_block(fusion, C + 2 * J)
        self.fine_upsampling = upsampling(C + 2 * J, half)
        self.final_fusion = fusion_block(fusion, 2 * half)
        self.fine_head_half = nn.Conv2d(2 * half, J, 1)
        initialise(self)

    def forward(self, x: Tensor) -> PoseMaps:
        check_input(x)
        J = self.num_joints
        (feature,) = self.backbone(x)  # [B, C, H/4, W/4]
        coarse_quarter = self.coarse_head_quarter(feature)
        coarse_up = self.coarse_upsampling(self.coarse_fusion(feature, coarse_quarter))
        coarse_half = self.coarse_head_half(coarse_up)

        feature = self.transition_quarter(feature)
        fine_quarter = self.fine_head_quarter(feature)
        fine_up = self.fine_upsampling(self.fine_fusion(feature, fine_quarter))
        rough = self.transition_half(coarse_up)
        fine_half = self.fine_head_half(self.final_fusion(rough, fine_up))
        return PoseMaps(
            [coarse_quarter[:, :J], coarse_half, fine_quarter[:, :J], fine_half],
            [coarse_quarter[:, J:], fine_quarter[:, J:]],
        )


class DoubleHigherNet(DoublePyramid):
    """The paper's network: both pyramids on HRNet's 1/4 branch, as wide at 1/2 as at 1/4.

    Args:
        backbone: returns one map [B, C, H/4, W/4]; C must be a multiple of 4.
        num_joints: J.
        fusion: `attention` (the paper's block) or `concat` (Table 2, row 1).
        bottlenecks: the numbers of bottlenecks between the stages, at 1/4 and at 1/2.
    """

    def __init__(
        self,
        backbone: HRNet,
        num_joints: int,
        *,
        fusion: Fusion = "attention",
        bottlenecks: Sequence[int] = (4, 2),
    ) -> None:
        C = backbone.channels[0]
        super().__init__(
            backbone,
            num_joints,
            fusion=fusion,
            half=C,
            upsampling=_upsampling,
            between_quarter=lambda: _bottlenecks(C, bottlenecks[0]),
            between_half=lambda: _bottlenecks(C, bottlenecks[1]),
        )


class HigherHRNet(nn.Module):
    """HigherHRNet (Cheng et al. 2020). Module names follow the official code."""

    def __init__(self, backbone: HRNet, num_joints: int) -> None:
        super().__init__()
        C, J = backbone.channels[0], num_joints
        self.num_joints = J
        self.backbone = backbone
        self.final_layers = nn.ModuleList([nn.Conv2d(C, 2 * J, 1), nn.Conv2d(C, J, 1)])
        deconvolution = nn.Sequential(
            nn.ConvTranspose2d(C + 2 * J, C, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(C),
            nn.ReLU(inplace=True),
        )
        blocks = [nn.Sequential(BasicBlock(C)) for _ in range(4)]
        self.deconv_layers = nn.ModuleList([nn.Sequential(deconvolution, *blocks)])
        initialise(self)

    def forward(self, x: Tensor) -> PoseMaps:
        check_input(x)
        J = self.num_joints
        (feature,) = self.backbone(x)
        quarter = self.final_layers[0](feature)
        feature = self.deconv_layers[0](torch.cat([feature, quarter], dim=1))
        half = self.final_layers[1](feature)
        return PoseMaps([quarter[:, :J], half], [quarter[:, J:]])


class BottomUpHRNet(nn.Module):
    """HRNet with a 1x1 head on its four branches, all brought to 1/4 (paper section 2.4)."""

    def __init__(self, backbone: HRNet, num_joints: int) -> None:
        super().__init__()
        self.num_joints = num_joints
        self.backbone = backbone
        self.head = nn.Conv2d(sum(backbone.channels), 2 * num_joints, 1)
        initialise(self)

    def forward(self, x: Tensor) -> PoseMaps:
        check_input(x)
        first, *others = self.backbone(x)
        others = [
            F.interpolate(y, size=first.shape[2:], mode="bilinear", align_corners=False)
            for y in others
        ]
        maps = self.head(torch.cat([first, *others], dim=1))
        return PoseMaps([maps[:, : self.num_joints]], [maps[:, self.num_joints :]])
