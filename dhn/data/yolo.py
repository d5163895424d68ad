"""Ultralytics' layout of poses: a data.yaml, and a text file of labels for each image."""

import logging
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from dhn.base.errors import DhnError
from dhn.base.files import read_bytes
from dhn.data.coco_file import CocoFile, check_coco
from dhn.data.image_header import read_header
from dhn.data.joints import COCO
from dhn.media.formats import IMAGE_SUFFIXES

_log = logging.getLogger(__name__)

_SPLITS = ("train", "val", "test")


class _Description(NamedTuple):
    """What a data.yaml says.

    Attributes:
        path: the file.
        root: the folder from which its paths start.
        splits: where the images of a split are: folders, images, or text files that list images.
        joints: the J joints' names.
        flip: the J joints' counterparts in a mirrored image, or None where the file has none.
        values: numbers for each joint: x and y, or x, y and v.
        classes: the names of the classes.
    """

    path: Path
    root: Path
    splits: dict[str, list[str]]
    joints: list[str]
    flip: list[int] | None
    values: int
    classes: list[str]


def yolo_splits(path: Path) -> list[str]:
    """The splits of a data.yaml, among `train`, `val` and `test`.

    Raises:
        DhnError: it cannot be read, or does not describe poses.
    """
    return list(_describe(path).splits)


def read_yolo(path: Path, split: str) -> tuple[CocoFile, Path]:
    """Converts a split of a data.yaml.

    All classes become one category. Images that their EXIF data turns are left out with a warning,
    because their labels are those of the turned image, while dhn trains on images as stored.

    Returns:
        the converted file, with places in pixels; and the folder that its file names start from.

    Raises:
        DhnError: labels or images are malformed; the message names the file, and the line.
    """
    described = _describe(path)
    images = [file for place in described.splits[split] for file in _images(described, place)]
    if not images:
        raise DhnError(f"{path}: {split}: has no images in {', '.join(described.splits[split])}")
    labels = [_label_file(image) for image in images]
    if not any(label.is_file() for label in labels):
        raise DhnError(f"{path}: {split}: none of its images has labels, such as {labels[0]}")
    folder = Path(os.path.commonpath([image.parent for image in images]))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        headers = list(pool.map(read_header, images))
    turned = [image for image, header in zip(images, headers, strict=True) if header.turned]
    if turned:
        _log.warning(
            f"{path}: {split}: {len(turned)} images are left out, because their EXIF data turns "
            f"them (the first is {turned[0]}); store them upright"
        )
    raw: dict[str, Any] = {"images": [], "annotations": []}
    raw["categories"] = [
        {"id": 1, "name": " and ".join(described.classes), "keypoints": described.joints}
    ]
    for image, label, header in zip(images, labels, headers, strict=True):
        if header.turned:
            continue
        id = len(raw["images"]) + 1
        size = (header.width, header.height)
        name = image.relative_to(folder).as_posix()
        raw["images"].append({"id": id, "file_name": name, "width": size[0], "height": size[1]})
        for person in _people(label, described, size):
            ids = {"id": len(raw["annotations"]) + 1, "image_id": id, "category_id": 1}
            raw["annotations"].append(person | ids)
    file = check_coco(raw, path)
    if described.flip is not None:
        file = file._replace(joints=replace(file.joints, flip=tuple(described.flip)))
    return file, folder


def _describe(path: Path) -> _Description:
    try:
        fields = yaml.safe_load(read_bytes(path).decode())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DhnError(f"{path}: is not YAML ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(fields, dict) or "kpt_shape" not in fields:
        raise DhnError(f"{path}: has no kpt_shape, so it does not describe poses")
    shape = fields["kpt_shape"]
    if not (
        isinstance(shape, list)
        and len(shape) == 2
        and all(type(n) is int for n in shape)
        and 0 < shape[0] <= 1000
        and shape[1] in (2, 3)
    ):
        raise DhnError(f"{path}: kpt_shape must be the number of joints, and 2 or 3 numbers each")
    J, values = shape
    flip = fields.get("flip_idx") or None
    if flip is not None and not _is_pairing(flip, J):
        raise DhnError(f"{path}: flip_idx must name the counterpart of each of {J} joints, from 0")
    splits = {}
    for split in _SPLITS:
        places = fields.get(split)
        if places:
            splits[split] = places if isinstance(places, list) else [places]
            if not all(isinstance(place, str) and "\0" not in place for place in splits[split]):
                raise DhnError(f"{path}: {split} must be a path or a list of paths")
    classes = _texts(fields.get("names") or ["person"])
    if not classes:
        raise DhnError(f"{path}: names must be the names of the classes")
    base = fields.get("path")
    # Ultralytics looks for `path` in a folder of all data sets, too; here it is beside the file.
    root = path.parent / base if isinstance(base, str) and "\0" not in base else path.parent
    root = root if root.is_dir() else path.parent
    joints = _joint_names(fields, J, flip, path)
    return _Description(path, root, splits, joints, flip, values, classes)


def _is_pairing(flip: Any, J: int) -> bool:
    return (
        isinstance(flip, list)
        and len(flip) == J
        and all(type(k) is int and 0 <= k < J for k in flip)
        and all(flip[flip[j]] == j for j in range(J))
    )


def _texts(value: Any) -> list[str]:
    """The texts of a list, or of an object whose keys number them; else nothing."""
    values = list(value.values()) if isinstance(value, dict) else value
    fits = isinstance(values, list) and all(isinstance(text, str) for text in values)
    return values if fits else []


def _joint_names(fields: dict[str, Any], J: int, flip: list[int] | None, path: Path) -> list[str]:
    """The names that the file gives; else COCO's, if the joints look like them; else numbers."""
    given = fields.get("kpt_names")
    if given is None:
        coco = len(COCO) == J and flip == list(COCO.flip)
        return list(COCO.names) if coco else [f"joint_{j}" for j in range(J)]
    if isinstance(given, dict) and given:  # by class, and all classes have the same joints
        given = next(iter(given.values()))
    names = _texts(given)
    if len(names) != J:
        raise DhnError(f"{path}: kpt_names must be {J} names")
    return names


def _images(described: _Description, place: str) -> Iterator[Path]:
    """The images in a folder and its sub-folders, of a list, or the one image itself."""
    root = described.root
    found = root / place
    # Exports of Roboflow say ../train/images and mean train/images.
    if not found.exists() and place.startswith("../"):
        found = root / place[3:]
    if found.is_dir():
        yield from sorted(file for file in found.rglob("*") if _is_image(file))
    elif _is_image(found):
        yield found
    elif found.suffix == ".txt" and found.is_file():
        for line in _lines(found):
            # A leading ./ stands for the list's own folder.
            yield (found.parent if line.startswith("./") else root) / line
    else:
        raise DhnError(f"{described.path}: {found}: no such folder or list of images")


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def _label_file(image: Path) -> Path:
    """The file of labels: in `labels` where the image is in `images`, else beside the image."""
    parts = list(image.parts)
    folders = [k for k, part in enumerate(parts[:-1]) if part == "images"]
    if folders:
        parts[folders[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


def _lines(path: Path) -> list[str]:
    try:
        lines = read_bytes(path).decode().splitlines()
    except ValueError as error:
        raise DhnError(f"{path}: is not text in UTF-8") from error
    if any("\0" in line for line in lines):
        raise DhnError(f"{path}: is not text")
    return [line.strip() for line in lines if line.strip()]


def _people(
    label: Path, described: _Description, size: tuple[int, int]
) -> Iterator[dict[str, Any]]:
    """The people of an image, with box and keypoints in pixels."""
    if not label.is_file():  # an image without people
        return
    J, values = len(described.joints), described.values
    for number, line in enumerate(_lines(label), 1):
        where = f"{label}: line {number}"
        try:
            row = [float(word) for word in line.split()]
        except ValueError:
            row = []
        if len(row) != 5 + J * values or not all(map(math.isfinite, row)):
            raise DhnError(
                f"{where}: must be {5 + J * values} numbers: a class, a box and {J} joints of "
                f"{values} numbers"
            )
        if row[0] not in range(len(described.classes)):
            raise DhnError(f"{where}: the class must be one of 0 to {len(described.classes) - 1}")
        joints = [row[k : k + values] for k in range(5, len(row), values)]
        places = [number for joint in joints for number in joint[:2]] + row[1:5]
        if max(map(abs, places)) > 2:
            raise DhnError(f"{where}: places must be shares of the image's width and height")
        yield {"bbox": _box(row[1:5], size), "keypoints": _keypoints(joints, size), "iscrowd": 0}


def _box(shares: Sequence[float], size: tuple[int, int]) -> list[float]:
    x, y, width, height = shares
    W, H = size
    return [(x - width / 2) * W, (y - height / 2) * H, width * W, height * H]


def _keypoints(joints: Sequence[Sequence[float]], size: tuple[int, int]) -> list[float]:
    """x, y and v of each joint. Without v, a joint at (0, 0) or below is not labelled."""
    values = []
    for x, y, *given in joints:
        labelled = min(x, y) >= 0 and (x, y) != (0, 0)
        v = given[0] if given else 2.0 * labelled
        values += [x * size[0], y * size[1], v] if given or labelled else [0.0, 0.0, 0.0]
    return values
