"""Checkpoints of tiny networks with random weights, whose maps are worth decoding."""

from pathlib import Path

import torch
from torch import nn

from dhn.data.joints import CROWDPOSE, JointSet
from dhn.model import PoseNetwork, build_model
from dhn.weights.checkpoint import Checkpoint, save_checkpoint

SMALL = {"width": 8, "modules": (1, 1, 1), "blocks": 1, "stem": 8}


def save_network(
    path: Path,
    name: str = "doublehighernet",
    joints: JointSet = CROWDPOSE,
    input_size: int | None = 64,
) -> PoseNetwork:
    """Writes a network as a checkpoint that says its input size, or does not; returns it."""
    arguments = SMALL | {"name": name, "num_joints": len(joints)}
    torch.manual_seed(0)
    model = build_model(**arguments)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:  # the heads
            nn.init.normal_(module.weight, std=0.2)
    config = {} if input_size is None else {"data": {"input_size": input_size}}
    save_checkpoint(path, Checkpoint(arguments, joints, model.state_dict(), config, {}))
    return model
