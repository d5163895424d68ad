"""Networks by name: `build_model("doublehighernet_w32")`."""

import re
from collections.abc import Sequence
from typing import Literal, TypeVar

import torch
from torch import nn

from dhn.model.efficientnet import EfficientPyramid
from dhn.model.hrnet import HRNet
from dhn.model.lite import DoubleHigherNetLite, LiteHRNet
from dhn.model.networks import BottomUpHRNet, DoubleHigherNet, Fusion, HigherHRNet

Module = TypeVar("Module", bound=nn.Module)
PoseNetwork = DoubleHigherNet | DoubleHigherNetLite | HigherHRNet | BottomUpHRNet
Backbone = Literal["hrnet", "efficientnet"]
KINDS = ("doublehighernet", "doublehighernet_lite", "higherhrnet", "hrnet")


def build_model(
    name: str,
    num_joints: int = 14,
    *,
    width: int | None = None,
    fusion: Fusion = "attention",
    modules: Sequence[int] = (1, 4, 3),
    blocks: int = 4,
    stem: int = 64,
    branches: int = 4,
    kernel: int = 3,
    half: int = 16,
    backbone: Backbone = "hrnet",
) -> PoseNetwork:
    """Builds a network with fresh weights.

    Args:
        name: a kind and a width, such as `doublehighernet_w32`, `higherhrnet_w48` or `hrnet_w32`;
            any width may follow `_w`. With `width`, the kind alone will do.
        num_joints: J.
        width: C, the channels of HRNet's 1/4 branch, a multiple of 4; it overrides the name's.
        fusion: `attention` or `concat` (paper, Table 2), for DoubleHigherNet.
        modules, blocks, stem: see `HRNet`; smaller numbers make small networks.
        branches: the number of branches that the head of `hrnet` reads: 4, or 1 as in MMPose's
            baseline; and the number of resolutions of `doublehighernet_lite`, 2 to 4.
        kernel: 3, or 5, 7 or 9 for blocks with large kernels, in `doublehighernet_lite`.
        half: channels of the maps at 1/2 in `doublehighernet_lite`.
        backbone: what `doublehighernet_lite` stands on: `hrnet` (`LiteHRNet`) or `efficientnet`
            (`EfficientPyramid`, which has no use for modules, blocks, stem and branches).

    Returns:
        a module that maps images, float [B, 3, H, W] (RGB, normalised, H and W multiples of 32),
        to `PoseMaps`.

    Raises:
        ValueError: the name is unknown, the width is missing or not a multiple of 4, or an
            argument of `doublehighernet_lite` is none of those above.
    """
    match = re.fullmatch(r"([a-z_]+?)(?:_w(\d+))?", name)
    kind = match[1] if match else None
    if kind not in KINDS:
        raise ValueError(
            f"unknown network {name!r}: give one of {', '.join(KINDS)}, with _w32 for the width"
        )
    if width is None and match and match[2]:
        width = int(match[2])
    if width is None or width <= 0 or width % 4:
        raise ValueError(f"{name}: the width must be a positive multiple of 4, not {width}")
    if kind == "doublehighernet_lite":
        if kernel not in (3, 5, 7, 9):
            raise ValueError(f"kernel must be 3, 5, 7 or 9, not {kernel}")
        if not 4 <= half <= 256:
            raise ValueError(f"half must be from 4 to 256, not {half}")
        if backbone not in ("hrnet", "efficientnet"):
            raise ValueError(f"backbone must be 'hrnet' or 'efficientnet', not {backbone!r}")
        thin: LiteHRNet | EfficientPyramid = EfficientPyramid(width)
        if backbone == "hrnet":
            thin = LiteHRNet(
                width, branches=branches, modules=modules, blocks=blocks, kernel=kernel, stem=stem
            )
        return DoubleHigherNetLite(thin, num_joints, fusion=fusion, half=half, kernel=kernel)
    branches = branches if kind == "hrnet" else 1
    hrnet = HRNet(width, modules=modules, blocks=blocks, stem=stem, branches=branches)
    if kind == "doublehighernet":
        return DoubleHigherNet(hrnet, num_joints, fusion=fusion)
    return (HigherHRNet if kind == "higherhrnet" else BottomUpHRNet)(hrnet, num_joints)


def channels_last(model: Module) -> Module:
    """Lays the weights out, in place, so that convolutions on CPU and GPU are fastest."""
    # Module.to's annotations do not know memory_format next to a plain module.
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
