"""Checkpoints in little space: float16 weights in a safetensors file that describes its network.

A tenth of a training's checkpoint, and enough to predict, to evaluate and to start a training. The
file's metadata holds, as JSON under the key `dhn`, what a checkpoint says about its network.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dhn.base.errors import DhnError
from dhn.base.files import written_whole
from dhn.weights.checkpoint import FORMAT, METADATA, Checkpoint


def write_compact(
    path: str | os.PathLike[str], checkpoint: Checkpoint, about: Mapping[str, str] | None = None
) -> None:
    """Writes the weights of a checkpoint in float16, whole or not at all.

    What only the training needs (optimiser, epoch, most settings) is left out. `read_file` gives
    the weights back in float32.

    Args:
        path: the file; it must end in .safetensors, by which it is recognised.
        checkpoint: what to write.
        about: lines for people, like the data's licence; `Checkpoint.config["about"]` holds them.

    Raises:
        DhnError: a weight is not finite or too large for float16, or the file cannot be written.
    """
    from safetensors.torch import save_file

    weights = {name: _halved(name, weight, path) for name, weight in checkpoint.weights.items()}
    data = checkpoint.config.get("data", {})
    description = {
        "format": FORMAT,
        "network": checkpoint.network,
        "joints": dataclasses.asdict(checkpoint.joints),
        "config": {
            "data": {key: data[key] for key in ("input_size", "eval_size") if data.get(key)},
            "about": dict(about or checkpoint.config.get("about", {})),
        },
    }
    with written_whole(path) as temporary:
        try:
            save_file(weights, temporary, {METADATA: json.dumps(description)})
        except Exception as error:  # safetensors has an error of its own for a full disk
            raise DhnError(f"{path}: cannot be written ({error})") from error


def _halved(name: str, weight: Tensor, path: object) -> Tensor:
    if not weight.is_floating_point():
        return weight.contiguous()
    half = weight.to(torch.float16).contiguous()
    if not half.isfinite().all():
        raise DhnError(f"{path}: cannot be written: {name} has numbers that float16 cannot hold")
    return half


def read_description(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a file that `write_compact` wrote says about its network; {} for other files."""
    from safetensors import safe_open

    with safe_open(Path(path), "pt") as file:
        return json.loads((file.metadata() or {}).get(METADATA, "{}"))
