"""People: what was found in an image, and the forms it takes."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

import dhn
from assertions import complaint
from coco_sets import make_set
from dhn.data.joints import COCO, CROWDPOSE
from dhn.evaluation.scoring import score
from dhn.inference.people import People
from dhn.media.draw import draw_poses

J = len(CROWDPOSE)
IMAGE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def some_people(P=3, joints=CROWDPOSE, image=IMAGE):
    """Person 0 has all joints, person 1 one, person 2 none; further ones at random."""
    random = np.random.default_rng(P)
    keypoints = random.random((P, len(joints), 3)).astype(np.float32) * (80, 60, 1)
    keypoints[random.random((P, len(joints))) < 0.3] = 0
    keypoints[:1] = np.float32((40, 30, 0.5)) + np.arange(len(joints))[:, None] * (1, -1, 0)
    keypoints[1:3] = 0
    keypoints[1:2, 5] = 7.25, 9.5, 0.75
    scores = keypoints[..., 2].mean(1)
    return People(keypoints.astype(np.float32), scores.astype(np.float32), joints, image)


def test_it_is_public():
    assert dhn.People is People
    assert some_people().joint_names == CROWDPOSE.names
    assert "image" not in repr(some_people())


@pytest.mark.parametrize("P", [0, 3, 12])
def test_boxes_hold_the_joints_found(P):
    people = some_people(P)
    assert people.boxes.shape == (P, 4)
    assert people.boxes.dtype == np.float32
    for person, (x, y, w, h) in zip(people.keypoints, people.boxes, strict=True):
        found = [joint[:2] for joint in person if joint[2] > 0]
        if not found:
            assert (x, y, w, h) == (0, 0, 0, 0)
            continue
        xs, ys = zip(*found, strict=True)
        assert (x, y) == (min(xs), min(ys))
        assert (w, h) == pytest.approx((max(xs) - min(xs), max(ys) - min(ys)))


@pytest.mark.parametrize(
    ("chosen", "numbers"),
    [
        (1, [1]),
        (-1, [5]),
        (slice(1, 3), [1, 2]),
        ([4, 0], [4, 0]),
        (np.array([True, False, True, False, False, False]), [0, 2]),
        (np.zeros(6, bool), []),
    ],
)
def test_some_of_them(chosen, numbers):
    people = some_people(6)
    some = people[chosen]
    assert len(some) == len(numbers)
    assert some.keypoints.shape == (len(numbers), J, 3)
    np.testing.assert_array_equal(some.keypoints, people.keypoints[numbers])
    np.testing.assert_array_equal(some.scores, people.scores[numbers])
    assert some.joints is people.joints
    assert some.image is people.image


def with_guesses(P):
    people = some_people(P)
    refined = np.random.default_rng(7).random((P, J)) < 0.5
    return replace(people, refined=refined & (people.keypoints[..., 2] > 0))


def test_each_joint_has_a_state():
    people = with_guesses(8)
    assert people.states.shape == (8, J)
    for joint, refined, state in zip(
        people.keypoints.reshape(-1, 3), people.refined.ravel(), people.states.ravel(), strict=True
    ):
        expected = "missing" if joint[2] == 0 else "refined" if refined else "seen"
        assert state == expected
    assert {*people.states.ravel()} == {"seen", "refined", "missing"}
    np.testing.assert_array_equal(people[[5, 3]].states, people.states[[5, 3]])


def test_weak_joints_are_left_out():
    people = with_guesses(8)
    strong = people.without_weak_joints(0.6)
    weak = people.keypoints[..., 2] < 0.6
    assert (strong.states[weak] == "missing").all()
    assert (strong.keypoints[weak] == 0).all()
    np.testing.assert_array_equal(strong.states[~weak], people.states[~weak])
    np.testing.assert_array_equal(strong.keypoints[~weak], people.keypoints[~weak])
    assert not strong.refined[weak].any()


def test_one_after_the_other():
    people = some_people(4)
    scores = [person.scores.tolist() for person in people]
    assert scores == [[s] for s in people.scores.tolist()]


def test_plot_draws_over_the_image_and_leaves_it_alone():
    people, before = some_people(), IMAGE.copy()
    drawn = people.plot()
    np.testing.assert_array_equal(drawn, draw_poses(before, people.keypoints, CROWDPOSE))
    some_refined = replace(people, refined=people.keypoints[..., 0] > 40)
    np.testing.assert_array_equal(
        some_refined.plot(),
        draw_poses(before, people.keypoints, CROWDPOSE, refined=some_refined.refined),
    )
    assert not np.array_equal(drawn, before)
    np.testing.assert_array_equal(IMAGE, before)
    hues = np.array([4, 5, 6])
    coloured = draw_poses(before, people.keypoints, CROWDPOSE, colours=hues)
    np.testing.assert_array_equal(people.plot(colours=hues), coloured)
    grey = np.full((60, 80), 99, np.uint8)
    on_grey = draw_poses(np.full_like(IMAGE, 99), people.keypoints, CROWDPOSE)
    np.testing.assert_array_equal(people.plot(grey), on_grey)
    forgotten = replace(people, image=None)
    np.testing.assert_array_equal(forgotten.plot(grey), on_grey)
    assert "give it to plot(image)" in complaint(forgotten.plot)


@pytest.mark.parametrize("P", [0, 3, 12])
def test_to_dict_is_json_as_openpifpaf_writes_it(P):
    people = some_people(P)
    content = json.loads(json.dumps(people.to_dict(), allow_nan=False))
    assert content["joint_names"] == list(CROWDPOSE.names)
    assert len(content["predictions"]) == P
    for p, person in enumerate(content["predictions"]):
        assert list(person) == ["keypoints", "states", "bbox", "score", "category_id"]
        for joint, state in zip(people.keypoints[p], person["states"], strict=True):
            assert state == ("seen" if joint[2] > 0 else "missing")
        keypoints = np.reshape(person["keypoints"], (J, 3))
        np.testing.assert_allclose(keypoints, people.keypoints[p], atol=5.1e-5)
        np.testing.assert_allclose(person["bbox"], people.boxes[p], atol=1e-3)
        assert person["score"] == pytest.approx(people.scores[p], abs=5.1e-5)
        assert person["category_id"] == 1


def test_to_coco_is_what_scoring_takes():
    """The annotated people of a set as predictions score 1."""
    truth = make_set()
    results = []
    for image in truth["images"]:
        annotated = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
        keypoints = np.array([a["keypoints"] for a in annotated], np.float32).reshape(-1, J, 3)
        people = People(keypoints, np.ones(len(keypoints), np.float32), CROWDPOSE)
        results += people.to_coco(image["id"], truth["categories"][0]["id"])
    stats = score(truth, results, "crowdpose")
    assert stats["AP"] == pytest.approx(1)


def test_to_coco_is_not_rounded():
    people = some_people(12, COCO)
    results = json.loads(json.dumps(people.to_coco(77, 5)))
    assert {(r["image_id"], r["category_id"]) for r in results} == {(77, 5)}
    keypoints = np.array([r["keypoints"] for r in results], np.float32).reshape(12, 17, 3)
    np.testing.assert_array_equal(keypoints, people.keypoints)
    np.testing.assert_array_equal(np.float32([r["score"] for r in results]), people.scores)
    assert some_people(0).to_coco(1) == []


@pytest.mark.parametrize("P", [0, 3, 12])
def test_to_dataframe(P):
    pytest.importorskip("pandas")
    people = some_people(P)
    table = people.to_dataframe()
    assert table.shape == (P, 1 + 4 * J)
    assert list(table.columns[:5]) == [
        "score", "left_shoulder_x", "left_shoulder_y", "left_shoulder_score",
        "left_shoulder_state",
    ]  # fmt: skip
    np.testing.assert_array_equal(table["score"], people.scores)
    for j, name in enumerate(people.joint_names):
        for k, value in enumerate(("x", "y", "score")):
            column = table[f"{name}_{value}"].to_numpy()
            found = people.keypoints[:, j, 2] > 0
            np.testing.assert_array_equal(column[found], people.keypoints[found, j, k])
            assert np.isnan(column[~found]).all()
        assert table[f"{name}_state"].tolist() == people.states[:, j].tolist()


@pytest.mark.parametrize("P", [0, 3, 12])
def test_to_supervision(P):
    pytest.importorskip("supervision")
    people = some_people(P)
    points = people.to_supervision()
    assert len(points) == P
    np.testing.assert_array_equal(points.xy, people.keypoints[..., :2])
    np.testing.assert_array_equal(points.keypoint_confidence, people.keypoints[..., 2])
    np.testing.assert_array_equal(points.detection_confidence, people.scores)
    np.testing.assert_array_equal(points.visible, people.keypoints[..., 2] > 0)
    assert points.class_id.tolist() == [0] * P


def test_supervision_draws_it():
    supervision = pytest.importorskip("supervision")
    people = some_people()
    edges = [(a + 1, b + 1) for a, b in CROWDPOSE.skeleton]
    annotator = supervision.EdgeAnnotator(thickness=2, edges=edges)
    drawn = annotator.annotate(IMAGE.copy(), people.to_supervision())
    assert (drawn != IMAGE).any()


@pytest.mark.parametrize("package", ["pandas", "supervision"])
def test_a_missing_package_is_one_line(monkeypatch, package):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    convert = {"pandas": some_people().to_dataframe, "supervision": some_people().to_supervision}
    message = complaint(convert[package])
    assert f"needs {package}: pip install" in message


def test_they_travel_between_processes():
    people = some_people()
    again = pickle.loads(pickle.dumps(people))
    np.testing.assert_array_equal(again.keypoints, people.keypoints)
    assert again.joints == people.joints


def test_labels_of_overlays():
    people = replace(some_people(2), ids=np.array([7, 0]), scores=np.array([0.837, 0.5], "f4"))
    assert people._labels("id") == ["7", ""]
    assert people._labels("score") == ["0.84", "0.50"]
    assert people._labels("both") == ["7 0.84", "0.50"]
    assert people._labels("none") == ["", ""]
