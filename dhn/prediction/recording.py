"""Predictions that lie in files: read from dhn's own JSON, JSON lines and CSV."""

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from dhn.base.errors import DhnError
from dhn.base.files import read_bytes
from dhn.data.coco_file import is_number
from dhn.data.joints import COCO, CROWDPOSE, JointSet, is_text, joints_of_category
from dhn.inference.people import People, joint_columns
from dhn.media.sources import Source, free_name
from dhn.prediction.sinks import FORMAT, NO_PIXELS, Frame, Run

_LIMIT = 2**31
UNKNOWN = "unknown"  # weights of predictions that do not say


@dataclass(frozen=True)
class RecordedSource(Source):
    """A source that a file names; nothing is read from it.

    Attributes:
        moves: whether it is a video.
    """

    moves: bool = False

    @property
    def is_live(self) -> bool:
        return False

    @property
    def is_video(self) -> bool:
        return self.moves


@dataclass(frozen=True)
class Recording:
    """The people of images and frames, without pixels.

    Attributes:
        joints: the J joints of everybody.
        results: images and frames, those of one source side by side and in order.
        weights, settings: what the file says of the network, for the header of JSON.
    """

    joints: JointSet
    results: list[tuple[Frame, People]]
    weights: str = UNKNOWN
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def run(self) -> Run:
        """What files of these predictions begin with."""
        sources = list(dict.fromkeys(frame.source for frame, _ in self.results))
        return Run(self.weights, self.settings, self.joints, sources)

    def with_people(self, change: Callable[[Frame, People], People]) -> "Recording":
        """The same images and frames with other people."""
        return replace(self, results=[(frame, change(frame, p)) for frame, p in self.results])


@dataclass(frozen=True)
class Place:
    """An image or frame that a file speaks of.

    Attributes:
        path: of the image or video.
        index: the frame's number; None for images.
        time: seconds from the first frame, or None if that is unknown.
        size: (W, H) in pixels; zeros if that is unknown.
    """

    path: str
    index: int | None = None
    time: float | None = None
    size: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        """Raises ValueError for what cannot be, as files may say anything."""
        if not isinstance(self.path, str) or not self.path or "\0" in self.path:
            raise ValueError("a source has no name")
        whole = [*self.size, 0 if self.index is None else self.index]
        if not all(type(n) is int and 0 <= n < _LIMIT for n in whole):
            raise ValueError(f"frame {self.index} of an image of {self.size} pixels")
        if self.time is not None and not (is_number(self.time) and 0 <= self.time < _LIMIT):
            raise ValueError(f"{self.time} is no time")


def in_order(results: Iterable[tuple[Place, People]]) -> list[tuple[Frame, People]]:
    """The results of each source side by side, in the order of frames."""
    sources: dict[tuple[str, bool], RecordedSource] = {}
    taken: set[str] = set()
    found = []
    for place, people in results:
        key = place.path, place.index is not None
        if key not in sources:
            name = free_name(PurePath(place.path).name or place.path, taken)
            sources[key] = RecordedSource(place.path, name, moves=key[1])
        time = Fraction(str(place.time or 0.0))
        frame = Frame(sources[key], NO_PIXELS, place.index, time, size=place.size)
        found.append((frame, people))
    order: dict[Source, int] = {source: k for k, source in enumerate(sources.values())}
    return sorted(found, key=lambda result: (order[result[0].source], result[0].index or 0))


def joints_named(names: Sequence[str], where: object, limbs: Any = ()) -> JointSet:
    """The joints with these names: a known set, or a new one with these limbs.

    Args:
        names: J names.
        where: the file, for messages.
        limbs: pairs of indices from 0.

    Raises:
        DhnError: the names or limbs are malformed.
    """
    try:
        skeleton = [[int(a) + 1, int(b) + 1] for a, b in limbs]
    except (TypeError, ValueError) as error:
        raise DhnError(f"{where}: the skeleton must be a list of pairs of joint numbers") from error
    listed = names if isinstance(names, str) else [*names]
    return joints_of_category({"keypoints": listed, "skeleton": skeleton}, where)


def joints_counted(count: int, where: object) -> JointSet:
    """The joints of a file that only shows how many there are: 17 are COCO's, 14 CrowdPose's.

    Raises:
        DhnError: it is another number.
    """
    for joints in (COCO, CROWDPOSE):
        if len(joints) == count:
            return joints
    raise DhnError(
        f"{where}: has {count} joints without names, and only 17 (COCO) and 14 (CrowdPose) are "
        "known; give the annotations that name them (--annotations)"
    )


def people_of(
    keypoints: Any,
    joints: JointSet,
    *,
    scores: Any = None,
    refined: Any = None,
    ids: Sequence[int] | None = None,
) -> People:
    """People from plain values.

    Args:
        keypoints: P times 3 J numbers, or [P, J, 3].
        joints: the J joints.
        scores: P numbers; by default the mean score of all joints that were not refined.
        refined: P times J truths; False by default.
        ids: P numbers, 0 for nobody in particular; None if nobody has an id.

    Raises:
        ValueError: shapes do not fit, or a number is not finite.
    """
    J = len(joints)
    rows = list(keypoints)
    P = len(rows)
    points = _finite(rows).reshape(P, J, 3)
    points[points[..., 2] <= 0] = 0
    guessed = np.zeros(points.shape[:2], bool)
    if refined is not None:
        guessed = np.array(refined, bool).reshape(guessed.shape) & (points[..., 2] > 0)
    means = (points[..., 2] * ~guessed).mean(1)
    everybody = means if scores is None else _finite(scores).reshape(P)
    if ids is not None and not all(type(id) is int and 0 <= id < _LIMIT for id in ids):
        raise ValueError("an id is no whole number from 1")
    named = None if ids is None or not any(ids) else np.array(ids).reshape(P)
    return People(points, everybody, joints, refined=guessed, ids=named)


def _finite(values: Any) -> np.ndarray:
    """The values as float32, none of them as large as no image is."""
    array = np.array(values, float)
    if not (np.abs(array) < 1e9).all():
        raise ValueError("a number is not finite, or too large")
    return array.astype(np.float32)


def read_json(path: Path) -> Recording:
    """Reads dhn's JSON document or JSON lines.

    Raises:
        DhnError: the file cannot be read, or is something else.
    """
    text = _text(path)
    try:
        if path.suffix.lower() == ".jsonl":
            header, *entries = (json.loads(line) for line in text.splitlines() if line.strip())
        else:
            header = json.loads(text)
            entries = header.pop("images", None)
        if header["format"] != FORMAT or not isinstance(entries, list):
            raise ValueError(f"the format is {header['format']}")
        joints = joints_named(header["joint_names"], path, header["skeleton"])
        results = in_order((_place(entry), _people(entry, joints)) for entry in entries)
        settings = json.loads(json.dumps(header["settings"], allow_nan=False))
        if not isinstance(settings, dict) or not is_text(header["weights"]):
            raise ValueError("the settings or the weights are of another kind")
        return Recording(joints, results, header["weights"], settings)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise DhnError(f"{path}: is no JSON of dhn predict ({reason})") from error


def _place(entry: dict[str, Any]) -> Place:
    width, height = entry["width"] or 0, entry["height"] or 0
    return Place(entry["source"], entry["frame"], entry["time"], (width, height))


def _people(entry: dict[str, Any], joints: JointSet) -> People:
    found = entry["predictions"]
    return people_of(
        [person["keypoints"] for person in found],
        joints,
        scores=[person["score"] for person in found],
        refined=[[state == "refined" for state in person["states"]] for person in found],
        ids=[person.get("id", 0) for person in found],
    )


def read_table(path: Path) -> Recording:
    """Reads dhn's CSV. Images without people have no row, so they are not there.

    Raises:
        DhnError: the file cannot be read, or is something else.
    """
    rows = csv.DictReader(io.StringIO(_text(path)))
    names = [name[:-6] for name in rows.fieldnames or [] if name.endswith("_state")]
    joints = joints_named(names or ["nothing"], path)
    cells = joint_columns(joints)
    if not {"source", "frame", "time", "id", "score", *cells} <= {*(rows.fieldnames or [])}:
        raise DhnError(f"{path}: is no table of dhn predict: it lacks columns")
    try:
        results = []
        grouped = itertools.groupby(rows, lambda row: (row["source"], row["frame"], row["time"]))
        for (source, frame, time), group in grouped:
            members = list(group)
            points = [[row[cell] for cell in cells] for row in members]
            numbers = [[float(v or 0) for k, v in enumerate(row) if k % 4 < 3] for row in points]
            people = people_of(
                numbers,
                joints,
                scores=[float(row["score"]) for row in members],
                refined=[[state == "refined" for state in row[3::4]] for row in points],
                ids=[int(row["id"] or 0) for row in members],
            )
            index = int(frame) if frame else None
            results.append((Place(source, index, float(time) if time else None), people))
    except (ValueError, TypeError, csv.Error) as error:
        raise DhnError(f"{path}, line {rows.line_num}: is damaged ({error})") from error
    return Recording(joints, in_order(results))


def _text(path: Path) -> str:
    return read_bytes(path).decode("utf-8", "surrogateescape")
