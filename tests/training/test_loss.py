import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dhn import ops
from dhn.model import PoseMaps, build_model
from dhn.ops import reference
from dhn.training.loss import GroupingLoss, grouping_loss, pose_loss
from dhn.training.settings import Loss

PAPER = Loss()


def slow_grouping_loss(tags: Tensor, keypoints: Tensor, stride: float) -> tuple[float, float]:
    """Newell et al. 2017, person by person."""
    pulls, pushes = [], []
    B, J, h, w = tags.shape
    for b in range(B):
        means, spreads = [], []
        for person in keypoints[b].tolist():
            read = []
            for j, (x, y, v) in enumerate(person):
                column, row = math.floor(x / stride), math.floor(y / stride)
                if v > 0 and 0 <= column < w and 0 <= row < h:
                    read.append(tags[b, j, row, column].item())
            if read:
                mean = sum(read) / len(read)
                means.append(mean)
                spreads.append(sum((t - mean) ** 2 for t in read) / len(read))
        N = len(means)
        pulls.append(sum(spreads) / N if N else 0.0)
        near = sum(
            math.exp(-((means[p] - means[q]) ** 2)) for p in range(N) for q in range(N) if p != q
        )
        pushes.append(0.5 * near / (N * (N - 1)) if N > 1 else 0.0)
    return sum(pulls) / B, sum(pushes) / B


@st.composite
def scenes(draw):
    """Tags, and people with joints unlabelled, on the map's edges and far outside."""
    B, P, J = draw(st.integers(1, 3)), draw(st.integers(0, 4)), draw(st.integers(1, 4))
    h, w, stride = (
        draw(st.integers(1, 6)),
        draw(st.integers(1, 6)),
        draw(st.sampled_from([4.0, 2.0, 1.5])),
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    tags = torch.randn(B, J, h, w, dtype=torch.float64, generator=generator)
    x = st.one_of(
        st.floats(-10, w * stride + 10, width=32),
        st.sampled_from([0.0, -1e-3, w * stride, w * stride - 1e-3, 1e6, -1e6]),
    )
    y = st.one_of(
        st.floats(-10, h * stride + 10, width=32),
        st.sampled_from([0.0, -1e-3, h * stride, h * stride - 1e-3, 1e6, -1e6]),
    )
    v = st.sampled_from([0.0, 1.0, 2.0])
    joints = draw(st.lists(st.tuples(x, y, v), min_size=B * P * J, max_size=B * P * J))
    keypoints = torch.tensor(joints, dtype=torch.float64).reshape(B, P, J, 3)
    return tags, keypoints, stride


@settings(max_examples=150, deadline=None)
@given(scenes())
def test_grouping_loss_is_the_plain_one(scene):
    tags, keypoints, stride = scene
    loss = grouping_loss(tags, keypoints, stride)
    assert (loss.pull.item(), loss.push.item()) == pytest.approx(
        slow_grouping_loss(tags, keypoints, stride), abs=1e-12
    )


def people(*joints: list[tuple[float, float, float]]) -> Tensor:
    return torch.tensor(joints, dtype=torch.float32)[None]


def test_grouping_loss_by_hand():
    tags = torch.zeros(1, 2, 4, 4)
    tags[0, 0, 0, 0], tags[0, 1, 0, 1] = 1.0, 3.0  # person 0: mean 2, spread 1
    tags[0, 0, 3, 3] = 2.5  # person 1: a single joint
    keypoints = people([(0, 0, 2), (7.9, 3.9, 1)], [(15.9, 15.9, 2), (16, 3, 2)])
    loss = grouping_loss(tags, keypoints)
    assert loss.pull.item() == pytest.approx((1 + 0) / 2)
    assert loss.push.item() == pytest.approx(0.5 * math.exp(-0.25))


def random_scene(P: int = 3, dtype: torch.dtype = torch.float32, size: int = 32):
    """A batch of two for two-stage networks with J = 2."""
    g = torch.Generator().manual_seed(P)
    keypoints = torch.rand(2, P, 2, 3, generator=g) * torch.tensor([size, size, 1.0])
    keypoints[..., 2] = (keypoints[..., 2] > 0.3).float() * 2
    half, quarter = size // 2, size // 4
    sizes = [quarter, half, quarter, half]
    heatmaps = [torch.randn(2, 2, s, s, generator=g).to(dtype) for s in sizes]
    tags = [torch.randn(2, 2, quarter, quarter, generator=g).to(dtype) for _ in range(2)]
    return PoseMaps(heatmaps, tags), keypoints


def test_grouping_loss_passes_gradcheck():
    maps, keypoints = random_scene(dtype=torch.float64)
    tags = maps.tags[0].requires_grad_()
    assert torch.autograd.gradcheck(
        lambda t: tuple(grouping_loss(t, keypoints.double())), (tags,), fast_mode=False
    )


@pytest.mark.parametrize("foreground", [0.0, 5.0])
def test_pose_loss_passes_gradcheck(foreground):
    maps, keypoints = random_scene(dtype=torch.float64, size=8)
    mask = torch.ones(2, 8, 8, dtype=torch.uint8)
    mask[0, :4] = 0
    inputs = [m.requires_grad_() for m in (*maps.heatmaps, *maps.tags)]

    def total(*maps):
        split = PoseMaps(list(maps[:4]), list(maps[4:]))
        return pose_loss(
            split,
            keypoints.double(),
            mask,
            Loss(pull=0.3, push=0.4),
            input_size=8,
            foreground=foreground,
        ).total

    assert torch.autograd.gradcheck(total, inputs, fast_mode=False)


@pytest.mark.parametrize("P", [0, 1])
@pytest.mark.parametrize("foreground", [0.0, 10.0])
@pytest.mark.parametrize("labelled", [True, False])
def test_nobody_and_one_person_give_finite_losses_and_gradients(P, foreground, labelled):
    maps, keypoints = random_scene(P)
    keypoints[..., 2] = 2.0 if labelled else 0.0
    inputs = [m.requires_grad_() for m in (*maps.heatmaps, *maps.tags)]
    loss = pose_loss(maps, keypoints, None, PAPER, input_size=32, foreground=foreground)
    loss.total.backward()
    parts = [loss.total, *loss.heatmaps, loss.flat, loss.pull, loss.push]
    assert all(part.isfinite() for part in parts)
    assert all(m.grad is not None and m.grad.isfinite().all() for m in inputs)
    assert loss.push == 0
    if P == 0 or not labelled:
        assert loss.flat == 0
        assert loss.pull == 0
        plain = [h.detach().square().mean() for h in maps.heatmaps]
        torch.testing.assert_close(loss.heatmaps, plain)


def test_a_image_without_people_counts_in_the_batch_mean():
    tags = torch.zeros(1, 2, 4, 4)
    tags[0, 0, 0, 0], tags[0, 1, 0, 1] = 1.0, 3.0
    keypoints = people([(0, 0, 2), (7.9, 3.9, 1)])
    alone = grouping_loss(tags, keypoints)
    padded = torch.cat([keypoints, torch.zeros_like(keypoints)])
    both = grouping_loss(torch.cat([tags, tags]), padded)
    assert both.pull.item() == pytest.approx(alone.pull.item() / 2)


def test_rows_of_zeros_are_nobody():
    maps, keypoints = random_scene(2)
    padded = torch.cat([keypoints, torch.zeros(2, 3, 2, 3)], dim=1)
    expected = pose_loss(maps, keypoints, None, PAPER, input_size=32)
    got = pose_loss(maps, padded, None, PAPER, input_size=32)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_maps_are_computed_in_float32(dtype):
    maps, keypoints = random_scene(dtype=dtype)
    rounded = PoseMaps([h.float() for h in maps.heatmaps], [t.float() for t in maps.tags])
    inputs = [m.requires_grad_() for m in (*maps.heatmaps, *maps.tags)]
    for foreground in (0.0, 4.0):
        loss = pose_loss(maps, keypoints, None, PAPER, input_size=32, foreground=foreground)
        expected = pose_loss(rounded, keypoints, None, PAPER, input_size=32, foreground=foreground)
        assert loss.total.dtype == torch.float32
        torch.testing.assert_close(loss, expected)
        gradients = torch.autograd.grad(loss.total, inputs)
        assert all(g.dtype == dtype and g.isfinite().all() and g.any() for g in gradients)


def shrunk(mask: Tensor, size: int) -> Tensor:
    """A map pixel counts if more than half of its input pixels do, one by one."""
    B, S, _ = mask.shape
    s = S // size
    out = torch.zeros(B, size, size)
    for b in range(B):
        for y in range(size):
            for x in range(size):
                cell = mask[b, y * s : (y + 1) * s, x * s : (x + 1) * s]
                out[b, y, x] = float(cell.float().mean() > 0.5)
    return out


TARGETS = [
    PAPER,
    Loss(sigma=2, tau=(3, 2.5), units="heatmap", target="disc"),
    Loss(sigma=2, tau=(3, 2.5), units="heatmap", target="square"),
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("foreground", [0.0, 10.0])
def test_heatmap_part_is_the_masked_mean_to_the_rendered_target(target, masked, foreground):
    maps, keypoints = random_scene()
    mask = None
    if masked:
        mask = (torch.rand(2, 32, 32, generator=torch.Generator().manual_seed(1)) > 0.4).byte()
        mask[0, 3:20, 5:30] = 0
    loss = pose_loss(maps, keypoints, mask, target, input_size=32, foreground=foreground)
    for k, (heatmap, got) in enumerate(zip(maps.heatmaps, loss.heatmaps, strict=True)):
        size = heatmap.shape[-1]
        tau = target.tau[k // 2]  # coarse, coarse, fine, fine
        drawn = reference.render_heatmaps(
            keypoints,
            (size, size),
            32 / size,
            target.sigma,
            tau,
            units=target.units,
            target=target.target,
        )
        weight = 1 + foreground * drawn
        if mask is not None:
            weight = weight * shrunk(mask, size)[:, None]
        torch.testing.assert_close(got, (weight * (heatmap - drawn) ** 2).mean())
    torch.testing.assert_close(loss.flat, (weight * drawn**2).mean())


def test_taus_belong_to_stages():
    """A perfect coarse and fine map by the paper's taus has no loss; exchanged ones do."""
    _, keypoints = random_scene()
    keypoints[..., 2] = 2

    def drawn(size: int, tau: float) -> Tensor:
        return reference.render_heatmaps(keypoints, (size, size), 32 / size, 7.0, tau)

    tags = [torch.zeros(2, 2, 8, 8)] * 2
    heatmaps = [drawn(8, 10), drawn(16, 10), drawn(8, 7), drawn(16, 7)]
    perfect = pose_loss(PoseMaps(heatmaps, tags), keypoints, None, PAPER, input_size=32)
    assert max(perfect.heatmaps) < 1e-12
    exchanged = pose_loss(
        PoseMaps(heatmaps[2:] + heatmaps[:2], tags), keypoints, None, PAPER, input_size=32
    )
    assert min(exchanged.heatmaps) > 1e-4
    # Networks of one stage take the fine tau.
    for one_stage in (heatmaps[2:], heatmaps[2:3]):
        single = pose_loss(PoseMaps(one_stage, tags[:1]), keypoints, None, PAPER, input_size=32)
        assert max(single.heatmaps) < 1e-12
        assert len(single.heatmaps) == len(one_stage)


def test_total_adds_the_parts_with_their_factors():
    maps, keypoints = random_scene()
    loss = pose_loss(maps, keypoints, None, Loss(pull=0.5, push=0.25), input_size=32)
    grouping = [grouping_loss(t, keypoints) for t in maps.tags]
    assert isinstance(grouping[0], GroupingLoss)
    torch.testing.assert_close(loss.pull, grouping[0].pull + grouping[1].pull)
    torch.testing.assert_close(loss.push, grouping[0].push + grouping[1].push)
    expected = sum(loss.heatmaps) + 0.5 * loss.pull + 0.25 * loss.push
    torch.testing.assert_close(loss.total, expected)
    published = pose_loss(maps, keypoints, None, PAPER, input_size=32)
    expected = sum(loss.heatmaps) + 1e-3 * loss.pull + 1e-3 * loss.push
    torch.testing.assert_close(published.total, expected)


def test_targets_are_written_only_where_they_weigh_pixels(monkeypatch):
    def write(*_, **__):
        raise AssertionError("written")

    monkeypatch.setattr(ops, "render_heatmaps", write)
    maps, keypoints = random_scene()
    for heatmap in maps.heatmaps:
        heatmap.requires_grad_()
    pose_loss(maps, keypoints, None, PAPER, input_size=32).total.backward()
    with pytest.raises(AssertionError, match="written"):
        pose_loss(maps, keypoints, None, PAPER, input_size=32, foreground=1.0)


def test_masked_pixels_have_no_gradient():
    maps, keypoints = random_scene()
    mask = torch.ones(2, 32, 32, dtype=torch.uint8)
    mask[1, :, 16:] = 0
    for foreground in (0.0, 10.0):
        heatmaps = [h.clone().requires_grad_() for h in maps.heatmaps]
        loss = pose_loss(
            PoseMaps(heatmaps, maps.tags),
            keypoints,
            mask,
            PAPER,
            input_size=32,
            foreground=foreground,
        )
        loss.total.backward()
        for h in heatmaps:
            middle = h.shape[-1] // 2
            assert not h.grad[1, :, :, middle:].any()
            assert h.grad[1, :, :, :middle].all()
            assert h.grad[0].all()


def test_a_network_learns_one_batch():
    torch.manual_seed(0)
    model = build_model("doublehighernet", 2, width=8, modules=(1, 1, 1), blocks=1, stem=8)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    image = torch.randn(2, 3, 64, 64)
    keypoints = torch.tensor([[[[20.0, 30, 2], [40, 30, 2]]], [[[50, 20, 2], [10, 40, 2]]]])

    def step():
        loss = pose_loss(model(image), keypoints, None, PAPER, input_size=64)
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        return loss

    first = step()
    for _ in range(30):
        last = step()
    assert last.total < first.total / 2
    assert last.heatmaps[-1] < last.flat / 2  # well below the map of zeros
