"""The annotations that CrowdPose would have for a drawn crowd."""

from typing import Any

import numpy as np

from dhn.data.joints import CROWDPOSE
from dhn.synth.figure import Figure
from dhn.synth.render import Canvas

# A joint is seen if the surface at its pixel belongs to its own body and is at most so many metres
# nearer than the joint. Then it is the flesh around the joint, not an arm or a thigh before it.
_FLESH = np.array([0.12, 0.12, 0.1, 0.1, 0.09, 0.09, 0.17, 0.17, 0.12, 0.12, 0.1, 0.1, 0.14, 0.13])

CATEGORY = {
    "id": 1,
    "name": "person",
    "supercategory": "person",
    "keypoints": list(CROWDPOSE.names),
    "skeleton": [[a + 1, b + 1] for a, b in CROWDPOSE.skeleton],
}


def seen_keypoints(canvas: Canvas, figure: Figure, owner: int) -> np.ndarray:
    """The keypoints of a drawn figure.

    Args:
        canvas: the finished drawing.
        figure: one of the figures in it.
        owner: the figure's number on the canvas.

    Returns:
        float64 [14, 3]: x and y in pixels, rounded to hundredths, and visibility: 2 for a joint
        that is seen, 1 for one that is inside the image but hidden by an object, somebody else or
        the figure's own body, 0 (and x = y = 0) for one outside the image.
    """
    height, width = canvas.depth.shape
    x, y, z = figure.keypoints.T
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    column = np.clip(x, 0, width - 1).astype(int)
    row = np.clip(y, 0, height - 1).astype(int)
    own = canvas.owner[row, column] == owner
    near = canvas.depth[row, column] - z < _FLESH * figure.look.girth
    seen = np.where(own & near, 2, 1)
    return np.column_stack([x, y, seen]).round(2) * inside[:, None]


def body_box(figure: Figure, size: tuple[int, int]) -> np.ndarray:
    """The box around a body with its hidden parts, cut at the border of the image.

    Args:
        figure: the figure.
        size: (W, H) of the image.

    Returns:
        float64 [4]: x, y, width, height in pixels.
    """
    body = figure.body
    trunk, limbs = body.joints[[0, 1, 6, 7]], body.joints[[2, 3, 4, 5, 8, 9, 10, 11, 13]]
    places = np.concatenate(
        [trunk, limbs, body.hands, body.heels, body.toes, [body.head, body.joint("head")]]
    )
    flesh = np.repeat([0.085, 0.05, 0.09, 0.01], [len(trunk), len(limbs) + 6, 1, 1])
    xy = figure.view.project(places)[:, :2]
    flesh = (flesh * figure.look.girth * figure.view.scale)[:, None]
    low, high = np.clip((xy - flesh).min(0), 0, size), np.clip((xy + flesh).max(0), 0, size)
    return np.concatenate([low, high - low]).round(2)


def annotation(keypoints: np.ndarray, box: np.ndarray) -> dict[str, Any]:
    """An annotation without ids. As in CrowdPose, `num_keypoints` counts only joints 0 to 11."""
    return {
        "category_id": CATEGORY["id"],
        "keypoints": [float(v) if v % 1 else int(v) for v in keypoints.ravel()],
        "num_keypoints": int((keypoints[:12, 2] > 0).sum()),
        "bbox": box.tolist(),
        "iscrowd": 0,
    }
