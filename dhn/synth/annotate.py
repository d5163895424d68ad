"""What CrowdPose would say about a drawn crowd."""

from typing import Any

import numpy as np

from dhn.data.joints import CROWDPOSE
from dhn.synth.figure import Person
from dhn.synth.render import Canvas

# A joint is seen if the surface at its pixel is its own body's and at most so many metres nearer
# than the joint: the flesh around it, and not an arm or a thigh in front of it.
_FLESH = np.array([0.12, 0.12, 0.1, 0.1, 0.09, 0.09, 0.17, 0.17, 0.12, 0.12, 0.1, 0.1, 0.14, 0.13])

CATEGORY = {
    "id": 1,
    "name": "person",
    "supercategory": "person",
    "keypoints": list(CROWDPOSE.names),
    "skeleton": [[a + 1, b + 1] for a, b in CROWDPOSE.skeleton],
}


def seen_keypoints(canvas: Canvas, person: Person, owner: int) -> np.ndarray:
    """Keypoints of a drawn person, [14, 3].

    Returns:
        x, y in pixels (hundredths) and visibility: 2 seen, 1 inside the image but hidden by
        something, somebody or the person's own body, 0 (and x = y = 0) outside.
    """
    height, width = canvas.depth.shape
    x, y, z = person.keypoints.T
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    column = np.clip(x, 0, width - 1).astype(int)
    row = np.clip(y, 0, height - 1).astype(int)
    own = canvas.owner[row, column] == owner
    near = canvas.depth[row, column] - z < _FLESH * person.look.girth
    seen = np.where(own & near, 2, 1)
    return np.column_stack([x, y, seen]).round(2) * inside[:, None]


def body_box(person: Person, size: tuple[int, int]) -> np.ndarray:
    """Box [4] (x, y, width, height) around the body, hidden parts included, cut at the image.

    `size` is the image's (W, H).
    """
    body = person.body
    trunk, limbs = body.joints[[0, 1, 6, 7]], body.joints[[2, 3, 4, 5, 8, 9, 10, 11, 13]]
    places = np.concatenate(
        [trunk, limbs, body.hands, body.heels, body.toes, [body.head, body.joint("head")]]
    )
    flesh = np.repeat([0.085, 0.05, 0.09, 0.01], [len(trunk), len(limbs) + 6, 1, 1])
    xy = person.view.project(places)[:, :2]
    flesh = (flesh * person.look.girth * person.view.scale)[:, None]
    low, high = np.clip((xy - flesh).min(0), 0, size), np.clip((xy + flesh).max(0), 0, size)
    return np.concatenate([low, high - low]).round(2)


def annotation(keypoints: np.ndarray, box: np.ndarray) -> dict[str, Any]:
    """An annotation less its ids; as in CrowdPose, `num_keypoints` counts joints 0-11 only."""
    return {
        "category_id": CATEGORY["id"],
        "keypoints": [float(v) if v % 1 else int(v) for v in keypoints.ravel()],
        "num_keypoints": int((keypoints[:12, 2] > 0).sum()),
        "bbox": box.tolist(),
        "iscrowd": 0,
    }
