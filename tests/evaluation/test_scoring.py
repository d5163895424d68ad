import contextlib
import copy
import io
import json
import sys

import numpy as np
import pytest
from pycocotools import coco, cocoeval

from coco_sets import make_set, results_of
from dhn.base.errors import DhnError
from dhn.data.joints import COCO, CROWDPOSE
from dhn.evaluation.scoring import score

ENGINES = ["dhn", "pycocotools", "faster-coco-eval"]
CROWDPOSE_KEYS = [
    *("AP", "AP50", "AP75", "AR", "AR50", "AR75"),
    *("AP_easy", "AP_medium", "AP_hard"),
]


@pytest.fixture(params=ENGINES)
def engine(request):
    if request.param == "faster-coco-eval":
        pytest.importorskip("faster_coco_eval")
    return request.param


def fixture(shared, name):
    """Annotations, predictions and the official tool's numbers."""
    folder = shared / "fixtures/evaluation"
    expected = json.loads((folder / "expected.json").read_text())["sets"][name]
    truth = folder / expected["gt"]
    if not truth.exists():
        truth = shared / "data/crowdpose/json" / expected["gt"]
    predictions = json.loads((folder / expected["preds"]).read_text())
    return json.loads(truth.read_text()), predictions, expected["stats"]


@pytest.mark.parametrize("name", ["noisy", "crowded", "crowded_sub", "edge"])
def test_equals_the_official_crowdpose_tool(shared, name, engine):
    annotations, predictions, expected = fixture(shared, name)
    stats = score(annotations, predictions, "crowdpose", evaluator=engine)
    assert list(stats) == CROWDPOSE_KEYS
    for key, value in stats.items():
        assert value == pytest.approx(expected.get(f"{key}_unrounded", expected[key]), abs=1e-9)


def official_coco(annotations, results):
    """pycocotools as its demo runs it."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO()
        truth.dataset = copy.deepcopy(annotations) | {"info": {}}
        truth.createIndex()
        tool = cocoeval.COCOeval(truth, truth.loadRes(copy.deepcopy(results)), "keypoints")
        tool.evaluate()
        tool.accumulate()
        tool.summarize()
    keys = ("AP", "AP50", "AP75", "AP_medium", "AP_large")
    keys += ("AR", "AR50", "AR75", "AR_medium", "AR_large")
    return dict(zip(keys, tool.stats.tolist(), strict=True))


def assert_equals_official_coco(annotations, results, engine):
    stats = score(annotations, results, "coco", evaluator=engine)
    expected = official_coco(annotations, results)
    assert stats.keys() == expected.keys()
    for key, value in stats.items():
        assert value == pytest.approx(expected[key], abs=1e-9), key


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("with_boxes", [False, True])
def test_equals_the_official_coco_tool(seed, with_boxes, engine):
    annotations = make_set(30, COCO, seed=seed, crowd_index=False)
    results = results_of(annotations, noise=1 + 2 * seed, seed=seed)
    if with_boxes:  # which of the unmatched count as medium or large then goes by these
        for result in results:
            result["bbox"] = [0, 0, 150, 150]
    assert_equals_official_coco(annotations, results, engine)


def test_equals_the_official_coco_tool_on_real_people(shared, engine):
    path = shared / "data/coco_mini/annotations/person_keypoints_train2017.json"
    annotations = json.loads(path.read_text())
    assert_equals_official_coco(annotations, results_of(annotations, noise=4), engine)


def one_person(crowd_index=0.5):
    raw = make_set(1)
    raw["images"][0]["crowdIndex"] = crowd_index
    raw["annotations"] = raw["annotations"][:1]
    return raw


@pytest.mark.parametrize(("crowd_index", "level"), [(0.19, "easy"), (0.2, "medium"), (0.8, "hard")])
def test_oks_of_one_person(crowd_index, level):
    # Every labelled joint is off by d with d^2 = -ln(.72) * 2 area (2 sigma)^2: OKS is .72, which
    # reaches five of the ten thresholds .50, .55 ... .95.
    annotations = one_person(crowd_index)
    (person,) = annotations["annotations"]
    area = 0.53 * person["bbox"][2] * person["bbox"][3]
    keypoints = np.array(person["keypoints"]).reshape(14, 3)
    keypoints[:, 0] += np.sqrt(-np.log(0.72) * 2 * area) * 2 * np.array(CROWDPOSE.sigmas)
    results = results_of(annotations)
    results[0]["keypoints"] = keypoints.ravel().tolist()
    stats = score(annotations, results, "crowdpose")
    expected = {"AP": 0.5, "AP50": 1, "AP75": 0, "AR": 0.5, "AR50": 1, "AR75": 0}
    expected |= {"AP_easy": -1, "AP_medium": -1, "AP_hard": -1, f"AP_{level}": 0.5}
    assert stats == pytest.approx(expected)
    # Twice the sigmas: exp(ln(.72) / 4) = .921 reaches nine.
    wider = score(annotations, results, "crowdpose", [2 * s for s in CROWDPOSE.sigmas])
    assert wider["AP"] == pytest.approx(0.9)


@pytest.mark.parametrize("kind", ["crowdpose", "coco"])
def test_perfect_no_and_impossible_predictions(kind, engine):
    annotations = make_set(12, COCO)
    for person in annotations["annotations"]:
        person["area"] = 50.0**2 if person["id"] % 2 else 100.0**2
    perfect = score(annotations, results_of(annotations), kind, evaluator=engine)
    assert set(perfect.values()) == {1.0}
    nobody = score(annotations, [], kind, evaluator=engine)
    assert set(nobody.values()) == {0.0}
    ignored = copy.deepcopy(annotations)
    for person in ignored["annotations"]:
        person["num_keypoints"] = 0
    for results in ([], results_of(annotations)):
        assert set(score(ignored, results, kind, evaluator=engine).values()) == {-1.0}
    empty = annotations | {"annotations": []}
    assert set(score(empty, [], kind, evaluator=engine).values()) == {-1.0}
    assert set(score(empty, results_of(annotations), kind, evaluator=engine).values()) == {-1.0}


def test_images_without_crowd_index_are_in_no_level():
    annotations = make_set(4, crowd_index=False)
    stats = score(annotations, results_of(annotations), "crowdpose")
    assert stats["AP"] == 1
    assert stats["AP_easy"] == stats["AP_medium"] == stats["AP_hard"] == -1


def test_input_is_left_alone_and_nothing_is_printed(capsys, engine):
    annotations = make_set()
    results = results_of(annotations)
    before = copy.deepcopy((annotations, results))
    score(annotations, results, "crowdpose", evaluator=engine)
    assert (annotations, results) == before
    assert capsys.readouterr() == ("", "")


def test_other_categories_are_left_out_with_a_warning(capsys):
    annotations = make_set()
    results = results_of(annotations)
    alone = score(annotations, results, "crowdpose")
    others = [result | {"category_id": 2} for result in results]
    assert score(annotations, results + others, "crowdpose") == alone
    assert f"{len(others)} of {2 * len(others)} results left out" in capsys.readouterr().err
    with pytest.raises(DhnError, match="no result has the annotations' category_id 1"):
        score(annotations, others, "crowdpose")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keypoints": [float("nan")] * 42}, "result 2: keypoints must be 42 finite numbers"),
        ({"keypoints": [1, 2, float("inf")] * 14}, "result 2: keypoints must be 42 finite"),
        ({"keypoints": [1.0] * 51}, "result 2: keypoints must be 42 finite"),
        ({"keypoints": None}, "result 2: keypoints must be 42 finite"),
        ({"score": float("nan")}, "result 2: score"),
        ({"score": None}, "result 2: score"),
        ({"score": "high"}, "result 2: score"),
        ({"image_id": 99}, "result 2: image_id"),
        ({"image_id": "1"}, "result 2: image_id"),
        ({"image_id": None}, "result 2: image_id"),
    ],
)
def test_malformed_predictions(change, message):
    annotations = make_set()
    results = results_of(annotations)
    results[1] |= change
    with pytest.raises(DhnError, match=rf"^mine\.json: {message}") as error:
        score(annotations, results, "crowdpose", names=("gt.json", "mine.json"))
    assert "\n" not in str(error.value)


def test_predictions_of_another_shape():
    annotations = make_set()
    for predictions in ({}, None, "results", [3], [None]):
        with pytest.raises(DhnError, match="predictions: "):
            score(annotations, predictions, "crowdpose")
    some_boxes = results_of(annotations)
    some_boxes[0]["bbox"] = [0, 0, 1, 1]
    with pytest.raises(DhnError, match="result 2: bbox must be 4"):
        score(annotations, some_boxes, "crowdpose")
    with pytest.raises(DhnError, match="17 sigmas for 14 joints"):
        score(annotations, [], "crowdpose", COCO.sigmas)


def test_ids_that_mean_unmatched_are_refused():
    annotations = make_set()
    annotations["annotations"][3]["id"] = 0
    with pytest.raises(DhnError, match=r"gt\.json: annotation 0: ids must be above 0"):
        score(annotations, [], "crowdpose", names=("gt.json", "mine.json"))


# Evaluators that are not installed, and crowdposetools


def test_faster_coco_eval_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(
        DhnError, match=r"^evaluator faster-coco-eval: is not installed; pip install"
    ):
        score(make_set(), [], "crowdpose", evaluator="faster-coco-eval")


def test_official_package_is_not_installed(monkeypatch):
    for name in ("crowdposetools", "crowdposetools.coco"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DhnError, match=r"not installed.*git\+https://.*CrowdPose") as error:
        score(make_set(), [], "crowdpose", evaluator="crowdposetools")
    assert "\n" not in str(error.value)


def test_official_package_wants_crowdpose():
    for annotations, kind in (
        (make_set(joints=COCO), "crowdpose"),
        (make_set(), "coco"),
        (make_set(crowd_index=False), "crowdpose"),
    ):
        with pytest.raises(DhnError, match=r"crowdposetools (scores|needs)"):
            score(annotations, [], kind, evaluator="crowdposetools")


@pytest.mark.parametrize("name", ["crowded_sub", "edge"])
def test_official_package(shared, name):
    pytest.importorskip("crowdposetools.cocoeval", reason="crowdposetools is not installed")
    annotations, predictions, expected = fixture(shared, name)
    stats = score(annotations, predictions, "crowdpose", evaluator="crowdposetools")
    assert list(stats) == CROWDPOSE_KEYS
    assert stats == pytest.approx({key: expected[key] for key in CROWDPOSE_KEYS}, abs=1e-9)
    assert not hasattr(np, "float")


def test_official_package_without_predictions():
    pytest.importorskip("crowdposetools.cocoeval", reason="crowdposetools is not installed")
    stats = score(make_set(), [], "crowdpose", evaluator="crowdposetools")
    assert stats == score(make_set(), [], "crowdpose")
