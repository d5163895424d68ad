"""Expands what users name to images and videos."""

import glob
import io
import itertools
import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import numpy as np

from dhn.base.errors import DhnError
from dhn.media.animation import AnimationReader, is_animated
from dhn.media.formats import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from dhn.media.frames import Excerpt
from dhn.media.heif import HEIF_SUFFIXES, is_heif, reads_heif
from dhn.media.images import decode_image, read_image
from dhn.media.live import LiveReader, is_stream
from dhn.media.remote import is_address, is_endless, read_address
from dhn.media.sound import Sound
from dhn.media.video import VideoReader

_MAY_MOVE = {".gif", ".webp", ".png"}
IN_SUB_FOLDERS = "in sub-folders"
_MOST_COUNTED = 20_000  # files in sub-folders; a folder may be a whole disk


@dataclass(frozen=True)
class Source:
    """One image or video to read.

    Attributes:
        path: the file, an http:// or https:// address, the address of a stream (rtsp:// and the
            like), or the number of a camera; `-` is standard input.
        name: the name after which outputs are named: the file's, and before it the sub-folders
            of a folder that was read with them, as in `monday/clip.mp4`. No two sources have the
            same.
        data: what came on standard input.
    """

    path: str
    name: str
    data: bytes | None = field(default=None, repr=False, compare=False)

    @property
    def stem(self) -> str:
        """`name` without its suffix."""
        return self.name.removesuffix(PurePosixPath(self.name).suffix)

    @property
    def label(self) -> str:
        """What messages call it."""
        if self.is_live and self.path.isdecimal():
            return f"camera {self.path}"
        return "standard input" if self.path == "-" else self.path

    @cached_property
    def is_live(self) -> bool:
        """Whether it is a camera (a number that is no file) or a stream, and has no end.

        Web servers are asked what they send, unless the address ends like that of an image.
        """
        if self.data is not None or os.path.exists(self.path):
            return False
        if is_address(self.path):
            return _suffix(self.path) not in IMAGE_SUFFIXES and is_endless(self.path)
        return self.path.isdecimal() or is_stream(self.path)

    @cached_property
    def is_video(self) -> bool:
        """Whether it is read as a video.

        That is what the suffix says, and for animated images what is in the file. On standard
        input everything is a video that does not begin like an image.
        """
        if self.is_live:
            return True
        if self.data is not None:
            return is_animated(self.data) or not _is_image(self.data)
        suffix = _suffix(self.path)
        if suffix in _MAY_MOVE and os.path.isfile(self.path):
            return _moves(self.path)
        return suffix in VIDEO_SUFFIXES

    def read_image(self) -> np.ndarray:
        """Reads the image, turned as its EXIF orientation says; see `dhn.media.images`."""
        if self.data is not None:
            return decode_image(self.data, self.label)
        if is_address(self.path):
            return decode_image(read_address(self.path), self.label)
        return read_image(self.path)

    def open_video(
        self, excerpt: Excerpt | None = None, stop: threading.Event | None = None
    ) -> VideoReader | AnimationReader | LiveReader:
        """Opens the video, or a part of it; `stop` ends waiting for a camera or a stream."""
        excerpt = excerpt or Excerpt()
        if self.is_live:
            return LiveReader(self.path, excerpt, stop)
        if _suffix(self.path) == ".webp":
            return AnimationReader(self.path, excerpt)
        if self.data is not None:
            return VideoReader(self.label, excerpt=excerpt, file=io.BytesIO(self.data))
        return VideoReader(self.path, excerpt=excerpt)

    def open_sound(self, begin: Fraction) -> Sound | None:
        """Opens what is heard in a video, from `begin` seconds after its first frame on."""
        if self.is_live:
            return None
        file = self.path if self.data is None else io.BytesIO(self.data)
        return Sound(self.label, file, begin)


class Listing(NamedTuple):
    """What was found.

    Attributes:
        sources: the images and videos.
        passed_over: how many other files folders and globs hold, by suffix (`HEIC`), and how many
            images and videos lie in their sub-folders (`IN_SUB_FOLDERS`). Hidden files do not
            count.
    """

    sources: list[Source]
    passed_over: Counter[str]


def list_sources(arguments: Sequence[str], *, recursive: bool = False) -> list[Source]:
    """The images and videos of `find_sources`."""
    return find_sources(arguments, recursive=recursive).sources


def find_sources(arguments: Sequence[str], *, recursive: bool = False) -> Listing:
    """Expands files, folders, globs, addresses, cameras, and `-` for standard input.

    A folder stands for the images and videos directly in it, and a glob (which may hold `**`) for
    those that it matches; both are sorted by name. A file that is named itself is taken whatever
    its suffix, and need not exist: reading it will report that. A file that is named twice is
    taken once. Of files with the same name, all but the first get a number in `name`.

    Standard input may be an image, a video, or a list of all this, one a line.

    Args:
        arguments: what users name.
        recursive: folders stand for what is in their sub-folders, too.

    Raises:
        DhnError: there are no images and videos in a folder, or none that match a glob; or
            standard input is closed or empty.
    """
    passed_over: Counter[str] = Counter()
    found: dict[str, tuple[str, bytes | None]] = {}  # path -> name and data
    for argument in arguments:
        data = None
        if argument == "-":
            data = _standard_input()
            if (lines := _listed_paths(data)) is not None:
                for line in lines:
                    for path, name in _expand(line, recursive, passed_over):
                        found.setdefault(path, (name, None))
                continue
        for path, name in _expand(argument, recursive, passed_over):
            found.setdefault(path, (name, data))
    sources: list[Source] = []
    taken: set[str] = set()
    for path, (name, data) in found.items():
        sources.append(Source(path, free_name(name, taken), data))
    return Listing(sources, passed_over)


def free_name(name: str, taken: set[str]) -> str:
    """The name, with a number if it is in `taken`, to which it is added."""
    file = PurePosixPath(name)
    numbered = (str(file.with_name(f"{file.stem}-{n}{file.suffix}")) for n in itertools.count(2))
    free = next(n for n in itertools.chain([name], numbered) if n.casefold() not in taken)
    taken.add(free.casefold())
    return free


def _expand(argument: str, recursive: bool, passed_over: Counter[str]) -> list[tuple[str, str]]:
    """The files that an argument stands for, with the names of their outputs."""
    if argument == "-":
        return [("-", "stdin")]
    if argument.isdecimal() and not os.path.exists(argument):
        return [(argument, f"camera-{argument}")]
    if is_address(argument) or is_stream(argument):
        address = urlsplit(argument)
        return [(argument, PurePosixPath(unquote(address.path)).name or address.netloc)]
    if os.path.isdir(argument):
        folders = _walk(argument) if recursive else itertools.islice(_walk(argument), 1)
        names = [os.path.join(folder, name) for folder, files in folders for name in files]
        if not recursive:
            below = itertools.islice(_walk(argument), 1, None)
            inner = (os.path.join(folder, name) for folder, files in below for name in files)
            count = sum(map(_is_media, itertools.islice(inner, _MOST_COUNTED)))
            passed_over.update({IN_SUB_FOLDERS: count} if count else {})
    elif glob.has_magic(argument) and not os.path.exists(argument):
        names = sorted(glob.glob(argument, recursive=True))
    else:
        return [(argument, os.path.basename(argument) or argument)]
    paths = [name for name in names if _is_media(name)]
    taken = {*paths}
    for name in names:
        if (
            name not in taken
            and os.path.isfile(name)
            and not os.path.basename(name).startswith(".")
        ):
            passed_over[_suffix(name).removeprefix(".").upper() or "without a suffix"] += 1
    if not paths:
        more = "; --recursive takes those in sub-folders" if passed_over[IN_SUB_FOLDERS] else ""
        raise DhnError(
            f"{argument}: no images or videos are there; files of other suffixes must be named"
            + more
        )
    if os.path.isdir(argument):
        return [(path, Path(os.path.relpath(path, argument)).as_posix()) for path in paths]
    return [(path, os.path.basename(path)) for path in paths]


def _walk(folder: str) -> Iterator[tuple[str, list[str]]]:
    """A folder and those below it, each with its files, in order; hidden folders are left out."""
    for inner, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield inner, sorted(files)


def _is_media(path: str) -> bool:
    heif = HEIF_SUFFIXES if reads_heif() else set()
    known = _suffix(path) in IMAGE_SUFFIXES | VIDEO_SUFFIXES | heif
    return known and not os.path.basename(path).startswith(".") and os.path.isfile(path)


def _suffix(path: str) -> str:
    """The suffix in lower case, with its dot; of an address, that of its path."""
    return PurePosixPath(urlsplit(path).path if is_address(path) else path).suffix.lower()


def _moves(path: str) -> bool:
    try:
        return is_animated(Path(path).read_bytes())
    except OSError:
        return False  # reading it will report that


def _standard_input() -> bytes:
    if sys.stdin is None:
        raise DhnError("standard input is closed; name a file")
    data = sys.stdin.buffer.read()
    if not data:
        raise DhnError("standard input: is empty; pipe an image, a video or a list of files in")
    return data


def _is_image(data: bytes) -> bool:
    """Whether data begin like an image of a kind that is read."""
    return (
        data.startswith((b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*"))
        or data[:2] in (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6")
        or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")
        or data[4:12] in (b"jP  \r\n\x87\n", b"ftypavif")
        or is_heif(data)
    )


def _listed_paths(data: bytes) -> list[str] | None:
    """The lines of a text; None if the data are no text."""
    if b"\0" in data or _is_image(data):
        return None
    try:
        text = os.fsdecode(data)
        return [line.strip() for line in text.splitlines() if line.strip() and line.strip() != "-"]
    except UnicodeError:
        return None
