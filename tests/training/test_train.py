import itertools
import json
import math
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from dhn.base.distributed import ALONE
from dhn.base.errors import DhnError
from dhn.base.progress import silent
from dhn.cli import main
from dhn.synth import CrowdConfig, generate
from dhn.training import loop, setup, validation
from dhn.training.config import load_config
from dhn.training.learner import Learner, Update
from dhn.training.runs import new_run
from dhn.training.settings import Config
from dhn.training.setup import open_data
from dhn.weights.checkpoint import load_checkpoint
from tiny_runs import (
    CPU,
    TINY,
    assert_same_run,
    invoke,
    lines_of,
    settings,
)


def test_the_real_command_makes_a_run_folder(python, crowds, tmp_path):
    arguments = [*TINY, f"data.dataset={crowds}", "train.epochs=2"]
    command = ["-m", "dhn", "train", "--device", "cpu", "--output", "runs/one"]
    result = python.run(*command, *arguments, folder=tmp_path)
    assert result.codes == [0], result.stderr
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
    monkeypatch.setattr(validation, "score", lambda *_: {"AP": next(aps)})
    often = ["train.epochs=5", "train.eval_every=2", "train.batch_size=8"]
    config = settings(crowds, "data.eval_split=val", *often)
    result = loop.train(config, tmp_path, CPU)
    assert result == tmp_path / "best.pt"
    assert load_checkpoint(result).progress["epoch"] == 4
    assert load_checkpoint(tmp_path / "last.pt").progress["epoch"] == 5
    scored = {line["epoch"]: line["AP"] for line in lines_of(tmp_path) if "AP" in line}
    assert scored == {2: 0.2, 4: 0.5, 5: 0.4}  # and always after the last


def test_held_out_images_are_really_scored(crowds, tmp_path):
    config = settings(crowds, "data.eval_split=val", "train.epochs=1", "train.eval_every=1")
    loop.train(config, tmp_path, CPU)
    (line,) = lines_of(tmp_path)
    assert {"AP", "AP50", "AR", "AP_easy", "AP_hard"} <= line.keys()
    assert 0 <= line["AP"] <= 1


def test_losses_that_stay_broken_end_the_run(crowds, tmp_path, monkeypatch):
    count, update = itertools.count(1), Learner.update

    def break_all_but_the_fifth(*arguments):
        result = update(*arguments)
        return result if next(count) == 5 else Update(result.loss, result.images, False)

    monkeypatch.setattr(Learner, "update", break_all_but_the_fifth)
    config = settings(crowds, "train.epochs=999", "train.max_bad_steps=6")
    with pytest.raises(DhnError, match="not finite for 6 updates in a row"):
        loop.train(config, tmp_path, CPU)
    assert next(count) == 5 + 6 + 1
    first, second, third = lines_of(tmp_path)
    assert (first["skipped"], second["skipped"], third["skipped"]) == (3, 2, 3)
    assert first["loss"] is None  # no step of it counted: null, for JSON has no NaN
    assert second["loss"] is not None


def small_copy(crowds, tmp_path) -> Path:
    """The images as links, which can be broken."""
    copy = tmp_path / "copy"
    (copy / "images").mkdir(parents=True)
    (copy / "json").symlink_to(crowds / "json")
    for image in (crowds / "images").iterdir():
        (copy / "images" / image.name).symlink_to(image)
    return copy


def test_bad_images_are_told_once_and_left_out(crowds, tmp_path):
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
    assert any("000004.jpg: is not an image" in line for line in warnings)


def test_images_that_are_all_bad_end_the_run(crowds, tmp_path):
    copy = small_copy(crowds, tmp_path)
    for image in (copy / "images").iterdir():
        image.unlink()
        image.write_text("<html>")
    result = invoke("-q", "--output", tmp_path / "run", *TINY, f"data.dataset={copy}")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("Error: 8 of 8 images cannot be read")
    assert not (tmp_path / "run" / "last.pt").exists()


@pytest.mark.parametrize("missing", ["train", "val"])
def test_missing_images_are_one_line_before_anything_is_trained(crowds, tmp_path, missing):
    copy = small_copy(crowds, tmp_path)
    truth = json.loads((crowds / "json" / f"crowdpose_{missing}.json").read_text())
    for image in truth["images"]:
        (copy / "images" / image["file_name"]).unlink()
    arguments = [*TINY, f"data.dataset={copy}", "data.eval_split=val"]
    result = invoke("--output", tmp_path / "run", *arguments)
    assert result.exit_code == 1
    count = len(truth["images"])
    assert f"images: none of the {count} images of split {missing} is there" in result.stderr
    assert result.stderr.count("\n") == 1


def test_without_data_one_line_says_where_it_comes_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke()
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "https://github.com/jeffffffli/CrowdPose" in result.stderr
    assert "the preset `demo` needs no data" in result.stderr
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["--nonsense"], 2, "No such option"),
        (["--resume", "x", "--config", "demo"], 2, "leave out --config, --output and --backbone"),
        (["--resume", "x", "--output", "y"], 2, "leave out --config, --output and --backbone"),
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


def test_output_must_not_hold_a_run(tmp_path):
    (tmp_path / "last.pt").touch()
    result = invoke("--output", tmp_path, "train.epochs=1")
    assert result.exit_code == 2
    assert f"--resume {tmp_path}" in result.stderr


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

    monkeypatch.setattr(setup, "generate", draw)
    data = tmp_path / "data"
    config = settings(data, "data.synthetic=10", "train.epochs=1")
    loop.train(config, tmp_path / "one", CPU)
    assert drawn == [(data, 10)]
    loop.train(config, tmp_path / "two", CPU)
    assert len(drawn) == 1  # they are there
    (data / "json" / "crowdpose_test.json").unlink()  # as if drawing had been interrupted
    loop.train(config, tmp_path / "three", CPU)
    assert len(drawn) == 2


def test_somebodys_folder_is_never_drawn_into(tmp_path):
    (tmp_path / "photos").mkdir()
    config = settings(tmp_path / "photos", "data.synthetic=10")
    with pytest.raises(DhnError, match="no annotations of split train"):
        loop.train(config, tmp_path / "run", CPU)
    assert not any((tmp_path / "photos").iterdir())


def test_runs_are_named_by_network_data_and_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = new_run(load_config())
    assert run.is_dir()
    assert run.parent == Path("runs")
    assert run.name.startswith("doublehighernet_w32_crowdpose-" + time.strftime("%Y"))


def test_runs_of_the_same_second_get_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda _: "20260101-120000")
    names = [new_run(load_config()).name.partition("120000")[2] for _ in range(3)]
    assert names == ["", "-2", "-3"]


def test_a_split_that_is_not_there_is_told_as_a_setting(crowds, tmp_path):
    (tmp_path / "json").mkdir()
    (tmp_path / "images").symlink_to(crowds / "images")
    (tmp_path / "json" / "crowdpose_train.json").symlink_to(crowds / "json/crowdpose_train.json")
    for overrides, hint in (
        (["data.split=val"], f"data.split val: {tmp_path} has no such split; it has train"),
        (
            ["data.eval_split=val"],
            f"data.eval_split val: {tmp_path} has no such split; it has train",
        ),
    ):
        result = invoke(*TINY, f"data.dataset={tmp_path}", *overrides)
        assert result.exit_code == 1
        assert result.stderr.count("\n") == 1
        assert hint in result.stderr


def test_more_people_than_the_limit_are_counted_once(crowds, tmp_path):
    truth = json.loads((crowds / "json" / "crowdpose_train.json").read_text())
    people = Counter(a["image_id"] for a in truth["annotations"] if a["num_keypoints"])
    beyond = [count - 1 for count in people.values() if count > 1]
    assert beyond
    arguments = [f"data.dataset={crowds}", "data.max_people=1", "train.epochs=2"]
    result = invoke("--output", tmp_path / "run", *TINY, *arguments)
    assert result.exit_code == 0
    told = f"{len(beyond)} images show more than data.max_people=1 people; their {sum(beyond)}"
    assert result.stderr.count(told) == 1


def test_more_bad_images_than_the_limit_end_the_run(crowds, tmp_path):
    copy = small_copy(crowds, tmp_path)
    for name in ("000001.jpg", "000004.jpg"):
        (copy / "images" / name).unlink()
    arguments = [*TINY, f"data.dataset={copy}", "data.max_bad_images=1", "train.epochs=1"]
    result = invoke("-q", "--output", tmp_path / "run", *arguments)
    assert result.exit_code == 1
    assert "Error: 2 of 8 images cannot be read" in result.stderr.splitlines()[-1]
    assert "data.max_bad_images (1)" in result.stderr


def test_a_skipped_update_names_its_images(crowds, tmp_path, monkeypatch):
    update, count, names = Learner.update, itertools.count(1), []

    def poison_the_second(learner, parts, *arguments):
        if next(count) == 2:
            names.extend(parts[0].names)
            with torch.no_grad():
                learner.model.fine_head_half.bias[0] = math.nan
            result = update(learner, parts, *arguments)
            with torch.no_grad():
                learner.model.fine_head_half.bias[0] = 0
            return result
        return update(learner, parts, *arguments)

    monkeypatch.setattr(Learner, "update", poison_the_second)
    arguments = [*TINY, f"data.dataset={crowds}", "train.epochs=1"]
    result = invoke("-q", "--output", tmp_path / "run", *arguments)
    assert result.exit_code == 0
    (warning,) = result.stderr.splitlines()
    assert len(names) == 3
    assert all(name in warning for name in names)
    (line,) = lines_of(tmp_path / "run")
    assert line["skipped"] == 1
    weights = load_checkpoint(tmp_path / "run" / "last.pt").weights
    assert all(value.isfinite().all() for value in weights.values())


def test_workers_are_forked_from_a_process_with_threads(crowds):
    """OpenCV's and torch's threads are not in the fork: a worker that waits for them hangs."""
    threads = cv2.getNumThreads(), torch.get_num_threads()
    try:
        cv2.setNumThreads(4)
        torch.set_num_threads(4)
        cv2.resize(np.zeros((2000, 2000, 3), np.uint8), (1000, 1000))
        torch.ones(1000, 1000) @ torch.ones(1000, 1000)
        alone, shared = (
            [
                batch
                for epoch in (0, 1)
                for parts, _ in open_data(
                    settings(crowds, f"data.workers={workers}"), ALONE, silent
                ).batches(epoch, 0)
                for batch in parts
            ]
            for workers in (0, 2)
        )
    finally:
        cv2.setNumThreads(threads[0])
        torch.set_num_threads(threads[1])
    assert len(alone) == len(shared) == 6
    for ours, theirs in zip(alone, shared, strict=True):
        assert torch.equal(ours.image, theirs.image)
        assert torch.equal(ours.keypoints, theirs.keypoints)


def test_the_same_seed_gives_the_same_run(crowds, tmp_path):
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        config = settings(crowds, "train.epochs=1", f"train.seed={seed}")
        loop.train(config, tmp_path / name, CPU)
    assert_same_run(tmp_path / "one", tmp_path / "again")
    assert lines_of(tmp_path / "one")[0]["loss"] != lines_of(tmp_path / "other")[0]["loss"]
