import numpy as np
import pytest

from coco_sets import make_set, results_of
from dhn.data.joints import COCO, CROWDPOSE
from dhn.evaluation.bootstrap import image_weights
from dhn.evaluation.error_analysis import analyse_errors
from dhn.evaluation.figures import judge
from dhn.evaluation.pck import correct_joints, pck_table, reaches
from dhn.evaluation.people import people_of
from planted import annotated, crowd_set, predictions_of


def slow_pck(analysis, size, part):
    """Labelled and correct joints, person by person."""
    truth, found = analysis.truth, analysis.found
    counts = np.zeros((2, truth.keypoints.shape[1]))
    for g in range(len(truth.image)):
        reach = part * size(truth, g)
        if truth.ignored[g] or np.isnan(reach):
            continue
        (standing,) = np.nonzero(analysis.person == g)
        for j, (x, y, v) in enumerate(truth.keypoints[g]):
            counts[0, j] += v > 0
            if v > 0 and len(standing):
                px, py = found.keypoints[standing[0], j]
                counts[1, j] += np.hypot(px - x, py - y) <= reach
    return counts


def between(truth, g, first, second):
    a, b = (truth.keypoints[g, truth.joints.names.index(name)] for name in (first, second))
    return np.hypot(*(a - b)[:2]) if a[2] > 0 and b[2] > 0 else np.nan


def head(truth, g):
    return between(truth, g, "neck", "head")


def torso(truth, g):
    return between(truth, g, "left_shoulder", "right_hip")


@pytest.mark.parametrize("seed", range(4))
def test_counts_are_those_of_a_loop(seed):
    raw = make_set(12, seed=seed)
    results = results_of(raw, noise=5, seed=seed)[::2]  # every second one is not found
    judged = judge(*people_of(raw, results, "crowdpose"))
    analysis = analyse_errors(judged.truth, judged.found)
    for (name, reach), size, part in zip(
        reaches(judged.truth).items(), (head, torso), (0.5, 0.2), strict=True
    ):
        labelled, correct = slow_pck(analysis, size, part)
        counts = correct_joints(analysis, reach)
        np.testing.assert_array_equal(counts.labelled.sum(axis=0), labelled)
        np.testing.assert_array_equal(counts.correct.sum(axis=0), correct)
        row = pck_table(judged)[name]
        assert row.mean == correct.sum() / labelled.sum()
        assert row.joints["left_knee"] == correct[8] / labelled[8]


def test_weights_stand_for_copies_of_images():
    raw = make_set(6, seed=1)
    judged = judge(*people_of(raw, results_of(raw, noise=5), "crowdpose"))
    analysis = analyse_errors(judged.truth, judged.found)
    counts = correct_joints(analysis, reaches(judged.truth)["PCKh@0.5"])
    weights = image_weights(6, 20, 0)
    for row, mean in zip(weights, counts.mean(weights), strict=True):
        images = np.repeat(np.arange(6), row)
        assert mean == counts.correct[images].sum() / counts.labelled[images].sum()


def test_a_box_of_the_head_comes_before_the_neck():
    raw = crowd_set(2, 2)
    raw["annotations"][0]["bbox_head"] = [0, 0, 30, 40]
    raw["annotations"][1]["bbox_head"] = [0, 0, 0, 0]  # as PoseTrack writes one that is unknown
    raw["annotations"][2]["keypoints"][12 * 3 + 2] = 0
    truth, _ = people_of(raw, [], "crowdpose")
    assert truth.heads[0] == 0.6 * 50
    assert np.isnan(truth.heads[1:3]).all()
    assert truth.heads[3] == head(truth, 3)


def test_joints_at_known_distances():
    raw = crowd_set(5, 2)
    places = annotated(raw)
    sizes = [head(people_of(raw, [], "crowdpose")[0], g) for g in range(10)]
    off = np.array(sizes)[:, None] * np.array([0.49, 0.51] * 7)
    places[..., 0] += off
    judged = judge(*people_of(raw, predictions_of(raw, places[..., :2], np.ones(10)), "crowdpose"))
    row = pck_table(judged)["PCKh@0.5"]
    assert list(row.joints.values()) == [1, 0] * 7
    assert row.mean == 0.5


def test_without_heads_there_is_no_pckh():
    raw = crowd_set(3, 2, joints=COCO)
    table = pck_table(judge(*people_of(raw, results_of(raw), "coco")))
    assert table["PCKh@0.5"].mean is None
    assert table["PCK@0.2 torso"].mean == 1
    assert set(table["PCKh@0.5"].joints) == set(COCO.names) != set(CROWDPOSE.names)
