"""Flip pairs and sigmas that the settings give the joints: in samples, scores and checkpoints."""

import json
import logging

import pytest

from coco_sets import make_set, write_images
from dhn.base.distributed import World
from dhn.base.progress import silent
from dhn.data.joints import DEFAULT_SIGMA, joints_of_category, with_sigmas
from dhn.evaluation.evaluate import scoring_sigmas
from dhn.evaluation.scoring import score
from dhn.training.setup import open_data
from dhn.weights.checkpoint import load_checkpoint
from tiny_runs import TINY, invoke, settings

HANDS = joints_of_category({"name": "person", "keypoints": ["head", "hand1", "hand2"]}, "x")
PAIRS = "data.flip_pairs=[[hand1, 2]]"


@pytest.fixture(scope="module")
def hands(tmp_path_factory):
    """Two splits of people whose hands are called hand1 and hand2."""
    folder = tmp_path_factory.mktemp("hands")
    for seed, split in enumerate(("train", "val")):
        raw = make_set(4, joints=HANDS, crowd_index=False, seed=seed)
        for image in raw["images"]:
            image["file_name"] = f"{split}_{image['file_name']}"
        (folder / f"{split}.json").write_text(json.dumps(raw))
        write_images(folder, raw)
    return folder


def opened(folder, *overrides):
    return open_data(settings(folder, *overrides), World(), silent)


def test_both_splits_get_pairs_and_sigmas(hands):
    data = opened(hands, "data.eval_split=val", PAIRS, "data.sigmas=[0.1, 0.2, 0.3]")
    for annotations in (data.annotations, data.held_out):
        assert annotations.joints.flip == (0, 2, 1)
        assert annotations.joints.sigmas == (0.1, 0.2, 0.3)


def test_without_settings_the_joints_are_those_of_the_data(hands, caplog):
    with caplog.at_level(logging.WARNING):
        assert opened(hands).annotations.joints == HANDS
    (warning,) = caplog.messages
    assert "hand1, hand2 differ only by a number" in warning
    assert "data.flip_pairs" in warning


@pytest.mark.parametrize("override", [PAIRS, "data.flip_pairs=[]", "data.flip=0"])
def test_no_warning_where_there_is_no_doubt(hands, caplog, override):
    opened(hands, override)
    assert caplog.messages == []


def test_a_checkpoint_holds_them_and_scores_follow(hands, tmp_path, monkeypatch):
    scored_with = []

    def watched(raw, results, kind, sigmas):
        scored_with.append(sigmas)
        return score(raw, results, kind, sigmas)

    monkeypatch.setattr("dhn.training.validation.score", watched)
    own = [f"data.dataset={hands}", "data.eval_split=val", PAIRS, "data.sigmas=[0.1, 0.2, 0.3]"]
    result = invoke(*TINY, *own, "train.epochs=1", "train.eval_every=1", "--output", tmp_path / "r")
    assert result.exit_code == 0, result.output
    joints = load_checkpoint(tmp_path / "r" / "last.pt").joints
    assert (joints.flip, joints.sigmas) == ((0, 2, 1), (0.1, 0.2, 0.3))
    assert scored_with == [(0.1, 0.2, 0.3)]


@pytest.mark.parametrize(
    ("annotated", "wanted"),
    [((DEFAULT_SIGMA,) * 3, (0.1, 0.2, 0.3)), ((0.4, 0.5, 0.6), (0.4, 0.5, 0.6))],
)
def test_eval_takes_the_sigmas_of_training_where_the_data_has_none(annotated, wanted):
    trained = with_sigmas(HANDS, (0.1, 0.2, 0.3))
    assert scoring_sigmas(trained, with_sigmas(HANDS, annotated)) == wanted


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("data.flip_pairs=[[hand1, hand3]]", "data.flip_pairs: there is no joint 'hand3'"),
        ("data.flip_pairs=[[hand1]]", "data.flip_pairs"),
        ("data.flip_pairs=[[0, -1]]", "data.flip_pairs"),
        ("data.flip_pairs=[[hand1, hand2], [head, hand2]]", "'hand2' is named twice"),
        ("data.sigmas=[0.1]", "data.sigmas: must be 3 positive numbers"),
        ("data.sigmas=[0.1, 0, 0.1]", "data.sigmas: must be 3 positive numbers"),
    ],
)
def test_wrong_values_are_one_line(hands, tmp_path, override, named):
    result = invoke(*TINY, f"data.dataset={hands}", override, "--output", tmp_path / "run")
    assert result.exit_code in (1, 2)
    assert named in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "run" / "last.pt").exists()
