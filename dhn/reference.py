"""Each operator of dhn.ops in plain PyTorch, slow and obvious; tests and bench compare with it.

Same signatures. Computes in the dtype it is given, float64 included.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dhn.ops import Form, Units, kernel_units


def render_heatmaps(
    keypoints: Tensor,
    size: tuple[int, int],
    stride: float,
    sigma: float,
    tau: float,
    units: Units = "input",
    form: Form = "disc",
) -> Tensor:
    sigma, tau = (kernel_units(value, stride, units, form) for value in (sigma, tau))
    h, w = size
    x, y, v = keypoints[:, :, :, None, None].unbind(-1)  # [B, P, J, 1, 1]
    rows = torch.arange(h, dtype=keypoints.dtype, device=keypoints.device)[:, None]
    columns = torch.arange(w, dtype=keypoints.dtype, device=keypoints.device)
    drawn = (v > 0) & x.isfinite() & y.isfinite()
    if form == "disc":
        dx, dy = (columns + 0.5) * stride - x, (rows + 0.5) * stride - y
        drawn = drawn & (dx**2 + dy**2 <= tau**2)
        values = torch.exp(-(dx**2 + dy**2) / sigma**2)  # [B, P, J, h, w]
    else:
        u, v = (x / stride).trunc(), (y / stride).trunc()
        dx, dy, reach = columns - u, rows - v, 3 * sigma + 1
        drawn = drawn & (u >= 0) & (v >= 0) & (u < w) & (v < h)
        drawn = drawn & (dx.abs() <= reach) & (dy.abs() <= reach)
        values = torch.exp(-(dx**2 + dy**2) / (2 * sigma**2))
    nobody = values.new_zeros((values.shape[0], 1, values.shape[2], h, w))
    return torch.cat([nobody, torch.where(drawn, values, 0)], dim=1).amax(1)


def render_heatmap_pyramid(
    keypoints: Tensor,
    sizes: Sequence[tuple[int, int]],
    strides: Sequence[float],
    sigmas: Sequence[float],
    taus: Sequence[float],
    units: Units = "input",
    form: Form = "disc",
) -> list[Tensor]:
    each = zip(sizes, strides, sigmas, taus, strict=True)
    return [render_heatmaps(keypoints, *one, units, form) for one in each]


def heatmap_mse(
    prediction: Tensor,
    keypoints: Tensor,
    mask: Tensor | None,
    stride: float,
    sigma: float,
    tau: float,
    units: Units = "input",
    form: Form = "disc",
) -> Tensor:
    h, w = prediction.shape[-2:]
    dtype = torch.float64 if prediction.dtype == torch.float64 else torch.float32
    target = render_heatmaps(keypoints.to(dtype), (h, w), stride, sigma, tau, units, form)
    error = (prediction.to(dtype) - target) ** 2
    if mask is not None:
        error = error * mask[:, None].to(dtype)
    return error.mean(dim=(1, 2, 3))
