"""Where predictions fail: figures by crowding, size, labelled and hidden joints, and by joint."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dhn.evaluation.bootstrap import Interval, interval
from dhn.evaluation.error_analysis import JOINT_ERRORS, ErrorAnalysis, number
from dhn.evaluation.figures import Judged
from dhn.evaluation.matching import OKS_THRESHOLDS
from dhn.evaluation.pck import correct_joints
from dhn.evaluation.people import Bools, Floats, Ints, Truth
from dhn.evaluation.precision import precision_and_recall

_BINS = 8  # at most
PCK_REACH = 0.1  # of the longer side of a person's box


class Bin(NamedTuple):
    """People or images that have something in common.

    Attributes:
        label: what they have in common, as in `0.2 to 0.3`.
        size: how many there are.
        value: the figure, in 0..1; None where it cannot be computed.
        interval: of the figure.
        images: bool [N], the images that they are in.
    """

    label: str
    size: int
    value: float | None
    interval: Interval | None
    images: Bools


class JointFigures(NamedTuple):
    """How well one joint is found.

    Attributes:
        name: the joint's name.
        labelled: in how many people it is labelled.
        recall: the share of these in which its similarity reaches an OKS threshold, mean over .50,
            .55 ... .95; the joint of a person who was not found reaches none.
        pck: the share of these in which it is within `PCK_REACH` of the box's longer side.
        median_error: the median distance, for people found, in units of sigma times the square root
            of the area. By the definition of sigma, 1 is the spread of annotators.
        errors: the share of each of `JOINT_ERRORS`, for people found.
    """

    name: str
    labelled: int
    recall: float | None
    pck: float | None
    median_error: float | None
    errors: dict[str, float | None]


class ScoreBin(NamedTuple):
    """Predictions of similar scores: `mean_oks` is with the people whom they are about, else 0."""

    size: int
    mean_score: float
    mean_oks: float


@dataclass(frozen=True, eq=False)
class Breakdown:
    """Everything that a report shows beside the AP table and the errors.

    Attributes:
        precision: float64 [10, 101], at the OKS thresholds and recalls 0, .01 ... 1; -1: nobody.
        parts: bins of images (by AP) or people (by AR), under what they are binned by.
        joints: a row for each joint.
        calibration: by score, the lowest first.
    """

    precision: Floats
    parts: dict[str, list[Bin]]
    joints: list[JointFigures]
    calibration: list[ScoreBin]


def break_down(
    judged: Judged, analysis: ErrorAnalysis, weights: npt.NDArray[np.int32]
) -> Breakdown:
    """Computes the parts of a report.

    Args:
        judged: the matched people.
        analysis: their errors.
        weights: int32 [S, N], how often each bootstrap sample counts each image.
    """
    truth = judged.truth
    precision, _ = precision_and_recall(truth, judged.found, judged.matches)
    labelled = truth.labelled.sum(axis=1)
    hidden = (truth.keypoints[:, :, 2] == 1).sum(axis=1) / np.maximum(labelled, 1)
    shares = [-np.inf, 1e-9, 0.25, 0.5, np.inf]
    parts = {
        "AP by crowd index": _by_crowd_index(judged, weights),
        "AR by person size": _by_person(judged, weights, np.sqrt(truth.areas), unit=" px"),
        "AR by number of labelled joints": _by_person(judged, weights, labelled.astype(float)),
        "AR by share of hidden joints": _by_person(
            judged,
            weights,
            hidden,
            edges=shares,
            labels=["none", "up to 25 %", "25 to 50 %", "over 50 %"],
        ),
    }
    return Breakdown(
        precision=precision[0],
        parts={name: bins for name, bins in parts.items() if bins},
        joints=_joints(judged, analysis),
        calibration=_calibration(analysis),
    )


def _edges(values: Floats) -> list[float]:
    """Bounds of up to `_BINS` bins with about as many values each; the last one is included."""
    if len(values) == 0 or values.min() == values.max():
        return [-np.inf, np.inf]
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)))
    return [*edges[:-1].tolist(), np.inf]


def _label(low: float, high: float, values: Floats, unit: str) -> str:
    inside = values[(values >= low) & (values < high)]
    ends = [f"{end:.3g}" for end in (inside.min(), inside.max())]
    return (ends[0] if ends[0] == ends[1] else " to ".join(ends)) + unit


def _by_crowd_index(judged: Judged, weights: npt.NDArray[np.int32]) -> list[Bin]:
    """AP of images of similar crowdIndex."""
    index = judged.truth.crowd_index
    known = index[~np.isnan(index)]
    bins = []
    for low, high in pairwise(_edges(known)) if len(known) else []:
        images = (index >= low) & (index < high)
        values = []
        for w in (None, weights):
            precision, _ = precision_and_recall(
                judged.truth, judged.found, judged.matches, w, images
            )
            ap = precision.mean(axis=(1, 2))
            values.append(np.where(ap == -1, np.nan, ap))
        label = _label(low, high, known, "")
        count = int(images.sum())
        bins.append(Bin(label, count, number(values[0][0]), interval(values[1]), images))
    return bins


def _by_person(
    judged: Judged,
    weights: npt.NDArray[np.int32],
    values: Floats,
    *,
    unit: str = "",
    edges: Sequence[float] | None = None,
    labels: Sequence[str] = (),
) -> list[Bin]:
    """AR, the mean over OKS thresholds of the share of people found, of similar people."""
    truth, matches = judged.truth, judged.matches
    counts = matches.counts
    hits = np.zeros(len(truth.image))
    for person in matches.person:
        hits[person[person >= 0]] += 1 / len(matches.person)
    bins = []
    for k, (low, high) in enumerate(pairwise(edges or _edges(values[counts]))):
        people = counts & (values >= low) & (values < high)
        if not people.any():
            continue
        all_people = _per_image(truth, people.astype(float))
        hits_there = _per_image(truth, np.where(people, hits, 0.0))
        sampled_people = weights @ all_people
        sampled = np.divide(
            weights @ hits_there,
            sampled_people,
            out=np.full(len(weights), np.nan),
            where=sampled_people > 0,
        )
        label = labels[k] if labels else _label(low, high, values[counts], unit)
        share = float(hits_there.sum() / all_people.sum())
        bins.append(Bin(label, int(people.sum()), share, interval(sampled), all_people > 0))
    return bins


def _per_image(truth: Truth, values: Floats) -> Floats:
    sums = np.bincount(truth.image, weights=values, minlength=len(truth.image_ids))
    return sums.astype(np.float64)


def _joints(judged: Judged, analysis: ErrorAnalysis) -> list[JointFigures]:
    truth = judged.truth
    counted = truth.labelled & ~truth.ignored[:, None]
    compared = analysis.joints >= 0
    similarity = analysis.joint_similarity
    pck = correct_joints(analysis, PCK_REACH * truth.boxes[:, 2:].max(axis=1))
    correct = pck.correct.sum(axis=0).tolist()
    table = []
    for j, name in enumerate(truth.joints.names):
        labelled = int(counted[:, j].sum())
        s = similarity[compared[:, j], j]
        kinds = analysis.joints[compared[:, j], j]
        with np.errstate(divide="ignore"):
            distances = np.sqrt(-8 * np.log(np.minimum(s, 1)))
        median = float(np.median(distances)) if len(s) else np.nan
        reached = float((s[:, None] >= OKS_THRESHOLDS).mean(axis=1).sum())
        table.append(
            JointFigures(
                name=name,
                labelled=labelled,
                recall=_ratio(reached, labelled),
                pck=_ratio(correct[j], labelled),
                median_error=median if np.isfinite(median) else None,
                errors={
                    error: _ratio(float((kinds == 1 + k).sum()), len(kinds))
                    for k, error in enumerate(JOINT_ERRORS)
                },
            )
        )
    return table


def _ratio(part: float, whole: int) -> float | None:
    return part / whole if whole else None


def _calibration(analysis: ErrorAnalysis) -> list[ScoreBin]:
    """Up to ten bins of as many predictions each; those of ignored people are left out."""
    on_ignored = np.append(analysis.truth.ignored, False)[analysis.person]
    scores, fit = analysis.found.scores[~on_ignored], analysis.closeness[~on_ignored]
    order: Ints = np.argsort(scores, kind="stable")
    return [
        ScoreBin(len(part), float(scores[part].mean()), float(fit[part].mean()))
        for part in np.array_split(order, 10)
        if len(part)
    ]
