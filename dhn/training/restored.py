"""Checks what a checkpoint says about its run before anything takes it over.

A file may be damaged or made up. PyTorch's optimisers take moments of any shape, and the fused ones
then read beyond them.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dhn.training.learner import Learner


def check_restored(
    weights: Any, progress: dict[str, Any], learner: Learner, loss_parts: int
) -> None:
    """Compares weights and progress of a checkpoint with the learner that is to go on from them.

    Args:
        weights: the checkpoint's weights, for `learner.averaged`.
        progress: what a checkpoint keeps of a run.
        learner: built from the same settings.
        loss_parts: how many losses a record adds up.

    Raises:
        ValueError: says what is wrong.
    """
    _check_tensors("weights", weights, learner.averaged)
    _check_tensors("progress weights", progress["weights"], learner.model)
    for name in ("epoch", "step", "updates"):
        _check_count(name, progress.get(name))
    _check_number("best_ap", progress.get("best_ap"), low=-1)
    _check_count("since_best", progress.get("since_best", 0))
    learning = [p for group in learner.optimiser.param_groups for p in group["params"]]
    _check_moments(progress.get("optimiser"), learning)
    _check_scaler(progress["scaler"])
    _check_record(progress["record"], loss_parts)


def _check_tensors(what: str, state: Any, network: nn.Module) -> None:
    own = network.state_dict()
    if not isinstance(state, Mapping) or state.keys() != own.keys():
        raise ValueError(f"its {what} are not those of the network")
    for name, value in own.items():
        _check_like(f"{what} {name}", state[name], value)


def _check_like(what: str, value: Any, like: Tensor) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(f"its {what} is no tensor")
    if value.shape != like.shape or value.dtype != like.dtype or value.layout != torch.strided:
        raise ValueError(
            f"its {what} is {value.dtype} {list(value.shape)}, not {like.dtype} {list(like.shape)}"
        )


def _check_moments(state: Any, parameters: list[nn.Parameter]) -> None:
    """The state of Adam and AdamW: moments like the parameters, and a number of steps."""
    moments = state.get("state") if isinstance(state, dict) else None
    if not isinstance(moments, dict) or moments.keys() not in (set(), set(range(len(parameters)))):
        raise ValueError(
            "its optimiser's state is not that of the layers that learn; train.freeze cannot change"
        )
    for number, moment in moments.items():
        if not isinstance(moment, dict) or moment.keys() != {"step", "exp_avg", "exp_avg_sq"}:
            raise ValueError(f"its optimiser's state {number} is not one of Adam's")
        for name in ("exp_avg", "exp_avg_sq"):
            _check_like(f"optimiser's {name} {number}", moment[name], parameters[number])
        step = moment["step"]
        _check_like(f"optimiser's step {number}", step, torch.zeros(()))
        if not 0 <= step.item() < math.inf:
            raise ValueError(f"its optimiser's step {number} is {step.item()}")


def _check_scaler(state: Any) -> None:
    numbers = {"scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker"}
    if not isinstance(state, dict) or state.keys() not in (set(), numbers):
        raise ValueError("its scaler is not a scaler's state")
    for name, value in state.items():
        _check_number(f"scaler {name}", value, low=0)
    for name in ("growth_interval", "_growth_tracker"):
        if name in state:
            _check_count(f"scaler {name}", state[name])


def _check_record(state: Any, loss_parts: int) -> None:
    counts, numbers = ("size", "steps", "images", "skipped"), ("lr", "waited", "seconds")
    if not isinstance(state, dict) or state.keys() != {"sums", *counts, *numbers}:
        raise ValueError("its record is not that of a run")
    for name in counts:
        _check_count(f"record {name}", state[name])
    for name in numbers:
        _check_number(f"record {name}", state[name], low=0)
    sums = state["sums"]
    if not isinstance(sums, Tensor) or sums.shape not in ((), (loss_parts,)):
        raise ValueError("its record's sums are not those of the losses")
    if sums.dtype != torch.float32:
        raise ValueError(f"its record's sums are {sums.dtype}, not float32")


def _check_count(what: str, value: Any) -> None:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"its {what} is no count")


def _check_number(what: str, value: Any, *, low: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value < 2**63:
        raise ValueError(f"its {what} is no number of {low:g} or more")
