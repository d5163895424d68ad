"""Networks that need no training, for benchmarks and tests of what happens around them."""

from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dhn.model import PoseMaps

Network = TypeVar("Network", bound=nn.Module)


def randomise(network: Network, seed: int = 0) -> Network:
    """Sets random weights, biases and statistics of batch norms, the same on every machine.

    They are uniform, and drawn by numpy's frozen generator in the order of the state dict. Maps
    stay within an order of magnitude of 1 at any depth.

    Returns:
        The network itself, in eval mode.
    """
    generator = np.random.RandomState(seed)
    ranges = {"running_var": (0.5, 1.5), "running_mean": (-0.2, 0.2), "bias": (-0.2, 0.2)}
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if not value.is_floating_point():
                continue
            low, high = ranges.get(name.rpartition(".")[2], (0.3, 0.7))  # a batch norm's weight
            if value.dim() > 1:
                fan_in = value[0].numel() if "deconv" not in name else value[:, 0].numel() / 4
                low, high = -((3 / fan_in) ** 0.5), (3 / fan_in) ** 0.5
            uniform = generator.random_sample(tuple(value.shape))
            value.copy_(torch.from_numpy(low + (high - low) * uniform))
    return network.eval()


class ColourNetwork(nn.Module):
    """Computes each map as a fixed mixture of the image's three colours.

    It stands in for a trained network where the way from image to poses matters, not the poses:
    it finds people in any image, and some of them have nearly equal tags. Its maps have the form
    of HigherHRNet's.
    """

    def __init__(self, joints: int, seed: int = 0) -> None:
        super().__init__()
        generator = np.random.RandomState(seed)
        weight = generator.uniform(-0.5, 0.5, (2 * joints, 3, 1, 1))
        self.weight = nn.Parameter(torch.from_numpy(weight).float(), requires_grad=False)

    def forward(self, x: Tensor) -> PoseMaps:
        """Maps normalised images [B, 3, H, W] to heatmaps at 1/4 and 1/2, and tags at 1/4."""
        J = len(self.weight) // 2
        quarter = F.conv2d(F.avg_pool2d(x, 4), self.weight)
        half = F.conv2d(F.avg_pool2d(x, 2), self.weight[:J])
        return PoseMaps([quarter[:, :J], half], [quarter[:, J:]])
