"""Extended OKS (Ex-OKS), which also punishes joints that are missing and joints that are too many.

Purkrabek and Matas, *ProbPose: A Probabilistic Approach to 2D Human Pose Estimation*, CVPR 2025.
A joint is annotated inside the image (v = 1 or 2) or outside (v = 3), and predicted or, below a
confidence, not. Where only one of both is there, its distance is that from the border of the
person's window, which is the box, widened to 3:4 and padded. As in the authors' code
(https://github.com/MiraPurkrabek/exococotools at 160b49e), this distance joins that from the nearer
vertical to that from the nearer horizontal side. Unlike there, predictions in images without
annotated people count.
"""

from dataclasses import replace

import numpy as np

from dhn.base.errors import DhnError
from dhn.evaluation.figures import Judged, judge
from dhn.evaluation.matching import Pairs
from dhn.evaluation.people import Bools, Floats, Found, Truth

OUTSIDE = 3  # v of a joint that is outside of the image
PADDING = 1.25  # of the window, on both axes together
ASPECT = 3 / 4  # the window's width over its height, at least on one side


def judge_extended(truth: Truth, found: Found, confidence: float) -> Judged:
    """Matches people by Ex-OKS.

    Those with a joint that is inside or outside have to be found, whatever `num_keypoints` says.
    Predictions without a joint of a confidence above 0 are left out, as in the authors' code.

    Args:
        truth, found: the people.
        confidence: joints below it are taken for not predicted. The authors take .5, and advise
            to choose what is best for each system.

    Raises:
        DhnError: no joint has a confidence.
    """
    kept: Bools = np.any(found.confidence > 0, axis=1)
    if len(kept) and not kept.any():
        raise DhnError(
            "extended OKS needs the confidence of each joint, as every third number of keypoints; "
            "it is 0 everywhere"
        )
    truth = replace(truth, ignored=~np.any(truth.labelled, axis=1))

    def similarity(truth: Truth, found: Found, between: Pairs) -> Floats:
        return extended_oks(truth, found, between, confidence)

    return judge(truth, found.where(kept), similarity)


def extended_oks(truth: Truth, found: Found, between: Pairs, confidence: float) -> Floats:
    """Ex-OKS of pairs, float64 [P] in 0..1.

    It is the mean of exp(-d^2 / (2 area (2 sigma)^2)) over the joints that are annotated inside or
    outside. For a person without any, d is the distance of a predicted joint from the window.
    """
    f, g = between
    xy, place = found.keypoints[f], truth.keypoints[g, :, :2]
    low, high = (corner[g, None] for corner in _windows(truth))
    inside = truth.keypoints[g, :, 2] < OUTSIDE
    predicted = np.clip(found.confidence[f], 0, 1) >= confidence
    squared = ((xy - place) ** 2).sum(axis=2)
    squared = np.where(~inside & predicted, _from_border(xy, low, high), squared)
    squared = np.where(inside & ~predicted, _from_border(place, low, high), squared)
    squared = np.where(~inside & ~predicted, 0.0, squared)
    labelled = truth.labelled[g]
    nobody = ~labelled.any(axis=1, keepdims=True)
    beyond = np.maximum(0, low - xy) + np.maximum(0, xy - high)
    squared = np.where(nobody, (beyond**2).sum(axis=2), squared)
    scale = 2 * (2 * truth.sigmas) ** 2 * (truth.areas[g, None] + np.spacing(1))
    return np.exp(-squared / scale).mean(axis=1, where=labelled | nobody)


def _windows(truth: Truth) -> tuple[Floats, Floats]:
    """The upper left and lower right corners of every person's window, [G, 2] each."""
    x, y, width, height = truth.boxes.T
    half = np.stack([np.maximum(width, height * ASPECT), np.maximum(height, width / ASPECT)], -1)
    centre = np.stack([x + width / 2, y + height / 2], -1)
    return centre - PADDING / 2 * half, centre + PADDING / 2 * half


def _from_border(xy: Floats, low: Floats, high: Floats) -> Floats:
    """The squared distance of points [P, J, 2] from the borders, see the module."""
    return (np.minimum(xy - low, high - xy) ** 2).sum(axis=2)
