"""Composition: where the camera is, who stands where, and the photograph that is taken."""

from dataclasses import dataclass

import cv2
import numpy as np

from dhn.data.crowding import crowd_index
from dhn.synth.annotate import body_box, seen_keypoints
from dhn.synth.background import Camera, draw_foreground, paint_background
from dhn.synth.body import STATURE, pose_body, random_pose
from dhn.synth.figure import Figure, draw_figure
from dhn.synth.look import random_look
from dhn.synth.render import Brush, Canvas, Light, soft_shadow

_FEWEST_VISIBLE = 4  # figures with fewer visible joints are taken out of the scene
_FOCAL = 1.2  # focal length over the height of the image
_ROW = 0.7  # metres in depth from one figure to the next, which only stretched limbs can cross


@dataclass(frozen=True)
class CrowdConfig:
    """What the crowds are like. Images are of three kinds: sparse, grouped and dense.

    Attributes:
        size: short side of the images in pixels.
        odds: the chance of each kind.
        people: for each kind, the lowest and highest number of people.
        stature: for each kind, the lowest and highest height of a standing person as a share of
            the image's height.
        spacing: for each kind, the lowest and highest distance of neighbours in metres.
        facing: the chance that a person is turned roughly to the camera, as most people in
            photographs are; the others are turned in any direction.
        occluder: the chance of an object in front of the crowd.
        closeup: the chance that tall people stand too near for their feet to be in the image.
    """

    size: int = 240
    odds: tuple[float, float, float] = (0.45, 0.33, 0.22)
    people: tuple[tuple[int, int], ...] = ((1, 2), (3, 5), (6, 11))
    stature: tuple[tuple[float, float], ...] = ((0.7, 0.95), (0.6, 0.95), (0.5, 0.85))
    spacing: tuple[tuple[float, float], ...] = ((0.4, 1.4), (0.25, 1.0), (0.2, 0.6))
    facing: float = 0.75
    occluder: float = 0.2
    closeup: float = 0.15


@dataclass(frozen=True)
class Scene:
    """A finished image and its people.

    Attributes:
        image: RGB uint8 [H, W, 3].
        keypoints: float64 [P, 14, 3]: x and y in pixels, and visibility 0, 1 or 2.
        boxes: float64 [P, 4]: x, y, width, height in pixels.
    """

    image: np.ndarray
    keypoints: np.ndarray
    boxes: np.ndarray

    @property
    def crowd_index(self) -> float:
        """CrowdPose's measure of crowding, 0 or more."""
        return crowd_index(self.keypoints, self.boxes)


_ASPECTS = ((4, 3), (4, 3), (3, 2), (1, 1), (3, 4))


def make_scene(rng: np.random.Generator, config: CrowdConfig) -> Scene:
    """Draws one image. Everything in it comes from `rng`."""
    across, down = _ASPECTS[rng.integers(len(_ASPECTS))]
    unit = config.size / min(across, down)
    size = round(across * unit), round(down * unit)
    level = int(rng.choice(3, p=config.odds))
    stature = float(rng.uniform(*config.stature[level]))
    camera = place_camera(rng, config, size, stature)
    light = random_light(rng)
    background = paint_background(rng, camera, light)
    occluder = int(rng.integers(1 << 31)) if rng.random() < config.occluder else None
    figures = _gather(rng, config, camera, level, stature)
    while True:
        canvas = draw_crowd(background, figures, light, occluder)
        keypoints = np.array([seen_keypoints(canvas, f, k) for k, f in enumerate(figures)])
        seen = (keypoints[..., 2] == 2).sum(1) >= _FEWEST_VISIBLE
        if seen.all():
            break
        # No network can be expected to find hidden people. They leave, and all is drawn again.
        figures = [f for f, keep in zip(figures, seen, strict=True) if keep]
        figures = figures or _gather(rng, config, camera, level, stature)
    boxes = np.array([body_box(f, size) for f in figures])
    return Scene(_develop(rng, canvas.rgb), keypoints, boxes)


def random_light(rng: np.random.Generator) -> Light:
    direction = np.array([rng.uniform(-1, 1), rng.uniform(0.3, 1), rng.uniform(0.2, 0.9)])
    return Light(direction / np.linalg.norm(direction), float(rng.uniform(0.35, 0.65)))


def place_camera(
    rng: np.random.Generator, config: CrowdConfig, size: tuple[int, int], stature: float
) -> Camera:
    """A camera that sees the nearest person's feet low in the image, and the head as well.

    `stature` is the height of a standing person there over the height of the image.
    """
    feet = rng.uniform(max(0.8, stature + 0.03), 0.99)
    if stature > 0.6 and rng.random() < config.closeup:
        feet = rng.uniform(1.0, 1.0 + 0.3 * stature)
    horizon = rng.uniform(0.2, 0.4)
    height = (feet - horizon) * STATURE / stature
    pitch = np.degrees(np.arctan2(height - 0.9, _FOCAL * STATURE / stature))
    return Camera(size, float(horizon * size[1]), float(height), float(pitch))


def _gather(
    rng: np.random.Generator, config: CrowdConfig, camera: Camera, level: int, stature: float
) -> list[Figure]:
    """Chooses the figures and their places, sorted from far to near."""
    width, height = camera.size
    count = int(rng.integers(config.people[level][0], config.people[level][1] + 1))
    scale = stature * height / STATURE
    # People in one image stand at different distances, and so differ in size.
    scales = scale * np.exp(-np.abs(rng.normal(0, rng.uniform(0.05, 0.3), count)))
    scales = np.maximum(scales, 0.3 * height / STATURE)
    gap = min(rng.uniform(*config.spacing[level]) * scale, 0.9 * width / count)
    places = (np.arange(count) - (count - 1) / 2 + rng.normal(0, 0.2, count)) * gap
    places += width / 2 + rng.uniform(-0.5, 0.5) * max(0.0, 0.85 * width - gap * count)
    figures = []
    for depth, (own, x) in enumerate(zip(np.sort(scales), rng.permutation(places), strict=True)):
        x = np.clip(x, min(0.2 * own, width / 2), max(width - 0.2 * own, width / 2))
        pose = random_pose(rng, facing=config.facing)
        lift = rng.uniform(0.05, 0.35) if pose.legs == "jump" else 0.0
        body = pose_body(pose, pitch=camera.pitch, lift=lift)
        view = camera.view(float(x), float(own), depth=_ROW * depth)
        figures.append(Figure(body, random_look(rng), view))
    return figures


def draw_crowd(
    background: np.ndarray, figures: list[Figure], light: Light, occluder: int | None = None
) -> Canvas:
    """Draws figures, the far ones first, and perhaps an object in front of them.

    Args:
        background: float32 [H, W, 3], 0..255.
        figures: figure k owns the pixels that have `owner` k on the canvas.
        light: lights all of them.
        occluder: the seed of the object in front; None for no object.
    """
    canvas = Canvas(background)
    for figure in figures:
        x, y, _ = figure.view.project(figure.body.ground).tolist()
        radii = 0.45 * figure.view.scale, 0.13 * figure.view.scale
        soft_shadow(canvas, (x, y), radii, 0.55)
    for owner, figure in enumerate(figures):
        draw_figure(Brush(canvas, figure.view, light, owner), figure)
    if occluder is not None:
        draw_foreground(np.random.default_rng(occluder), canvas, light)
    return canvas


def _develop(rng: np.random.Generator, rgb: np.ndarray) -> np.ndarray:
    """Adds the exposure, colour cast, blur and grain of a photograph; gives uint8 [H, W, 3]."""
    rgb = rgb * (rng.uniform(0.8, 1.15) * rng.uniform(0.95, 1.05, 3)).astype(np.float32)
    if rng.random() < 0.4:
        rgb = cv2.GaussianBlur(rgb, (0, 0), rng.uniform(0.3, 0.8))
    grain = rng.integers(0, 256, rgb.shape, np.uint8)
    rgb = rgb + (grain - np.float32(127.5)) * np.float32(rng.uniform(0, 12) / 256)
    return np.clip(rgb, 0, 255).astype(np.uint8)
