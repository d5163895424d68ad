"""Paints skeletons over images."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from dhn.media.lettering import Box, Text

# RGB of a person's left side (light) and right side (deep), a pair for each person. Colours that
# follow each other differ most.
_PALETTE = np.array(
    [
        ((94, 234, 255), (0, 140, 240)),  # cyan, azure
        ((255, 214, 82), (255, 112, 0)),  # amber, orange
        ((255, 150, 210), (230, 20, 125)),  # pink, magenta
        ((190, 250, 105), (40, 170, 60)),  # lime, green
        ((208, 180, 255), (124, 58, 237)),  # lilac, violet
        ((255, 178, 160), (232, 40, 40)),  # salmon, red
        ((130, 255, 220), (0, 155, 135)),  # mint, teal
        ((252, 248, 130), (190, 155, 0)),  # lemon, ochre
    ],
    np.float32,
)
_DARK, _LIGHT = np.array((16, 18, 24), np.float32), np.array((245, 246, 250), np.float32)
_NOTHING = (0.0, 0.0, 0.0, 0.0)  # the ink that leaves the image as it is
_THIN = 0.45  # the width of limbs that end in a hollow joint, over that of the others
_SHORT = 0.18  # the width of a short limb, as between eyes, over its length
_LEAST = 0.4  # the width of the shortest limbs, over that of long ones
_SHIFT = 4  # cv2 then takes coordinates in sixteenths of a pixel


class Joints(Protocol):
    """What drawing has to know about J joints; see `dhn.data.joints.JointSet`."""

    @property
    def skeleton(self) -> Sequence[tuple[int, int]]:
        """The limbs, as pairs of 0-based joint indices."""

    @property
    def flip(self) -> Sequence[int]:
        """J indices: of each joint, the one on the other side of the body."""

    def __len__(self) -> int: ...


def draw_poses(
    image: np.ndarray,
    poses: np.ndarray,
    joints: Joints,
    *,
    refined: np.ndarray | None = None,
    joint_threshold: float = 0.1,
    colours: np.ndarray | None = None,
    labels: Sequence[str] | None = None,
    line_width: float | None = None,
    boxes: bool = False,
) -> np.ndarray:
    """Paints skeletons over an image.

    Each person has a hue, light on the left side and deep on the right; eight hues are plain or
    darkened, with a dark or a light outline, so that 32 people differ. The width of the lines
    follows the person's size. Short limbs, as those of a face, are thinner, and lines fade where a
    joint's score is low. A joint that was seen is a solid disc, one that was filled in is a hollow
    ring at the end of thin limbs. Larger people, who tend to stand nearer, are painted over
    smaller ones.

    Args:
        image: RGB uint8 [H, W, 3]; it is left as it is.
        poses: [P, J, 3]: x and y in image pixels, and score. Joints that score `joint_threshold`
            or less, or that are not finite, are left out.
        joints: the limbs and sides of the J joints.
        refined: bool [P, J], which joints are drawn hollow; none by default.
        joint_threshold: see `poses`.
        colours: int [P], the number of each person's hue; 0, 1, ... by default.
        labels: P short texts, each written above its person's topmost joint; "" for none.
        line_width: of everybody's long limbs, in pixels.
        boxes: draw a rectangle around each person's joints.

    Returns:
        a new image, RGB uint8 [H, W, 3].
    """
    canvas = image.copy()
    poses = np.asarray(poses, np.float32).reshape(-1, len(joints), 3)
    found = np.isfinite(poses).all(-1) & (poses[..., 2] > joint_threshold)
    poses = np.where(found[..., None], poses, 0)
    hollow = np.zeros(found.shape, bool) if refined is None else np.asarray(refined, bool)
    numbers = np.arange(len(poses)) if colours is None else colours
    sizes = _sizes(poses, found)
    for p in np.argsort(sizes, kind="stable"):
        if found[p].any():
            width = line_width or _line_width(sizes[p], image.shape)
            if boxes:
                _draw_box(canvas, poses[p, found[p], :2], width, numbers[p])
            palette = _joint_colours(joints, numbers[p])
            _paint_person(canvas, poses[p], found[p], hollow[p], sizes[p], width, joints, palette)
    if labels:
        _write_labels(canvas, labels, poses, found, sizes, numbers)
    return canvas


class SteadyColours:
    """Numbers the people of a video so that they keep their colours from frame to frame.

    A person takes over the number of the nearest person in the frame before, if each of the two
    is the nearest to the other and they are less than half the person's size apart. That is good
    enough for colours, but it is no tracker.
    """

    def __init__(self) -> None:
        self._centres = np.zeros((0, 2))
        self._numbers = np.zeros(0, int)
        self._next = 0

    def __call__(self, poses: np.ndarray) -> np.ndarray:
        """Takes the poses [P, J, 3] of the next frame; returns int [P] for `draw_poses`."""
        found = poses[..., 2] > 0
        centres = (poses[..., :2] * found[..., None]).sum(1) / np.maximum(found.sum(1), 1)[:, None]
        people = np.arange(len(poses))
        numbers = self._next + people
        self._next += len(poses)
        if len(people) and len(self._centres):
            distances = np.linalg.norm(centres[:, None] - self._centres, axis=-1)
            nearest = distances.argmin(1)
            mutual = distances.argmin(0)[nearest] == people
            same = mutual & (distances[people, nearest] < _sizes(poses, found) / 2)
            numbers[same] = self._numbers[nearest[same]]
        self._centres, self._numbers = centres, numbers
        return numbers


def _sizes(poses: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The diagonals [P] of the boxes around the joints found, in pixels."""
    xy, seen = poses[..., :2], found[..., None]
    low = np.where(seen, xy, np.inf).min(1, initial=np.inf)
    high = np.where(seen, xy, -np.inf).max(1, initial=-np.inf)
    return np.hypot(*np.maximum(high - low, 0).T)


def _line_width(size: float, shape: tuple[int, ...]) -> float:
    """Of the limbs of a person of this size in an image [H, W, 3], in pixels."""
    least = max(1.5, max(shape[:2]) / 800)  # what is still seen when the whole image is shown
    return float(np.clip(size / 65, least, max(24, least)))


class _Palette(NamedTuple):
    """The RGB colours of one person: left side, right side, and outline."""

    left: np.ndarray
    right: np.ndarray
    outline: np.ndarray


def _palette(number: int) -> _Palette:
    """Eight pairs of colours, the same darkened, and both again with the other outline."""
    left, right = _PALETTE[number % len(_PALETTE)]
    dark, other = (number // len(_PALETTE)) % 2, (number // len(_PALETTE) // 2) % 2
    shade = 0.65 if dark else 1.0
    return _Palette(shade * left, shade * right, _LIGHT if dark != other else _DARK)


class _Ink(NamedTuple):
    """The RGB colours of J joints, [J, 3], and of the outline."""

    joints: np.ndarray
    outline: np.ndarray


def _joint_colours(joints: Joints, number: int) -> _Ink:
    """The colours of a person. The first joint of a mirrored pair is the left one."""
    left, right, outline = _palette(number)
    side = np.sign(np.array(joints.flip) - np.arange(len(joints)))[:, None]  # 1 left, -1 right
    both = (left + right) / 2
    return _Ink(np.where(side > 0, left, np.where(side < 0, right, both)), outline)


def _paint_person(
    canvas: np.ndarray,
    pose: np.ndarray,
    found: np.ndarray,
    hollow: np.ndarray,
    size: float,
    width: float,
    joints: Joints,
    colours: _Ink,
) -> None:
    """Paints one person onto `canvas`, touching only the box around its joints."""
    margin = 2 * width + 2
    # Joints far outside would overflow cv2's integers. Their limbs leave the image anyway.
    xy = np.clip(pose[:, :2], -16_000, 16_000)
    left, top = np.clip(np.floor(xy[found].min(0)) - margin, 0, None).astype(int)
    right, bottom = np.clip(np.ceil(xy[found].max(0)) + margin, 0, None).astype(int)
    window = canvas[top:bottom, left:right]
    if not window.size:
        return
    # Small people are painted large and shrunk: cv2 has whole line widths and coarse circles only.
    zoom = int(np.clip(900 / size, 1, 4)) if size else 4
    layer = np.zeros((window.shape[0] * zoom, window.shape[1] * zoom, 4), np.uint8)
    alpha = np.clip(0.35 + pose[:, 2], 0, 1)
    _draw_skeleton(
        layer, (xy - (left, top)) * zoom, found, hollow, alpha, width * zoom, joints, colours
    )
    layer = cv2.resize(layer, window.shape[1::-1], interpolation=cv2.INTER_AREA)
    through = cv2.cvtColor(255 - layer[..., 3], cv2.COLOR_GRAY2RGB)
    below = cv2.multiply(window, through, scale=1 / 255)
    cv2.add(cv2.cvtColor(layer, cv2.COLOR_RGBA2RGB), below, dst=window)


def _write_labels(
    canvas: np.ndarray,
    labels: Sequence[str],
    poses: np.ndarray,
    found: np.ndarray,
    sizes: np.ndarray,
    numbers: np.ndarray,
) -> None:
    """Writes texts above topmost joints; larger people, who come first, push others upwards."""
    taken: list[Box] = []
    least = max(0.35, max(canvas.shape[:2]) / 4000)
    for p in np.argsort(-sizes, kind="stable"):
        if labels[p] and found[p].any():
            x, y = poses[p, np.where(found[p], poses[p, :, 1], np.inf).argmin(), :2]
            text = Text(labels[p], float(np.clip(sizes[p] / 400, least, max(3, least))))
            box = text.place(canvas.shape, float(x), float(y - 0.06 * sizes[p]), taken)
            palette = _palette(numbers[p])
            ink = palette.right if palette.outline is _LIGHT else palette.left
            text.write(canvas, box, ink, palette.outline)
            taken.append(box)


def _draw_skeleton(
    layer: np.ndarray,
    xy: np.ndarray,
    found: np.ndarray,
    hollow: np.ndarray,
    alpha: np.ndarray,
    width: float,
    joints: Joints,
    colours: _Ink,
) -> None:
    """Draws limbs and joints, outlines first, into an RGBA layer.

    The colours of the layer are multiplied by its alpha, so that anti-aliased edges and shrinking
    blend exactly.
    """
    rim = max(0.8, width / 5)
    # Pixel centres start at 0 in cv2, and at .5 here.
    points = np.rint((xy - 0.5) * 2**_SHIFT).astype(int)
    limbs = [(a, b) for a, b in joints.skeleton if found[a] and found[b]]
    across = [_limb_width(xy[a], xy[b], width) for a, b in limbs]
    for outline in (True, False):  # all outlines first, so that they never cross a limb
        for (a, b), full in zip(limbs, across, strict=True):
            inner = _THIN * full if hollow[a] or hollow[b] else full
            thickness = max(1, round(inner + 2 * rim * outline))
            mean = (colours.joints[a] + colours.joints[b]) / 2
            ink = _ink(colours.outline if outline else mean, min(alpha[a], alpha[b]))
            cv2.line(layer, points[a], points[b], ink, thickness, cv2.LINE_AA, _SHIFT)
    for j in np.flatnonzero(found):
        thin = min((w for limb, w in zip(limbs, across, strict=True) if j in limb), default=width)
        outer, inner = 0.7 * thin, 0.46 * thin
        discs = [(outer + rim, colours.outline), (outer, colours.joints[j])]
        inks = [(radius, _ink(colour, alpha[j])) for radius, colour in discs]
        if hollow[j]:
            inks += [(inner, _ink(colours.outline, alpha[j])), (inner - rim / 2, _NOTHING)]
        for radius, ink in inks:
            fixed = max(0, round(radius * 2**_SHIFT))
            cv2.circle(layer, points[j], fixed, ink, -1, cv2.LINE_AA, _SHIFT)


def _limb_width(start: np.ndarray, end: np.ndarray, width: float) -> float:
    """Of a limb between two points: thinner where it is short, so that a face stays visible."""
    length = float(np.hypot(*(end - start)))
    return float(np.clip(_SHORT * length, _LEAST * width, width))


def _draw_box(canvas: np.ndarray, xy: np.ndarray, width: float, number: int) -> None:
    """Draws the rectangle around points [K, 2] onto `canvas`."""
    xy = np.clip(xy, -16_000, 16_000)
    low, high = (
        np.rint((corner - 0.5) * 2**_SHIFT).astype(int) for corner in (xy.min(0), xy.max(0))
    )
    palette = _palette(number)
    inner = max(1, round(0.4 * width))
    for thickness, colour in ((inner + 2, palette.outline), (inner, palette.right)):
        red, green, blue, _ = _ink(colour, 1.0)
        cv2.rectangle(canvas, low, high, (red, green, blue), thickness, cv2.LINE_AA, _SHIFT)


def _ink(colour: np.ndarray, alpha: float) -> tuple[float, float, float, float]:
    """RGBA for cv2, the colour multiplied by alpha."""
    red, green, blue = (float(channel) for channel in colour * alpha)
    return red, green, blue, float(255 * alpha)
