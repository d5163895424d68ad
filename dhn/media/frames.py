"""Frames of videos, and which of them are wanted."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

_SLACK = 1e-6  # seconds; decimal fractions are not exact


@dataclass(frozen=True)
class VideoFrame:
    """A frame of a video.

    Attributes:
        index: its number in the video, from 0.
        time: when it is shown, in seconds from the first frame.
        image: RGB uint8 [H, W, 3].
    """

    index: int
    time: Fraction
    image: np.ndarray


@dataclass(frozen=True)
class Excerpt:
    """A part of a video.

    Attributes:
        stride: only frames whose number is a multiple of it.
        start: seconds from the first frame; frames before are left out.
        end: seconds from the first frame; frames from there on are left out. None is the end.
    """

    stride: int = 1
    start: float = 0.0
    end: float | None = None

    def takes(self, index: int, time: Fraction) -> bool:
        """Whether a frame is part of it, by its number and its time."""
        begun = float(time) >= self.start - _SLACK
        return index % self.stride == 0 and begun and not self.is_over(time)

    def is_over(self, time: Fraction) -> bool:
        """Whether no frame from this time on is part of it."""
        return self.end is not None and float(time) >= self.end - _SLACK
