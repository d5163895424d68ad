import pytest
import torch
from torch import nn

from dhn.model import build_model
from dhn.model.fold import folded
from tiny_networks import with_norms_at_work

SMALL = {"width": 8, "modules": (1, 2, 1), "blocks": 1, "stem": 8}


def network(name):
    """In training mode, with batch norms that do something."""
    torch.manual_seed(0)
    model = build_model(name, num_joints=5, **SMALL)
    return with_norms_at_work(model)


@pytest.mark.parametrize("name", ["doublehighernet", "higherhrnet", "hrnet"])
def test_folded_is_the_same_function(name):
    model = network(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fast = folded(model)
    assert model.training
    assert not fast.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())

    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected, got = model.eval()(images), fast(images)
    for ours, theirs in zip(
        [*got.heatmaps, *got.tags], [*expected.heatmaps, *expected.tags], strict=True
    ):
        assert theirs.std() > 1e-3
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


def test_synchronised_batch_norms_are_folded_like_all_others():
    """Where `train.sync_bn` is set, validation runs a network of these."""
    model = network("doublehighernet")
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(network("doublehighernet"))
    assert any(isinstance(module, nn.SyncBatchNorm) for module in synchronised.modules())
    ours, theirs = folded(synchronised), folded(model)
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in ours.modules())
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, weight in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], weight), name


def test_a_transposed_convolution_with_bias_is_folded():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.ConvTranspose2d(6, 4, 4, stride=2, padding=1), nn.BatchNorm2d(4))
    layers(torch.randn(8, 6, 5, 5))  # running mean and variance
    x = torch.randn(2, 6, 5, 5)
    with torch.no_grad():
        torch.testing.assert_close(folded(layers)(x), layers.eval()(x), rtol=1e-5, atol=1e-5)


def test_a_batch_norm_without_a_convolution_before_it_stays():
    layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4))
    layers(torch.randn(8, 3, 5, 5))
    x = torch.randn(2, 3, 5, 5)
    assert isinstance(folded(layers)[2], nn.BatchNorm2d)
    torch.testing.assert_close(folded(layers)(x), layers.eval()(x))
