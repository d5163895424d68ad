"""Batch norms folded into the convolutions before them, for inference."""

import copy
from itertools import pairwise
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Module = TypeVar("Module", bound=nn.Module)


def folded(network: Module) -> Module:
    """A copy of `network` in eval mode whose batch norms are part of its convolutions.

    By the convention of this package a batch norm that is registered right after a convolution
    normalises that convolution's output, and nothing else reads it. (torch.fx would find the
    pairs without it, but must trace the network, which its checks of the input forbid.)

    Args:
        network: left as it is.

    Returns:
        a network of the same outputs up to rounding; `nn.Identity` stands where batch norms stood.
    """
    network = copy.deepcopy(network).eval()
    for parent in network.modules():
        children = list(parent.named_children())
        for (name, convolution), (after, norm) in pairwise(children):
            if isinstance(norm, nn.BatchNorm2d) and isinstance(
                convolution, nn.Conv2d | nn.ConvTranspose2d
            ):
                transposed = isinstance(convolution, nn.ConvTranspose2d)
                setattr(parent, name, fuse_conv_bn_eval(convolution, norm, transposed))
                setattr(parent, after, nn.Identity())
    return network
