"""What a bug report and the record of a run say about this machine."""

import contextlib
import ctypes
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from dhn.base import native
from dhn.base.cache import cache_folder
from dhn.base.device import cpu_features, multiplies_bfloat16, select_device
from dhn.base.version import __version__

_PACKAGES = [
    "numpy",
    "opencv-python",
    "av",
    "pycocotools",
    "pydantic",
    "click",
    "rich",
    "safetensors",
    # Optional ones:
    "onnx",
    "onnxruntime",
    "tensorboard",
    "matplotlib",
]


def environment() -> dict[str, Any]:
    """Versions, devices and kernels, as plain values."""
    device = select_device()
    return {
        "dhn": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "torch": torch.__version__,
        "packages": {name: _version(name) for name in _PACKAGES},
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "bfloat16_in_hardware": multiplies_bfloat16(device),
        "cpu_features": cpu_features(),
        "threads": torch.get_num_threads(),
        "gpus": [_gpu(index) for index in range(torch.cuda.device_count())],
        **{f"{device}_kernels": state for device, state in native.built_for().items()},
    }


def report() -> dict[str, Any]:
    """The environment, and the cache folder, which the record of a run leaves out."""
    return environment() | {"cache": str(cache_folder())}


def cpu_name() -> str:
    """The processor's name as its maker writes it, else the machine's type."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
        return names[0] if names else platform.machine()
    except OSError:
        return platform.processor() or platform.machine()


def peak_memory(device: torch.device | None = None) -> int:
    """The most memory in use at any time so far, in bytes.

    Args:
        device: a CUDA device counts the tensors on it; anything else counts this process.

    Returns:
        0 on Windows, which does not say.
    """
    if device is not None and device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="utf-8") as lines:
        # Linux starts the getrusage figure of a spawned process at the peak of its parent.
        for line in lines:
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def reset_peak_memory() -> bool:
    """Lets `peak_memory` of this process begin anew. Only Linux can; returns whether it did."""
    with contextlib.suppress(OSError, AttributeError):  # glibc keeps what was freed, up to 64 MB
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="utf-8") as file:
        file.write("5")
        return True
    return False


def free_memory() -> int:
    """Bytes that processes on this machine may still use; 0 where the system does not say.

    On Linux it is what the kernel takes for available, or less, where a container has a limit.
    """
    free = 0
    with contextlib.suppress(OSError), open("/proc/meminfo", encoding="utf-8") as lines:
        free = next((1024 * int(line.split()[1]) for line in lines if "MemAvailable" in line), 0)
    for folder, most, used, cached in (
        (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
        (
            Path("/sys/fs/cgroup/memory"),
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    ):
        with contextlib.suppress(OSError, ValueError):  # no such limit: `max`
            limit, taken = (int((folder / name).read_text()) for name in (most, used))
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            free = min(free, max(0, limit - taken + int(stat.get(cached, 0))))
    return free


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _gpu(index: int) -> str:
    properties = torch.cuda.get_device_properties(index)
    capability = f"{properties.major}.{properties.minor}"
    return f"{properties.name} (sm {capability}, {properties.total_memory / 2**30:.0f} GiB)"
