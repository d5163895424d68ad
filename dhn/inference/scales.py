"""The test at several scales: where an image lies at each of them, and their maps as one.

As in the official HigherHRNet code, heatmaps of all scales are averaged at the size of the
network's input at scale 1, and the tags are those of scale 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch.nn.functional as F
from torch import Tensor

from dhn.base.errors import SettingError
from dhn.data.geometry import Affine, input_transform, official_transform

_STEP = Fraction(1, 8)
_SMALLEST, _LARGEST = _STEP, Fraction(8)


@dataclass(frozen=True)
class Placement:
    """How an image enters the network, at each of S scales.

    Attributes:
        sampling: S maps from the image to the network's input.
        sizes: S times the (W, H) of that input, in pixels.
        back: the map from the input at scale 1 to the image.
        size: (W, H) of the input at scale 1.
    """

    sampling: tuple[Affine, ...]
    sizes: tuple[tuple[int, int], ...]
    back: Affine
    size: tuple[int, int]


def checked_scales(scales: Sequence[float]) -> tuple[float, ...]:
    """The scales in ascending order.

    Raises:
        SettingError: a scale is no multiple of 1/8 from 1/8 to 8, is there twice, or 1 is not
            among them.
    """
    for scale in scales:
        if not _SMALLEST <= scale <= _LARGEST or scale % _STEP:
            raise SettingError("scales", _text(scales), "each is a multiple of 1/8, from 1/8 to 8")
    if len(set(scales)) < len(scales):
        raise SettingError("scales", _text(scales), "a scale is named twice")
    if 1 not in scales:
        raise SettingError("scales", _text(scales), "1 must be among them: it gives the tags")
    return tuple(sorted(float(scale) for scale in scales))


def _text(scales: Sequence[float]) -> str:
    return ",".join(f"{scale:g}" for scale in scales)


def place(size: tuple[int, int], input_size: int, scales: Sequence[float]) -> Placement:
    """Places an image so that its inputs at all scales show the same and are multiples of 64.

    Args:
        size: (W, H) of the image in pixels.
        input_size: short side of the network's input at scale 1, in pixels.
        scales: from `checked_scales`.
    """
    multiple = 64 * max(Fraction(scale).denominator for scale in scales)
    affine, (W, H) = input_transform(size, input_size, multiple)
    return Placement(
        sampling=tuple(Affine(scale * affine.matrix) for scale in scales),
        sizes=tuple((round(scale * W), round(scale * H)) for scale in scales),
        back=affine.inverse(),
        size=(W, H),
    )


def place_as_official(size: tuple[int, int], input_size: int, scales: Sequence[float]) -> Placement:
    """Places an image as the official HigherHRNet code does; see `official_transform`.

    Args:
        size, input_size, scales: as for `place`.

    Raises:
        SettingError: an input is no multiple of 32, which the official network cannot take.
    """
    smallest = min(scales)
    placed = [official_transform(size, input_size, scale, smallest) for scale in scales]
    sampling, back, sizes = zip(*placed, strict=True)
    for W, H in sizes:
        if W % 32 or H % 32:
            raise SettingError(
                "scales",
                _text(scales),
                f"makes inputs of {W} x {H} pixels as the official code sizes them, which no "
                "network takes; take multiples of the smallest, or leave parity out",
            )
    one = list(scales).index(1)
    return Placement(sampling, sizes, back[one], sizes[one])


def merge_scales(
    maps: Sequence[tuple[Tensor, Tensor]], scales: Sequence[float], size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Heatmaps averaged over all scales, and the tags of scale 1.

    Args:
        maps: of each scale heatmaps [B, J, h, w] and tags [B, J, T, h, w], any h and w.
        scales: from `checked_scales`.
        size: (W, H) of the network's input at scale 1.

    Returns:
        heatmaps float32 [B, J, H, W] and tags float32 [B, J, T, H, W], upsampled bilinearly.
    """
    large = size[::-1]
    heatmaps = _resized(maps[0][0], large).clone()  # of the same size, it is the map itself
    for found, _ in maps[1:]:
        heatmaps += _resized(found, large)
    heatmaps /= len(scales)
    tags = maps[list(scales).index(1)][1]
    flat = _resized(tags.flatten(1, 2), large)
    return heatmaps, flat.unflatten(1, tags.shape[1:3])


def _resized(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(maps.float(), size=size, mode="bilinear", align_corners=False)
