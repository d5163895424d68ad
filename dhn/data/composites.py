"""Crowds that nobody labelled: people of several images joined or pasted into one sample.

Grouping is learnt where people stand close and hide one another, and small sets of photographs
have few such places. A composite lays the images of other people over a sample, one after the
other, each through a soft-edged mask, and its labels follow these rules:

- A joint counts as covered where the mask of a later layer exceeds one half.
- A covered joint stays labelled, as hidden (v = 1), while at least half of its person's labelled
  joints inside the image are in sight; otherwise nobody could point to it, and it becomes unknown
  (v = -1).
- A person who is covered and of whom no labelled joint is in sight is not there any more, unless
  joints of theirs are unknown: then all of them are.
- Of the people in an image that is laid over, those joints count that the mask lets through.
  The others are not there, as if they lay outside the image.
- An unknown joint stays unknown, whatever covers it, in its person's box; of a box that is laid
  over, the part around the mask counts.
- The ignore mask of each pixel is that of the layer on top.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from dhn.data.geometry import Affine
from dhn.data.joints import JointSet

_STREAM = 2  # apart from the generators of the sample and of its appearance
MOST = 7  # people or images that are laid over a sample
# Labelled joints that a person must have to be pasted, and to be cut out along its limbs.
_FEWEST, _FEWEST_FOR_A_SHAPE = 4, 8
_COVERED = 0.5


def _superellipse(points: int = 40) -> np.ndarray:
    """A rounded square around (0.5, 0.5) that touches the sides of the unit square, [points, 2]."""
    turn = np.linspace(0, 2 * math.pi, points, endpoint=False)
    circle = np.column_stack([np.cos(turn), np.sin(turn)])
    return (np.sign(circle) * np.sqrt(np.abs(circle)) + 1) / 2


_ROUNDED = _superellipse()


class Layer(NamedTuple):
    """An image in the network's input frame, with its labels; S = input size.

    Attributes:
        image: uint8 [S, S, 3].
        keypoints: float32 [P, J, 3] in input pixels; v = -1 is unknown.
        boxes: float32 [P, 4], x0, y0, x1, y1 in input pixels, around people with unknown joints;
            None where all is known.
        mask: uint8 [S, S], 1 counts; None where all of it does.
    """

    image: np.ndarray
    keypoints: np.ndarray
    boxes: np.ndarray | None
    mask: np.ndarray | None


class Source(NamedTuple):
    """An image to take people from: its size and its labelled people.

    Attributes:
        size: (W, H) in pixels.
        boxes: float64 [P, 4], x, y, width, height in image pixels.
        labelled: int [P], how many joints of each are labelled.
    """

    size: tuple[int, int]
    boxes: np.ndarray
    labelled: np.ndarray


@dataclass(frozen=True)
class Composer:
    """Draws what is laid over a sample; everything comes from (seed, epoch, index).

    Args:
        probability: share of the samples that become composites.
        joints: of the data set.
        input_size: S.
        seed: of the choices.
    """

    probability: float
    joints: JointSet
    input_size: int
    seed: int

    def compose(
        self,
        base: Layer,
        epoch: int,
        index: int,
        sources: Sequence[Source],
        read: Callable[[int, Affine, bool], Layer],
    ) -> Layer:
        """Lays other images over a sample, or returns it as it is.

        Args:
            base: the sample, before its colours are changed.
            epoch, index: of the sample.
            sources: of every image of the data set.
            read: reads an image of the data set through a map from image to input pixels, of
                which it must know whether it mirrors.
        """
        rng = np.random.default_rng([self.seed, epoch, index, _STREAM])
        if rng.random() >= self.probability:
            return base
        # Two people more often than eight: each costs an image to decode.
        for _ in range(min(MOST, rng.geometric(0.5))):
            other = int(rng.integers(len(sources)))
            source = sources[other]
            usable = np.flatnonzero(source.labelled >= _FEWEST)
            if not len(usable):
                continue
            person = int(rng.choice(usable))
            flipped = bool(rng.random() < 0.5)
            if rng.random() < 0.25:
                affine = self._joined(source, flipped, rng)
                layer = read(other, affine, flipped)
                alpha = _half_plane(self.input_size, rng)
            else:
                affine = self._pasted(base, source.boxes[person], flipped, rng)
                layer = read(other, affine, flipped)
                alpha = self._shape(layer.keypoints[person], source.boxes[person], affine, rng)
            base = overlaid(base, layer, alpha)
        return base

    def _joined(self, source: Source, flipped: bool, rng: np.random.Generator) -> Affine:
        """The whole image over the sample, as large as it is on average."""
        zoom = self.input_size / min(source.size) / rng.uniform(0.8, 1.25)
        shift = rng.uniform(-0.2, 0.2, 2) * self.input_size
        centre = np.array(source.size) / 2
        return _placed(centre, self.input_size / 2 + shift, zoom, rng.uniform(-15, 15), flipped)

    def _pasted(
        self, base: Layer, box: np.ndarray, flipped: bool, rng: np.random.Generator
    ) -> Affine:
        """One person somewhere, most often on or beside somebody who is there already."""
        S = self.input_size
        centre, size = box[:2] + box[2:] / 2, max(1.0, box[2:].max())
        goal = rng.uniform(0.1, 0.9, 2) * S
        length = S * math.exp(rng.uniform(math.log(0.25), math.log(0.9)))
        seen = [row[row[:, 2] > 0, :2] for row in base.keypoints if (row[:, 2] > 0).any()]
        if seen and rng.random() < 0.7:
            xy = seen[int(rng.integers(len(seen)))]
            extent = max(np.ptp(xy, axis=0).max() * 1.2, S / 8)
            goal = np.clip(xy.mean(0) + rng.normal(0, 0.35, 2) * extent, 0, S)
            length = min(extent * rng.uniform(0.6, 1.5), 1.2 * S)
        return _placed(centre, goal, length / size, rng.uniform(-15, 15), flipped)

    def _shape(
        self, person: np.ndarray, box: np.ndarray, affine: Affine, rng: np.random.Generator
    ) -> np.ndarray:
        """A soft mask of somebody: the body along the limbs, or a rounded patch of the image.

        Args:
            person: [J, 3] in input pixels.
            box: x, y, width, height in image pixels.
            affine: from image to input pixels.

        Returns:
            float32 [S, S], 0 to 1.
        """
        S = self.input_size
        mask = np.zeros((S, S), np.uint8)
        x, y, w, h = box
        radius = 0.085 * math.sqrt(w * h) * affine.scale
        enough = np.count_nonzero(person[:, 2] > 0) >= _FEWEST_FOR_A_SHAPE
        if self.joints.skeleton and enough and rng.random() < 0.6:
            _draw_body(mask, person, self.joints, radius)
        else:
            # Rounded: nobody fills the corners of a box.
            outline = affine.apply(np.array([x, y]) + _ROUNDED * np.array([w, h]))
            cv2.fillConvexPoly(mask, np.round(outline).astype(np.int32), 255)
        soft = cv2.GaussianBlur(mask, (0, 0), max(0.6, rng.uniform(0.5, 2) * S / 192))
        return soft.astype(np.float32) / 255


def overlaid(base: Layer, layer: Layer, alpha: np.ndarray) -> Layer:
    """`layer` over `base` where alpha [S, S] is 1; the labels follow the module's rules."""
    image = cv2.blendLinear(layer.image, base.image, alpha, 1 - alpha)
    covered = alpha > _COVERED
    above, above_boxes = _let_through(layer.keypoints, _boxes(layer), covered)
    keypoints = np.concatenate([_hidden(base.keypoints, covered), above])
    boxes = np.concatenate([_boxes(base), above_boxes])
    there = (keypoints[..., 2] != 0).any(1)
    unknown = (keypoints[there, :, 2] < 0).any()
    mask = None
    if base.mask is not None or layer.mask is not None:
        ones = np.ones(alpha.shape, np.uint8)
        masks = [ones if own is None else own for own in (base.mask, layer.mask)]
        mask = np.where(covered, masks[1], masks[0])
    return Layer(
        image,
        keypoints[there],
        boxes[there] if unknown else None,
        mask,
    )


def _inside(keypoints: np.ndarray, covered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """bool [P, J]: which labelled joints lie inside the image, and which on covered pixels."""
    S = len(covered)
    pixels = np.floor(keypoints[..., :2]).astype(np.int64)
    inside = np.all((pixels >= 0) & (pixels < S), axis=-1) & (keypoints[..., 2] > 0)
    columns, rows = np.moveaxis(np.clip(pixels, 0, S - 1), -1, 0)
    return inside, inside & covered[rows, columns]


def _hidden(keypoints: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Keypoints of people over whom something is laid."""
    keypoints = keypoints.copy()
    inside, under = _inside(keypoints, covered)
    in_sight = (inside & ~under).sum(1)
    mostly = (2 * in_sight >= inside.sum(1))[:, None]
    # Of a person without a joint in sight an unknown one may be in sight.
    gone = (in_sight == 0) & under.any(1) & ~(keypoints[..., 2] < 0).any(1)
    keypoints[under & mostly, 2] = 1
    keypoints[under & ~mostly] = (0, 0, -1)
    keypoints[gone] = 0
    return keypoints


def _let_through(
    keypoints: np.ndarray, boxes: np.ndarray, covered: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints and boxes of people who are laid over something, through the mask `covered`."""
    keypoints, boxes = keypoints.copy(), boxes.copy()
    _, through = _inside(keypoints, covered)
    keypoints[(keypoints[..., 2] > 0) & ~through] = 0
    rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
    window = (0, 0, 0, 0)
    if len(rows):
        window = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    boxes[:, :2] = np.maximum(boxes[:, :2], window[:2])
    boxes[:, 2:] = np.minimum(boxes[:, 2:], window[2:])
    outside = np.any(boxes[:, 2:] <= boxes[:, :2], axis=1)
    boxes[outside] = 0
    keypoints[(keypoints[..., 2] < 0) & outside[:, None]] = 0
    return keypoints, boxes


def _boxes(layer: Layer) -> np.ndarray:
    """Boxes [P, 4] of a layer's people; of those who have none, around their joints."""
    boxes = np.zeros((len(layer.keypoints), 4), np.float32)
    if layer.boxes is not None:
        boxes[:] = layer.boxes
    for box, person in zip(boxes, layer.keypoints, strict=True):
        if (box[2:] <= box[:2]).any() and (person[:, 2] > 0).any():
            xy = person[person[:, 2] > 0, :2]
            margin = 0.1 * np.ptp(xy, axis=0).max() + 1
            box[:] = [*(xy.min(0) - margin), *(xy.max(0) + margin)]
    return boxes


def _placed(
    centre: np.ndarray, goal: np.ndarray, zoom: float, degrees: float, flipped: bool
) -> Affine:
    """The map that zooms, turns and mirrors about `centre` and brings it to `goal`."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    linear = zoom * np.array([[cos, -sin], [sin, cos]])
    if flipped:
        linear = linear @ np.diag([-1.0, 1.0])
    return Affine(np.column_stack([linear, goal - linear @ centre]))


def _half_plane(size: int, rng: np.random.Generator) -> np.ndarray:
    """float32 [S, S]: 1 on one side of a line near the middle, 0 on the other, soft between."""
    angle = rng.uniform(0, 2 * math.pi)
    middle = size * rng.uniform(0.3, 0.7, 2)
    along = (np.arange(size, dtype=np.float32) + 0.5)[:, None]
    x, y = (along - np.float32(middle[0])).T, along - np.float32(middle[1])
    distance = np.float32(math.cos(angle)) * x + np.float32(math.sin(angle)) * y
    softness = size / 192 * rng.uniform(1, 6)
    return np.clip(distance / np.float32(softness) + 0.5, 0, 1)


def _draw_body(mask: np.ndarray, person: np.ndarray, joints: JointSet, radius: float) -> None:
    """Draws the limbs, the trunk and the head of a person [J, 3] in white."""
    seen = person[:, 2] > 0
    points = [tuple(map(int, np.round(xy))) for xy in np.clip(person[:, :2], -4096, 4096)]
    thickness = max(1, round(2 * radius))
    for a, b in joints.skeleton:
        if seen[a] and seen[b]:
            cv2.line(mask, points[a], points[b], 255, thickness)
    trunk = [j for j, name in enumerate(joints.names) if "shoulder" in name or "hip" in name]
    corners = np.array([points[j] for j in trunk if seen[j]], np.int32)
    if len(corners) >= 3:
        cv2.fillConvexPoly(mask, cv2.convexHull(corners), 255)
    for j, name in enumerate(joints.names):
        if seen[j]:
            head = name in ("head", "nose") or "eye" in name or "ear" in name
            cv2.circle(mask, points[j], round(radius * (1.7 if head else 1.1)), 255, -1)
