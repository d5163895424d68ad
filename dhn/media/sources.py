"""Expands what users name to images and videos."""

import glob
import itertools
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dhn.base.errors import DhnError
from dhn.media.formats import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from dhn.media.images import decode_image, read_image


@dataclass(frozen=True)
class Source:
    """One image or video to read.

    Attributes:
        path: the file; `-` is an image on standard input.
        name: the file name without its folder, after which outputs are named. No two sources
            have the same.
    """

    path: str
    name: str

    @property
    def stem(self) -> str:
        """`name` without its suffix."""
        return self.name.removesuffix(Path(self.name).suffix)

    @property
    def label(self) -> str:
        """What messages call it."""
        return "standard input" if self.path == "-" else self.path

    @property
    def is_video(self) -> bool:
        """Whether the suffix is that of a video; all other files are read as images."""
        return Path(self.path).suffix.lower() in VIDEO_SUFFIXES

    def read_image(self) -> np.ndarray:
        """Reads the image, turned as its EXIF orientation says; see `dhn.media.images`."""
        if self.path == "-":
            if sys.stdin is None:
                raise DhnError("standard input is closed; name a file")
            return decode_image(sys.stdin.buffer.read(), self.label)
        return read_image(self.path)


def list_sources(arguments: Sequence[str]) -> list[Source]:
    """Expands files, folders, globs, and `-` for standard input.

    A folder stands for the images and videos directly in it, and a glob (which may hold `**`) for
    those that it matches; both are sorted by name, and other files are passed over. A file that
    is named itself is taken whatever its suffix, and need not exist: reading it will report that.
    A file that is named twice is taken once. Of files with the same name, all but the first get a
    number in `name`.

    Raises:
        DhnError: there are no images and videos in a folder, or none that match a glob.
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
        raise DhnError(
            f"{argument}: no images or videos are there; files of other suffixes must be named"
        )
    return paths


def _is_media(path: str) -> bool:
    known = Path(path).suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES
    return known and not os.path.basename(path).startswith(".") and os.path.isfile(path)
