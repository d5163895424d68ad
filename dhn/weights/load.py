"""Weights from anywhere, by our names: loaded into a network, or opened as one.

Understood: dhn checkpoints; state dicts (`.pth`, `.safetensors`) of our networks; official
HigherHRNet; MMPose 0.x and 1.x HigherHRNet and bottom-up HRNet; and, for a warm start, HRNet
classifiers and everything else that has an HRNet inside.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from dhn.base.errors import DhnError
from dhn.base.progress import Progress, silent
from dhn.data.joints import COCO, CROWDPOSE, JointSet
from dhn.model import PoseNetwork, build_model
from dhn.weights.checkpoint import as_checkpoint, is_checkpoint, read_file
from dhn.weights.published import PUBLISHED, fetch

# A state dict lies under one of these, or bare.
_WRAPPERS = ("state_dict", "model", "best_state_dict")
# DataParallel and DDP; the pair (cast, network) of the official fp16 training.
_PREFIXES = ("module.", "1.")
# Official files name the backbone's layers at the top. DoubleHigherNet's own `transition_quarter`
# is none of them.
_OFFICIAL_BACKBONE = re.compile(r"(conv|bn)[12]\.|layer1\.|transition[123]\.|stage[234]\.")
# MMPose's head: `keypoint_head.` in 0.x, `head.` in 1.x; the classifiers it starts from have a
# `head.` of their own, which is another thing.
_MMPOSE_HEAD = re.compile(r"(?:keypoint_head|head)\.(final_layers?|deconv_layers)\.")
_NO_WEIGHTS = re.compile(r"data_preprocessor\.|(?:keypoint_head|head)\.loss")
_JOINTS = {len(joints): joints for joints in (CROWDPOSE, COCO)}


class OpenedNetwork(NamedTuple):
    """A network ready to run.

    Attributes:
        model: with its weights.
        joints: what its heatmaps mean.
        input_size: short side in pixels that it was trained or published for, None if unknown.
        source: where the weights came from, for messages.
    """

    model: PoseNetwork
    joints: JointSet
    input_size: int | None
    source: str


def open_network(
    checkpoint: str | os.PathLike[str], *, offline: bool = False, progress: Progress = silent
) -> OpenedNetwork:
    """Opens any `--checkpoint`: a path, a published name (`dhn models`) or an https:// address.

    A dhn checkpoint says what it is. Else kind, width and depth are recognised from keys and
    shapes, 14 joints are CrowdPose's and 17 COCO's; every key must then match.

    Args:
        offline, progress: see `dhn.weights.published.fetch`.

    Raises:
        DhnError: not to be had or read, or not the weights of a pose network known here.
    """
    path = fetch(checkpoint, offline=offline, progress=progress)
    content = read_file(path)
    if is_checkpoint(content):
        loaded = as_checkpoint(content, path)
        weights, network, joints = loaded.weights, loaded.network, loaded.joints
        data = loaded.config.get("data", {})
        size = data.get("eval_size") or data.get("input_size")
    else:
        weights = _state_dict(content, path)
        network = _recognised(weights, path)
        joints = _joints(network["num_joints"], path)
        sizes = [known.input_size for known in PUBLISHED.values() if known.file == path.name]
        size = sizes[0] if sizes else None
    try:
        model = build_model(**network)
    except (TypeError, ValueError) as error:
        raise DhnError(f"{path}: weights of a network that dhn does not build ({error})") from error
    _load(model, weights, path)
    return OpenedNetwork(model, joints, size, str(path))


def load_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Loads weights into a network, strictly: every key must match in name and shape.

    Args:
        path: a file, a published name (`dhn models`) or an https:// address.

    Raises:
        DhnError: the file cannot be had or read, or belongs to another network; names the first
            keys that differ.
    """
    file = fetch(path)
    _load(model, _state_dict(read_file(file), file), file)


def warm_start(model: nn.Module, path: str | os.PathLike[str]) -> str:
    """Loads all that fits into a network that is about to be trained.

    Of a HigherHRNet, DoubleHigherNet takes the backbone and the 1/4 head as its coarse one: they
    see the same map. Whatever stands on layers that start fresh starts fresh too.

    Args:
        model: any of our networks; what the file lacks keeps its fresh weights.
        path: a file, a published name (`dhn models`) or an https:// address: an HRNet classifier,
            a HigherHRNet, or any other network with an HRNet of the same width inside.

    Returns:
        two lines for people: how many tensors were loaded and what starts fresh; what was left
        out. Batch norms' step counters are not counted.

    Raises:
        DhnError: the file cannot be had or read, or its backbone is another one; nothing was
            loaded.
    """
    file = fetch(path)
    weights = _state_dict(read_file(file), file)
    own = model.state_dict()
    if "coarse_head_quarter.weight" in own:
        weights = {
            re.sub(r"^final_layers\.0\.", "coarse_head_quarter.", key): value
            for key, value in weights.items()
        }
    shared = [key for key in own if key in weights]
    backbone = [key for key in shared if key.startswith("backbone.")]
    if not backbone:
        raise DhnError(f"{file}: holds no HRNet to start from ({_first(weights)})")
    if other := _other_shapes(own, weights, backbone):
        raise DhnError(f"{file}: its backbone is another one: {_first(other)}")
    fitting = {key: weights[key] for key in shared if weights[key].shape == own[key].shape}
    model.load_state_dict(fitting, strict=False)
    fresh = [key for key in own if key not in fitting]
    left_out = [key for key in weights if key not in fitting]
    return (
        f"loaded {len(_counted(fitting))} of {len(_counted(own))} tensors from {file}; "
        f"fresh: {_summary(fresh)}\nleft out of the file: {_summary(left_out)}"
    )


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors by our names, whatever is wrapped around them."""
    if is_checkpoint(content):
        return as_checkpoint(content, path).weights
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise DhnError(f"{path}: holds no state dict (tensors by name)")
    return {
        _our_name(key): value for key, value in content.items() if not _NO_WEIGHTS.match(str(key))
    }


def _our_name(key: str) -> str:
    for prefix in _PREFIXES:
        key = key.removeprefix(prefix)
    if head := _MMPOSE_HEAD.match(key):
        own = "head" if head[1] == "final_layer" else head[1]
        return f"{own}.{key[head.end() :]}"
    return f"backbone.{key}" if _OFFICIAL_BACKBONE.match(key) else key


def _recognised(weights: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """Arguments of `build_model`, read from keys and shapes."""
    branch = weights.get("backbone.stage2.0.branches.0.0.conv1.weight")
    stem = weights.get("backbone.conv1.weight")
    if branch is None or stem is None:
        raise DhnError(f"{path}: weights of another kind of network ({_first(weights)})")
    width = len(branch)
    network: dict[str, Any] = {
        "width": width,
        "modules": [_children(weights, f"backbone.stage{stage}.") for stage in (2, 3, 4)],
        "blocks": _children(weights, "backbone.stage2.0.branches.0."),
        "stem": len(stem),
    }
    if (head := weights.get("coarse_head_half.weight")) is not None:
        fusion = "attention" if "coarse_fusion.fc1.weight" in weights else "concat"
        return network | {"name": "doublehighernet", "num_joints": len(head), "fusion": fusion}
    if (head := weights.get("final_layers.1.weight")) is not None:
        return network | {"name": "higherhrnet", "num_joints": len(head)}
    head = weights.get("head.weight")
    if head is not None and len(head) // 2 in _JOINTS and len(head) % 2 == 0:
        branches = 1 if head.shape[1] == width else 4
        return network | {"name": "hrnet", "num_joints": len(head) // 2, "branches": branches}
    raise DhnError(
        f"{path}: an HRNet-w{width} without a bottom-up pose head (a classifier or a single-person "
        "network): a training can start from it, but it finds no poses"
    )


def _joints(count: int, path: Path) -> JointSet:
    if count not in _JOINTS:
        raise DhnError(
            f"{path}: its network has {count} joints, and only 14 (CrowdPose) and 17 (COCO) are "
            "known without a dhn checkpoint, which says what they are"
        )
    return _JOINTS[count]


def _load(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    own = model.state_dict()
    shared = [key for key in own if key in weights]
    complaints = [
        f"{what} {_first(keys)}"
        for what, keys in (
            ("lacks", _counted(key for key in own if key not in weights)),
            ("has unknown", [key for key in weights if key not in own]),
            ("shapes:", _other_shapes(own, weights, shared)),
        )
        if keys
    ]
    if complaints:
        raise DhnError(f"{path}: weights of another network: {'; '.join(complaints)}")
    model.load_state_dict(weights, strict=False)


def _counted(keys: Iterable[str]) -> list[str]:
    # Files older than PyTorch 0.4.1 lack the step counters of batch norms, which nothing here uses.
    return [key for key in keys if not key.endswith("num_batches_tracked")]


def _other_shapes(
    own: Mapping[str, Tensor], weights: Mapping[str, Tensor], keys: Iterable[str]
) -> list[str]:
    return [
        f"{key} is {list(weights[key].shape)}, not {list(own[key].shape)}"
        for key in keys
        if weights[key].shape != own[key].shape
    ]


def _children(weights: Iterable[str], prefix: str) -> int:
    return len({key[len(prefix) :].partition(".")[0] for key in weights if key.startswith(prefix)})


def _first(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _summary(keys: Iterable[str]) -> str:
    """Keys by layer: `coarse_fusion (4), backbone.stage4 (12)`; the counters left aside."""
    layers = Counter(
        ".".join(key.split(".")[: 2 if key.startswith("backbone.") else 1])
        for key in _counted(keys)
    )
    return ", ".join(f"{layer} ({count})" for layer, count in layers.items()) or "nothing"
