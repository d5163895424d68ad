"""Where to compute, and in which precision."""

from typing import Literal

import torch

from dhn.base.errors import DhnError

Precision = Literal["auto", "float32", "bfloat16"]


def select_device(name: str = "auto") -> torch.device:
    """`auto` takes CUDA, else MPS, else the CPU.

    Raises:
        DhnError: no such device, or it is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DhnError(f"--device {name}: must be auto, cpu, cuda, cuda:N or mps") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DhnError(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DhnError(f"--device {name}: MPS is not available here")
    if device.type not in ("cpu", "cuda", "mps"):
        raise DhnError(f"--device {name}: must be auto, cpu, cuda, cuda:N or mps")
    return device


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the hardware itself multiplies bfloat16 (elsewhere it would be slower)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # Private names, so their absence means no; AVX512-BF16 or AMX.
        checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        return any(getattr(torch.cpu, check, lambda: False)() for check in checks)
    return False


def inference_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """What a network computes in: `auto` takes bfloat16 where the hardware multiplies it."""
    if precision == "auto":
        precision = "bfloat16" if multiplies_bfloat16(device) else "float32"
    return torch.bfloat16 if precision == "bfloat16" else torch.float32
