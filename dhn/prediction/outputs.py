"""Writes predictions: overlays, videos, JSON and CSV, as docs/outputs.md describes them."""

import contextlib
import csv
import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dhn.base.errors import DhnError
from dhn.base.files import check_outputs, write_json
from dhn.inference.people import People, joint_columns
from dhn.media.draw import SteadyColours
from dhn.media.images import write_image
from dhn.media.sources import Source
from dhn.media.video import GrowingFile, VideoWriter


@dataclass(frozen=True)
class Outputs:
    """Where results go; a kind of output that is None is not written.

    Attributes:
        images: a folder for overlays of images, `NAME.predictions.jpg`, where NAME is the file
            name of the input (`photo.jpg`), and, unless `video` is given, for overlays of
            videos, `NAME.predictions.mp4`.
        json: a folder for `NAME.predictions.json` (of an image: a list of people) and
            `NAME.predictions.jsonl` (of a video: a line per frame); or one .json or .jsonl file
            for all sources.
        video: an .mp4 file, or a folder for `NAME.predictions.mp4`.
        csv: one table for all sources.
    """

    images: Path | None = None
    json: Path | None = None
    video: Path | None = None
    csv: Path | None = None

    def paths(self) -> list[Path]:
        """All files and folders that are written to, each of them once."""
        paths = (self.images, self.json, self.video, self.csv)
        return list(dict.fromkeys(path for path in paths if path is not None))

    def files(self, sources: Sequence[Source]) -> list[Path]:
        """Every file that will be written for `sources`."""
        files = [self.csv] if self.csv else []
        if self.json and _is_file(self.json):
            files.append(self.json)
        for source in sources:
            files += source_files(self, source).values()
        return files

    def check(
        self, sources: Sequence[Source], checkpoint: str | os.PathLike[str] | None = None
    ) -> None:
        """Raises DhnError if the results of `sources` cannot be written here.

        Args:
            sources: what will be read.
            checkpoint: the network's file, which must not be overwritten either.
        """
        videos = sum(source.is_video for source in sources)
        if self.video and not videos:
            raise DhnError(f"{self.video}: there is no video among the sources; leave it out")
        if self.video and self.video.suffix:
            if self.video.suffix.lower() != ".mp4":
                raise DhnError(f"{self.video}: videos are written as .mp4; name an .mp4 file")
            if videos > 1:
                raise DhnError(f"{self.video}: is one file for {videos} videos; name a folder")
        inputs = [source.path for source in sources if source.path != "-"]
        check_outputs(self.files(sources), [*inputs, checkpoint])


@dataclass(frozen=True)
class Frame:
    """An image, or a frame of a video, on its way to the predictor.

    Attributes:
        source: the file it comes from.
        image: RGB uint8 [H, W, 3].
        index: the frame's number in its video, from 0; None for images.
        time: when the frame is shown, in seconds from the first one.
        fps: frames per second that are taken from the video.
    """

    source: Source
    image: np.ndarray
    index: int | None = None
    time: Fraction = Fraction(0)
    fps: Fraction = Fraction(0)


class Sink(Protocol):
    """Takes results one by one; opens its file at the first of them, and completes it at last."""

    def write(self, frame: Frame, people: People) -> None: ...

    def close(self) -> None: ...


def closed_by(stack: contextlib.ExitStack, sinks: Sequence[Sink]) -> Sequence[Sink]:
    """Has `stack` close the sinks; returns them."""
    for sink in sinks:
        stack.callback(sink.close)
    return sinks


def shared_sinks(outputs: Outputs, sources: Sequence[Source]) -> Sequence[Sink]:
    """The sinks that write one file for all sources."""
    sinks: list[Sink] = []
    if outputs.csv:
        sinks.append(_Table(outputs.csv))
    if outputs.json and _is_file(outputs.json):
        one_image = len(sources) == 1 and not sources[0].is_video
        sinks.append(_ImageJson(outputs.json) if one_image else _JsonLines(outputs.json))
    return sinks


def source_sinks(outputs: Outputs, source: Source) -> Sequence[Sink]:
    """The sinks that write the files of one source."""
    files = source_files(outputs, source)
    return [sink(path) for sink, path in files.items()]


def source_files(outputs: Outputs, source: Source) -> dict[Callable[[Path], Sink], Path]:
    """The files of one source, by the sinks that write them."""
    stem = f"{source.name}.predictions"
    files: dict[Callable[[Path], Sink], Path] = {}
    folder = outputs.video or outputs.images
    if source.is_video and outputs.video and outputs.video.suffix:
        files[_OverlayVideo] = outputs.video
    elif source.is_video and folder:
        files[_OverlayVideo] = folder / f"{stem}.mp4"
    if not source.is_video and outputs.images:
        files[_OverlayImage] = outputs.images / f"{stem}.jpg"
    if outputs.json and not _is_file(outputs.json):
        if source.is_video:
            files[_JsonLines] = outputs.json / f"{stem}.jsonl"
        else:
            files[_ImageJson] = outputs.json / f"{stem}.json"
    return files


def _is_file(json_output: Path) -> bool:
    return json_output.suffix.lower() in (".json", ".jsonl")


class _ImageJson:
    """JSON of one image: a list of people."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, frame: Frame, people: People) -> None:
        write_json(self._path, people.to_dict()["predictions"])

    def close(self) -> None:
        pass


class _OverlayImage:
    """An image with skeletons over it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, frame: Frame, people: People) -> None:
        write_image(self._path, people.plot(frame.image))

    def close(self) -> None:
        pass


class _OverlayVideo:
    """A video with skeletons over it, which keep their colours from frame to frame."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._colours = SteadyColours()
        self._writer: VideoWriter | None = None

    def write(self, frame: Frame, people: People) -> None:
        if self._writer is None:
            height, width = frame.image.shape[:2]
            self._writer = VideoWriter(self._path, frame.fps, (width, height))
        colours = self._colours(people.keypoints)
        self._writer.write(people.plot(frame.image, colours=colours), frame.time)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _TextFile:
    """A text file that grows with every result."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: GrowingFile | None = None

    def append(self, text: str) -> None:
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

    def close(self) -> None:
        if self._file is not None and self._file.open:
            self._file.keep()


class _JsonLines(_TextFile):
    """A line per image or frame: `file`, `frame` (of videos only) and `predictions`."""

    def write(self, frame: Frame, people: People) -> None:
        line: dict[str, Any] = {"file": frame.source.path}
        if frame.index is not None:
            line["frame"] = frame.index
        line["predictions"] = people.to_dict()["predictions"]
        self.append(json.dumps(line, allow_nan=False) + "\n")


class _Table(_TextFile):
    """CSV, a row per person; the cells of joints that were not found are empty."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._has_header = False

    def write(self, frame: Frame, people: People) -> None:
        lines = io.StringIO()
        table = csv.writer(lines, lineterminator="\n")
        if not self._has_header:
            table.writerow(["file", "frame", "person", "score", *joint_columns(people.joints)])
            self._has_header = True
        for number, person in enumerate(people.to_dict()["predictions"]):
            points = np.array(person["keypoints"], object).reshape(-1, 3)
            points[points[:, 2] == 0] = ""
            joints = np.column_stack([points, person["states"]])
            table.writerow(
                [frame.source.path, frame.index, number, person["score"], *joints.ravel()]
            )
        self.append(lines.getvalue())
