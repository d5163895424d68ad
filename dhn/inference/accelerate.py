"""Runs `PoseInference` as fast as the device allows: with fused convolutions, or compiled."""

import copy
import os
from collections.abc import Callable

import torch
from torch import Tensor

from dhn.base.cache import cache_folder
from dhn.base.errors import SettingError
from dhn.inference.aggregate import PoseInference
from dhn.model.fused import fused

Maps = tuple[Tensor, Tensor]


def accelerated(
    inference: PoseInference, device: torch.device, *, compile: bool = False
) -> Callable[[Tensor], Maps]:
    """The same maps in less time; `inference`, whose network is folded, is left as it is.

    Args:
        inference: lies on `device`.
        device: where it runs.
        compile: fuse by torch.compile, which needs a C++ compiler, and Triton on CUDA. It takes
            half a minute at the first image and again at the first of another size; what it
            wrote is kept in the cache folder. On CPUs this is a tenth faster than our own fusion.

    Raises:
        SettingError: when the result is called, torch.compile failed.
    """
    if compile:
        return _compiled(inference, device)
    if device.type == "cpu" and _onednn_computes(inference.dtype):
        network = fused(copy.deepcopy(inference.network))
        return inference.on(network)
    return inference


def _onednn_computes(dtype: torch.dtype) -> bool:
    """Whether oneDNN, which runs the fused convolutions, has them for this type and CPU."""
    if not torch.backends.mkldnn.is_available():
        return False
    # A CPU with AVX2 alone computes bfloat16 by PyTorch's own kernels: slowly, but it does.
    return dtype != torch.bfloat16 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _compiled(inference: PoseInference, device: torch.device) -> Callable[[Tensor], Maps]:
    # This must be set before dynamo is imported, which else settles on a folder in /tmp.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "compiled"))
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor import config

    # Inductor can fuse PyTorch's operators of the aggregation with the network, but not our own.
    graph = inference.on(inference.network, native=False)
    compiled = torch.compile(graph)
    # Freezing makes constants of the weights, laid out once as oneDNN wants them, and fuses what
    # follows a convolution into it. As an option of torch.compile it would come too late.
    freezing = device.type == "cpu"

    def run(images: Tensor) -> Maps:
        try:
            with config.patch(freezing=freezing):
                return compiled(images)
        except TorchDynamoException as error:
            reason = " ".join(str(error).strip().split("\n\n")[0].split())  # the first paragraph
            raise SettingError("compile", True, f"{reason}; leave it out") from error

    return run
