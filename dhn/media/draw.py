"""Paints skeletons over images."""

from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np

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
_OUTLINE = np.array((16, 18, 24), np.float32)
_NOTHING = (0.0, 0.0, 0.0, 0.0)  # the ink that leaves the image as it is
_THIN = 0.45  # the width of limbs that end in a hollow joint, over that of the others
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
) -> np.ndarray:
    """Paints skeletons over an image.

    Each person has a hue, light on the left side and deep on the right. The width of the lines
    follows the person's size; they have a thin dark outline, and fade where a joint's score is
    low. A joint that was seen is a solid disc, one that was filled in is a hollow ring at the end
    of thin limbs. Larger people, who tend to stand nearer, are painted over smaller ones.

    Args:
        image: RGB uint8 [H, W, 3]; it is left as it is.
        poses: [P, J, 3]: x and y in image pixels, and score. Joints that score `joint_threshold`
            or less, or that are not finite, are left out.
        joints: the limbs and sides of the J joints.
        refined: bool [P, J], which joints are drawn hollow; none by default.
        joint_threshold: see `poses`.
        colours: int [P], the number of each person's hue; 0, 1, ... by default.
        labels: P short texts, each written above its person's topmost joint; "" for none.

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
            palette = _joint_colours(joints, numbers[p])
            _paint_person(canvas, poses[p], found[p], hollow[p], sizes[p], joints, palette)
    for p, label in enumerate(labels or ()):
        if label and found[p].any():
            _write_label(canvas, label, poses[p], found[p], sizes[p], numbers[p])
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


def _joint_colours(joints: Joints, number: int) -> np.ndarray:
    """RGB of each joint, [J, 3]. The first joint of a mirrored pair is the left one."""
    left, right = _PALETTE[number % len(_PALETTE)]
    side = np.sign(np.array(joints.flip) - np.arange(len(joints)))[:, None]  # 1 left, -1 right
    return np.where(side > 0, left, np.where(side < 0, right, (left + right) / 2))


def _paint_person(
    canvas: np.ndarray,
    pose: np.ndarray,
    found: np.ndarray,
    hollow: np.ndarray,
    size: float,
    joints: Joints,
    colours: np.ndarray,
) -> None:
    """Paints one person onto `canvas`, touching only the box around its joints."""
    width = float(np.clip(size / 65, 1.5, 24))  # of a limb, in pixels
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


def _write_label(
    canvas: np.ndarray, label: str, pose: np.ndarray, found: np.ndarray, size: float, number: int
) -> None:
    """Writes a text above the topmost joint, in the person's light colour with a dark rim."""
    top = pose[np.where(found, pose[:, 1], np.inf).argmin(), :2]
    scale = float(np.clip(size / 280, 0.35, 3))
    thin = max(1, round(1.6 * scale))
    (width, height), _ = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, scale, thin)
    lowest = canvas.shape[0] - 2
    x = int(np.clip(top[0] - width / 2, 1, max(1, canvas.shape[1] - width - 1)))
    y = int(np.clip(top[1] - 0.06 * size, height + 1, max(height + 1, lowest)))
    colour = _PALETTE[number % len(_PALETTE)][0]
    for ink, thickness in ((_OUTLINE, 3 * thin + 1), (colour, thin)):
        red, green, blue = (float(channel) for channel in ink)
        cv2.putText(
            canvas,
            label,
            (x, y),
            cv2.FONT_HERSHEY_SIMPLEX,
            scale,
            (red, green, blue),
            thickness,
            cv2.LINE_AA,
        )


def _draw_skeleton(
    layer: np.ndarray,
    xy: np.ndarray,
    found: np.ndarray,
    hollow: np.ndarray,
    alpha: np.ndarray,
    width: float,
    joints: Joints,
    colours: np.ndarray,
) -> None:
    """Draws limbs and joints, outlines first, into an RGBA layer.

    The colours of the layer are multiplied by its alpha, so that anti-aliased edges and shrinking
    blend exactly.
    """
    rim = max(0.8, width / 5)
    # Pixel centres start at 0 in cv2, and at .5 here.
    points = np.rint((xy - 0.5) * 2**_SHIFT).astype(int)
    limbs = [(a, b) for a, b in joints.skeleton if found[a] and found[b]]
    for outline in (True, False):  # all outlines first, so that they never cross a limb
        for a, b in limbs:
            across = _THIN * width if hollow[a] or hollow[b] else width
            thickness = max(1, round(across + 2 * rim * outline))
            colour = _OUTLINE if outline else (colours[a] + colours[b]) / 2
            ink = _ink(colour, min(alpha[a], alpha[b]))
            cv2.line(layer, points[a], points[b], ink, thickness, cv2.LINE_AA, _SHIFT)
    for j in np.flatnonzero(found):
        discs = [(0.7 * width + rim, _ink(_OUTLINE, alpha[j]))]
        discs.append((0.7 * width, _ink(colours[j], alpha[j])))
        if hollow[j]:
            discs += [(0.46 * width, _ink(_OUTLINE, alpha[j])), (0.46 * width - rim / 2, _NOTHING)]
        for radius, ink in discs:
            fixed = max(0, round(radius * 2**_SHIFT))
            cv2.circle(layer, points[j], fixed, ink, -1, cv2.LINE_AA, _SHIFT)


def _ink(colour: np.ndarray, alpha: float) -> tuple[float, float, float, float]:
    """RGBA for cv2, the colour multiplied by alpha."""
    red, green, blue = (float(channel) for channel in colour * alpha)
    return red, green, blue, float(255 * alpha)
