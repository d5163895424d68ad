"""CrowdPose's measure of crowding: how much people hide each other."""

import math

import numpy as np

# Bounds of crowdIndex, the upper one excluded, as in the official code. The paper's text says 0.1
# where the code has 0.2.
CROWD_LEVELS = {"easy": (-math.inf, 0.2), "medium": (0.2, 0.8), "hard": (0.8, math.inf)}


def crowd_index(keypoints: np.ndarray, boxes: np.ndarray) -> float:
    """The crowdIndex of an image, 0 or more.

    It is the mean over people of this ratio: other people's labelled joints inside the person's
    box, divided by the person's own labelled joints inside it (or by 1 where there are none).

    Args:
        keypoints: [P, J, 3], x, y and visibility; a joint is labelled where visibility > 0.
        boxes: [P, 4], x, y, width, height.
    """
    if not len(boxes):
        return 0.0
    low, high = boxes[:, None, None, :2], (boxes[:, :2] + boxes[:, 2:])[:, None, None]
    xy = keypoints[None, ..., :2]
    inside = ((xy >= low) & (xy <= high)).all(-1) & (keypoints[None, ..., 2] > 0)
    joints = inside.sum(-1)  # [box, person]
    own = np.diagonal(joints)
    return float(np.mean((joints.sum(1) - own) / np.maximum(own, 1)))
