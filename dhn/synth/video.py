"""Procedural videos of people who walk, cross, hide each other, leave and return; ids are known."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from dhn.base.files import write_json, written_whole
from dhn.base.progress import Progress, silent
from dhn.media.video import VideoWriter
from dhn.synth.annotate import CATEGORY, annotation, body_box, seen_keypoints
from dhn.synth.background import Camera, paint_background
from dhn.synth.body import STATURE, Pose, pose_body
from dhn.synth.figure import Figure
from dhn.synth.look import Look, random_look
from dhn.synth.scene import CrowdConfig, draw_crowd, place_camera, random_light

FPS = Fraction(25)
_ROW = 0.7  # metres in depth from one person to the next
_LEAVES = 0.6  # metres outside the image where people turn round


@dataclass(frozen=True)
class VideoConfig:
    """What a video is like.

    Attributes:
        size: (W, H) in pixels.
        frames: how many.
        people: how many people walk through it.
        stature: the height of the nearest person as a share of the image's height.
        speed: lowest and highest speed in metres per second.
        pan: how far the camera turns, as a share of the image's width.
    """

    size: tuple[int, int] = (320, 240)
    frames: int = 150
    people: int = 5
    stature: float = 0.7
    speed: tuple[float, float] = (0.7, 1.7)
    pan: float = 0.15


@dataclass(frozen=True)
class VideoFrame:
    """A drawn frame.

    Attributes:
        image: RGB uint8 [H, W, 3].
        ids: int [P], from 1: who is in the image, also where hidden.
        keypoints: float64 [P, 14, 3]: x and y in pixels, and visibility 0, 1 or 2.
        boxes: float64 [P, 4]: x, y, width, height in pixels.
    """

    image: np.ndarray
    ids: np.ndarray
    keypoints: np.ndarray
    boxes: np.ndarray


@dataclass(frozen=True)
class _Walker:
    """A person who walks to and fro at one depth.

    Attributes:
        look: clothes, skin and hair.
        start, speed: metres from the middle of the image, metres per second to the right.
        pause: seconds; when the person stands still for a second and a half.
        stride: metres of two steps.
        phase: 0..1, where in the two steps the person begins.
        scale: size relative to the nearest person.
        row: metres in depth.
        gesture: degrees, how far arms swing.
    """

    look: Look
    start: float
    speed: float
    pause: float
    stride: float
    phase: float
    scale: float
    row: float
    gesture: float


def draw_video(seed: int, config: VideoConfig | None = None) -> Iterator[VideoFrame]:
    """Draws a video frame by frame. Everything in it comes from the seed."""
    config = config or VideoConfig()
    rng = np.random.default_rng(seed)
    camera = place_camera(rng, CrowdConfig(closeup=0), config.size, config.stature)
    light = random_light(rng)
    width, height = config.size
    pan = round(config.pan * width)
    wide = paint_background(rng, replace(camera, size=(width + pan, height)), light)
    unit = config.stature * height / STATURE  # pixels per metre of the nearest person
    half = width / 2 / unit + _LEAVES
    walkers = _walkers(rng, config, half)
    for number in range(config.frames):
        time = float(number / FPS)
        shift = round(pan * (0.5 - 0.5 * np.cos(2 * np.pi * number / max(config.frames, 1))))
        figures = [
            _figure(walker, time, half, unit, camera, width / 2 + pan / 2 - shift)
            for walker in walkers
        ]
        background = wide[:, shift : shift + width]
        canvas = draw_crowd(np.ascontiguousarray(background), figures, light)
        keypoints = np.array([seen_keypoints(canvas, f, k) for k, f in enumerate(figures)])
        inside = (keypoints[..., 2] > 0).any(1)
        boxes = np.array([body_box(f, config.size) for f in figures])
        yield VideoFrame(
            np.clip(canvas.rgb, 0, 255).astype(np.uint8),
            np.flatnonzero(inside) + 1,
            keypoints[inside],
            boxes[inside],
        )


def _walkers(rng: np.random.Generator, config: VideoConfig, half: float) -> list[_Walker]:
    """The people, from far to near."""
    scales = np.sort(np.exp(-np.abs(rng.normal(0, 0.2, config.people))))
    return [
        _Walker(
            look=random_look(rng),
            start=float(rng.uniform(-half, half)),
            speed=float(rng.uniform(*config.speed) * rng.choice([-1, 1])),
            pause=float(rng.uniform(0, 8)),
            stride=float(rng.uniform(1.2, 1.5)),
            phase=float(rng.uniform()),
            scale=float(scale),
            row=_ROW * row,
            gesture=float(rng.uniform(15, 35)),
        )
        for row, scale in enumerate(scales)
    ]


def _figure(
    walker: _Walker, time: float, half: float, unit: float, camera: Camera, middle: float
) -> Figure:
    """The person at a time, in seconds."""
    # Nobody moves for a second and a half from the pause on.
    walked = walker.speed * (time - np.clip(time - walker.pause, 0, 1.5))
    reach = half / walker.scale
    # A way that goes on for ever, folded at both turning points.
    along = (walker.start + walked + reach) % (4 * reach)
    place = along - reach if along < 2 * reach else 3 * reach - along
    rightward = (walker.speed > 0) == (along < 2 * reach)
    swing = 2 * np.pi * (walker.phase + abs(walked) / walker.stride)
    step = np.sin(swing + np.array([0, np.pi]))  # left, right
    lift = np.cos(swing + np.array([0, np.pi]))
    leg = np.stack([25 * step + 3, [3.0, 3.0], 12 + 28 * np.clip(lift, 0, 1)], 1)
    arm = np.stack(
        [-walker.gesture * step, [6.0, 6.0], [10.0, 10.0], 20 + 8 * np.clip(-step, 0, 1)], 1
    )
    pose = Pose(legs="walk", leg=leg, arm=arm, spine=(4, 0, 0), yaw=75.0 if rightward else -75.0)
    body = pose_body(pose, pitch=camera.pitch)
    own = unit * walker.scale
    view = camera.view(float(middle + place * own), own, depth=walker.row)
    return Figure(body, walker.look, view)


def write_video(
    path: Path, seed: int, config: VideoConfig | None = None, *, progress: Progress = silent
) -> None:
    """Writes a video, and what is in it beside it.

    Args:
        path: an .mp4 file. STEM.json gets the people of each frame as a COCO file (`track_id` of
            an annotation is the person's id), and STEM.txt the boxes as MOTChallenge has them.
        seed: where all chance comes from.
        config: what the video is like.
        progress: shows how many frames are done.
    """
    config = config or VideoConfig()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    lines: list[str] = []
    writer = VideoWriter(path, FPS, config.size)
    with progress("Drawing", config.frames) as bar:
        for number, frame in enumerate(draw_video(seed, config)):
            writer.write(frame.image, number / FPS)
            width, height = config.size
            name = f"{path.stem}_{number:06d}.jpg"
            images.append({"id": number + 1, "file_name": name, "width": width, "height": height})
            for id, keypoints, box in zip(
                frame.ids.tolist(), frame.keypoints, frame.boxes, strict=True
            ):
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": number + 1, "track_id": id}
                    | annotation(keypoints, box)
                    | {"area": float(box[2] * box[3] / 2)}
                )
                left, top, across, down = box
                lines.append(
                    f"{number + 1},{id},{left:.2f},{top:.2f},{across:.2f},{down:.2f},1,-1,-1,-1\n"
                )
            bar.advance()
    writer.close()
    truth = {"images": images, "annotations": annotations, "categories": [CATEGORY]}
    write_json(path.with_suffix(".json"), truth)
    with written_whole(path.with_suffix(".txt")) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
