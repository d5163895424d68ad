"""Finds, checks and loads the operator libraries that setup.py builds from csrc."""

import ctypes
import hashlib
from pathlib import Path

from dhn.base.errors import DhnError

PACKAGE = Path(__file__).resolve().parents[1]
REBUILD = "pip install --no-build-isolation -e ."
WITHOUT_KERNELS = "network and aggregation run in plain PyTorch, and the CPU decodes"


def source_hash(csrc: Path, *parts: str) -> str:
    """Hash of the C++ sources in `csrc` under `parts` (files or folders), names and contents.

    setup.py compiles the hash into the library and `load` compares it, so that a library older
    than the sources beside it fails when it is loaded, not by a wrong result.
    """
    files = [file for part in parts for file in [csrc / part, *(csrc / part).glob("*")]]
    digest = hashlib.sha256()
    for file in sorted(file for file in files if file.is_file()):
        digest.update(file.relative_to(csrc).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


CPU_PARTS = ("ops.cpp", "checks.h", "common", "cpu")
CUDA_PARTS = ("checks.h", "common", "cuda")


def load() -> None:
    """Registers torch.ops.dhn: loads dhn/_C, and dhn/_C_cuda where torch is a CUDA build.

    Raises:
        DhnError: the library is missing, does not load, or was built from other sources.
    """

    _load_library("_C", "dhn", CPU_PARTS)
    if has_kernels("cuda"):
        _load_library("_C_cuda", "dhn_cuda", CUDA_PARTS)


def has_kernels(device_type: str) -> bool:
    """Whether the operators run on this type of device.

    A GPU has none where dhn was installed without a CUDA toolkit, under ROCm, or as MPS.
    """
    import torch

    if device_type == "cuda":
        return torch.version.cuda is not None and (PACKAGE / "_C_cuda.so").exists()
    return device_type in ("cpu", "meta")


def how_to_get_kernels() -> str:
    """What is to be done so that CUDA has its kernels; empty where that is not possible."""
    import torch

    if torch.version.cuda is None:
        return ""
    return f"install the CUDA toolkit {torch.version.cuda} (nvcc), then: {REBUILD}"


def check_trainable(device_type: str) -> None:
    """Raises a DhnError where the loss, which is an operator, does not run on a device."""
    if not has_kernels(device_type):
        how = how_to_get_kernels() if device_type == "cuda" else ""
        remedy = f"{how}; or train with --device cpu" if how else "train with --device cpu"
        raise DhnError(f"dhn has no kernels for training on {device_type}: {remedy}")


def built_for() -> dict[str, str]:
    """For each device, what its library was built for, or why it cannot be used.

    A library is built for instruction sets (CPU) or GPU architectures (CUDA). MPS, for which there
    are no kernels, is named where it is available.
    """
    import torch

    def state(name: str, prefix: str, parts: tuple[str, ...]) -> str:
        try:
            return _load_library(name, prefix, parts)
        except DhnError as error:
            return str(error)

    cpu = state("_C", "dhn", CPU_PARTS)
    if has_kernels("cuda"):
        cuda = state("_C_cuda", "dhn_cuda", CUDA_PARTS)
    elif torch.version.cuda:
        cuda = f"not built: {WITHOUT_KERNELS}; {how_to_get_kernels()}"
    else:
        cuda = "torch has no CUDA"
    mps = {"mps": f"none: {WITHOUT_KERNELS}"} if torch.backends.mps.is_available() else {}
    return {"cpu": cpu, "cuda": cuda} | mps


def _load_library(name: str, prefix: str, parts: tuple[str, ...]) -> str:
    """Loads a library and checks it against its sources; returns what it was built for."""
    import torch

    path = PACKAGE / f"{name}.so"
    if not path.exists():
        raise DhnError(f"{path}: the operators are not built; build them with: {REBUILD}")
    try:
        torch.ops.load_library(path)
        compiled, target = (
            _text(path, f"{prefix}_{what}") for what in ("source_hash", "built_for")
        )
    except (OSError, AttributeError) as error:
        raise DhnError(f"{path}: does not load ({error}); rebuild it with: {REBUILD}") from error
    csrc = PACKAGE.parent / "csrc"
    # An installed wheel has no csrc, but its library and Python code came together.
    if csrc.is_dir() and compiled != source_hash(csrc, *parts):
        raise DhnError(f"{path}: is older than the sources in csrc; rebuild it with: {REBUILD}")
    return target


def _text(library: Path, symbol: str) -> str:
    function = ctypes.CDLL(str(library))[symbol]
    function.restype = ctypes.c_char_p
    return function().decode()
