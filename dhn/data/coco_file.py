"""One JSON file in COCO's keypoint format: it is read and checked, and its gaps are filled."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from dhn.base.errors import DhnError
from dhn.base.files import read_json
from dhn.base.limits import MAX_SIDE
from dhn.data.joints import CROWDPOSE, JointSet, is_text, joints_of_category

Scoring = Literal["crowdpose", "coco"]

# CrowdPose scores with this share of the box as a person's area. Files without `area` get it, too.
AREA_OF_BOX = 0.53

_MAX_ID = 2**53  # scoring keeps ids in floating-point arrays


class CocoFile(NamedTuple):
    """A checked file of N annotations.

    Attributes:
        raw: the COCO dictionary with the one category that has keypoints and its annotations.
            Where they are missing, `iscrowd` is 0, `num_keypoints` the number of labelled joints,
            and `area` is `AREA_OF_BOX` times the area of the box.
        joints: what the J keypoints mean.
        keypoints: float32 [N, J, 3], in the order of raw["annotations"].
        boxes: float64 [N, 4], x, y, width, height in image pixels.
    """

    raw: dict[str, Any]
    joints: JointSet
    keypoints: npt.NDArray[np.float32]
    boxes: npt.NDArray[np.float64]

    @property
    def scoring(self) -> Scoring:
        """`crowdpose` where images have a crowdIndex or the joints are CrowdPose's, else `coco`."""
        crowds = any(image.get("crowdIndex") is not None for image in self.raw["images"])
        return "crowdpose" if crowds or self.joints == CROWDPOSE else "coco"


def read_coco(path: Path) -> CocoFile:
    """Reads and checks a file.

    Raises:
        DhnError: the file cannot be read or is malformed; the message names it and the record.
    """
    return check_coco(read_json(path), path)


def check_coco(raw: Any, where: object) -> CocoFile:
    """Checks a COCO dictionary, and fills the gaps in copies of its annotations.

    Raises:
        DhnError: it is malformed; the message names `where` and the record.
    """
    lists = ("images", "annotations", "categories")
    if not isinstance(raw, dict) or not all(isinstance(raw.get(key), list) for key in lists):
        raise DhnError(f"{where}: is not a COCO annotation file with lists of {', '.join(lists)}")
    category, other_ids = _keypoint_category(raw["categories"], where)
    joints = joints_of_category(category, where)
    _check_images(raw["images"], where)
    people = _people(raw, category["id"], other_ids, where)
    file = CocoFile(
        raw={**raw, "categories": [category], "annotations": people},
        joints=joints,
        keypoints=numbers(people, "keypoints", 3 * len(joints), "annotation", where)
        .astype(np.float32)
        .reshape(-1, len(joints), 3),
        boxes=numbers(people, "bbox", 4, "annotation", where),
    )
    _fill_in(file, where)
    return file


def _keypoint_category(categories: list[Any], where: object) -> tuple[dict[str, Any], set[int]]:
    for category in categories:
        if not isinstance(category, dict) or not is_id(category.get("id")):
            raise DhnError(f"{where}: every category must be an object with a whole number as id")
    with_keypoints = [category for category in categories if category.get("keypoints")]
    if len(with_keypoints) != 1:
        raise DhnError(
            f"{where}: exactly one category must have `keypoints`, not {len(with_keypoints)}"
        )
    category = with_keypoints[0]
    if "name" in category and not is_text(category["name"]):
        raise DhnError(f"{where}: category {category['id']}: name must be a text in one line")
    others = {other["id"] for other in categories if other is not category}
    if category["id"] in others:
        raise DhnError(f"{where}: two categories have the id {category['id']}")
    return category, others


def _check_images(images: list[Any], where: object) -> None:
    for i, image in enumerate(images):
        if not isinstance(image, dict) or not is_id(image.get("id")):
            raise DhnError(f"{where}: image number {i} must be an object with a whole number as id")
        if not isinstance(image.get("file_name"), str) or not image["file_name"]:
            raise DhnError(f"{where}: image {image['id']}: has no file_name")
        if not _is_inside(image["file_name"]):
            raise DhnError(
                f"{where}: image {image['id']}: file_name {ascii(image['file_name'])[:80]} must be "
                "a path inside the folder of images"
            )
        for side in ("width", "height"):
            if type(image.get(side)) is not int or not 0 < image[side] <= MAX_SIDE:
                raise DhnError(
                    f"{where}: image {image['id']}: {side} must be a number of pixels "
                    f"from 1 to {MAX_SIDE}"
                )
        if image.get("crowdIndex") is not None and not is_number(image["crowdIndex"]):
            raise DhnError(f"{where}: image {image['id']}: crowdIndex must be a finite number")
    _check_unique((image["id"] for image in images), "image", where)


def _is_inside(name: str) -> bool:
    """Whether a file name stays in the folder that it is joined to, and can be a name at all."""
    parts = re.split(r"[/\\]", name)
    return (
        is_text(name)
        and ".." not in parts
        and not name.startswith(("/", "\\"))
        and not re.match(r"[A-Za-z]:[/\\]", name)
        and len(name.encode()) < 4096
        and all(len(part.encode()) <= 255 for part in parts)
    )


def is_id(value: Any) -> bool:
    """Whether this is a whole number that scoring can tell from any other."""
    return type(value) is int and abs(value) < _MAX_ID


def _people(
    raw: dict[str, Any], category_id: int, other_ids: set[int], where: object
) -> list[dict[str, Any]]:
    """The annotations of the category with keypoints; those of other categories are left out."""
    image_ids = {image["id"] for image in raw["images"]}
    people = []
    for i, annotation in enumerate(raw["annotations"]):
        if not isinstance(annotation, dict) or not is_id(annotation.get("id")):
            raise DhnError(
                f"{where}: annotation number {i} must be an object with a whole number as id"
            )
        category = annotation.get("category_id")
        if category != category_id or type(category) is not int:
            if type(category) is int and category in other_ids:
                continue
            raise DhnError(
                f"{where}: annotation {annotation['id']}: category_id is not one of the categories"
            )
        image_id = annotation.get("image_id")
        if type(image_id) is not int or image_id not in image_ids:
            raise DhnError(f"{where}: annotation {annotation['id']}: image_id is not in images")
        people.append(dict(annotation))
    _check_unique((annotation["id"] for annotation in people), "annotation", where)
    return people


def _check_unique(ids: Iterable[int], what: str, where: object) -> None:
    seen: set[int] = set()
    for id in ids:
        if id in seen:
            raise DhnError(f"{where}: {what} {id}: appears twice; ids must differ")
        seen.add(id)


def numbers(
    records: list[dict[str, Any]], key: str, count: int, what: str, where: object
) -> npt.NDArray[np.float64]:
    """Reads `count` finite numbers from `key` of every record: float64 [N, count].

    Raises:
        DhnError: a record has no such numbers; the message names `where`, `what` and the `id`.
    """
    rows = [record.get(key) for record in records]
    try:
        array = np.array(rows) if rows else np.empty((0, count))
    except ValueError:  # rows of different lengths
        array = np.empty(0)
    # Where numpy found only numbers, they are checked all at once: COCO train has 13 million.
    if array.shape == (len(rows), count) and array.dtype.kind in "iuf":
        with np.errstate(over="ignore"):
            if np.isfinite(array.astype(np.float32)).all():
                return array.astype(np.float64)
    for record, row in zip(records, rows, strict=True):
        if not isinstance(row, list) or len(row) != count or not all(map(is_number, row)):
            raise DhnError(f"{where}: {what} {record['id']}: {key} must be {count} finite numbers")
    return np.array(rows, np.float64)


def is_number(value: Any) -> bool:
    """Whether this is a JSON number that float32 can hold, neither NaN nor infinite."""
    return type(value) in (int, float) and abs(value) < float(np.finfo(np.float32).max)


def _fill_in(file: CocoFile, where: object) -> None:
    """Checks the small fields of each person, and gives missing ones their defaults."""
    must_count = file.scoring == "crowdpose"
    labelled = np.count_nonzero(file.keypoints[:, :, 2] > 0, axis=1).tolist()
    areas = (file.boxes[:, 3] * file.boxes[:, 2] * AREA_OF_BOX).tolist()
    for person, box, area, count in zip(
        file.raw["annotations"], file.boxes.tolist(), areas, labelled, strict=True
    ):
        if min(box[2:]) < 0:
            raise DhnError(f"{where}: annotation {person['id']}: bbox has a negative size")
        if person.get("iscrowd") not in (0, 1, None):
            raise DhnError(f"{where}: annotation {person['id']}: iscrowd must be 0 or 1")
        person["iscrowd"] = int(bool(person.get("iscrowd")))
        if type(person.get("partial", False)) is not bool:
            raise DhnError(f"{where}: annotation {person['id']}: partial must be true or false")
        if person.get("area") is None:
            person["area"] = area
        elif not is_number(person["area"]) or person["area"] < 0:
            raise DhnError(f"{where}: annotation {person['id']}: area must be a finite number")
        if person.get("num_keypoints") is None and not must_count:
            person["num_keypoints"] = count
        elif not is_id(person.get("num_keypoints")):
            # CrowdPose counts only joints 0 to 11, and not always by v. A guess would change AP.
            raise DhnError(f"{where}: annotation {person['id']}: has no num_keypoints")
