"""Follows people through a video by their poses."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from dhn.data.coco_file import AREA_OF_BOX
from dhn.data.joints import JointSet
from dhn.data.oks import pose_oks
from dhn.inference.people import People, boxes_of
from dhn.tracking.motion import Motion, at_rest, corrected, predicted

_FRAME = 1 / 25  # seconds between frames of which nobody says the time


@dataclass(frozen=True)
class TrackerConfig:
    """When a pose belongs to a track, begins one, and ends one.

    Attributes:
        strong: the score from which a pose may begin a track. Weaker ones only go on with one.
        similar: the least OKS between a pose and where a track is expected.
        similar_weak: the same for weak poses.
        tolerance: how much larger than in COCO's OKS the deviations of joints are, because a
            prediction is less exact than an annotation.
        hits: in how many frames a track must have been seen before its people get its id, except
            in the first frame of the video.
        patience: for how many seconds a track is kept while nobody sees it.
    """

    strong: float = 0.25
    similar: float = 0.2
    similar_weak: float = 0.4
    tolerance: float = 2.0
    hits: int = 2
    patience: float = 2.0


class _Tracks(NamedTuple):
    """N tracks, each as it was when it was last seen.

    Attributes:
        ids, hits: int [N].
        time: float [N], seconds.
        frame: int [N], the number of the frame.
        sizes: float [N].
        poses: float [N, J, 3], as seen.
        motion: the filtered poses.
    """

    ids: np.ndarray
    hits: np.ndarray
    time: np.ndarray
    frame: np.ndarray
    sizes: np.ndarray
    poses: np.ndarray
    motion: Motion

    def of(self, chosen: np.ndarray) -> "_Tracks":
        """Some of them, chosen as NumPy chooses."""
        return _Tracks(
            self.ids[chosen],
            self.hits[chosen],
            self.time[chosen],
            self.frame[chosen],
            self.sizes[chosen],
            self.poses[chosen],
            self.motion.of(chosen),
        )


class Tracker:
    """Gives the people of a video ids, frame by frame.

        tracker = Tracker(predictor.joints)
        for image in images:
            people = tracker(predictor(image))
            people.ids  # 0 where somebody has none yet

    A Kalman filter predicts every joint of every track. Poses are assigned to tracks at the
    highest total OKS with these predictions, in two stages as in ByteTrack (Zhang et al., 2022):
    strong poses first, to all tracks, then weak ones to those that were seen in the frame before.
    What is left over of both is compared with where tracks were last seen, and the filter of a
    track that was lost is run again along the straight way from there, both as in OC-SORT (Cao et
    al., 2023).

    Args:
        joints: the people's joints, whose sigmas OKS takes.
        config: thresholds.
    """

    def __init__(self, joints: JointSet, config: TrackerConfig | None = None) -> None:
        self.joints = joints
        self.config = config or TrackerConfig()
        self._sigmas = np.array(joints.sigmas)
        self._tracks: _Tracks | None = None
        self._frame = -1
        self._time = -_FRAME
        self._next_id = 1

    def __call__(self, people: People, time: float | None = None) -> People:
        """Takes the people of the next frame.

        Args:
            people: those that the network found, weak ones too.
            time: when the frame is shown, in seconds; by default 1/25 after the one before.

        Returns:
            the same people in the same order with `ids` of 1 and more; 0 for somebody who has not
            been seen often enough, or is too weak to begin a track.
        """
        self._frame += 1
        self._time = self._time + _FRAME if time is None else time
        sizes = _sizes(people.boxes)
        track_of = self._assign(people)
        strong = people.scores >= self.config.strong
        begins = (track_of < 0) & strong & (people.keypoints[..., 2] > 0).any(1)
        ids = np.zeros(len(people), int)
        if self._tracks is not None:
            mine = track_of >= 0
            tracks = self._seen(track_of[mine], people.keypoints[mine], sizes[mine])
            old = tracks.time > self._time - self.config.patience
            shown = np.where(tracks.hits >= self.config.hits, tracks.ids, 0)
            ids[mine] = shown[track_of[mine]]
            tracks = tracks.of(old)
        new = self._begun(people.keypoints[begins], sizes[begins])
        if self._frame == 0:
            ids[begins] = new.ids
        self._tracks = new if self._tracks is None else _joined(tracks, new)
        return replace(people, ids=ids)

    def _assign(self, people: People) -> np.ndarray:
        """The track of each person, int [P]; -1 for none."""
        track_of = np.full(len(people), -1)
        if self._tracks is None or not len(people) or not len(self._tracks.ids):
            return track_of
        tracks, config = self._tracks, self.config
        lost = self._frame - tracks.frame > 1
        motion = tracks.motion
        if lost.any():
            velocity = np.where(lost[:, None, None], motion.body_velocity(), motion.velocity)
            motion = motion._replace(velocity=velocity)
        expected = predicted(motion, self._time - tracks.time, tracks.sizes)
        there = np.concatenate([expected.xy, expected.known[..., None]], -1)
        strong = people.scores >= config.strong
        oks = self._similarity(there, people)
        everyone = np.ones(len(tracks.ids), bool)
        _match(oks, everyone, strong, config.similar, track_of)
        _match(oks, ~lost, ~strong, config.similar_weak, track_of)
        if (strong & (track_of < 0)).any():
            _match(
                self._similarity(tracks.poses, people), everyone, strong, config.similar, track_of
            )
        return track_of

    def _similarity(self, poses: np.ndarray, people: People) -> np.ndarray:
        """OKS [N, P] of tracks in `poses` [N, J, 3] with the people."""
        return pose_oks(
            poses,
            people.keypoints,
            [self.config.tolerance * sigma for sigma in self.joints.sigmas],
            first_boxes=boxes_of(poses),
            second_boxes=people.boxes,
        )

    def _seen(self, chosen: np.ndarray, poses: np.ndarray, sizes: np.ndarray) -> _Tracks:
        """The tracks, after the `chosen` ones [M] were seen in `poses` [M, J, 3]."""
        assert self._tracks is not None
        tracks = self._tracks
        before = tracks.of(chosen)
        sizes = np.maximum(before.sizes + 0.2 * (sizes - before.sizes), 1)  # boxes are jumpy
        motion, steps = before.motion, self._frame - before.frame
        dt = (self._time - before.time) / steps
        # A track that was lost takes the steps that it missed, as if it had been seen on a straight
        # line between then and now.
        between = (before.poses[..., 2] > 0) & (poses[..., 2] > 0)
        for step in range(1, int(steps.max(initial=0))):
            late = np.flatnonzero(steps > step)
            share = (step / steps[late])[:, None, None]
            way = before.poses[late] + (poses[late] - before.poses[late]) * share
            way[..., 2] = between[late]
            moved = predicted(motion.of(late), dt[late], sizes[late])
            after = corrected(moved, way, sizes[late], self._sigmas)
            for values, new in zip(motion, after, strict=True):
                values[late] = new
        motion = corrected(predicted(motion, dt, sizes), poses, sizes, self._sigmas)
        tracks.hits[chosen] += 1
        tracks.time[chosen] = self._time
        tracks.frame[chosen] = self._frame
        tracks.sizes[chosen] = sizes
        tracks.poses[chosen] = poses
        for values, new in zip(tracks.motion, motion, strict=True):
            values[chosen] = new
        return tracks

    def _begun(self, poses: np.ndarray, sizes: np.ndarray) -> _Tracks:
        count = len(poses)
        ids = self._next_id + np.arange(count)
        self._next_id += count
        sizes = np.maximum(sizes, 1)
        return _Tracks(
            ids,
            np.full(count, self.config.hits if self._frame == 0 else 1),
            np.full(count, self._time),
            np.full(count, self._frame),
            sizes,
            np.asarray(poses, float),
            at_rest(poses, sizes, self._sigmas),
        )


def _match(
    oks: np.ndarray, tracks: np.ndarray, people: np.ndarray, least: float, track_of: np.ndarray
) -> None:
    """Assigns free people to free tracks at the highest total OKS; writes into `track_of` [P].

    Args:
        oks: [N, P].
        tracks, people: bool [N] and [P], who takes part.
        least: pairs below it are no match.
        track_of: see `Tracker._assign`.
    """
    from scipy.optimize import linear_sum_assignment

    free = tracks.copy()
    free[track_of[track_of >= 0]] = False
    rows, columns = np.flatnonzero(free), np.flatnonzero(people & (track_of < 0))
    if not rows.size or not columns.size:
        return
    gated = oks[np.ix_(rows, columns)]
    # Pairs that are no match count nothing, so that they cannot win against one that is.
    gated = np.where(gated >= least, gated, 0)
    row, column = linear_sum_assignment(gated, maximize=True)
    good = gated[row, column] > 0
    track_of[columns[column[good]]] = rows[row[good]]


def _sizes(boxes: np.ndarray) -> np.ndarray:
    return np.sqrt(AREA_OF_BOX * boxes[:, 2] * boxes[:, 3]).astype(float)


def _joined(first: _Tracks, second: _Tracks) -> _Tracks:
    return _Tracks(
        np.concatenate([first.ids, second.ids]),
        np.concatenate([first.hits, second.hits]),
        np.concatenate([first.time, second.time]),
        np.concatenate([first.frame, second.frame]),
        np.concatenate([first.sizes, second.sizes]),
        np.concatenate([first.poses, second.poses]),
        Motion(*(np.concatenate(pair) for pair in zip(first.motion, second.motion, strict=True))),
    )
