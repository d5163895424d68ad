"""Steadies the joints of tracked people: over a whole video, or live, frame by frame."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dhn.data.coco_file import AREA_OF_BOX
from dhn.inference.people import People, boxes_of


@dataclass(frozen=True)
class SmoothingConfig:
    """How `smooth_video` works; lengths of time are in frames.

    Attributes:
        window: odd; over how many frames the Savitzky-Golay filter fits a polynomial.
        degree: of that polynomial. 2 follows every steady acceleration.
        gap: for how many frames at most somebody, or a joint, may be missing and is filled in.
        jump: what is farther from the median of five frames, in sizes of the person (the square
            root of `AREA_OF_BOX` of the box), is a mistake and is filled in as if it were missing.
    """

    window: int = 9
    degree: int = 2
    gap: int = 8
    jump: float = 0.3


def smooth_video(frames: Sequence[People], config: SmoothingConfig | None = None) -> list[People]:
    """Steadies the joints of everybody who has an id.

    Joints that jump and come back are taken out. Gaps are filled on straight lines: joints there
    are `refined`, and people who were not found in frames between others are added to them, with
    scores between. Then a Savitzky-Golay filter runs over each coordinate in time.

    Args:
        frames: the people of each frame, with `ids`, as `Tracker` gives them. Frames are taken
            to be equally far apart.
        config: lengths and limits.

    Returns:
        the people of each frame: those who were there first, then those who were filled in.
    """
    config = config or SmoothingConfig()
    counts = [len(people) for people in frames]
    at = np.repeat(np.arange(len(frames)), counts)  # the frame of each row below
    if not at.size:
        return list(frames)
    ids = np.concatenate([_ids(people) for people in frames])
    keypoints = np.concatenate([people.keypoints for people in frames])
    refined = np.concatenate([people.refined for people in frames])
    scores = np.concatenate([people.scores for people in frames])
    added: list[tuple[np.ndarray, ...]] = []
    for id in np.unique(ids[ids > 0]):
        rows = np.flatnonzero(ids == id)
        span = np.arange(at[rows[0]], at[rows[-1]] + 1)
        track = np.zeros((len(span), *keypoints.shape[1:]))
        track[at[rows] - span[0]] = keypoints[rows]
        smooth, filled = _smooth_track(track, config)
        keypoints[rows] = smooth[at[rows] - span[0]]
        refined[rows] = (refined[rows] | filled[at[rows] - span[0]]) & (keypoints[rows, :, 2] > 0)
        new = np.setdiff1d(span[(smooth[..., 2] > 0).any(1)], at[rows])
        if new.size:
            there = smooth[new - span[0]].astype(np.float32)
            between = np.interp(new, at[rows], scores[rows]).astype(np.float32)
            added.append((new, np.full(len(new), id), there, there[..., 2] > 0, between))
    parts = zip((at, ids, keypoints, refined, scores), *added, strict=True)
    at, ids, keypoints, refined, scores = (np.concatenate(part) for part in parts)
    order = np.argsort(at, kind="stable")
    limits = np.searchsorted(at[order], np.arange(len(frames) + 1))
    return [
        replace(
            people,
            keypoints=keypoints[mine],
            scores=scores[mine],
            refined=refined[mine],
            ids=ids[mine],
        )
        for people, mine in zip(
            frames, (order[a:b] for a, b in itertools.pairwise(limits)), strict=True
        )
    ]


def smooth_stream(
    frames: Iterable[People], config: SmoothingConfig | None = None, *, block: int = 500
) -> Iterator[People]:
    """Like `smooth_video`, for videos of any length: only some frames are kept.

    `block` frames at a time are smoothed with those next to them. What comes out is the same,
    except that a person's size is that in these frames, and next to gaps that are longer than what
    is kept of the neighbouring blocks.

    Args:
        frames: see `smooth_video`.
        config: lengths and limits.
        block: how many frames are given at a time; twice as many as `window`, `gap` and 5 together
            may be kept besides.
    """
    config = config or SmoothingConfig()
    margin = config.window + config.gap + 5
    block = max(block, margin)
    kept: list[People] = []
    given = 0  # how many of those kept have been given already
    for people in frames:
        kept.append(people)
        if len(kept) == given + block + margin:
            yield from smooth_video(kept, config)[given : given + block]
            kept = kept[given + block - margin :]
            given = margin
    yield from smooth_video(kept, config)[given:]


def _smooth_track(track: np.ndarray, config: SmoothingConfig) -> tuple[np.ndarray, np.ndarray]:
    """One person's joints in F frames, [F, J, 3], steadied; and which were filled in, [F, J]."""
    from scipy.ndimage import median_filter
    from scipy.signal import savgol_filter

    seen = track[..., 2] > 0
    boxes = boxes_of(track)
    areas = boxes[:, 2] * boxes[:, 3]
    size = np.sqrt(AREA_OF_BOX * np.median(areas[seen.any(1)])) if seen.any() else 1.0
    values = _interpolated(track, seen)
    steady = median_filter(values[..., :2], size=(5, 1, 1), mode="nearest")
    good = seen & (np.linalg.norm(values[..., :2] - steady, axis=-1) <= config.jump * size)
    values = _interpolated(track, good)
    there = good | _in_short_gaps(good, config.gap)
    # A track that is shorter than the window is filtered over as much as there is.
    window = min(config.window, len(track) - 1 + len(track) % 2)
    if window > config.degree:
        values[..., :2] = savgol_filter(values[..., :2], window, config.degree, axis=0)
    return np.where(there[..., None], values, 0), there & ~good


def _interpolated(track: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The track [F, J, 3], whose joints are on straight lines where they are not known."""
    values, time = track.astype(float), np.arange(len(track))
    for j in np.flatnonzero(known.any(0)):
        for k in range(3):
            values[:, j, k] = np.interp(time, time[known[:, j]], track[known[:, j], j, k])
    return values


def _in_short_gaps(known: np.ndarray, most: int) -> np.ndarray:
    """Where [F, J] nothing is known, but is before and after, and these are near enough."""
    time = np.arange(len(known))[:, None]
    before = np.maximum.accumulate(np.where(known, time, -len(known)), axis=0)
    after = np.minimum.accumulate(np.where(known, time, 2 * len(known))[::-1], axis=0)[::-1]
    inside = (before >= 0) & (after < len(known))
    return ~known & inside & (after - before - 1 <= most)


def _ids(people: People) -> np.ndarray:
    return np.zeros(len(people), int) if people.ids is None else people.ids


class LiveSmoother:
    """Steadies joints while they come, without delay: the 1 EURO filter (Casiez et al., 2012).

    A joint follows a low-pass filter whose cutoff grows with its speed: what stands still is
    steadied much, and what moves lags little.

    Args:
        cutoff: Hz, of a joint at rest.
        slope: how many Hz a speed of one size per second adds, where a size is the square root of
            `AREA_OF_BOX` of the person's box.
        speed_cutoff: Hz, of the filter of the speed itself.
    """

    def __init__(self, cutoff: float = 1.5, slope: float = 4.0, speed_cutoff: float = 1.0) -> None:
        self.cutoff, self.slope, self.speed_cutoff = cutoff, slope, speed_cutoff
        self._before: tuple[float, np.ndarray, np.ndarray, np.ndarray] | None = None

    def __call__(self, people: People, time: float) -> People:
        """Steadies the people of the next frame, who need `ids`; `time` is in seconds."""
        ids, points = _ids(people), people.keypoints.astype(float)
        speeds = np.zeros_like(points[..., :2])
        if self._before is not None and len(people):
            then, old_ids, old_points, old_speeds = self._before
            same = (ids[:, None] == old_ids) & (ids[:, None] > 0)
            now, old = np.nonzero(same)
            dt = max(time - then, 1e-6)
            boxes = people.boxes[now]
            size = np.sqrt(AREA_OF_BOX * boxes[:, 2] * boxes[:, 3])[:, None, None]
            both = ((points[now, :, 2] > 0) & (old_points[old, :, 2] > 0))[..., None]
            raw = (points[now, :, :2] - old_points[old, :, :2]) / dt
            speed = old_speeds[old] + _share(self.speed_cutoff, dt) * (raw - old_speeds[old])
            pace = np.linalg.norm(speed, axis=-1, keepdims=True) / np.maximum(size, 1)
            share = _share(self.cutoff + self.slope * pace, dt)
            xy = old_points[old, :, :2] + share * (points[now, :, :2] - old_points[old, :, :2])
            points[now, :, :2] = np.where(both, xy, points[now, :, :2])
            speeds[now] = np.where(both, speed, 0)
        self._before = time, ids, points, speeds
        return replace(people, keypoints=points.astype(np.float32))


def _share(cutoff: "np.ndarray | float", dt: float) -> "np.ndarray | float":
    """How much of a change a low-pass filter lets through in `dt` seconds, 0..1."""
    return 1 / (1 + 1 / (2 * np.pi * cutoff * dt))
