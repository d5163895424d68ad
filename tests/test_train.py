import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner
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

import dhn.train
from dhn.checkpoint import load_checkpoint
from dhn.cli import main
from dhn.config import Config, load_config
from dhn.errors import DhnError
from dhn.learner import Learner, Update
from dhn.runs import new_run
from dhn.synth import CrowdConfig, generate


def dhn_train(*arguments, folder=None) -> subprocess.CompletedProcess:
    return subprocess.run(
        train_command(*arguments),
        capture_output=True,
        text=True,
        cwd=folder,
        env=one_thread(),
        check=False,
    )


def test_the_real_command_makes_a_run_folder(crowds, tmp_path):
    arguments = [*TINY, f"data.dataset={crowds}", "train.epochs=2"]
    result = dhn_train("--output", "runs/one", *arguments, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    run = tmp_path / "runs" / "one"
    names = {path.name for path in run.iterdir()}
    assert names == {"config.yaml", "environment.json", "last.pt", "metrics.jsonl"}  # no best.pt
    assert result.stdout.splitlines()[-1] == "Result: runs/one/last.pt"
    assert "epoch 2/2: loss" in result.stdout

    config = load_config(str(run / "config.yaml"))
    assert config == load_config(overrides=arguments)
    environment = json.loads((run / "environment.json").read_text())
    assert environment["torch"] == torch.__version__
    checkpoint = load_checkpoint(run / "last.pt")
    assert Config.model_validate(checkpoint.config) == config
    assert (checkpoint.progress["epoch"], checkpoint.progress["step"]) == (2, 0)
    assert checkpoint.joints.name == "crowdpose"
    checkpoint.build()
    first, second = lines_of(run)
    assert (first["epoch"], second["epoch"]) == (1, 2)
    keys = {"epoch", "lr", "loss", "heatmap", "flat", "pull", "push", "images_per_second"}
    assert keys <= first.keys()
    assert first["skipped"] == 0
    assert all(math.isfinite(value) for value in first.values())


def test_quiet_prints_the_result_alone(crowds, tmp_path):
    run = tmp_path / "run"
    result = invoke("-q", "--output", run, *TINY, f"data.dataset={crowds}", "train.epochs=1")
    assert result.exit_code == 0
    assert result.output == f"Result: {run}/last.pt\n"


def test_best_exists_where_a_split_is_held_out(crowds, tmp_path, monkeypatch):
    aps = iter([0.2, 0.5, 0.4])
    monkeypatch.setattr(dhn.train, "score", lambda *_: {"AP": next(aps)})
    config = settings(crowds, "data.eval_split=val", "train.epochs=5", "train.eval_every=2")
    result = dhn.train.train(config, tmp_path, CPU, quiet=True)
    assert result == tmp_path / "best.pt"
    assert load_checkpoint(result).progress["epoch"] == 4
    assert load_checkpoint(tmp_path / "last.pt").progress["epoch"] == 5
    scored = {line["epoch"]: line["AP"] for line in lines_of(tmp_path) if "AP" in line}
    assert scored == {2: 0.2, 4: 0.5, 5: 0.4}  # and always after the last


def test_held_out_pictures_are_really_scored(crowds, tmp_path):
    config = settings(crowds, "data.eval_split=val", "train.epochs=1", "train.eval_every=1")
    dhn.train.train(config, tmp_path, CPU, quiet=True)
    (line,) = lines_of(tmp_path)
    assert {"AP", "AP50", "AR", "AP_easy", "AP_hard"} <= line.keys()
    assert 0 <= line["AP"] <= 1


def do_at_update(monkeypatch, number, action):
    """Calls `action` at the end of the `number`-th update from now."""
    update, count = Learner.update, itertools.count(1)

    def and_act(*arguments):
        result = update(*arguments)
        if next(count) == number:
            action()
        return result

    monkeypatch.setattr(Learner, "update", and_act)


@pytest.fixture(scope="session")
def uninterrupted(crowds, tmp_path_factory):
    run = tmp_path_factory.mktemp("run") / "whole"
    dhn.train.train(settings(crowds, "train.epochs=2"), run, CPU, quiet=True)
    return run


@pytest.mark.parametrize(
    ("steps", "number"),
    [(1, signal.SIGINT), (3, signal.SIGTERM), (5, signal.SIGINT)],  # 3: the first epoch's last
)
def test_resume_goes_on_bit_for_bit(crowds, tmp_path, monkeypatch, uninterrupted, steps, number):
    run = tmp_path / "run"
    arguments = [*TINY, f"data.dataset={crowds}", "train.epochs=2"]
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


def test_ctrl_c_of_the_real_command(crowds, tmp_path):
    """With workers, which get the signal too."""
    arguments = [*TINY, f"data.dataset={crowds}", "train.epochs=9999", "data.workers=1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "dhn", "train", "--output", str(tmp_path / "run"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert "epoch 1/9999" in process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 1
    assert err == f"Error: stopped; go on with: dhn train --resume {tmp_path / 'run'}\n"
    assert load_checkpoint(tmp_path / "run" / "last.pt").progress["epoch"] >= 1


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
    assert "its network has width 8, which cannot become 12" in result.stderr
    assert (uninterrupted / "config.yaml").read_bytes() == before


def test_a_finished_run_stays_as_it_is(uninterrupted):
    before = (uninterrupted / "last.pt").read_bytes()
    result = invoke("-q", "--resume", uninterrupted)
    assert result.output == f"Result: {uninterrupted}/last.pt\n"
    assert (uninterrupted / "last.pt").read_bytes() == before


def test_losses_that_stay_broken_end_the_run(crowds, tmp_path, monkeypatch):
    count, update = itertools.count(1), Learner.update

    def break_all_but_the_fifth(*arguments):
        result = update(*arguments)
        return result if next(count) == 5 else Update(result.loss, result.images, False)

    monkeypatch.setattr(Learner, "update", break_all_but_the_fifth)
    config = settings(crowds, "train.epochs=999", "train.max_bad_steps=6")
    with pytest.raises(DhnError, match="not finite for 6 updates in a row"):
        dhn.train.train(config, tmp_path, CPU, quiet=True)
    assert next(count) == 5 + 6 + 1
    first, second, third = lines_of(tmp_path)
    assert (first["skipped"], second["skipped"], third["skipped"]) == (3, 2, 3)
    assert first["loss"] is None  # no step of it counted: null, for JSON has no NaN
    assert second["loss"] is not None


def small_copy(crowds, tmp_path) -> Path:
    """The pictures as links, which can be broken."""
    copy = tmp_path / "copy"
    (copy / "images").mkdir(parents=True)
    (copy / "json").symlink_to(crowds / "json")
    for picture in (crowds / "images").iterdir():
        (copy / "images" / picture.name).symlink_to(picture)
    return copy


def test_bad_pictures_are_told_once_and_left_out(crowds, tmp_path):
    copy = small_copy(crowds, tmp_path)
    (copy / "images" / "000001.jpg").unlink()
    (copy / "images" / "000004.jpg").unlink()
    (copy / "images" / "000004.jpg").write_text("<html>")
    arguments = [*TINY, f"data.dataset={copy}", "train.epochs=2", "train.batch_size=1"]
    result = invoke("-q", "--output", tmp_path / "run", *arguments)
    assert result.exit_code == 0
    warnings = result.stderr.splitlines()
    assert len(warnings) == 2
    assert any("000001.jpg: cannot be read" in line for line in warnings)
    assert any("000004.jpg: is not a picture" in line for line in warnings)


def test_pictures_that_are_all_bad_end_the_run(crowds, tmp_path):
    copy = small_copy(crowds, tmp_path)
    for picture in (copy / "images").iterdir():
        picture.unlink()
        picture.write_text("<html>")
    result = invoke("-q", "--output", tmp_path / "run", *TINY, f"data.dataset={copy}")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("Error: 8 of 8 pictures cannot be read")
    assert not (tmp_path / "run" / "last.pt").exists()


@pytest.mark.parametrize("missing", ["train", "val"])
def test_missing_pictures_are_one_line_before_anything_is_trained(crowds, tmp_path, missing):
    copy = small_copy(crowds, tmp_path)
    truth = json.loads((crowds / "json" / f"crowdpose_{missing}.json").read_text())
    for image in truth["images"]:
        (copy / "images" / image["file_name"]).unlink()
    arguments = [*TINY, f"data.dataset={copy}", "data.eval_split=val"]
    result = invoke("--output", tmp_path / "run", *arguments)
    assert result.exit_code == 1
    count = len(truth["images"])
    assert f"images: none of the {count} pictures of split {missing} is there" in result.stderr
    assert result.stderr.count("\n") == 1


def test_without_data_one_line_says_where_it_comes_from(tmp_path):
    result = dhn_train(folder=tmp_path)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "https://github.com/jeffffffli/CrowdPose" in result.stderr
    assert "dhn train --config demo" in result.stderr
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["--nonsense"], 2, "No such option"),
        (["--resume", "x", "--config", "demo"], 2, "leave out --config and --output"),
        (["--resume", "x", "--output", "y"], 2, "leave out --config and --output"),
        (["train.epoch=3"], 1, "did you mean train.epochs?"),
        (["epochs"], 1, "overrides are written a.b=value"),
        (["train.lr=-1"], 1, "train.lr: Input should be greater than 0"),
        (["--config", "demmo"], 1, "did you mean demo?"),
        (["--resume", "none"], 1, "--resume none: no last.pt there"),
        (["data.dataset=none.json"], 1, "none.json: no such folder or file"),
        (["--config", "demo", "data.dataset=none.json"], 1, "none.json: no such folder or file"),
        (["--config", "demo", "data.dataset=coco"], 1, "get COCO from https://cocodataset.org"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, monkeypatch, arguments, code, named):
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments)
    assert result.exit_code == code
    assert named in result.stderr
    assert code == 2 or result.stderr.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_a_device_that_is_not_there_is_named(crowds, tmp_path):
    arguments = ["train", "--output", str(tmp_path / "run"), f"data.dataset={crowds}"]
    result = CliRunner().invoke(main, [*arguments, "--device", "gpu"])
    assert result.exit_code == 1
    assert "--device gpu: must be auto, cpu, cuda" in result.stderr


def test_output_must_not_hold_a_run(uninterrupted):
    result = invoke("--output", uninterrupted, "train.epochs=1")
    assert result.exit_code == 2
    assert f"--resume {uninterrupted}" in result.stderr


def test_a_corrupt_checkpoint_cannot_be_resumed(tmp_path):
    (tmp_path / "last.pt").write_bytes(b"PK\x03\x04 cut off")
    result = invoke("--resume", tmp_path)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert f"{tmp_path / 'last.pt'}: not a checkpoint, or cut off" in result.stderr


def test_show_config_prints_the_settings(tmp_path):
    result = invoke("--show-config", "--config", "demo", "train.epochs=2")
    assert result.exit_code == 0
    (tmp_path / "c.yaml").write_text(result.output)
    assert load_config(str(tmp_path / "c.yaml")) == load_config("demo", ["train.epochs=2"])


def test_crowds_are_drawn_where_the_settings_ask_for_them(tmp_path, monkeypatch):
    drawn = []

    def draw(folder, images, **arguments):
        drawn.append((folder, images))
        return generate(folder, images, 0, config=CrowdConfig(size=96), overwrite=True)

    monkeypatch.setattr(dhn.train, "generate", draw)
    data = tmp_path / "data"
    config = settings(data, "data.synthetic=10", "train.epochs=1")
    dhn.train.train(config, tmp_path / "one", CPU, quiet=True)
    assert drawn == [(data, 10)]
    dhn.train.train(config, tmp_path / "two", CPU, quiet=True)
    assert len(drawn) == 1  # they are there
    (data / "json" / "crowdpose_test.json").unlink()  # as if drawing had been interrupted
    dhn.train.train(config, tmp_path / "three", CPU, quiet=True)
    assert len(drawn) == 2


def test_somebodys_folder_is_never_drawn_into(tmp_path):
    (tmp_path / "photos").mkdir()
    config = settings(tmp_path / "photos", "data.synthetic=10")
    with pytest.raises(DhnError, match="no annotations of split train"):
        dhn.train.train(config, tmp_path / "run", CPU, quiet=True)
    assert not any((tmp_path / "photos").iterdir())


def test_runs_are_named_by_network_data_and_time():
    run = new_run(load_config())
    assert run.parent == Path("runs")
    assert run.name.startswith("doublehighernet_w32_crowdpose-" + time.strftime("%Y"))
