"""Reads predictions of other tools: COCO results, OpenPose's folders, labels of YOLO-pose."""

import functools
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np

from dhn.base.errors import DhnError
from dhn.base.files import read_bytes, read_json
from dhn.data.coco_file import CocoFile
from dhn.inference.people import People
from dhn.media.formats import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from dhn.media.sources import Source
from dhn.prediction.exchange import BODY_25
from dhn.prediction.recording import (
    Place,
    Recording,
    in_order,
    joints_counted,
    people_of,
)

_OPENPOSE = re.compile(r"(?P<stem>.+?)(?:_(?P<frame>\d{12}))?_keypoints\.json")
_YOLO_FRAME = re.compile(r"(?P<stem>.+)_(?P<frame>\d{6})")


def read_coco_results(path: Path, annotations: CocoFile | None = None) -> Recording:
    """Reads a list of COCO results.

    Args:
        path: the list; `file_name`, `frame` and `track_id` are understood where it has them.
        annotations: what the results belong to; it knows joints, file names and sizes. Without
            it, 17 joints are COCO's and 14 CrowdPose's, and an image is called by its id.

    Raises:
        DhnError: the file cannot be read, or is something else.
    """
    results = read_json(path)
    images = {} if annotations is None else {i["id"]: i for i in annotations.raw["images"]}
    try:
        if not results:
            raise ValueError("nobody is in it, so its joints are unknown")
        if annotations is not None:
            joints = annotations.joints
        else:
            joints = joints_counted(len(results[0]["keypoints"]) // 3, path)
        found: list[tuple[Place, People]] = []
        # One image's people need not stand side by side.
        ordered = sorted(results, key=lambda r: (r["image_id"], r.get("frame") or 0))
        for (id, frame), group in groupby(ordered, lambda r: (r["image_id"], r.get("frame"))):
            members = list(group)
            image = images.get(id, {})
            name = members[0].get("file_name") or image.get("file_name") or str(id)
            place = Place(str(name), frame, size=(image.get("width", 0), image.get("height", 0)))
            people = people_of(
                [member["keypoints"] for member in members],
                joints,
                scores=[member["score"] for member in members],
                ids=[member.get("track_id", 0) for member in members],
            )
            found.append((place, people))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise DhnError(f"{path}: is no list of COCO results ({reason})") from error
    return Recording(joints, in_order(found))


def read_openpose(folder: Path) -> Recording:
    """Reads a folder of `NAME_keypoints.json` files with OpenPose's BODY_25 joints.

    `NAME_000000000012_keypoints.json` is frame 12 of the video NAME. Scores of people, which these
    files lack, are the means of their joints' scores.

    Raises:
        DhnError: a file cannot be read, or is something else.
    """
    return Recording(BODY_25, in_order(_openpose_files(folder)))


def _openpose_files(folder: Path) -> Iterator[tuple[Place, People]]:
    for path in sorted(folder.rglob("*_keypoints.json")):
        match = _OPENPOSE.fullmatch(path.relative_to(folder).as_posix())
        assert match is not None
        content = read_json(path)
        try:
            found = content["people"]
            ids = [max(0, int((p.get("person_id") or [-1])[0])) for p in found]
            people = people_of([p["pose_keypoints_2d"] for p in found], BODY_25, ids=ids)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DhnError(f"{path}: is no file of OpenPose with 25 joints ({error})") from error
        frame = match["frame"]
        yield Place(match["stem"], None if frame is None else int(frame)), people


def read_yolo_labels(folder: Path, images: Path | None) -> Recording:
    """Reads a folder of labels of YOLO-pose, with x, y and v of each joint.

    Joints have no scores there; each gets 1, and counts as refined where v is 1.

    Args:
        folder: `STEM.txt` for each image; `STEM_000012.txt` is frame 12 where STEM is a video.
        images: the folder of the images and videos, whose sizes the labels need.

    Raises:
        DhnError: a file cannot be read, is something else, or has no image.
    """
    files = sorted(folder.rglob("*.txt"))
    if images is None:
        raise DhnError(f"{folder}: YOLO labels count in sizes of images; name these with --images")
    media = media_by_stem(images)
    size = functools.lru_cache(size_of)  # a video may have thousands of label files
    found = []
    count = 0
    for path in files:
        stem = path.relative_to(folder).with_suffix("").as_posix()
        match = _YOLO_FRAME.fullmatch(stem)
        index = None
        if stem not in media and match is not None and match["stem"] in media:
            stem, index = match["stem"], int(match["frame"])
        if stem not in media:
            raise DhnError(f"{path}: there is no image {stem} in {images}")
        width, height = size(media[stem])
        values = _numbers(path)
        count = count or (values.shape[1] - 5) // 3
        points = values[:, 5:].reshape(len(values), -1, 3)
        xy = points[..., :2] * (width, height)
        there = points[..., 2:] > 0
        keypoints = np.where(there, np.concatenate([xy, np.ones_like(there)], 2), 0)
        place = Place(str(media[stem]), index, size=(width, height))
        found.append((place, keypoints, points[..., 2] == 1))
    joints = joints_counted(count, folder)
    try:
        results = [(p, people_of(k, joints, refined=r)) for p, k, r in found]
    except ValueError as error:
        raise DhnError(f"{folder}: the labels do not all have {count} joints") from error
    return Recording(joints, in_order(results))


def _numbers(path: Path) -> np.ndarray:
    """The numbers of a label file, float64 [P, 5 + 3 J]."""
    try:
        lines = read_bytes(path).decode("utf-8").splitlines()
        rows = [[float(word) for word in line.split()] for line in lines if line.strip()]
        values = np.array(rows, float).reshape(len(rows), -1) if rows else np.zeros((0, 5))
    except ValueError as error:
        raise DhnError(f"{path}: is no label file of YOLO-pose ({error})") from error
    if values.shape[1] % 3 != 2 or values.shape[1] < 5 or not np.isfinite(values).all():
        raise DhnError(f"{path}: a line must hold class, box, and x, y, v of each joint")
    return values


def media_by_stem(folder: Path) -> dict[str, Path]:
    """The images and videos of a folder and its sub-folders, by their names without suffix."""
    known = IMAGE_SUFFIXES | VIDEO_SUFFIXES
    return {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in known and path.is_file()
    }


def size_of(path: Path) -> tuple[int, int]:
    """(W, H) of an image as viewers show it, or of a video's first frame, in pixels.

    Raises:
        DhnError: it cannot be read.
    """
    source = Source(str(path), path.name)
    if source.is_video:
        with source.open_video() as video:
            height, width = next(iter(video)).image.shape[:2]
    else:
        height, width = source.read_image().shape[:2]
    return width, height
