"""heatmap_mse where joints are unknown, and with a mask for each joint."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dhn import ops
from dhn.ops import reference

TARGETS = [("disc", 7.0, 10.0, "input"), ("square", 2.0, 0.0, "heatmap")]


def scene(B, P, J, h, w, stride, seed=0, dtype=torch.float32):
    """Predictions, people of whom a third of the joints are unknown, and their boxes."""
    g = torch.Generator().manual_seed(seed)
    extent = torch.tensor([w, h]) * stride
    keypoints = torch.zeros(B, P, J, 3, dtype=dtype)
    keypoints[..., :2] = (torch.rand(B, P, J, 2, generator=g) * 1.4 - 0.2) * extent
    keypoints[..., 2] = torch.randint(-1, 2, (B, P, J), generator=g)
    corners = (torch.rand(B, P, 2, 2, generator=g) * 1.4 - 0.2) * extent
    boxes = torch.cat([corners.amin(2), corners.amax(2)], -1).to(dtype)
    prediction = torch.rand(B, J, h, w, generator=g, dtype=dtype)
    return prediction, keypoints, boxes


def gradient_of(mse, prediction, *arguments):
    prediction = prediction.clone().requires_grad_()
    loss = mse(prediction, *arguments)
    weights = torch.arange(1.0, len(loss) + 1, dtype=loss.dtype, device=loss.device)
    (loss * weights).sum().backward()
    return loss.detach().cpu(), prediction.grad.cpu()


@pytest.mark.parametrize(("target", "sigma", "tau", "units"), TARGETS)
@pytest.mark.parametrize("P", [0, 1, 5])
@pytest.mark.parametrize("masks", [None, "one", "each"])
@pytest.mark.parametrize("boxed", [False, True])
def test_loss_and_gradient_equal_reference(device, target, sigma, tau, units, P, masks, boxed):
    prediction, keypoints, boxes = scene(3, P, 4, 30, 37, 4)
    shape = {"one": (3, 1, 30, 37), "each": (3, 4, 30, 37)}
    g = torch.Generator().manual_seed(1)
    mask = torch.rand(shape[masks], generator=g) > 0.3 if masks else None
    args = (4, sigma, tau, units, target)
    moved = [None if x is None else x.to(device) for x in (prediction, keypoints, mask)]
    ours = gradient_of(ops.heatmap_mse, *moved, *args, boxes.to(device) if boxed else None)
    exact = (prediction.double(), keypoints.double(), mask)
    theirs = gradient_of(reference.heatmap_mse, *exact, *args, boxes.double() if boxed else None)
    for got, expected, tolerance in zip(ours, theirs, (1e-6, 1e-9), strict=True):
        torch.testing.assert_close(got.double(), expected, rtol=0, atol=tolerance)


@given(
    seed=st.integers(0, 10**6),
    people=st.integers(0, 5),
    size=st.tuples(st.integers(1, 12), st.integers(1, 40)),
    stride=st.sampled_from([1.0, 2.0, 4.0]),
    whole=st.booleans(),
    target=st.sampled_from(TARGETS),
)
@settings(max_examples=150, deadline=None)
def test_any_boxes_equal_reference(seed, people, size, stride, whole, target):
    """Also boxes whose ends lie on pixel centres exactly, and boxes turned inside out."""
    prediction, keypoints, boxes = scene(2, people, 2, *size, stride, seed, torch.float64)
    if whole:
        boxes = (boxes / stride).round() * stride + stride / 2
        boxes[:, ::2] = boxes[:, ::2].flip(-1)
    kind, sigma, tau, units = target
    args = (keypoints, None, stride, sigma, tau, units, kind, boxes)
    ours, theirs = (gradient_of(one.heatmap_mse, prediction, *args) for one in (ops, reference))
    for got, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_what_counts_at_single_pixels(device):
    """Joint 0 of the first person is unknown inside x 4..12; the second person's is drawn."""
    keypoints = torch.tensor([[[[0.0, 0, -1]], [[10.0, 2, 2]]]], device=device)
    boxes = torch.tensor([[[4.0, 0, 12, 4], [0, 0, 100, 100]]], device=device)
    prediction = torch.zeros(1, 1, 1, 8, device=device, requires_grad=True)
    ops.heatmap_mse(prediction + 1, keypoints, None, 4, 1.5, 3, boxes=boxes).sum().backward()
    # Pixel centres at 2, 6, 10, 14, ...: 6 is unknown, 10 is in the box too, but drawn.
    counts = (prediction.grad[0, 0, 0] != 0).tolist()
    assert counts == [True, False, False, True, True, True, True, True]  # drawn: 1 - 1 = 0
    prediction.grad = None
    ops.heatmap_mse(prediction + 2, keypoints, None, 4, 1.5, 3, boxes=boxes).sum().backward()
    counts = (prediction.grad[0, 0, 0] != 0).tolist()
    assert counts == [True, False, True, True, True, True, True, True]


@pytest.mark.parametrize("end", [float("nan"), float("inf"), -float("inf")])
def test_broken_boxes_do_no_harm(device, end):
    prediction, keypoints, boxes = (x.to(device) for x in scene(1, 3, 2, 9, 11, 4))
    boxes[0, :, 2] = end
    loss = ops.heatmap_mse(prediction, keypoints, None, 4, 7, 10, boxes=boxes)
    expected = reference.heatmap_mse(prediction, keypoints, None, 4, 7, 10, boxes=boxes)
    torch.testing.assert_close(loss, expected)


def test_gradcheck():
    prediction, keypoints, boxes = scene(2, 3, 2, 6, 7, 4, dtype=torch.float64)
    mask = torch.rand(2, 2, 6, 7, dtype=torch.float64)

    def loss(prediction):
        return ops.heatmap_mse(prediction, keypoints, mask, 4, 7, 10, boxes=boxes)

    assert torch.autograd.gradcheck(loss, (prediction.requires_grad_(),))


@pytest.mark.parametrize("name", ["heatmap_mse", "heatmap_mse_backward"])
def test_opcheck(device, name):
    prediction, keypoints, boxes = (x.to(device) for x in scene(2, 3, 3, 8, 9, 4))
    mask = torch.ones(2, 3, 8, 9, device=device)
    call = (keypoints, mask, 4.0, 7.0, 10.0, "disc", boxes)
    if name == "heatmap_mse":
        call = (prediction.requires_grad_(), *call)
    else:
        call = (torch.ones(2, device=device), prediction, *call)
    torch.library.opcheck(getattr(torch.ops.dhn, name).default, call)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_strides(device, dtype):
    prediction, keypoints, boxes = scene(2, 3, 4, 15, 16, 4)
    prediction = prediction.to(dtype).to(memory_format=torch.channels_last)
    boxes = boxes.repeat(1, 1, 2)[..., ::2]  # not contiguous
    moved = (prediction.to(device), keypoints.to(device), None, 4, 7, 10, "input", "disc")
    loss, gradient = gradient_of(ops.heatmap_mse, *moved, boxes.to(device))
    expected = reference.heatmap_mse(prediction, keypoints, None, 4, 7, 10, boxes=boxes)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-6)
    assert gradient.dtype == dtype


@pytest.mark.parametrize(
    ("mask", "boxes", "complaint"),
    [
        ((1, 2, 8, 8), None, "mask"),
        ((1, 1, 3, 8, 8), None, "mask"),
        ((2, 3, 8, 8), None, "mask"),
        (None, (1, 2, 3), "boxes"),
        (None, (1, 3, 4), "boxes"),
        (None, (2, 4), "boxes"),
    ],
)
def test_malformed_input(device, mask, boxes, complaint):
    keypoints = torch.zeros(1, 2, 3, 3, device=device)
    prediction = torch.zeros(1, 3, 8, 8, device=device)
    mask, boxes = (None if s is None else torch.zeros(s, device=device) for s in (mask, boxes))
    with pytest.raises(RuntimeError, match=complaint):
        ops.heatmap_mse(prediction, keypoints, mask, 4, 7, 10, boxes=boxes)
