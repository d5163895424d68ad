"""HRNet, the backbone of every network here (Wang et al. 2020).

Module names follow the official HigherHRNet code, so that its weights load by key:
`conv1`, `layer1`, `transitionS`, `stageS.M.branches.B.K`, `stageS.M.fuse_layers.I.J`.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_bn(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, relu: bool = True
) -> nn.Sequential:
    """A convolution without bias and with `same` padding, batch norm and, by default, ReLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if relu:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, with the same number of channels throughout."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + x)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut, from `inputs` to 4 * `planes` channels."""

    def __init__(self, inputs: int, planes: int) -> None:
        super().__init__()
        outputs = 4 * planes
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None if inputs == outputs else conv_bn(inputs, outputs, 1, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.bn3(self.conv3(y)) + shortcut)


class ExchangeModule(nn.Module):
    """Parallel branches at 1/4, 1/8, ... and the fusion of each with all the others.

    The module takes and returns one map for each branch i, [B, channels[i], H / 2^i, W / 2^i].
    With `outputs=1`, only the finest one is fused and returned.
    """

    def __init__(
        self,
        channels: Sequence[int],
        blocks: int,
        outputs: int,
        block: Callable[[int], nn.Module] = BasicBlock,
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(block(c) for _ in range(blocks))) for c in channels
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_fuse_layer(channels, i, j) for j in range(len(channels)))
            for i in range(outputs)
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        fused = []
        for i, layers in enumerate(self.fuse_layers.children()):
            *others, total = [layer(x) for layer, x in zip(layers.children(), maps, strict=True)]
            # Nearest upsampling commutes with addition. So x0 + up(x1) + up(up(x2)) is computed
            # as x0 + up(x1 + up(x2)), which adds each pair where it is smallest.
            for j, x in reversed(list(enumerate(others))):
                if j >= i:
                    total = F.interpolate(total, scale_factor=2.0, mode="nearest")
                total = x + total
            fused.append(self.relu(total))
        return fused


def _fuse_layer(channels: Sequence[int], i: int, j: int) -> nn.Module:
    """Leads from branch j to the channels of branch i, and to its size where that is smaller."""
    if j == i:
        return nn.Identity()
    if j > i:
        return conv_bn(channels[j], channels[i], 1, relu=False)
    steps = [conv_bn(channels[j], channels[j], 3, stride=2) for _ in range(i - j - 1)]
    return nn.Sequential(*steps, conv_bn(channels[j], channels[i], 3, stride=2, relu=False))


class Backbone(nn.Module):
    """What turns a normalised image [B, 3, H, W] into a list of feature maps.

    Attributes:
        channels: the number of channels of each map.
    """

    channels: list[int]


class HRNet(Backbone):
    """HRNet-W{width}.

    Args:
        width: C, the channels of the 1/4 branch; the others have 2C, 4C and 8C.
        modules: the numbers of exchange modules in stages 2, 3 and 4.
        blocks: the number of basic blocks in each branch of a module, and of bottlenecks in
            `layer1`.
        stem: the channels of the two strided convolutions, and the planes of `layer1`.
        branches: the number of branches that are returned, 1 (the 1/4 map) or 4.
    """

    def __init__(
        self,
        width: int,
        *,
        modules: Sequence[int] = (1, 4, 3),
        blocks: int = 4,
        stem: int = 64,
        branches: int = 1,
    ) -> None:
        super().__init__()
        if branches not in (1, 4):
            raise ValueError(f"branches must be 1 or 4, not {branches}")
        channels = [width, 2 * width, 4 * width, 8 * width]
        self.channels = channels[:branches]
        self.conv1 = nn.Conv2d(3, stem, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.conv2 = nn.Conv2d(stem, stem, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(
            *(Bottleneck(stem if k == 0 else 4 * stem, stem) for k in range(blocks))
        )
        self.transition1 = _transition([4 * stem], channels[:2])
        self.stage2 = _stage(channels[:2], modules[0], blocks, outputs=2)
        self.transition2 = _transition(channels[:2], channels[:3])
        self.stage3 = _stage(channels[:3], modules[1], blocks, outputs=3)
        self.transition3 = _transition(channels[:3], channels)
        self.stage4 = _stage(channels, modules[2], blocks, outputs=branches)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps a normalised image [B, 3, H, W] to `branches` maps [B, C * 2^i, H/4/2^i, W/4/2^i].

        H and W must be multiples of 32.
        """
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        maps = [self.layer1(x)]
        for transition, stage in (
            (self.transition1, self.stage2),
            (self.transition2, self.stage3),
            (self.transition3, self.stage4),
        ):
            # A new branch starts from the lowest one so far.
            maps = [layer(maps[min(i, len(maps) - 1)]) for i, layer in enumerate(transition)]
            maps = stage(maps)
        return maps


def _stage(channels: Sequence[int], modules: int, blocks: int, outputs: int) -> nn.Sequential:
    """Exchange modules in a row. All but the last one return every branch."""
    inner = [ExchangeModule(channels, blocks, len(channels)) for _ in range(modules - 1)]
    return nn.Sequential(*inner, ExchangeModule(channels, blocks, outputs))


def _transition(before: Sequence[int], after: Sequence[int]) -> nn.ModuleList:
    """Brings the branches of one stage to the channels of the next and adds one branch."""
    layers: list[nn.Module] = []
    for i, channels in enumerate(after):
        if i >= len(before):
            # Nested one level deeper, as in the official keys (`transition1.1.0.0`).
            layers.append(nn.Sequential(conv_bn(before[-1], channels, 3, stride=2)))
        elif before[i] != channels:
            layers.append(conv_bn(before[i], channels, 3))
        else:
            layers.append(nn.Identity())
    return nn.ModuleList(layers)


def initialise(network: nn.Module) -> None:
    """Initialises the convolutions, in place.

    A head is a convolution with a bias; every other convolution is followed by a batch norm.
    Heads get weights from N(0, 1e-3) and zero biases, all others He's initialisation. Small heads
    begin with flat maps, which saves a training from scratch its first thousand steps.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            if module.bias is None:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            else:
                nn.init.normal_(module.weight, std=1e-3)
                nn.init.zeros_(module.bias)


def check_input(x: Tensor) -> None:
    """Raises ValueError unless x is [B, 3, H, W] with H and W multiples of 32."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return
    if x.dim() != 4 or x.shape[1] != 3 or x.shape[2] % 32 or x.shape[3] % 32:
        raise ValueError(
            f"the network takes [B, 3, H, W] with H and W multiples of 32, not {list(x.shape)}"
        )
