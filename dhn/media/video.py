"""Reads and writes videos. In memory, frames are RGB uint8 [H, W, 3]."""

import contextlib
import os
from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO

import av
import cv2
import numpy as np
from av.container import InputContainer

from dhn.base.errors import DhnError
from dhn.base.files import check_regular, written_whole
from dhn.media.frames import Excerpt, VideoFrame
from dhn.media.remote import is_address

_TIMEOUT = 30.0  # seconds without an answer from the web


class VideoReader:
    """Iterates over the frames of a video, turned as the file's display matrix says.

    Args:
        path: the file, or an http:// or https:// address.
        excerpt: which frames are given; all by default.
        file: where to read instead; `path` is what messages call it.

    Attributes:
        fps: how many frames are given for a second of the video, on average.
        frame_count: how many frames will be given, or None where the file does not state it.

    Raises:
        DhnError: the file is not a video; or, after the last frame that can be decoded, the
            video is damaged or cut short.
    """

    # These formats state their duration; in others it is a guess, which proves nothing.
    _STATING_DURATION = ("mov", "matroska", "avi")

    def __init__(
        self,
        path: str | os.PathLike[str],
        excerpt: Excerpt | None = None,
        *,
        file: BinaryIO | None = None,
    ) -> None:
        self.path = os.fspath(path)
        self.excerpt = excerpt or Excerpt()
        if file is None and not is_address(self.path):
            check_regular(path)
        try:
            # Titles and the like may be in any encoding, and nobody here reads them.
            self._container: InputContainer = av.open(
                self.path if file is None else file,
                "r",
                metadata_errors="replace",
                timeout=_TIMEOUT if is_address(self.path) else None,
            )
        except (av.FFmpegError, OSError) as error:
            reason = error.strerror or error
            raise DhnError(f"{path}: cannot be read as a video ({reason})") from error
        if not self._container.streams.video:
            self._container.close()
            raise DhnError(f"{path}: holds no video; give a video or an image")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        self._tick = self._stream.time_base or Fraction(1, av.time_base)
        self._rate = self._stream.average_rate or self._stream.guessed_rate or Fraction(25)
        self.fps: Fraction = self._rate / self.excerpt.stride
        self.frame_count: int | None = self._count()

    def _count(self) -> int | None:
        """How many of the frames that the file states are in the excerpt, about."""
        start, end = self.excerpt.start, self.excerpt.end
        frames: float = self._stream.frames
        if end is not None:
            frames = min(frames, float(end * self._rate))
        return max(0, -(-int(frames - start * float(self._rate)) // self.excerpt.stride)) or None

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[VideoFrame]:
        count = broken = 0
        start = end = Fraction(0)
        for packet in self._packets():
            end = max(end, self._end_time(packet))
            try:
                # A damaged packet may still decode, to an image that is partly grey.
                frames = [] if packet.is_corrupt else packet.decode()
                broken += packet.is_corrupt
            except av.FFmpegError:
                frames = []
                broken += 1
            for frame in frames:
                time = count / self._rate if frame.pts is None else frame.pts * self._tick
                start = time if count == 0 else start
                if self.excerpt.is_over(time - start):
                    return
                if self.excerpt.takes(count, time - start):
                    yield VideoFrame(count, time - start, upright(frame))
                count += 1
        if broken or count == 0 or end < self._stated_end():
            raise DhnError(
                f"{self.path}: the video is cut short or damaged; {count} frames could be read"
            )

    def _packets(self) -> Iterator[av.Packet]:
        try:
            yield from self._container.demux(self._stream)
        except av.FFmpegError as error:
            reason = error.strerror or error
            raise DhnError(f"{self.path}: the video breaks off ({reason})") from error

    def _end_time(self, packet: av.Packet) -> Fraction:
        time = packet.dts if packet.pts is None else packet.pts
        return Fraction(0) if time is None else (time + (packet.duration or 0)) * self._tick

    def _stated_end(self) -> Fraction:
        """The time that an undamaged file reaches at least, in seconds; 0 where none is stated."""
        stream, container = self._stream, self._container
        if container.format.name.startswith(self._STATING_DURATION):
            slack = Fraction(3, 2) / self._rate
            if stream.duration:
                return ((stream.start_time or 0) + stream.duration) * self._tick - slack
            if container.duration:
                # This is the duration of the whole file, whose sound may outlast the frames.
                slack = slack if len(container.streams) == 1 else Fraction(1)
                return Fraction(container.duration, av.time_base) - slack
        return Fraction(0)


def upright(frame: av.VideoFrame) -> np.ndarray:
    """The frame as viewers show it, RGB."""
    rgb = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90)  # counterclockwise, like rot90
    return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb


class _DiscardedError(Exception):
    """Ends `written_whole` without a file."""


class GrowingFile:
    """A file that is written bit by bit and appears at its path when it is kept.

    Ctrl-C or a broken input may end it early and keep it all the same, which
    `dhn.base.files.written_whole` does not allow. Only if writing fails is nothing left behind.

    Attributes:
        temporary: the path to write to.
        open: whether the file was neither kept so far, nor lost by a failure.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.open = True
        self._whole = contextlib.ExitStack()
        self.temporary = self._whole.enter_context(written_whole(path))

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Surrounds everything that writes. A failure removes the file and becomes a DhnError."""
        try:
            yield
        except (OSError, av.FFmpegError) as error:
            self.open = False
            failure = error if isinstance(error, OSError) else OSError(str(error))
            self._whole.__exit__(type(failure), failure, failure.__traceback__)
            raise

    def discard(self) -> None:
        """Removes the file, and leaves what stood at its path."""
        self.open = False
        with contextlib.suppress(DhnError, _DiscardedError):
            self._whole.__exit__(_DiscardedError, _DiscardedError(), None)

    def keep(self) -> None:
        """Makes the file appear at its path."""
        self.open = False
        self._whole.close()


class VideoWriter:
    """Writes a video that browsers play: H.264 in yuv420p, its index in front (faststart).

    yuv420p halves the colour planes, so a side of odd length grows by one repeated pixel. The
    file appears when `close` is called. A failed write leaves none.

    Args:
        path: an .mp4 file; missing folders are made.
        fps: frames per second as an exact fraction, like 30000/1001.
        size: (W, H) of the images.

    Raises:
        DhnError: the file cannot be written, because the disk is full, for example.
    """

    def __init__(self, path: str | os.PathLike[str], fps: Fraction, size: tuple[int, int]) -> None:
        self._size = size[0] + size[0] % 2, size[1] + size[1] % 2
        self._pts = -1
        self._file = GrowingFile(path)
        with self._file.writing():
            self._container = av.open(
                str(self._file.temporary), "w", format="mp4", options={"movflags": "+faststart"}
            )
            self._stream = self._container.add_stream(
                "libx264", rate=fps, options={"crf": "20", "preset": "veryfast"}
            )
        self._stream.width, self._stream.height = self._size
        self._stream.pix_fmt = "yuv420p"
        # In these ticks, frames of constant rate fall on whole numbers, and other frames nearly do.
        self._tick = Fraction(1, fps.numerator * -(-10_000 // fps.numerator))
        context = self._stream.codec_context
        context.time_base = self._tick
        context.color_primaries = context.color_trc = context.colorspace = 1  # BT.709
        context.color_range = 1  # limited, 16 to 235

    def write(self, image: np.ndarray, time: Fraction) -> None:
        """Adds a frame, RGB uint8 [H, W, 3], which is shown `time` seconds after the start."""
        right, bottom = (n - m for n, m in zip(self._size, image.shape[1::-1], strict=True))
        if (right, bottom) != (0, 0):
            edges = (0, max(0, bottom), 0, max(0, right))
            image = cv2.copyMakeBorder(image, *edges, cv2.BORDER_REPLICATE)
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame = frame.reformat(*self._size, "yuv420p", dst_colorspace="ITU709")
        frame.pts = max(self._pts + 1, round(time / self._tick))
        frame.time_base = self._tick
        with self._writing():
            self._container.mux(self._stream.encode(frame))
        self._pts = frame.pts

    def close(self) -> None:
        """Finishes the file, which then appears at its path and plays, however few its frames.

        A second call, or one after a failed write, does nothing.
        """
        if not self._file.open:
            return
        if self._pts < 0:  # interrupted before the first frame: an empty file would play nowhere
            self._container.close()
            self._file.discard()
            return
        with self._writing():
            self._container.mux(self._stream.encode(None))
            self._container.close()
        self._file.keep()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with self._file.writing():
            try:
                yield
            except (OSError, av.FFmpegError):
                with contextlib.suppress(OSError, av.FFmpegError):
                    self._container.close()  # else its destructor would go on writing
                raise
