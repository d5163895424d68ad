"""Weights from elsewhere: their keys renamed to ours, and the network that they belong to.

Understood are the state dicts of our own networks; of the official HigherHRNet; of SWAHR; of MMPose
0.x and 1.x, HigherHRNet and bottom-up HRNet; and, to start a training from, everything that has an
HRNet inside, such as its ImageNet classifiers, and EfficientNet-Lite0's classifier.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from dhn.base.errors import DhnError
from dhn.data.joints import COCO, CROWDPOSE, JointSet
from dhn.weights import efficientnet
from dhn.weights.checkpoint import as_checkpoint, is_checkpoint
from dhn.weights.claims import check_tensors, printable
from dhn.weights.kinds import kind_with_hrnet, kind_without_hrnet

# A state dict stands under one of these keys, or bare.
_WRAPPERS = ("state_dict", "model", "best_state_dict")
# DataParallel and DDP; the pair (cast, network) of the official fp16 training.
_PREFIXES = ("module.", "1.")
# Official files have the layers of the backbone at the top level. DoubleHigherNet's own
# `transition_quarter` is none of them.
_OFFICIAL_BACKBONE = re.compile(r"(conv|bn)[12]\.|layer1\.|transition[123]\.|stage[234]\.")
# MMPose's head is `keypoint_head.` in 0.x and `head.` in 1.x. The classifiers that it starts from
# have a `head.`, too, which is a different layer.
_MMPOSE_HEAD = re.compile(r"(?:keypoint_head|head)\.(final_layers?|deconv_layers)\.")
# What only a training needs: MMPose's constants and losses, and the layers of SWAHR that predict
# scales for its loss.
_NO_WEIGHTS = re.compile(r"data_preprocessor\.|(?:keypoint_head|head)\.loss|conv_scale_layers\.")
_JOINTS = {len(joints): joints for joints in (CROWDPOSE, COCO)}


def our_state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors of a file by our names.

    Args:
        content: what `checkpoint.read_file` gave; wrappers around the state dict are taken off.
        path: the file, for messages.

    Raises:
        DhnError: the file holds no state dict.
    """
    if is_checkpoint(content):
        return as_checkpoint(content, path).weights
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    check_tensors(content, path)
    if efficientnet.is_classifier(content):
        return efficientnet.our_names(content, path)
    plain = {_without_prefix(key): value for key, value in content.items()}
    weights = {_our_name(key): value for key, value in plain.items() if not _NO_WEIGHTS.match(key)}
    if len(weights) < len(content) - sum(map(bool, map(_NO_WEIGHTS.match, plain))):
        raise DhnError(f"{path}: holds two tensors of one name (with and without a prefix)")
    return weights


def _without_prefix(key: str) -> str:
    for prefix in _PREFIXES:
        key = key.removeprefix(prefix)
    return key


def _our_name(key: str) -> str:
    if head := _MMPOSE_HEAD.match(key):
        own = "head" if head[1] == "final_layer" else head[1]
        return f"{own}.{key[head.end() :]}"
    return f"backbone.{key}" if _OFFICIAL_BACKBONE.match(key) else key


def recognised(weights: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """The arguments of `build_model` for the network that a state dict belongs to.

    Args:
        weights: from `our_state_dict`; keys and shapes say what the network is.
        path: the file, for messages.

    Raises:
        DhnError: the weights are not those of a network that finds poses bottom-up.
    """
    if "coarse_head_half.weight" in weights and "transition_half.conv1.weight" in weights:
        return _recognised_lite(weights, path)
    branch = weights.get("backbone.stage2.0.branches.0.0.conv1.weight")
    stem = weights.get("backbone.conv1.weight")
    if branch is None or stem is None:
        raise DhnError(
            f"{path}: weights of another kind of network{kind_without_hrnet(weights)} "
            f"({first_of(weights)})"
        )
    if min(branch.ndim, stem.ndim) < 4:
        raise DhnError(f"{path}: weights of another kind of network ({first_of(weights)})")
    width = len(branch)
    network: dict[str, Any] = {
        "width": width,
        "modules": [_children(weights, f"backbone.stage{stage}.") for stage in (2, 3, 4)],
        "blocks": _children(weights, "backbone.stage2.0.branches.0."),
        "stem": len(stem),
    }
    heads = ("coarse_head_half.weight", "final_layers.1.weight", "head.weight")
    if flat := [name for name in heads if name in weights and weights[name].ndim < 4]:
        raise DhnError(f"{path}: {flat[0]} is no convolution: weights of another kind of network")
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
        f"{path}: an HRNet-w{width} in {kind_with_hrnet(weights)}, which dhn cannot run; but a "
        "training can start from it"
    )


def _recognised_lite(weights: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """The arguments for a DoubleHigherNet-lite."""
    stages = _children(weights, "backbone.stages.")
    efficient = "backbone.laterals.0.0.weight"
    needed = ["coarse_head_half.weight", "transition_half.conv1.weight"]
    if efficient in weights:
        needed.append(efficient)
    else:
        needed += ["backbone.stem.1.0.weight", "backbone.stem.0.0.weight"]
    for name in needed:
        if name not in weights or weights[name].ndim < 4:
            raise DhnError(f"{path}: {name} is no convolution: weights of another kind of network")
    joints, half = weights["coarse_head_half.weight"].shape[:2]
    network = {
        "name": "doublehighernet_lite",
        "num_joints": joints,
        "fusion": "attention" if "coarse_fusion.fc1.weight" in weights else "concat",
        "kernel": weights["transition_half.conv1.weight"].shape[-1],
        "half": half,
    }
    if efficient in weights:
        return network | {"backbone": "efficientnet", "width": len(weights[efficient])}
    return network | {
        "width": len(weights["backbone.stem.1.0.weight"]),
        "branches": stages + 1,
        "modules": [_children(weights, f"backbone.stages.{stage}.") for stage in range(stages)],
        "blocks": _children(weights, "backbone.stages.0.0.branches.0."),
        "stem": len(weights["backbone.stem.0.0.weight"]),
    }


def joints_of_count(count: int, path: Path) -> JointSet:
    """CrowdPose's joints where a network has 14, COCO's where it has 17.

    Raises:
        DhnError: the network has another number of joints.
    """
    if count not in _JOINTS:
        raise DhnError(
            f"{path}: its network has {count} joints; without a dhn checkpoint, which names them, "
            "only 14 (CrowdPose) and 17 (COCO) are known"
        )
    return _JOINTS[count]


def first_of(names: Iterable[str]) -> str:
    """The first three names, and how many more there are, for messages."""
    names = [printable(str(name)) for name in names]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _children(weights: Iterable[str], prefix: str) -> int:
    """How many different children of the layer `prefix` have weights."""
    return len({key[len(prefix) :].partition(".")[0] for key in weights if key.startswith(prefix)})
