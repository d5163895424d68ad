"""Identities: who walks, crosses, hides and returns keeps the id."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhn.data.joints import CROWDPOSE
from dhn.inference.people import People
from dhn.synth.video import FPS, VideoConfig, draw_video
from dhn.tracking import Tracker, TrackerConfig
from dhn.tracking.motion import at_rest, corrected, predicted

J = len(CROWDPOSE)
SIGMAS = np.array(CROWDPOSE.sigmas)
BODY = np.column_stack([np.linspace(-15, 15, J) % 11, np.linspace(0, 80, J)])


def people_at(places, scores=None, rng=None):
    """People of one shape at these (x, y); joints jitter by half a pixel where there is an rng."""
    places = np.asarray(places, float).reshape(-1, 2)
    keypoints = np.full((len(places), J, 3), 0.8, np.float32)
    keypoints[..., :2] = BODY + places[:, None]
    if rng is not None:
        keypoints[..., :2] += rng.normal(0, 0.5, (len(places), J, 2))
    scores = np.full(len(places), 0.8) if scores is None else np.asarray(scores)
    return People(keypoints, scores.astype(np.float32), CROWDPOSE)


def test_people_who_cross_keep_their_ids():
    rng, tracker = np.random.default_rng(0), Tracker(CROWDPOSE)
    for number in range(60):
        order = rng.permutation(2)
        places = np.array([(5 * number, 0), (300 - 5 * number, 3)])
        found = tracker(people_at(places[order], rng=rng))
        assert found.ids[np.argsort(order)].tolist() == [1, 2]


def test_somebody_hidden_for_a_second_is_known_again():
    rng, tracker = np.random.default_rng(1), Tracker(CROWDPOSE)
    for number in range(80):
        walker, other = (4 * number, 0), (160, 2)
        places = [other] if 30 <= number < 55 else [other, walker]
        ids = tracker(people_at(places, rng=rng)).ids.tolist()
        assert ids == [1, 2][: len(places)]
    # Whoever is gone for longer than the patience comes back as somebody else.
    for _ in range(60):
        tracker(people_at([other], rng=rng))
    tracker(people_at([other, (4 * 140, 0)], rng=rng))
    assert tracker(people_at([other, (4 * 141, 0)], rng=rng)).ids.tolist() == [1, 3]


def test_after_a_gap_the_speed_is_that_of_the_way():
    """Re-update: the filter has seen the straight way, not only its end."""
    tracker = Tracker(CROWDPOSE)
    for number in range(10):
        tracker(people_at([(2 * number, 0)]))
    for _ in range(5):
        tracker(people_at([]))
    assert tracker(people_at([(18 + 3 * 6, 0)])).ids.tolist() == [1]
    (velocity,) = tracker._tracks.motion.body_velocity()[:, 0]
    assert velocity[0] == pytest.approx(3 * 25, rel=0.1)


def test_weak_poses_go_on_with_a_track_but_begin_none():
    tracker = Tracker(CROWDPOSE)
    weak = TrackerConfig().strong / 2
    for number in range(5):
        assert tracker(people_at([(3 * number, 0)])).ids.tolist() == [1]
    for number in range(5, 10):
        places = [(3 * number, 0), (200, 0)]
        assert tracker(people_at(places, [weak, weak])).ids.tolist() == [1, 0]


def test_somebody_new_is_shown_when_seen_twice():
    tracker = Tracker(CROWDPOSE)
    assert tracker(people_at([])).ids.tolist() == []
    assert tracker(people_at([(0, 0)])).ids.tolist() == [0]
    assert tracker(people_at([(0, 0)])).ids.tolist() == [1]


@given(st.integers(0, 10**6))
def test_the_order_of_people_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    trackers = Tracker(CROWDPOSE), Tracker(CROWDPOSE)
    partners: dict[int, int] = {}
    for _ in range(6):
        people = people_at(rng.uniform(0, 120, (rng.integers(0, 5), 2)), rng=rng)
        order = rng.permutation(len(people))
        first, second = trackers[0](people), trackers[1](people[order])
        assert len({*first.ids[first.ids > 0].tolist()}) == (first.ids > 0).sum()  # one id each
        for a, b in zip(first.ids[order].tolist(), second.ids.tolist(), strict=True):
            assert (a == 0) == (b == 0)
            assert partners.setdefault(a, b) == b
        np.testing.assert_array_equal(first.keypoints, people.keypoints)


def kalman(steps, sigma, size, acceleration=8.0, first_speed=2.0):
    """The textbook's filter of one coordinate: x, and the 2 x 2 covariance, by matrices."""
    state, noise = np.array([steps[0][1], 0.0]), (sigma * size) ** 2
    covariance = np.diag([noise, (first_speed * size) ** 2])
    for (before, _), (now, seen) in itertools.pairwise(steps):
        dt = now - before
        F = np.array([[1, dt], [0, 1]])
        G = np.array([dt**2 / 2, dt]) * acceleration * size
        state, covariance = F @ state, F @ covariance @ F.T + np.outer(G, G)
        H = np.array([[1.0, 0.0]])
        gain = covariance @ H.T / (H @ covariance @ H.T + noise)
        state = state + gain[:, 0] * (seen - state[0])
        covariance = covariance - gain @ H @ covariance
    return state, covariance


@given(st.integers(0, 10**6))
def test_the_filter_is_kalmans(seed):
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.uniform(0.02, 0.3, 6))
    places, sizes = rng.uniform(0, 100, (6, 3, J, 2)), rng.uniform(5, 50, 3)
    poses = np.concatenate([places, np.ones((6, 3, J, 1))], -1)
    motion = at_rest(poses[0], sizes, SIGMAS)
    for k in range(1, 6):
        later = np.full(3, times[k] - times[k - 1])
        motion = corrected(predicted(motion, later, sizes), poses[k], sizes, SIGMAS)
    for n, j, axis in ((0, 0, 0), (1, 5, 1), (2, J - 1, 0)):
        steps = list(zip(times, places[:, n, j, axis], strict=True))
        state, covariance = kalman(steps, CROWDPOSE.sigmas[j], sizes[n])
        assert motion.xy[n, j, axis] == pytest.approx(state[0])
        assert motion.velocity[n, j, axis] == pytest.approx(state[1])
        ours = [values[n, j] for values in (motion.place, motion.both, motion.speed)]
        np.testing.assert_allclose(ours, covariance[[0, 0, 1], [0, 1, 1]], rtol=1e-6)


def test_joints_that_are_not_seen_move_with_the_body():
    poses = np.ones((1, J, 3))
    poses[..., :2] = BODY
    motion = at_rest(poses, np.array([40.0]), SIGMAS)
    motion = motion._replace(velocity=motion.velocity + np.array([10, 0]))
    poses[0, 3] = 0
    later = corrected(motion, poses, np.array([40.0]), SIGMAS)
    np.testing.assert_allclose(later.velocity[0, 3], later.body_velocity()[0, 0])
    assert later.known[0, 3]


def test_a_procedural_video():
    """With the joints of the annotations, ids change only when somebody has been away."""
    tracker, ours = Tracker(CROWDPOSE), {}
    switches = shown = 0
    config = VideoConfig(size=(160, 120), frames=50, people=5)
    for number, frame in enumerate(draw_video(1, config)):
        keypoints = frame.keypoints.astype(np.float32)
        keypoints[..., 2] = keypoints[..., 2] > 0
        people = People(keypoints, np.full(len(keypoints), 0.8, np.float32), CROWDPOSE)
        found = tracker(people, float(number / FPS))
        for true, id in zip(frame.ids.tolist(), found.ids.tolist(), strict=True):
            if id:
                shown += 1
                switches += ours.setdefault(true, id) != id
                ours[true] = id
    assert shown > 100
    assert switches <= 1
    assert len({*ours.values()}) == len(ours)
