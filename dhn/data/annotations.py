"""Keypoint annotations in COCO format: CrowdPose, COCO, and any other set in their layouts."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dhn.base.errors import DhnError
from dhn.data.coco_file import MAX_SIDE, CocoFile, Scoring, read_coco
from dhn.data.joints import JointSet

SPLITS = ("train", "val", "test", "trainval")

_HOMES = {
    "crowdpose": (Path("data/crowdpose"), "CrowdPose", "https://github.com/jeffffffli/CrowdPose"),
    "coco": (Path("data/coco"), "COCO", "https://cocodataset.org"),
}


@dataclass(frozen=True, eq=False, slots=True)
class Person:
    """One annotated person (or crowd).

    Attributes:
        id: the annotation's id.
        keypoints: float32 [J, 3]: x, y in image pixels as in the file, and v (0 not labelled,
            1 labelled but hidden, 2 visible). Every joint with v > 0 may be trained on.
        box: x, y, width, height in image pixels.
        area: square pixels; 0.53 of the box where the file has none.
        iscrowd: the annotation stands for a group.
        num_keypoints: as in the file (CrowdPose leaves head and neck out of the count).
        segmentation: polygons or RLE as in the file, kept only where `ignore_mask` needs it.
    """

    id: int
    keypoints: npt.NDArray[np.float32]
    box: tuple[float, float, float, float]
    area: float
    iscrowd: bool
    num_keypoints: int
    segmentation: Any


@dataclass(frozen=True, eq=False, slots=True)
class AnnotatedImage:
    """One image with its people; `crowd_index` is CrowdPose's measure, None elsewhere."""

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
        source: `crowdpose`, `coco`, or the name of the folder or file it was read from.
        joints: what the J keypoints mean.
        scoring: the official definition of AP that applies.
        images: in the order of the file; images without people included.
        category_id: the id of the one category that has keypoints.
        raw: the COCO dictionary that `evaluation.score` takes: all files merged, only the
            category with keypoints, missing `iscrowd`, `num_keypoints` and `area` filled in.
            It is large (COCO train: half a gigabyte); training keeps `images` alone.
    """

    source: str
    joints: JointSet
    scoring: Scoring
    images: list[AnnotatedImage]
    category_id: int
    raw: dict[str, Any]

    def first(self, count: int) -> "Annotations":
        """The first `count` images alone, in `raw` too."""
        kept = self.raw["images"][:count]
        ids = {image["id"] for image in kept}
        people = [person for person in self.raw["annotations"] if person["image_id"] in ids]
        raw = {**self.raw, "images": kept, "annotations": people}
        return replace(self, images=self.images[:count], raw=raw)


def load_annotations(
    dataset: str | Path, split: str = "test", *, option: str = "--split "
) -> Annotations:
    """Reads and checks the annotations of one split.

    Args:
        dataset: `crowdpose` (folder data/crowdpose), `coco` (data/coco), a folder, or a JSON file.
            Folders hold `json/crowdpose_{split}.json` with `images/` (CrowdPose's layout),
            `annotations/person_keypoints_{split}2017.json` with `images/{split}2017/`,
            `{split}2017/` or `images/` (COCO's), or one JSON file with the split in its name,
            in `annotations/` or the folder itself, with `images/`. The images need not exist.
        split: `train`, `val`, `test` or `trainval` (train and val merged where there is no such
            file); not used when `dataset` is a file.
        option: how the caller's user says which split; for messages.

    Raises:
        DhnError: nothing found (says where the data comes from), or the file is malformed (names
            the record).
    """
    if split not in SPLITS:
        raise DhnError(f"{option}{split}: must be one of {', '.join(SPLITS)}")
    root = _HOMES[dataset][0] if dataset in _HOMES else Path(dataset)
    found = list(_find(root, split))
    if not found:
        raise _nothing_found(str(dataset), root, split, option)
    paths = [path for path, _ in found]
    files = [read_coco(path) for path in paths]
    raw = files[0].raw if len(files) == 1 else _merged(files, paths)
    return Annotations(
        source=str(dataset) if dataset in _HOMES else (root.name or str(root.resolve())),
        joints=files[0].joints,
        scoring=files[0].scoring,
        images=[
            image
            for file, (_, folders) in zip(files, found, strict=True)
            for image in _images(file, _image_folder(file.raw["images"], folders))
        ],
        category_id=raw["categories"][0]["id"],
        raw=raw,
    )


def find_splits(dataset: str | Path) -> list[str]:
    """The splits that a data set has, as `load_annotations` takes them.

    `trainval` is among them only where no `train` is. A file is one split, whatever its name.
    """
    root = _HOMES[dataset][0] if dataset in _HOMES else Path(dataset)
    if root.is_file():
        return ["train"]
    there = [split for split in SPLITS if any(_find(root, split))]
    if not there:
        raise _nothing_found(str(dataset), root, "train", "--split ")
    doubled = ("trainval",) if "train" in there else ("val",) if "trainval" in there else ()
    return [split for split in there if split not in doubled]


def ignore_mask(image: AnnotatedImage) -> npt.NDArray[np.uint8] | None:
    """Where the heatmap loss of an image counts.

    Returns:
        uint8 [height, width], 1 = counted, 0 = inside the segmentation of a crowd or of a person
        without any labelled joint; None where nothing is ignored.

    Raises:
        DhnError: a segmentation is malformed.
    """
    from pycocotools import mask as masks

    regions = [_encode(person, image) for person in image.people if person.segmentation]
    return 1 - masks.decode(masks.merge(regions)) if regions else None


def _find(root: Path, split: str) -> Iterator[tuple[Path, tuple[Path, ...]]]:
    """Annotation files of a split, each with the folders where its images may be."""
    if root.is_file():
        home = root.parent
        if home.name in ("json", "annotations"):
            home = home.parent
        # COCO's file name says which of its image folders belongs to it.
        named = re.search(r"(?<![a-z])(train|val|test)(?![a-z])", root.stem)
        yield root, _image_folders(home, named[1] if named else "")
        return
    path = _find_file(root, split)
    if path is not None:
        yield path, _image_folders(root, split)
    elif split == "trainval":
        parts = {part: _find_file(root, part) for part in ("train", "val")}
        if all(parts.values()):
            for part, path in parts.items():
                if path is not None:
                    yield path, _image_folders(root, part)


def _find_file(root: Path, split: str) -> Path | None:
    for official in (
        root / "json" / f"crowdpose_{split}.json",
        root / "annotations" / f"person_keypoints_{split}2017.json",
    ):
        if official.is_file():
            return official
    # The split must be a word of the name: `train` is not meant by `trainval`.
    word = re.compile(rf"(?<![a-z]){split}(?![a-z])", re.IGNORECASE)
    for folder in (root / "annotations", root):
        named = [path for path in sorted(folder.glob("*.json")) if word.search(path.stem)]
        if len(named) > 1:
            names = ", ".join(path.name for path in named)
            raise DhnError(f"{folder}: several files for split {split} ({names}); name one of them")
        if named:
            return named[0]
    return None


def _image_folders(root: Path, split: str) -> tuple[Path, ...]:
    images = root / "images"
    if not split:
        return images, root
    return images / f"{split}2017", root / f"{split}2017", images / split, images, root


def _nothing_found(dataset: str, root: Path, split: str, option: str) -> DhnError:
    if root.is_dir():
        others = [other for other in SPLITS if other != split and any(_find(root, other))]
        if others:
            use = option + " or ".join(others)
            return DhnError(f"{root}: has no split {split}; use {use}")
    if dataset in _HOMES:
        _, name, address = _HOMES[dataset]
        return DhnError(
            f"{root}: no annotations of {name} here; get {name} from {address}, or name a folder "
            "or JSON file (`dhn train --config demo` needs no data)"
        )
    if not root.exists():
        return DhnError(f"{root}: no such folder or file; a data set is crowdpose, coco or a path")
    return DhnError(
        f"{root}: no annotations of split {split} in it (json/crowdpose_{split}.json, "
        f"annotations/person_keypoints_{split}2017.json or annotations/*{split}*.json)"
    )


def _image_folder(images: list[dict[str, Any]], folders: Sequence[Path]) -> Path:
    """The folder that has the first image, else the first that exists, else `images`."""
    if images:
        for folder in folders:
            if (folder / images[0]["file_name"]).is_file():
                return folder
    *folders, images_folder, _root = folders
    return next((folder for folder in folders if folder.is_dir()), images_folder)


def _merged(files: Sequence[CocoFile], paths: Sequence[Path]) -> dict[str, Any]:
    """One COCO dictionary of several; if annotation ids collide, all are numbered anew."""
    first = files[0]
    ids: set[int] = set()
    for file, path in zip(files, paths, strict=True):
        if file.joints != first.joints or file.raw["categories"] != first.raw["categories"]:
            raise DhnError(f"{path}: its categories differ from those of {paths[0]}")
        own = {image["id"] for image in file.raw["images"]}
        if own & ids:
            raise DhnError(f"{path}: image {min(own & ids)}: is in {paths[0]} too, ids must differ")
        ids |= own
    annotations = [annotation for file in files for annotation in file.raw["annotations"]]
    if len({annotation["id"] for annotation in annotations}) < len(annotations):
        for id, annotation in enumerate(annotations, 1):
            annotation["id"] = id
    images = [image for file in files for image in file.raw["images"]]
    return {**first.raw, "images": images, "annotations": annotations}


def _images(file: CocoFile, folder: Path) -> Iterator[AnnotatedImage]:
    people: dict[int, list[Person]] = {image["id"]: [] for image in file.raw["images"]}
    labelled: list[bool] = np.any(file.keypoints[:, :, 2] > 0, axis=1).tolist()
    boxes = map(tuple, file.boxes.tolist())
    for annotation, keypoints, box, any_joint in zip(
        file.raw["annotations"], file.keypoints, boxes, labelled, strict=True
    ):
        ignored = annotation["iscrowd"] or not any_joint
        person = Person(
            id=annotation["id"],
            keypoints=keypoints,
            box=box,
            area=float(annotation["area"]),
            iscrowd=bool(annotation["iscrowd"]),
            num_keypoints=annotation["num_keypoints"],
            segmentation=annotation.get("segmentation") if ignored else None,
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


def _encode(person: Person, image: AnnotatedImage) -> dict[str, Any]:
    """Segmentation (polygons, or RLE with counts as list or string) -> compressed RLE, checked."""
    from pycocotools import mask as masks

    shape = [image.height, image.width]
    region = person.segmentation
    # pycocotools trusts what it gets: wrong sizes or corners cost it gigabytes.
    try:
        if isinstance(region, list):
            # It takes four numbers for a box; fewer than six enclose nothing anyway.
            polygons = [polygon for polygon in region if len(polygon) >= 6]
            for polygon in polygons:
                if not np.all(np.abs(np.array(polygon, np.float64)) < MAX_SIDE):
                    raise ValueError("a corner far outside the image")
            # Of no polygons, nothing is inside.
            return masks.merge(masks.frPyObjects(polygons or [[0] * 6], *shape))
        if region["size"] != shape:
            raise ValueError(f"of size {region['size']} in an image of {shape}")
        if isinstance(region["counts"], list):
            if sum(region["counts"]) != math.prod(shape):
                raise ValueError("its runs do not add up to the size of the image")
            return masks.frPyObjects(region, *shape)
        masks.decode(region)  # raises where the string is malformed
        return region
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise DhnError(
            f"{image.path}: segmentation of annotation {person.id} is malformed ({error})"
        ) from error
