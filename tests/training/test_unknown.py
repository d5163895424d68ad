"""The loss where joints are unknown."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dhn.model import PoseMaps
from dhn.ops import reference
from dhn.training.loss import pose_loss, unknown_pixels
from dhn.training.settings import Loss

PAPERS = Loss()


def slowly(keypoints, boxes, size, stride):
    """Pixel by pixel, person by person."""
    B, P, J, _ = keypoints.shape
    out = torch.zeros(B, J, *size, dtype=torch.bool)
    for b in range(B):
        for p in range(P):
            x0, y0, x1, y1 = boxes[b, p].tolist()
            for j in range(J):
                for v in range(size[0]):
                    for u in range(size[1]):
                        x, y = (u + 0.5) * stride, (v + 0.5) * stride
                        inside = x0 <= x <= x1 and y0 <= y <= y1
                        if inside and keypoints[b, p, j, 2] < 0:
                            out[b, j, v, u] = True
    return out


def scene(seed, B=2, P=3, J=2, size=32):
    g = torch.Generator().manual_seed(seed)
    keypoints = torch.rand(B, P, J, 3, generator=g) * size
    keypoints[..., 2] = torch.randint(-1, 3, (B, P, J), generator=g)
    corners = torch.rand(B, P, 2, 2, generator=g) * size * 1.5 - size / 4
    boxes = torch.cat([corners.amin(2), corners.amax(2)], -1)
    heatmaps = [torch.rand(B, J, s, s, generator=g) * 2 - 0.5 for s in (size // 4, size // 2) * 2]
    tags = [torch.rand(B, J, size // 4, size // 4, generator=g) for _ in range(2)]
    return PoseMaps(heatmaps, tags), keypoints, boxes


@given(
    seed=st.integers(0, 10**6),
    people=st.integers(0, 4),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    stride=st.sampled_from([2.0, 4.0, 3.7]),
)
@settings(max_examples=60, deadline=None)
def test_unknown_pixels_are_those_inside_the_boxes(seed, people, size, stride):
    _, keypoints, boxes = scene(seed, P=people)
    got = unknown_pixels(keypoints, boxes, size, stride)
    assert torch.equal(got, slowly(keypoints, boxes, size, stride))


@pytest.mark.parametrize("foreground", [0.0, 10.0])
@pytest.mark.parametrize("masked", [False, True])
def test_the_loss_leaves_unknown_pixels_out(foreground, masked):
    maps, keypoints, boxes = scene(3)
    mask = None
    if masked:
        mask = torch.ones(2, 32, 32, dtype=torch.uint8)
        mask[:, 8:16] = 0
    loss = pose_loss(maps, keypoints, mask, PAPERS, boxes, input_size=32, foreground=foreground)
    for k, (heatmap, got) in enumerate(zip(maps.heatmaps, loss.heatmaps, strict=True)):
        size = heatmap.shape[-1]
        stride = 32 / size
        drawn = reference.render_heatmaps(keypoints, (size, size), stride, 7.0, (10.0, 7.0)[k // 2])
        weight = 1 + foreground * drawn
        weight[slowly(keypoints, boxes, (size, size), stride) & (drawn == 0)] = 0
        if masked:
            weight[:, :, int(8 / stride) : int(16 / stride)] = 0
        torch.testing.assert_close(got, (weight * (heatmap - drawn) ** 2).mean())
    torch.testing.assert_close(loss.flat, (weight * drawn**2).mean())


def test_somebody_elses_labelled_joint_counts_inside_the_box():
    """Two people in one place; of one the joint is unknown, of the other it is labelled."""
    keypoints = torch.tensor([[[[0.0, 0, -1]], [[16.0, 16, 2]]]])
    boxes = torch.tensor([[[0.0, 0, 32, 32], [0, 0, 0, 0]]])
    heatmaps = [torch.zeros(1, 1, s, s, requires_grad=True) for s in (8, 16, 8, 16)]
    tags = [torch.zeros(1, 1, 8, 8)] * 2
    pose_loss(
        PoseMaps(heatmaps, tags), keypoints, None, PAPERS, boxes, input_size=32
    ).total.backward()
    for heatmap, tau in zip(heatmaps, (10, 10, 7, 7), strict=True):
        size = heatmap.shape[-1]
        drawn = reference.render_heatmaps(keypoints, (size, size), 32 / size, 7.0, tau)
        assert torch.equal(heatmap.grad != 0, drawn > 0)


def test_only_that_joint_and_only_that_image():
    maps, _, _ = scene(0, P=1)
    keypoints = torch.tensor([[[[5.0, 5, 2], [0, 0, -1]]], [[[5.0, 5, 2], [0, 0, 0]]]])
    boxes = torch.tensor([[[0.0, 0, 16, 32]], [[0.0, 0, 16, 32]]])
    heatmaps = [h.clone().requires_grad_() for h in maps.heatmaps]
    pose_loss(
        PoseMaps(heatmaps, maps.tags), keypoints, None, PAPERS, boxes, input_size=32
    ).total.backward()
    for heatmap in heatmaps:
        middle = heatmap.shape[-1] // 2
        assert heatmap.grad[0, 0].all()
        assert not heatmap.grad[0, 1, :, :middle].any()
        assert heatmap.grad[0, 1, :, middle:].all()
        assert heatmap.grad[1].all()


def test_boxes_of_people_who_are_known_change_nothing():
    maps, keypoints, boxes = scene(5)
    keypoints[..., 2].clamp_(min=0)
    for foreground in (0.0, 5.0):
        plain = pose_loss(maps, keypoints, None, PAPERS, input_size=32, foreground=foreground)
        boxed = pose_loss(
            maps, keypoints, None, PAPERS, boxes, input_size=32, foreground=foreground
        )
        torch.testing.assert_close(plain.total, boxed.total)


def test_an_unknown_joints_tag_counts_nowhere():
    maps, keypoints, boxes = scene(9)
    absent = keypoints.clone()
    absent[..., 2].clamp_(min=0)
    ours = pose_loss(maps, keypoints, None, PAPERS, boxes, input_size=32)
    theirs = pose_loss(maps, absent, None, PAPERS, input_size=32)
    assert (keypoints[..., 2] < 0).any()
    assert torch.equal(ours.pull, theirs.pull)
    assert torch.equal(ours.push, theirs.push)
