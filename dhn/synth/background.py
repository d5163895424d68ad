"""Cluttered places for a crowd to stand in: rooms and open air, furniture, poles, foliage."""

from dataclasses import dataclass

import cv2
import numpy as np

from dhn.synth.render import Canvas, Light, Paint, View, draw_ellipsoid, draw_strip


@dataclass(frozen=True)
class Camera:
    """Relates the size of a person to the place of the feet.

    Attributes:
        size: (W, H) in pixels.
        horizon: y of the horizon, pixels.
        height: metres of the camera above the ground.
        pitch: degrees by which bodies are seen from above.
    """

    size: tuple[int, int]
    horizon: float
    height: float
    pitch: float

    def view(self, x: float, scale: float) -> View:
        """A body of `scale` pixels per metre whose origin is the ground at pixel column x."""
        focal = 1.2 * self.size[1]
        return View(scale, (x, self.horizon + self.height * scale), -focal / scale)


def paint_background(rng: np.random.Generator, camera: Camera, light: Light) -> Canvas:
    """A place without people."""
    width, height = camera.size
    indoors = rng.random() < 0.5
    y = (np.arange(height, dtype=np.float32) + 0.5)[:, None]
    x = (np.arange(width, dtype=np.float32) + 0.5)[None]
    wall = _wall(rng, camera, x, y, indoors)
    edge = camera.horizon + camera.height * _far_scale(camera)
    ground = np.clip(y - edge + 0.5, 0, 1)[..., None]
    image = wall + ground * (_floor(rng, camera, x, y, indoors) - wall)
    cloud = cv2.resize(
        rng.uniform(-1, 1, (5, 7)).astype(np.float32),
        (width, height),
        interpolation=cv2.INTER_CUBIC,
    )
    image += rng.uniform(4, 16) * cloud[..., None]
    _hang_pictures(rng, image, edge)
    canvas = Canvas(np.clip(image, 0, 255))
    for scale in np.sort(rng.uniform(_far_scale(camera), 0.3 * height, rng.integers(3, 9))):
        _place_thing(rng, canvas, camera.view(rng.uniform(0, width), float(scale)), light)
    # Things stand behind everybody: only people occlude by depth.
    canvas.depth[:] = -np.inf
    return canvas


def _far_scale(camera: Camera) -> float:
    """Pixels per metre where the floor ends."""
    return 0.1 * camera.size[1]


def random_colour(
    rng: np.random.Generator, low: float = 40, high: float = 230, saturation: float = 0.5
) -> np.ndarray:
    grey = rng.uniform(low, high)
    return np.clip(grey * (1 + saturation * rng.uniform(-0.6, 0.6, 3)), 0, 255).astype(np.float32)


def _wall(
    rng: np.random.Generator, camera: Camera, x: np.ndarray, y: np.ndarray, indoors: bool
) -> np.ndarray:
    first, second = random_colour(rng, 90, 235, 0.3), random_colour(rng, 90, 235, 0.3)
    if not indoors:
        first, second = np.array([(110, 160, 220), (200, 215, 230)], np.float32) * np.float32(
            rng.uniform(0.75, 1.1)
        )
    image = first + (y / camera.size[1])[..., None] * (second - first) + np.zeros_like(x)[..., None]
    if indoors and rng.random() < 0.6:
        period = rng.uniform(0.04, 0.16) * camera.size[1]
        lines = np.abs(((x + rng.uniform(0, period)) / period) % 1 - 0.5) * period
        if rng.random() < 0.4:
            lines = np.minimum(lines, np.abs((y / period * 2) % 1 - 0.5) * period / 2)
        image -= rng.uniform(8, 40) * np.clip(1.5 - lines, 0, 1)[..., None]
    return image.astype(np.float32)


def _floor(
    rng: np.random.Generator, camera: Camera, x: np.ndarray, y: np.ndarray, indoors: bool
) -> np.ndarray:
    colour = random_colour(rng, 70, 210, 0.35)
    if not indoors and rng.random() < 0.5:
        colour = np.array([105, 135, 75], np.float32) * np.float32(rng.uniform(0.7, 1.2))
    below = np.maximum(y - camera.horizon, 1)
    image = colour * (0.8 + 0.3 * y / camera.size[1])[..., None] + np.zeros_like(x)[..., None]
    if rng.random() < 0.6:
        # Tiles: metres on the floor from pixels, by the camera's height.
        across = (x - camera.size[0] / 2) * camera.height / below
        away = 1.2 * camera.size[1] * camera.height / below + np.zeros_like(x)
        size = rng.uniform(0.4, 1.0)
        tiles = ((np.floor(across / size) + np.floor(away / size)) % 2) - 0.5
        fade = np.clip(below / camera.size[1] * 3, 0, 1)
        image += rng.uniform(8, 40) * (tiles * fade)[..., None]
    return image.astype(np.float32)


def _hang_pictures(rng: np.random.Generator, image: np.ndarray, edge: float) -> None:
    """Windows, posters and doors on the wall: plain rectangles with a frame."""
    height, width = image.shape[:2]
    for _ in range(rng.integers(1, 6)):
        w, h = rng.uniform(0.06, 0.25, 2) * height
        x, y = rng.uniform(-w / 2, width), rng.uniform(0, max(1.0, edge - h))
        outer = (int(x), int(y)), (int(x + w), int(min(y + h, edge)))
        frame = max(1, int(0.012 * height))
        inner = (
            (outer[0][0] + frame, outer[0][1] + frame),
            (outer[1][0] - frame, outer[1][1] - frame),
        )
        cv2.rectangle(image, *outer, random_colour(rng).tolist(), -1)
        if inner[0] < inner[1]:
            cv2.rectangle(image, *inner, random_colour(rng).tolist(), -1)


def _place_thing(rng: np.random.Generator, canvas: Canvas, view: View, light: Light) -> None:
    [_box, _pole, _bush, _rack][rng.choice(4, p=[0.35, 0.25, 0.2, 0.2])](rng, canvas, view, light)


def _plain(colour: np.ndarray) -> Paint:
    return lambda _: colour


def _box(rng: np.random.Generator, canvas: Canvas, view: View, light: Light) -> None:
    """Furniture: a front, a top and a side, each with its own share of the light."""
    w, h, d = rng.uniform(0.3, 1.2), rng.uniform(0.3, 1.1), rng.uniform(0.1, 0.35)
    colour, slant = random_colour(rng), rng.choice([-1, 1]) * d * 0.6
    front = np.array([(0, 0), (w, 0), (w, h), (0, h)])
    top = np.array([(0, h), (w, h), (w + slant, h + d * 0.5), (slant, h + d * 0.5)])
    edge = w if slant > 0 else 0.0
    side = np.array([(edge, 0), (edge, h), (edge + slant, h + d * 0.5), (edge + slant, d * 0.5)])
    for face, brightness in ((top, 1.1), (side, 0.7), (front, 0.92)):
        pixels = (face * (view.scale, -view.scale) + view.origin) * 16 - 8
        cv2.fillConvexPoly(
            canvas.rgb,
            pixels.round().astype(np.int32),
            (colour * brightness).clip(0, 255).tolist(),
            cv2.LINE_AA,
            4,
        )


def _pole(rng: np.random.Generator, canvas: Canvas, view: View, light: Light) -> None:
    tall, thick = rng.uniform(0.8, 3.0), rng.uniform(0.02, 0.12)
    lean = rng.normal(0, 0.15)
    draw_strip(
        canvas,
        view,
        np.array([(0, 0, 0), (lean, tall, 0)]),
        np.full(2, thick),
        _plain(random_colour(rng)),
        light,
        cap=0.02,
    )


def _bush(rng: np.random.Generator, canvas: Canvas, view: View, light: Light) -> None:
    colour = np.array([70, 110, 55]) * rng.uniform(0.6, 1.3) * rng.uniform(0.8, 1.2, 3)
    for _ in range(rng.integers(4, 10)):
        size = rng.uniform(0.12, 0.35)
        centre = np.array([rng.normal(0, 0.35), rng.uniform(0.1, 1.2), rng.normal(0, 0.2)])
        draw_ellipsoid(
            canvas,
            view,
            centre,
            np.eye(3),
            (size, size * 0.85, size),
            _plain(colour * rng.uniform(0.8, 1.2)),
            light,
        )


def _rack(rng: np.random.Generator, canvas: Canvas, view: View, light: Light) -> None:
    """Bars in the colours and sizes of limbs, at any angle."""
    for _ in range(rng.integers(2, 6)):
        start = np.array([rng.normal(0, 0.4), rng.uniform(0.1, 1.5), 0])
        angle, length = rng.uniform(0, np.pi), rng.uniform(0.2, 0.6)
        end = start + length * np.array([np.cos(angle), np.sin(angle), 0])
        draw_strip(
            canvas,
            view,
            np.array([start, end]),
            rng.uniform(0.03, 0.08, 2),
            _plain(random_colour(rng)),
            light,
        )


def draw_foreground(rng: np.random.Generator, canvas: Canvas, light: Light) -> None:
    """Something near the camera that hides a part of the crowd."""
    height, width = canvas.depth.shape
    view = View(
        0.55 * height,
        (float(rng.uniform(0, width)), float(rng.uniform(1.0, 1.25)) * height),
        np.inf,
    )
    view = View(view.scale, view.origin, 0.0)
    if rng.random() < 0.5:
        draw_strip(
            canvas,
            view,
            np.array([(0, 0, 0), (rng.normal(0, 0.2), 3.0, 0)]),
            np.full(2, rng.uniform(0.02, 0.06)),
            _plain(random_colour(rng)),
            light,
        )
    else:
        _bush(rng, canvas, View(view.scale, (view.origin[0], 1.3 * height), 0.0), light)
