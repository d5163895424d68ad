"""Leaves out people who were found twice, and people who are hardly more than guesses."""

import numpy as np

from dhn.data.oks import pose_oks
from dhn.inference.people import People


def without_duplicates(people: People, nms_oks: float) -> People:
    """Non-maximum suppression of poses: of two people who are too similar, the better one stays.

    From the highest score down, a person stays unless somebody who stays has an OKS above
    `nms_oks` with them; see `dhn.data.oks.pose_oks`. Of equal scores, the first is the better.

    Args:
        people: the people of one image.
        nms_oks: 0..1; 1 leaves everybody.
    """
    if nms_oks >= 1 or len(people) < 2:
        return people
    points, boxes = people.keypoints, people.boxes
    oks = pose_oks(points, points, people.joints.sigmas, first_boxes=boxes, second_boxes=boxes)
    order = np.argsort(-people.scores, kind="stable")
    # suppresses[i, j]: the i-th best would suppress the j-th best.
    suppresses = np.triu(oks[np.ix_(order, order)] > nms_oks, 1)
    stays: np.ndarray = np.ones(len(people), bool)
    # Who stays depends on better people alone. So each round settles at least one more link of the
    # longest chain of people who suppress each other, and chains are short.
    while True:
        settled = ~np.any(suppresses & stays[:, None], axis=0)
        if (settled == stays).all():
            break
        stays = settled
    return people[np.sort(order[stays])]


def without_guesses(people: People, min_seen: int) -> People:
    """The people of whom the network saw at least `min_seen` joints, before refinement."""
    seen = (people.keypoints[..., 2] > 0) & ~people.refined
    return people[seen.sum(1) >= min_seen]
