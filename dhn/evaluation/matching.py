"""Who is who: predicted people matched to annotated ones, all images at once.

The rules are those of COCO's keypoint evaluation (pycocotools' `computeOks` and `evaluateImg`).
Their loops run over images and people; here a step handles the k-th best prediction of every image
at every OKS threshold.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dhn.evaluation.people import Bools, Floats, Found, Ints, Truth

OKS_THRESHOLDS = np.linspace(0.5, 0.95, 10)  # exactly as pycocotools makes them
_CHUNK = 2048  # images at a time: bounds the memory


class Matches(NamedTuple):
    """Which predicted person is which annotated one, at T thresholds.

    Attributes:
        person: int64 [T, D], the index of the matched person; -1 where there is none.
        ignored: bool [T, D], predictions that count neither as right nor as wrong.
        counts: bool [G], the annotated people who have to be found.
    """

    person: Ints
    ignored: Bools
    counts: Bools


class Pairs(NamedTuple):
    """Every predicted person with every annotated one of the same image.

    Attributes:
        found: int64 [P], indices of predicted people, ascending.
        person: int64 [P], indices of annotated people.
    """

    found: Ints
    person: Ints


# float64 [P] in 0..1, of pairs of people; `oks` is one.
Similarity = Callable[[Truth, Found, Pairs], Floats]


def pairs(truth: Truth, found: Found) -> Pairs:
    """All pairs within images, by predicted person, then by annotated person."""
    first = np.searchsorted(truth.image, found.image)
    many = np.searchsorted(truth.image, found.image, side="right") - first
    which = np.repeat(np.arange(len(found.image)), many)
    within = np.arange(len(which)) - np.repeat(np.cumsum(many) - many, many)
    return Pairs(which, first[which] + within)


def oks(truth: Truth, found: Found, between: Pairs) -> Floats:
    """Object keypoint similarity of pairs, float64 [P] in 0..1.

    It is the mean over labelled joints of exp(-d^2 / (2 area (2 sigma)^2)). For a person without
    any, d is the distance of a predicted joint from a region of twice the box's sides.
    """
    similarity = np.empty(len(between.found))
    variances = (2 * truth.sigmas) ** 2
    labelled = truth.labelled
    counts = labelled.sum(axis=1)[between.person]
    # Joints are gathered, not masked: the sum then has the tools' order, and rounds like theirs.
    for count in np.unique(counts):
        rows = np.flatnonzero(counts == count)
        f, g = between.found[rows, None], between.person[rows, None]
        if count:
            j = np.nonzero(labelled[g[:, 0]])[1].reshape(-1, count)
            off = found.keypoints[f, j] - truth.keypoints[g, j, :2]
        else:
            j = np.arange(len(variances))[None]
            low = truth.boxes[g, :2] - truth.boxes[g, 2:]
            high = truth.boxes[g, :2] + 2 * truth.boxes[g, 2:]
            xy = found.keypoints[f, j]
            off = np.maximum(0, low - xy) + np.maximum(0, xy - high)
        scale = truth.areas[g] + np.spacing(1)
        e = (off[..., 0] ** 2 + off[..., 1] ** 2) / variances[j] / scale / 2
        similarity[rows] = np.exp(-e).sum(axis=1) / e.shape[1]
    return similarity


def match(
    truth: Truth,
    found: Found,
    thresholds: Floats = OKS_THRESHOLDS,
    area: tuple[float, float] = (0.0, 1e10),
    similarity: Similarity = oks,
) -> Matches:
    """Matches people as COCO does.

    In the order of their scores, predictions take the free annotated person of the highest OKS, at
    least the threshold. Those that count come before those that are ignored, and the last of equal
    ones is taken.

    Args:
        truth, found: the people.
        thresholds: float64 [T], above 0.
        area: people of other areas, in square pixels, are ignored, and so are predictions of other
            areas that match nobody.
        similarity: of pairs, what stands in for OKS.
    """
    ignored = truth.ignored | (truth.areas < area[0]) | (truth.areas > area[1])
    person = np.full((len(thresholds), len(found.image)), -1)
    for start in range(0, len(truth.image_ids), _CHUNK):
        _match_images(truth, found, ignored, thresholds, similarity, start, person)
    outside = (found.areas < area[0]) | (found.areas > area[1])
    matched = person >= 0
    on_ignored = matched & ignored[person] if len(ignored) else matched
    return Matches(person, on_ignored | (~matched & outside), ~ignored)


def _match_images(
    truth: Truth,
    found: Found,
    ignored: Bools,
    thresholds: Floats,
    similarity: Similarity,
    start: int,
    person: Ints,
) -> None:
    """Fills in `person` for the images from `start` on, `_CHUNK` of them."""
    images = np.arange(start, min(start + _CHUNK, len(truth.image_ids)))
    f0, f1 = _range(found.image, images)
    g0, g1 = _range(truth.image, images)
    if not (f1 - f0).any() or not (g1 - g0).any():
        return
    shape = (len(images), (f1 - f0).max(), (g1 - g0).max())
    here = found.where((found.image >= start) & (found.image <= images[-1]))
    between = pairs(truth, here)
    image = here.image[between.found] - start
    similar = np.full(shape, -1.0)
    similar[image, between.found + f0[0] - f0[image], between.person - g0[image]] = similarity(
        truth, here, between
    )
    slots = g0[:, None] + np.arange(shape[2])
    real = slots < g1[:, None]
    slots = np.where(real, slots, 0)
    regular = real & ~ignored[slots]
    free = np.broadcast_to(real[:, None], (shape[0], len(thresholds), shape[2])).copy()
    least = np.minimum(thresholds, 1 - 1e-10)[:, None]
    for rank in range(shape[1]):
        rows = np.flatnonzero(f1 - f0 > rank)
        o = similar[rows, rank, None]
        open_ = np.where(free[rows] & (o >= least), o, -1.0)
        best, is_match = _best(np.where(regular[rows, None], open_, -1.0))
        other, is_other = _best(np.where(regular[rows, None], -1.0, open_))
        best = np.where(is_match, best, other)
        row, t = np.nonzero(is_match | is_other)
        taken = best[row, t]
        found_person = slots[rows[row], taken]
        person[t, (f0[rows] + rank)[row]] = found_person
        free[rows[row], t, taken] = truth.crowd[found_person]  # a crowd is matched many times


def _range(image: Ints, images: Ints) -> tuple[Ints, Ints]:
    return np.searchsorted(image, images), np.searchsorted(image, images, side="right")


def _best(similarity: Floats) -> tuple[Ints, Bools]:
    """The last of the highest values along the last axis, and whether it is one at all."""
    last = similarity.shape[-1] - 1
    best = last - np.argmax(similarity[..., ::-1], axis=-1)
    return best, np.take_along_axis(similarity, best[..., None], -1)[..., 0] >= 0
