"""Float16 weights in a safetensors file that describes its network."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import dhn
from assertions import complaint
from dhn.data.joints import COCO
from dhn.weights.checkpoint import load_checkpoint
from dhn.weights.compact import read_description, write_compact
from dhn.weights.load import open_file, warm_start
from tiny_networks import network, save_network


@pytest.fixture
def checkpoint(tmp_path):
    save_network(tmp_path / "last.pt", joints=COCO, input_size=192)
    return load_checkpoint(tmp_path / "last.pt")


def test_a_file_comes_back_rounded_to_float16(checkpoint, tmp_path):
    path = tmp_path / "small.safetensors"
    write_compact(path, checkpoint, {"data": "drawn"})
    assert path.stat().st_size < 0.6 * (tmp_path / "last.pt").stat().st_size
    opened = open_file(path)
    assert (opened.joints, opened.input_size, opened.source) == (COCO, 192, str(path))
    weights = opened.model.state_dict()
    assert weights.keys() == checkpoint.weights.keys()
    for name, weight in checkpoint.weights.items():
        expected = weight.half().float() if weight.is_floating_point() else weight
        assert torch.equal(weights[name], expected)
    assert read_description(path)["config"]["about"] == {"data": "drawn"}
    again = tmp_path / "again.safetensors"
    write_compact(again, load_checkpoint(path))
    assert again.read_bytes() == path.read_bytes()


def test_a_training_starts_from_it(checkpoint, tmp_path):
    write_compact(tmp_path / "small.safetensors", checkpoint)
    report = warm_start(network(num_joints=17), tmp_path / "small.safetensors")
    loaded, of = [int(word) for word in report.split() if word.isdigit()][:2]
    assert loaded == of


@pytest.mark.parametrize("value", [1e6, float("nan")])
def test_what_float16_cannot_hold_is_refused(checkpoint, tmp_path, value):
    name = next(iter(checkpoint.weights))
    checkpoint.weights[name].view(-1)[0] = value
    path = tmp_path / "small.safetensors"
    assert f"{name} has numbers that float16" in complaint(write_compact, path, checkpoint)
    assert not path.exists()


def test_a_full_disk_leaves_nothing(checkpoint, tmp_path, full_disk):
    path = tmp_path / "small.safetensors"
    with full_disk(10_000):
        assert f"{path}: cannot be written" in complaint(write_compact, path, checkpoint)
    assert not path.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda _: "[]", "is not a checkpoint"),
        (lambda _: "{", "is not a checkpoint"),
        (lambda text: text.replace('"width": 8', '"width": 16'), "weights of another network"),
        (lambda text: text.replace('"name": "left_knee"', '"name": 3'), ""),
        (lambda text: json.dumps(json.loads(text) | {"network": 3}), "network"),
        (lambda text: json.dumps(json.loads(text) | {"joints": {}}), "joints"),
    ],
)
def test_a_false_description_is_refused(checkpoint, tmp_path, change, words):
    path = tmp_path / "small.safetensors"
    write_compact(path, checkpoint)
    text = change(json.dumps(read_description(path)))
    save_file(load_file(path), path, {"dhn": text})
    if words:
        message = complaint(dhn.load, path)
        assert str(path) in message
        assert words in message
    else:
        assert dhn.load(path).joints == COCO
