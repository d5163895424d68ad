"""The networks: `build_model` builds them by name, hrnet.py and networks.py define them."""

from dhn.model.build import KINDS, PoseNetwork, build_model, channels_last
from dhn.model.hrnet import HRNet
from dhn.model.lite import DoubleHigherNetLite
from dhn.model.networks import BottomUpHRNet, DoubleHigherNet, HigherHRNet, PoseMaps

__all__ = [
    "KINDS",
    "BottomUpHRNet",
    "DoubleHigherNet",
    "DoubleHigherNetLite",
    "HRNet",
    "HigherHRNet",
    "PoseMaps",
    "PoseNetwork",
    "build_model",
    "channels_last",
]
