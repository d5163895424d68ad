"""Errors planted into the real crowds of CrowdPose val, where neighbours hide each other."""

import json

import numpy as np
import pytest

from dhn.data.joints import CROWDPOSE
from dhn.evaluation.error_analysis import analyse_errors
from dhn.evaluation.people import people_of
from planted import annotated, predictions_of

FLIP = np.array(CROWDPOSE.flip)
SWAPS, INVERSIONS, JITTER, MISSES, LOST = 0.10, 0.05, 0.08, 0.05, 0.04
COPIES, GHOSTS = 400, 500


def similarity(xy, places, reach):
    """[G, J]: of joints to places of others, 0 where these are not labelled."""
    d = np.hypot(*np.moveaxis(xy - places[..., :2], -1, 0))
    return np.where(places[..., 2] > 0, np.exp(-((d / reach) ** 2) / 2), 0)


def neighbours(image):
    """The next person of the same image; a person's self where nobody else is there."""
    following = np.arange(len(image))
    for one in np.unique(image):
        same = np.flatnonzero(image == one)
        following[same] = np.roll(same, -1)
    return following


def wrong_joints(raw, reach, free, rng):
    """The annotated joints [G, J, 2], with errors in so many of those that are `free`, [G, J]."""
    truth = annotated(raw)
    xy, labelled = truth[..., :2].copy(), (truth[..., 2] > 0).sum()
    mirrored = truth[:, FLIP]
    other = truth[neighbours(np.array([p["image_id"] for p in raw["annotations"]]))]
    # An error is one only where the wrong place is not the right one, too.
    apart = (other[..., 2] > 0) & (similarity(xy, other, reach) < 0.5)
    apart &= similarity(other[..., :2], mirrored, reach) < 0.5
    sides = (mirrored[..., 2] > 0) & (similarity(xy, mirrored, reach) < 0.5)
    angle = rng.uniform(0, 2 * np.pi, reach.shape)
    step = (reach * np.sqrt(-2 * np.log(0.7)))[..., None] * np.stack(
        [np.cos(angle), np.sin(angle)], -1
    )
    for share, possible, places in (
        (SWAPS, apart, other[..., :2]),
        (INVERSIONS, sides, mirrored[..., :2]),
        (JITTER, free, xy + step),
        (MISSES, free, np.full_like(xy, -9000)),
    ):
        count = round(share * labelled)
        chosen = rng.choice(np.flatnonzero(free & possible), count, replace=False)
        xy.reshape(-1, 2)[chosen] = places.reshape(-1, 2)[chosen]
        free.flat[chosen] = False
    return xy


def test_planted_errors_come_out(shared):
    raw = json.loads((shared / "data/crowdpose/json/crowdpose_val.json").read_text())
    rng = np.random.default_rng(0)
    people = raw["annotations"]
    labelled = annotated(raw)[..., 2] > 0
    image = np.array([p["image_id"] for p in people])
    areas = np.array([0.53 * p["bbox"][2] * p["bbox"][3] for p in people])
    reach = 2 * np.outer(np.sqrt(areas), CROWDPOSE.sigmas)
    counts = np.array([not p["iscrowd"] and p["num_keypoints"] > 0 for p in people])
    # With a few joints only, a person with errors is somebody else. Of an image, 20 people count.
    able = counts & (labelled.sum(axis=1) >= 10) & (np.bincount(image)[image] <= 15)
    xy = wrong_joints(raw, reach, labelled & able[:, None], rng)
    scores = rng.uniform(0.5, 0.9, len(people))
    lost, copied, ghosts = (
        rng.choice(np.flatnonzero(able), count, replace=False)
        for count in (round(LOST * counts.sum()), COPIES, GHOSTS)
    )
    copied = np.setdiff1d(copied, lost)
    results = predictions_of(raw, xy, scores)
    results = [results[g] for g in np.setdiff1d(np.flatnonzero(counts), lost)]
    worse = predictions_of(raw, xy + 0.3 * reach[..., None], scores + 0.05)
    strangers = predictions_of(raw, xy - 9000, scores)
    results += [worse[g] for g in copied] + [strangers[g] for g in ghosts]
    found = analyse_errors(*people_of(raw, results, "crowdpose")).shares()
    assert {name: float(share[0]) for name, share in found.items()} == pytest.approx(
        {
            "jitter": JITTER,
            "inversion": INVERSIONS,
            "swap": SWAPS,
            "miss": MISSES,
            "scoring": len(copied) / (counts.sum() - len(lost)),
            "background": GHOSTS / len(results),
            "duplicate": len(copied) / len(results),
            "not_found": LOST,
        },
        abs=0.01,
    )
