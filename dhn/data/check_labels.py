"""Checks of labels: keypoints, boxes, counts, and whether left and right are swapped."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, SupportsIndex

import numpy as np

from dhn.data.annotations import AnnotatedImage, Annotations, Person
from dhn.data.findings import Finding, Level, name_of
from dhn.data.joints import CROWDPOSE, JointSet, doubts_about_sides

# Pairs of left and right joints that hardly ever point opposite ways in one body, whatever it does:
# of the people of CrowdPose val who show both, they do in 0.1 %, 0.2 % and 0.9 % (eyes and ears: in
# nobody of COCO's sample). Wrists, and legs against the trunk, cross too often to be a sign.
_PARALLEL = (("shoulder", "hip"), ("shoulder", "elbow"), ("hip", "knee"), ("eye", "ear"))
# A pair that is closer than this share of the person's extent is seen from the side, where its
# order means nothing.
_APART = 0.1
# Photographers stand in front: 79 % of the people of CrowdPose val and 83 % of COCO's sample have
# the left shoulder on the right. A set with a smaller share than this one has its sides exchanged,
# or shows people from behind. It takes at least so many people to judge.
_FACING, _FACING_PEOPLE = 0.4, 50
# CrowdPose's own crowdIndex cannot be recomputed exactly, because its labels changed later: by
# today's labels, 8 % of its val images fall into another level.
_MOVED_LEVELS = 0.25

_Problem = tuple[Level, str, Iterable[str]]  # level, what, cases


class _People(NamedTuple):
    """The N people of a split as arrays."""

    images: list[AnnotatedImage]  # N, the image of each person
    people: list[Person]
    keypoints: np.ndarray  # float32 [N, J, 3]
    labelled: np.ndarray  # bool [N, J]
    boxes: np.ndarray  # float64 [N, 4]
    sizes: np.ndarray  # int [N, 2], W and H of the image

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
        """How a case names a person."""
        return f"{name_of(self.images[row])}: person {self.people[row].id}"


def check_labels(
    split: str, annotations: Annotations, figures: dict[str, Any], max_people: int
) -> list[Finding]:
    """Checks the labels of a split.

    Args:
        split: the name of the split, for the findings.
        annotations: its images and people.
        figures: its figures, as in `Report.splits`.
        max_people: the number of people of an image that training keeps.
    """
    people = _People.of(annotations)
    problems = [
        *_check_people(annotations, figures, max_people),
        *_check_keypoints(people, annotations.joints),
        *_check_boxes(people),
        *_check_sides(people, annotations.joints),
    ]
    return [Finding(level, what, split, list(cases)) for level, what, cases in problems]


def _check_people(
    annotations: Annotations, figures: dict[str, Any], max_people: int
) -> Iterator[_Problem]:
    """Checks ids and crowdIndex, and counts whom a training leaves out."""
    images = annotations.images
    trained = [
        sum(not p.iscrowd and bool((p.keypoints[:, 2] > 0).any()) for p in image.people)
        for image in images
    ]
    if not any(trained):
        yield "error", "no image with a labelled person", [annotations.source]
    ids = (person.id for image in images for person in image.people)
    yield "error", "annotation id not above 0 (cannot be scored)", [str(i) for i in ids if i <= 0]
    yield (
        "hint",
        f"more than {max_people} people (the largest are kept)",
        [
            f"{name_of(image)}: {n}"
            for image, n in zip(images, trained, strict=True)
            if n > max_people
        ],
    )
    yield (
        "hint",
        "image without a labelled person (not trained on)",
        [name_of(image) for image, n in zip(images, trained, strict=True) if not n],
    )
    if "crowd_index" in figures:
        lacking = [name_of(image) for image in images if image.crowd_index is None]
        yield "warning", "no crowdIndex (in none of AP easy, medium, hard)", lacking
        if figures["crowd_index_moved"] > _MOVED_LEVELS:
            share = f"{figures['crowd_index_moved']:.0%} of the images"
            yield "warning", "crowdIndex of another level than the labels give", [share]


def _check_keypoints(people: _People, joints: JointSet) -> Iterator[_Problem]:
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

    # CrowdPose does not count head and neck, its last two joints.
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


def _check_boxes(people: _People) -> Iterator[_Problem]:
    low, size = people.boxes[:, :2], people.boxes[:, 2:]

    def cases(wrong: np.ndarray) -> Iterator[str]:
        for n in np.flatnonzero(wrong):
            yield f"{people.name(n)}: {people.boxes[n].tolist()}"

    empty = np.any(size <= 0, axis=1)
    # Official files round, so one pixel beyond the border is not a mistake.
    beyond = np.any((low < -1) | (low + size > people.sizes + 1), axis=1)
    yield "warning", "box without an area", cases(empty)
    yield "warning", "box beyond the image's border", cases(beyond & ~empty)


def _check_sides(people: _People, joints: JointSet) -> Iterator[_Problem]:
    """Compares left and right in each person (a hint) and over the whole set (a warning)."""
    doubts = doubts_about_sides(joints)
    if doubts:
        yield "warning", "left and right cannot be told (data.flip_pairs says which pair)", [doubts]
    left = [j for j, name in enumerate(joints.names) if joints.flip[j] != j and _is_left(name)]
    right = [joints.flip[j] for j in left]
    parts = {part: k for k, j in enumerate(left) for part in _parts(joints.names[j])}
    xy, labelled = people.keypoints[..., :2], people.labelled
    across = xy[:, left] - xy[:, right]  # [N, pairs, 2], from right to left
    seen = np.where(labelled[..., None], xy, np.nan)
    with np.errstate(all="ignore"):
        low, high = np.fmin.reduce(seen, 1), np.fmax.reduce(seen, 1)
        extent = np.linalg.norm(high - low, axis=-1)  # NaN without any joint
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
