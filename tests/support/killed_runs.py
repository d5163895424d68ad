"""Trains one run whole, and the same run killed at every event; started by test_resume.py.

    python killed_runs.py SETTINGS.yaml WHOLE KILLED SEED

Each attempt is a process of its own, forked so that torch is imported once. It kills itself with
SIGKILL at an event of the training, so nothing depends on how fast the machine is. Prints the
events, in the order in which they killed, as JSON.
"""

import json
import os
import random
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import torch

from dhn.training import learner, loop, runs
from dhn.training.config import load_config
from dhn.training.learner import Learner
from dhn.training.loop import train
from dhn.training.record import Record
from dhn.training.settings import Config


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_half_way(file: int) -> None:
    """Stands in for fsync: the disk has half of the file."""
    os.ftruncate(file, os.fstat(file).st_size // 2)
    die()


def write_half_a_line(record: Record, line: dict[str, float]) -> None:
    """Stands in for the method that appends a line to metrics.jsonl."""
    text = json.dumps(line)
    with record.path.open("a") as log:
        log.write(text[: len(text) // 2])
    die()


def then_die(owner: Any, name: str) -> Callable[..., Any]:
    """A function that does its work, and dies before it returns."""
    function = getattr(owner, name)

    def work_and_die(*arguments: Any, **named: Any) -> None:
        function(*arguments, **named)
        die()

    return work_and_die


def die_at_checkpoint(source: Path, target: Path) -> None:
    """Stands in for the renaming of a file that is written."""
    if target.suffix == ".pt":
        die()
    os.rename(source, target)


# An event is named by what it interrupts: whose attribute is replaced, and by what.
Event = tuple[Any, str, Callable[..., Any]]
UPDATE: dict[str, Event] = {
    "before anything is written": (loop, "open_run", die),
    "before the settings get their name": (os, "replace", die),
    "before an update": (Learner, "update", die),
    "after the gradients of an update": (Learner, "_apply", die),
    "after the step of an update": (Learner, "_apply", then_die(Learner, "_apply")),
    "after the average of an update": (
        learner,
        "_move_average",
        then_die(learner, "_move_average"),
    ),
    "after an update": (Learner, "update", then_die(Learner, "update")),
}
END: dict[str, Event] = {
    "before a checkpoint is written": (runs, "write_serialised", die),
    "half way through a checkpoint": (os, "fsync", die_half_way),
    "before a checkpoint gets its name": (os, "replace", die_at_checkpoint),
    "after a checkpoint": (runs, "write_serialised", then_die(runs, "write_serialised")),
    "during the scoring of an epoch": (loop, "score_held_out", die),
    "before the line of an epoch": (Record, "epoch", die),
    "half way through the line of an epoch": (Record, "_append", write_half_a_line),
    "after the line of an epoch": (Record, "epoch", then_die(Record, "epoch")),
    "after the checkpoints of an epoch": (
        runs.Checkpoints,
        "save_epoch",
        then_die(runs.Checkpoints, "save_epoch"),
    ),
}
EVENTS = UPDATE | END


def drawn_order() -> list[str]:
    """All events, half of them for the first epoch and half for the second.

    Those of an epoch's end come after those of an update: a run that was killed at the end goes on
    there.
    """
    order = []
    updates, ends = (rng.sample(list(events), len(events)) for events in (UPDATE, END))
    for half in (0, 1):
        order += updates[half::2] + ends[half::2]
    return order


def settings() -> Config:
    """A checkpoint is due after each update, or at the ends of epochs alone."""
    minutes = rng.choice([0, 10_000])
    return load_config(sys.argv[1], [f"train.checkpoint_every={minutes}"])


def attempt(run: Path, event: str | None = None) -> bool:
    """Trains in a process that dies at an event, or at none; whether it finished."""
    config = settings()
    child = os.fork()
    if child == 0:
        try:
            if event is not None:
                setattr(*EVENTS[event])
            train(config, run, CPU)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit("an attempt failed")
    return os.WIFEXITED(status)


# Threads would not be there in a fork.
torch.set_num_threads(1)
cv2.setNumThreads(0)
CPU = torch.device("cpu")
whole, killed, rng = Path(sys.argv[2]), Path(sys.argv[3]), random.Random(int(sys.argv[4]))
train(settings(), whole, CPU)  # here, so that the attempts find everything imported
order = drawn_order()
for event in order:
    if attempt(killed, event):
        sys.exit(f"the run ended before it came to an event: {event}")
attempt(killed)
print(json.dumps(order))
