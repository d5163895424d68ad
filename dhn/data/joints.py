"""Joint sets: what the J channels of a heatmap mean."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dhn.base.errors import DhnError

_log = logging.getLogger(__name__)

# OKS constant of joints for which a file gives none; OpenPifPaf takes it for its car keypoints.
DEFAULT_SIGMA = 0.05


@dataclass(frozen=True)
class JointSet:
    """Names, limbs and constants of one kind of annotated person.

    Attributes:
        name: `crowdpose`, `coco`, or the category's name in a custom file.
        names: J joint names, in channel order.
        skeleton: limbs to draw, pairs of 0-based joint indices.
        flip: J indices; a mirrored image's joint j is the original's joint flip[j].
        sigmas: J OKS constants (half of pycocotools' k: k = 2 * sigma).
        grouping_order: the order in which decode visits joints; None is 0..J-1.
    """

    name: str
    names: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...]
    flip: tuple[int, ...]
    sigmas: tuple[float, ...]
    grouping_order: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.names)


def flip_from_names(names: Sequence[str]) -> tuple[int, ...]:
    """Pairs `left_x` with `right_x` (also `l_x`, `x_left`, `leftX`; any case)."""
    lowered = [name.lower().replace("-", "_").replace(" ", "_") for name in names]
    index = {name: j for j, name in enumerate(lowered)}
    return tuple(index.get(_mirrored(name), j) for j, name in enumerate(lowered))


def _mirrored(name: str) -> str:
    words = name.split("_")
    other = {"left": "right", "right": "left", "l": "r", "r": "l"}
    if any(word in other for word in words):
        return "_".join(other.get(word, word) for word in words)
    for side, opposite in (("left", "right"), ("right", "left")):
        if name.startswith(side) or name.endswith(side):
            return name.replace(side, opposite, 1)
    return name


_CROWDPOSE_NAMES = (
    *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
    *("left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle"),
    *("head", "neck"),
)
_COCO_NAMES = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear"),
    *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
    *("left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle"),
)

CROWDPOSE = JointSet(
    name="crowdpose",
    names=_CROWDPOSE_NAMES,
    skeleton=(
        *((12, 13), (13, 0), (13, 1), (0, 2), (2, 4), (1, 3), (3, 5)),
        *((0, 6), (1, 7), (6, 7), (6, 8), (8, 10), (7, 9), (9, 11)),
    ),
    flip=flip_from_names(_CROWDPOSE_NAMES),
    # crowdposetools: [.79 .79 .72 .72 .62 .62 1.07 1.07 .87 .87 .89 .89 .79 .79] / 10
    sigmas=tuple(
        s / 10
        for s in (
            0.79,
            0.79,
            0.72,
            0.72,
            0.62,
            0.62,
            1.07,
            1.07,
            0.87,
            0.87,
            0.89,
            0.89,
            0.79,
            0.79,
        )
    ),
)

# Nose, eyes, ears, shoulders, hips, elbows, wrists, knees, ankles, as HigherHRNet groups COCO.
_COCO_ORDER = (*range(7), 11, 12, *range(7, 11), *range(13, 17))

COCO = JointSet(
    name="coco",
    names=_COCO_NAMES,
    skeleton=(
        *((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7)),
        *((6, 8), (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
    ),
    flip=flip_from_names(_COCO_NAMES),
    # pycocotools: [.26 .25 .25 .35 .35 .79 .79 .72 .72 .62 .62 1.07 1.07 .87 .87 .89 .89] / 10
    sigmas=tuple(
        s / 10
        for s in (
            *(0.26, 0.25, 0.25, 0.35, 0.35, 0.79, 0.79, 0.72, 0.72),
            *(0.62, 0.62, 1.07, 1.07, 0.87, 0.87, 0.89, 0.89),
        )
    ),
    grouping_order=_COCO_ORDER,
)


def official_order(joints: JointSet) -> tuple[int, ...] | None:
    """The order in which the official HigherHRNet code groups joints.

    It has one list, COCO's, and takes its beginning for CrowdPose, whose joints are others.
    """
    return _COCO_ORDER[:14] if joints.names == CROWDPOSE.names else joints.grouping_order


def joints_of_category(category: Mapping[str, Any], where: object) -> JointSet:
    """Joint set of an entry of COCO's `categories`.

    The 17 names of COCO and the 14 of CrowdPose give `COCO` and `CROWDPOSE` themselves
    (CrowdPose's own file lists COCO's skeleton, with indices up to 17). Otherwise names,
    `skeleton` (1-based pairs) and `sigmas` (J numbers, default `DEFAULT_SIGMA`) are read from
    the entry; left and right are paired by name. Limbs outside the joints are dropped with
    a warning.

    Args:
        category: has `keypoints`, the list of joint names.
        where: the file, named in messages.

    Raises:
        DhnError: names, skeleton or sigmas are malformed.
    """
    names = category["keypoints"]
    if (
        not isinstance(names, list)
        or not names
        or not all(isinstance(name, str) for name in names)
        or len(set(names)) < len(names)
    ):
        raise DhnError(f"{where}: the category's keypoints must be a list of different names")
    for known in (CROWDPOSE, COCO):
        if tuple(names) == known.names:
            return known
    return JointSet(
        name=str(category.get("name", "keypoints")),
        names=tuple(names),
        skeleton=_skeleton(category.get("skeleton") or [], len(names), where),
        flip=flip_from_names(names),
        sigmas=_sigmas(category.get("sigmas"), len(names), where),
    )


def _skeleton(limbs: Any, J: int, where: object) -> tuple[tuple[int, int], ...]:
    def is_pair(limb: Any) -> bool:
        return isinstance(limb, list) and len(limb) == 2 and all(type(j) is int for j in limb)

    if not isinstance(limbs, list) or not all(map(is_pair, limbs)):
        raise DhnError(f"{where}: the category's skeleton must be a list of pairs of joint numbers")
    inside = tuple((a - 1, b - 1) for a, b in limbs if 1 <= a <= J and 1 <= b <= J)
    if len(inside) < len(limbs):
        dropped = len(limbs) - len(inside)
        _log.warning(
            f"{where}: {dropped} of {len(limbs)} limbs dropped, joints are numbered 1 to {J}"
        )
    return inside


def _sigmas(sigmas: Any, J: int, where: object) -> tuple[float, ...]:
    if sigmas is None:
        return (DEFAULT_SIGMA,) * J
    if (
        not isinstance(sigmas, list)
        or len(sigmas) != J
        or not all(type(s) in (int, float) and 0 < s < math.inf for s in sigmas)
    ):
        raise DhnError(f"{where}: the category's sigmas must be {J} positive numbers")
    return tuple(map(float, sigmas))
