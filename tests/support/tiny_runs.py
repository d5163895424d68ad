"""Small trainings for tests: settings of a tiny network, and how two runs are compared."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from click.testing import CliRunner, Result

from dhn.cli import main
from dhn.training.config import Config, load_config
from dhn.weights.checkpoint import load_checkpoint

TINY = [
    *("network.width=4", "network.modules=[1,1,1]", "network.blocks=1", "network.stem=4"),
    *("data.input_size=64", "data.workers=0", "data.split=train"),
    *("train.batch_size=3", "train.amp=off", "train.lr=1e-3", "train.init=null"),
    "train.tensorboard=off",
]
CPU = torch.device("cpu")


def settings(dataset: Path, *overrides: str) -> Config:
    return load_config(overrides=[*TINY, f"data.dataset={dataset}", *overrides])


def train_command(*arguments: object) -> list[str]:
    """`dhn train` as a command of its own."""
    return [sys.executable, "-m", "dhn", "train", "--device", "cpu", *map(str, arguments)]


def one_thread() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["train", "--device", "cpu", *map(str, arguments)])


def lines_of(run: Path) -> list[dict[str, Any]]:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    text = (run / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def assert_same_run(run: Path, other: Path) -> None:
    """Weights, running statistics, averages, the optimiser's moments and all else, bit for bit."""
    ours, theirs = load_checkpoint(run / "last.pt"), load_checkpoint(other / "last.pt")
    assert_same(ours.weights, theirs.weights)
    measured = ("waited", "seconds", "images_per_second", "data_wait", "memory_gb")
    assert_same(ours.progress, theirs.progress, but=("size", *measured))
    logs = [
        [{k: v for k, v in line.items() if k not in measured} for line in lines_of(folder)]
        for folder in (run, other)
    ]
    assert logs[0] == logs[1]


def assert_same(ours: Any, theirs: Any, where: str = "", but: tuple[str, ...] = ()) -> None:
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours.keys() - but:
            assert_same(ours[key], theirs[key], f"{where}/{key}", but)
    elif isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), where
    else:
        assert ours == theirs, where
