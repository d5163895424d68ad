"""Finds, checks and loads the operator libraries that setup.py builds from csrc."""

import ctypes
import hashlib
from pathlib import Path

from dhn.errors import DhnError

PACKAGE = Path(__file__).resolve().parent
REBUILD = "pip install --no-build-isolation -e ."


def source_hash(csrc: Path, *parts: str) -> str:
    """Hash of the C++ sources in `csrc` under `parts` (files or folders), names and contents.

    setup.py compiles it into the library, `load` compares: a library that does not fit the
    sources beside it is told at import, not by a wrong result.
    """
    files = [file for part in parts for file in [csrc / part, *(csrc / part).glob("*")]]
    digest = hashlib.sha256()
    for file in sorted(file for file in files if file.is_file()):
        digest.update(file.relative_to(csrc).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


CPU_PARTS = ("ops.cpp", "checks.h", "common", "cpu")
CUDA_PARTS = ("checks.h", "common", "cuda")


def load() -> None:
    """Loads dhn/_C, and dhn/_C_cuda where torch is a CUDA build; registers torch.ops.dhn.

    Raises:
        DhnError: the library is missing, does not load, or was built from other sources.
    """
    import torch

    _load_library("_C", "dhn_source_hash", CPU_PARTS)
    if torch.version.cuda is None:
        return
    if (PACKAGE / "_C_cuda.so").exists():
        _load_library("_C_cuda", "dhn_cuda_source_hash", CUDA_PARTS)
    else:
        from dhn.console import warn  # here, because setup.py reads this file before click is there

        warn(f"dhn was built without a CUDA toolkit, CUDA tensors will fail; with nvcc: {REBUILD}")


def _load_library(name: str, hash_symbol: str, parts: tuple[str, ...]) -> None:
    import torch

    path = PACKAGE / f"{name}.so"
    if not path.exists():
        raise DhnError(f"{path}: the operators are not built; build them with: {REBUILD}")
    try:
        torch.ops.load_library(path)
        compiled = ctypes.CDLL(str(path))[hash_symbol]
    except (OSError, AttributeError) as error:
        raise DhnError(f"{path}: does not load ({error}); rebuild it with: {REBUILD}") from error
    csrc = PACKAGE.parent / "csrc"
    if not csrc.is_dir():
        return  # an installed wheel: library and Python code came together
    compiled.restype = ctypes.c_char_p
    if compiled().decode() != source_hash(csrc, *parts):
        raise DhnError(f"{path}: is older than the sources in csrc; rebuild it with: {REBUILD}")
