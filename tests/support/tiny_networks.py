"""Tiny networks with random weights, and their files."""

import os
from pathlib import Path

import torch
from torch import nn

from dhn.data.joints import CROWDPOSE, JointSet
from dhn.model import PoseNetwork, build_model
from dhn.weights.checkpoint import Checkpoint, save_checkpoint

SMALL = {"width": 8, "modules": (1, 1, 1), "blocks": 1, "stem": 8}


def network(name: str = "doublehighernet", seed: int = 0, **changes) -> PoseNetwork:
    """A network of 14 joints whose weights come from a seed; `changes` are for `build_model`."""
    torch.manual_seed(seed)
    return build_model(name, **SMALL | {"num_joints": 14} | changes)


def save_network(
    path: Path,
    name: str = "doublehighernet",
    joints: JointSet = CROWDPOSE,
    input_size: int | None = 64,
) -> PoseNetwork:
    """Writes a network whose maps are worth decoding as a checkpoint, and returns it."""
    arguments = SMALL | {"name": name, "num_joints": len(joints)}
    torch.manual_seed(0)
    model = build_model(**arguments)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:  # the heads
            nn.init.normal_(module.weight, std=0.2)
    config = {} if input_size is None else {"data": {"input_size": input_size}}
    save_checkpoint(path, Checkpoint(arguments, joints, model.state_dict(), config, {}))
    return model


def with_norms_at_work(model: PoseNetwork) -> PoseNetwork:
    """The network, with batch norms that change what passes, and heads that say something."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.weight, std=0.1)
    return model


class Malice:
    """Makes a folder when somebody loads a pickle of it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)
