"""Cameras and streams, whose newest frame wins: a slow network leaves frames out and never lags."""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import av
from av.container import InputContainer

from dhn.base.errors import DhnError
from dhn.media.frames import Excerpt, VideoFrame
from dhn.media.video import upright

_log = logging.getLogger(__name__)
_TIMEOUT = 10.0  # seconds without an answer after which a connection is lost
_PATIENCE = {True: 120.0, False: 10.0}  # seconds without a frame: of a stream, of a camera
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 15.0  # seconds between attempts to connect again, which double
_LOOK = 0.2  # seconds after which a wait looks whether it should end
_STREAMS = ("rtsp://", "rtsps://", "rtmp://", "rtmps://", "udp://", "rtp://", "srt://", "tcp://")


def is_stream(path: str) -> bool:
    """Whether this is the address of a stream, by its scheme."""
    return path.lower().startswith(_STREAMS)


class _Feed(NamedTuple):
    """What FFmpeg has to know of a camera or stream.

    Attributes:
        label: what messages call it.
        address, kind: where it is, and by which of FFmpeg's formats it is read.
        options: of that format.
        remote: whether it may come back after it broke off.
    """

    label: str
    address: str
    kind: str | None
    options: dict[str, str]
    remote: bool


class LiveReader:
    """Iterates over the frames of a camera or a stream, without end unless the excerpt has one.

    A thread reads it and keeps the newest frame alone. A frame's number counts those that came,
    so numbers are left out where frames are; its time is when it came, in seconds from the first.

    A stream that breaks off is connected again, after half a second at first, then after twice
    the time before, up to 15 seconds.

    Args:
        path: the number of a camera, as in /dev/video0, or the address of a stream.
        excerpt: every how many frames one is taken, and after how many seconds it ends.
        stop: ends it from another thread.

    Attributes:
        fps: what the camera or stream promises.
        frame_count: None.

    Raises:
        DhnError: there is no such camera or stream, it is in use, or it stops: for ten seconds,
            and where it can be connected again, for two minutes.
    """

    def __init__(
        self, path: str, excerpt: Excerpt | None = None, stop: threading.Event | None = None
    ) -> None:
        self._feed = _feed(path)
        self._excerpt = excerpt or Excerpt()
        self._stop = stop or threading.Event()
        try:
            self._container = _open(self._feed)
        except (av.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DhnError(
                f"{self._feed.label}: cannot be opened as {self._feed.address} ({reason})"
            ) from error
        rate = self._container.streams.video[0].average_rate or Fraction(25)
        self.fps: Fraction = rate / self._excerpt.stride
        self.frame_count: int | None = None
        self._news = threading.Condition()
        self._newest: tuple[int, float, Any] | None = None
        self._count = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, name="dhn camera", daemon=True)

    def __enter__(self) -> "LiveReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread.ident is None:
            self._container.close()
        else:
            self._thread.join()

    def __iter__(self) -> Iterator[VideoFrame]:
        self._thread.start()
        start: float | None = None
        while (news := self._next(start)) is not None:
            index, came, frame = news
            start = came if start is None else start
            since = Fraction(came - start).limit_denominator(1_000_000)
            if self._excerpt.is_over(since):
                return
            if self._excerpt.takes(index, since):
                yield VideoFrame(index, since, upright(frame))

    def _next(self, start: float | None) -> tuple[int, float, Any] | None:
        """Waits for a frame that has not been given yet; None where the excerpt is over."""
        give_up = time.monotonic() + _PATIENCE[self._feed.remote]
        with self._news:
            while self._newest is None:
                now = time.monotonic()
                since = 0 if start is None else now - start
                if self._stop.is_set() or self._excerpt.is_over(Fraction(since)):
                    return None
                if self._ended.is_set() or now > give_up:
                    raise DhnError(
                        f"{self._feed.label}: gives no more frames; look at "
                        f"{'the network' if self._feed.remote else 'its cable'} and try again"
                    )
                self._news.wait(_LOOK)
            news, self._newest = self._newest, None
            return news

    def _read(self) -> None:
        wait = _FIRST_WAIT
        while not self._ended.is_set():
            before = self._count
            with contextlib.suppress(av.FFmpegError, OSError), self._container:
                self._read_frames()
            wait = _FIRST_WAIT if self._count > before else wait
            if self._ended.is_set() or not self._feed.remote:
                break
            _log.warning("%s: broke off; connecting again", self._feed.label)
            wait = self._connect_again(wait)
        with self._news:
            self._ended.set()
            self._news.notify()

    def _connect_again(self, wait: float) -> float:
        """Tries until it succeeds, or the reader ends; returns how long to wait the next time."""
        while not self._ended.wait(wait):
            wait = min(2 * wait, _LONGEST_WAIT)
            with contextlib.suppress(av.FFmpegError, OSError, ValueError):
                self._container = _open(self._feed)
                break
        return wait

    def _read_frames(self) -> None:
        for frame in self._container.decode(video=0):
            if self._ended.is_set():
                return
            if frame.is_corrupt:
                continue
            with self._news:
                self._newest = self._count, time.monotonic(), frame
                self._news.notify()
            self._count += 1


def _open(feed: _Feed) -> InputContainer:
    container = av.open(
        feed.address,
        "r",
        format=feed.kind,
        options=feed.options,
        timeout=_TIMEOUT if feed.remote else None,
    )
    if not container.streams.video:
        container.close()
        raise ValueError("it holds no video")
    return container


def _feed(path: str) -> _Feed:
    if path.isdecimal():
        address, kind = _camera(int(path))
        return _Feed(f"camera {path}", address, kind, {}, remote=False)
    options = {"fflags": "nobuffer"}  # what FFmpeg holds back would be late
    if path.lower().startswith("rtsp"):
        options["rtsp_transport"] = "tcp"  # UDP loses packets, and firewalls stop it
    return _Feed(path, path, None, options, remote=True)


def _camera(number: int) -> tuple[str, str]:
    """What FFmpeg calls a camera on this system, and by which of its devices it is read."""
    if sys.platform == "darwin":
        return str(number), "avfoundation"
    return f"/dev/video{number}", "v4l2"
