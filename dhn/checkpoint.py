"""Weights on disk: written whole, read without running anything from the file."""

import dataclasses
import io
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dhn.errors import DhnError
from dhn.files import written_whole
from dhn.joints import JointSet
from dhn.model import PoseNetwork, build_model

FORMAT = "dhn-1"
# Wrappings met in the wild, see `_state_dict`.
_WRAPPERS = ("state_dict", "model", "best_state_dict")
_PREFIXES = ("module.", "1.")
# Official files name the backbone's layers at the top. DoubleHigherNet's own `transition_quarter`
# is none of them.
_OFFICIAL_BACKBONE = re.compile(r"(conv|bn)[12]\.|layer1\.|transition[123]\.|stage[234]\.")


class Checkpoint(NamedTuple):
    """What a dhn checkpoint holds.

    Attributes:
        network: arguments of `build_model`.
        joints: what the heatmaps mean.
        weights: the network's state dict.
        config: the resolved settings of the run.
        progress: of the training run: epoch, step, optimiser, ... (empty in exported weights).
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
    """Writes a checkpoint, whole or not at all; a full disk keeps the one that was there."""
    content = checkpoint._asdict() | {
        "format": FORMAT,
        "joints": dataclasses.asdict(checkpoint.joints),
    }
    # torch's own writer hides a full disk behind a RuntimeError; bytes in memory do not.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with written_whole(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads a checkpoint that dhn wrote.

    Raises:
        DhnError: missing, truncated, not a checkpoint, or not one of dhn's.
    """
    content = _read(Path(path))
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DhnError(
            f"{path}: holds weights, but is no dhn checkpoint; "
            "dhn.load_weights(model, path) loads it into a network that you built"
        )
    try:
        joints = JointSet(**{k: _tuples(v) for k, v in content["joints"].items()})
        fields = {name: content[name] for name in Checkpoint._fields}
    except (AttributeError, KeyError, TypeError) as error:
        raise DhnError(f"{path}: was not written by this version of dhn ({error!r})") from error
    return Checkpoint(**fields | {"joints": joints})


def load_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Loads weights into a network, strictly: every key must match in name and shape.

    Takes dhn checkpoints, safetensors, and official HigherHRNet `.pth` files, also wrapped in
    `state_dict`, `model` or `best_state_dict` and with keys prefixed `module.` or `1.`.

    Raises:
        DhnError: the file cannot be read, or belongs to another network; names the first keys
            that differ.
    """
    weights = _state_dict(_read(Path(path)), path)
    own = model.state_dict()
    missing = [key for key in own if key not in weights]
    unknown = [key for key in weights if key not in own]
    shapes = [
        f"{key} is {list(weights[key].shape)}, not {list(own[key].shape)}"
        for key in own
        if key in weights and weights[key].shape != own[key].shape
    ]
    complaints = [
        f"{what} {', '.join(keys[:3])}" + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
        for what, keys in (("lacks", missing), ("has unknown", unknown), ("shapes:", shapes))
        if keys
    ]
    if complaints:
        raise DhnError(f"{path}: weights of another network: {'; '.join(complaints)}")
    model.load_state_dict(weights)


def newest_checkpoint(runs: str | os.PathLike[str] = "runs") -> Path:
    """The newest run's `best.pt`, else its `last.pt`.

    Raises:
        DhnError: there is no run; says how to get a checkpoint.
    """
    last = sorted(Path(runs).glob("*/last.pt"), key=lambda path: path.stat().st_mtime)
    if not last:
        raise DhnError(
            f"no checkpoint in {runs}/: give --checkpoint FILE, or train one "
            "(`dhn train --config demo` needs no data)"
        )
    best = last[-1].with_name("best.pt")
    return best if best.exists() else last[-1]


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DhnError(f"{path}: cannot be read ({reason})") from error
    except pickle.UnpicklingError as error:
        raise DhnError(
            f"{path}: refused: it is not plain tensors (corrupt, or with code inside)"
        ) from error
    except Exception as error:  # torch and safetensors raise many kinds for a damaged file
        raise DhnError(f"{path}: not a checkpoint, or cut off; get it again") from error


def _state_dict(content: Any, path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors by our names, whatever is wrapped around them."""
    if isinstance(content, dict) and content.get("format") == FORMAT:
        return content["weights"]
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise DhnError(f"{path}: holds no state dict (tensors by name)")
    return {_our_name(key): value for key, value in content.items()}


def _our_name(key: str) -> str:
    for prefix in _PREFIXES:
        key = key.removeprefix(prefix)
    return f"backbone.{key}" if _OFFICIAL_BACKBONE.match(key) else key


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list | tuple) else value
