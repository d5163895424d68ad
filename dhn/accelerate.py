"""How `PoseInference` is run as fast as the device allows: fused by hand, or compiled."""

import copy
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dhn.download import cache_folder
from dhn.errors import DhnError
from dhn.inference import PoseInference
from dhn.model.fused import fused

Maps = tuple[Tensor, Tensor]


def accelerated(
    inference: PoseInference, device: torch.device, *, compile: bool = False
) -> Callable[[Tensor], Maps]:
    """The same maps in less time; `inference`, whose network is folded, is left as it is.

    Args:
        inference: lies on `device`.
        device: where it runs.
        compile: by torch.compile (needs a C++ compiler, on CUDA Triton): a minute for the first
            picture and again for the first of another size. What it wrote is kept in the cache
            folder. On CPUs the fusion by hand is as fast.
    """
    if compile:
        return _compiled(inference, device)
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        network = fused(copy.deepcopy(inference.network))
        return inference.on(network)
    return inference


def _compiled(inference: PoseInference, device: torch.device) -> Callable[[Tensor], Maps]:
    # Before dynamo is imported, which settles on a folder in /tmp.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "compiled"))
    from torch._dynamo.exc import TorchDynamoException

    # Weights become constants, laid out once as the convolutions want them.
    options: dict[str, Any] = {"freezing": device.type == "cpu"}
    # Inductor fuses plain PyTorch's aggregation with the network's end, but not our operator.
    graph = inference.on(inference.network, native=False)
    compiled = torch.compile(graph, options=options)

    def run(images: Tensor) -> Maps:
        try:
            return compiled(images)
        except TorchDynamoException as error:
            reason = str(error).strip().splitlines()[0]
            raise DhnError(f"--compile: {reason}; leave --compile out") from error

    return run
