"""Weights of every kind that users have, made from our own random networks."""

import re

import pytest
import torch
import yaml
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import nn

import dhn
from assertions import assert_same_weights, complaint
from dhn.cli import main
from dhn.data.joints import COCO, CROWDPOSE
from dhn.model import KINDS, build_model
from dhn.weights.checkpoint import Checkpoint, save_checkpoint
from dhn.weights.load import load_weights, open_network, warm_start
from tiny_networks import SMALL, Malice, network

WRAPPERS = (None, "state_dict", "model", "best_state_dict")


def checkpoint(name="doublehighernet", joints=CROWDPOSE, data=None, **changes):
    arguments = SMALL | {"name": name, "num_joints": len(joints)} | changes
    weights = network(seed=1, **arguments).state_dict()
    return Checkpoint(arguments, joints, weights, {"data": data or {}}, {})


def official(model):
    """Names of the official HigherHRNet: the backbone's layers at the top."""
    return {key.removeprefix("backbone."): value for key, value in model.state_dict().items()}


def mmpose(model, version="0.x"):
    """Names of MMPose: `backbone.` and its head; 1.x keeps mean and deviation of images too."""
    head = {"0.x": "keypoint_head.", "1.x": "head."}[version]
    weights = {
        key if key.startswith("backbone.") else head + re.sub("^head", "final_layer", key): value
        for key, value in model.state_dict().items()
    }
    if version == "1.x":
        weights |= {
            "data_preprocessor.mean": torch.ones(3, 1, 1),
            "data_preprocessor.std": torch.ones(3, 1, 1),
            "head.loss_module.weight": torch.ones(2),
        }
    return weights


def classifier(**changes):
    """The ImageNet files of HRNet: four branches leave the backbone, a `head.` of another kind."""
    backbone = official(network("hrnet", seed=1, **changes))
    weights = {key: value for key, value in backbone.items() if not key.startswith("head.")}
    for key in ("head.0.0.0.conv1.weight", "head.0.0.0.bn1.bias", "fc.weight", "fc.bias"):
        weights[key] = torch.randn(4, 4)
    return weights


def saved(path, content):
    torch.save(content, path)
    return path


def test_dhn_checkpoints(tmp_path):
    save_checkpoint(tmp_path / "last.pt", checkpoint())
    model = network(seed=2)
    dhn.load_weights(model, tmp_path / "last.pt")
    assert_same_weights(model, network(seed=1))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_plain_state_dicts(tmp_path, name, suffix):
    path, source = tmp_path / f"weights{suffix}", network(name, seed=1)
    if suffix == ".pth":
        torch.save(source.state_dict(), path)
    else:
        save_file({k: v.contiguous() for k, v in source.state_dict().items()}, path)
    model = network(name, seed=2)
    load_weights(model, path)
    assert_same_weights(model, source)
    assert_same_weights(open_network(path).model, source)


@pytest.mark.parametrize("prefix", ["", "module.", "1.", "module.1."])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_official_higherhrnet_files(tmp_path, prefix, wrapper):
    source = network("higherhrnet", seed=1)
    weights = {prefix + key: value for key, value in official(source).items()}
    content = weights if wrapper is None else {wrapper: weights, "epoch": 3, "perf": 0.6}
    if wrapper not in (None, "model"):
        content["model"] = "pose_higher_hrnet"  # its name, as in the official checkpoints
    path = saved(tmp_path / "official.pth.tar", content)
    model = network("higherhrnet", seed=2)
    load_weights(model, path)
    assert_same_weights(model, source)
    assert_same_weights(open_network(path).model, source)


@pytest.mark.parametrize("version", ["0.x", "1.x"])
@pytest.mark.parametrize(
    ("name", "changes"), [("higherhrnet", {}), ("hrnet", {"branches": 1}), ("hrnet", {})]
)
def test_mmpose_files(tmp_path, version, name, changes):
    source = network(name, seed=1, num_joints=17, **changes)
    content = {"meta": {"mmpose_version": version}, "state_dict": mmpose(source, version)}
    path = saved(tmp_path / "mmpose.pth", content)
    opened = open_network(path)
    assert_same_weights(opened.model, source)
    assert opened.joints is COCO
    model = network(name, seed=2, num_joints=17, **changes)
    load_weights(model, path)
    assert_same_weights(model, source)


@pytest.mark.parametrize(("joints", "parameters"), [(14, 28_641_962), (17, 28_645_331)])
def test_higherhrnet_w32_has_the_official_keys(joints, parameters):
    with torch.device("meta"):
        model = build_model("higherhrnet_w32", joints)
    assert len(official(model)) == 1810
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("joints", [CROWDPOSE, COCO])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"width": 12, "stem": 16},
        {"width": 32, "stem": 8},  # layer1 has the branch's width already: no transition1.0
        {"modules": (1, 2, 3), "blocks": 2},
        {"fusion": "concat"},
    ],
)
def test_the_network_is_recognised(tmp_path, name, joints, changes):
    source = network(name, seed=1, num_joints=len(joints), **changes)
    opened = open_network(saved(tmp_path / "weights.pth", source.state_dict()))
    assert type(opened.model) is type(source)
    assert_same_weights(opened.model, source)
    assert opened.joints is joints
    assert opened.input_size is None
    assert opened.source == str(tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("data", "size"),
    [({"input_size": 128}, 128), ({"input_size": 128, "eval_size": 192}, 192), ({}, None)],
)
def test_a_dhn_checkpoint_says_its_joints_and_size(tmp_path, data, size):
    save_checkpoint(tmp_path / "best.pt", checkpoint("hrnet", COCO, data))
    opened = open_network(tmp_path / "best.pt")
    assert (opened.joints, opened.input_size) == (COCO, size)


def test_the_input_size_of_a_published_file_is_known_by_its_name(tmp_path):
    path = tmp_path / "higher_hrnet32_coco_640x640-a22fe938_20200712.pth"
    saved(path, mmpose(network("higherhrnet", num_joints=17)))
    assert open_network(path).input_size == 640


def test_half_precision_weights_are_loaded_as_float32(tmp_path):
    source = network("higherhrnet", seed=1)
    path = saved(tmp_path / "fp16.pth", {k: v.half() for k, v in official(source).items()})
    model = open_network(path).model
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    torch.testing.assert_close(model.state_dict(), source.half().float().state_dict())


def test_files_without_step_counters_are_complete(tmp_path):
    """PyTorch before 0.4.1 wrote none; the ImageNet file of HRNet-w48 has none."""
    source = network("higherhrnet", seed=1)
    weights = {k: v for k, v in official(source).items() if "num_batches_tracked" not in k}
    path = saved(tmp_path / "old.pth", weights)
    assert_same_weights(open_network(path).model, source)
    assert "fresh: nothing\n" in warm_start(network("higherhrnet"), path)


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
    path = saved(tmp_path / "other.pth", network(**other).state_dict())
    model = network(seed=2)
    message = complaint(load_weights, model, path)
    assert message.startswith(f"{path}: weights of another network: ")
    assert named in message
    assert_same_weights(model, network(seed=2))  # nothing was loaded in part


def test_a_recognised_network_must_match_in_every_key(tmp_path):
    weights = official(network("higherhrnet"))
    del weights["stage3.0.branches.1.0.bn2.weight"]
    weights["final_layers.0.weight"] = torch.ones(15, 8, 1, 1)  # one tag for all joints
    message = complaint(open_network, saved(tmp_path / "x.pth", weights))
    assert "lacks backbone.stage3.0.branches.1.0.bn2.weight" in message
    assert "final_layers.0.weight is [15, 8, 1, 1], not [28, 8, 1, 1]" in message


def test_a_dhn_checkpoint_must_match_too(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, checkpoint()._replace(weights=network(width=12).state_dict()))
    assert "weights of another network: shapes:" in complaint(open_network, path)
    future = checkpoint()
    save_checkpoint(path, future._replace(network=future.network | {"depth": 3}))
    assert "a network that dhn does not build" in complaint(open_network, path)


def resnet():
    """Keys of torchvision's ResNet."""
    layers = {
        f"layer{k}": nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)) for k in range(1, 5)
    }
    stem = {"conv1": nn.Conv2d(3, 8, 7), "bn1": nn.BatchNorm2d(8)}
    return nn.ModuleDict(stem | layers | {"fc": nn.Linear(8, 10)}).state_dict()


def single_person(prefix, joints):
    """HRNet for one person in a box: J heatmaps and no tags."""
    weights = official(network("hrnet", branches=1))
    del weights["head.weight"], weights["head.bias"]
    head = {"weight": torch.randn(joints, 8, 1, 1), "bias": torch.randn(joints)}
    return weights | {f"{prefix}final_layer.{key}": value for key, value in head.items()}


def headless(*others):
    """An HRNet with other layers than a head that is known."""
    weights = official(network("hrnet"))
    del weights["head.weight"], weights["head.bias"]
    return weights | {name: torch.ones(2) for name in others}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (resnet(), "weights of another kind of network: a ResNet (backbone.conv1.weight, "),
        (nn.Linear(2, 2).state_dict(), "weights of another kind of network (weight, bias)"),
        ({}, "weights of another kind of network"),
        (classifier(), "an HRNet-w8 in a classifier, which dhn cannot run"),
        (single_person("", 17), "an HRNet-w8 in a network for one person in a box (17 heatmaps"),
        (single_person("keypoint_head.", 17), "an HRNet-w8 in a network for one person in a box"),
        (single_person("head.", 14), "an HRNet-w8 in a network for one person in a box (14"),
        (single_person("head.", 32), "an HRNet-w8 in a bottom-up network for MHP's 16 joints"),
        (headless("head.iia_module.x", "head.gfd_module.y"), "an HRNet-w8 in CID ("),
        (headless("head_heatmap.1.weight", "offset_final_layer.0.weight"), "an HRNet-w8 in DEKR ("),
        (headless(), "an HRNet-w8 in a backbone without a head"),
        (network("higherhrnet", num_joints=133).state_dict(), "its network has 133 joints"),
        ([1, 2], "holds no state dict"),
        ({"epoch": 3}, "holds no state dict"),
        (torch.ones(3), "holds no state dict"),
    ],
)
def test_weights_of_another_task_are_named(tmp_path, content, named):
    path = saved(tmp_path / "other.pth", content)
    assert complaint(open_network, path).startswith(f"{path}: {named}")


def rest(report, what):
    """The layers that a report calls `fresh` or `left out`, as {layer: tensors}."""
    (text,) = re.findall(rf"{what}[^:]*: (.*)", report)
    return {m[1]: int(m[2]) for m in re.finditer(r"([\w.]+) \((\d+)\)", text)}


@pytest.mark.parametrize("name", [name for name in KINDS if not name.endswith("_lite")])
def test_warm_start_from_a_classifier_takes_the_backbone(tmp_path, name):
    path = saved(tmp_path / "imagenet.pth", classifier())
    model, before = network(name, seed=2), network(name, seed=2).state_dict()
    report = warm_start(model, path)
    source = network("hrnet", seed=1).state_dict()
    for key, value in model.state_dict().items():
        assert torch.equal(value, (source if key.startswith("backbone.") else before)[key])
    counted = [key for key in before if not key.endswith("num_batches_tracked")]
    inside = [key for key in counted if key.startswith("backbone.")]
    assert report.startswith(f"loaded {len(inside)} of {len(counted)} tensors from {path}; ")
    assert report.count("\n") == 1
    assert sum(rest(report, "fresh").values()) == len(counted) - len(inside)
    left_out = rest(report, "left out")
    assert left_out.pop("head") == left_out.pop("fc") == 2
    # One map leaves the backbones of the other two: the fusions of the other three are left out.
    assert left_out.keys() == (set() if name == "hrnet" else {"backbone.stage4"})


def test_warm_start_of_doublehighernet_from_higherhrnet(tmp_path):
    source = network("higherhrnet", seed=1)
    path = saved(tmp_path / "higherhrnet.pth", mmpose(source))
    model, before = network(seed=2), network(seed=2).state_dict()
    report = warm_start(model, path)
    expected = before | {
        key.replace("final_layers.0", "coarse_head_quarter"): value
        for key, value in source.state_dict().items()
        if key.startswith(("backbone.", "final_layers.0."))
    }
    assert expected.keys() == before.keys()
    assert all(torch.equal(model.state_dict()[key], expected[key]) for key in before)
    assert set(rest(report, "left out")) == {"final_layers", "deconv_layers"}
    assert "coarse_head_quarter" not in rest(report, "fresh")
    # The coarse 1/4 map is the teacher's from the first step.
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        ours, theirs = model.eval()(image), source.eval()(image)
    torch.testing.assert_close(ours.heatmaps[0], theirs.heatmaps[0])
    torch.testing.assert_close(ours.tags[0], theirs.tags[0])


def test_warm_start_with_other_joints_leaves_the_heads_out(tmp_path):
    path = tmp_path / "best.pt"
    save_checkpoint(path, checkpoint(joints=COCO))
    report = warm_start(network(), path)
    heads = {"coarse_head_quarter", "fine_head_quarter", "coarse_head_half", "fine_head_half"}
    assert heads < set(rest(report, "fresh"))
    assert set(rest(report, "fresh")) == set(rest(report, "left out"))


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (classifier(width=12), "its backbone is another one: backbone.transition1.0.0.weight is "),
        (nn.Linear(2, 2).state_dict(), "holds no backbone to start from (weight, bias)"),
        (resnet(), "its backbone is another one: backbone.conv1.weight is "),
    ],
)
def test_warm_start_from_another_network_is_refused(tmp_path, content, named):
    path = saved(tmp_path / "other.pth", content)
    model = network(seed=2)
    assert complaint(warm_start, model, path).startswith(f"{path}: {named}")
    assert_same_weights(model, network(seed=2))


def test_missing_files_are_named(tmp_path):
    for load in (open_network, lambda path: load_weights(network(), path)):
        path = tmp_path / "none.pth"
        assert complaint(load, path).startswith(f"{path}: cannot be read")


@pytest.mark.parametrize("kind", ["code", "page", "cut off", "classifier", "resnet"])
def test_a_bad_checkpoint_is_one_line_of_predict(tmp_path, kind):
    path, victim = tmp_path / "bad.pth", tmp_path / "victim"
    saved(path, {"state_dict": network().state_dict()})
    if kind == "code":
        saved(path, {"state_dict": network().state_dict(), "optimizer": Malice(victim)})
    elif kind == "page":
        path.write_bytes(b"<html>Sign in</html>")
    elif kind == "cut off":
        path.write_bytes(path.read_bytes()[:-1000])
    else:
        saved(path, classifier() if kind == "classifier" else resnet())
    (tmp_path / "image.png").touch()
    result = CliRunner().invoke(
        main, ["predict", str(tmp_path / "image.png"), "--checkpoint", str(path)]
    )
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {path}: ")
    assert result.stderr.count("\n") == 1
    assert not victim.exists()


def test_train_starts_from_a_backbone():
    def train(*options):
        return CliRunner().invoke(main, ["train", "--config", "demo", "--show-config", *options])

    address = "https://example.org/hrnet.pth?token=1"
    for weights in ("hrnet_w32_imagenet", "weights/x.pth", address):
        settings = yaml.safe_load(train("--backbone", weights).stdout)
        assert settings["train"]["init"] == weights
    refused = train("--backbone", "x.pth", "--resume", "runs/x")
    assert refused.exit_code == 2
    assert "--backbone" in refused.stderr
