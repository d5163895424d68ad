"""People found twice: suppression against the greedy loop that it stands for."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dhn
from dhn.data.joints import CROWDPOSE
from dhn.data.oks import pose_oks
from dhn.inference.duplicates import without_duplicates, without_guesses
from dhn.inference.people import People
from tiny_networks import save_network

J = len(CROWDPOSE)


def crowd(seed, P, spread):
    """Poses that resemble each other the more, the smaller `spread` is; some joints are missing."""
    random = np.random.default_rng(seed)
    body = random.uniform(0, 100, (J, 2))
    keypoints = np.ones((P, J, 3), np.float32)
    keypoints[..., :2] = body + random.normal(0, 1, (P, J, 2)) * spread
    keypoints[..., :2] += random.integers(0, 3, (P, 1, 1)) * 150
    keypoints[random.random((P, J)) < 0.3] = 0
    scores = random.integers(1, 6, P).astype(np.float32) / 5  # with ties
    return People(keypoints, scores, CROWDPOSE, refined=random.random((P, J)) < 0.3)


def oks_of_two(first, second):
    """One pair of people, joint by joint."""
    areas = []
    for person in (first, second):
        found = [joint for joint in person if joint[2] > 0]
        xs, ys = [x for x, _, _ in found], [y for _, y, _ in found]
        areas.append(0.53 * (max(xs) - min(xs)) * (max(ys) - min(ys)) if found else 0)
    total = 0.0
    for a, b, sigma in zip(first, second, CROWDPOSE.sigmas, strict=True):
        if a[2] > 0 and b[2] > 0:
            distance2 = float((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2)
            total += math.exp(-distance2 / max(2 * max(areas) * (2 * sigma) ** 2, 1e-9))
    return total / max(1, min(int((person[:, 2] > 0).sum()) for person in (first, second)))


@given(st.integers(0, 10**6), st.integers(0, 6), st.sampled_from([1.0, 5.0, 20.0]))
def test_oks_of_pairs(seed, P, spread):
    first, second = crowd(seed, P, spread), crowd(seed, 4, spread)
    oks = pose_oks(
        first.keypoints,
        second.keypoints,
        CROWDPOSE.sigmas,
        first_boxes=first.boxes,
        second_boxes=second.boxes,
    )
    assert oks.shape == (P, 4)
    for i, a in enumerate(first.keypoints):
        for j, b in enumerate(second.keypoints):
            assert oks[i, j] == pytest.approx(oks_of_two(a, b), abs=1e-4)


@given(
    st.integers(0, 10**6),
    st.integers(0, 12),
    st.sampled_from([1.0, 5.0, 20.0]),
    st.sampled_from([0.05, 0.3, 0.7, 1.0]),
)
def test_suppression_is_greedy(seed, P, spread, threshold):
    people = crowd(seed, P, spread)
    kept = []
    for p in sorted(range(P), key=lambda p: (-people.scores[p], p)):
        if all(oks_of_two(people.keypoints[p], people.keypoints[k]) <= threshold for k in kept):
            kept.append(p)
    stayed = without_duplicates(people, threshold)
    np.testing.assert_array_equal(stayed.keypoints, people.keypoints[sorted(kept)])
    np.testing.assert_array_equal(stayed.refined, people.refined[sorted(kept)])


def test_guesses_are_left_out():
    people = crowd(1, 12, 5.0)
    seen = [sum(state == "seen" for state in states) for states in people.states.tolist()]
    for least in range(1, J + 1):
        stayed = without_guesses(people, least)
        expected = [p for p in range(12) if seen[p] >= least]
        np.testing.assert_array_equal(stayed.keypoints, people.keypoints[expected])


def test_a_predictor_leaves_them_out_unless_it_reproduces_the_official_code(tmp_path):
    """The tiny network's random maps are full of people who share joints."""
    save_network(tmp_path / "tiny.pt")
    image = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)

    def find(**settings):
        return dhn.load(tmp_path / "tiny.pt", device="cpu", **settings)(image)

    everybody = find(nms_oks=1)
    assert 0 < len(find(nms_oks=0.2)) < len(everybody)
    np.testing.assert_array_equal(
        find(nms_oks=0.2).keypoints, without_duplicates(everybody, 0.2).keypoints
    )
    np.testing.assert_array_equal(
        find(nms_oks=1, min_seen=3).keypoints, without_guesses(everybody, 3).keypoints
    )
    assert len(find(parity=True)) == len(find(parity=True, nms_oks=1))
