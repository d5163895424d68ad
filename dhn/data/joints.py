"""Joint sets: what the J channels of a heatmap mean."""

import logging
import math
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dhn.base.errors import DhnError, SettingError

_log = logging.getLogger(__name__)

# OKS constant of joints whose file gives none. OpenPifPaf uses it for its car keypoints.
DEFAULT_SIGMA = 0.05


@dataclass(frozen=True)
class JointSet:
    """Names, limbs and constants of one kind of annotated person.

    Attributes:
        name: `crowdpose`, `coco`, or the category's name in a custom file.
        names: J joint names, in channel order.
        skeleton: the limbs to draw, as pairs of 0-based joint indices.
        flip: J indices; joint j of a mirrored image is joint flip[j] of the original.
        sigmas: J OKS constants (half of pycocotools' k: k = 2 * sigma).
        grouping_order: the order in which decode visits the joints; None is 0 to J - 1.
    """

    name: str
    names: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...]
    flip: tuple[int, ...]
    sigmas: tuple[float, ...]
    grouping_order: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "JointSet":
        """Reverses `dataclasses.asdict`; lists, which JSON makes of tuples, become tuples again.

        Raises:
            TypeError, ValueError: these are not the fields of a joint set.
        """
        return cls(**{key: _tuples(value) for key, value in dict(fields).items()})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list | tuple) else value


def flip_from_names(names: Sequence[str]) -> tuple[int, ...]:
    """Pairs the names `left_x` and `right_x` (or `l_x`, `x_left`, `leftX`; in any case).

    Returns:
        for each name the index of its partner, or its own where it has none.
    """
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


def with_pairs(joints: JointSet, pairs: Sequence[tuple[str | int, str | int]]) -> JointSet:
    """The same joints, of which these and no others are left and right of each other.

    Args:
        joints: the joints; how they were paired before does not matter.
        pairs: two joints each, as names or as indices from 0.

    Raises:
        SettingError: there is no such joint, or one is named twice.
    """
    flip = list(range(len(joints)))
    for a, b in pairs:
        i, j = _index(joints, a), _index(joints, b)
        for k, joint in ((i, a), (j, b)):
            if flip[k] != k or i == j:
                raise SettingError("flip_pairs", None, f"the joint {joint!r} is named twice")
        flip[i], flip[j] = j, i
    return replace(joints, flip=tuple(flip))


def _index(joints: JointSet, joint: str | int) -> int:
    if isinstance(joint, str) and joint in joints.names:
        return joints.names.index(joint)
    if isinstance(joint, int) and 0 <= joint < len(joints):
        return joint
    raise SettingError(
        "flip_pairs",
        None,
        f"there is no joint {joint!r}; there are 0 to {len(joints) - 1}: {', '.join(joints.names)}",
    )


def with_sigmas(joints: JointSet, sigmas: Sequence[float]) -> JointSet:
    """The same joints with other OKS constants, J positive numbers.

    Raises:
        SettingError: these are not J positive numbers.
    """
    if len(sigmas) != len(joints) or not all(0 < sigma < math.inf for sigma in sigmas):
        names = ", ".join(joints.names)
        raise SettingError("sigmas", None, f"must be {len(joints)} positive numbers, for {names}")
    return replace(joints, sigmas=tuple(map(float, sigmas)))


def doubts_about_sides(joints: JointSet) -> str:
    """Why left and right cannot be told, in one line; an empty string where they can.

    Mirrored images exchange left and right. If two joints are each other's counterparts, but their
    names do not say so, a network learns from mirrored images that each is the other one.
    """
    alone = [name for j, name in enumerate(joints.names) if joints.flip[j] == j]
    # hand1 and hand2, or kp_3 and kp_4
    stems = Counter(re.sub(r"\d+", "", name) for name in alone)
    numbered = [name for name in alone if stems[re.sub(r"\d+", "", name)] > 1]
    lowered = {name: re.split(r"[^a-z]+", name.lower()) for name in alone}
    one_sided = [name for name, words in lowered.items() if {"left", "right"} & set(words)]
    if numbered:
        return f"{_some(numbered)} differ only by a number, and no two of them are a pair"
    if one_sided:
        return f"{_some(one_sided)} have no counterpart on the other side"
    if len(alone) == len(joints) > 1:
        return f"none of {_some(alone)} has a counterpart on the other side"
    return ""


def _some(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


# Joints in channel order, with their OKS constants in tenths as crowdposetools and pycocotools have
# them.
_BODY = {
    "left_shoulder": 0.79,
    "right_shoulder": 0.79,
    "left_elbow": 0.72,
    "right_elbow": 0.72,
    "left_wrist": 0.62,
    "right_wrist": 0.62,
    "left_hip": 1.07,
    "right_hip": 1.07,
    "left_knee": 0.87,
    "right_knee": 0.87,
    "left_ankle": 0.89,
    "right_ankle": 0.89,
}
_CROWDPOSE = {**_BODY, "head": 0.79, "neck": 0.79}
_COCO = {
    "nose": 0.26,
    "left_eye": 0.25,
    "right_eye": 0.25,
    "left_ear": 0.35,
    "right_ear": 0.35,
    **_BODY,
}


def _known_set(
    name: str,
    tenths: Mapping[str, float],
    skeleton: tuple[tuple[int, int], ...],
    grouping_order: tuple[int, ...] | None = None,
) -> JointSet:
    """One of the official joint sets."""
    names = tuple(tenths)
    return JointSet(
        name=name,
        names=names,
        skeleton=skeleton,
        flip=flip_from_names(names),
        sigmas=tuple(value / 10 for value in tenths.values()),
        grouping_order=grouping_order,
    )


CROWDPOSE = _known_set(
    "crowdpose",
    _CROWDPOSE,
    (
        (12, 13),
        (13, 0),
        (13, 1),
        (0, 2),
        (2, 4),
        (1, 3),
        (3, 5),
        (0, 6),
        (1, 7),
        (6, 7),
        (6, 8),
        (8, 10),
        (7, 9),
        (9, 11),
    ),
)

# Nose, eyes, ears, shoulders, hips, elbows, wrists, knees, ankles, as HigherHRNet groups COCO.
_COCO_ORDER = (*range(7), 11, 12, *range(7, 11), *range(13, 17))

COCO = _known_set(
    "coco",
    _COCO,
    (
        (15, 13),
        (13, 11),
        (16, 14),
        (14, 12),
        (11, 12),
        (5, 11),
        (6, 12),
        (5, 6),
        (5, 7),
        (6, 8),
        (7, 9),
        (8, 10),
        (1, 2),
        (0, 1),
        (0, 2),
        (1, 3),
        (2, 4),
        (3, 5),
        (4, 6),
    ),
    _COCO_ORDER,
)


def official_order(joints: JointSet) -> tuple[int, ...] | None:
    """The order in which the official HigherHRNet code groups joints.

    That code has one list, COCO's, and uses the beginning of it for CrowdPose, whose joints are
    different ones.
    """
    return _COCO_ORDER[:14] if joints.names == CROWDPOSE.names else joints.grouping_order


def joints_of_category(category: Mapping[str, Any], where: object) -> JointSet:
    """Reads the joint set from an entry of COCO's `categories`.

    The 17 names of COCO and the 14 of CrowdPose give `COCO` and `CROWDPOSE` themselves, because
    CrowdPose's own file lists COCO's skeleton, with indices up to 17. For all others, the names,
    `skeleton` (1-based pairs) and `sigmas` (J numbers, by default `DEFAULT_SIGMA`) come from the
    entry, and left and right are paired by name. Limbs between joints that do not exist are
    dropped with a warning.

    Args:
        category: has `keypoints`, the list of joint names.
        where: the file, for messages.

    Raises:
        DhnError: names, skeleton or sigmas are malformed.
    """
    names = category["keypoints"]
    if (
        not isinstance(names, list)
        or not names
        or not all(map(is_text, names))
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


def is_text(value: Any) -> bool:
    """Whether this is a text in one line that can be written and printed.

    Control characters, line separators and lone surrogates, which JSON can hold, cannot.
    """
    unfit = ("Cc", "Cs", "Zl", "Zp")
    return isinstance(value, str) and not any(unicodedata.category(c) in unfit for c in value)


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
        or not all(type(s) in (int, float) and 0 < s < sys.float_info.max for s in sigmas)
    ):
        raise DhnError(f"{where}: the category's sigmas must be {J} positive numbers")
    return tuple(map(float, sigmas))
