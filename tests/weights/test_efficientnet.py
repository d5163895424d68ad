"""Warm start from ImageNet weights of EfficientNet-Lite0."""

from pathlib import Path

import pytest
import torch

from dhn.base.errors import DhnError
from dhn.model import build_model
from dhn.model.normalise import normalise
from dhn.weights.efficientnet import our_names
from dhn.weights.load import open_network, warm_start

PARTS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
# Of each stage: kernel, expansion, channels, blocks (Tan and Le 2019, table 1, no squeezing).
STAGES = (
    (3, 1, 16, 1),
    (3, 6, 24, 2),
    (5, 6, 40, 2),
    (3, 6, 80, 3),
    (5, 6, 112, 3),
    (5, 6, 192, 4),
    (3, 6, 320, 1),
)


def classifier(seed=0):
    """Random weights by the names of the PyTorch conversion, written out from the paper's table."""
    g = torch.Generator().manual_seed(seed)
    weights = {}

    def conv(name, *shape):
        weights[f"{name}.weight"] = torch.randn(*shape, generator=g) * 0.1

    def norm(name, channels):
        for part in PARTS[:4]:
            weights[f"{name}.{part}"] = torch.rand(channels, generator=g) + 0.5
        weights[f"{name}.num_batches_tracked"] = torch.tensor(7)

    conv("_conv_stem", 32, 3, 3, 3)
    norm("_bn0", 32)
    inputs, number = 32, 0
    for kernel, expansion, outputs, count in STAGES:
        for _ in range(count):
            wide = inputs * expansion
            if expansion > 1:
                conv(f"_blocks.{number}._expand_conv", wide, inputs, 1, 1)
                norm(f"_blocks.{number}._bn0", wide)
            conv(f"_blocks.{number}._depthwise_conv", wide, 1, kernel, kernel)
            norm(f"_blocks.{number}._bn1", wide)
            conv(f"_blocks.{number}._project_conv", outputs, wide, 1, 1)
            norm(f"_blocks.{number}._bn2", outputs)
            inputs, number = outputs, number + 1
    conv("_conv_head", 1280, 320, 1, 1)
    norm("_bn1", 1280)
    weights["_fc.weight"] = torch.zeros(10, 1280)
    weights["_fc.bias"] = torch.zeros(10)
    return weights


def network():
    torch.manual_seed(1)
    return build_model("doublehighernet_lite", 3, width=8, backbone="efficientnet")


def test_every_tensor_of_the_backbone_is_taken(tmp_path):
    path = tmp_path / "lite0.pth"
    theirs = classifier()
    torch.save(theirs, path)
    model = network()
    report = warm_start(model, path)
    ours = model.state_dict()
    inside = [k for k in ours if k.startswith(("backbone.stem.", "backbone.blocks."))]
    taken = [k for k in inside if not k.endswith("num_batches_tracked")]
    assert report.startswith(f"loaded {len(taken)} of ")
    assert "fresh: backbone.laterals" in report
    assert "left out of the file: backbone.blocks (15), _conv_head (1), _bn1 (4), _fc (2)" in report
    # In order of depth both sides have the same convolutions and norms.
    values = [v for k, v in theirs.items() if k.startswith("_blocks.") and "_blocks.15." not in k]
    own = [v for k, v in ours.items() if k.startswith("backbone.blocks.")]
    assert all(torch.equal(a, b) for a, b in zip(own, values, strict=True))


def test_the_first_layer_sees_our_images_as_it_saw_its_own():
    weights = classifier()
    image = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)

    def stem(x, convolution, mean):
        y = torch.nn.functional.conv2d(x, convolution, stride=2)  # no border
        norm = [weights[f"_bn0.{part}"] for part in PARTS[:4]]
        return torch.nn.functional.batch_norm(y, mean, norm[3], norm[0], norm[1], eps=1e-3)

    expected = stem(
        (image.float() - 127) / 128, weights["_conv_stem.weight"], weights["_bn0.running_mean"]
    )
    ours = our_names(weights, Path("lite0.pth"))
    got = stem(
        normalise(image), ours["backbone.stem.0.weight"], ours["backbone.stem.1.running_mean"]
    )
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_a_classifier_is_no_pose_network(tmp_path):
    path = tmp_path / "lite0.pth"
    torch.save(classifier(), path)
    with pytest.raises(DhnError, match="weights of another kind of network"):
        open_network(path)


def test_another_efficientnet_is_refused(tmp_path):
    path = tmp_path / "b7.pth"
    torch.save(classifier() | {"_conv_stem.weight": torch.zeros(64, 3, 3, 3)}, path)
    with pytest.raises(DhnError, match="an EfficientNet, but not Lite0: _conv_stem"):
        warm_start(network(), path)


def test_an_hrnet_cannot_start_from_it(tmp_path):
    path = tmp_path / "lite0.pth"
    torch.save(classifier(), path)
    model = build_model("higherhrnet", 3, width=8, modules=(1, 1, 1), blocks=1, stem=8)
    with pytest.raises(DhnError, match="holds no backbone to start from"):
        warm_start(model, path)
