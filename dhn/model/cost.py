"""What the networks cost: parameters and operations."""

from typing import NamedTuple

import torch

from dhn.model import build_model

NETWORKS = (
    "doublehighernet_w32",
    "doublehighernet_w48",
    "higherhrnet_w32",
    "higherhrnet_w48",
    "hrnet_w32",
    "hrnet_w48",
)


class Cost(NamedTuple):
    """What a network costs: weights, and multiply-adds times two of one forward pass, in 1e9."""

    parameters: int
    gflops: float


def network_cost(name: str, num_joints: int = 14, input_size: int = 512) -> Cost:
    """Counts a network's parameters and operations for one square image, without computing."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        model = build_model(name, num_joints).eval()
        image = torch.empty(1, 3, input_size, input_size)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(image)
    parameters = sum(p.numel() for p in model.parameters())
    return Cost(parameters, counter.get_total_flops() / 1e9)
