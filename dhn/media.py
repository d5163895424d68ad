"""Pictures and videos in and out. In memory, pictures are RGB uint8 [H, W, 3]."""

import contextlib
import glob
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from dhn.errors import DhnError
from dhn.files import written_whole

IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".tif", ".tiff"),
    *(".jp2", ".ppm", ".pgm", ".pnm", ".avif"),
}
VIDEO_SUFFIXES = {
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg"),
    *(".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp", ".ogv", ".gif"),
}

# A picture that cannot be read is reported by us in one line; OpenCV would add several.
_set_log_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel  # 4.x or 5
_set_log_level(0)


def read_image(path: str | os.PathLike[str], *, ignore_orientation: bool = False) -> np.ndarray:
    """Reads a picture of any kind that OpenCV knows (JPEG, PNG, WebP, TIFF, BMP, ...).

    Grey pictures become RGB, 16 bits become 8, transparency is dropped.

    Args:
        path: the file.
        ignore_orientation: leave the pixels as they are stored. Data sets want this: their
            annotations count stored pixels. Otherwise the picture is turned as its EXIF
            orientation says, the way viewers show it.

    Returns:
        RGB uint8 [H, W, 3].

    Raises:
        DhnError: no such file, empty, not a picture, or cut short; names the file.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DhnError(f"{path}: cannot be read ({error.strerror or error})") from error
    return decode_image(data, str(path), ignore_orientation=ignore_orientation)


def decode_image(data: bytes, name: str, *, ignore_orientation: bool = False) -> np.ndarray:
    """Like `read_image`, from the bytes of a file; `name` stands in error messages."""
    if not data:
        raise DhnError(f"{name}: is empty; replace or remove the file")
    if _is_cut_short(data):
        raise DhnError(f"{name}: the picture is cut short; copy or download it again")
    flags = cv2.IMREAD_COLOR | (cv2.IMREAD_IGNORE_ORIENTATION if ignore_orientation else 0)
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:  # too many pixels, for one
        bgr = None
    if bgr is None:
        raise DhnError(f"{name}: is not a picture that can be read; replace or remove the file")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def _is_cut_short(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end: OpenCV 4 fills what is missing with grey."""
    if data.startswith(b"\xff\xd8\xff"):
        return data.rfind(b"\xff\xd9") < _jpeg_scan_start(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"IEND\xaeB`\x82" not in data
    return False


def _jpeg_scan_start(data: bytes) -> int:
    """Where the first scan begins. End markers before it belong to an embedded thumbnail."""
    position = 2
    while position + 4 <= len(data):
        marker = data[position + 1]
        if data[position] != 0xFF or marker == 0xDA:
            return position
        # 0xFF may be repeated before a marker; every other marker here has a length.
        position += (
            1 if marker == 0xFF else 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        )
    return len(data)


def write_image(path: str | os.PathLike[str], rgb: np.ndarray) -> None:
    """Writes a picture in the format of the path's suffix, whole or not at all.

    Raises:
        DhnError: the suffix names no picture format, or the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    try:
        _, data = cv2.imencode(suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise DhnError(f"{path}: unknown picture format; use .jpg or .png") from error
    with written_whole(path) as temporary:
        temporary.write_bytes(data.tobytes())


@dataclass(frozen=True)
class Source:
    """One picture or video to read.

    Attributes:
        path: the file; `-` is a picture on standard input.
        name: file name without folder, unlike that of any other source: outputs are named by it.
    """

    path: str
    name: str

    @property
    def is_video(self) -> bool:
        """By the suffix; whatever is not a known video is read as a picture."""
        return Path(self.path).suffix.lower() in VIDEO_SUFFIXES

    def read_image(self) -> np.ndarray:
        """The picture, turned as its EXIF orientation says; raises DhnError."""
        if self.path == "-":
            return decode_image(sys.stdin.buffer.read(), "standard input")
        return read_image(self.path)


def list_sources(arguments: Sequence[str]) -> list[Source]:
    """Expands what the user named: files, folders, quoted globs, and `-` for standard input.

    A folder stands for the pictures and videos directly in it, a glob (`**` included) for those
    it matches, both sorted by name; other files in them are passed over. A file named by itself
    is taken whatever its suffix, and need not exist: reading it reports that. A file named
    twice is taken once. Of files with the same name, all but the first get a number in `name`.

    Raises:
        DhnError: a folder or glob without pictures and videos.
    """
    paths = dict.fromkeys(path for argument in arguments for path in _expand(argument))
    sources: list[Source] = []
    taken: set[str] = set()
    for path in paths:
        file = Path("stdin" if path == "-" else path)
        numbered = (f"{file.stem}-{n}{file.suffix}" for n in itertools.count(2))
        names = itertools.chain([file.name], numbered)
        name = next(name for name in names if name.casefold() not in taken)
        taken.add(name.casefold())
        sources.append(Source(path, name))
    return sources


def _expand(argument: str) -> list[str]:
    if os.path.isdir(argument):
        names = [os.path.join(argument, name) for name in sorted(os.listdir(argument))]
    elif glob.has_magic(argument) and not os.path.exists(argument):
        names = sorted(glob.glob(argument, recursive=True))
    else:
        return [argument]
    paths = [name for name in names if _is_media(name)]
    if not paths:
        raise DhnError(f"{argument}: no pictures or videos there; name files by their suffix")
    return paths


def _is_media(path: str) -> bool:
    known = Path(path).suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES
    return known and not os.path.basename(path).startswith(".") and os.path.isfile(path)


@dataclass(frozen=True)
class VideoFrame:
    """A frame of a video: its index from 0, its time in seconds from the first frame, RGB."""

    index: int
    time: Fraction
    picture: np.ndarray


class VideoReader:
    """The frames of a video, upright (the file's display matrix is applied).

    Args:
        path: the file.
        stride: give every n-th frame only.

    Attributes:
        fps: average number of given frames per second.
        frame_count: how many frames will be given, as far as the file states it, or None.

    Raises:
        DhnError: at once, if the file is not a video; while iterating, after the last frame
            that can be decoded, if the video is broken or cut short. Names the file.
    """

    # These formats state their duration; in others it is a guess that proves nothing.
    _STATING_DURATION = ("mov", "matroska", "avi")

    def __init__(self, path: str | os.PathLike[str], stride: int = 1) -> None:
        self.path = os.fspath(path)
        self.stride = stride
        try:
            self._container = av.open(self.path)
        except (av.FFmpegError, OSError) as error:
            reason = error.strerror or error
            raise DhnError(f"{path}: cannot be read as a video ({reason})") from error
        if not self._container.streams.video:
            self._container.close()
            raise DhnError(f"{path}: holds no video; name a video or a picture")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        self._tick = self._stream.time_base or Fraction(1, av.time_base)
        self._rate = self._stream.average_rate or self._stream.guessed_rate or Fraction(25)
        self.fps: Fraction = self._rate / stride
        self.frame_count: int | None = -(-self._stream.frames // stride) or None

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
                # A damaged packet may still decode, to a picture that is part grey.
                frames = [] if packet.is_corrupt else packet.decode()
                broken += packet.is_corrupt
            except av.FFmpegError:
                frames = []
                broken += 1
            for frame in frames:
                time = count / self._rate if frame.pts is None else frame.pts * self._tick
                start = time if count == 0 else start
                if count % self.stride == 0:
                    yield VideoFrame(count, time - start, _upright(frame))
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
        """Seconds that an undamaged file reaches at least; 0 where the format does not say."""
        stream, container = self._stream, self._container
        if container.format.name.startswith(self._STATING_DURATION):
            slack = Fraction(3, 2) / self._rate
            if stream.duration:
                return ((stream.start_time or 0) + stream.duration) * self._tick - slack
            if container.duration:
                # That of the whole file, whose sound may outlast the picture a little.
                slack = slack if len(container.streams) == 1 else Fraction(1)
                return Fraction(container.duration, av.time_base) - slack
        return Fraction(0)


def _upright(frame: av.VideoFrame) -> np.ndarray:
    rgb = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90)  # counterclockwise, like rot90
    return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb


class GrowingFile:
    """A file that is written while a command runs and appears at its path when kept.

    Unlike with `files.written_whole`, Ctrl-C or a broken input ends it early but keeps it; only
    when writing it fails is nothing left behind.

    Attributes:
        temporary: the path to write to.
        open: neither kept nor failed yet.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.open = True
        self._whole = contextlib.ExitStack()
        self.temporary = self._whole.enter_context(written_whole(path))

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Around everything that writes: turns a failure into a DhnError and removes the file."""
        try:
            yield
        except (OSError, av.FFmpegError) as error:
            self.open = False
            failure = error if isinstance(error, OSError) else OSError(str(error))
            self._whole.__exit__(type(failure), failure, failure.__traceback__)
            raise

    def keep(self) -> None:
        """Makes the file appear at its path."""
        self.open = False
        self._whole.close()


class VideoWriter:
    """Writes H.264 in yuv420p, as browsers play it, with its index in front (faststart).

    A side of odd length grows by one repeated pixel: yuv420p halves the colour planes.
    `close` makes the file appear; a failed write leaves none.

    Args:
        path: an .mp4 file.
        fps: frames per second, exact (30000/1001, say).
        size: (W, H) of the pictures.

    Raises:
        DhnError: the file cannot be written (disk full); names it.
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
        # In these ticks frames of constant rate fall on whole numbers, and others nearly so.
        self._tick = Fraction(1, fps.numerator * -(-10_000 // fps.numerator))
        context = self._stream.codec_context
        context.time_base = self._tick
        context.color_primaries = context.color_trc = context.colorspace = 1  # BT.709
        context.color_range = 1  # limited, 16 to 235

    def write(self, picture: np.ndarray, time: Fraction) -> None:
        """Adds a frame, RGB uint8 [H, W, 3], shown `time` seconds after the start."""
        right, bottom = (n - m for n, m in zip(self._size, picture.shape[1::-1], strict=True))
        if (right, bottom) != (0, 0):
            edges = (0, max(0, bottom), 0, max(0, right))
            picture = cv2.copyMakeBorder(picture, *edges, cv2.BORDER_REPLICATE)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame = frame.reformat(*self._size, "yuv420p", dst_colorspace="ITU709")
        self._pts = frame.pts = max(self._pts + 1, round(time / self._tick))
        frame.time_base = self._tick
        with self._writing():
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finishes the file: it appears at its path and plays, however few the frames.

        Nothing happens a second time, or after a failed write.
        """
        if not self._file.open:
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
                    self._container.close()  # or it would go on when it is collected
                raise
