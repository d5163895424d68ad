import argparse
import os
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from assertions import assert_same_weights, complaint
from dhn.data.joints import COCO, CROWDPOSE
from dhn.weights.checkpoint import (
    Checkpoint,
    load_checkpoint,
    read_file,
    save_checkpoint,
)
from tiny_networks import SMALL, Malice, network

NETWORK = SMALL | {"name": "doublehighernet", "fusion": "attention", "num_joints": 14}


def a_checkpoint(seed=0, joints=CROWDPOSE, **progress):
    weights = network(seed=seed).state_dict()
    return Checkpoint(NETWORK, joints, weights, {"data": {"input_size": 128}}, progress)


@pytest.mark.parametrize("joints", [CROWDPOSE, COCO])
def test_round_trip(tmp_path, joints):
    path = tmp_path / "runs" / "last.pt"
    model = network(num_joints=len(joints))
    optimiser = torch.optim.Adam(model.parameters())
    sum(h.sum() for h in model(torch.randn(2, 3, 32, 32)).heatmaps).backward()
    optimiser.step()
    progress = {"epoch": 3, "step": 7, "best_ap": -1.0, "optimiser": optimiser.state_dict()}
    settings = {"train": {"lr": 1e-3, "milestones": [1, 2]}, "data": {"eval_split": None}}
    arguments = NETWORK | {"num_joints": len(joints)}
    save_checkpoint(path, Checkpoint(arguments, joints, model.state_dict(), settings, progress))
    loaded = load_checkpoint(path)
    assert loaded.network == arguments
    assert loaded.joints == joints
    assert loaded.config == settings
    assert_same_weights(loaded.build(), model)
    other = torch.optim.Adam(model.parameters())
    other.load_state_dict(loaded.progress.pop("optimiser"))
    assert loaded.progress == {"epoch": 3, "step": 7, "best_ap": -1.0}
    for parameter in model.parameters():
        for name, value in optimiser.state[parameter].items():
            assert torch.equal(other.state[parameter][name], value)


def test_nothing_but_plain_values_is_in_the_file(tmp_path):
    """Any torch opens the file with weights_only, without dhn."""
    save_checkpoint(tmp_path / "last.pt", a_checkpoint())
    content = torch.load(tmp_path / "last.pt", weights_only=True)
    assert content["format"] == "dhn-1"
    assert content["joints"]["names"][-1] == "neck"


def damaged_files(folder):
    whole = folder / "whole.pt"
    save_checkpoint(whole, a_checkpoint())
    content = whole.read_bytes()
    files = {
        "empty.pt": b"",
        "zip.pt": b"PK\x03\x04",
        "truncated.pt": content[: len(content) // 2],
        "short.pt": content[:100],
        "zeros.pt": bytes(1000),
        "truncated.safetensors": b"\x40\0\0\0\0\0\0\0{",
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    with zipfile.ZipFile(folder / "archive.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    return [*files, "archive.pt"]


def test_damaged_files_are_one_line(tmp_path):
    for name in damaged_files(tmp_path):
        message = complaint(load_checkpoint, tmp_path / name)
        assert message == f"{tmp_path / name}: is not a checkpoint, or is cut off; get it again"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"\n<!DOCTYPE html><html><body>404</body></html>\n", "is a web page, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_web_page_or_pointer_in_place_of_weights_is_named(tmp_path, content, named, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    assert complaint(load_checkpoint, path).startswith(f"{path}: {named}")


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_file_is_refused_and_not_run(tmp_path, legacy):
    path, victim = tmp_path / "evil.pt", tmp_path / "victim"
    content = {"state_dict": network().state_dict(), "x": Malice(victim)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    wanted = f"{path}: refused, it wants to run {os.mkdir.__module__}.mkdir; "
    assert complaint(load_checkpoint, path).startswith(wanted)
    path.write_bytes(pickle.dumps(Malice(victim), protocol=2))
    assert complaint(load_checkpoint, path).startswith(wanted)
    assert not victim.exists()


def test_objects_of_other_packages_are_refused_by_name(tmp_path):
    path = tmp_path / "options.pth"
    torch.save({"state_dict": {}, "args": argparse.Namespace(lr=1)}, path)
    assert "refused, it wants to run argparse.Namespace" in complaint(read_file, path)


def test_numpy_numbers_beside_the_weights_are_plain_values(tmp_path):
    """MMPose keeps the best AP as pycocotools gives it."""
    path = tmp_path / "best.pth"
    numbers = [kind(1) for kind in (np.float64, np.float32, np.int64, np.bool_)]
    torch.save({"meta": numbers, "state_dict": {"x": torch.ones(2)}}, path)
    assert read_file(path)["meta"] == numbers
    with pytest.raises(pickle.UnpicklingError):  # elsewhere, torch still refuses them
        torch.load(path, weights_only=True)


@pytest.mark.parametrize("name", ["none.pt", "none.safetensors", "folder.pt"])
def test_a_missing_file_is_named(tmp_path, name):
    (tmp_path / "folder.pt").mkdir()
    assert complaint(load_checkpoint, tmp_path / name).startswith(
        f"{tmp_path / name}: cannot be read"
    )


def test_weights_alone_are_no_dhn_checkpoint(tmp_path):
    path = tmp_path / "weights.pth"
    for content in (network().state_dict(), [1, 2], {"epoch": 3}, torch.ones(3)):
        torch.save(content, path)
        assert "is no dhn checkpoint; dhn.load_weights" in complaint(load_checkpoint, path)


def test_a_checkpoint_with_parts_missing_is_one_line(tmp_path):
    path = tmp_path / "last.pt"
    for content in (
        {"format": "dhn-1"},
        {"format": "dhn-1", "joints": {"name": "x"}},
        {"format": "dhn-1", "joints": 3},
    ):
        torch.save(content, path)
        assert complaint(load_checkpoint, path).startswith(f"{path}: ")


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path, full_disk):
    path = tmp_path / "last.pt"
    save_checkpoint(path, a_checkpoint(seed=1, epoch=1))
    with full_disk(10_000):
        message = complaint(save_checkpoint, path, a_checkpoint(seed=2, epoch=2))
    assert message.startswith(f"{path}: cannot be written")
    assert list(tmp_path.iterdir()) == [path]
    assert load_checkpoint(path).progress == {"epoch": 1}
    assert_same_weights(load_checkpoint(path).build(), network(seed=1))


def test_joints_of_a_custom_set_survive(tmp_path):
    joints = replace(CROWDPOSE, name="mine", grouping_order=tuple(reversed(range(14))))
    save_checkpoint(tmp_path / "x.pt", a_checkpoint(joints=joints))
    assert load_checkpoint(tmp_path / "x.pt").joints == joints
