"""Animated images: which files move, and the frames of those that FFmpeg does not read (WebP)."""

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from dhn.base.errors import DhnError
from dhn.media.frames import Excerpt, VideoFrame

_GIF_SIZES = 3 * 2 ** (np.arange(8) + 1)  # bytes of colour tables


def is_animated(data: bytes) -> bool:
    """Whether a GIF, WebP or PNG file has more than one frame; False for all other data."""
    if data.startswith(b"RIFF") and data[8:16] == b"WEBPVP8X":
        return len(data) > 20 and bool(data[20] & 2)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        control = data.find(b"acTL")
        return 0 < control < data.find(b"IDAT")
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return _gif_frames(data) > 1
    return False


def _gif_frames(data: bytes) -> int:
    """The number of frames of a GIF, up to 2."""
    position = 13 + (int(_GIF_SIZES[data[10] & 7]) if len(data) > 10 and data[10] & 128 else 0)
    frames = 0
    while frames < 2 and position + 1 < len(data):
        block = data[position]
        if block == 0x21:  # an extension: its label, then sub-blocks
            position += 2
        elif block == 0x2C and position + 10 < len(data):
            frames += 1
            packed = data[position + 9]
            position += 11 + (int(_GIF_SIZES[packed & 7]) if packed & 128 else 0)
        else:
            break
        while position < len(data) and data[position]:
            position += 1 + data[position]
        position += 1
    return frames


class AnimationReader:
    """Iterates over the frames of an animated WebP like `VideoReader`.

    Raises:
        DhnError: the file cannot be read, or OpenCV is older than 4.11.
    """

    def __init__(self, path: str | os.PathLike[str], excerpt: Excerpt) -> None:
        if not hasattr(cv2, "imreadanimation"):
            raise DhnError(f'{path}: needs OpenCV 4.11: pip install -U "opencv-python>=4.11"')
        try:
            read, animation = cv2.imreadanimation(os.fspath(Path(path)))
        except cv2.error:
            read = False
        if not read:
            raise DhnError(f"{path}: is not an animation that can be read; replace or remove it")
        self._excerpt = excerpt
        self._images = animation.frames
        self._durations = [Fraction(max(int(ms), 1), 1000) for ms in animation.durations]
        length = sum(self._durations, Fraction(0))
        self.fps: Fraction = len(self._durations) / length / excerpt.stride
        self.frame_count: int | None = None

    def __enter__(self) -> "AnimationReader":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __iter__(self) -> Iterator[VideoFrame]:
        time = Fraction(0)
        for index, (bgr, duration) in enumerate(zip(self._images, self._durations, strict=True)):
            if self._excerpt.is_over(time):
                return
            if self._excerpt.takes(index, time):
                image = cv2.cvtColor(np.ascontiguousarray(bgr[..., :3]), cv2.COLOR_BGR2RGB)
                yield VideoFrame(index, time, image)
            time += duration
