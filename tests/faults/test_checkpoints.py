"""Checkpoints whose parts are missing, of another kind or of another size: one line each."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tiny_runs import TINY

Content = dict[str, Any]
Change = Callable[[Content], Any]
WEIGHT = "backbone.conv1.weight"


def part(name: str, /, **values: Any) -> Change:
    """Sets values in a part of the checkpoint."""
    return lambda content: content[name].update(values)


def whole(name: str, value: Any) -> Change:
    return lambda content: content.update({name: value})


CHANGES: dict[str, Change] = {
    "no network": lambda content: content.pop("network"),
    "no weights": lambda content: content.pop("weights"),
    "no joints": lambda content: content.pop("joints"),
    "network as a list": whole("network", [1]),
    "network as text": whole("network", "doublehighernet"),
    "another network": part("network", name="resnet"),
    "no name": lambda content: content["network"].pop("name"),
    "a setting nobody knows": part("network", depth=3),
    "a width as text": part("network", width="8"),
    "a negative width": part("network", width=-8),
    "a width of a million": part("network", width=1_000_000),
    "another width": part("network", width=16),
    "endless modules": part("network", modules=(10**9, 1, 1)),
    "no modules": part("network", modules=()),
    "other joints": part("network", num_joints=15),
    "no number of joints": part("network", num_joints=None),
    "joints as a number": whole("joints", 14),
    "joint names of numbers": part("joints", names=tuple(range(14))),
    "a joint missing": part("joints", names=("head",)),
    "flip beyond": part("joints", flip=(99,) * 14),
    "flip of another length": part("joints", flip=(0,)),
    "flip as text": part("joints", flip="abc"),
    "sigmas as NaN": part("joints", sigmas=(float("nan"),) * 14),
    "sigmas below zero": part("joints", sigmas=(-1.0,) * 14),
    "limbs beyond": part("joints", skeleton=((0, 99),)),
    "limbs of three": part("joints", skeleton=((0, 1, 2),)),
    "weights as a list": whole("weights", [torch.zeros(1)]),
    "a weight missing": lambda content: content["weights"].pop(WEIGHT),
    "a weight too many": part("weights", extra=torch.zeros(1)),
    "a weight as text": part("weights", **{WEIGHT: "abc"}),
    "a weight of another shape": part("weights", **{WEIGHT: torch.zeros(1)}),
    "a complex weight": part("weights", **{WEIGHT: torch.zeros(8, 3, 3, 3, dtype=torch.complex64)}),
    "an input size as text": whole("config", {"data": {"input_size": "big"}}),
    "an input size of 0": whole("config", {"data": {"input_size": 0}}),
    "a config as a list": whole("config", []),
    "another format": whole("format", "dhn-999"),
}
USES = [
    ("predict", "photo.png", "--checkpoint", "changed.pt", "--device", "cpu"),
    ("eval", "--checkpoint", "changed.pt", "--dataset", "crowds", "--split", "val"),
    ("export", "--checkpoint", "changed.pt", "-o", "new.safetensors"),
]


@pytest.mark.parametrize("name", CHANGES)
def test_changed_checkpoints(world: Path, refused, name: str) -> None:
    content = torch.load("best.pt", weights_only=True)
    CHANGES[name](content)
    torch.save(content, "changed.pt")
    for command in USES:
        refused(1, "changed.pt")(*command)


@pytest.mark.parametrize("name", ["no weights", "weights as a list", "a weight as text"])
def test_changed_checkpoints_start_no_training(world: Path, refused, name: str) -> None:
    content = torch.load("best.pt", weights_only=True)
    CHANGES[name](content)
    torch.save(content, "changed.pt")
    command = refused(1, "changed.pt")
    command("train", *TINY, "data.dataset=crowds", "train.init=changed.pt", "--output", "new")


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_checkpoints_cut_short(world: Path, refused, kind: str, share: float) -> None:
    if kind == "safetensors":
        from dhn.weights.checkpoint import load_checkpoint
        from dhn.weights.compact import write_compact

        write_compact(world / "whole.safetensors", load_checkpoint("best.pt"), {"summary": "x"})
        data = (world / "whole.safetensors").read_bytes()
    else:
        data = (world / "best.pt").read_bytes()
    name = f"cut.{kind}"
    (world / name).write_bytes(data[: int(share * len(data))])
    for command in USES[:1]:
        refused(1, name)(*(name if word == "changed.pt" else word for word in command))
