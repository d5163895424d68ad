import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhn.base.errors import DhnError, SettingError
from dhn.data.joints import (
    COCO,
    CROWDPOSE,
    DEFAULT_SIGMA,
    JointSet,
    doubts_about_sides,
    flip_from_names,
    joints_of_category,
    with_pairs,
    with_sigmas,
)


@pytest.mark.parametrize("joints", [CROWDPOSE, COCO])
def test_known_sets_are_consistent(joints):
    J = len(joints)
    assert (
        len(joints.names) == len(set(joints.names)) == len(joints.flip) == len(joints.sigmas) == J
    )
    assert all(0 <= a < J and 0 <= b < J and a != b for a, b in joints.skeleton)
    assert len(set(map(frozenset, joints.skeleton))) == len(joints.skeleton)
    for j, name in enumerate(joints.names):
        mirrored = name.replace("left", "?").replace("right", "left").replace("?", "right")
        assert joints.names[joints.flip[j]] == mirrored


@pytest.mark.parametrize("joints", [CROWDPOSE, COCO])
def test_plain_values_give_the_same_joints(joints):
    plain = json.loads(json.dumps(dataclasses.asdict(joints)))
    assert JointSet.from_dict(plain) == joints
    for wrong in (3, "joints", [1, 2], {"name": "x"}, plain | {"colour": 1}):
        with pytest.raises((TypeError, ValueError)):
            JointSet.from_dict(wrong)


def test_limbs_are_mirrored_limbs():
    for joints in (CROWDPOSE, COCO):
        limbs = set(map(frozenset, joints.skeleton))
        assert {frozenset(joints.flip[j] for j in limb) for limb in limbs} == limbs


def test_published_constants():
    ours = [round(10 * s, 2) for s in CROWDPOSE.sigmas]
    assert (
        ours
        == [0.79] * 2 + [0.72] * 2 + [0.62] * 2 + [1.07] * 2 + [0.87] * 2 + [0.89] * 2 + [0.79] * 2
    )
    from pycocotools.cocoeval import Params

    assert COCO.sigmas == pytest.approx(Params("keypoints").kpt_oks_sigmas, abs=1e-12)


def test_grouping_orders():
    assert CROWDPOSE.grouping_order is None
    names = [COCO.names[j].split("_")[-1] for j in COCO.grouping_order]
    parts = ["nose", "eye", "ear", "shoulder", "hip", "elbow", "wrist", "knee", "ankle"]
    assert list(dict.fromkeys(names)) == parts
    assert sorted(COCO.grouping_order) == list(range(17))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("left_paw", "right_paw"),
        ("l_paw", "r_paw"),
        ("paw_left", "paw_right"),
        ("leftPaw", "rightPaw"),
        ("LEFT PAW", "Right-Paw"),
        ("L_Paw", "R_Paw"),
        ("front_left_paw", "front_right_paw"),
        ("pawLeft", "pawRight"),
    ],
)
def test_left_and_right_are_paired_by_name(left, right):
    assert flip_from_names(["nose", left, "tail", right]) == (0, 3, 2, 1)


def test_names_without_a_partner_stay():
    assert flip_from_names(["left_eye", "right_ear", "bright", "cleft", "wrist"]) == (0, 1, 2, 3, 4)


words = st.sampled_from(["left", "right", "l", "r", "eye", "paw", "top"])


@given(st.lists(st.lists(words, min_size=1, max_size=3).map("_".join), unique=True, max_size=12))
def test_flipping_twice_changes_nothing(names):
    flip = flip_from_names(names)
    assert [flip[j] for j in flip] == list(range(len(names)))


def category(**fields):
    return {"name": "cat", "keypoints": ["nose", "left_ear", "right_ear"]} | fields


def test_a_custom_category():
    joints = joints_of_category(category(skeleton=[[1, 2], [1, 3]], sigmas=[1, 0.2, 0.3]), "f")
    assert (joints.name, joints.names) == ("cat", ("nose", "left_ear", "right_ear"))
    assert joints.skeleton == ((0, 1), (0, 2))
    assert joints.flip == (0, 2, 1)
    assert joints.sigmas == (1.0, 0.2, 0.3)
    assert joints.grouping_order is None


def test_a_category_with_names_alone():
    joints = joints_of_category({"keypoints": ["a", "b"]}, "f")
    assert joints.skeleton == ()
    assert joints.sigmas == (DEFAULT_SIGMA,) * 2


def test_known_names_give_the_known_sets():
    wrong = [[16, 14], [14, 12], [17, 15]]  # CrowdPose's file lists COCO's limbs
    crowd = joints_of_category({"keypoints": list(CROWDPOSE.names), "skeleton": wrong}, "f")
    assert crowd is CROWDPOSE
    assert joints_of_category({"keypoints": list(COCO.names)}, "f") is COCO


def test_limbs_beyond_the_joints_are_dropped_with_one_warning(caplog):
    joints = joints_of_category(category(skeleton=[[1, 2], [3, 4], [0, 1]]), "cats.json")
    assert joints.skeleton == ((0, 1),)
    (warning,) = caplog.messages
    assert warning.startswith("cats.json: 2 of 3 limbs dropped")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"keypoints": []}, "keypoints must be a list of different names"),
        ({"keypoints": "nose"}, "keypoints must be"),
        ({"keypoints": ["a", 1]}, "keypoints must be"),
        ({"keypoints": ["a", "a"]}, "keypoints must be"),
        ({"skeleton": [[1, 2, 3]]}, "skeleton must be"),
        ({"skeleton": [[1.0, 2]]}, "skeleton must be"),
        ({"skeleton": 3}, "skeleton must be"),
        ({"skeleton": [["a", "b"]]}, "skeleton must be"),
        ({"sigmas": [0.1]}, "sigmas must be 3 positive numbers"),
        ({"sigmas": [0.1, 0, 0.1]}, "sigmas must be"),
        ({"sigmas": [0.1, math.nan, 0.1]}, "sigmas must be"),
        ({"sigmas": [0.1, math.inf, 0.1]}, "sigmas must be"),
        ({"sigmas": [0.1, "x", 0.1]}, "sigmas must be"),
    ],
)
def test_malformed_categories_are_named(fields, named):
    with pytest.raises(DhnError, match="cats.json: the category's " + named):
        joints_of_category(category(**fields), "cats.json")


HANDS = joints_of_category({"keypoints": ["head", "hand1", "hand2", "tail"]}, "f")


def test_pairs_by_name_or_index():
    assert HANDS.flip == (0, 1, 2, 3)
    for pairs in ([("hand1", "hand2")], [(1, 2)], [["hand2", 1]]):
        paired = with_pairs(HANDS, pairs)
        assert paired.flip == (0, 2, 1, 3)
        assert dataclasses.replace(paired, flip=HANDS.flip) == HANDS
    assert with_pairs(CROWDPOSE, []).flip == tuple(range(14)), "pairs replace those of the names"


@pytest.mark.parametrize(
    ("pairs", "problem"),
    [
        ([("hand1", "hand3")], "no joint 'hand3'; there are 0 to 3: head, hand1, hand2, tail"),
        ([(1, 4)], "no joint 4"),
        ([(-1, 2)], "no joint -1"),
        ([(1, 2), ("hand2", "tail")], "'hand2' is named twice"),
        ([(1, 1)], "1 is named twice"),
    ],
)
def test_pairs_that_cannot_be(pairs, problem):
    with pytest.raises(SettingError, match=problem) as error:
        with_pairs(HANDS, pairs)
    assert error.value.line("data.flip_pairs").startswith("data.flip_pairs: the")


def test_other_sigmas():
    assert with_sigmas(HANDS, [1, 0.2, 0.3, 0.4]).sigmas == (1.0, 0.2, 0.3, 0.4)
    for wrong in ([], [0.1] * 3, [0.1, 0.1, 0.1, 0], [0.1, 0.1, 0.1, math.nan], [math.inf] * 4):
        with pytest.raises(SettingError, match="sigmas: must be 4 positive numbers"):
            with_sigmas(HANDS, wrong)


@pytest.mark.parametrize(
    ("names", "doubt"),
    [
        (["head", "hand1", "hand2"], "hand1, hand2 differ only by a number"),
        (["left_eye", "right_eye", "0", "1"], "0, 1 differ only by a number"),
        (["left_eye", "right_eye", "left_ear"], "left_ear have no counterpart"),
        (["base", "top"], "none of base, top has a counterpart"),
        ([f"kp_{j}" for j in range(9)], "kp_0, kp_1, kp_2, kp_3, kp_4, kp_5, ... differ only"),
    ],
)
def test_left_and_right_that_cannot_be_told(names, doubt):
    assert doubts_about_sides(joints_of_category({"keypoints": names}, "f")).startswith(doubt)


@pytest.mark.parametrize("names", [["nose"], ["nose", "l_ear", "r_ear", "tail"]])
def test_left_and_right_that_can_be_told(names):
    assert doubts_about_sides(joints_of_category({"keypoints": names}, "f")) == ""


def test_named_pairs_leave_no_doubt():
    assert doubts_about_sides(HANDS)
    assert doubts_about_sides(with_pairs(HANDS, [(1, 2)])) == ""
    assert doubts_about_sides(CROWDPOSE) == doubts_about_sides(COCO) == ""
