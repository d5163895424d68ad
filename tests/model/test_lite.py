"""DoubleHigherNet-lite: its shapes, its forms, its size."""

import pytest
import torch
from torch import nn

import dhn
from dhn.base.errors import DhnError
from dhn.data.joints import COCO
from dhn.model import build_model, channels_last
from dhn.model.fold import folded
from dhn.model.fused import fused
from dhn.training.config import load_config
from dhn.weights.load import open_network
from tiny_networks import with_norms_at_work

LITE = "doublehighernet_lite"
SHAPES = [
    {"width": 8, "branches": 2, "modules": (2,), "stem": 4, "half": 4},
    {"width": 8, "branches": 3, "modules": (1, 2), "blocks": 2, "kernel": 5},
    {"width": 12, "branches": 4, "modules": (1, 1, 1), "kernel": 7, "half": 8},
    {"width": 8, "branches": 4, "modules": (1, 2, 1), "fusion": "concat"},
    {"width": 8, "backbone": "efficientnet", "kernel": 5},
]


def network(J=3, **shape):
    torch.manual_seed(0)
    model = build_model(LITE, J, **{"blocks": 1, "stem": 8} | shape)
    return with_norms_at_work(model)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_maps_are_those_of_the_papers_network(shape):
    model = network(**shape)
    maps = model(torch.randn(2, 3, 64, 96))
    assert [tuple(h.shape) for h in maps.heatmaps] == [
        (2, 3, 16, 24),
        (2, 3, 32, 48),
        (2, 3, 16, 24),
        (2, 3, 32, 48),
    ]
    assert [tuple(t.shape) for t in maps.tags] == [(2, 3, 16, 24)] * 2
    sum(m.sum() for maps in maps for m in maps).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@torch.inference_mode()
def test_folded_and_fused_are_the_same_function(shape):
    model = network(**shape).eval()
    images = torch.randn(2, 3, 64, 96).to(memory_format=torch.channels_last)
    expected = model(images)
    fast = channels_last(folded(model))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    forms = {"folded": fast(images)}
    if torch.backends.mkldnn.is_available():
        forms["fused"] = fused(fast)(images)
        assert not any(
            type(module) is nn.Conv2d and module.bias is None for module in fast.modules()
        )
    for got in forms.values():
        for ours, theirs in zip(
            [*got.heatmaps, *got.tags], [*expected.heatmaps, *expected.tags], strict=True
        ):
            assert theirs.std() > 1e-3
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.std()))


@pytest.mark.parametrize(
    ("shape", "complaint"),
    [
        ({"branches": 1}, "branches must be 2, 3 or 4"),
        ({"branches": 4, "modules": (1, 1)}, "with modules for each stage"),
        ({"kernel": 4}, "kernel must be 3, 5, 7 or 9"),
        ({"kernel": 10**6, "backbone": "efficientnet"}, "kernel must be 3, 5, 7 or 9"),
        ({"half": 10**6}, "half must be from 4 to 256"),
        ({"backbone": "vgg"}, "backbone must be 'hrnet' or 'efficientnet'"),
        ({"width": 6}, "multiple of 4"),
    ],
)
def test_impossible_shapes_are_refused(shape, complaint):
    with pytest.raises(ValueError, match=complaint):
        network(**{"width": 8} | shape)


def test_the_presets_network_fits_eight_megabytes_of_float16():
    model = build_model(**load_config("people").network.arguments(), num_joints=17)
    assert sum(p.numel() for p in model.state_dict().values()) * 2 <= 8e6


def test_only_the_lite_network_has_arguments_of_its_own():
    assert {"branches", "kernel", "half"} <= load_config("people").network.arguments().keys()
    assert not {"branches", "kernel", "half"} & load_config().network.arguments().keys()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_bare_state_dict_is_recognised(tmp_path, shape):
    model = network(17, **shape)
    path = tmp_path / "lite.pth"
    torch.save(model.state_dict(), path)
    opened = open_network(path)
    assert opened.joints == COCO
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected, got = model.eval()(image), opened.model.eval()(image)
    assert torch.equal(got.heatmaps[-1], expected.heatmaps[-1])


@pytest.mark.parametrize(
    "name", ["coarse_head_half.weight", "transition_half.conv1.weight", "backbone.stem.1.0.weight"]
)
def test_malformed_weights_end_in_one_line(tmp_path, name):
    path = tmp_path / "lite.pth"
    torch.save(network(17, **SHAPES[0]).state_dict() | {name: torch.tensor(1.0)}, path)
    with pytest.raises(DhnError, match=f"{name} is no convolution"):
        open_network(path)


def test_weights_of_another_shape_are_refused(tmp_path):
    path = tmp_path / "lite.pth"
    torch.save(network(17, **SHAPES[0]).state_dict(), path)
    with pytest.raises(DhnError, match="weights of another network"):
        dhn.load_weights(network(17, **SHAPES[1]), path)
