"""Small annotated sets for tests, made from a seed."""

from typing import Any

import numpy as np

from dhn.joints import CROWDPOSE, DEFAULT_SIGMA, JointSet

PAW = JointSet("paw", ("nose", "l_ear", "r_ear", "tail"), (), (0, 2, 1, 3), (DEFAULT_SIGMA,) * 4)


def make_set(
    images: int = 6, joints: JointSet = CROWDPOSE, *, seed: int = 0, crowd_index: bool = True
) -> dict[str, Any]:
    """A COCO dictionary: zero to four people a picture, some joints unlabelled, some crowds."""
    rng = np.random.default_rng(seed)
    J = len(joints)
    raw: dict[str, Any] = {"images": [], "annotations": []}
    raw["categories"] = [{"id": 1, "name": "person", "keypoints": list(joints.names)}]
    for image_id in range(1, images + 1):
        image = {"id": image_id, "file_name": f"{image_id}.png", "width": 160, "height": 120}
        if crowd_index:
            image["crowdIndex"] = round((image_id - 1) / max(images - 1, 1), 3)
        raw["images"].append(image)
        for _ in range(rng.integers(0, 5) if image_id > 1 else 2):
            keypoints = np.zeros((J, 3))
            keypoints[:, :2] = rng.uniform((20, 10), (140, 110), (J, 2)).round(2)
            keypoints[:, 2] = rng.integers(0, 3, J)
            keypoints[0, 2] = 2
            keypoints[keypoints[:, 2] == 0] = 0
            xy = keypoints[keypoints[:, 2] > 0, :2]
            (x0, y0), (x1, y1) = xy.min(axis=0).tolist(), xy.max(axis=0).tolist()
            raw["annotations"].append(
                {
                    "id": len(raw["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": 1,
                    "keypoints": keypoints.ravel().tolist(),
                    "num_keypoints": int((keypoints[:, 2] > 0).sum()),
                    "bbox": [x0 - 5, y0 - 5, x1 - x0 + 10, y1 - y0 + 10],
                    "area": (x1 - x0 + 10) * (y1 - y0 + 10) * 0.6,
                    "iscrowd": int(rng.random() < 0.1 and image_id > 1),
                }
            )
    return raw


def results_of(raw: dict[str, Any], *, noise: float = 0.0, seed: int = 0) -> list[dict[str, Any]]:
    """COCO results: the annotated people themselves, `noise` pixels off."""
    rng = np.random.default_rng(seed)
    results = []
    for person in raw["annotations"]:
        keypoints = np.array(person["keypoints"], float).reshape(-1, 3)
        keypoints[:, :2] += rng.normal(0, 1, (len(keypoints), 2)) * noise
        results.append(
            {
                "image_id": person["image_id"],
                "category_id": 1,
                "keypoints": keypoints.ravel().tolist(),
                "score": round(float(rng.random()), 2),
            }
        )
    return results
