"""EfficientNet-Lite0 (Tan and Le 2019) as a backbone, with a pyramid that leads back up to 1/4.

For networks that must learn from little data: its weights for ImageNet classification are public
and a quarter as large as those of the smallest HRNet.
"""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from dhn.model.depthwise import DepthwiseConv2d
from dhn.model.hrnet import Backbone, BasicBlock, conv_bn

# Kernel, stride, expansion, channels, and how often, of each stage. Lite0's last stage (320
# channels), which has a fifth of its weights, is left out.
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
)
_EPSILON = 1e-3  # of its batch norms


def _conv(inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


def _norm(channels: int, *, relu: bool = True) -> list[nn.Module]:
    norm = nn.BatchNorm2d(channels, eps=_EPSILON)
    return [norm, nn.ReLU6(inplace=True)] if relu else [norm]


class InvertedResidual(nn.Module):
    """1x1 to `expansion` times the channels, depthwise k x k, 1x1 back; a shortcut if it fits."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, expansion: int = 6
    ) -> None:
        super().__init__()
        wide = inputs * expansion
        self.shortcut = stride == 1 and inputs == outputs
        self.layers = nn.Sequential(
            *([_conv(inputs, wide, 1), *_norm(wide)] if expansion > 1 else ()),
            DepthwiseConv2d(wide, wide, kernel, stride=stride),
            *_norm(wide),
            _conv(wide, outputs, 1),
            *_norm(outputs, relu=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.shortcut else y


class EfficientPyramid(Backbone):
    """EfficientNet-Lite0, whose maps at 1/32, 1/16 and 1/8 are brought back to 1/4, one by one.

    On its way up a map meets the backbone's map of the same size, is added to it and refined.

    Args:
        width: C, channels at 1/4; the pyramid has 2C at 1/8 and 4C below.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.channels = [width]
        self.stem = nn.Sequential(_conv(3, 32, 3, stride=2), *_norm(32))
        self.blocks = nn.ModuleList()
        inputs, sides = 32, [32]  # sides: channels of the last map of each size, from 1/2 down
        for kernel, stride, expansion, outputs, count in _STAGES:
            for k in range(count):
                self.blocks.append(
                    InvertedResidual(
                        inputs,
                        outputs,
                        kernel,
                        stride=stride if k == 0 else 1,
                        expansion=expansion,
                    )
                )
                inputs = outputs
            sides = [*sides[:-1], outputs] if stride == 1 else [*sides, outputs]
        pyramid = [width, 2 * width, 4 * width, 4 * width]  # from 1/4 down
        self.laterals = nn.ModuleList(
            conv_bn(side, own, 1, relu=False) for side, own in zip(sides[1:], pyramid, strict=True)
        )
        self.descents = nn.ModuleList(
            conv_bn(below, own, 1, relu=False) for own, below in pairwise(pyramid)
        )
        self.refinements = nn.ModuleList(BasicBlock(own) for own in pyramid)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps a normalised image [B, 3, H, W] to one map [B, C, H/4, W/4]."""
        x = self.stem(x)
        maps = [x]
        for block in self.blocks:
            x = block(x)
            if x.shape[-1] < maps[-1].shape[-1]:
                maps.append(x)
            else:
                maps[-1] = x
        sides = [lateral(x) for lateral, x in zip(self.laterals, maps[1:], strict=True)]
        up = self.refinements[-1](F.relu(sides.pop()))
        for descent, refinement in zip(
            reversed(self.descents), reversed(list(self.refinements)[:-1]), strict=True
        ):
            up = F.interpolate(descent(up), scale_factor=2.0, mode="nearest")
            up = refinement(F.relu(sides.pop() + up))
        return [up]
