"""A depthwise convolution that trains fast on CPUs."""

import torch
from torch import Tensor, nn


class DepthwiseConv2d(nn.Conv2d):
    """One k x k filter for each channel.

    On a CPU, oneDNN computes the gradient of such a filter in bfloat16 3 to 8 times more slowly
    than in float32 (measured with PyTorch 2.13 on an Intel Xeon with AMX). While the network
    trains under autocast on a CPU, this layer therefore computes in float32; its output has the
    type of its input.

    Args:
        inputs: channels.
        outputs: the same number.
        kernel: k, odd; the maps keep their size where `stride` is 1.
        stride: 1 or 2.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, kernel // 2, groups=inputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and x.device.type == "cpu" and torch.is_autocast_enabled("cpu")):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float()).to(x.dtype)
