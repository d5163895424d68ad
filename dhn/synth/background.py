"""Cluttered places for a crowd: rooms and the open air, with furniture, poles and foliage."""

from dataclasses import dataclass

import cv2
import numpy as np

from dhn.synth.render import Brush, Canvas, Light, View, draw_ellipsoid, draw_strip, soft_shadow

_FAR = 0.1  # size of a metre at the far end of the floor, as a share of the image's height
_NEAREST = 100.0  # depth of an object in front of everybody


@dataclass(frozen=True)
class Camera:
    """Relates the size of a person to where the feet are in the image.

    Attributes:
        size: (W, H) of the image in pixels.
        horizon: y of the horizon in pixels.
        height: metres of the camera above the ground.
        pitch: the degrees by which bodies are seen from above.
    """

    size: tuple[int, int]
    horizon: float
    height: float
    pitch: float

    def view(self, x: float, scale: float, depth: float) -> View:
        """The view of a body of `scale` pixels per metre that stands at pixel column `x`."""
        return View(scale, (x, self.horizon + self.height * scale), depth)


def paint_background(rng: np.random.Generator, camera: Camera, light: Light) -> np.ndarray:
    """Paints a place without people: float32 [H, W, 3], 0..255."""
    width, height = camera.size
    edge = round(camera.horizon + camera.height * _FAR * height)  # row where wall and floor meet
    indoors = bool(rng.random() < 0.5)
    image = np.empty((height, width, 3), np.float32)
    image[:edge] = _wall(rng, edge, width) if indoors else _sky(rng, edge, width)
    image[edge:] = _floor(rng, camera, edge, indoors)
    if indoors:
        _decorate_wall(rng, image, edge)
        board = max(1, height // 60)
        image[edge - board : edge] *= rng.uniform(0.5, 0.9)
    else:
        _build_skyline(rng, image, edge)
    image += rng.uniform(6, 22) * _clouds(rng, height, width)[..., None]
    canvas = Canvas(image)
    for k, scale in enumerate(np.sort(rng.uniform(1.3 * _FAR, 0.32, rng.integers(4, 11)))):
        view = camera.view(rng.uniform(-0.05, 1.05) * width, float(scale) * height, depth=k)
        thing = (_box, _pole, _bush, _bars)[rng.choice(4, p=[0.35, 0.2, 0.22, 0.23])]
        thing(rng, Brush(canvas, view, light))
    return np.clip(canvas.rgb, 0, 255)


def draw_foreground(rng: np.random.Generator, canvas: Canvas, light: Light) -> None:
    """Draws a pole or a bush near the camera, which hides a part of the crowd."""
    height, width = canvas.depth.shape
    x, scale = float(rng.uniform(0, width)), 0.5 * height
    if rng.random() < 0.5:
        _pole(rng, Brush(canvas, View(scale, (x, 1.1 * height), _NEAREST), light), tall=3.0)
    else:
        _bush(rng, Brush(canvas, View(scale, (x, 1.25 * height), _NEAREST), light))


def _random_colour(
    rng: np.random.Generator, low: float, high: float, saturation: float
) -> np.ndarray:
    tint = 1 + saturation * rng.uniform(-0.6, 0.6, 3)
    return np.clip(rng.uniform(low, high) * tint, 0, 255).astype(np.float32)


def _clouds(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Smooth noise in about -1..1, for uneven light, stains and weather."""
    coarse = rng.uniform(-1, 1, (6, 8)).astype(np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def _grain(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Fine noise in -0.5..0.5, for grass, plaster and concrete."""
    fine = rng.integers(0, 256, (height // 2 + 1, width // 2 + 1), np.uint8)
    return cv2.resize(fine, (width, height), interpolation=cv2.INTER_LINEAR) / np.float32(255) - 0.5


def _wall(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Wallpaper, boards or bricks."""
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    top, bottom = _random_colour(rng, 90, 225, 0.35), _random_colour(rng, 80, 215, 0.35)
    image = top + (y / height)[..., None] * (bottom - top) * 0.6
    lines = np.full((height, width), np.inf, np.float32)
    style = rng.choice(["plain", "boards", "bricks"], p=[0.4, 0.35, 0.25])
    if style != "plain":
        period = rng.uniform(0.06, 0.2) * height
        lines = np.abs(((x + rng.uniform(0, period)) / period) % 1 - 0.5) * period
        if style == "bricks":
            row = np.floor(y / period * 2)
            lines = np.abs((x / period + row / 2) % 1 - 0.5) * period
            lines = np.minimum(lines, np.abs((y / period * 2) % 1 - 0.5) * period / 2)
    shade = rng.uniform(8, 35) * np.clip(1.5 - lines, 0, 1) - 8 * _grain(rng, height, width)
    return image - np.broadcast_to(shade, (height, width))[..., None]


def _sky(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    top = np.array((96, 150, 215), np.float32) * np.float32(rng.uniform(0.7, 1.15))
    low = np.array((205, 216, 226), np.float32) * np.float32(rng.uniform(0.85, 1.08))
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    white = np.maximum(_clouds(rng, height, width) - 0.1, 0)[..., None] * rng.uniform(0, 0.7)
    sky = top + y * (low - top)
    return sky + white * (245 - sky)


def _build_skyline(rng: np.random.Generator, image: np.ndarray, edge: int) -> None:
    """Draws houses with windows, or the crowns of trees, along the horizon."""
    height, width = image.shape[:2]
    haze = np.array((190, 200, 210), np.float32)
    if rng.random() < 0.5:
        green = np.array((60, 92, 52), np.float32) * np.float32(rng.uniform(0.7, 1.3))
        for x in rng.uniform(0, width, rng.integers(10, 30)):
            radius, tint = rng.uniform(0.03, 0.1) * height, rng.uniform(0.75, 1.25)
            centre = int(x), int(edge - 0.6 * radius)
            colour = (green * tint * 0.8 + haze * 0.2).tolist()
            cv2.circle(image, centre, int(radius), colour, -1, cv2.LINE_AA)
    else:
        x = -rng.uniform(0, 0.2) * width
        while x < width:
            w, h = rng.uniform(0.1, 0.3) * width, rng.uniform(0.1, 0.85) * edge
            wall = _random_colour(rng, 90, 200, 0.4) * 0.7 + haze * 0.3
            _panel(image, (x, edge - h), (x + w, edge), wall)
            step = rng.uniform(0.035, 0.06) * height
            for column in np.arange(x + step / 2, min(x + w - step / 2, width), step):
                for row in np.arange(edge - h + step / 2, edge - step, 1.4 * step):
                    corner = column + 0.5 * step, row + 0.8 * step
                    _panel(image, (column, row), corner, wall * rng.uniform(0.5, 0.8))
            x += w * rng.uniform(0.95, 1.3)
    image[edge - 1 : edge] *= 0.8


def _panel(
    image: np.ndarray, low: tuple[float, float], high: tuple[float, float], colour: np.ndarray
) -> None:
    rows = slice(max(0, round(low[1])), max(0, round(high[1])))
    image[rows, max(0, round(low[0])) : max(0, round(high[0]))] = colour


def _floor(rng: np.random.Generator, camera: Camera, edge: int, indoors: bool) -> np.ndarray:
    """Tiles, boards, lawn or concrete from row `edge` down, in perspective."""
    width, height = camera.size
    below = (np.arange(edge, height, dtype=np.float32) + 0.5 - camera.horizon)[:, None]
    x = np.arange(width, dtype=np.float32) + 0.5 - width / 2
    colour = _random_colour(rng, 70, 205, 0.35 if indoors else 0.12)
    lawn = not indoors and rng.random() < 0.5
    if lawn:
        colour = np.array((100, 128, 68), np.float32) * np.float32(rng.uniform(0.7, 1.2))
    image = colour * (0.78 + 0.3 * (below + camera.horizon) / height)[..., None]
    texture = rng.uniform(8, 40 if lawn else 20) * _grain(rng, height - edge, width)
    if not lawn and rng.random() < 0.75:
        # Metres on the floor from pixels: the camera's height over the angle below the horizon.
        across, away = x * camera.height / below, 1.2 * height * camera.height / below
        size = rng.uniform(0.35, 1.1)
        tiles = np.floor(across / size + rng.uniform())
        if rng.random() < 0.7:
            tiles = tiles + np.floor(away / size)
        texture += rng.uniform(8, 40) * (tiles % 2 - 0.5) * np.minimum(3 * below / height, 1)
    return image + texture[..., None]


def _decorate_wall(rng: np.random.Generator, image: np.ndarray, edge: int) -> None:
    """Draws windows, posters, shelves and doors, all as rectangles in frames."""
    height, width = image.shape[:2]
    for _ in range(rng.integers(1, 6)):
        w, h = rng.uniform(0.06, 0.28, 2) * height
        x, y = rng.uniform(-w / 2, width), rng.uniform(0, max(1.0, edge - h))
        if rng.random() < 0.2:  # a door stands on the floor
            h = rng.uniform(0.3, 0.8) * edge
            y = edge - h
        frame = max(1, round(0.012 * height))
        y1 = min(y + h, edge)
        inner = _random_colour(rng, 40, 230, 0.6)
        _panel(image, (x, y), (x + w, y1), _random_colour(rng, 30, 220, 0.4))
        _panel(image, (x + frame, y + frame), (x + w - frame, y1 - frame), inner)
        if rng.random() < 0.5:
            _panel(image, (x + frame, y + h / 2), (x + w - frame, y1 - frame), inner * 0.85)


def _box(rng: np.random.Generator, brush: Brush) -> None:
    """Draws furniture: a front, a top and a side, each with its own share of the light."""
    w, h, d = rng.uniform(0.3, 1.3), rng.uniform(0.3, 1.1), rng.uniform(0.1, 0.35)
    colour, slant = _random_colour(rng, 50, 215, 0.6), rng.choice([-1, 1]) * d * 0.6
    edge, shift = w if slant > 0 else 0.0, (slant, d * 0.5)
    front = np.array([(0, 0), (w, 0), (w, h), (0, h)])
    top, side = np.array([(0, h), (w, h)]), np.array([(edge, 0), (edge, h)])
    _shadow(brush, w / 2, w)
    for face, brightness in (
        (np.concatenate([side, side[::-1] + shift]), 0.7),
        (np.concatenate([top, top[::-1] + shift]), 1.12),
        (front, 0.92),
    ):
        _polygon(brush, face, colour * brightness)
    if rng.random() < 0.5:  # drawers
        for k in range(int(rng.integers(1, 4))):
            y = h * (k + 0.15) / 3, h * (k + 0.9) / 3
            drawer = np.array([(0.08, y[0]), (w - 0.08, y[0]), (w - 0.08, y[1]), (0.08, y[1])])
            _polygon(brush, drawer, colour * 0.8)


def _polygon(brush: Brush, corners: np.ndarray, colour: np.ndarray) -> None:
    """Fills a convex polygon of corners [N, 2] in metres."""
    view = brush.view
    # cv2 counts pixel centres from 0, in sixteenths of a pixel.
    pixels = corners * (view.scale, -view.scale) + view.origin - 0.5
    fixed, tone = (pixels * 16).round().astype(np.int32), np.clip(colour, 0, 255).tolist()
    cv2.fillConvexPoly(brush.canvas.rgb, fixed, tone, cv2.LINE_AA, 4)


def _shadow(brush: Brush, x: float, radius: float) -> None:
    view = brush.view
    centre = view.origin[0] + x * view.scale, view.origin[1]
    soft_shadow(brush.canvas, centre, (radius * view.scale, 0.2 * radius * view.scale), 0.4)


def _pole(rng: np.random.Generator, brush: Brush, tall: float | None = None) -> None:
    """Draws a lamp post or a pillar, which is as round as a limb."""
    top = (rng.normal(0, 0.1), tall or rng.uniform(0.8, 3.2), 0)
    width = rng.uniform(0.02, 0.12)
    _shadow(brush, 0, 2.5 * width)
    colour = _random_colour(rng, 50, 215, 0.5)
    draw_strip(brush, np.array([(0, 0, 0), top]), (width, width * 0.9), colour, caps=(None, 0.02))
    if tall is None and rng.random() < 0.4:
        draw_ellipsoid(brush, np.array(top), np.eye(3), (0.12, 0.12, 0.12), colour * 1.1)


def _bush(rng: np.random.Generator, brush: Brush) -> None:
    """Draws foliage, on a trunk or on the ground."""
    colour = np.array([70, 105, 52]) * rng.uniform(0.6, 1.3) * rng.uniform(0.85, 1.15, 3)
    stem = rng.choice([0.0, 1.0]) * rng.uniform(0.5, 1.3)
    _shadow(brush, 0, 0.6)
    if stem:
        bark = np.array([92.0, 70.0, 52.0])
        draw_strip(brush, np.array([(0, 0, 0), (0, stem + 0.3, 0)]), (0.07, 0.05), bark)
    for _ in range(rng.integers(7, 14)):
        size = rng.uniform(0.12, 0.26)
        centre = np.array((0, stem + 0.3, 0)) + rng.normal(0, 1, 3) * (0.22, 0.16, 0.1)
        tone = colour * (0.75 + 0.5 * (centre[1] - stem)) * rng.uniform(0.85, 1.15)
        draw_ellipsoid(brush, centre, np.eye(3), (size, 0.8 * size, 0.5 * size), tone)


def _bars(rng: np.random.Generator, brush: Brush) -> None:
    """Draws bars that have the colours and sizes of limbs, to be mistaken for people."""
    joint = np.array((0, rng.uniform(0.1, 1.4), 0))
    for _ in range(rng.integers(2, 6)):
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.6)
        end = joint + length * np.array((np.cos(angle), np.sin(angle), 0))
        widths = rng.uniform(0.03, 0.08, 2).tolist()
        draw_strip(brush, np.array([joint, end]), widths, _random_colour(rng, 60, 230, 0.6))
        joint = end if rng.random() < 0.6 else joint
