"""Training on several partly labelled sets with everything that helps small data, by command."""

import json
import re

import pytest

from coco_sets import make_set, write_images
from dhn.data.joints import COCO, CROWDPOSE
from dhn.data.mixture import COMMON
from dhn.training.config import load_config
from dhn.training.learner import Learner
from dhn.weights.checkpoint import load_checkpoint
from tiny_runs import assert_same_run, invoke, lines_of

SMALL = [
    *("network.width=8", "network.backbone=hrnet", "network.modules=[1,1,1]", "network.stem=8"),
    *("network.blocks=1", "data.input_size=64", "data.eval_split=null", "train.batch_size=3"),
    *("train.amp=off", "train.epochs=2", "train.tensorboard=off", "data.composites=0.5"),
]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Two folders: partial labels of COCO's joints, and CrowdPose's."""
    folders = []
    for joints in (COCO, CROWDPOSE):
        folder = tmp_path_factory.mktemp(joints.name)
        raw = make_set(images=5, joints=joints, seed=3)
        for person in raw["annotations"]:
            person["partial"] = joints == COCO
        (folder / "annotations").mkdir()
        for split in ("train", "val"):
            for image in raw["images"]:
                image["file_name"] = f"{split}{image['id']}.png"
            (folder / "annotations" / f"{split}.json").write_text(json.dumps(raw))
            write_images(folder, raw)
        folders.append(folder)
    return folders


def several(sets):
    coco, crowdpose = sets
    return f"data.dataset=[{{path: {coco}, weight: 1.5}}, {{path: {crowdpose}, split: val}}]"


def command(sets, *more):
    return ["-q", "--config", "people", *SMALL, several(sets), "data.joints=common", *more]


def test_sets_are_mixed_and_a_run_goes_on_to_the_same_weights(sets, tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    result = invoke("--output", whole, *command(sets))
    assert result.exit_code == 0, result.stderr
    checkpoint = load_checkpoint(whole / "last.pt")
    assert checkpoint.joints == COMMON
    assert checkpoint.network["num_joints"] == 19
    # 1.5 times five images and once five, in batches of three, twice.
    assert checkpoint.progress["updates"] == 2 * 5
    assert [line["epoch"] for line in lines_of(whole)] == [1, 2]

    update, done = Learner.update, []

    def stop_after_three(self, *arguments):
        result = update(self, *arguments)
        done.append(1)
        if len(done) == 3:
            raise KeyboardInterrupt
        return result

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "update", stop_after_three)
        stopped = invoke("--output", parts, *command(sets, "train.checkpoint_every=0"))
    assert stopped.exit_code != 0
    result = invoke("-q", "--resume", parts)
    assert result.exit_code == 0, result.stderr
    config = [load_checkpoint(run / "last.pt").config for run in (whole, parts)]
    assert config[0]["data"] == config[1]["data"]
    assert_same_run(parts, whole)


def test_workers_make_the_same_samples(sets, tmp_path):
    runs = tmp_path / "alone", tmp_path / "two"
    for run, workers in zip(runs, (0, 2), strict=True):
        more = ["train.epochs=1", f"data.workers={workers}"]
        result = invoke("--output", run, *command(sets, *more))
        assert result.exit_code == 0, result.stderr
    assert_same_run(*runs)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (
            ["data.eval_split=val"],
            "data.eval_split val: .* has the joints of coco, not those of common",
        ),
        (["data.joints=coco", "data.eval_split=val"], None),
        (["data.joints=coco", "data.hold_out=0.2"], None),
        (["data.hold_out=0.2"], "data.hold_out: .* has the joints of coco, not those of common"),
        (["data.dataset=[]"], "data.dataset: must name at least one data set"),
        (["data.dataset=[{path: nowhere}]"], "nowhere"),
        (["data.dataset=[{path: a, weight: 0}]"], r"data.dataset.0.weight: .*greater than 0"),
        (["data.dataset=[{path: a, pfad: b}]"], "unknown setting data.dataset.0.pfad"),
    ],
)
def test_what_cannot_be_mixed_is_said(sets, tmp_path, settings, complaint):
    result = invoke("--output", tmp_path / "run", *command(sets, "train.epochs=1", *settings))
    if complaint is None:
        assert result.exit_code == 0, result.stderr
        return
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert re.search(complaint, result.stderr), result.stderr


def test_the_run_is_named_by_its_sets():
    from dhn.training.runs import new_run

    config = load_config("people", ["data.dataset=[{path: a/lsp}, {path: b/coco.json}]"])
    assert "lsp+coco" in new_run(config).name
