"""Drawn people: the ink lies on the limbs and nowhere else."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dhn.data.joints import COCO, CROWDPOSE
from dhn.media.draw import SteadyColours, draw_poses

GREY = np.full((90, 120, 3), 128, np.uint8)


def distance_to_skeleton(pose, threshold, size):
    """Pixels from each pixel centre to the nearest drawn limb or joint, the slow way."""
    height, width = size
    centres = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), -1)
    nearest = np.full((height, width), np.inf)
    found = pose[:, 2] > threshold
    pairs = [(j, j) for j in range(len(pose))] + list(CROWDPOSE.skeleton)
    for a, b in pairs:
        if found[a] and found[b]:
            start, along = pose[a, :2], pose[b, :2] - pose[a, :2]
            t = ((centres - start) @ along / max(along @ along, 1e-9)).clip(0, 1)
            distances = np.linalg.norm(centres - start - t[..., None] * along, axis=-1)
            nearest = np.minimum(nearest, distances)
    return nearest


def random_pose(seed, low=-30, high=150):
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.uniform(low, high, (14, 2)), rng.uniform(0, 1, 14)])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 0.95))
def test_ink_lies_on_limbs_only(seed, threshold):
    pose = random_pose(seed)
    out = draw_poses(GREY, pose[None], CROWDPOSE, joint_threshold=threshold)
    distance = distance_to_skeleton(pose, threshold, GREY.shape[:2])
    painted = (out != GREY).any(-1)
    diagonal = np.hypot(180, 180)
    reach = 0.7 * diagonal / 65 * 1.5 + 2
    assert not painted[distance > reach].any()
    if threshold > 0.1:  # what scores less than .1 is too faint to ask for
        assert painted[distance < 0.5].all()


def test_nothing_is_drawn_for_nobody():
    for poses in (np.zeros((0, 14, 3)), np.zeros((2, 14, 3)), np.full((1, 14, 3), np.nan)):
        out = draw_poses(GREY, poses, CROWDPOSE)
        np.testing.assert_array_equal(out, GREY)
        assert out is not GREY


def test_input_is_left_alone():
    image, poses = GREY.copy(), np.stack([random_pose(0), random_pose(1)])
    before = poses.copy()
    out = draw_poses(image, poses, CROWDPOSE)
    assert (out != image).any()
    np.testing.assert_array_equal(image, GREY)
    np.testing.assert_array_equal(poses, before)


@pytest.mark.parametrize("where", [(40.5, 30.5), (40.0, 31.0), (40.25, 30.75)])
def test_a_joint_is_centred_where_its_coordinates_say(where):
    pose = np.zeros((1, 14, 3))
    pose[0, 3] = (*where, 1)
    black = np.zeros_like(GREY)
    weight = draw_poses(black, pose, CROWDPOSE).sum(-1).astype(float)
    ys, xs = np.nonzero(weight)
    centre = np.average(np.column_stack([xs, ys]) + 0.5, axis=0, weights=weight[ys, xs])
    np.testing.assert_allclose(centre, where, atol=0.1)


def test_joints_far_outside_do_no_harm():
    for far in (1e4, -1e4, 1e9, -1e9):
        pose = random_pose(0, 20, 80)
        pose[:, 2] = 1
        pose[4, :2] = far
        draw_poses(GREY, pose[None], CROWDPOSE)
    outside = random_pose(0, 500, 900)
    np.testing.assert_array_equal(draw_poses(GREY, outside[None], CROWDPOSE), GREY)


def test_sides_people_and_scores_look_different():
    pose = np.zeros((14, 3))
    pose[[0, 1], 0], pose[:, 1], pose[[0, 1], 2] = (30, 90), 45, 1
    out = draw_poses(GREY, pose[None], CROWDPOSE)
    left, right = out[45, 30].astype(int), out[45, 90].astype(int)
    assert np.abs(left - right).sum() > 60

    second = draw_poses(GREY, pose[None], CROWDPOSE, colours=np.array([1]))[45, 30].astype(int)
    assert np.abs(left - second).sum() > 60

    pose[:, 2] *= 0.2
    faint = draw_poses(GREY, pose[None], CROWDPOSE)[45, 30].astype(int)
    assert 0 < np.abs(faint - 128).sum() < np.abs(left - 128).sum()


def test_refined_joints_are_hollow_and_their_limbs_thin():
    image = np.full((400, 400, 3), 128, np.uint8)
    pose = np.zeros((1, 17, 3))
    pose[0, [11, 13]] = (200.5, 20.5, 1), (200.5, 380.5, 1)
    solid = draw_poses(image, pose, COCO)
    refined = np.zeros((1, 17), bool)
    refined[0, 13] = True
    hollow = draw_poses(image, pose, COCO, refined=refined)
    assert (solid[380, 200] != 128).all()
    assert (hollow[380, 200] == 128).all()  # inside of the ring
    assert (hollow[20, 200] != 128).all()
    ring = (hollow[380] != 128).any(-1)
    assert ring[:200].any()
    assert ring[201:].any()
    limbs = [(out[200] != 128).any(-1).sum() for out in (solid, hollow)]
    assert 0 < limbs[1] < limbs[0]


def test_lines_are_wider_on_larger_people():
    image = np.full((600, 600, 3), 128, np.uint8)
    widths = []
    for size in (40, 200, 560):
        pose = np.zeros((1, 17, 3))
        pose[0, [11, 13]] = (300.5, 10, 1), (300.5, 10 + size, 1)
        out = draw_poses(image, pose, COCO)
        widths.append((out[10 + size // 2] != 128).any(-1).sum())
    assert widths[0] < widths[1] < widths[2]


def test_larger_people_are_on_top():
    small, large = np.zeros((17, 3)), np.zeros((17, 3))
    large[[5, 6]] = (10, 45, 1), (110, 45, 1)
    small[[5, 6]] = (60, 35, 1), (60, 55, 1)
    alone = draw_poses(GREY, large[None], COCO, colours=np.array([0]))
    for order in ((0, 1), (1, 0)):
        poses = np.stack([large, small])[list(order)]
        both = draw_poses(GREY, poses, COCO, colours=np.array(order))
        np.testing.assert_array_equal(both[45, 60], alone[45, 60])


def test_people_keep_their_colours_from_frame_to_frame():
    rng = np.random.default_rng(0)
    colours = SteadyColours()
    people = np.stack(
        [random_pose(seed, 0, 50) + np.array([60 * seed, 0, 0.1]) for seed in range(5)]
    )
    first = colours(people)
    assert sorted(first) == [0, 1, 2, 3, 4]
    order = rng.permutation(5)
    moved = people[order] + [3, -2, 0]
    np.testing.assert_array_equal(colours(moved), first[order])
    assert len(colours(np.zeros((0, 14, 3)))) == 0
    assert not set(colours(people)) & set(first)  # after an empty frame all are new


def test_a_newcomer_gets_a_new_colour():
    colours = SteadyColours()
    one = random_pose(1, 0, 50)[None] + [0, 0, 0.1]
    (first,) = colours(one)
    both = colours(np.concatenate([one + np.array([500, 0, 0]), one]))
    assert both[1] == first
    assert both[0] != first


def test_32_people_have_colours_of_their_own():
    poses = np.array([[[10.0, 20, 0.9], [50, 20, 0.9]]], np.float32)
    joints = replace(COCO, names=("a", "b"), skeleton=((0, 1),), flip=(1, 0), sigmas=(0.1, 0.1))
    image = np.full((40, 60, 3), 128, np.uint8)
    drawn = [draw_poses(image, poses, joints, colours=np.array([k])) for k in range(32)]
    for a, b in itertools.combinations(drawn, 2):
        assert np.abs(a.astype(int) - b).max() > 30


def test_short_limbs_are_thin_so_that_a_face_stays_visible():
    """Nose and eyes of a person 600 px high, 24 px apart."""
    pose = np.zeros((1, 17, 3), np.float32)
    pose[0, [0, 1, 2]] = [[300, 60, 0.9], [312, 48, 0.9], [288, 48, 0.9]]
    pose[0, [11, 13, 15]] = [[300, 300, 0.9], [300, 450, 0.9], [300, 640, 0.9]]
    image = np.full((700, 600, 3), 128, np.uint8)

    drawn = (draw_poses(image, pose, COCO) != image).any(-1)

    face = drawn[30:75, 275:325]
    assert 0.05 < face.mean() < 0.45
    assert drawn[375, 270:330].sum() >= 9  # the thigh keeps its width


def test_lines_are_as_wide_as_asked_and_boxes_go_around():
    pose = np.zeros((1, 17, 3), np.float32)
    pose[0, [11, 13]] = [[100.5, 40.5, 0.9], [100.5, 160.5, 0.9]]
    pose[0, [5]] = [[40.5, 40.5, 0.9]]
    image = np.full((200, 200, 3), 128, np.uint8)
    for width in (3, 11):
        drawn = (draw_poses(image, pose, COCO, line_width=width) != image).any(-1)
        rims = 2 * max(0.8, width / 5)
        assert drawn[100, 80:120].sum() == pytest.approx(width + rims, abs=2)
    boxed = (draw_poses(image, pose, COCO, line_width=3, boxes=True) != image).any(-1)
    plain = (draw_poses(image, pose, COCO, line_width=3) != image).any(-1)
    added = np.argwhere(boxed & ~plain)
    assert (added.min(0) >= 37).all()
    assert (added.max(0) <= (163, 103)).all()
    assert boxed[160, 45:95].all()
    assert boxed[60:150, 40].all()


def test_large_images_get_lines_that_are_seen_when_they_are_shown_small():
    pose = np.zeros((1, 17, 3), np.float32)
    pose[0, [11, 13]] = [[2000, 1000, 0.9], [2000, 1100, 0.9]]
    image = np.full((2000, 4000, 3), 128, np.uint8)
    drawn = (draw_poses(image, pose, COCO) != image).any(-1)
    assert drawn[1050, 1900:2100].sum() >= 5
