"""A predictor that needs no network: it finds as many people as the blue of an image says."""

import json
import os
import signal
from fractions import Fraction
from types import SimpleNamespace

import numpy as np

from dhn.data.joints import CROWDPOSE
from dhn.inference.people import People
from dhn.media.video import VideoWriter

POSE = np.column_stack([np.linspace(10, 50, 14), np.linspace(5, 40, 14), np.full(14, 0.9)])
POSE[3] = 20, 20, 0  # not found


class Predictor:
    """Finds as many people as the image's blue value says, 3 px apart."""

    joints = CROWDPOSE
    source = "runs/test/best.pt"
    settings = {"flip": True}  # noqa: RUF012

    def __init__(self):
        self.timing = SimpleNamespace(images=0, network_seconds=0.0, decode_seconds=0.0)
        self.batches = []
        self.interrupt_after = None
        self.stop = None  # the event that ends the run, from `run` in conftest.py

    def infer(self, images):
        if self.timing.images == self.interrupt_after:
            os.kill(os.getpid(), signal.SIGINT)  # which is the main thread's business
            assert self.stop.wait(300)  # however late that thread has its turn
        self.batches.append(len(images))
        self.timing.images += len(images)
        self.timing.network_seconds += 0.1 * len(images)
        self.timing.decode_seconds += 0.01 * len(images)
        return images

    def decoded(self, images):
        return [self._predict(image) for image in images]

    def _predict(self, image):
        people = round(float(image[..., 2].mean()) / 10)
        keypoints = np.repeat(POSE[None], people, 0)
        keypoints[..., 0] += 3 * np.arange(people)[:, None]
        scores = 0.9 - 0.1 * np.arange(people)
        return People(keypoints.astype(np.float32), scores.astype(np.float32), CROWDPOSE, image)


def image(people, height=48, width=64):
    rgb = np.full((height, width, 3), 100, np.uint8)
    rgb[..., 2] = 10 * people
    return rgb


def make_video(path, people, size=(64, 48), fps=Fraction(25)):
    writer = VideoWriter(path, fps, size)
    for i, count in enumerate(people):
        writer.write(image(count, size[1], size[0]), i / fps)
    writer.close()


def lines(path):
    """What JSON lines hold after their header."""
    header, *frames = (json.loads(line) for line in path.read_text().splitlines())
    assert header["format"] == "dhn-predictions-1"
    return frames


def images(path):
    """What a JSON document holds besides its header."""
    return json.loads(path.read_text())["images"]


def names(folder):
    return sorted(os.listdir(folder))
