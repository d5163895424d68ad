"""From files of weights to networks: opened, loaded strictly, or as a start for training."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dhn.base.errors import DhnError
from dhn.base.progress import Progress, silent
from dhn.data.joints import JointSet
from dhn.model import PoseNetwork, build_model
from dhn.weights.checkpoint import as_checkpoint, is_checkpoint, read_file
from dhn.weights.claims import printable
from dhn.weights.convert import first_of, joints_of_count, our_state_dict, recognised
from dhn.weights.download import fetch
from dhn.weights.origin import refuse_other_training
from dhn.weights.zoo import PUBLISHED


class OpenedNetwork(NamedTuple):
    """A network ready to run.

    Attributes:
        model: the network with its weights.
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
    """Opens the network that a user names; see `open_file` for which networks are understood.

    Args:
        checkpoint, offline, progress: as for `dhn.weights.download.fetch`: a path, a published
            name or an https:// address.

    Raises:
        DhnError: the file cannot be had or read, or holds no pose network that is known here.
    """
    return open_file(fetch(checkpoint, offline=offline, progress=progress))


def open_file(path: Path) -> OpenedNetwork:
    """Opens a file of weights as a network.

    A dhn checkpoint describes its network. For all other files (see `dhn.weights.convert`) the
    kind, width and depth of the network are recognised from keys and shapes, and 14 joints are
    taken for CrowdPose's and 17 for COCO's, unless the file says that it was trained otherwise.
    Every key must then match.

    Raises:
        DhnError: the file cannot be read, or holds no pose network that is known here.
    """
    content = read_file(path)
    if is_checkpoint(content):
        loaded = as_checkpoint(content, path)
        weights, network, joints = loaded.weights, loaded.network, loaded.joints
        data = loaded.config.get("data", {})
        size = data.get("eval_size") or data.get("input_size")
    else:
        weights = our_state_dict(content, path)
        network = recognised(weights, path)
        joints = joints_of_count(network["num_joints"], path)
        sizes = [known.input_size for known in PUBLISHED.values() if known.file == path.name]
        size = sizes[0] if sizes else None
        refuse_other_training(content, len(joints), path)
    try:
        # On this device the network takes no memory, however large the file says that it is.
        with torch.device("meta"):
            shapes = build_model(**network)
    except Exception as error:  # any argument may be of any kind, in a file from elsewhere
        raise DhnError(
            f"{path}: weights of a network that dhn does not build ({printable(str(error))})"
        ) from error
    _require_match(shapes, weights, path)
    model = build_model(**network)
    model.load_state_dict(weights, strict=False)
    return OpenedNetwork(model, joints, size, str(path))


def load_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Loads weights into a network, strictly: every key must match in name and shape.

    Args:
        model: the network; it is left as it was if anything is wrong.
        path: a file, a published name (`dhn.weights.zoo`) or an https:// address.

    Raises:
        DhnError: the file cannot be had or read, or belongs to another network; the message names
            the first keys that differ.
    """
    file = fetch(path)
    weights = our_state_dict(read_file(file), file)
    _require_match(model, weights, file)
    model.load_state_dict(weights, strict=False)


def warm_start(model: nn.Module, path: Path) -> str:
    """Loads everything that fits into a network that is about to be trained.

    DoubleHigherNet takes the backbone of a HigherHRNet, and its 1/4 head as the coarse one, which
    sees the same map. Layers that follow a layer with fresh weights start fresh, too.

    Args:
        model: any of our networks; whatever the file lacks keeps its fresh weights.
        path: a file with the same backbone inside: an HRNet classifier of the same width, a
            HigherHRNet or any other network; or EfficientNet-Lite0's classifier.

    Returns:
        two lines for people: how many tensors were loaded and which layers start fresh; which
        layers of the file were left out. The step counters of batch norms are not counted.

    Raises:
        DhnError: the file cannot be read, or has another backbone; nothing was loaded.
    """
    weights = our_state_dict(read_file(path), path)
    own = model.state_dict()
    if "coarse_head_quarter.weight" in own:
        weights = {
            re.sub(r"^final_layers\.0\.", "coarse_head_quarter.", key): value
            for key, value in weights.items()
        }
    shared = [key for key in own if key in weights]
    backbone = [key for key in shared if key.startswith("backbone.")]
    if not backbone:
        raise DhnError(f"{path}: holds no backbone to start from ({first_of(weights)})")
    if other := _other_shapes(own, weights, backbone):
        raise DhnError(f"{path}: its backbone is another one: {first_of(other)}")
    fitting = {key: weights[key] for key in shared if weights[key].shape == own[key].shape}
    model.load_state_dict(fitting, strict=False)
    fresh = [key for key in own if key not in fitting]
    left_out = [key for key in weights if key not in fitting]
    return (
        f"loaded {len(_counted(fitting))} of {len(_counted(own))} tensors from {path}; "
        f"fresh: {_summary(fresh)}\nleft out of the file: {_summary(left_out)}"
    )


def _require_match(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    own = model.state_dict()
    shared = [key for key in own if key in weights]
    complaints = [
        f"{what} {first_of(keys)}"
        for what, keys in (
            ("lacks", _counted(key for key in own if key not in weights)),
            ("has unknown", [key for key in weights if key not in own]),
            ("shapes:", _other_shapes(own, weights, shared)),
        )
        if keys
    ]
    if complaints:
        raise DhnError(f"{path}: weights of another network: {'; '.join(complaints)}")


def _counted(keys: Iterable[str]) -> list[str]:
    # Files from before PyTorch 0.4.1 lack the step counters of batch norms. Nothing here uses them.
    return [key for key in keys if not key.endswith("num_batches_tracked")]


def _other_shapes(
    own: Mapping[str, Tensor], weights: Mapping[str, Tensor], keys: Iterable[str]
) -> list[str]:
    """What differs in shape, or is whole numbers where weights are fractions."""
    shapes = [
        f"{key} is {list(weights[key].shape)}, not {list(own[key].shape)}"
        for key in keys
        if weights[key].shape != own[key].shape
    ]
    kinds = [
        f"{key} is {weights[key].dtype}, not {own[key].dtype}"
        for key in keys
        if own[key].is_floating_point() and not weights[key].is_floating_point()
    ]
    return shapes + kinds


def _summary(keys: Iterable[str]) -> str:
    """Counts the keys of each layer, without step counters: `coarse_fusion (4), ...`."""
    layers = Counter(
        ".".join(key.split(".")[: 2 if key.startswith("backbone.") else 1])
        for key in _counted(keys)
    )
    return ", ".join(f"{layer} ({count})" for layer, count in layers.items()) or "nothing"
