"""Checkpoints on disk: written whole, and read without running anything from the file."""

import dataclasses
import io
import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dhn.base.errors import DhnError
from dhn.base.files import check_regular, written_whole
from dhn.data.joints import JointSet
from dhn.model import PoseNetwork, build_model
from dhn.weights.claims import check_checkpoint

FORMAT = "dhn-1"
METADATA = "dhn"  # where a safetensors file describes its network, see dhn.weights.compact


class Checkpoint(NamedTuple):
    """What a dhn checkpoint holds.

    Attributes:
        network: the arguments of `build_model`.
        joints: what the heatmaps mean.
        weights: the network's state dict; the averaged one, where the run averages.
        config: the resolved settings of the run.
        progress: the state of the training run: epoch, step, optimiser, ...
    """

    network: dict[str, Any]
    joints: JointSet
    weights: dict[str, Tensor]
    config: dict[str, Any]
    progress: dict[str, Any]

    def build(self) -> PoseNetwork:
        """The network with its weights."""
        model = build_model(**self.network)
        model.load_state_dict(self.weights)
        return model


def save_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Writes a checkpoint, whole or not at all: a full disk leaves the old file as it was."""
    write_serialised(path, serialised(checkpoint))


def serialised(checkpoint: Checkpoint) -> memoryview:
    """The bytes of a checkpoint's file."""
    content = checkpoint._asdict() | {
        "format": FORMAT,
        "joints": dataclasses.asdict(checkpoint.joints),
    }
    # torch's own writer hides a full disk behind a RuntimeError, so the bytes are made in memory.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getbuffer()


def write_serialised(path: str | os.PathLike[str], content: memoryview) -> None:
    """Writes what `serialised` made, whole or not at all."""
    with written_whole(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        os.fsync(file.fileno())  # the bytes must reach the disk before the new name does


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads a checkpoint that dhn wrote.

    Raises:
        DhnError: the file is missing or truncated, or is not a checkpoint of dhn's.
    """
    return as_checkpoint(read_file(path), path)


def is_checkpoint(content: Any) -> bool:
    """Whether what `read_file` gave is a dhn checkpoint."""
    return isinstance(content, dict) and content.get("format") == FORMAT


def as_checkpoint(content: Any, path: str | os.PathLike[str]) -> Checkpoint:
    """Checks what `read_file` gave; messages name `path`.

    Raises:
        DhnError: the content is not a checkpoint of this version of dhn, or what it says of its
            network, joints, weights, settings or progress cannot be.
    """
    if not is_checkpoint(content):
        raise DhnError(
            f"{path}: holds weights, but is no dhn checkpoint; "
            "dhn.load_weights(model, path) loads them into a network that you built"
        )
    check_checkpoint(content, path)
    fields = {name: content[name] for name in Checkpoint._fields}
    return Checkpoint(**fields | {"joints": JointSet.from_dict(content["joints"])})


def read_file(path: str | os.PathLike[str]) -> Any:
    """Reads what `torch.save` or safetensors wrote: tensors and plain values, on the CPU.

    Nothing from the file runs: torch's restricted unpickler reads pickles. NumPy arrays, and the
    logs that MMEngine keeps while it trains, are skipped.

    Raises:
        DhnError: the file is missing or cut off, holds no weights, or holds more than tensors and
            plain values.
    """
    path = Path(path)
    check_regular(path)
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        with torch.serialization.safe_globals([*_numpy_scalars(), *_skipped()]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DhnError(f"{path}: cannot be read ({reason})") from error
    except Exception as error:  # torch and safetensors raise many kinds for a damaged file
        raise DhnError(f"{path}: {_what_is_wrong(path, error)}") from error


def _read_safetensors(path: Path) -> dict[str, Any]:
    """The tensors, or what `dhn.weights.compact` wrote as the checkpoint that it came from."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        description = (file.metadata() or {}).get(METADATA)
    if description is None:
        return tensors
    weights = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
    return {**json.loads(description), "weights": weights, "progress": {}}


def _numpy_scalars() -> list[Any]:
    # MMPose's checkpoints hold the best AP as the NumPy number that pycocotools returned.
    scalar = np.float64(0).__reduce__()[0]
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")  # NumPy 1 and 2
    kinds = "?US" + np.typecodes["AllInteger"] + np.typecodes["Float"]
    return [
        *((scalar, f"{module}.scalar") for module in modules),
        *{type(np.dtype(kind)) for kind in kinds},
        np.dtype,
    ]


class _Skipped:
    """Stands where a file has an object that nobody needs, and drops all that belongs to it."""

    def __new__(cls, *_: Any) -> "_Skipped":
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def _skipped() -> list[Any]:
    # MMEngine's checkpoints hold its logs, whose objects name methods (by getattr) and hold arrays,
    # and arrays about the data set. The unpickler finds the inert class under all these names.
    names = (
        "mmengine.logging.history_buffer.HistoryBuffer",
        "__builtin__.getattr",
        "builtins.getattr",
        "numpy.ndarray",
        "numpy.core.multiarray._reconstruct",
        "numpy._core.multiarray._reconstruct",
    )
    return [(_Skipped, name) for name in names]


def _what_is_wrong(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        start = file.read(200).lstrip()
    if start.startswith(b"<"):
        return "is a web page, not weights; download the file itself"
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the weights; get them with git lfs pull"
    if foreign := re.search(r"GLOBAL (\S+)", str(error)):
        return (
            f"refused, it wants to run {foreign[1]}; weights are tensors and plain values, "
            "so ask its author for the state dict alone"
        )
    return "is not a checkpoint, or is cut off; get it again"
