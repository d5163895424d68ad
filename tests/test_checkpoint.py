import os
import pickle
import zipfile
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

import dhn
from dhn.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_weights,
    newest_checkpoint,
    save_checkpoint,
)
from dhn.errors import DhnError
from dhn.joints import COCO, CROWDPOSE
from dhn.model import NETWORKS, build_model

SMALL = {"width": 8, "modules": (1, 1, 1), "blocks": 1, "stem": 8}
NETWORK = SMALL | {"name": "doublehighernet", "fusion": "attention", "num_joints": 14}


def network(name="doublehighernet", seed=0, **changes):
    torch.manual_seed(seed)
    return build_model(name, **SMALL | {"num_joints": 14} | changes)


def a_checkpoint(seed=0, joints=CROWDPOSE, **progress):
    weights = network(seed=seed).state_dict()
    return Checkpoint(NETWORK, joints, weights, {"data": {"input_size": 128}}, progress)


def assert_same_weights(model, other):
    ours, theirs = model.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def complaint(function, *arguments) -> str:
    with pytest.raises(DhnError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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
    """Any torch opens it with weights_only, without dhn."""
    save_checkpoint(tmp_path / "last.pt", a_checkpoint())
    content = torch.load(tmp_path / "last.pt", weights_only=True)
    assert content["format"] == "dhn-1"
    assert content["joints"]["names"][-1] == "neck"


def test_load_weights_takes_dhn_checkpoints(tmp_path):
    save_checkpoint(tmp_path / "last.pt", a_checkpoint(seed=1))
    model = network(seed=2)
    dhn.load_weights(model, tmp_path / "last.pt")
    assert_same_weights(model, network(seed=1))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_load_weights_takes_plain_state_dicts(tmp_path, name, suffix):
    path, source = tmp_path / f"weights{suffix}", network(name, seed=1)
    if suffix == ".pth":
        torch.save(source.state_dict(), path)
    else:
        save_file({k: v.contiguous() for k, v in source.state_dict().items()}, path)
    model = network(name, seed=2)
    load_weights(model, path)
    assert_same_weights(model, source)


@pytest.mark.parametrize("prefix", ["", "module.", "1.", "module.1."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "best_state_dict"])
def test_load_weights_takes_official_higherhrnet_files(tmp_path, prefix, wrapper):
    source = network("higherhrnet", seed=1)
    official = {prefix + k.removeprefix("backbone."): v for k, v in source.state_dict().items()}
    content = official if wrapper is None else {wrapper: official, "epoch": 3, "perf": 0.6}
    if wrapper not in (None, "model"):
        content["model"] = "pose_higher_hrnet"  # its name, as in the official checkpoints
    torch.save(content, tmp_path / "official.pth.tar")
    model = network("higherhrnet", seed=2)
    load_weights(model, tmp_path / "official.pth.tar")
    assert_same_weights(model, source)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"name": "higherhrnet"}, "lacks coarse_head_quarter.weight"),
        ({"name": "higherhrnet"}, "has unknown final_layers.0.weight"),
        ({"width": 12}, "backbone.transition1.0.0.weight is [12, 32, 3, 3], not [8, 32, 3, 3]"),
        ({"num_joints": 17}, "coarse_head_quarter.weight is [34, 8, 1, 1], not [28, 8, 1, 1]"),
        ({"fusion": "concat"}, "lacks coarse_fusion.fc1.weight"),
        ({"modules": (1, 1, 2)}, "has unknown backbone.stage4."),
    ],
)
def test_weights_of_another_network_are_named(tmp_path, other, named):
    path = tmp_path / "other.pth"
    torch.save(network(**other).state_dict(), path)
    model = network(seed=2)
    message = complaint(load_weights, model, path)
    assert message.startswith(f"{path}: weights of another network: ")
    assert named in message
    assert len(message) < 700
    assert_same_weights(model, network(seed=2))  # nothing was loaded in part


class Malice:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def damaged_files(folder):
    whole = folder / "whole.pt"
    save_checkpoint(whole, a_checkpoint())
    content = whole.read_bytes()
    files = {
        "empty.pt": b"",
        "truncated.pt": content[: len(content) // 2],
        "short.pt": content[:100],
        "page.pth": b"<!DOCTYPE html><html><body>404</body></html>\n",
        "text.pt": b"version https://git-lfs.github.com/spec/v1\n",
        "zeros.pt": bytes(1000),
        "truncated.safetensors": b"\x40\0\0\0\0\0\0\0{",
        "page.safetensors": b"<!DOCTYPE html>",
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    with zipfile.ZipFile(folder / "archive.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    return [*files, "archive.pt"]


@pytest.mark.parametrize("load", [load_checkpoint, lambda path: load_weights(network(), path)])
def test_damaged_files_are_one_line(tmp_path, load):
    for name in damaged_files(tmp_path):
        message = complaint(load, tmp_path / name)
        assert message.startswith(f"{tmp_path / name}: ")
        assert "not a checkpoint, or cut off" in message or "refused" in message


@pytest.mark.parametrize("load", [load_checkpoint, lambda path: load_weights(network(), path)])
@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_file_is_refused_and_not_run(tmp_path, load, legacy):
    path, victim = tmp_path / "evil.pt", tmp_path / "victim"
    content = {"state_dict": network().state_dict(), "x": Malice(victim)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    assert "refused" in complaint(load, path)
    path.write_bytes(pickle.dumps(Malice(victim), protocol=2))
    assert "refused" in complaint(load, path)
    assert not victim.exists()


@pytest.mark.parametrize("name", ["none.pt", "none.safetensors", "folder.pt"])
def test_what_is_not_there_is_named(tmp_path, name):
    (tmp_path / "folder.pt").mkdir()
    for load in (load_checkpoint, lambda path: load_weights(network(), path)):
        assert complaint(load, tmp_path / name).startswith(f"{tmp_path / name}: cannot be read")


def test_weights_alone_are_no_dhn_checkpoint(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(network().state_dict(), path)
    assert "is no dhn checkpoint; dhn.load_weights" in complaint(load_checkpoint, path)
    for content in ([1, 2], {"epoch": 3}, torch.ones(3)):
        torch.save(content, path)
        assert "no dhn checkpoint" in complaint(load_checkpoint, path)
        assert "holds no state dict" in complaint(load_weights, network(), path)


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


def test_newest_checkpoint_is_the_newest_runs_best_else_last(tmp_path):
    def run(name, time, *files):
        (tmp_path / name).mkdir(exist_ok=True)
        for file in files:
            (tmp_path / name / file).touch()
            os.utime(tmp_path / name / file, (time, time))

    assert "no checkpoint in" in complaint(newest_checkpoint, tmp_path)
    assert "dhn train --config demo" in complaint(newest_checkpoint, tmp_path / "none")
    run("without", 900)
    run("zebra", 100, "last.pt", "best.pt")
    assert newest_checkpoint(tmp_path) == tmp_path / "zebra" / "best.pt"
    run("apple", 200, "last.pt")
    assert newest_checkpoint(tmp_path) == tmp_path / "apple" / "last.pt"
    run("zebra", 300, "last.pt")  # it went on; its best is older than apple's last
    assert newest_checkpoint(tmp_path) == tmp_path / "zebra" / "best.pt"


def test_joints_of_a_custom_set_survive(tmp_path):
    joints = replace(CROWDPOSE, name="mine", grouping_order=tuple(reversed(range(14))))
    save_checkpoint(tmp_path / "x.pt", a_checkpoint(joints=joints))
    assert load_checkpoint(tmp_path / "x.pt").joints == joints
