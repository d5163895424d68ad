"""Small annotated sets for tests: made from a seed, or image by image."""

import json
from typing import Any

import cv2
import numpy as np

from dhn.data.joints import CROWDPOSE, DEFAULT_SIGMA, JointSet
from dhn.media.images import write_image

PAW = JointSet("paw", ("nose", "l_ear", "r_ear", "tail"), (), (0, 2, 1, 3), (DEFAULT_SIGMA,) * 4)


def make_set(
    images: int = 6, joints: JointSet = CROWDPOSE, *, seed: int = 0, crowd_index: bool = True
) -> dict[str, Any]:
    """A COCO dictionary with up to four people in an image, unlabelled joints and crowds."""
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
    """COCO results that are the annotated people themselves, `noise` pixels off."""
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


def write_images(folder, raw):
    """Writes an image of noise for every image of a COCO dictionary."""
    (folder / "images").mkdir(exist_ok=True)
    rng = np.random.default_rng(raw["images"][0]["id"])
    for image in raw["images"]:
        pixels = rng.integers(0, 255, (image["height"], image["width"], 3), np.uint8)
        cv2.imwrite(str(folder / "images" / image["file_name"]), pixels)


class CrowdFolder:
    """A CrowdPose folder of PNG images, written on demand."""

    def __init__(self, root):
        self.root = root
        self.raw = {"images": [], "annotations": []}
        self.raw["categories"] = [{"id": 1, "name": "person", "keypoints": list(CROWDPOSE.names)}]
        (root / "images").mkdir()
        (root / "json").mkdir()

    def image(self, rgb=None, **fields):
        n = len(self.raw["images"]) + 1
        rgb = np.zeros((130, 180, 3), np.uint8) if rgb is None else rgb
        entry = {"id": n, "file_name": f"{n}.png", "height": rgb.shape[0], "width": rgb.shape[1]}
        self.raw["images"].append(entry | fields)
        write_image(self.root / "images" / f"{n}.png", rgb)
        return self

    def person(self, joints, **fields):
        """Adds a person to the last image; joints are {name: (x, y, v)}."""
        keypoints = [v for name in CROWDPOSE.names for v in joints.get(name, (0, 0, 0))]
        person = {
            "id": len(self.raw["annotations"]) + 1,
            "image_id": len(self.raw["images"]),
            "category_id": 1,
            "keypoints": keypoints,
            "num_keypoints": len(joints),
            "bbox": [10, 10, 50, 50],
            "iscrowd": 0,
        }
        self.raw["annotations"].append(person | fields)
        return self

    def write(self):
        """Writes the labels so far as the split train, and returns the folder."""
        (self.root / "json" / "crowdpose_train.json").write_text(json.dumps(self.raw))
        return self.root


STANDING = np.array(
    # Shoulders, elbows, wrists, hips, knees, ankles, head and neck of somebody who faces us.
    [
        (60, 40),
        (40, 40),
        (65, 55),
        (35, 55),
        (66, 70),
        (34, 70),
        (56, 70),
        (44, 70),
        (56, 90),
        (44, 90),
        (56, 110),
        (44, 110),
        (50, 20),
        (50, 35),
    ],
    float,
)


def standing_set(people, *, swap=(), seed=0):
    """Images of one person each, turned and jittered.

    In the first of them, left and right of the pairs `swap` are exchanged.
    """
    rng = np.random.default_rng(seed)
    raw = make_set(images=people, crowd_index=False)
    raw["annotations"] = []
    for id in range(1, people + 1):
        angle = rng.uniform(-0.5, 0.5)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        xy = (STANDING - 65) @ turn.T + 65 + rng.normal(0, 1, STANDING.shape)
        if id == 1:
            for j in swap:
                xy[[j, j + 1]] = xy[[j + 1, j]]
        keypoints = np.column_stack([xy, np.full(14, 2)]).round(2)
        raw["annotations"].append(
            {
                "id": id,
                "image_id": id,
                "category_id": 1,
                "bbox": [10, 10, 100, 100],
                "keypoints": keypoints.ravel().tolist(),
                "num_keypoints": 12,
                "iscrowd": 0,
            }
        )
    return raw
