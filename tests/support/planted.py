"""Crowds as a COCO dictionary, and predictions that err in known ways, for tests of evaluation."""

from typing import Any

import numpy as np

from dhn.data.joints import CROWDPOSE, JointSet


def crowd_set(images: int, people: int = 4, *, joints: JointSet = CROWDPOSE, seed: int = 0):
    """People of 120 x 240 pixels side by side, each with all joints far from each other.

    Joints of a person lie on a grid and neighbours one width apart, so that a joint that takes
    another one's place is as wrong as can be.
    """
    rng = np.random.default_rng(seed)
    J = len(joints)
    grid = np.stack([np.arange(J) % 2 * 80.0 + 20, np.arange(J) // 2 * 30.0 + 15], -1)
    raw: dict[str, Any] = {"images": [], "annotations": []}
    raw["categories"] = [{"id": 1, "name": "person", "keypoints": list(joints.names)}]
    for image in range(1, images + 1):
        size = {"width": 140 * people, "height": 30 * J // 2 + 60}
        index = {"crowdIndex": round(float(rng.uniform(0, 1)), 3)}
        raw["images"].append({"id": image, "file_name": f"{image}.png", **size, **index})
        for person in range(people):
            xy = grid + rng.uniform(-3, 3, (J, 2)) + (140 * person, 20)
            keypoints = np.column_stack([xy.round(2), np.full(J, 2)])
            raw["annotations"].append(
                {
                    "id": len(raw["annotations"]) + 1,
                    "image_id": image,
                    "category_id": 1,
                    "keypoints": keypoints.ravel().tolist(),
                    "num_keypoints": J,
                    "bbox": [140.0 * person, 10.0, 120.0, 15.0 * J + 20],
                    "area": 120 * 15.0 * J * 0.53,
                    "iscrowd": 0,
                }
            )
    return raw


def predictions_of(raw: dict[str, Any], keypoints: np.ndarray, scores: np.ndarray):
    """COCO results, one for each annotation: keypoints [G, J, 2] and scores [G]."""
    return [
        {
            "image_id": person["image_id"],
            "category_id": 1,
            "keypoints": np.column_stack([xy, np.ones(len(xy))]).ravel().tolist(),
            "score": float(score),
        }
        for person, xy, score in zip(raw["annotations"], keypoints, scores, strict=True)
    ]


def annotated(raw: dict[str, Any]) -> np.ndarray:
    """The annotated joints, float64 [G, J, 3]."""
    people = [person["keypoints"] for person in raw["annotations"]]
    return np.array(people, float).reshape(len(people), -1, 3)
