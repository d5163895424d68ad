"""Turns files of predictions into other formats."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from dhn.base.errors import DhnError
from dhn.base.files import check_outputs, read_json
from dhn.data.coco_file import read_coco
from dhn.data.joints import JointSet
from dhn.prediction import recording as dhn_files
from dhn.prediction.exchange import with_joints
from dhn.prediction.foreign import (
    media_by_stem,
    read_coco_results,
    read_openpose,
    read_yolo_labels,
    size_of,
)
from dhn.prediction.outputs import Outputs, closed_by
from dhn.prediction.recording import Recording
from dhn.prediction.sinks import STDOUT
from dhn.prediction.sleap import read_sleap, write_sleap
from dhn.tracking import Corrections

FORMATS = ("json", "jsonl", "csv", "coco", "openpose", "mot", "yolo", "slp", "nwb", "dlc")
_OF_SUFFIX = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".csv": "csv",
    ".txt": "mot",
    ".slp": "slp",
    ".nwb": "nwb",
    ".h5": "dlc",
}
_SUFFIXES = {"json": ".json", "jsonl": ".jsonl", "csv": ".csv", "slp": ".slp", "nwb": ".nwb"}


class Converted(NamedTuple):
    """What was converted.

    Attributes:
        images: how many images and frames.
        people: how many people in them.
    """

    images: int
    people: int


def convert(
    source: Path,
    target: Path,
    *,
    source_format: str | None = None,
    target_format: str | None = None,
    images: Path | None = None,
    annotations: Path | None = None,
    joints: JointSet | None = None,
    ids: Corrections | None = None,
    person: int | None = None,
) -> Converted:
    """Reads the people of a file or folder, and writes them in another format.

    Args:
        source: a file or folder of one of `FORMATS`, except MOT text, which has no joints.
        target: the file or folder to write.
        source_format, target_format: among `FORMATS`; by default what suffixes and contents say.
        images: a folder of the images and videos, for formats that do not say how large they are.
        annotations: a file in COCO's format that COCO results belong to.
        joints: the joints to write; those of other names are left out, or missing.
        ids: corrections of ids.
        person: only the people with this id are written.

    Raises:
        DhnError: something cannot be read, written, or told in that format.
    """
    kind = target_format or format_of_target(target)
    _check_target(source, target, kind, [images, annotations, ids.path if ids else None])
    recording = read(source, source_format, images, annotations)
    if not recording.results:
        raise DhnError(f"{source}: holds no image and no frame")
    if ids is not None:
        ids.check([s.path for s in recording.run.sources if s.is_video])
        recording = recording.with_people(
            lambda frame, people: (
                ids.corrected(people, frame.index or 0, frame.source.path)
                if frame.source.is_video
                else people
            )
        )
    if person is not None:
        recording = recording.with_people(lambda _, people: people.with_id(person))
    if joints is not None:
        changed = recording.with_people(lambda _, people: with_joints(people, joints))
        recording = replace(changed, joints=joints)
    if images is not None:
        recording = _with_sizes(recording, images)
    write(recording, target, kind)
    return Converted(len(recording.results), sum(len(people) for _, people in recording.results))


def read(
    source: Path,
    kind: str | None = None,
    images: Path | None = None,
    annotations: Path | None = None,
) -> Recording:
    """Reads predictions; see `convert`."""
    kind = kind or _format_of_source(source)
    if kind in ("json", "jsonl"):
        return dhn_files.read_json(source)
    if kind == "csv":
        return dhn_files.read_table(source)
    if kind == "coco":
        return read_coco_results(source, None if annotations is None else read_coco(annotations))
    if kind == "openpose":
        return read_openpose(source)
    if kind == "yolo":
        return read_yolo_labels(source, images)
    if kind == "mot":
        raise DhnError(f"{source}: MOT text holds boxes without joints, so it can only be written")
    return read_sleap(source, kind)


def _format_of_source(source: Path) -> str:
    """The format, by suffix and content."""
    if source.is_dir():
        for pattern, kind in (("*_keypoints.json", "openpose"), ("*.txt", "yolo")):
            if next(source.rglob(pattern), None) is not None:
                return kind
        raise DhnError(f"{source}: holds no *_keypoints.json of OpenPose and no labels of YOLO")
    kind = _OF_SUFFIX.get(source.suffix.lower(), "")
    if kind == "json" and isinstance(read_json(source), list):
        return "coco"
    if kind == "csv":
        with contextlib.suppress(OSError), source.open("rb") as file:
            if file.read(6) == b"scorer":
                return "dlc"
    if not kind:
        raise DhnError(f"{source}: its suffix names no format; say which it is with --from")
    return kind


def format_of_target(target: Path) -> str:
    """The format that a suffix stands for."""
    kind = _OF_SUFFIX.get(target.suffix.lower())
    if kind is None:
        raise DhnError(
            f"{target}: its suffix names no format; say which with --to, as in --to openpose"
        )
    return kind


def _check_target(source: Path, target: Path, kind: str, read: Sequence[Path | None]) -> None:
    if kind == "dlc":
        raise DhnError(f"{target}: DeepLabCut's files can only be read; write .slp or .nwb")
    if target == STDOUT:
        return
    suffix = _SUFFIXES.get(kind)
    if suffix is not None and target.suffix.lower() != suffix:
        raise DhnError(f"{target}: the file must end with {suffix}")
    check_outputs([target], [source, *read])


def _with_sizes(recording: Recording, images: Path) -> Recording:
    """The same people, of images whose sizes are known where `images` has them."""
    media = media_by_stem(images)
    sizes = {
        source: size_of(media[stem])
        for source in recording.run.sources
        for stem in (Path(source.path).with_suffix("").as_posix(), Path(source.path).stem)
        if stem in media
    }
    results = [
        (replace(frame, size=sizes.get(frame.source, frame.size)), people)
        for frame, people in recording.results
    ]
    return replace(recording, results=results)


def write(recording: Recording, target: Path, kind: str) -> None:
    """Writes predictions as one of `FORMATS`."""
    if kind in ("slp", "nwb"):
        if target == STDOUT:
            raise DhnError(f"-: .{kind} cannot go to standard output; name a file")
        write_sleap(recording, target, kind)
        return
    if kind == "yolo" and not all(all(frame.size) for frame, _ in recording.results):
        raise DhnError(
            f"{target}: YOLO labels count in sizes of images, and some are unknown; name the "
            "folder of the images with --images"
        )
    place: Any = {"json" if kind == "jsonl" else kind: target}
    outputs = Outputs(**place)
    run = recording.run
    outputs.check(run.sources)
    outputs.check_joints(recording.joints)
    with contextlib.ExitStack() as stack:
        shared = closed_by(stack, outputs.shared_sinks(run))
        own = {s: closed_by(stack, outputs.source_sinks(s, run)) for s in run.sources}
        for frame, people in recording.results:
            for sink in (*shared, *own[frame.source]):
                sink.write(frame, people)
