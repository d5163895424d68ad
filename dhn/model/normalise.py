"""From the bytes of an image to the numbers that every network here expects."""

import torch
from torch import Tensor, nn

# ImageNet's statistics of RGB in 0..1, which all HRNet weights expect.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class Normalise(nn.Module):
    """`normalise`, with its constants where the module is, so that no image waits for them."""

    scale: Tensor
    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        mean, std = torch.tensor(MEAN), torch.tensor(STD)
        self.register_buffer("scale", 1 / (255 * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        B, _, H, W = image.shape
        # In rows of 3W numbers, because broadcasting over a last dimension of 3 is far slower.
        rows = image.to(memory_format=torch.channels_last).permute(0, 2, 3, 1).reshape(B, H, 3 * W)
        rows = rows.float()
        torch.addcmul(self.shift.repeat(W), rows, self.scale.repeat(W), out=rows)
        return rows.reshape(B, H, W, 3).permute(0, 3, 1, 2)


def normalise(image: Tensor) -> Tensor:
    """Normalises images by ImageNet's mean and standard deviation.

    Args:
        image: uint8 [B, 3, H, W] in RGB.

    Returns:
        float32 [B, 3, H, W], channels last in memory.
    """
    return Normalise().to(image.device)(image)
