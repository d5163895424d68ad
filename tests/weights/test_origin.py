"""Checkpoints of other code: what stands beside the weights, and what it says of them."""

import pickle
import sys
import types

import numpy as np
import pytest
import torch

from assertions import assert_same_weights, complaint
from dhn.data.joints import COCO, CROWDPOSE
from dhn.weights.checkpoint import read_file
from dhn.weights.load import load_weights, open_network, warm_start
from tiny_networks import Malice, network

AIC = """
dataset_info = dict(dataset_name='aic', paper_info=dict(title='AI Challenger'))
data = dict(train=dict(type='BottomUpAicDataset', ann_file='data/aic/annotations/x.json'))
"""
CROWD = "load_from = 'work_dirs/aic/best.pth'\ntrain = dict(type='BottomUpCrowdPoseDataset')"


def saved(path, content, J=14):
    """A checkpoint of MMPose with a HigherHRNet of J joints, and `content` beside it."""
    weights = network("higherhrnet", seed=1, num_joints=J).state_dict()
    torch.save(content | {"state_dict": weights}, path)
    return path


@pytest.mark.parametrize(
    "content",
    [
        {"meta": {"config": AIC}},
        {"meta": {"cfg": "train = dict(dataset=dict(type='AicDataset'))"}},
        {"meta": {"cfg": "metainfo = dict(from_file='configs/_base_/datasets/aic.py')"}},
        {"meta": {"dataset_meta": {"dataset_name": "aic"}}},
        {"message_hub": {"runtime_info": {"cfg": '{"dataset_name": "aic"}'}}},
    ],
)
def test_other_joints_are_refused_by_name(tmp_path, content):
    path = saved(tmp_path / "best.pth", content)
    assert complaint(open_network, path).startswith(
        f"{path}: was trained on AI Challenger, whose 14 joints are not those of CrowdPose"
    )
    # A training can start from it, and whoever built the network knows its joints.
    assert "fresh: nothing\n" in warm_start(network("higherhrnet"), path)
    load_weights(network("higherhrnet"), path)


def test_a_name_of_other_joints_counts_where_nothing_else_is_said(tmp_path):
    name = "higher_hrnet32_aic_512x512-9a674c33_20210130.pth"
    assert "AI Challenger" in complaint(open_network, saved(tmp_path / name, {}))
    meta = {"meta": {"config": CROWD}}
    assert open_network(saved(tmp_path / name, meta)).joints is CROWDPOSE
    content = {"meta": {"dataset_meta": {"dataset_name": "posetrack18"}}}
    assert "whose 17 joints are not those of COCO" in complaint(
        open_network, saved(tmp_path / "x.pth", content, J=17)
    )


@pytest.mark.parametrize(
    ("content", "J"),
    [
        ({"meta": {"config": CROWD}}, 14),
        ({"meta": {"config": "type='BottomUpCocoDataset'; use_udp=False"}}, 17),
        ({"meta": {"dataset_meta": {"dataset_name": "my_people"}}}, 17),
        ({"meta": {"config": "transforms = 'Mosaic'"}}, 14),
        ({"meta": None, "optimizer": {"state": {}, "name": "adam"}}, 17),
    ],
)
def test_other_statements_do_no_harm(tmp_path, content, J):
    assert open_network(saved(tmp_path / "x.pth", content, J)).joints is (
        COCO if J == 17 else CROWDPOSE
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.pth", {"meta": {"config": "dict(type='BottomUpGetImgSize', use_udp=True)"}}),
        ("x.pth", {"meta": {"cfg": "codec = dict(type='AssociativeEmbedding', use_udp=True)"}}),
        ("x.pth", {"meta": {"cfg": "codec = dict(type='UDPHeatmap')"}}),
        ("x.pth", {"cfg": {"test_cfg": {"use_udp": True}}}),
        ("higher_hrnet32_coco_512x512_udp-8cc64794_20210222.pth", {}),
    ],
)
def test_udp_is_refused(tmp_path, name, content):
    path = saved(tmp_path / name, content, J=17)
    assert complaint(open_network, path).startswith(f"{path}: was trained with UDP, ")


def test_what_holds_itself_is_read_once(tmp_path):
    content = {"meta": [{"a": 1}]}
    content["meta"].append(content["meta"])
    assert open_network(saved(tmp_path / "x.pth", content)).joints is CROWDPOSE


@pytest.mark.parametrize("prefix", ["", "module.", "1."])
def test_swahr_files(tmp_path, prefix):
    """SWAHR is a HigherHRNet with layers that predict scales for its loss."""
    source = network("higherhrnet", seed=1, num_joints=17)
    weights = {prefix + k.removeprefix("backbone."): v for k, v in source.state_dict().items()}
    for level in range(2):
        for k in range(9):
            weights[f"{prefix}conv_scale_layers.{level}.{k}.weight"] = torch.randn(8)
    torch.save(weights, tmp_path / "swahr.pth")
    opened = open_network(tmp_path / "swahr.pth")
    assert opened.joints is COCO
    assert_same_weights(opened.model, source)


def test_one_name_twice_is_refused(tmp_path):
    weights = network("higherhrnet").state_dict()
    weights["module.backbone.conv1.weight"] = weights["backbone.conv1.weight"] + 1
    torch.save(weights, tmp_path / "x.pth")
    assert "two tensors of one name" in complaint(open_network, tmp_path / "x.pth")


@pytest.fixture
def history_buffer(monkeypatch):
    """A class that pickles as MMEngine's: with arrays, and its methods by getattr."""

    class HistoryBuffer:
        def __init__(self):
            self.max_length = 1_000_000
            self.log_history = np.array([1.5, 2.0])
            self.counts = np.array([1, 1])
            self.kinds = np.array([True]), np.zeros((2, 3), np.float32), np.array(["a"])

        def mean(self):
            raise AssertionError("runs code of the file")

        def __getstate__(self):
            return self.__dict__ | {"statistics_methods": {"mean": HistoryBuffer.mean}}

    module = types.ModuleType("mmengine.logging.history_buffer")
    module.HistoryBuffer = HistoryBuffer
    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = module.__name__, "HistoryBuffer"
    HistoryBuffer.mean.__module__ = module.__name__
    HistoryBuffer.mean.__qualname__ = "HistoryBuffer.mean"
    for name in ("mmengine", "mmengine.logging", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    return HistoryBuffer


def test_a_checkpoint_that_mmengine_wrote_while_training(tmp_path, history_buffer, monkeypatch):
    buffers = {"train/loss": history_buffer(), "train/lr": history_buffer()}
    content = {
        "meta": {"dataset_meta": {"dataset_name": "crowdpose", "sigmas": np.ones(14, np.float32)}},
        "message_hub": {"log_scalars": buffers, "runtime_info": {"best": np.float64(0.5)}},
    }
    path = saved(tmp_path / "epoch_1.pth", content)
    for name in ("mmengine", "mmengine.logging", "mmengine.logging.history_buffer"):
        monkeypatch.delitem(sys.modules, name)  # nobody needs MMEngine for it
    assert_same_weights(open_network(path).model, network("higherhrnet", seed=1))
    skipped = read_file(path)["message_hub"]["log_scalars"]["train/loss"]
    assert vars(skipped) == {}
    with pytest.raises(pickle.UnpicklingError):  # elsewhere, torch still refuses it
        torch.load(path, weights_only=True)


def test_the_inert_class_calls_nothing(tmp_path):
    """getattr and NumPy's constructor are names for a class that does nothing."""
    victim = tmp_path / "victim"
    for content in (Malice(victim), np.array([Malice(victim)], dtype=object)):
        path = saved(tmp_path / "x.pth", {"meta": content})
        complaint(open_network, path)
        assert not victim.exists()
    # A pickle that calls what getattr gives: cbuiltins getattr (...) -> (victim) REDUCE.
    text = b"".join((
        b"\x80\x02cbuiltins\ngetattr\ncnumpy\nndarray\nX\x05\0\0\0mkdir\x86R",
        b"X" + len(str(victim)).to_bytes(4, "little") + str(victim).encode() + b"\x85R.",
    ))  # fmt: skip
    (tmp_path / "raw.pth").write_bytes(text)
    complaint(open_network, tmp_path / "raw.pth")
    assert not victim.exists()
