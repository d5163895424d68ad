"""Where to compute, and in which precision."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, Literal

import torch

from dhn.base.errors import SettingError

Precision = Literal["auto", "float32", "bfloat16"]

_CPU_FEATURES = {
    "AVX2": "_is_avx2_supported",
    "AVX512": "_is_avx512_supported",
    "AVX512-BF16": "_is_avx512_bf16_supported",
    "AMX": "_is_amx_tile_supported",
}
_turn = threading.RLock()  # of the threads that change settings of the whole process
_KNOWN = "must be auto, cpu, cuda, cuda:N or mps"


def select_device(name: str = "auto") -> torch.device:
    """Finds a device by its name: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

    `auto` takes CUDA where there is a GPU, else MPS, else the CPU. `N` is short for `cuda:N`.

    Raises:
        SettingError: the name is none of these, or this machine has no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(f"cuda:{name}" if name.isdecimal() else name)
    except RuntimeError as error:
        raise SettingError("device", name, _KNOWN) from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise SettingError("device", name, _KNOWN)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        plural = "" if count == 1 else "s"
        raise SettingError("device", name, f"this machine has {count} CUDA device{plural}")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise SettingError("device", name, "MPS is not available here")
    return device


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the hardware itself multiplies bfloat16. Where it does not, float32 is faster."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return bool({"AVX512-BF16", "AMX"} & set(cpu_features()))
    return False


def inference_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The type a network computes in: `auto` is bfloat16 where the hardware multiplies it."""
    if precision == "auto":
        precision = "bfloat16" if multiplies_bfloat16(device) else "float32"
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


@contextlib.contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Within it, float32 on CUDA is float32, and no algorithm is chosen by timing.

    By default PyTorch computes float32 convolutions in TF32, which has 10 bits of mantissa, on
    GPUs from Ampere on. `cudnn.benchmark` would take what was fastest when it was tried, so that
    equal runs give other bits, and tries again for each size of image. Both are settings of the
    whole process; they come back at the end, and threads take turns. Other devices have neither.
    """
    if device.type != "cuda":
        yield
        return
    cudnn: Any = torch.backends.cudnn
    matmul = torch.backends.cuda.matmul
    with _turn:
        before = cudnn.benchmark, cudnn.conv.fp32_precision, matmul.fp32_precision
        cudnn.benchmark, cudnn.conv.fp32_precision, matmul.fp32_precision = False, "ieee", "ieee"
        try:
            yield
        finally:
            cudnn.benchmark, cudnn.conv.fp32_precision, matmul.fp32_precision = before


def cpu_features() -> list[str]:
    """The instruction sets of this CPU that matter here, of AVX2, AVX512, AVX512-BF16 and AMX."""
    return [name for name, check in _CPU_FEATURES.items() if _cpu_has(check)]


def _cpu_has(check: str) -> bool:
    # The functions are private, so PyTorch may drop them; their absence means no.
    return getattr(torch.cpu, check, lambda: False)()
