"""Keypoint annotations of CrowdPose, COCO, and any other set in a layout that `layouts` knows."""

import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dhn.base.errors import DhnError
from dhn.base.files import read_bytes
from dhn.data.coco_file import CocoFile, Scoring, read_coco
from dhn.data.joints import JointSet
from dhn.data.layouts import SplitFile, data_root, split_files
from dhn.data.yolo import read_yolo


@dataclass(frozen=True, eq=False, slots=True)
class Person:
    """One annotated person, or a crowd.

    Attributes:
        id: the annotation's id.
        keypoints: float32 [J, 3]: x and y in image pixels as in the file, and v (0 not labelled,
            1 labelled but hidden, 2 visible). Every joint with v > 0 may be trained on.
        box: x, y, width, height in image pixels.
        area: in square pixels; 0.53 of the box where the file has none.
        iscrowd: whether the annotation stands for a group.
        num_keypoints: as in the file. CrowdPose leaves head and neck out of the count.
        segmentation: polygons or RLE as in the file, kept only where `masks.ignore_mask` needs
            it.
        unknown: bool [J], the joints of which nobody knows whether they are there, or None where
            all are known. They are those with v = 0 of an annotation that says `"partial": true`;
            elsewhere v = 0 means that a joint is not there to be found.
    """

    id: int
    keypoints: npt.NDArray[np.float32]
    box: tuple[float, float, float, float]
    area: float
    iscrowd: bool
    num_keypoints: int
    segmentation: Any
    unknown: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False, slots=True)
class AnnotatedImage:
    """One image with its people.

    Attributes:
        id: the image's id.
        path: its file, which need not exist.
        width, height: in pixels.
        crowd_index: CrowdPose's measure of crowding; None where the file has none.
        people: in the order of the file.
    """

    id: int
    path: Path
    width: int
    height: int
    crowd_index: float | None
    people: tuple[Person, ...]


@dataclass(eq=False)
class Annotations:
    """A split of a data set.

    Attributes:
        source: `crowdpose`, `coco`, or the name of the folder or file.
        files: the annotation files that were read.
        joints: what the J keypoints mean.
        scoring: the official definition of AP that applies.
        images: all images in the order of the file, also those without people.
        category_id: the id of the one category that has keypoints.
        raw: the COCO dictionary that scoring takes. All files are merged, only the category with
            keypoints is left, and missing `iscrowd`, `num_keypoints` and `area` are filled in.
            It is large (half a gigabyte for COCO train), so training keeps only `images`.
    """

    source: str
    files: tuple[Path, ...]
    joints: JointSet
    scoring: Scoring
    images: list[AnnotatedImage]
    category_id: int
    raw: dict[str, Any]

    def first(self, count: int) -> "Annotations":
        """These annotations cut down to their first `count` images, in `raw`, too."""
        return self._of({image.id for image in self.images[:count]})

    def without(self, ids: Set[int]) -> "Annotations":
        """These annotations without the images of these ids.

        Raises:
            DhnError: there is no image of such an id.
        """
        own = {image.id for image in self.images}
        if ids - own:
            raise DhnError(f"{self.source}: image {min(ids - own)}, to be left out, is not there")
        return self._of(own - ids)

    def _of(self, ids: Set[int]) -> "Annotations":
        raw = {
            **self.raw,
            "images": [image for image in self.raw["images"] if image["id"] in ids],
            "annotations": [p for p in self.raw["annotations"] if p["image_id"] in ids],
        }
        return replace(self, images=[image for image in self.images if image.id in ids], raw=raw)


def read_ids(path: Path) -> set[int]:
    """Reads image ids to leave out, one a line; what follows a # is a remark.

    Raises:
        DhnError: the file cannot be read, or a line holds something else.
    """
    ids = set()
    for number, line in enumerate(read_bytes(path).decode("utf-8", "replace").splitlines(), 1):
        text = line.partition("#")[0].strip()
        if text:
            if not re.fullmatch(r"-?\d{1,16}", text):
                raise DhnError(f"{path}: line {number} must be the id of an image")
            ids.add(int(text))
    return ids


def load_annotations(dataset: str | Path, split: str = "test") -> Annotations:
    """Reads and checks the annotations of one split.

    Args:
        dataset: `crowdpose` (folder data/crowdpose), `coco` (data/coco), a folder, a JSON file, or
            Ultralytics' data.yaml. A folder holds one of these (`valid` may stand for `val`):

            - CrowdPose's `json/crowdpose_{split}.json` with `images/`;
            - COCO's `annotations/person_keypoints_{split}2017.json` with `images/{split}2017/`,
              `{split}2017/` or `images/`;
            - Roboflow's `{split}/_annotations.coco.json` beside its images;
            - one JSON file that has the split in its name, in `annotations/` or in the folder
              itself, with `images/{split}/`, `{split}/`, `images/`, or the images beside it
              (OCHuman's, for one);
            - Ultralytics' `data.yaml` for poses;
            - a single JSON file of another name, which is the split `train`.

            The images need not exist, except with data.yaml, whose labels need their sizes.
        split: `train`, `val`, `test` or `trainval`, which is train and val merged where it has no
            file of its own. It is not used when `dataset` is a file.

    Raises:
        SettingError: the data set has other splits, but not this one.
        DhnError: there are no annotations (the message says where the data comes from), or they
            are malformed (the message names the record).
    """
    found = split_files(dataset, split)
    paths = [path for path, _, _ in found]
    files, folders = zip(*map(_read, found), strict=True)
    raw = files[0].raw if len(files) == 1 else _merged(files, folders, paths)
    # Roboflow counts from 0, which stands for nobody in the COCO tools.
    if min((person["id"] for person in raw["annotations"]), default=1) == 0:
        _number_anew(raw["annotations"])
    _, source = data_root(dataset)
    return Annotations(
        source=source,
        files=tuple(paths),
        joints=files[0].joints,
        scoring=files[0].scoring,
        images=[
            image
            for file, folder in zip(files, folders, strict=True)
            for image in _images(file, folder)
        ],
        category_id=raw["categories"][0]["id"],
        raw=raw,
    )


def _read(file: SplitFile) -> tuple[CocoFile, Path]:
    """Reads a file of annotations, and finds the folder of its images."""
    if not file.folders:
        return read_yolo(file.path, file.split)
    coco = read_coco(file.path)
    return coco, _image_folder(coco.raw["images"], file.folders)


def _image_folder(images: list[dict[str, Any]], folders: Sequence[Path]) -> Path:
    """The folder that has the first image, else the first one that exists, else `images`."""
    if images:
        for folder in folders:
            if (folder / images[0]["file_name"]).is_file():
                return folder
    if len(folders) == 1:
        return folders[0]
    *folders, images_folder, _root = folders
    return next((folder for folder in folders if folder.is_dir()), images_folder)


def _merged(
    files: Sequence[CocoFile], folders: Sequence[Path], paths: Sequence[Path]
) -> dict[str, Any]:
    """Makes one COCO dictionary of several. Ids that collide are numbered anew."""
    first = files[0]
    seen: dict[int, Path] = {}
    for file, folder, path in zip(files, folders, paths, strict=True):
        if file.joints != first.joints or file.raw["categories"] != first.raw["categories"]:
            raise DhnError(f"{path}: its categories differ from those of {paths[0]}")
        own = {image["id"]: folder / image["file_name"] for image in file.raw["images"]}
        both = [id for id in own.keys() & seen.keys() if own[id] == seen[id]]
        if both:
            raise DhnError(f"{path}: image {min(both)}: is also in {paths[0]}; ids must differ")
        if own.keys() & seen.keys():
            _number_images_anew(file, max(seen) + 1)
        seen |= {image["id"]: folder / image["file_name"] for image in file.raw["images"]}
    annotations = [annotation for file in files for annotation in file.raw["annotations"]]
    if len({annotation["id"] for annotation in annotations}) < len(annotations):
        _number_anew(annotations)
    return {
        **first.raw,
        "images": [image for file in files for image in file.raw["images"]],
        "annotations": annotations,
    }


def _number_anew(annotations: list[dict[str, Any]]) -> None:
    for id, annotation in enumerate(annotations, 1):
        annotation["id"] = id


def _number_images_anew(file: CocoFile, start: int) -> None:
    """Other ids for images that another file numbers, too, as Roboflow's splits all do."""
    new = {image["id"]: id for id, image in enumerate(file.raw["images"], start)}
    for image in file.raw["images"]:
        image["id"] = new[image["id"]]
    for annotation in file.raw["annotations"]:
        annotation["image_id"] = new[annotation["image_id"]]


def _images(file: CocoFile, folder: Path) -> Iterator[AnnotatedImage]:
    people: dict[int, list[Person]] = {image["id"]: [] for image in file.raw["images"]}
    labelled: list[bool] = np.any(file.keypoints[:, :, 2] > 0, axis=1).tolist()
    boxes = map(tuple, file.boxes.tolist())
    for annotation, keypoints, box, any_joint in zip(
        file.raw["annotations"], file.keypoints, boxes, labelled, strict=True
    ):
        ignored = annotation["iscrowd"] or not any_joint
        partial = annotation.get("partial", False) and not ignored
        person = Person(
            id=annotation["id"],
            keypoints=keypoints,
            box=box,
            area=float(annotation["area"]),
            iscrowd=bool(annotation["iscrowd"]),
            num_keypoints=annotation["num_keypoints"],
            segmentation=annotation.get("segmentation") if ignored else None,
            unknown=keypoints[:, 2] <= 0 if partial else None,
        )
        people[annotation["image_id"]].append(person)
    for image in file.raw["images"]:
        yield AnnotatedImage(
            id=image["id"],
            path=folder / image["file_name"],
            width=image["width"],
            height=image["height"],
            crowd_index=image.get("crowdIndex"),
            people=tuple(people[image["id"]]),
        )
