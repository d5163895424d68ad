"""What a bug report and a run folder need to know about this machine."""

import platform
from importlib import metadata
from typing import Any

import torch

import dhn
from dhn.device import multiplies_bfloat16, select_device

_PACKAGES = ("numpy", "opencv-python", "av", "pycocotools", "pydantic", "click", "rich")


def environment() -> dict[str, Any]:
    """Versions, devices and threads, as plain values."""
    device = select_device()
    return {
        "dhn": dhn.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "torch": torch.__version__,
        "packages": {name: _version(name) for name in _PACKAGES},
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu(),
        "bfloat16_in_hardware": multiplies_bfloat16(device),
        "threads": torch.get_num_threads(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
        return names[0] if names else platform.machine()
    except OSError:
        return platform.processor() or platform.machine()
