"""What is wrong with a data set, before a week of training finds out."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple, SupportsIndex

import numpy as np
from rich.table import Table
from rich.text import Text

from dhn.base.errors import DhnError
from dhn.base.progress import Progress, silent, tracked
from dhn.data.annotations import (
    AnnotatedImage,
    Annotations,
    Person,
    find_splits,
    ignore_mask,
    load_annotations,
)
from dhn.data.crowding import CROWD_LEVELS, crowd_index
from dhn.data.joints import CROWDPOSE, JointSet
from dhn.media.images import decode_image

Level = Literal["error", "warning", "hint"]

# Mirrored pairs that hardly ever point opposite ways in one body, whatever it does: in 0.1 %, 0.2 %
# and 0.9 % of the people of CrowdPose val who show both (eyes and ears: nobody in COCO's sample).
# Wrists, and legs against the trunk, cross too often to say anything.
_PARALLEL = (("shoulder", "hip"), ("shoulder", "elbow"), ("hip", "knee"), ("eye", "ear"))
_APART = 0.1  # a pair nearer than this share of the person's extent is seen from the side: no order
# Photographers stand in front: 79 % of CrowdPose val and 83 % of COCO's sample show the left
# shoulder on the right. A set below this has its sides exchanged, or is of people's backs.
_FACING, _FACING_PEOPLE = 0.4, 50
# CrowdPose's own crowdIndex cannot be recomputed exactly (its labels changed after it was
# written): 8 % of its val images fall into another level by today's labels.
_MOVED_LEVELS = 0.25


class Finding(NamedTuple):
    """One kind of trouble in one split; `cases` names the file or id of each."""

    level: Level
    what: str
    split: str
    cases: list[str]


class Report(NamedTuple):
    """What `check_dataset` found.

    Attributes:
        splits: for each split its figures: `images`, `people`, `keypoints` (visible, hidden),
            `people_per_image` (how many images have 0, 1, 2, ... people), and where the file
            has it, `crowd_index` and `crowd_index_of_labels` (shares of easy, medium, hard).
        findings: errors first.
    """

    splits: dict[str, dict[str, Any]]
    findings: list[Finding]

    def count(self, level: Level) -> int:
        return sum(len(finding.cases) for finding in self.findings if finding.level == level)

    def as_json(self) -> dict[str, Any]:
        """Everything, every case included."""
        findings = [f._asdict() | {"count": len(f.cases)} for f in self.findings]
        return {"splits": self.splits, "findings": findings}


def check_dataset(
    dataset: str | Path,
    splits: Sequence[str] = (),
    *,
    decode: bool = True,
    max_people: int = 30,
    progress: Progress = silent,
) -> Report:
    """Checks annotations and images of a data set.

    Errors would stop training, or spoil what it measures; warnings cost labels; hints may be
    right as they are.

    Args:
        dataset: as for `load_annotations`.
        splits: those to check; by default all there are.
        decode: read every image; otherwise only see whether its file exists.
        max_people: of an image, that training keeps.

    Raises:
        DhnError: there is no such data set.
    """
    figures, findings = {}, []
    images: list[tuple[str, AnnotatedImage]] = []
    for split in splits or find_splits(dataset):
        name = Path(dataset).name if Path(dataset).is_file() else split
        try:
            annotations = load_annotations(dataset, split)
        except DhnError as error:
            findings.append(Finding("error", "annotations cannot be used", name, [str(error)]))
            continue
        people = _People.of(annotations)
        figures[name] = _figures(annotations.images, people)
        found = _check_labels(annotations, people, figures[name], max_people)
        findings += [Finding(level, what, name, list(cases)) for level, what, cases in found]
        # Without `raw`, which is large.
        images += [(name, image) for image in annotations.images]
    findings += _check_images(images, decode, progress)
    rank = ("error", "warning", "hint")
    findings = [finding for finding in findings if finding.cases]
    return Report(figures, sorted(findings, key=lambda finding: rank.index(finding.level)))


def tables(report: Report, examples: int = 3) -> list[Table]:
    """What `check_dataset` gave, to print."""
    made = [_split_table(report.splits)] if report.splits else []
    if report.findings:
        table = Table("", "finding", "split", title="Findings")
        table.add_column("count", justify="right")
        table.add_column("first of them", overflow="fold")
        colours = {"error": "red", "warning": "yellow", "hint": "cyan"}
        for level, what, split, cases in report.findings:
            # Text: square brackets in file names are no markup.
            shown = Text("\n".join(cases[:examples]))
            name = Text(level, style=colours[level])
            table.add_row(name, what, Text(split), str(len(cases)), shown)
        made.append(table)
    return made


def _split_table(splits: dict[str, dict[str, Any]]) -> Table:
    table = Table("split", title="Data")
    columns = ("images", "people", "visible", "hidden", "0/1/2-4/5-9/10+ people", "most")
    for column in (*columns, "crowdIndex easy/medium/hard", "from labels"):
        table.add_column(column, justify="right")
    for name, figures in splits.items():
        histogram = np.array(figures["people_per_image"])
        counts = (figures["images"], figures["people"], *figures["keypoints"])
        groups = [
            part.sum() / max(histogram.sum(), 1) for part in np.split(histogram, (1, 2, 5, 10))
        ]
        crowds = (figures.get(key) for key in ("crowd_index", "crowd_index_of_labels"))
        most = str(len(histogram) - 1)
        table.add_row(Text(name), *map(str, counts), _shares(groups), most, *map(_shares, crowds))
    return table


def _shares(shares: Sequence[float] | None) -> str:
    return "/".join(f"{100 * share:.0f}" for share in shares) + " %" if shares else "-"


# --- labels -------------------------------------------------------------------------------------

_Check = tuple[Level, str, Iterable[str]]


class _People(NamedTuple):
    """The N people of a split as arrays."""

    images: list[AnnotatedImage]  # N, the one that each is in
    people: list[Person]
    keypoints: np.ndarray  # float32 [N, J, 3]
    labelled: np.ndarray  # bool [N, J]
    boxes: np.ndarray  # float64 [N, 4]
    sizes: np.ndarray  # [N, 2], W and H of the image

    @classmethod
    def of(cls, annotations: Annotations) -> "_People":
        both = [(image, person) for image in annotations.images for person in image.people]
        J = len(annotations.joints)
        keypoints = np.array([p.keypoints for _, p in both], np.float32).reshape(-1, J, 3)
        boxes = np.array([p.box for _, p in both], np.float64).reshape(-1, 4)
        sizes = np.array([(image.width, image.height) for image, _ in both]).reshape(-1, 2)
        images, people = [image for image, _ in both], [person for _, person in both]
        return cls(images, people, keypoints, keypoints[..., 2] > 0, boxes, sizes)

    def name(self, row: SupportsIndex) -> str:
        return f"{_name(self.images[row])}: person {self.people[row].id}"


def _name(image: AnnotatedImage) -> str:
    return f"{image.path} (id {image.id})"


def _figures(images: list[AnnotatedImage], people: _People) -> dict[str, Any]:
    flags = people.keypoints[..., 2]
    counts = np.array([len(image.people) for image in images], int)
    figures = {
        "images": len(images),
        "people": int(counts.sum()),
        "keypoints": [int((flags == 2).sum()), int((flags == 1).sum())],
        "people_per_image": np.bincount(counts, minlength=1).tolist(),
    }
    crowds = [image for image in images if image.crowd_index is not None]
    if crowds:
        given = np.array([image.crowd_index for image in crowds])
        levels = [_crowd_levels(given), _crowd_levels(np.array([*map(_crowd_index, crowds)]))]
        for key, level in zip(("crowd_index", "crowd_index_of_labels"), levels, strict=True):
            figures[key] = (np.bincount(level, minlength=3) / len(crowds)).tolist()
        figures["crowd_index_moved"] = float((levels[0] != levels[1]).mean())
    return figures


def _crowd_index(image: AnnotatedImage) -> float:
    people = [p for p in image.people if p.num_keypoints and not p.iscrowd]
    if not people:
        return 0.0
    return crowd_index(np.stack([p.keypoints for p in people]), np.array([p.box for p in people]))


def _crowd_levels(crowd_indices: np.ndarray) -> np.ndarray:
    """0 easy, 1 medium, 2 hard."""
    return np.digitize(crowd_indices, [low for low, _ in CROWD_LEVELS.values()][1:])


def _check_labels(
    annotations: Annotations, people: _People, figures: dict[str, Any], max_people: int
) -> Iterator[_Check]:
    images, joints = annotations.images, annotations.joints
    trained = [
        sum(not p.iscrowd and bool((p.keypoints[:, 2] > 0).any()) for p in image.people)
        for image in images
    ]
    if not any(trained):
        yield "error", "no image with a labelled person", [annotations.source]
    ids = (person.id for person in people.people)
    yield "error", "annotation id not above 0 (cannot be scored)", [str(i) for i in ids if i <= 0]
    yield from _check_keypoints(people, joints)
    yield from _check_boxes(people)
    yield from _check_sides(people, joints)
    yield (
        "hint",
        f"more than {max_people} people (the largest are kept)",
        [
            f"{_name(image)}: {n}"
            for image, n in zip(images, trained, strict=True)
            if n > max_people
        ],
    )
    yield (
        "hint",
        "image without a labelled person (not trained on)",
        [_name(image) for image, n in zip(images, trained, strict=True) if not n],
    )
    if "crowd_index" in figures:
        lacking = [_name(image) for image in images if image.crowd_index is None]
        yield "warning", "no crowdIndex (in none of AP easy, medium, hard)", lacking
        if figures["crowd_index_moved"] > _MOVED_LEVELS:
            share = f"{figures['crowd_index_moved']:.0%} of the images"
            yield "warning", "crowdIndex of another level than the labels give", [share]


def _check_keypoints(people: _People, joints: JointSet) -> Iterator[_Check]:
    xy, flags, labelled = people.keypoints[..., :2], people.keypoints[..., 2], people.labelled

    def cases(wrong: np.ndarray) -> Iterator[str]:
        for n, j in np.argwhere(wrong):
            x, y, v = people.keypoints[n, j]
            yield f"{people.name(n)}, {joints.names[j]} at ({x:g}, {y:g}), v = {v:g}"

    at_zero = (xy == 0).all(-1)
    outside = ((xy < 0) | (xy > people.sizes[:, None])).any(-1)
    yield "error", "visibility is not 0, 1 or 2", cases(~np.isin(flags, (0, 1, 2)))
    yield "warning", "keypoint outside the image", cases(labelled & outside)
    yield "warning", "keypoint labelled at (0, 0)", cases(labelled & at_zero)
    yield "warning", "keypoint with a place but v = 0 (not used)", cases((flags == 0) & ~at_zero)

    # CrowdPose counts neither head nor neck, its last two.
    counted = labelled[:, :12] if joints == CROWDPOSE else labelled
    given = np.array([person.num_keypoints for person in people.people], int)
    yield (
        "warning",
        "num_keypoints is not the number of labelled joints",
        (
            f"{people.name(n)}: {given[n]}, not {counted[n].sum()}"
            for n in np.flatnonzero(given != counted.sum(1))
        ),
    )


def _check_boxes(people: _People) -> Iterator[_Check]:
    low, size = people.boxes[:, :2], people.boxes[:, 2:]

    def cases(wrong: np.ndarray) -> Iterator[str]:
        for n in np.flatnonzero(wrong):
            yield f"{people.name(n)}: {people.boxes[n].tolist()}"

    empty = np.any(size <= 0, axis=1)
    # Official files round: a pixel beyond the border is none.
    beyond = np.any((low < -1) | (low + size > people.sizes + 1), axis=1)
    yield "warning", "box without an area", cases(empty)
    yield "warning", "box beyond the image's border", cases(beyond & ~empty)


def _check_sides(people: _People, joints: JointSet) -> Iterator[_Check]:
    """Left and right: a hint for single people, a warning for a whole set; see the constants."""
    left = [j for j, name in enumerate(joints.names) if joints.flip[j] != j and _is_left(name)]
    right = [joints.flip[j] for j in left]
    parts = {part: k for k, j in enumerate(left) for part in _parts(joints.names[j])}
    xy, labelled = people.keypoints[..., :2], people.labelled
    across = xy[:, left] - xy[:, right]  # [N, pairs, 2], from right to left
    seen = np.where(labelled[..., None], xy, np.nan)
    with np.errstate(all="ignore"):
        low, high = np.fmin.reduce(seen, 1), np.fmax.reduce(seen, 1)
        extent = np.linalg.norm(high - low, axis=-1)  # NaN of nobody
        length = np.linalg.norm(across, axis=-1)
        apart = labelled[:, left] & labelled[:, right] & (length > _APART * extent[:, None])

    crossed: list[str] = []
    for a, b in _PARALLEL:
        if a in parts and b in parts:
            i, k = parts[a], parts[b]
            cosine = (across[:, i] * across[:, k]).sum(-1) / (length[:, i] * length[:, k] + 1e-9)
            opposite = np.flatnonzero(apart[:, i] & apart[:, k] & (cosine < -0.5))
            crossed += [f"{people.name(n)}: {a}s against {b}s" for n in opposite]
    yield "hint", "left and right swapped in a person, perhaps", crossed

    if "shoulder" in parts:
        shoulders = parts["shoulder"]
        facing = across[apart[:, shoulders], shoulders, 0] > 0
        if len(facing) >= _FACING_PEOPLE and facing.mean() < _FACING:
            share = f"{facing.mean():.0%} of {len(facing)} people have their left on the right"
            yield "warning", "left and right exchanged throughout, perhaps", [share]


def _is_left(name: str) -> bool:
    return "left" in name.lower() or name.lower().startswith("l_")


def _parts(name: str) -> list[str]:
    return [part for pair in _PARALLEL for part in pair if part in name.lower()]


# --- images -----------------------------------------------------------------------------------


def _check_images(
    images: list[tuple[str, AnnotatedImage]], decode: bool, progress: Progress
) -> list[Finding]:
    """Reads every image, and finds those that are there twice: same file, or same bytes."""
    troubles: dict[tuple[str, str], list[str]] = defaultdict(list)
    same: dict[object, list[tuple[str, AnnotatedImage]]] = defaultdict(list)
    look = _read if decode else _exists
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        seen = pool.map(look, [image for _, image in images])
        shown = tracked(seen, progress, "Checking images", total=len(images))
        for (split, image), (content, trouble, detail) in zip(images, shown, strict=True):
            same[content].append((split, image))
            if trouble:
                troubles[split, trouble].append(f"{_name(image)}{detail}")
    findings = [Finding("error", what, split, cases) for (split, what), cases in troubles.items()]
    return findings + _check_twice(same.values())


def _check_twice(groups: Iterable[list[tuple[str, AnnotatedImage]]]) -> list[Finding]:
    leaks: dict[str, list[str]] = defaultdict(list)
    twice: dict[str, list[str]] = defaultdict(list)
    for group in groups:
        if len(group) > 1:
            splits = " and ".join(dict.fromkeys(split for split, _ in group))
            case = " = ".join(_name(image) for _, image in group)
            (leaks if " and " in splits else twice)[splits].append(case)
    return [
        *(Finding("error", "same image in two splits", *found) for found in leaks.items()),
        *(Finding("warning", "same image twice", *found) for found in twice.items()),
    ]


def _exists(image: AnnotatedImage) -> tuple[object, str, str]:
    """What makes the image this one and no other, what is wrong with it, and details."""
    return image.path, "" if image.path.is_file() else "image is not there", ""


def _read(image: AnnotatedImage) -> tuple[object, str, str]:
    content, trouble, _ = _exists(image)
    if trouble:
        return content, trouble, ""
    try:
        data = image.path.read_bytes()
        content = hashlib.blake2b(data, digest_size=16).digest()
        height, width, _ = decode_image(data, str(image.path), ignore_orientation=True).shape
        ignore_mask(image)
    except OSError as error:
        return content, "image cannot be read", f": {error.strerror}"
    except DhnError as error:
        return content, "image or mask unreadable", str(error).removeprefix(str(image.path))
    if (width, height) != (image.width, image.height):
        sizes = f": {width} x {height}, not {image.width} x {image.height}"
        return content, "image is of another size than its labels", sizes
    return content, "", ""
