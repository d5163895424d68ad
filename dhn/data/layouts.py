"""Where data sets keep their files: the folder layouts of CrowdPose and COCO, and simple ones."""

import re
from collections.abc import Iterator
from pathlib import Path

from dhn.base.errors import DhnError, SettingError

SPLITS = ("train", "val", "test", "trainval")

_KNOWN = {
    "crowdpose": (Path("data/crowdpose"), "CrowdPose", "https://github.com/jeffffffli/CrowdPose"),
    "coco": (Path("data/coco"), "COCO", "https://cocodataset.org"),
}


def data_root(dataset: str | Path) -> tuple[Path, str]:
    """The folder or file of a data set, and the name of the set.

    `dataset` is `crowdpose` (the folder data/crowdpose), `coco` (data/coco) or a path.
    """
    if dataset in _KNOWN:
        return _KNOWN[dataset][0], str(dataset)
    root = Path(dataset)
    return root, root.name or str(root.resolve())


def find_splits(dataset: str | Path) -> list[str]:
    """The splits that a data set has, as `load_annotations` takes them.

    `trainval` is among them only where there is no `train`. A file is one split, whatever its name.

    Raises:
        DhnError: there are no annotations.
    """
    root, _ = data_root(dataset)
    if root.is_file():
        return ["train"]
    there = [split for split in SPLITS if any(_files(root, split))]
    if not there:
        raise _nothing_found(dataset, root, "train")
    doubled = ("trainval",) if "train" in there else ("val",) if "trainval" in there else ()
    return [split for split in there if split not in doubled]


def split_files(dataset: str | Path, split: str) -> list[tuple[Path, tuple[Path, ...]]]:
    """The annotation files of a split, each with the folders where its images may be.

    There are two files where `trainval` is made of `train` and `val`, else one.

    Raises:
        SettingError: the data set has other splits, but not this one.
        DhnError: there are no annotations; the message says where the data comes from.
    """
    if split not in SPLITS:
        raise SettingError("split", split, f"must be one of {', '.join(SPLITS)}")
    root, _ = data_root(dataset)
    found = list(_files(root, split))
    if not found:
        raise _nothing_found(dataset, root, split)
    return found


def _files(root: Path, split: str) -> Iterator[tuple[Path, tuple[Path, ...]]]:
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
    # The split must be a word of the name, so that `trainval` does not stand for `train`.
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


def _nothing_found(dataset: str | Path, root: Path, split: str) -> DhnError:
    if root.is_dir():
        others = [other for other in SPLITS if other != split and any(_files(root, other))]
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
        f"annotations/person_keypoints_{split}2017.json or annotations/*{split}*.json)"
    )
