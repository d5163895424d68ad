"""DoubleHigherNet-lite: both pyramids of the paper on a thin HRNet, for CPUs."""

from collections.abc import Sequence

from torch import Tensor, nn

from dhn.model.depthwise import DepthwiseConv2d
from dhn.model.efficientnet import EfficientPyramid
from dhn.model.hrnet import BasicBlock, ExchangeModule, check_input, conv_bn, initialise
from dhn.model.networks import Fusion, PoseMaps, fusion_block


class LargeKernelBlock(nn.Module):
    """A k x k depthwise convolution, two 1x1 convolutions over twice the channels, a shortcut.

    As in LitePose (Wang et al. 2022), a large kernel sees far at a small price: the depthwise
    convolution costs k^2 per number, where a full 3x3 costs 9 times the channels.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.conv1 = DepthwiseConv2d(channels, channels, kernel)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, 2 * channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(2 * channels)
        self.conv3 = nn.Conv2d(2 * channels, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + x)


def _block(channels: int, kernel: int) -> nn.Module:
    return BasicBlock(channels) if kernel == 3 else LargeKernelBlock(channels, kernel)


class LiteHRNet(nn.Module):
    """An HRNet without its wide first layers and with as many branches as asked for.

    Args:
        width: C, channels of the 1/4 branch; the others have 2C, 4C, 8C.
        branches: 2 to 4 resolutions, from 1/4 down to 1/8, 1/16 or 1/32.
        modules: exchange modules in each of the `branches - 1` stages; more entries are not read.
        blocks: blocks per branch and module, and blocks at 1/4 before the first stage.
        kernel: 3 for HRNet's own blocks, 5, 7 or 9 for `LargeKernelBlock`.
        stem: channels of the map at 1/2.
    """

    def __init__(
        self,
        width: int,
        *,
        branches: int = 4,
        modules: Sequence[int] = (1, 2, 1),
        blocks: int = 1,
        kernel: int = 3,
        stem: int = 16,
    ) -> None:
        super().__init__()
        if branches not in (2, 3, 4) or len(modules) < branches - 1:
            raise ValueError(
                f"branches must be 2, 3 or 4, with modules for each stage, not {branches} and "
                f"{list(modules)}"
            )
        channels = [width * 2**i for i in range(branches)]
        self.channels = channels[:1]
        self.stem = nn.Sequential(
            conv_bn(3, stem, 3, stride=2),
            conv_bn(stem, width, 3, stride=2),
            *(_block(width, kernel) for _ in range(blocks)),
        )
        self.transitions = nn.ModuleList()
        self.stages = nn.ModuleList()
        for stage in range(1, branches):
            now = channels[: stage + 1]
            self.transitions.append(conv_bn(now[-2], now[-1], 3, stride=2))
            last = 1 if stage == branches - 1 else len(now)
            outputs = [len(now)] * (modules[stage - 1] - 1) + [last]
            self.stages.append(
                nn.Sequential(
                    *(ExchangeModule(now, blocks, n, lambda c: _block(c, kernel)) for n in outputs)
                )
            )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps a normalised image [B, 3, H, W] to one map [B, C, H/4, W/4]."""
        maps = [self.stem(x)]
        for transition, stage in zip(self.transitions, self.stages, strict=True):
            maps = stage([*maps, transition(maps[-1])])
        return maps


class DoubleHigherNetLite(nn.Module):
    """Two cascaded pyramids on a thin backbone, thin at 1/2 too (paper section 3.1).

    In the paper's network most of the time of a small backbone would go into the maps at 1/2.
    Here they have `half` channels, and a 1x1 convolution at 1/4 with a pixel shuffle takes the
    place of the 4x4 deconvolution.

    Args:
        backbone: gives one map [B, C, H/4, W/4].
        num_joints: J.
        fusion: `attention` (the paper's block) or `concat`.
        half: channels of the maps at 1/2.
        blocks: how many lie between the stages at 1/4; at 1/2 lies one.
        kernel: of the blocks, as in `LiteHRNet`.
    """

    def __init__(
        self,
        backbone: LiteHRNet | EfficientPyramid,
        num_joints: int,
        *,
        fusion: Fusion = "attention",
        half: int = 16,
        blocks: int = 2,
        kernel: int = 3,
    ) -> None:
        super().__init__()
        C, J = backbone.channels[0], num_joints
        self.num_joints = J
        self.backbone = backbone
        self.coarse_head_quarter = nn.Conv2d(C, 2 * J, 1)
        self.coarse_fusion = fusion_block(fusion, C + 2 * J)
        self.coarse_upsampling = _upsampling(C + 2 * J, half)
        self.coarse_head_half = nn.Conv2d(half, J, 1)
        self.transition_quarter = nn.Sequential(*(_block(C, kernel) for _ in range(blocks)))
        self.transition_half = _block(half, kernel)
        self.fine_head_quarter = nn.Conv2d(C, 2 * J, 1)
        self.fine_fusion = fusion_block(fusion, C + 2 * J)
        self.fine_upsampling = _upsampling(C + 2 * J, half)
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


def _upsampling(inputs: int, outputs: int) -> nn.Sequential:
    """Twice the resolution: each pixel gives the channels of four, which a 3x3 then smooths."""
    return nn.Sequential(
        *conv_bn(inputs, 4 * outputs, 1), nn.PixelShuffle(2), *conv_bn(outputs, outputs, 3)
    )
