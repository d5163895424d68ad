"""Writes short texts over images, with a rim around the letters."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_MOST_STEPS = 12  # by which a text evades others


class Box(NamedTuple):
    """A rectangle of whole pixels, without `right` and `bottom`."""

    left: int
    top: int
    right: int
    bottom: int

    def meets(self, other: "Box") -> bool:
        """Whether they have a pixel in common."""
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


class Text:
    """A text in one line, as a mask that is painted with two colours.

    Args:
        text: what is written.
        scale: of OpenCV's font; 1 makes capital letters about 22 pixels high.
    """

    def __init__(self, text: str, scale: float) -> None:
        weight = max(1, round(1.6 * scale))
        (width, height), below = cv2.getTextSize(text, _FONT, scale, weight)
        rim = max(1, round(2.5 * scale))
        mask = np.zeros((height + below + 2 * rim, width + 2 * rim), np.uint8)
        cv2.putText(mask, text, (rim, rim + height), _FONT, scale, 255, weight, cv2.LINE_AA)
        # A thick copy beneath would do as a rim in OpenCV 4, but not with the fonts of OpenCV 5.
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * rim + 1, 2 * rim + 1))
        self._letters, self._around = mask, cv2.dilate(mask, kernel)

    def place(
        self, shape: tuple[int, ...], x: float, bottom: float, taken: Sequence[Box] = ()
    ) -> Box:
        """Where it fits into an image, and where no other text is, if there is such a place.

        Args:
            shape: of the image, [H, W, 3].
            x, bottom: where the middle of its lower edge should be, in pixels.
            taken: where other texts are; it moves upwards from them, and then downwards.
        """
        height, width = self._letters.shape
        left = int(np.clip(x - width / 2, 0, max(0, shape[1] - width)))
        lowest = max(0, shape[0] - height)
        first = int(np.clip(bottom - height, 0, lowest))
        steps = [0, *range(-1, -_MOST_STEPS, -1), *range(1, _MOST_STEPS)]
        for top in (first + step * (height // 2) for step in steps):
            box = Box(left, top, left + width, top + height)
            if 0 <= top <= lowest and not any(map(box.meets, taken)):
                return box
        return Box(left, first, left + width, first + height)

    def write(self, canvas: np.ndarray, box: Box, ink: np.ndarray, rim: np.ndarray) -> None:
        """Paints it, as far as it is inside.

        Args:
            canvas: RGB uint8 [H, W, 3], which is painted over.
            box: from `place`.
            ink, rim: RGB of the letters and of what is around them.
        """
        window = canvas[box.top : box.bottom, box.left : box.right]
        rows, columns = window.shape[:2]
        blended = window.astype(np.float32)
        for mask, colour in ((self._around, rim), (self._letters, ink)):
            alpha = mask[:rows, :columns, None] / np.float32(255)
            blended += alpha * (np.asarray(colour, np.float32) - blended)
        window[:] = np.rint(blended)
