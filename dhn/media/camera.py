"""Cameras, whose newest frame wins: a slow network leaves frames out and never lags behind."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.container import InputContainer

from dhn.base.errors import DhnError
from dhn.media.frames import Excerpt, VideoFrame

_PATIENCE = 10.0  # seconds without a frame after which a camera has stopped


class CameraReader:
    """Iterates over the frames of a camera, without end unless the excerpt has one.

    A thread reads the camera and keeps the newest frame alone. A frame's number counts those that
    the camera gave, so numbers are left out where frames are; its time is when it came, in
    seconds from the first.

    Args:
        number: the camera, as in /dev/video0.
        excerpt: every how many frames one is taken, and after how many seconds it ends.

    Attributes:
        fps: what the camera promises.
        frame_count: None.

    Raises:
        DhnError: there is no such camera, it is in use, or it stops.
    """

    def __init__(self, number: int, excerpt: Excerpt) -> None:
        self._label = f"camera {number}"
        self._excerpt = excerpt
        address, kind = _camera(number)
        try:
            self._container: InputContainer = av.open(address, "r", format=kind)
        except (av.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DhnError(f"{self._label}: cannot be opened as {address} ({reason})") from error
        stream = self._container.streams.video[0]
        self.fps: Fraction = (stream.average_rate or Fraction(25)) / excerpt.stride
        self.frame_count: int | None = None
        self._news = threading.Condition()
        self._newest: tuple[int, float, Any] | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> "CameraReader":
        return self

    def __exit__(self, *_: object) -> None:
        with self._news:
            self._ended = True
        if self._thread.ident is not None:
            self._thread.join(_PATIENCE)
        self._container.close()

    def __iter__(self) -> Iterator[VideoFrame]:
        self._thread.start()
        start: float | None = None
        while (news := self._next()) is not None:
            index, came, frame = news
            start = came if start is None else start
            since = Fraction(came - start).limit_denominator(1_000_000)
            if self._excerpt.is_over(since):
                return
            if self._excerpt.takes(index, since):
                image: np.ndarray = frame.to_ndarray(format="rgb24")
                yield VideoFrame(index, since, image)
        raise DhnError(f"{self._label}: gives no more frames; look at its cable and try again")

    def _next(self) -> tuple[int, float, Any] | None:
        """Waits for a frame that has not been given yet; None if the camera has stopped."""
        with self._news:
            self._news.wait_for(lambda: self._newest is not None or self._ended, _PATIENCE)
            news, self._newest = self._newest, None
            return news

    def _read(self) -> None:
        with contextlib.suppress(av.FFmpegError, OSError):
            for index, frame in enumerate(self._container.decode(video=0)):
                with self._news:
                    if self._ended:
                        return
                    self._newest = index, time.monotonic(), frame
                    self._news.notify()
        with self._news:
            self._ended = True
            self._news.notify()


def _camera(number: int) -> tuple[str, str]:
    """What FFmpeg calls a camera on this system, and by which of its devices it is read."""
    if sys.platform == "darwin":
        return str(number), "avfoundation"
    return f"/dev/video{number}", "v4l2"
