"""Convolutions that add the shortcut and apply ReLU while their output is still in the cache.

In bfloat16, a CPU spends nearly as much time on the network's element-wise steps, each of which
reads and writes whole maps, as on its convolutions. oneDNN does both in one pass. PyTorch has
operators for that, to which torch.compile lowers; these modules call them without compilation.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dhn.model.efficientnet import InvertedResidual
from dhn.model.hrnet import BasicBlock, Bottleneck, ExchangeModule, HRNet
from dhn.model.lite import LargeKernelBlock

# Convolutions in a row, a shortcut around them all, and a ReLU at the end.
Block = BasicBlock | Bottleneck | LargeKernelBlock


class FusedConv(nn.Module):
    """relu(conv(x) + shortcut), where ReLU and shortcut are optional.

    The weight is laid out for oneDNN. A `limit` cuts off what is above it, as ReLU6 does; then
    there is no shortcut.
    """

    def __init__(self, conv: nn.Conv2d, *, relu: bool, limit: float | None = None) -> None:
        super().__init__()
        self.limit = limit
        # Their types do not matter: they are only passed to PyTorch's operators.
        self.geometry: Any = (conv.padding, conv.stride, conv.dilation, conv.groups)
        self.relu = relu
        self.bias = None if conv.bias is None else conv.bias.detach()
        self.weight = torch._C._nn.mkldnn_reorder_conv2d_weight(
            conv.weight.detach().to_mkldnn(),
            *self.geometry,  # type: ignore[arg-type]
        )

    def forward(self, x: Tensor, shortcut: Tensor | None = None, *, reuse: bool = False) -> Tensor:
        """With `reuse`, the result is written into `shortcut`."""
        settings = (self.weight, self.bias, *self.geometry)
        if shortcut is None:
            activation: Any = ("relu" if self.relu else "none", [], None)
            if self.limit is not None:
                activation = ("hardtanh", [0.0, self.limit], None)
            return torch.ops.mkldnn._convolution_pointwise(x, *settings, *activation)
        addition: Any = ("add", 1.0, "relu" if self.relu else None, [], None)
        if reuse:
            operator = torch.ops.mkldnn._convolution_pointwise_.binary
            return operator(shortcut, x, *settings, *addition)
        return torch.ops.mkldnn._convolution_pointwise.binary(x, shortcut, *settings, *addition)


class FusedBlock(nn.Module):
    """A residual block whose batch norms are folded.

    With `owns_input`, nothing else reads the block's input, so its memory takes the output.
    """

    def __init__(self, block: Block, *, owns_input: bool) -> None:
        super().__init__()
        convs = [layer for layer in block.children() if isinstance(layer, nn.Conv2d)]
        self.downsample = None
        if isinstance(block, Bottleneck) and block.downsample is not None:
            self.downsample = fused(block.downsample)
        self.convs = nn.ModuleList(FusedConv(conv, relu=True) for conv in convs)
        self.reuse = owns_input or self.downsample is not None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        *first, last = self.convs
        for conv in first:
            x = conv(x)
        return last(x, shortcut, reuse=self.reuse)


class FusedInvertedResidual(nn.Module):
    """An `InvertedResidual` with a shortcut whose batch norms are folded."""

    def __init__(self, block: InvertedResidual) -> None:
        super().__init__()
        *first, last = _fused_sequence(block.layers, owns_input=False)
        self.first = nn.Sequential(*first)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x), x)


class FusedExchange(nn.Module):
    """An `ExchangeModule` whose sums are part of its convolutions.

    With `owns_input`, nothing else reads the maps that come in.
    """

    def __init__(self, module: ExchangeModule, *, owns_input: bool) -> None:
        super().__init__()
        branches: Any = module.branches
        self.branches = nn.ModuleList(_fused_sequence(b, owns_input=owns_input) for b in branches)
        # [i][j] leads from branch j to branch i. The last one that adds to branch i applies ReLU.
        self.paths: list[list[list[FusedConv]]] = []
        for layers in module.fuse_layers.children():
            paths: list[list[FusedConv]] = []
            for j, layer in enumerate(layers.children()):
                convs = [conv for conv in layer.modules() if isinstance(conv, nn.Conv2d)]
                paths.append([FusedConv(c, relu=c is not convs[-1] or j == 0) for c in convs])
            self.paths.append(paths)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        exchanged = []
        for i, paths in enumerate(self.paths):
            total: Tensor | None = None
            for j in reversed(range(len(maps))):
                if total is not None and j >= i:
                    total = F.interpolate(total, scale_factor=2.0, mode="nearest")
                if j == i:
                    total = maps[i] if total is None else total.add_(maps[i])
                else:
                    *first, last = paths[j]
                    x = maps[j]
                    for conv in first:
                        x = conv(x)
                    total = last(x, total, reuse=total is not maps[i])
            assert total is not None
            exchanged.append(total if i else total.relu_())
        return exchanged


def fused(network: nn.Module) -> nn.Module:
    """The network with its convolutions, sums and ReLUs fused by oneDNN.

    Args:
        network: on the CPU, with its batch norms folded (see `fold`). It is changed in place where
            that is possible.
    """
    if isinstance(network, Block):
        return FusedBlock(network, owns_input=False)
    if isinstance(network, InvertedResidual) and network.shortcut:
        return FusedInvertedResidual(network)
    if isinstance(network, ExchangeModule):
        return FusedExchange(network, owns_input=False)
    if isinstance(network, nn.Sequential):
        return _fused_sequence(network, owns_input=False)
    if isinstance(network, HRNet):  # its stem is not a sequence but two convolutions and ReLUs
        stem = {f"conv{i}": FusedConv(getattr(network, f"conv{i}"), relu=True) for i in (1, 2)}
        for name, layer in (stem | {"relu": nn.Identity()}).items():
            setattr(network, name, layer)
    for name, child in network.named_children():
        setattr(network, name, fused(child))
    return network


def _fused_sequence(network: nn.Sequential, *, owns_input: bool) -> nn.Sequential:
    layers = _layers(network)
    sequence = nn.Sequential()
    for before, layer, after in zip([None, *layers], layers, [*layers[1:], None], strict=False):
        owned = owns_input or before is not None
        if isinstance(layer, nn.Conv2d):
            limit = 6.0 if isinstance(after, nn.ReLU6) else None
            sequence.append(FusedConv(layer, relu=isinstance(after, nn.ReLU), limit=limit))
        elif isinstance(layer, Block):
            sequence.append(FusedBlock(layer, owns_input=owned))
        elif isinstance(layer, ExchangeModule):
            sequence.append(FusedExchange(layer, owns_input=owned))
        elif not (isinstance(layer, nn.ReLU | nn.ReLU6) and isinstance(before, nn.Conv2d)):
            sequence.append(fused(layer))
    return sequence


def _layers(network: nn.Sequential) -> list[nn.Module]:
    """The layers of `network` in the order in which they run, with nested sequences unpacked."""
    layers: list[nn.Module] = []
    for layer in network:
        if isinstance(layer, nn.Sequential):
            layers += _layers(layer)
        elif not isinstance(layer, nn.Identity):
            layers.append(layer)
    return layers
