"""Where to compute, and in which precision."""

import torch

from dhn.errors import DhnError


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
