"""Where results go, one by one: the interface of all outputs, overlays, and files of text."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from dhn.base.errors import DhnError
from dhn.base.version import __version__
from dhn.data.joints import JointSet
from dhn.inference.people import Labels, People
from dhn.media.draw import SteadyColours
from dhn.media.images import write_image
from dhn.media.sources import Source
from dhn.media.video import GrowingFile, VideoWriter

FORMAT = "dhn-predictions-1"
STDOUT = Path("-")
NO_PIXELS = np.empty((0, 0, 3), np.uint8)  # of frames whose image is not kept


@dataclass(frozen=True)
class Frame:
    """An image, or a frame of a video, on its way to the predictor.

    Attributes:
        source: the file it comes from.
        image: RGB uint8 [H, W, 3].
        index: the frame's number in its video, from 0; None for images.
        time: when the frame is shown, in seconds from the first one.
        fps: frames per second that are taken from the video.
        size: (W, H) of the image in pixels, also where the image itself is not kept.
        overlay: the image with its people drawn over it, RGB uint8 [H, W, 3]; None until it is
            drawn, and where nobody needs it.
    """

    source: Source
    image: np.ndarray
    index: int | None = None
    time: Fraction = Fraction(0)
    fps: Fraction = Fraction(0)
    size: tuple[int, int] = (0, 0)
    overlay: np.ndarray | None = None


@dataclass(frozen=True)
class Run:
    """What a run is about; JSON files begin with it.

    Attributes:
        weights: where the network's weights came from.
        settings: what the people depend on besides, by the names of options and keywords.
        joints: the J joints of everybody.
        sources: all sources of the run.
    """

    weights: str
    settings: dict[str, Any]
    joints: JointSet
    sources: Sequence[Source]

    def header(self) -> dict[str, Any]:
        """The fields that every JSON file begins with, as plain values."""
        return {
            "format": FORMAT,
            "dhn": __version__,
            "weights": self.weights,
            "settings": self.settings,
            "joint_names": list(self.joints.names),
            "skeleton": [list(limb) for limb in self.joints.skeleton],
            "sources": [source.path for source in self.sources],
        }


class Sink(Protocol):
    """Takes results one by one; opens its file at the first of them, and completes it at last."""

    def write(self, frame: Frame, people: People) -> None: ...

    def close(self) -> None: ...


class ImageSink:
    """A sink that has nothing to complete."""

    def __init__(self, path: Path, run: Run) -> None:
        self.path = path

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class OverlayStyle:
    """How people are drawn; see `People.plot`.

    Attributes:
        labels, line_width, boxes: keywords of `People.plot`.
        image_format: the suffix of overlays of images, without its dot.
    """

    labels: Labels = "id"
    line_width: float | None = None
    boxes: bool = False
    image_format: Literal["jpg", "png", "webp"] = "jpg"


class Painter:
    """Draws the people of one source; those of a video keep their colours."""

    def __init__(self, style: OverlayStyle) -> None:
        self._style = style
        self._colours = SteadyColours()

    def __call__(self, frame: Frame, people: People) -> tuple[Frame, People]:
        """The frame with its overlay, and the people."""
        colours = None
        if frame.index is not None:
            colours = self._colours(people.keypoints) if people.ids is None else people.ids - 1
        style = self._style
        overlay = people.plot(
            frame.image,
            colours=colours,
            labels=style.labels,
            line_width=style.line_width,
            boxes=style.boxes,
        )
        return replace(frame, overlay=overlay), people


class OverlayImage(ImageSink):
    """An image with skeletons over it."""

    def write(self, frame: Frame, people: People) -> None:
        assert frame.overlay is not None
        write_image(self.path, frame.overlay)


class OverlayVideo:
    """A video with skeletons over it, and the sound that it had."""

    def __init__(self, path: Path, run: Run) -> None:
        self._path = path
        self._writer: VideoWriter | None = None

    def write(self, frame: Frame, people: People) -> None:
        if self._writer is None:
            sound = frame.source.open_sound(frame.time)
            self._writer = VideoWriter(self._path, frame.fps, frame.size, sound)
            self._start = frame.time  # an excerpt begins at once
        assert frame.overlay is not None
        self._writer.write(frame.overlay, frame.time - self._start)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class TextFile:
    """A text file that grows with every result; `-` is standard output."""

    def __init__(self, path: Path, run: Run) -> None:
        self.run = run
        self._path = path
        self._file: GrowingFile | None = None
        self._begun = False

    def append(self, text: str) -> None:
        """Adds `text`, after what `begin` returns if it is the first."""
        if not self._begun:
            self._begun = True
            text = self.begin() + text
        if self._path == STDOUT:
            _print(text)
            return
        if self._file is None:
            self._file = GrowingFile(self._path)
        # Opening it each time leaves no buffered half line behind when a write fails.
        with (
            self._file.writing(),
            self._file.temporary.open(
                "a", encoding="utf-8", errors="surrogateescape", newline=""
            ) as file,
        ):
            file.write(text)

    def begin(self) -> str:
        """What stands before the first result."""
        return ""

    def end(self) -> str:
        """What stands after the last."""
        return ""

    def close(self) -> None:
        if not self._begun:
            return
        if self._path == STDOUT:
            _print(self.end())
        elif self._file is not None and self._file.open:
            if end := self.end():
                self.append(end)
            self._file.keep()


def _print(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()  # what reads it may want each result at once
    except OSError as error:
        raise DhnError(f"standard output: cannot be written ({error.strerror})") from error
