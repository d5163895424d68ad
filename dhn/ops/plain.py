"""Building blocks in plain PyTorch, shared by the references, the exported graph and the loss."""

import torch
from torch import Tensor


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [..., h, w] read at [..., H, W], bilinearly with align_corners=False.

    The result is that of torch's interpolate up to rounding; the order of operations is that of
    csrc/common/bilinear.h, so that ties between mirrored pixels are ties here, too.
    """
    h, w = maps.shape[-2:]
    left, right, along_x = taps(w, size[1], maps)
    top, bottom, along_y = taps(h, size[0], maps)
    lines = (1 - along_x) * maps[..., left] + along_x * maps[..., right]
    along_y = along_y[:, None]
    return (1 - along_y) * lines[..., top, :] + along_y * lines[..., bottom, :]


def taps(in_size: int, out_size: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The two pixels that each output pixel reads, and the weight of the second one.

    Three tensors [out_size] on the device of `like`: int64, int64, and its dtype.
    """
    out = torch.arange(out_size, device=like.device)
    numerator = ((2 * out + 1) * in_size - out_size).clamp(min=0)
    low = (numerator // (2 * out_size)).clamp(max=in_size - 1)
    weight = (numerator - low * 2 * out_size).to(like.dtype) / (2 * out_size)
    weight = torch.where(low == in_size - 1, 0, weight)
    return low, (low + 1).clamp(max=in_size - 1), weight


def quarter_positions(maps: Tensor, indices: Tensor) -> Tensor:
    """Positions of the pixels `indices` [B, J, K] (y * W + x) of maps [B, J, H, W].

    A pixel's centre is moved by a quarter pixel towards the greater neighbour in x and in y
    (equal neighbours: -.25).

    Returns:
        [B, J, K, 2], x and y in pixels, the dtype of `maps`.
    """
    H, W = maps.shape[-2:]
    y = indices // W
    x = indices - y * W  # no %: ONNX has none by a size that is open

    def offset(ahead: Tensor, behind: Tensor) -> Tensor:
        ahead, behind = (maps.flatten(2).gather(2, i) for i in (ahead, behind))
        return torch.where(ahead > behind, 0.25, -0.25).to(maps.dtype)

    dx = offset(y * W + (x + 1).clamp(max=W - 1), y * W + (x - 1).clamp(min=0))
    dy = offset((y + 1).clamp(max=H - 1) * W + x, (y - 1).clamp(min=0) * W + x)
    return torch.stack([x + 0.5 + dx, y + 0.5 + dy], dim=-1)


def widen(maps: Tensor) -> Tensor:
    """Leaves float64 as it is and converts everything else to float32."""
    return maps if maps.dtype == torch.float64 else maps.float()
