"""Networks small enough for tests, and a file that no reader may trust."""

import os

import torch

from dhn.model import build_model

SMALL = {"width": 8, "modules": (1, 1, 1), "blocks": 1, "stem": 8}


def network(name="doublehighernet", seed=0, **changes):
    """A small network of 14 joints with weights from a seed."""
    torch.manual_seed(seed)
    return build_model(name, **SMALL | {"num_joints": 14} | changes)


class Malice:
    """Makes a folder when a pickle of it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)
