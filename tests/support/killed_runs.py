"""Trains one run whole and the same run under SIGKILL; started by test_resume.py.

    python killed_runs.py SETTINGS.yaml WHOLE KILLED SEED

Each attempt is a process of its own, forked so that torch is imported once. Prints, as JSON, where
the attempts were killed.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dhn.training import runs
from dhn.training.config import load_config
from dhn.training.learner import Learner
from dhn.training.loop import train
from dhn.training.record import Record


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_half_way(file: int) -> None:
    """Stands in for fsync: the disk has half of the file."""
    os.ftruncate(file, os.fstat(file).st_size // 2)
    die()


def then_die(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any, **named: Any) -> None:
        function(*arguments, **named)
        die()

    return run


# Each is one attempt: what is replaced before the run goes on.
PLACES: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "before anything is written": (Record, "start", die),
    "while a checkpoint is written": (os, "fsync", die_half_way),
    "after an update": (Learner, "update", then_die(Learner.update)),
    "after a checkpoint": (runs, "save_checkpoint", then_die(runs.save_checkpoint)),
    "before the line of an epoch": (Record, "epoch", die),
    "after the line of an epoch": (Record, "epoch", then_die(Record.epoch)),
}


def attempt(run: Path, place: str | None = None, seconds: float | None = None) -> bool:
    """Trains in a process that dies at a place, or after a time, or not; whether it finished."""
    every = f"train.checkpoint_every={rng.choice([0, 60])}"  # after each update, or each epoch
    config = load_config(sys.argv[1], [every])
    child = os.fork()
    if child == 0:
        try:
            if place is not None:
                setattr(*PLACES[place])
            train(config, run, torch.device("cpu"), quiet=True)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit("an attempt failed")
    return os.WIFEXITED(status)


torch.set_num_threads(1)
whole, killed, rng = Path(sys.argv[2]), Path(sys.argv[3]), random.Random(int(sys.argv[4]))
started = time.monotonic()
assert attempt(whole)
duration = time.monotonic() - started

ways: list[tuple[str | None, float | None]] = [(place, None) for place in PLACES]
ways += [(None, rng.uniform(0.1, 0.6) * duration) for _ in range(3)]
kills = [
    place or f"after {seconds:.2f} of {duration:.2f} s"
    for place, seconds in rng.sample(ways, len(ways))
    if not attempt(killed, place, seconds)
]
attempt(killed)
print(json.dumps(kills))
