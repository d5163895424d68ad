"""The operators of training: heatmap targets and the loss that never draws them."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from dhn.base import native
from dhn.ops.devices import check_one_device

native.load()

Units = Literal["input", "heatmap"]
Target = Literal["disc", "square"]


def render_heatmaps(
    keypoints: Tensor,
    size: tuple[int, int],
    stride: float,
    sigma: float,
    tau: float,
    units: Units = "input",
    target: Target = "disc",
) -> Tensor:
    """Draws the heatmap that a network is trained towards: the maximum over people, 0 elsewhere.

    Args:
        keypoints: [B, P, J, 3] float32 or float64: x, y in input pixels, and v; joints with
            v > 0 are visible and drawn. P may be 0.
        size: (h, w) of the map.
        stride: input pixels per map pixel.
        sigma, tau: width and cut of the Gaussian, in `units`.
        units: whether distances, sigma and tau are in input pixels or in heatmap pixels.
        target: `disc`: exp(-d^2 / sigma^2) where d <= tau; a joint outside the map still draws the
            part of its disc that falls inside. `square`: HigherHRNet's own target,
            exp(-d^2 / 2 sigma^2) on the square +-(3 sigma + 1) map pixels around the centre
            truncated to a whole map pixel; `tau` is not used, and a joint whose centre lies outside
            the map is dropped.

    Returns:
        [B, J, h, w], the dtype of `keypoints`.

    Raises:
        ValueError: unknown `units` or `target`.
    """
    return render_heatmap_pyramid(keypoints, [size], [stride], [sigma], [tau], units, target)[0]


def render_heatmap_pyramid(
    keypoints: Tensor,
    sizes: Sequence[tuple[int, int]],
    strides: Sequence[float],
    sigmas: Sequence[float],
    taus: Sequence[float],
    units: Units = "input",
    target: Target = "disc",
) -> list[Tensor]:
    """`render_heatmaps` for several maps at once: sizes, strides, sigmas and taus of each."""
    sigmas = [kernel_units(s, k, units, target) for s, k in zip(sigmas, strides, strict=True)]
    taus = [kernel_units(t, k, units, target) for t, k in zip(taus, strides, strict=True)]
    heights, widths = [h for h, _ in sizes], [w for _, w in sizes]
    return torch.ops.dhn.render_heatmaps(
        keypoints, heights, widths, list(map(float, strides)), sigmas, taus, target
    )


def heatmap_mse(
    prediction: Tensor,
    keypoints: Tensor,
    mask: Tensor | None,
    stride: float,
    sigma: float,
    tau: float,
    units: Units = "input",
    target: Target = "disc",
    boxes: Tensor | None = None,
) -> Tensor:
    """Masked mean squared error to `render_heatmaps(keypoints, ...)`, which is never written.

    Only `prediction` gets a gradient.

    Args:
        prediction: [B, J, h, w], float32, float64, bfloat16 or float16.
        keypoints, stride, sigma, tau, units, target: as for `render_heatmaps`.
        mask: [B, h, w] or [B, 1 or J, h, w] weights (bool: 1 counts), or None for all ones.
        boxes: [B, P, 4], x0, y0, x1, y1 in input pixels: where joints of a person may be that have
            v < 0, which says that nobody knows whether they are there. A pixel of such a joint's
            map whose centre lies in the box does not count, unless the target there is above 0.
            None: no joint is unknown.

    Returns:
        [B] float32 (float64 for float64 predictions): per image, the sum over joints and pixels of
        mask * (prediction - target)^2, divided by J h w. Masked pixels count as 0.
    """
    sigma, tau = (kernel_units(value, stride, units, target) for value in (sigma, tau))
    return torch.ops.dhn.heatmap_mse(
        prediction, keypoints, mask, float(stride), sigma, tau, target, boxes
    )


def kernel_units(length: float, stride: float, units: Units, target: Target) -> float:
    """Converts a length to what the operators take: input pixels (disc) or map pixels (square)."""
    if units not in ("input", "heatmap"):
        raise ValueError(f"units must be 'input' or 'heatmap', got {units!r}")
    if target not in ("disc", "square"):
        raise ValueError(f"target must be 'disc' or 'square', got {target!r}")
    if target == "disc":
        return float(length * stride if units == "heatmap" else length)
    return float(length / stride if units == "input" else length)


@torch.library.register_fake("dhn::render_heatmaps")
def _(keypoints, heights, widths, strides, sigmas, taus, target):
    B, _, J, _ = keypoints.shape
    dtype = torch.float64 if keypoints.dtype == torch.float64 else torch.float32
    return [
        keypoints.new_empty((B, J, h, w), dtype=dtype) for h, w in zip(heights, widths, strict=True)
    ]


@torch.library.register_fake("dhn::heatmap_mse")
def _(prediction, keypoints, mask, stride, sigma, tau, target, boxes=None):
    check_one_device(prediction=prediction, keypoints=keypoints, mask=mask, boxes=boxes)
    dtype = torch.float64 if prediction.dtype == torch.float64 else torch.float32
    return prediction.new_empty(prediction.shape[:1], dtype=dtype)


@torch.library.register_fake("dhn::heatmap_mse_backward")
def _(grad, prediction, keypoints, mask, stride, sigma, tau, target, boxes=None):
    check_one_device(prediction=prediction, grad=grad, keypoints=keypoints, mask=mask, boxes=boxes)
    return prediction.new_empty(prediction.shape)


def _save_for_backward(ctx, inputs, output):
    prediction, keypoints, mask, *ctx.drawing, boxes = inputs
    ctx.save_for_backward(prediction, keypoints, mask, boxes)


def _heatmap_mse_backward(ctx, grad):
    prediction, keypoints, mask, boxes = ctx.saved_tensors
    of_prediction = torch.ops.dhn.heatmap_mse_backward(
        grad, prediction, keypoints, mask, *ctx.drawing, boxes
    )
    return of_prediction, None, None, None, None, None, None, None


torch.library.register_autograd(
    "dhn::heatmap_mse", _heatmap_mse_backward, setup_context=_save_for_backward
)
