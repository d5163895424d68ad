"""How `PoseInference` is run as fast as the device allows: fused by hand, or compiled."""

import copy
import os
from collections.abc import Callable

import torch
from torch import Tensor

from dhn.base.cache import cache_folder
from dhn.base.errors import DhnError
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
        compile: by torch.compile (needs a C++ compiler, on CUDA Triton): half a minute for the
            first image and again for the first of another size. What it wrote is kept in the
            cache folder. On CPUs a tenth faster than the fusion by hand.
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
    from torch._inductor import config

    # Inductor fuses plain PyTorch's aggregation with the network's end, but not our operator.
    graph = inference.on(inference.network, native=False)
    compiled = torch.compile(graph)
    # Weights become constants, laid out once as oneDNN wants them, and convolutions take in what
    # follows. Among the options of torch.compile `freezing` is heard too late to do anything.
    freezing = device.type == "cpu"

    def run(images: Tensor) -> Maps:
        try:
            with config.patch(freezing=freezing):
                return compiled(images)
        except TorchDynamoException as error:
            reason = str(error).strip().splitlines()[0]
            raise DhnError(f"--compile: {reason}; leave --compile out") from error

    return run
