"""What a file says about itself, checked before anything is built from it.

A file from elsewhere may hold anything under the names that dhn writes. The models below say what
may stand there; whatever else a file holds is left alone.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from dhn.base.errors import DhnError

JointIndex = Annotated[int, Field(ge=0)]
Limb = Annotated[Sequence[JointIndex], Field(min_length=2, max_length=2)]
Sigma = Annotated[float, Field(gt=0, allow_inf_nan=False)]
# Limits far above every real network: building one takes time in proportion to these numbers.
Count = Annotated[int, Field(ge=1, le=16)]
InputSize = Annotated[int, Field(ge=64, le=8192, multiple_of=64)]


class _Claim(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _Joints(_Claim):
    """The fields of `JointSet`, which fit each other."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=200)
    names: Sequence[str] = Field(min_length=1, max_length=1000)
    skeleton: Sequence[Limb] = Field(max_length=10_000)
    flip: Sequence[JointIndex]
    sigmas: Sequence[Sigma]
    grouping_order: Sequence[JointIndex] | None = None

    @model_validator(mode="after")
    def _fit(self) -> "_Joints":
        J = len(self.names)
        if len(set(self.names)) < J:
            raise ValueError("two joints have the same name")
        if any(j >= J for limb in self.skeleton for j in limb):
            raise ValueError(f"the skeleton has joints beyond the {J} names")
        if sorted(self.flip) != list(range(J)) or any(
            self.flip[partner] != j for j, partner in enumerate(self.flip)
        ):
            raise ValueError(f"flip does not pair the {J} joints")
        if len(self.sigmas) != J:
            raise ValueError(f"there are {len(self.sigmas)} sigmas for {J} joints")
        if self.grouping_order is not None and sorted(self.grouping_order) != list(range(J)):
            raise ValueError(f"grouping_order does not hold each of the {J} joints once")
        return self


class _Network(_Claim):
    """Those arguments of `build_model` that cost time; it checks the others itself."""

    name: str
    num_joints: int = Field(ge=1, le=1000)
    modules: Annotated[Sequence[Count], Field(max_length=4)] = (1,)
    blocks: Count = 1
    branches: Count = 1


class _Data(_Claim):
    input_size: InputSize | None = None
    eval_size: InputSize | None = None


class _Config(_Claim):
    data: _Data = _Data()


class _Progress(_Claim):
    epoch: int = Field(0, ge=0)
    step: int = Field(0, ge=0)
    updates: int = Field(0, ge=0)
    best_ap: float = 0.0
    since_best: int = Field(0, ge=0)
    optimiser: dict[str, Any] = {}
    scaler: dict[str, Any] = {}
    record: dict[str, Any] = {}
    random: dict[str, Any] = {}
    weights: dict[str, Any] = {}


class _Checkpoint(_Claim):
    network: _Network
    joints: _Joints
    weights: dict[str, Any]
    config: _Config
    progress: _Progress

    @model_validator(mode="after")
    def _fit(self) -> "_Checkpoint":
        if self.network.num_joints != len(self.joints.names):
            raise ValueError(
                f"the network has {self.network.num_joints} joints, not {len(self.joints.names)}"
            )
        return self


class _Description(_Claim):
    """The fields of `dhn.inference.exported.Description`."""

    network: str = Field(max_length=200)
    joints: _Joints
    input_size: InputSize
    flip: bool
    fine_only: bool


def check_checkpoint(content: Any, path: object) -> None:
    """Checks everything in a dhn checkpoint that is used; messages name `path`.

    Raises:
        DhnError: something is missing, of the wrong type or shape, or out of range.
    """
    _check(_Checkpoint, content, path)
    check_tensors(content["weights"], path)
    if "weights" in content["progress"]:
        check_tensors(content["progress"]["weights"], path)


def check_description(fields: Any, path: object) -> None:
    """Checks what an exported file says about itself.

    Raises:
        DhnError: as of `check_checkpoint`.
    """
    _check(_Description, fields, path)


def check_tensors(weights: Any, path: object) -> None:
    """Checks that `weights` are plain, finite tensors by name.

    Raises:
        DhnError: they are not; the message names `path` and the tensor.
    """
    if not isinstance(weights, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in weights.items()
    ):
        raise DhnError(f"{path}: holds no state dict (tensors by name)")
    for name, tensor in weights.items():
        if problem := _problem(tensor):
            raise DhnError(f"{path}: {printable(name)} {problem}")


def _problem(tensor: Tensor) -> str | None:
    if (
        type(tensor) not in (Tensor, torch.nn.Parameter)
        or tensor.layout != torch.strided
        or tensor.device.type != "cpu"
        or tensor.is_quantized
        or tensor.is_complex()
    ):
        return "is no plain tensor (but sparse, quantised, complex or without values)"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return f"claims the shape {list(tensor.shape)}, which is more than the file holds"
    if tensor.is_floating_point() and not tensor.float().isfinite().all():
        return "is not finite (NaN or infinity): the training diverged; take an earlier checkpoint"
    return None


def _check(model: type[_Claim], content: Any, path: object) -> None:
    try:
        model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = printable(".".join(map(str, first["loc"])) or "all together")
        message = printable(first["msg"].removeprefix("Value error, "))
        raise DhnError(
            f"{path}: was not written by this version of dhn, or was changed ({where}: {message})"
        ) from error


def printable(text: str) -> str:
    """A name from a file for messages: short, on one line, without control characters."""
    clean = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text[:100]
    )
    return clean + ("..." if len(text) > 100 else "")
