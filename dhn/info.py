"""What a bug report and a run folder need to know about this machine."""

import platform
from importlib import metadata
from typing import Any, NamedTuple

import click
import torch

import dhn
from dhn import _native
from dhn.device import multiplies_bfloat16, select_device
from dhn.download import cache_folder
from dhn.model import build_model

NETWORKS = (
    "doublehighernet_w32",
    "doublehighernet_w48",
    "higherhrnet_w32",
    "higherhrnet_w48",
    "hrnet_w32",
    "hrnet_w48",
)
_PACKAGES = (
    *("numpy", "opencv-python", "av", "pycocotools", "pydantic", "click", "rich", "safetensors"),
    # Not everybody has these:
    *("onnx", "onnxruntime", "tensorboard", "matplotlib"),
)
# Private names, so their absence means no.
_CPU_FEATURES = {
    "AVX2": "_is_avx2_supported",
    "AVX512": "_is_avx512_supported",
    "AVX512-BF16": "_is_avx512_bf16_supported",
    "AMX": "_is_amx_tile_supported",
}


def environment() -> dict[str, Any]:
    """Versions, devices and kernels, as plain values."""
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
        "cpu_features": [
            name
            for name, check in _CPU_FEATURES.items()
            if getattr(torch.cpu, check, lambda: False)()
        ],
        "threads": torch.get_num_threads(),
        "gpus": [_gpu(index) for index in range(torch.cuda.device_count())],
        **{f"{device}_kernels": state for device, state in _native.built_for().items()},
    }


def report() -> dict[str, Any]:
    """What `dhn info` tells: the environment, and folders, which a run's record leaves out."""
    return environment() | {"cache": str(cache_folder())}


class Cost(NamedTuple):
    """What a network costs: weights, and multiply-adds times two of one forward pass, in 1e9."""

    parameters: int
    gflops: float


def network_cost(name: str, num_joints: int = 14, input_size: int = 512) -> Cost:
    """Counts a network's parameters and operations for one square picture, without computing."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        model = build_model(name, num_joints).eval()
        picture = torch.empty(1, 3, input_size, input_size)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(picture)
    parameters = sum(p.numel() for p in model.parameters())
    return Cost(parameters, counter.get_total_flops() / 1e9)


def print_info() -> None:
    """The report, then a table of the networks, on standard output."""
    for key, value in report().items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {said or '-'}" for name, said in value.items())
        elif isinstance(value, list):
            value = ", ".join(value) or "none"
        click.echo(f"{key:<22}{value}")
    click.echo(f"\n{'network (14 joints)':<22}{'parameters':>12}{'GFLOPs at 512 x 512':>22}")
    for name in NETWORKS:
        cost = network_cost(name)
        click.echo(f"{name:<22}{cost.parameters / 1e6:>10.2f} M{cost.gflops:>22.1f}")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _gpu(index: int) -> str:
    properties = torch.cuda.get_device_properties(index)
    capability = f"{properties.major}.{properties.minor}"
    return f"{properties.name} (sm {capability}, {properties.total_memory / 2**30:.0f} GiB)"


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
        return names[0] if names else platform.machine()
    except OSError:
        return platform.processor() or platform.machine()
