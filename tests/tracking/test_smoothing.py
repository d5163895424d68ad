"""Steady joints: less jitter at no more error, gaps filled, jumps taken out."""

import math

import numpy as np
import pytest

from dhn.data.joints import CROWDPOSE
from dhn.inference.people import People
from dhn.synth.video import FPS, VideoConfig, draw_video
from dhn.tracking import LiveSmoother, SmoothingConfig, smooth_stream, smooth_video

J = len(CROWDPOSE)
BODY = np.column_stack([np.linspace(-15, 15, J) % 11, np.linspace(0, 80, J)])


def people_of(poses, ids):
    keypoints = np.asarray(poses, np.float32)
    return People(
        keypoints, np.full(len(keypoints), 0.8, np.float32), CROWDPOSE, ids=np.asarray(ids, int)
    )


def standing(frames, rng, speed=0.0, noise=1.0):
    """One person in each frame: the poses [F, J, 2] as they are, and the people as found."""
    truth = BODY + np.arange(frames)[:, None, None] * (speed, 0)
    poses = np.dstack([truth + rng.normal(0, noise, truth.shape), np.full(truth.shape[:2], 0.8)])
    return truth, [people_of(pose[None], [1]) for pose in poses.reshape(frames, J, 3)]


def track(frames):
    return np.array([people.keypoints[0, :, :2] for people in frames])


def jitter(poses):
    """The deviation of second differences, which steady motion has none of."""
    return np.diff(poses, 2, axis=0).std()


def error(poses, truth):
    return np.linalg.norm(poses - truth, axis=-1).mean()


@pytest.mark.parametrize("speed", [0.0, 3.0])
def test_half_the_jitter_at_no_more_error(speed):
    truth, found = standing(60, np.random.default_rng(0), speed)
    before, after = track(found), track(smooth_video(found))
    assert jitter(after) < jitter(before) / 2
    assert error(after, truth) < error(before, truth)


def test_walking_people_of_a_procedural_video():
    """Legs and arms swing: their turns are not cut off by more than the noise that goes."""
    rng = np.random.default_rng(0)
    truths, found = [], []
    for frame in draw_video(2, VideoConfig(size=(96, 72), frames=40, people=2, pan=0)):
        poses = frame.keypoints[..., :2]
        noisy = np.dstack([poses + rng.normal(0, 0.6, poses.shape), np.full(poses.shape[:2], 0.8)])
        noisy *= frame.keypoints[..., 2:] > 0
        truths.append(frame.keypoints)
        found.append(people_of(noisy, frame.ids))
    after = smooth_video(found)
    errors = []
    for frames in (found, after):
        errors.append(
            np.mean(
                [
                    np.linalg.norm(people.keypoints[p, :, :2] - truth[p, :, :2], axis=-1)[
                        (truth[p, :, 2] > 0)
                    ].mean()
                    for people, truth in zip(frames, truths, strict=True)
                    for p in range(len(truth))
                    if (truth[p, :, 2] > 0).any()
                ]
            )
        )
    assert errors[1] < errors[0]


def test_gaps_are_filled_up_to_a_length():
    _, found = standing(60, np.random.default_rng(1), 2.0)
    for number in range(20, 26):
        found[number] = people_of(np.zeros((0, J, 3)), [])
    found[40].keypoints[0, 3] = 0
    for number in range(45, 55):
        found[number] = people_of(np.zeros((0, J, 3)), [])
    after = smooth_video(found, SmoothingConfig(gap=6))
    counts = [len(people) for people in after]
    assert counts == [0 if 45 <= n < 55 else 1 for n in range(60)]
    for number in range(20, 26):
        assert after[number].ids.tolist() == [1]
        assert (after[number].states == "refined").all()
        np.testing.assert_allclose(
            after[number].keypoints[0, :, :2], BODY + np.array([2 * number, 0]), atol=3.5
        )
    assert after[40].states[0, 3] == "refined"
    assert after[40].states[0, 4] == "seen"
    assert not after[0].refined.any()


def test_jumps_that_come_back_are_taken_out():
    truth, found = standing(30, np.random.default_rng(2), noise=0.1)
    found[12].keypoints[0, 5, :2] += 40
    after = smooth_video(found)
    assert np.abs(track(after)[:, 5] - truth[:, 5]).max() < 1
    assert after[12].states[0, 5] == "refined"
    assert sum((people.states == "refined").sum() for people in after) == 1


def test_people_without_an_id_stay_as_they_are():
    pose = np.column_stack([BODY, np.full(J, 0.8)])[None]
    frames = [
        people_of(np.concatenate([pose, pose + np.array([90, k % 2, 0])]), [0, 1])
        for k in range(12)
    ]
    after = smooth_video(frames)
    for before, now in zip(frames, after, strict=True):
        np.testing.assert_array_equal(now.keypoints[0], before.keypoints[0])
        assert now.ids.tolist() == [0, 1]
    assert smooth_video([]) == []
    assert [len(people) for people in smooth_video([people_of(pose, [1])])] == [1]


def one_euro(times, values, size, cutoff=1.5, slope=4.0, speed_cutoff=1.0):
    """The paper's filter of one joint's (x, y), step by step."""
    out, x, speed = [values[0]], values[0], np.zeros(2)
    for k in range(1, len(times)):
        dt = times[k] - times[k - 1]

        def share(hertz, dt=dt):
            return 1 / (1 + 1 / (2 * math.pi * hertz * dt))

        speed = speed + share(speed_cutoff) * ((values[k] - x) / dt - speed)
        x = x + share(cutoff + slope * math.hypot(*speed) / size) * (values[k] - x)
        out.append(x)
    return np.array(out)


def test_the_live_filter_is_the_one_euro_filter():
    rng = np.random.default_rng(3)
    times = np.cumsum(rng.uniform(0.02, 0.08, 20))
    _, found = standing(20, rng, 1.5)
    smoother = LiveSmoother()
    order = [[0, 1], [1, 0]]
    live = []
    for k, (people, time) in enumerate(zip(found, times, strict=True)):
        both = np.concatenate([people.keypoints, people.keypoints + np.float32((200, 0, 0))])
        swap = order[k % 2]
        out = smoother(people_of(both[swap], np.array([1, 2])[swap]), time)
        live.append(out.keypoints[swap.index(0), :, :2])
    size = None
    for j in (0, 7):
        values = [people.keypoints[0, j, :2].astype(float) for people in found]
        # The size follows each frame's box, which hardly changes here.
        boxes = [people.boxes[0] for people in found]
        size = np.mean([math.sqrt(0.53 * w * h) for _, _, w, h in boxes])
        np.testing.assert_allclose(np.array(live)[:, j], one_euro(times, values, size), atol=0.15)


def test_live_jitter_falls_and_lag_is_short():
    rng = np.random.default_rng(4)
    truth, found = standing(80, rng)
    live = LiveSmoother()
    after = track([live(people, k / float(FPS)) for k, people in enumerate(found)])
    assert jitter(after[5:]) < jitter(track(found)[5:]) / 2
    assert error(after, truth) < error(track(found), truth)
    truth, found = standing(80, rng, speed=4.0)
    live = LiveSmoother()
    after = track([live(people, k / float(FPS)) for k, people in enumerate(found)])
    lag = (truth - after)[20:, :, 0].mean() / 4  # frames
    assert 0 < lag < 1.5


@pytest.mark.parametrize("frames", [0, 1, 30, 52, 53, 200])
def test_a_stream_is_smoothed_as_the_whole_video_is(frames):
    """Two people with gaps, one of whom comes late; blocks of 30 frames."""
    rng = np.random.default_rng(frames)
    truth = BODY + np.arange(frames)[:, None, None] * (1.5, 0)
    found = []
    for k in range(frames):
        ids = [id for id in (1, 2) if rng.random() > 0.1 and (id == 1 or k > frames / 3)]
        poses = [truth[k] + (0, 100 * id) + rng.normal(0, 0.5, BODY.shape) for id in ids]
        scores = rng.uniform(0.3, 0.9, (len(ids), J, 1)) * (rng.random((len(ids), J, 1)) > 0.1)
        poses = np.reshape(poses, (-1, J, 2)) * (scores > 0)
        found.append(people_of(np.concatenate([poses, scores], -1), ids))
    taken = 0

    def counted():
        nonlocal taken
        for people in found:
            taken += 1
            yield people

    expected = smooth_video(found)
    count = 0
    for count, people in enumerate(smooth_stream(counted(), block=30), 1):
        assert taken <= count + 30 + 2 * 22
        np.testing.assert_array_equal(people.ids, expected[count - 1].ids)
        np.testing.assert_allclose(people.keypoints, expected[count - 1].keypoints, atol=1e-3)
        np.testing.assert_array_equal(people.refined, expected[count - 1].refined)
        np.testing.assert_allclose(people.scores, expected[count - 1].scores, atol=1e-6)
    assert count == frames
