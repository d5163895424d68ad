"""Small data sets written in one layout or another, and what must come back from them."""

import json

import cv2
import numpy as np
from click.testing import CliRunner

from coco_sets import PAW, make_set
from dhn.cli import main
from dhn.data.dataset import PoseDataset


def write_noise(path, width=160, height=120):
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(str(path).encode())
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    assert cv2.imwrite(str(path), pixels)


def paws(seed=0, start=1):
    """Five images with a joint set of its own. Ids begin with `start`."""
    raw = make_set(5, joints=PAW, crowd_index=False, seed=seed)
    for image in raw["images"]:
        image["file_name"] = f"{seed}_{image['file_name']}"
        image["id"] += start - 1
    for person in raw["annotations"]:
        person["id"] += start - 1
        person["image_id"] += start - 1
    return raw


def write(json_file, images, raw):
    json_file.parent.mkdir(parents=True, exist_ok=True)
    json_file.write_text(json.dumps(raw))
    for image in raw["images"]:
        write_noise(images / image["file_name"])


def check(dataset):
    """`dhn data check` finds no error; what it prints."""
    result = CliRunner().invoke(main, ["data", "check", str(dataset), "--quiet"])
    assert result.exit_code == 0, result.output
    assert f"{dataset}: no errors" in result.output
    return result.output


def assert_holds(annotations, raw, folder):
    """Images and keypoints are those of the dictionary, and all images can be trained on."""
    assert [image.path for image in annotations.images] == [
        folder / image["file_name"] for image in raw["images"]
    ]
    assert all(image.path.is_file() for image in annotations.images)
    ours = [p.keypoints.ravel().tolist() for image in annotations.images for p in image.people]
    theirs = [np.float32(person["keypoints"]).tolist() for person in raw["annotations"]]
    assert sorted(ours) == sorted(theirs)
    dataset = PoseDataset(annotations, input_size=64, augmentation=None)
    assert dataset.sample(0, 0).image.shape == (64, 64, 3)
