"""Which images a report shows, and what is drawn over them."""

import base64
import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dhn.evaluation.error_analysis import JOINT_ERRORS, ErrorAnalysis
from dhn.evaluation.people import Bools, Floats, Ints

WORST = RANDOM = 24  # images
_OF_EACH_BAR = 6
_SIDE, _QUALITY = 360, 70  # of the embedded images, in pixels and in JPEG's percent


class Figure(NamedTuple):
    """One person, drawn.

    Attributes:
        colour: CSS colour; a prediction has that of the person for whom it stands.
        limbs: x1, y1, x2, y2 each, in image pixels.
        joints: x, y and a CSS class each: the error, or `good`, or nothing in the truth.
        stray: whether it is a prediction that stands for nobody.
        title: what a reader sees who points at it.
    """

    colour: str
    limbs: list[tuple[int, int, int, int]]
    joints: list[tuple[int, int, str]]
    stray: bool
    title: str


@dataclass(frozen=True)
class Shown:
    """An image of the gallery.

    Attributes:
        index: its place in the data set.
        name: file name.
        keys: the bars and lists that it belongs to.
        caption: what stands below it.
        width, height: in pixels.
        photo: the image as a data URI; None where its file cannot be read.
        truth, predictions: the people.
    """

    index: int
    name: str
    keys: list[str]
    caption: str
    width: int
    height: int
    photo: str | None
    truth: list[Figure]
    predictions: list[Figure]


def choose(
    ap: Floats, people: Ints, bars: Mapping[str, tuple[Bools, Floats]], seed: int
) -> dict[int, list[str]]:
    """The images to show, each with the keys of what it is shown for.

    Of images that are equally bad, those with more people come first: more went wrong there.

    Args:
        ap: float64 [N], AP of each image by itself; NaN where nobody is to be found.
        people: int64 [N], how many are annotated in it.
        bars: for each key the images that belong to it, bool [N], and how bad they are, float64
            [N], the worst highest.
        seed: of the random choice.

    Returns:
        Keys by image, `worst` and `random` among them, in the order in which they are shown.
    """
    scored = np.flatnonzero(~np.isnan(ap))
    chosen: dict[int, list[str]] = {}
    worst = scored[np.lexsort((-people[scored], ap[scored]))][:WORST]
    some = np.random.default_rng(seed).permutation(scored)[:RANDOM]
    lists = {"worst": worst, "random": np.sort(some)}
    for key, (members, badness) in bars.items():
        inside = np.flatnonzero(members)
        order = np.lexsort((-people[inside], -badness[inside]))
        lists[key] = inside[order][:_OF_EACH_BAR]
    for key, images in lists.items():
        for image in images.tolist():
            chosen.setdefault(image, []).append(key)
    return chosen


def draw(
    analysis: ErrorAnalysis,
    chosen: Mapping[int, Sequence[str]],
    paths: Mapping[int, Path],
    ap: Floats,
) -> list[Shown]:
    """Draws the chosen images with their people."""
    truth = analysis.truth
    shown = []
    for i, keys in chosen.items():
        people = np.flatnonzero(truth.image == i)
        predictions = np.flatnonzero(analysis.found.image == i)
        photo, width, height = _photo(paths.get(int(truth.image_ids[i])))
        if photo is None:
            width, height = _extent(analysis, people)
        index = truth.crowd_index[i]
        crowd = "" if np.isnan(index) else f", crowd index {index:.2f}"
        value = "" if np.isnan(ap[i]) else f", AP {100 * ap[i]:.0f}"
        shown.append(
            Shown(
                index=i,
                name=truth.file_names[i],
                keys=list(keys),
                caption=f"{len(people)} annotated, {len(predictions)} predicted{value}{crowd}",
                width=width,
                height=height,
                photo=photo,
                truth=[_person(analysis, g, k) for k, g in enumerate(people.tolist())],
                predictions=[_prediction(analysis, f, people) for f in predictions[::-1].tolist()],
            )
        )
    return shown


def _photo(path: Path | None) -> tuple[str | None, int, int]:
    """An image made small, as a data URI, and its original width and height."""
    if path is None or not path.is_file():
        return None, 0, 0
    import cv2

    from dhn.base.errors import DhnError
    from dhn.media.images import read_image

    try:
        pixels = read_image(path, ignore_orientation=True)
    except DhnError:
        return None, 0, 0
    height, width = pixels.shape[:2]
    scale = min(1.0, _SIDE / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    quality = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    _, jpeg = cv2.imencode(".jpg", small[..., ::-1], quality)
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode(), width, height


def _extent(analysis: ErrorAnalysis, people: np.ndarray) -> tuple[int, int]:
    """Width and height that hold the annotated people."""
    corners = analysis.truth.boxes[people]
    if not len(corners):
        return 100, 100
    right, bottom = (corners[:, :2] + corners[:, 2:]).max(axis=0)
    return max(1, int(right) + 10), max(1, int(bottom) + 10)


def _colour(k: int) -> str:
    # Steps of the golden angle: neighbours in the list differ the most.
    r, g, b = colorsys.hls_to_rgb((0.08 + 0.618034 * k) % 1, 0.58, 0.85)
    return f"#{round(255 * r):02x}{round(255 * g):02x}{round(255 * b):02x}"


def _person(analysis: ErrorAnalysis, g: int, k: int) -> Figure:
    truth = analysis.truth
    keypoints = truth.keypoints[g]
    state = "ignored" if truth.ignored[g] else "not found" if analysis.not_found[g] else "found"
    seen = keypoints[:, 2] > 0
    return Figure(
        colour=_colour(k),
        limbs=_limbs(analysis, keypoints[:, :2], seen),
        joints=[(round(x), round(y), "") for x, y in keypoints[seen, :2].tolist()],
        stray=False,
        title=f"annotated person {truth.ids[g]}: {state}",
    )


def _prediction(analysis: ErrorAnalysis, f: int, people: np.ndarray) -> Figure:
    xy, g = analysis.found.keypoints[f], int(analysis.person[f])
    # Systems write joints that they have not found as 0, 0.
    seen = (xy != 0).any(axis=1)
    kinds = ("good", *JOINT_ERRORS)
    names = [kinds[kind] if kind >= 0 else "" for kind in analysis.joints[f].tolist()]
    score = analysis.found.scores[f]
    wrong = "background" if analysis.background[f] else "duplicate"
    about = wrong if g < 0 else f"OKS {analysis.closeness[f]:.2f}"
    return Figure(
        colour="#999" if g < 0 else _colour(int(np.flatnonzero(people == g)[0])),
        limbs=_limbs(analysis, xy, seen),
        joints=[(round(x), round(y), names[j]) for j, (x, y) in enumerate(xy.tolist()) if seen[j]],
        stray=g < 0,
        title=f"prediction with score {score:.2f}: {about}",
    )


def _limbs(analysis: ErrorAnalysis, xy: Floats, seen: Bools) -> list[tuple[int, int, int, int]]:
    whole = np.rint(xy).astype(int).tolist()
    pairs = [(a, b) for a, b in analysis.truth.joints.skeleton if seen[a] and seen[b]]
    return [(*whole[a], *whole[b]) for a, b in pairs]
