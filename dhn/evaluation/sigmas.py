"""OKS constants from people who were labelled several times.

The sigma of a joint is the standard deviation of its labels around their mean, in units of the
square root of the person's area, as COCO defines it: sigma^2 = E[d^2 / area].
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dhn.base.errors import DhnError
from dhn.data.annotations import load_annotations
from dhn.data.coco_file import check_coco
from dhn.data.joints import JointSet
from dhn.evaluation.matching import match
from dhn.evaluation.people import Floats, Found, Ints, Truth, truth_of

_SAME = 0.5  # OKS from which on labels are taken for those of one person


class Sigma(NamedTuple):
    """The spread of one joint's labels.

    Attributes:
        name: the joint's name.
        people: how many had it labelled by everybody.
        sigma: None where nobody had.
        given: the constant that the annotations have now.
    """

    name: str
    people: int
    sigma: float | None
    given: float


def estimate_sigmas(files: Sequence[Path]) -> list[Sigma]:
    """Estimates the sigma of every joint.

    The labels of K files belong to one person where each of them has an OKS of .5 with those of the
    first file. Their d^2 is the sum of squared distances from their mean, divided by K - 1.

    Args:
        files: annotations of the same images by two annotators or more, in COCO's keypoint format.

    Raises:
        DhnError: a file is malformed, or the files have other images or joints.
    """
    if len(files) < 2:
        raise DhnError("two files or more are needed, of the same images by other annotators")
    first, *others = map(_truth, files)
    for file, other in zip(files[1:], others, strict=True):
        if other.joints != first.joints:
            raise DhnError(f"{file}: its joints are not those of {files[0]}")
        if not np.array_equal(other.image_ids, first.image_ids):
            raise DhnError(f"{file}: its images are not those of {files[0]}")
    G, J = first.labelled.shape
    places = np.full((len(files), G, J, 2), np.nan)
    places[0] = _places(first, np.arange(G))
    for k, other in enumerate(others, 1):
        labels = Found(
            other.image,
            other.keypoints[..., :2],
            np.ones(len(other.image)),
            other.areas,
            other.keypoints[..., 2],
        )
        person = match(first, labels, np.array([_SAME])).person[0]
        who = np.flatnonzero(person >= 0)
        places[k, person[who]] = _places(other, who)
    places[:, first.ignored] = np.nan
    squared = ((places - places.mean(axis=0)) ** 2).sum(axis=(0, 3)) / (len(files) - 1)
    return _sigmas(first.joints, squared / first.areas[:, None])


def _truth(path: Path) -> Truth:
    annotations = load_annotations(path)
    return truth_of(check_coco(annotations.raw, path), annotations.scoring, None, path)


def _places(truth: Truth, people: Ints) -> Floats:
    """x, y of the labelled joints, [P, J, 2]; NaN for the others."""
    keypoints = truth.keypoints[people]
    return np.where(keypoints[..., 2:] > 0, keypoints[..., :2], np.nan)


def _sigmas(joints: JointSet, relative: Floats) -> list[Sigma]:
    """The table, from d^2 / area [G, J], which is NaN where somebody has no label."""
    rows = []
    for j, (name, given) in enumerate(zip(joints.names, joints.sigmas, strict=True)):
        values = relative[~np.isnan(relative[:, j]), j]
        found = float(np.sqrt(values.mean())) if len(values) else None
        rows.append(Sigma(name, len(values), found, given))
    return rows
