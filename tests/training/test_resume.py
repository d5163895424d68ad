"""However a run ends, it goes on to the weights it would have had."""

import itertools
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch
import yaml

from dhn.base.errors import DhnError
from dhn.training import loop, validation
from dhn.training.learner import Learner
from dhn.training.runs import StoppedError, StopSignals
from dhn.weights.checkpoint import load_checkpoint, save_checkpoint
from tiny_runs import (
    CPU,
    TINY,
    assert_same_run,
    invoke,
    lines_of,
    one_thread,
    settings,
    train_command,
)

EVERYTHING = [
    *("data.eval_split=val", "train.epochs=2", "train.eval_every=2", "train.keep_every=1"),
    *("train.ema=0.9", "train.accumulate=2", "train.schedule=cosine", "train.clip_grad_norm=1"),
]


@pytest.fixture(scope="session")
def uninterrupted(crowds, tmp_path_factory):
    run = tmp_path_factory.mktemp("run") / "whole"
    loop.train(settings(crowds, *EVERYTHING), run, CPU)
    return run


def do_at_update(monkeypatch, number, action):
    """Calls `action` at the end of the `number`-th update from now."""
    update, count = Learner.update, itertools.count(1)

    def and_act(*arguments):
        result = update(*arguments)
        if next(count) == number:
            action()
        return result

    monkeypatch.setattr(Learner, "update", and_act)


def test_sigkill_at_any_event_changes_nothing(python, crowds, tmp_path):
    small = ["network.name=hrnet", "train.batch_size=4", "train.epochs=3", "train.eval_every=1"]
    config = settings(crowds, *EVERYTHING, *small)
    (tmp_path / "settings.yaml").write_text(config.to_yaml())
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    script = Path(__file__).parents[1] / "support" / "killed_runs.py"
    result = python.run(script, tmp_path / "settings.yaml", whole, killed, "1")
    assert result.codes == [0], result.stderr
    kills = json.loads(result.stdout)
    assert len(set(kills)) == len(kills) == 16
    assert_same_run(killed, whole)
    names = {path.name for path in killed.iterdir()}
    assert names == {path.name for path in whole.iterdir()}  # nothing half written is left
    assert {"epoch1.pt", "epoch2.pt", "epoch3.pt", "best.pt"} <= names


@pytest.mark.parametrize(
    ("steps", "number"),
    [(1, signal.SIGINT), (3, signal.SIGTERM), (5, signal.SIGINT)],  # 3: the first epoch's last
)
def test_a_stop_writes_a_checkpoint(crowds, tmp_path, monkeypatch, uninterrupted, steps, number):
    run = tmp_path / "run"
    arguments = [*TINY, f"data.dataset={crowds}", *EVERYTHING]
    with monkeypatch.context() as patch:
        do_at_update(patch, steps, lambda: os.kill(os.getpid(), number))
        result = invoke("-q", "--output", run, *arguments)
    assert result.exit_code == 1
    assert result.stderr == f"Error: stopped; go on with: dhn train --resume {run}\n"
    done = load_checkpoint(run / "last.pt").progress
    assert 3 * done["epoch"] + done["step"] == steps
    assert invoke("-q", "--resume", run).exit_code == 0
    assert_same_run(run, uninterrupted)
    assert [line["epoch"] for line in lines_of(run)] == [1, 2]


def test_a_stop_during_an_evaluation_comes_at_once_and_costs_nothing(
    crowds, tmp_path, monkeypatch, uninterrupted
):
    def stopped(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("goes on")

    config = settings(crowds, *EVERYTHING)
    with monkeypatch.context() as patch:
        patch.setattr(validation, "predict_dataset", stopped)
        with pytest.raises(StoppedError, match=r"goes on from last\.pt"):
            loop.train(config, tmp_path, CPU)
    done = load_checkpoint(tmp_path / "last.pt").progress
    assert (done["epoch"], done["step"]) == (1, 3)  # nothing but the evaluation is left
    monkeypatch.setattr(Learner, "update", lambda *_: pytest.fail("trains again"))
    loop.train(config, tmp_path, CPU)
    assert_same_run(tmp_path, uninterrupted)


def test_a_full_disk_keeps_the_last_good_checkpoint(
    crowds, tmp_path, monkeypatch, uninterrupted, full_disk
):
    config = settings(crowds, *EVERYTHING)
    with monkeypatch.context() as patch:
        do_at_update(patch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(StoppedError):
            loop.train(config, tmp_path, CPU)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    size = len(before["last.pt"])
    with full_disk(size // 2), pytest.raises(DhnError, match=r"epoch1.pt: cannot be written \("):
        loop.train(config, tmp_path, CPU)
    assert (tmp_path / "last.pt").read_bytes() == before["last.pt"]
    assert {path.name for path in tmp_path.iterdir()} == before.keys() | {"metrics.jsonl"}
    loop.train(config, tmp_path, CPU)
    assert_same_run(tmp_path, uninterrupted)


def test_ctrl_c_of_the_real_command(crowds, tmp_path):
    """With workers, which get the signal too."""
    arguments = [*TINY, f"data.dataset={crowds}", "train.epochs=9999", "data.workers=1"]
    process = subprocess.Popen(
        train_command("--output", tmp_path / "run", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=one_thread(),
    )
    next(line for line in process.stdout if "epoch 1/9999" in line)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 1
    assert err == f"Error: stopped; go on with: dhn train --resume {tmp_path / 'run'}\n"
    assert load_checkpoint(tmp_path / "run" / "last.pt").progress["epoch"] >= 1


def test_a_checkpoint_is_serialised_once_for_all_its_names(crowds, tmp_path, monkeypatch):
    saved = []
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda *arguments: saved.append(1) or save(*arguments))
    monkeypatch.setattr(validation, "score", lambda *_: {"AP": 0.5})
    loop.train(settings(crowds, *EVERYTHING, "train.epochs=1"), tmp_path, CPU)
    assert len(saved) == 2  # before the epoch is scored, and at its end
    contents = [(tmp_path / name).read_bytes() for name in ("best.pt", "epoch1.pt", "last.pt")]
    assert contents[0] == contents[1] == contents[2]


def test_resume_takes_changed_settings(crowds, tmp_path, monkeypatch):
    invoke("-q", "--output", tmp_path, *TINY, f"data.dataset={crowds}", "train.epochs=1")
    seen = []
    update = Learner.update

    def look(learner, *arguments):
        result = update(learner, *arguments)
        (group,) = learner.optimiser.param_groups
        seen.append((group["lr"], group["weight_decay"]))
        return result

    monkeypatch.setattr(Learner, "update", look)
    changes = ["train.epochs=2", "train.lr=5e-4", "train.weight_decay=0.5"]
    assert invoke("-q", "--resume", tmp_path, *changes).exit_code == 0
    assert seen == [(5e-4, 0.5)] * 3
    written = yaml.safe_load((tmp_path / "config.yaml").read_text())["train"]
    assert (written["epochs"], written["lr"], written["weight_decay"]) == (2, 5e-4, 0.5)
    assert load_checkpoint(tmp_path / "last.pt").config["train"] == written


def test_resume_of_another_network_is_refused(uninterrupted, crowds):
    before = (uninterrupted / "config.yaml").read_bytes()
    result = invoke("--resume", uninterrupted, "network.width=12")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "its network has width 4, which cannot become 12" in result.stderr
    assert (uninterrupted / "config.yaml").read_bytes() == before


def test_a_finished_run_stays_as_it_is(uninterrupted):
    before = (uninterrupted / "last.pt").read_bytes()
    result = invoke("-q", "--resume", uninterrupted)
    assert result.output == f"Result: {uninterrupted}/best.pt\n"
    assert (uninterrupted / "last.pt").read_bytes() == before


def test_a_corrupt_checkpoint_cannot_be_resumed(tmp_path):
    (tmp_path / "last.pt").write_bytes(b"PK\x03\x04 cut off")
    result = invoke("--resume", tmp_path)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert f"{tmp_path / 'last.pt'}: is not a checkpoint, or is cut off" in result.stderr


def test_what_an_earlier_version_wrote_is_named(crowds, tmp_path, uninterrupted):
    old = load_checkpoint(uninterrupted / "last.pt")
    del old.progress["record"]
    save_checkpoint(tmp_path / "last.pt", old)
    result = invoke("--resume", tmp_path)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "last.pt: cannot be resumed, it lacks record" in result.stderr


def test_the_average_is_what_others_open_and_what_is_scored(crowds, tmp_path, monkeypatch):
    scored = []

    class Look(validation.Predictor):
        def __init__(self, model, *arguments, **named):
            scored.append({k: v.clone() for k, v in model.state_dict().items()})
            super().__init__(model, *arguments, **named)

    monkeypatch.setattr(validation, "Predictor", Look)
    loop.train(settings(crowds, *EVERYTHING), tmp_path, CPU)
    checkpoint = load_checkpoint(tmp_path / "last.pt")
    (average,) = scored
    assert all(torch.equal(checkpoint.weights[name], average[name]) for name in average)
    learnt = checkpoint.progress["weights"]
    assert not any(torch.equal(learnt[name], average[name]) for name in ("backbone.conv1.weight",))


def test_averaging_may_begin_in_the_middle_of_a_run(crowds, tmp_path):
    loop.train(settings(crowds, "train.epochs=1"), tmp_path, CPU)
    before = load_checkpoint(tmp_path / "last.pt")
    config = settings(crowds, "train.epochs=2", "train.ema=0.999", "train.lr=1e-5")
    loop.train(config, tmp_path, CPU)
    after = load_checkpoint(tmp_path / "last.pt")
    name = "backbone.conv1.weight"
    steps = [
        (w - before.weights[name]).norm()
        for w in (after.weights[name], after.progress["weights"][name])
    ]
    assert 0 < steps[0] < steps[1]


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_again(crowds, tmp_path):
    config = settings(crowds, "train.epochs=1")
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n')  # the kill came right after it
    (tmp_path / ".abc.last.pt").write_bytes(b"half of a checkpoint")
    assert invoke("-q", "--resume", tmp_path).exit_code == 0
    assert len(lines_of(tmp_path)) == 1
    assert lines_of(tmp_path)[0].keys() > {"loss"}
    assert not (tmp_path / ".abc.last.pt").exists()


def test_a_second_sigterm_waits_for_the_checkpoint_a_second_ctrl_c_does_not():
    with StopSignals() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
