"""PCK: the share of joints that are found within a part of the person's own size.

PCKh takes half of the head (Andriluka et al., *2D Human Pose Estimation: New Benchmark and State of
the Art Analysis*, CVPR 2014), PCK a fifth of the torso, from the left shoulder to the right hip
(Sapp and Taskar, *MODEC*, CVPR 2013). They were made for images of one known person. Here the
prediction that stands for a person is judged (`ErrorAnalysis.person`), and all joints of a person
for whom none does are wrong.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dhn.evaluation.bootstrap import Interval, interval
from dhn.evaluation.error_analysis import ErrorAnalysis, analyse_errors, number
from dhn.evaluation.figures import Judged
from dhn.evaluation.people import Bools, Floats, Ints, Truth


class CorrectJoints(NamedTuple):
    """How many joints of each kind are within reach.

    Attributes:
        correct: int64 [N, J], in each of N images.
        labelled: int64 [N, J], of so many; people whose reach is unknown do not count.
    """

    correct: Ints
    labelled: Ints

    def shares(self) -> Floats:
        """float64 [J], in 0..1, NaN where a joint is never labelled."""
        return _ratio(self.correct.sum(axis=0), self.labelled.sum(axis=0))

    def mean(self, weights: npt.NDArray[np.int32] | None = None) -> Floats:
        """The share of all joints together, float64 [S], NaN where none is labelled.

        Args:
            weights: int32 [S, N], how often each image counts in each sample; None is once (S = 1).
        """
        if weights is None:
            weights = np.ones((1, len(self.correct)), np.int32)
        return _ratio(weights @ self.correct.sum(axis=1), weights @ self.labelled.sum(axis=1))


def correct_joints(analysis: ErrorAnalysis, reach: Floats) -> CorrectJoints:
    """Counts the joints that are no farther from their places than a person's reach.

    Args:
        analysis: says which prediction stands for whom.
        reach: float64 [G], in pixels; NaN leaves the person out.
    """
    truth, found = analysis.truth, analysis.found
    counted = truth.labelled & ~truth.ignored[:, None] & ~np.isnan(reach)[:, None]
    close = np.zeros(counted.shape, np.bool_)
    standing = np.flatnonzero(analysis.person >= 0)
    who = analysis.person[standing]
    off = found.keypoints[standing] - truth.keypoints[who][..., :2]
    close[who] = np.hypot(off[..., 0], off[..., 1]) <= reach[who, None]
    return CorrectJoints(_by_image(truth, close & counted), _by_image(truth, counted))


class Pck(NamedTuple):
    """One measure; None where nobody has such a size.

    Attributes:
        mean: the share of all joints, in 0..1.
        interval: of the mean, of bootstrap samples, if any were drawn.
        joints: the share of each kind of joint.
    """

    mean: float | None
    interval: Interval | None
    joints: dict[str, float | None]


def pck_table(judged: Judged, weights: npt.NDArray[np.int32] | None = None) -> dict[str, Pck]:
    """PCKh and PCK of all joints, by measure.

    Args:
        judged: the matched people.
        weights: int32 [S, N], how often each bootstrap sample counts each image.
    """
    truth = judged.truth
    analysis = analyse_errors(truth, judged.found)
    table = {}
    for name, reach in reaches(truth).items():
        counts = correct_joints(analysis, reach)
        joints = map(number, counts.shares())
        table[name] = Pck(
            mean=number(counts.mean()[0]),
            interval=None if weights is None else interval(counts.mean(weights)),
            joints=dict(zip(truth.joints.names, joints, strict=True)),
        )
    return table


def reaches(truth: Truth) -> Mapping[str, Floats]:
    """The reach of each person in pixels, float64 [G], by measure; NaN where it is unknown."""
    torso = np.full(len(truth.image), np.nan)
    names = truth.joints.names
    if {"left_shoulder", "right_hip"} <= set(names):
        ends = truth.keypoints[:, [names.index("left_shoulder"), names.index("right_hip")]]
        torso = np.hypot(*(ends[:, 0, :2] - ends[:, 1, :2]).T)
        torso = np.where((ends[..., 2] > 0).all(axis=1) & (torso > 0), torso, np.nan)
    return {"PCKh@0.5": 0.5 * truth.heads, "PCK@0.2 torso": 0.2 * torso}


def _by_image(truth: Truth, values: Bools) -> Ints:
    counts = np.zeros((len(truth.image_ids), values.shape[1]), np.int64)
    np.add.at(counts, truth.image, values)
    return counts


def _ratio(part: Ints, whole: Ints) -> Floats:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
