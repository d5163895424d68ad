"""Targets and the target-free loss against their plain references and the formula."""

import itertools
import math

import pytest
import torch

from dhn import ops
from dhn.ops import reference

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
TARGETS = [("disc", 7.0, 10.0), ("disc", 3.0, 7.0), ("square", 2.0, 0.0)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_keypoints(B, P, J, extent, seed=0, dtype=torch.float32):
    """x, y a fifth of `extent` beyond [0, extent] on either side; a quarter of all invisible."""
    g = seeded(seed)
    xy = (torch.rand(B, P, J, 2, generator=g, dtype=dtype) * 1.4 - 0.2) * extent
    v = torch.randint(0, 4, (B, P, J, 1), generator=g).clamp(max=2).to(dtype)
    return torch.cat([xy, v], dim=-1)


def close(ours, theirs, tolerance):
    torch.testing.assert_close(ours.cpu(), theirs.to(ours.dtype), rtol=0, atol=tolerance)


class TestRenderHeatmaps:
    @pytest.mark.parametrize(("target", "sigma", "tau"), TARGETS)
    @pytest.mark.parametrize("units", ["input", "heatmap"])
    @pytest.mark.parametrize(
        ("P", "size", "stride"),
        [(0, (9, 7), 4), (5, (61, 67), 4), (31, (33, 1), 2), (3, (16, 24), 3)],
    )
    def test_equals_reference(self, device, P, size, stride, units, target, sigma, tau):
        keypoints = random_keypoints(2, P, 3, stride * max(size))
        args = (size, stride, sigma, tau, units, target)
        close(
            ops.render_heatmaps(keypoints.to(device), *args),
            reference.render_heatmaps(keypoints.double(), *args),
            1e-6,
        )

    def test_formula_at_single_pixels(self, device):
        keypoints = torch.tensor([[[[10.0, 20.0, 1.0]]]], device=device)
        heatmap = ops.render_heatmaps(keypoints, (16, 16), 4, 7, 10)[0, 0]
        # Map pixel (2, 4) lies at (10, 18); d = 2.
        assert heatmap[4, 2].item() == pytest.approx(math.exp(-4 / 49), abs=1e-6)
        # (4, 4) at (18, 18): d^2 = 68 <= 100. (5, 4) at (22, 18): d^2 = 148, beyond tau.
        assert heatmap[4, 4].item() == pytest.approx(math.exp(-68 / 49), abs=1e-6)
        assert heatmap[4, 5].item() == 0

    def test_joint_on_the_cut_is_inside(self, device):
        keypoints = torch.tensor([[[[16.0, 2.0, 1.0]]]], device=device)
        heatmap = ops.render_heatmaps(keypoints, (8, 8), 4, 7, 10)[0, 0]
        # (1, 0) at (6, 2) lies at exactly 10 = tau.
        assert heatmap[0, 1].item() == pytest.approx(math.exp(-100 / 49), abs=1e-6)

    def test_joint_outside_the_map(self, device):
        keypoints = torch.tensor([[[[-4.0, 2.0, 1.0]]]], device=device)
        assert ops.render_heatmaps(keypoints, (8, 8), 4, 7, 10)[0, 0, 0, 0] > 0
        assert not ops.render_heatmaps(keypoints, (8, 8), 4, 2, 0, "heatmap", "square").any()

    def test_square_is_higherhrnets(self, device):
        keypoints = torch.tensor([[[[33.9, 50.0, 2.0]]]], device=device)
        heatmap = ops.render_heatmaps(keypoints, (32, 32), 4, 2, 0, "heatmap", "square")[0, 0].cpu()
        expected = torch.zeros(32, 32)  # centre (8, 12), 15 x 15 pixels
        for v, u in itertools.product(range(5, 20), range(1, 16)):
            expected[v, u] = math.exp(-((u - 8) ** 2 + (v - 12) ** 2) / 8)
        torch.testing.assert_close(heatmap, expected, rtol=0, atol=1e-6)

    def test_broken_coordinates_draw_nothing(self, device):
        keypoints = torch.tensor([[[[math.nan, 2.0, 1.0]], [[math.inf, 2.0, 1.0]]]], device=device)
        assert not ops.render_heatmaps(keypoints, (8, 8), 4, 7, 10).any()

    def test_pyramid_is_each_map(self, device):
        keypoints = random_keypoints(2, 4, 3, 128).to(device)
        sizes, strides = [(32, 32), (64, 64)] * 2, [4, 2] * 2
        sigmas, taus = [7.0] * 4, [10.0, 10.0, 7.0, 7.0]
        maps = ops.render_heatmap_pyramid(keypoints, sizes, strides, sigmas, taus)
        for one, args in zip(maps, zip(sizes, strides, sigmas, taus, strict=True), strict=True):
            assert torch.equal(one, ops.render_heatmaps(keypoints, *args))

    def test_float64_on_cpu(self):
        keypoints = random_keypoints(1, 4, 3, 64, dtype=torch.float64)
        args = (keypoints, (16, 16), 4, 7, 10)
        close(ops.render_heatmaps(*args), reference.render_heatmaps(*args), 1e-12)

    def test_malformed_input(self, device):
        keypoints = torch.zeros(1, 2, 3, 3, device=device)
        with pytest.raises(RuntimeError, match="keypoints"):
            ops.render_heatmaps(keypoints[0], (8, 8), 4, 7, 10)
        with pytest.raises(RuntimeError, match="sigma and tau must lie"):
            ops.render_heatmaps(keypoints, (8, 8), 4, 0, 10)
        with pytest.raises(ValueError, match="units"):
            ops.render_heatmaps(keypoints, (8, 8), 4, 7, 10, "pixels")


class TestHeatmapMse:
    @pytest.mark.parametrize(("target", "sigma", "tau"), TARGETS)
    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize("P", [0, 1, 6])
    def test_loss_and_gradient_equal_reference(self, device, P, masked, target, sigma, tau):
        keypoints = random_keypoints(3, P, 4, 120)
        prediction = torch.rand(3, 4, 30, 37, generator=seeded(1))
        mask = torch.rand(3, 30, 37, generator=seeded(2)) > 0.3 if masked else None
        args = (4, sigma, tau, "heatmap" if target == "square" else "input", target)

        ours = prediction.to(device, copy=True).requires_grad_()
        moved = mask if mask is None else mask.to(device)
        loss = ops.heatmap_mse(ours, keypoints.to(device), moved, *args)
        weights = torch.tensor([1.0, -2.0, 3.0])
        (loss * weights.to(device)).sum().backward()

        theirs = prediction.double().requires_grad_()
        expected = reference.heatmap_mse(theirs, keypoints, mask, *args)
        (expected * weights).sum().backward()
        close(loss, expected, 1e-6)
        close(ours.grad, theirs.grad, 1e-9)

    def test_gradcheck(self):
        keypoints = random_keypoints(2, 3, 2, 24)
        prediction = torch.rand(2, 2, 6, 7, generator=seeded(), dtype=torch.float64)
        mask = torch.rand(2, 6, 7, generator=seeded(1), dtype=torch.float64)

        def loss(prediction):
            return ops.heatmap_mse(prediction, keypoints, mask, 4, 7, 10)

        assert torch.autograd.gradcheck(loss, (prediction.requires_grad_(),))

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_dtypes_and_strides(self, device, dtype):
        keypoints = random_keypoints(2, 3, 4, 60)
        prediction = torch.rand(2, 15, 16, 4, generator=seeded()).to(dtype).permute(0, 3, 1, 2)
        ours = prediction.to(device).requires_grad_()
        loss = ops.heatmap_mse(ours, keypoints.to(device), None, 4, 7, 10)
        loss.sum().backward()
        close(loss, reference.heatmap_mse(prediction, keypoints, None, 4, 7, 10), 1e-6)
        assert loss.dtype == torch.float32
        assert ours.grad.dtype == dtype

    def test_malformed_input(self, device):
        keypoints = torch.zeros(1, 2, 3, 3, device=device)
        prediction = torch.zeros(1, 3, 8, 8, device=device)
        with pytest.raises(RuntimeError, match="keypoints"):
            ops.heatmap_mse(prediction[:, :2], keypoints, None, 4, 7, 10)
        with pytest.raises(RuntimeError, match="mask"):
            ops.heatmap_mse(prediction, keypoints, prediction[0, :, :7], 4, 7, 10)
