"""How a training sample may look: blur, noise, JPEG, low resolution, patches that hide, stretching.

These augmentations are for small data sets, and each is off by default. Their random numbers come
from a generator of their own, so that switching one of them on changes no other choice of a sample.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from dhn.data.geometry import Affine

# Kept apart from the sample's first generator, which is seeded with (seed, epoch, index) alone.
_STREAM = 1


@dataclass(frozen=True)
class Appearance:
    """How often a sample is spoilt, and in which way; each is a probability from 0 to 1.

    Attributes:
        blur: a Gaussian blur of up to 1/100 of the sample's side.
        noise: Gaussian noise of up to 16 of 255 levels.
        jpeg: compression by JPEG, quality 15 to 60.
        low_resolution: a sample that was a half to a fifth as large.
        cutout: one to three patches of one colour, each of up to a third of the sample's side; the
            joints underneath stay labelled, as hidden ones.
        grey: no colours.
        aspect: the image's width is stretched against its height by a factor from this range,
            evenly drawn on a logarithmic scale.
    """

    blur: float = 0.0
    noise: float = 0.0
    jpeg: float = 0.0
    low_resolution: float = 0.0
    cutout: float = 0.0
    grey: float = 0.0
    aspect: tuple[float, float] = (1.0, 1.0)

    def or_none(self) -> "Appearance | None":
        """These settings, or None if nothing ever happens."""
        return None if self == Appearance() else self


class Patch(NamedTuple):
    """A rectangle that was painted over: x0, y0, x1, y1 in whole pixels, the ends excluded."""

    x0: int
    y0: int
    x1: int
    y1: int


class Draws:
    """The random choices of one sample; a sample depends on (seed, epoch, index) alone."""

    def __init__(self, how: Appearance, seed: int, epoch: int, index: int) -> None:
        self.how = how
        self.rng = np.random.default_rng([seed, epoch, index, _STREAM])

    def stretched(self, size: tuple[int, int]) -> Affine | None:
        """The map that stretches an image of `size` (W, H) about its centre; None: not at all.

        The area stays, so that a drawn scale means the same as without it.
        """
        low, high = self.how.aspect
        if low == high == 1:
            return None
        root = np.exp(self.rng.uniform(np.log(low), np.log(high)) / 2)
        linear = np.diag([root, 1 / root])
        centre = np.array(size) / 2
        return Affine(np.column_stack([linear, centre - linear @ centre]))

    def spoilt(self, image: np.ndarray) -> tuple[np.ndarray, list[Patch]]:
        """A sample [S, S, 3] as a worse camera would have seen it.

        Returns:
            the image, uint8 of the same shape (the same array where nothing was drawn), and the
            patches that were painted over.
        """
        patches: list[Patch] = []
        steps: tuple[tuple[float, Callable[[np.ndarray, np.random.Generator], np.ndarray]], ...] = (
            (self.how.grey, _greyed),
            (self.how.low_resolution, _shrunk),
            (self.how.blur, _blurred),
            (self.how.noise, _noisy),
            (self.how.jpeg, _compressed),
        )
        if self.how.cutout and self.rng.random() < self.how.cutout:
            image, patches = _cut_out(image, self.rng)
        for probability, step in steps:
            if probability and self.rng.random() < probability:
                image = step(image, self.rng)
        return image, patches


def hide(keypoints: np.ndarray, patches: list[Patch]) -> np.ndarray:
    """Keypoints [P, J, 3] in pixels, those that are labelled under a patch with v = 1 (hidden)."""
    for x0, y0, x1, y1 in patches:
        x, y, visibility = keypoints[..., 0], keypoints[..., 1], keypoints[..., 2]
        under = (x >= x0) & (x < x1) & (y >= y0) & (y < y1) & (visibility > 1)
        visibility[under] = 1
    return keypoints


def _greyed(image: np.ndarray, _: np.random.Generator) -> np.ndarray:
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def _shrunk(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = image.shape[:2]
    factor = rng.uniform(2, 5)
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def _blurred(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1) * len(image) / 100)


def _noisy(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(4, 16))
    return cv2.add(image, noise, dtype=cv2.CV_8U)


def _compressed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    quality = int(rng.integers(15, 61))
    image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    written = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    read = cv2.imdecode(written, cv2.IMREAD_COLOR)
    assert read is not None
    return cv2.cvtColor(read, cv2.COLOR_BGR2RGB)


def _cut_out(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[Patch]]:
    image = image.copy()
    height, width = image.shape[:2]
    patches = []
    for _ in range(rng.integers(1, 4)):
        w, h = (max(1, int(side * rng.uniform(0.08, 1 / 3))) for side in (width, height))
        x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
        image[y : y + h, x : x + w] = rng.integers(0, 256, 3)
        patches.append(Patch(x, y, x + w, y + h))
    return image, patches
