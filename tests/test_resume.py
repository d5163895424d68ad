"""However a run ends, it goes on to the weights it would have had."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import CPU, TINY, assert_same_run, invoke, lines_of, one_thread, settings

import dhn.train
from dhn.checkpoint import load_checkpoint
from dhn.errors import DhnError
from dhn.learner import Learner

EVERYTHING = [
    *("data.eval_split=val", "train.epochs=2", "train.eval_every=2", "train.keep_every=1"),
    *("train.ema=0.9", "train.accumulate=2", "train.schedule=cosine", "train.clip_grad_norm=1"),
]


@pytest.fixture(scope="session")
def uninterrupted(crowds, tmp_path_factory):
    run = tmp_path_factory.mktemp("run") / "whole"
    dhn.train.train(settings(crowds, *EVERYTHING), run, CPU, quiet=True)
    return run


def test_sigkill_at_any_moment_changes_nothing(crowds, tmp_path):
    (tmp_path / "settings.yaml").write_text(settings(crowds, *EVERYTHING).to_yaml())
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    script = Path(__file__).with_name("killed_runs.py")
    command = [sys.executable, script, tmp_path / "settings.yaml", whole, killed, "1"]
    result = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, env=one_thread(), check=False
    )
    assert result.returncode == 0, result.stderr
    kills = json.loads(result.stdout)
    assert len(kills) >= 6, kills
    assert {"while a checkpoint is written", "after the line of an epoch"} <= set(kills)
    assert_same_run(killed, whole)
    names = {path.name for path in killed.iterdir()}
    assert names == {path.name for path in whole.iterdir()}  # nothing half written is left
    assert {"epoch1.pt", "epoch2.pt", "best.pt"} <= names
