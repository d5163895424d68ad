"""Steps of decode in plain PyTorch, which the reference and an exported graph share."""

import torch
from torch import Tensor


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """[..., h, w] -> [..., H, W], bilinear, align_corners=False.

    torch's interpolate to within rounding; the order of operations is that of common/bilinear.h,
    so that ties between mirrored pixels are ties here too.
    """
    h, w = maps.shape[-2:]
    left, right, along_x = taps(w, size[1], maps)
    top, bottom, along_y = taps(h, size[0], maps)
    lines = (1 - along_x) * maps[..., left] + along_x * maps[..., right]
    along_y = along_y[:, None]
    return (1 - along_y) * lines[..., top, :] + along_y * lines[..., bottom, :]


def taps(in_size: int, out_size: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each output pixel the two pixels it reads and the second one's weight, [out_size] each."""
    out = torch.arange(out_size, device=like.device)
    numerator = ((2 * out + 1) * in_size - out_size).clamp(min=0)
    low = (numerator // (2 * out_size)).clamp(max=in_size - 1)
    weight = (numerator - low * 2 * out_size).to(like.dtype) / (2 * out_size)
    weight = torch.where(low == in_size - 1, 0, weight)
    return low, (low + 1).clamp(max=in_size - 1), weight


def quarter_positions(maps: Tensor, indices: Tensor) -> Tensor:
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
    """float64 stays, everything else becomes float32."""
    return maps if maps.dtype == torch.float64 else maps.float()
