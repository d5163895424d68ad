"""The cost of the networks: parameters and operations."""

from typing import NamedTuple

import torch

from dhn.model.build import build_model

NETWORKS = (
    "doublehighernet_w32",
    "doublehighernet_w48",
    "higherhrnet_w32",
    "higherhrnet_w48",
    "hrnet_w32",
    "hrnet_w48",
)


class Cost(NamedTuple):
    """The cost of a network.

    Attributes:
        parameters: the number of weights.
        gflops: the floating-point operations of one forward pass in 1e9; a multiply-add is two.
    """

    parameters: int
    gflops: float


def network_cost(name: str, num_joints: int = 14, input_size: int = 512) -> Cost:
    """Counts a network's parameters and operations without running it.

    Args:
        name: as for `build_model`.
        num_joints: J.
        input_size: side of the one square image, in pixels.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        model = build_model(name, num_joints).eval()
        image = torch.empty(1, 3, input_size, input_size)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(image)
    parameters = sum(p.numel() for p in model.parameters())
    return Cost(parameters, counter.get_total_flops() / 1e9)
