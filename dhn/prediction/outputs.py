"""Which files `dhn predict` writes, and where; docs/outputs.md describes what is in them."""

import contextlib
import glob
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dhn.base.errors import DhnError, SettingError
from dhn.base.files import check_outputs, is_special
from dhn.data.joints import JointSet
from dhn.media.sources import Source
from dhn.prediction.documents import JsonDocument, JsonLines, Table
from dhn.prediction.exchange import (
    CocoResults,
    MotText,
    OpenPoseFiles,
    YoloLabels,
    check_body_25,
)
from dhn.prediction.sinks import STDOUT, OverlayImage, OverlayStyle, OverlayVideo, Run, Sink


class _Kind(NamedTuple):
    """What a path of one kind of output may be.

    Attributes:
        what: what the output is called in messages.
        suffixes: the endings that its file may have; none where it must be a folder.
        folder: whether it may be a folder.
    """

    what: str
    suffixes: tuple[str, ...]
    folder: bool


_KINDS = {
    "images": _Kind("overlays", (), True),
    "json": _Kind("JSON", (".json", ".jsonl"), True),
    "video": _Kind("a video", (".mp4",), True),
    "csv": _Kind("CSV", (".csv",), False),
    "coco": _Kind("COCO results", (".json",), False),
    "openpose": _Kind("OpenPose's files", (), True),
    "mot": _Kind("MOT text", (".txt",), True),
    "yolo": _Kind("YOLO labels", (), True),
}


_PLAIN = OverlayStyle()


@dataclass(frozen=True)
class Outputs:
    """Where results go; a kind of output that is None is not written.

    NAME is the source's name with its suffix (`photo.jpg`), STEM is without (`photo`). `-` is
    standard output, where a file may be named.

    Attributes:
        images: a folder for overlays of images, `NAME.predictions.jpg` (or as `style` says), and,
            unless `video` is given, for overlays of videos, `NAME.predictions.mp4`.
        json: a folder for `NAME.predictions.json` (of an image) and `NAME.predictions.jsonl` (of
            a video); or one .json or .jsonl file for all sources. Standard output gets lines.
        video: an .mp4 file, or a folder for `NAME.predictions.mp4`.
        csv: one table for all sources.
        coco: one .json file of COCO results for all sources.
        openpose: a folder for `STEM_keypoints.json`, and `STEM_000000000000_keypoints.json` of
            each frame of a video.
        mot: a .txt file for one video, or a folder for `STEM.txt`.
        yolo: a folder for `STEM.txt` of images and `STEM_000000.txt` of each frame of a video.
        show: whether overlays are also shown in a window.
        style: how overlays are drawn.
    """

    images: Path | None = None
    json: Path | None = None
    video: Path | None = None
    csv: Path | None = None
    coco: Path | None = None
    openpose: Path | None = None
    mot: Path | None = None
    yolo: Path | None = None
    show: bool = False
    style: OverlayStyle = _PLAIN

    def paths(self) -> list[Path]:
        """All files and folders that are written to, each of them once."""
        paths = (getattr(self, name) for name in _KINDS)
        return list(dict.fromkeys(path for path in paths if path is not None))

    @property
    def need_pixels(self) -> bool:
        """Whether something is drawn."""
        return self.show or self.images is not None or self.video is not None

    def draws(self, source: Source) -> bool:
        """Whether the people of this source are drawn."""
        own = source.is_video and self.video is not None
        return self.show or self.images is not None or own

    @property
    def on_stdout(self) -> bool:
        """Whether results go to standard output, so that nothing else may."""
        return STDOUT in self.paths()

    def files(self, sources: Sequence[Source]) -> list[Path]:
        """Every file that will be written for `sources`, except those of single frames."""
        files = [path for _, path in self._shared()]
        for source in sources:
            files += self.source_files(source)
        return [file for file in files if file != STDOUT]

    def source_files(self, source: Source) -> list[Path]:
        """The files of one source alone, except those of single frames."""
        return [path for _, path in self._own(source)]

    def check(self, sources: Sequence[Source], *read: str | os.PathLike[str] | None) -> None:
        """Raises DhnError if the results of `sources` cannot be written here.

        Args:
            sources: what will be read.
            read: other files that must not be overwritten, such as the network's.
        """
        videos = sum(source.is_video for source in sources)
        for path, kind in ((self.video, _KINDS["video"]), (self.mot, _KINDS["mot"])):
            if path is not None and not videos:
                raise DhnError(f"{path}: there is no video among the sources; leave it out")
            if path is not None and videos > 1 and _is_file(path, kind):
                raise DhnError(f"{path}: is one file for {videos} videos; name a folder")
        inputs = [source.path for source in sources if source.path != "-"]
        check_outputs(self.files(sources), [*inputs, *read])
        for name, kind in _KINDS.items():
            if (path := getattr(self, name)) is not None:
                _check_kind(path, kind)
        if [getattr(self, name) for name in _KINDS].count(STDOUT) > 1:
            raise DhnError("-: standard output takes one output only; name files for the others")

    def without_done(self, sources: Sequence[Source]) -> list[Source]:
        """The sources whose files are not all there yet.

        Raises:
            DhnError: an output is one file for all sources, or somewhere else than in a file.
        """
        for _, path in self._shared():
            raise SettingError(
                "skip_existing", True, f"{path} is one file for all sources; name a folder instead"
            )
        return [source for source in sources if not self._is_done(source)]

    def _is_done(self, source: Source) -> bool:
        files = self.source_files(source)
        frames = [folder for folder in (self.openpose, self.yolo) if folder and source.is_video]
        first = [
            next(folder.glob(f"{glob.escape(source.stem)}_[0-9]*"), None) is not None
            for folder in frames
        ]
        own = [path for path in files if not any(path.is_relative_to(f) for f in frames)]
        return all(path.exists() for path in own) and all(first)

    def check_joints(self, joints: JointSet) -> None:
        """Raises DhnError if people with these joints cannot be written here."""
        if self.openpose:
            check_body_25(joints, self.openpose)

    def shared_sinks(self, run: Run) -> list[Sink]:
        """The sinks that write one file for all sources."""
        return [sink(path, run) for sink, path in self._shared()]

    def source_sinks(self, source: Source, run: Run) -> list[Sink]:
        """The sinks that write the files of one source."""
        return [sink(path, run) for sink, path in self._own(source)]

    def _shared(self) -> list[tuple["_Maker", Path]]:
        files: list[tuple[_Maker, Path]] = []
        if self.csv:
            files.append((Table, self.csv))
        if self.coco:
            files.append((CocoResults, self.coco))
        if self.json and _is_file(self.json, _KINDS["json"]):
            document = self.json.suffix.lower() == ".json"
            files.append((JsonDocument if document else JsonLines, self.json))
        return files

    def _own(self, source: Source) -> list[tuple["_Maker", Path]]:
        files: list[tuple[_Maker, Path]] = []
        stem = f"{source.name}.predictions"
        folder = self.video or self.images
        if source.is_video and folder:
            whole = self.video is not None and _is_file(self.video, _KINDS["video"])
            files.append((OverlayVideo, folder if whole else folder / f"{stem}.mp4"))
        if not source.is_video and self.images:
            files.append((OverlayImage, self.images / f"{stem}.{self.style.image_format}"))
        if self.json and not _is_file(self.json, _KINDS["json"]):
            maker, suffix = (JsonLines, ".jsonl") if source.is_video else (JsonDocument, ".json")
            files.append((maker, self.json / f"{stem}{suffix}"))
        if source.is_video and self.mot:
            whole = _is_file(self.mot, _KINDS["mot"])
            files.append((MotText, self.mot if whole else self.mot / f"{source.stem}.txt"))
        if self.openpose:
            files.append((OpenPoseFiles, self.openpose / f"{source.stem}_keypoints.json"))
        if self.yolo:
            files.append((YoloLabels, self.yolo / f"{source.stem}.txt"))
        return files


_Maker = Callable[[Path, Run], Sink]


def _is_file(path: Path, kind: _Kind) -> bool:
    """Whether a path that passed `_check_kind` is a file rather than a folder."""
    return not kind.folder or (
        bool(kind.suffixes)
        and not path.is_dir()
        and (path == STDOUT or path.suffix.lower() in kind.suffixes or is_special(path))
    )


def _check_kind(path: Path, kind: _Kind) -> None:
    """Refuses a path that somebody meant as another kind of file, or as a file at all."""
    if path == STDOUT:
        if not kind.suffixes or kind.suffixes == (".mp4",):
            raise DhnError(f"-: {kind.what} cannot go to standard output; name a folder")
        return
    suffix = path.suffix.lower()
    if not suffix or suffix in kind.suffixes or path.is_dir() or is_special(path):
        return
    article = "an" if kind.suffixes == (".mp4",) else "a"
    names = [f"{article} {' or '.join(kind.suffixes)} file"] if kind.suffixes else []
    names += ["a folder (make one whose name has a dot first)"] if kind.folder else []
    raise DhnError(f"{path}: is no place for {kind.what}; name {', or '.join(names)}")


def closed_by(stack: contextlib.ExitStack, sinks: Sequence[Sink]) -> Sequence[Sink]:
    """Has `stack` close the sinks; returns them."""
    for sink in sinks:
        stack.callback(sink.close)
    return sinks
