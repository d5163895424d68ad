"""DoubleHigherNet-lite: both pyramids of the paper on a thin HRNet, for CPUs."""

from collections.abc import Sequence

from torch import Tensor, nn

from dhn.model.depthwise import DepthwiseConv2d
from dhn.model.hrnet import Backbone, BasicBlock, ExchangeModule, conv_bn
from dhn.model.networks import DoublePyramid, Fusion


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


class LiteHRNet(Backbone):
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


class DoubleHigherNetLite(DoublePyramid):
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
        backbone: Backbone,
        num_joints: int,
        *,
        fusion: Fusion = "attention",
        half: int = 16,
        blocks: int = 2,
        kernel: int = 3,
    ) -> None:
        C = backbone.channels[0]
        super().__init__(
            backbone,
            num_joints,
            fusion=fusion,
            half=half,
            upsampling=_upsampling,
            between_quarter=lambda: nn.Sequential(*(_block(C, kernel) for _ in range(blocks))),
            between_half=lambda: _block(half, kernel),
        )


def _upsampling(inputs: int, outputs: int) -> nn.Sequential:
    """Twice the resolution: each pixel gives the channels of four, which a 3x3 then smooths."""
    return nn.Sequential(
        *conv_bn(inputs, 4 * outputs, 1), nn.PixelShuffle(2), *conv_bn(outputs, outputs, 3)
    )
