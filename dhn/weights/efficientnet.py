"""EfficientNet-Lite0's ImageNet weights, as PyTorch conversions name them, by our names."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dhn.base.errors import DhnError
from dhn.model.normalise import MEAN, STD

_BLOCK = re.compile(r"_blocks\.(\d+)\._(expand_conv|bn0|depthwise_conv|bn1|project_conv|bn2)\.")
# Places in `InvertedResidual.layers`; the first block has no expansion.
_PLACES = {
    "expand_conv": 0,
    "bn0": 1,
    "depthwise_conv": 3,
    "bn1": 4,
    "project_conv": 6,
    "bn2": 7,
}
# It was trained on (bytes - 127) / 128.
_CENTRE, _SPREAD = 127.0, 128.0


def is_classifier(weights: Mapping[str, Tensor]) -> bool:
    """Whether these are the weights of a PyTorch EfficientNet, by its names."""
    return "_conv_stem.weight" in weights and "_blocks.0._depthwise_conv.weight" in weights


def our_names(weights: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors of an EfficientNet-Lite0 by the names that they have in `EfficientPyramid`.

    The first convolution is changed to take images with ImageNet's mean and deviation, as all
    networks here do, instead of numbers between -1 and 1: outputs are the same, except that the
    border of an image is padded with ImageNet's mean colour.

    Args:
        weights: tensors by the names of the conversion.
        path: the file, for messages.

    Raises:
        DhnError: the first layer has another shape than Lite0's.
    """
    first = ("_conv_stem.weight", (32, 3, 3, 3)), ("_bn0.running_mean", (32,))
    for name, shape in first:
        if name not in weights or weights[name].shape != shape:
            raise DhnError(f"{path}: an EfficientNet, but not Lite0: {name} is not {list(shape)}")
    ours = {}
    for key, value in weights.items():
        if block := _BLOCK.match(key):
            place = _PLACES[block[2]] - (3 if block[1] == "0" else 0)
            rest = key[block.end() :]
            ours[f"backbone.blocks.{block[1]}.layers.{place}.{rest}"] = value
        elif key.startswith("_bn0."):
            ours[f"backbone.stem.1.{key.removeprefix('_bn0.')}"] = value
        else:
            ours[key] = value
    stem = ours.pop("_conv_stem.weight")
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    scale, shift = 255 * std / _SPREAD, (255 * mean - _CENTRE) / _SPREAD
    ours["backbone.stem.0.weight"] = stem * scale[:, None, None]
    # What the shift adds to every output, the batch norm's mean takes away.
    added = (stem * shift[:, None, None]).sum((1, 2, 3))
    ours["backbone.stem.1.running_mean"] = ours["backbone.stem.1.running_mean"] - added
    return ours
