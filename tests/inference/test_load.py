"""`dhn.load`: predictors from files, names and addresses."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import dhn
from assertions import complaint
from dhn.base.errors import DhnError
from dhn.cli import main
from dhn.data.joints import COCO
from dhn.inference.decode import DecodeConfig
from dhn.media.images import write_image
from dhn.weights import load as weights
from dhn.weights.choice import BUNDLED
from tiny_networks import SMALL, save_network
from tiny_runs import assert_same


def test_settings_come_from_the_training(tmp_path):
    path = tmp_path / "last.pt"
    save_network(path, joints=COCO, input_size=192)
    predictor = dhn.load(str(path), device="cpu", flip=True, refine=False, max_people=5)
    assert (predictor.input_size, predictor.joints, predictor.source) == (192, COCO, str(path))
    assert predictor.maps(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))[1].shape[2] == 2  # T
    assert predictor.decode == DecodeConfig(
        refine=False, max_people=5, joint_order=COCO.grouping_order
    )
    assert dhn.load(path, input_size=64).input_size == 64
    save_network(path, input_size=None)
    assert dhn.load(path).input_size == 512


def test_the_newest_run_is_taken_where_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DhnError, match="no checkpoint in runs/"):
        dhn.load("last")
    save_network(tmp_path / "runs" / "one" / "last.pt")
    for checkpoint in ("last", "runs/one"):
        assert dhn.load(checkpoint, device="cpu").source == "runs/one/last.pt"
    assert dhn.load(device="cpu").source == str(BUNDLED)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta", "cpu0"])
def test_a_device_that_is_not_there_is_named(tmp_path, device):
    save_network(tmp_path / "last.pt")
    with pytest.raises(DhnError, match=f"^device {device}: "):
        dhn.load(tmp_path / "last.pt", device=device)


def test_a_name_is_fetched_once(tmp_path, monkeypatch):
    save_network(tmp_path / "last.pt")
    asked = []

    def fetch(checkpoint, **options):
        asked.append(checkpoint)
        return tmp_path / "last.pt"

    monkeypatch.setattr("dhn.inference.load.fetch", fetch)
    monkeypatch.setattr(weights, "fetch", fetch)
    dhn.load("higherhrnet_w32_crowdpose", device="cpu")
    assert asked == ["higherhrnet_w32_crowdpose"]


def test_the_older_names_still_work(tmp_path):
    model = save_network(tmp_path / "last.pt")
    other = dhn.build_model("doublehighernet", num_joints=14, **SMALL)
    dhn.load_weights(other, tmp_path / "last.pt")
    assert_same(other.state_dict(), model.state_dict())


def test_the_door_opens_without_torch():
    """`dhn --help` must not wait for it."""
    code = """
import sys
import dhn
assert {"load", "People", "build_model", "load_weights"} <= set(dir(dhn))
assert not {"torch", "cv2", "numpy"} & set(sys.modules)
assert not hasattr(dhn, "lode")
assert dhn.load and dhn.People
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def run(folder, *arguments):
    save_network(folder / "last.pt")
    write_image(folder / "image.png", np.full((64, 64, 3), 90, np.uint8))
    options = ["--checkpoint", folder / "last.pt", "--device", "cpu", "-o", folder / "out"]
    return CliRunner().invoke(
        main, [str(a) for a in ("predict", folder / "image.png", *options, *arguments)]
    )


@pytest.mark.parametrize("option", ["--parity", "--flip"])
def test_the_command_names_its_option(tmp_path, option):
    result = run(tmp_path, option, "--input-size", 500)
    assert result.exit_code == 1
    assert result.output == "Error: --input-size 500: must be a multiple of 64; take 512\n"


def test_more_people_than_a_gpu_groups(tmp_path):
    result = run(tmp_path, "--input-size", 64, "--max-people", 200)
    assert result.exit_code == 0, result.output


def test_a_file_that_is_not_there():
    assert complaint(dhn.load, "none.pt").startswith("none.pt: cannot be read")
    assert complaint(dhn.load, "none.onnx").startswith("none.onnx: cannot be read")
