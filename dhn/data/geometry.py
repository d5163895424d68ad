"""The one coordinate convention, and the maps between images and network inputs.

Coordinates (x, y) are continuous: an image of width W and height H spans [0, W] x [0, H], and the
centres of its pixels are at +0.5. Pixel (u, v) of a map of stride s is at ((u + .5) s, (v + .5) s).
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Affine:
    """A map of the plane, p -> M[:, :2] p + M[:, 2], in continuous coordinates.

    Attributes:
        matrix: float64 [2, 3].
    """

    matrix: np.ndarray

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Maps points [..., 2] (x, y); returns float64 of the same shape."""
        return np.asarray(points, np.float64) @ self.matrix[:, :2].T + self.matrix[:, 2]

    def inverse(self) -> "Affine":
        """The map back."""
        linear = np.linalg.inv(self.matrix[:, :2])
        return Affine(np.column_stack([linear, -linear @ self.matrix[:, 2]]))

    def then(self, after: "Affine") -> "Affine":
        """The map that applies this one first, and then `after`."""
        linear = after.matrix[:, :2] @ self.matrix[:, :2]
        return Affine(np.column_stack([linear, after.apply(self.matrix[:, 2])]))

    def cv2_matrix(self) -> np.ndarray:
        """The same map for cv2.warpAffine, which counts pixel centres from 0: float64 [2, 3]."""
        half = np.array([0.5, 0.5])
        return np.column_stack([self.matrix[:, :2], self.apply(half) - half])

    @property
    def scale(self) -> float:
        """The length that the map gives to a unit: sqrt(|det|)."""
        return math.sqrt(abs(np.linalg.det(self.matrix[:, :2])))


def input_transform(
    size: tuple[int, int], input_size: int, multiple: int = 64
) -> tuple[Affine, tuple[int, int]]:
    """How an image is placed in the network's input at test time, after HigherHRNet.

    The image is scaled so that its short side is `input_size`. Both sides are padded equally at
    both ends up to a multiple of 64, so that the centre of the image is the centre of the input.

    Args:
        size: (W, H) of the image in pixels.
        input_size: short side of the network's input in pixels, a multiple of 64.
        multiple: what the input's sides are multiples of, if not of 64.

    Returns:
        the map from image to network input, and the input's (W, H).
    """
    scale = input_size / min(size)
    padded = tuple(multiple * max(1, math.ceil(side * scale / multiple - 1e-9)) for side in size)
    offset = [(p - side * scale) / 2 for p, side in zip(padded, size, strict=True)]
    return Affine(np.array([[scale, 0, offset[0]], [0, scale, offset[1]]])), (padded[0], padded[1])


def official_transform(
    size: tuple[int, int], input_size: int, scale: float = 1.0, smallest: float = 1.0
) -> tuple[Affine, Affine, tuple[int, int]]:
    """How the official HigherHRNet code places an image, for parity with it.

    It differs from `input_transform` in four ways. It takes a whole pixel for the image's centre
    ((W + 1) / 2 where W is odd). It samples the image with pixel centres at whole numbers, but
    maps joints back with pixel centres at +.5, so that the two maps are half a pixel of the input
    and half a pixel of the image apart. It rounds the long side down to a multiple of 64 where it
    exceeds that by less than a pixel. And it computes in float32.

    Of several scales, it pads the smallest to multiples of 64 and enlarges that for the others.

    Args:
        size, input_size: as for `input_transform`.
        scale: the input is so many times as large; `input_size` is its short side at scale 1.
        smallest: of all scales at which the image runs.

    Returns:
        the map from image to network input that samples pixels, the map from network input to
        image for joints, and the input's (W, H).
    """
    short = min(size)
    least = int((smallest * input_size + 63) // 64 * 64)
    width, height = (
        int(
            (least if side == short else int((least / short * side + 63) // 64 * 64))
            * scale
            / smallest
        )
        for side in size
    )
    centre = np.array([int(side / 2 + 0.5) for side in size])
    reach = (short if size[0] < size[1] else width / height * short) / 200 * 200 / 2
    source = _corner(centre, reach)
    target = _corner(np.array([width, height]) / 2, width / 2)
    half = Affine(np.array([[1, 0, 0.5], [0, 1, 0.5]]))
    sampling = half.inverse().then(_through(source, target)).then(half)
    return sampling, _through(target, source), (width, height)


def _corner(centre: np.ndarray, reach: float) -> np.ndarray:
    """Three points, float32 [3, 2]: the centre, a point `reach` above it, a point left of that."""
    above = (centre - [0, reach]).astype(np.float32)
    left = above - [np.float32(centre[1]) - above[1], np.float32(0)]
    return np.array([centre, above, left], np.float32)


def _through(points: np.ndarray, images: np.ndarray) -> Affine:
    """The map that takes three points [3, 2] to three others."""
    homogeneous = np.column_stack([points, np.ones(3)]).astype(np.float64)
    return Affine(np.linalg.solve(homogeneous, images.astype(np.float64)).T)


def crop_transform(
    size: tuple[int, int],
    input_size: int,
    *,
    rotation: float = 0.0,
    scale: float = 1.0,
    shift: tuple[float, float] = (0.0, 0.0),
    flip: bool = False,
) -> Affine:
    """A square crop of an image, for training.

    Args:
        size: (W, H) of the image in pixels.
        input_size: side of the square network input in pixels.
        rotation: in degrees, clockwise on the screen.
        scale: side of the crop in units of the image's short side.
        shift: movement (x, y) of the crop's centre in units of the crop's side.
        flip: whether left and right are mirrored after everything else (x -> input_size - x).

    Returns:
        the map from image to network input.
    """
    side = scale * min(size)
    zoom = input_size / side
    angle = math.radians(rotation)
    linear = zoom * np.array(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    )
    centre = np.array(size) / 2 + np.array(shift) * side
    matrix = np.column_stack([linear, input_size / 2 - linear @ centre])
    if flip:
        matrix = np.diag([-1.0, 1.0]) @ matrix + np.array([[0, 0, input_size], [0, 0, 0]])
    return Affine(matrix)
