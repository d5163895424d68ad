"""Where data sets keep their files: layouts of CrowdPose, COCO, Roboflow and Ultralytics."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from dhn.base.errors import DhnError, SettingError
from dhn.data.yolo import yolo_splits

SPLITS = ("train", "val", "test", "trainval")
# What files and folders call a split.
_WORDS = {"train": ("train",), "val": ("val", "valid"), "test": ("test",), "trainval": ()}

_KNOWN = {
    "crowdpose": (Path("data/crowdpose"), "CrowdPose", "https://github.com/jeffffffli/CrowdPose"),
    "coco": (Path("data/coco"), "COCO", "https://cocodataset.org"),
}
_ROBOFLOW = "_annotations.coco.json"  # in the folder of each split, beside the images
_YAML = "data.yaml"
_WHOLE_RANGE = "_range_0.00_1.00"


class SplitFile(NamedTuple):
    """A file of annotations.

    Attributes:
        path: the file, JSON in COCO's format, or Ultralytics' data.yaml.
        split: the split of a data.yaml that is meant.
        folders: where the images of a JSON file may be.
    """

    path: Path
    split: str
    folders: tuple[Path, ...]


def data_root(dataset: str | Path) -> tuple[Path, str]:
    """The folder or file of a data set, and the name of the set.

    `dataset` is `crowdpose` (the folder data/crowdpose), `coco` (data/coco) or a path.
    """
    if dataset in _KNOWN:
        return _KNOWN[dataset][0], str(dataset)
    root = Path(dataset)
    return root, root.name or str(root.resolve())


def is_one_split(dataset: str | Path) -> bool:
    """Whether the data set is one JSON file, which is one split, whatever its name."""
    root, _ = data_root(dataset)
    return root.is_file() and not _is_yaml(root)


def find_splits(dataset: str | Path) -> list[str]:
    """The splits that a data set has, as `load_annotations` takes them.

    `trainval` is among them only where there is no `train`. A file is one split, whatever its name.

    Raises:
        DhnError: there are no annotations.
    """
    root, _ = data_root(dataset)
    if is_one_split(root):
        return ["train"]
    there = [split for split in SPLITS if _files(root, split)]
    if not there:
        raise _nothing_found(dataset, root, "train")
    doubled = ("trainval",) if "train" in there else ("val",) if "trainval" in there else ()
    return [split for split in there if split not in doubled]


def images_among(dataset: str | Path, paths: Iterable[str | Path | None]) -> list[Path]:
    """Those of the paths that are files of a data set's folder, and neither JSON nor CSV.

    They may be images or labels of any of its splits, which no result may replace.
    """
    root, _ = data_root(dataset)
    folder = root.resolve() if root.is_dir() else root.resolve().parent / "images"
    given = [Path(path) for path in paths if path is not None]
    return [
        path
        for path in given
        if path.is_file()
        and path.suffix.lower() not in (".json", ".jsonl", ".csv")
        and path.resolve().is_relative_to(folder)
    ]


def split_files(dataset: str | Path, split: str) -> list[SplitFile]:
    """The annotation files of a split.

    There are two files where `trainval` is made of `train` and `val`, else one.

    Raises:
        SettingError: the data set has other splits, but not this one.
        DhnError: there are no annotations; the message says where the data comes from.
    """
    if split not in SPLITS:
        raise SettingError("split", split, f"must be one of {', '.join(SPLITS)}")
    root, _ = data_root(dataset)
    found = _files(root, split)
    if not found:
        raise _nothing_found(dataset, root, split)
    return found


def _files(root: Path, split: str) -> list[SplitFile]:
    if is_one_split(root):
        return [_of_one_file(root)]
    found = _find_file(root, split)
    if found is None and split == "trainval":
        parts = [_find_file(root, part) for part in ("train", "val")]
        return [part for part in parts if part is not None] if all(parts) else []
    if found is None and split == "train":
        found = _only_file(root)
    return [found] if found is not None else []


def _of_one_file(path: Path) -> SplitFile:
    home = path.parent
    if path.name == _ROBOFLOW:
        return SplitFile(path, "", (home,))
    if home.name in ("json", "annotations"):
        home = home.parent
    # COCO's file name says which of its image folders belongs to it.
    named = re.search(r"(?<![a-z])(train|valid|val|test)(?![a-z])", path.stem)
    split = "val" if named and named[1] == "valid" else named[1] if named else ""
    return SplitFile(path, split, _image_folders(home, split))


def _find_file(root: Path, split: str) -> SplitFile | None:
    """The file that is named for a split."""
    if _is_yaml(root):
        return SplitFile(root, split, ()) if split in yolo_splits(root) else None
    for official in (
        root / "json" / f"crowdpose_{split}.json",
        root / "annotations" / f"person_keypoints_{split}2017.json",
    ):
        if official.is_file():
            return SplitFile(official, split, _image_folders(root, split))
    for word in _WORDS[split]:
        if (root / word / _ROBOFLOW).is_file():
            return SplitFile(root / word / _ROBOFLOW, split, (root / word,))
    # The split must be a word of the name, so that `trainval` does not stand for `train`.
    words = "|".join((split, *_WORDS[split]))
    name = re.compile(rf"(?<![a-z])({words})(?![a-z])", re.IGNORECASE)
    for folder in (root / "annotations", root):
        named = [path for path in sorted(folder.glob("*.json")) if name.search(path.stem)]
        if len(named) > 1:  # OCHuman's API writes ranges of crowding beside the whole split
            named = [path for path in named if path.stem.endswith(_WHOLE_RANGE)] or named
        if len(named) > 1:
            names = ", ".join(path.name for path in named)
            raise DhnError(f"{folder}: several files for split {split} ({names}); name one of them")
        if named:
            return SplitFile(named[0], split, _image_folders(root, split))
    if (root / _YAML).is_file():
        return _find_file(root / _YAML, split)
    return None


def _only_file(root: Path) -> SplitFile | None:
    """The one JSON file of a folder where no file is named for a split."""
    files = sorted(root.glob("*.json"))
    if len(files) != 1 or any(_find_file(root, split) for split in SPLITS):
        return None
    return _of_one_file(files[0])


def _is_yaml(path: Path) -> bool:
    return path.suffix.lower() in (".yaml", ".yml") and path.is_file()


def _image_folders(root: Path, split: str) -> tuple[Path, ...]:
    images = root / "images"
    if not split:
        return images, root
    official = (images / f"{split}2017", root / f"{split}2017")
    words = dict.fromkeys((split, *_WORDS[split]))
    own = (folder / word for folder in (images, root) for word in words)
    return *official, *own, images, root


def _nothing_found(dataset: str | Path, root: Path, split: str) -> DhnError:
    if root.is_dir():
        others = [other for other in SPLITS if other != split and _files(root, other)]
        if others:
            problem = f"{root} has no such split; it has {' and '.join(others)}"
            return SettingError("split", split, problem)
    if dataset in _KNOWN:
        _, name, address = _KNOWN[dataset]
        return DhnError(
            f"{root}: has no annotations of {name}; get {name} from {address}, or name a folder or "
            "a JSON file (training with the preset `demo` needs no data)"
        )
    if not root.exists():
        return DhnError(f"{root}: no such folder or file; a data set is crowdpose, coco or a path")
    return DhnError(
        f"{root}: has no annotations of split {split} (json/crowdpose_{split}.json, "
        f"annotations/person_keypoints_{split}2017.json, annotations/*{split}*.json, "
        f"*{split}*.json, {split}/{_ROBOFLOW} or {_YAML})"
    )
