"""The folder that pages of the documentation assume: images, a video, data sets, weights, runs.

Everything is small: images of 96 pixels, networks of 8 channels with random weights that see people
everywhere. The published weights are such networks in the cache, so that nothing is downloaded.
"""

import json
import shutil
import subprocess
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

from coco_sets import results_of
from dhn.data.joints import COCO, CROWDPOSE
from dhn.media.images import read_image, write_image
from dhn.media.video import VideoWriter
from dhn.weights.zoo import PUBLISHED
from tiny_networks import save_network

CACHE = "cache"  # DHN_HOME, inside the folder


def make_world(folder: Path, crowds: Path) -> None:
    """Makes the folder; `crowds` are procedural ones in CrowdPose's layout."""
    folder.mkdir()
    shutil.copytree(crowds, folder / "data/crowdpose")
    photos = sorted((crowds / "images").glob("*.jpg"))
    _own_set(folder / "my_set", crowds)
    _images_and_video(folder, photos)
    save_network(folder / "best.pt", "higherhrnet")
    cache = folder / CACHE / "checkpoints"
    cache.mkdir(parents=True)
    for name, published in PUBLISHED.items():
        joints = COCO if "coco" in name else CROWDPOSE
        save_network(cache / published.file, "higherhrnet", joints)
    truth = json.loads((crowds / "json/crowdpose_val.json").read_text())
    (folder / "gt.json").write_text(json.dumps(truth))
    for name, noise in (("predictions", 1.0), ("mine", 1.0), ("theirs", 3.0)):
        found = results_of(truth, noise=noise)
        (folder / f"{name}.json").write_text(json.dumps(found))


def train_a_run(folder: Path, environment: Mapping[str, str]) -> None:
    """`runs/earlier`, a training that has ended."""
    command = ["dhn", "train", "--quiet", "--output", "runs/earlier", "data.split=train"]
    subprocess.run(command, cwd=folder, env=environment, check=True)
    shutil.copy(folder / "best.pt", folder / "runs/earlier/best.pt")


def _own_set(root: Path, crowds: Path) -> None:
    """A data set of one's own: COCO's keypoint format, a file for each split."""
    shutil.copytree(crowds / "images", root / "images")
    (root / "annotations").mkdir()
    for split in ("train", "val", "test"):
        raw = json.loads((crowds / f"json/crowdpose_{split}.json").read_text())
        for image in raw["images"]:
            del image["crowdIndex"]
        (root / "annotations" / f"{split}.json").write_text(json.dumps(raw))


def _images_and_video(folder: Path, photos: list[Path]) -> None:
    shutil.copy(photos[0], folder / "photo.jpg")
    for name in ("holiday", "raw"):
        (folder / name).mkdir()
    for number, photo in enumerate(photos[:2]):
        shutil.copy(photo, folder / "holiday" / photo.name)
        write_image(folder / "raw" / f"{number}.png", read_image(photo))
    writer = VideoWriter(folder / "video.mp4", Fraction(25), (96, 96))
    for number, photo in enumerate(photos[:2]):
        writer.write(read_image(photo)[:96, :96], Fraction(number, 25))
    writer.close()
