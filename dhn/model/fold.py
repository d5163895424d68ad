"""Folds batch norms into the convolutions before them, for inference."""

import copy
from itertools import pairwise
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Module = TypeVar("Module", bound=nn.Module)


def folded(network: Module) -> Module:
    """A copy of `network` in eval mode whose batch norms are part of its convolutions.

    By the convention of this package, a batch norm that is registered right after a convolution
    normalises that convolution's output, and nothing else reads this output. (torch.fx would find
    the pairs without the convention, but it has to trace the network, whose checks of the input
    forbid that.)

    Args:
        network: is left as it is.

    Returns:
        a network with the same outputs up to rounding. `nn.Identity` takes the place of each
        folded batch norm.
    """
    network = copy.deepcopy(network).eval()
    for parent in network.modules():
        children = list(parent.named_children())
        for (name, convolution), (after, norm) in pairwise(children):
            # In eval mode SyncBatchNorm (`train.sync_bn`) is a batch norm like the others.
            if isinstance(norm, nn.BatchNorm2d | nn.SyncBatchNorm) and isinstance(
                convolution, nn.Conv2d | nn.ConvTranspose2d
            ):
                transposed = isinstance(convolution, nn.ConvTranspose2d)
                setattr(parent, name, fuse_conv_bn_eval(convolution, norm, transposed))
                setattr(parent, after, nn.Identity())
    return network
