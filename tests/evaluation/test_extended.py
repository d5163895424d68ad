import json

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from coco_sets import make_set, results_of
from dhn.base.errors import DhnError
from dhn.cli import main
from dhn.data.joints import COCO, CROWDPOSE
from dhn.evaluation.extended import extended_oks, judge_extended
from dhn.evaluation.figures import judge, plain_figures
from dhn.evaluation.matching import pairs
from dhn.evaluation.people import people_of


def random_set(seed, joints=CROWDPOSE):
    """People of whom a fifth of the joints is outside; predictions with random confidences."""
    rng = np.random.default_rng(seed)
    raw = make_set(5, joints, seed=seed)
    for person in raw["annotations"]:
        keypoints = np.array(person["keypoints"]).reshape(-1, 3)
        keypoints[rng.random(len(keypoints)) < 0.2, 2] = 3
        keypoints[:, 2] *= rng.random() < 0.9  # else somebody without a joint
        person["keypoints"] = keypoints.ravel().tolist()
    results = results_of(raw, noise=3, seed=seed)
    for result in results:
        keypoints = np.array(result["keypoints"]).reshape(-1, 3)
        keypoints[:, 2] = rng.uniform(-0.5, 1.5, len(keypoints))
        result["keypoints"] = keypoints.ravel().tolist()
    return raw, results


def border(x, y, box):
    """How far a point lies from the nearer vertical and the nearer horizontal side, squared."""
    left, top, right, bottom = box
    return min(x - left, right - x) ** 2 + min(y - top, bottom - y) ** 2


def slow_ex_oks(person, sigmas, area, prediction, confidence):
    """By the formula, joint by joint."""
    x, y, width, height = person["bbox"]
    centre_x, centre_y = x + width / 2, y + height / 2
    if width / height > 3 / 4:
        height = width * 4 / 3
    else:
        width = height * 3 / 4
    window = [centre_x - 0.625 * width, centre_y - 0.625 * height]
    window += [centre_x + 0.625 * width, centre_y + 0.625 * height]
    truth = np.array(person["keypoints"], float).reshape(-1, 3)
    terms = []
    for (x, y, v), (px, py, c), sigma in zip(truth, prediction, sigmas, strict=True):
        there = min(max(c, 0), 1) >= confidence
        if not (truth[:, 2] > 0).any():
            d2 = max(0, window[0] - px, px - window[2]) ** 2
            d2 += max(0, window[1] - py, py - window[3]) ** 2
        elif v == 0:
            continue
        elif v == 3:
            d2 = border(px, py, window) if there else 0
        else:
            d2 = (px - x) ** 2 + (py - y) ** 2 if there else border(x, y, window)
        terms.append(np.exp(-d2 / (2 * area * (2 * sigma) ** 2)))
    return np.mean(terms)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from([COCO, CROWDPOSE]), st.sampled_from([0, 0.3, 1]))
def test_similarity_is_that_of_the_formula(seed, joints, confidence):
    raw, results = random_set(seed, joints)
    truth, found = people_of(raw, results, "coco")
    between = pairs(truth, found)
    people = {person["id"]: person for person in raw["annotations"]}
    for f, g, value in zip(*between, extended_oks(truth, found, between, confidence), strict=True):
        prediction = np.column_stack([found.keypoints[f], found.confidence[f]])
        person = people[truth.ids[g]]
        slow = slow_ex_oks(person, truth.sigmas, truth.areas[g], prediction, confidence)
        assert np.isclose(value, slow, rtol=1e-9, atol=1e-12)


def test_where_nothing_is_outside_or_missing_it_is_oks():
    raw = make_set(8, seed=4)
    for person in raw["annotations"]:
        person["iscrowd"] = 0
        person["num_keypoints"] = sum(v > 0 for v in person["keypoints"][2::3])
    truth, found = people_of(raw, results_of(raw, noise=4), "coco")
    assert plain_figures(judge_extended(truth, found, 0)) == plain_figures(judge(truth, found))


def one_person(v, confidence):
    """The figures of somebody who is predicted where all joints are, the last one by `v`."""
    raw = make_set(1, seed=2)
    raw["annotations"] = raw["annotations"][:1]
    keypoints = np.array(raw["annotations"][0]["keypoints"]).reshape(-1, 3)
    keypoints[:, :2] = np.random.default_rng(0).uniform((50, 40), (110, 80), (14, 2))
    keypoints[:, 2] = 2
    keypoints[-1, 2] = v
    raw["annotations"][0] |= {"keypoints": keypoints.ravel().tolist(), "bbox": [40, 30, 80, 60]}
    raw["annotations"][0] |= {"num_keypoints": 14, "area": 2000}
    keypoints[:, 2] = 1
    keypoints[-1, 2] = confidence
    result = {"image_id": 1, "category_id": 1, "keypoints": keypoints.ravel().tolist(), "score": 1}
    truth, found = people_of(raw, [result], "coco")
    return extended_oks(truth, found, pairs(truth, found), 0.5)[0]


def test_a_joint_that_is_missing_or_too_many_costs_a_joint():
    assert one_person(v=2, confidence=1) == pytest.approx(1)
    assert one_person(v=3, confidence=0) == pytest.approx(1)
    assert one_person(v=2, confidence=0) == pytest.approx(13 / 14, abs=0.01)
    assert one_person(v=3, confidence=1) == pytest.approx(13 / 14, abs=0.01)


def test_joints_without_confidence_are_refused():
    raw = make_set(3)
    results = results_of(raw)
    for result in results:
        result["keypoints"][2::3] = [0] * 14
    with pytest.raises(DhnError, match="needs the confidence of each joint"):
        judge_extended(*people_of(raw, results, "crowdpose"), 0.5)
    assert plain_figures(judge_extended(*people_of(raw, [], "crowdpose"), 0.5))["AP"] == 0


def test_command(tmp_path):
    raw, results = random_set(3)
    (tmp_path / "gt.json").write_text(json.dumps(raw))
    (tmp_path / "p.json").write_text(json.dumps(results))
    args = ["eval", "--results", tmp_path / "p.json", "--annotations", tmp_path / "gt.json"]
    args += ["--ex-oks", 0.3, "--pck", "--bootstrap", "--output", tmp_path / "stats.json"]
    result = CliRunner().invoke(main, [*map(str, args)])
    assert result.exit_code == 0, result.output
    assert "joints below a confidence of 0.3 are missing" in result.stdout
    stats = json.loads((tmp_path / "stats.json").read_text())
    extended = plain_figures(judge_extended(*people_of(raw, results, "crowdpose"), 0.3))
    assert {name: stats["ex_oks"][name] for name in extended} == extended
    assert stats["ex_oks"]["AP"] != stats["AP"]
    low, high = stats["ex_oks"]["intervals"]["AP"]
    assert low <= stats["ex_oks"]["AP"] <= high
    (line,) = (line for line in result.stdout.splitlines() if "left_elbow" in line)
    assert f"{100 * stats['pck']['PCKh@0.5']['joints']['left_elbow']:.1f}" in line
    low, high = stats["pck"]["PCK@0.2 torso"]["interval"]
    assert low <= stats["pck"]["PCK@0.2 torso"]["mean"] <= high
