"""Precision and recall of matched people, for any weights of the images at once.

A weight is how often an image counts: 1 for the usual figures, the number of times it was drawn for
a bootstrap sample.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from dhn.evaluation.matching import Matches
from dhn.evaluation.people import Bools, Floats, Found, Ints, Truth

RECALLS = np.linspace(0.0, 1.00, 101)  # exactly as pycocotools makes them
_BATCH = 32  # samples at a time, so that arrays stay in the cache


def precision_and_recall(
    truth: Truth,
    found: Found,
    matches: Matches,
    weights: npt.NDArray[np.int32] | None = None,
    images: Bools | None = None,
) -> tuple[Floats, Floats]:
    """Interpolated precision at 101 recalls, and the highest recall, as COCO defines them.

    Args:
        truth, found: the people.
        matches: of these people, at T thresholds.
        weights: int32 [S, N], how often each image counts in each of S samples; None counts every
            image once (S = 1).
        images: bool [N], the images that count at all; None takes all.

    Returns:
        precision [S, T, 101] and recall [S, T], float64; -1 where no annotated person counts. They
        are those of a data set in which every image is repeated by its weight. Where images
        predict equal scores several times, the copies of a prediction stand together.
    """
    if weights is None:
        weights = np.ones((1, len(truth.image_ids)), np.int32)
    chosen = np.ones(len(truth.image_ids), np.bool_) if images is None else images
    kept = np.flatnonzero(chosen[found.image])
    kept = kept[np.argsort(-found.scores[kept], kind="stable")]
    people = truth.image[matches.counts & chosen[truth.image]]
    positives = weights @ np.bincount(people, minlength=len(truth.image_ids))
    S, T = len(weights), len(matches.person)
    precision, recall = np.zeros((S, T, len(RECALLS))), np.zeros((S, T))
    if len(kept):
        counted = ~matches.ignored[:, kept]
        right = counted & (matches.person[:, kept] >= 0)
        for start in range(0, S, _BATCH):
            batch = slice(start, start + _BATCH)
            ranked = np.ascontiguousarray(weights[batch].T)[found.image[kept]]
            for t, total in _totals(ranked, counted):
                precision[batch, t], recall[batch, t] = _interpolated(
                    ranked, total, np.flatnonzero(right[t]), positives[batch]
                )
    nobody = positives == 0
    precision[nobody] = recall[nobody] = -1
    return precision, recall


def _totals(
    ranked: npt.NDArray[np.int32], counted: Bools
) -> Iterator[tuple[int, npt.NDArray[np.int32]]]:
    """For each threshold, how many predictions count up to each one; mostly all do at all."""
    total = None
    for t in range(len(counted)):
        if total is None or not np.array_equal(counted[t], counted[t - 1]):
            total = np.cumsum(ranked * counted[t, :, None], axis=0, dtype=np.int32)
        yield t, total


def _interpolated(
    ranked: npt.NDArray[np.int32], total: npt.NDArray[np.int32], right: Ints, positives: Ints
) -> tuple[Floats, Floats]:
    """Precision [S, 101] and recall [S] at one threshold.

    Only right predictions matter: at a wrong one, recall stays and precision falls.

    Args:
        ranked: [D, S], the weight of each prediction, the best prediction first.
        total: [D, S], how many predictions count up to each one.
        right: [K], indices of the right ones.
        positives: [S], how many people there are to be found.
    """
    S, K = ranked.shape[1], len(right)
    if not K:
        return np.zeros((S, len(RECALLS))), np.zeros(S)
    hits = np.cumsum(ranked[right], axis=0, dtype=np.int32)
    precision = hits / (total[right] + np.spacing(1))
    envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    # The samples are searched in one sorted array; integers keep that exact.
    offset = np.arange(S)[:, None] * (2 + int(hits[-1].max()))
    needed = _needed(positives, hits[-1].max())
    place = np.searchsorted((hits.T + offset).ravel(), (needed + offset).ravel()).reshape(S, -1)
    place -= np.arange(S)[:, None] * K
    reached = envelope[np.minimum(place, K - 1), np.arange(S)[:, None]]
    return np.where(place < K, reached, 0.0), hits[-1] / np.maximum(positives, 1)


def _needed(positives: Ints, most: int) -> Ints:
    """int64 [S, 101], the fewest hits n with n / positives >= recall; at most `most` + 1."""
    positives = np.maximum(positives, 1)[:, None]
    n = np.ceil(RECALLS * positives)
    # In floating point, like the tools.
    n = np.where((n - 1) / positives >= RECALLS, n - 1, n)
    n = np.where(n / positives < RECALLS, n + 1, n)
    return np.clip(n, 0, most + 1).astype(np.int64)


def image_precision(truth: Truth, found: Found, matches: Matches) -> Floats:
    """AP of every image by itself, float64 [N]; NaN where it has nobody to be found."""
    N, T = len(truth.image_ids), len(matches.person)
    positives = np.bincount(truth.image[matches.counts], minlength=N)
    first = np.searchsorted(found.image, np.arange(N))
    rank = np.arange(len(found.image)) - first[found.image]
    shape = (T, N, rank.max(initial=0) + 1)
    counted, right = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    counted[:, found.image, rank] = ~matches.ignored
    right[:, found.image, rank] = ~matches.ignored & (matches.person >= 0)
    hits = np.cumsum(right, axis=2)
    precision = hits / (np.cumsum(counted, axis=2) + np.spacing(1))
    envelope = np.maximum.accumulate(precision[..., ::-1], axis=2)[..., ::-1]
    # How many of the 101 recalls lie at or below each share of people found.
    share = hits / np.maximum(positives, 1)[None, :, None]
    reached = np.searchsorted(RECALLS, share, side="right")
    # Recall 0 is reached before anybody is found.
    newly = np.diff(np.where(hits > 0, reached, 0), axis=2, prepend=0)
    ap = (newly * envelope * right).sum(axis=2).mean(axis=0) / len(RECALLS)
    return np.where(positives > 0, ap, np.nan)
