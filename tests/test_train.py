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

import dhn.train
from dhn.checkpoint import load_checkpoint
from dhn.cli import main
from dhn.config import Config, load_config
from dhn.data import Batch
from dhn.errors import DhnError
from dhn.model import build_model
from dhn.synth import CrowdConfig, generate
from dhn.train import MAX_BAD_STEPS, learning_rate, training_step

TINY = [
    *("network.width=8", "network.modules=[1,1,1]", "network.blocks=1", "network.stem=8"),
    *("data.input_size=64", "data.workers=0", "data.split=train"),
    *("train.batch_size=3", "train.amp=off", "train.lr=1e-3"),
]
CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def crowds(tmp_path_factory):
    """Ten small pictures: eight for training, one to validate, one to test."""
    out = tmp_path_factory.mktemp("data") / "crowds"
    return generate(out, 10, 0, config=CrowdConfig(size=96))


def settings(crowds, *overrides) -> Config:
    return load_config(overrides=[*TINY, f"data.dataset={crowds}", *overrides])


def dhn_train(*arguments, folder=None) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "dhn", "train", "--device", "cpu", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        check=False,
    )


def invoke(*arguments):
    return CliRunner().invoke(main, ["train", "--device", "cpu", *map(str, arguments)])


def lines_of(run: Path) -> list[dict]:
    def refuse(constant):
        raise ValueError(f"{constant} is not JSON")

    text = (run / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def assert_same_run(run: Path, other: Path) -> None:
    """Weights, running statistics and the optimiser's moments, bit for bit."""
    ours, theirs = load_checkpoint(run / "last.pt"), load_checkpoint(other / "last.pt")
    assert ours.weights.keys() == theirs.weights.keys()
    assert all(torch.equal(ours.weights[key], theirs.weights[key]) for key in ours.weights)
    moments, others = (c.progress["optimiser"]["state"] for c in (ours, theirs))
    assert moments.keys() == others.keys()
    for key in moments:
        assert all(torch.equal(moments[key][name], others[key][name]) for name in moments[key])
    assert {k: ours.progress[k] for k in ("epoch", "step")} == {
        k: theirs.progress[k] for k in ("epoch", "step")
    }


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
    assert first.keys() == keys
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


class StopAfter:
    """Stands in for training_step; sends this process a signal at its n-th step."""

    def __init__(self, steps, number=signal.SIGINT):
        self.steps, self.number = steps, number

    def __call__(self, *arguments):
        loss = training_step(*arguments)
        self.steps -= 1
        if self.steps == 0:
            os.kill(os.getpid(), self.number)
        return loss


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
        patch.setattr(dhn.train, "training_step", StopAfter(steps, number))
        result = invoke("-q", "--output", run, *arguments)
    assert result.exit_code == 1
    assert result.stderr == f"Error: stopped; go on with: dhn train --resume {run}\n"
    done = load_checkpoint(run / "last.pt").progress
    assert 3 * done["epoch"] + done["step"] == steps
    assert invoke("-q", "--resume", run).exit_code == 0
    assert_same_run(run, uninterrupted)
    assert [line["epoch"] for line in lines_of(run)] == [1, 2]


def test_a_killed_run_goes_on_from_its_last_epoch(crowds, tmp_path, monkeypatch, uninterrupted):
    def die(*arguments):
        if (tmp_path / "last.pt").exists():
            raise MemoryError
        return training_step(*arguments)

    config = settings(crowds, "train.epochs=2")
    with monkeypatch.context() as patch:
        patch.setattr(dhn.train, "training_step", die)
        with pytest.raises(MemoryError):
            dhn.train.train(config, tmp_path, CPU, quiet=True)
    dhn.train.train(config, tmp_path, CPU, quiet=True)
    assert_same_run(tmp_path, uninterrupted)


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

    def look(config, model, optimiser, *rest):
        seen.append((optimiser.param_groups[0]["lr"], optimiser.param_groups[0]["weight_decay"]))
        return training_step(config, model, optimiser, *rest)

    monkeypatch.setattr(dhn.train, "training_step", look)
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


def one_batch(image=128) -> Batch:
    images = torch.full((2, 3, 64, 64), image, dtype=torch.uint8)
    keypoints = torch.zeros(2, 1, 14, 3)
    keypoints[:, 0, :2] = torch.tensor([[20.0, 30, 2], [40, 30, 2]])
    return Batch(images, keypoints, None, [])


@pytest.fixture
def tiny(crowds):
    """Settings, network and optimiser."""
    torch.manual_seed(0)
    config = settings(crowds)
    model = build_model(**config.network.model_dump(), num_joints=14)
    return config, model, torch.optim.Adam(model.parameters(), lr=1e-3)


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_a_step_moves_every_weight(tiny):
    config, model, optimiser = tiny
    before = weights(model)
    loss = training_step(config, model, optimiser, one_batch(), CPU, None)
    assert loss.total.isfinite()
    moved = [name for name, p in model.named_parameters() if not torch.equal(p, before[name])]
    assert len(moved) > 0.9 * len(before)


def test_a_loss_that_is_not_finite_updates_nothing(tiny):
    config, model, optimiser = tiny
    model.coarse_head_half.bias.data[0] = math.inf
    before = weights(model)
    assert training_step(config, model, optimiser, one_batch(), CPU, None) is None
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_an_empty_batch_is_no_step(tiny):
    config, model, optimiser = tiny
    empty = Batch(torch.empty(0), torch.empty(0), None, ["a.jpg: gone"])
    assert training_step(config, model, optimiser, empty, CPU, None) is None


def test_gradients_are_clipped_where_asked(tiny, crowds):
    _, model, _ = tiny
    config = settings(crowds, "train.clip_grad_norm=1e-3")
    training_step(
        config, model, torch.optim.SGD(model.parameters(), lr=0.1), one_batch(), CPU, None
    )
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=0.01)


def test_bfloat16_steps_keep_float32_weights(tiny):
    config, model, optimiser = tiny
    loss = training_step(config, model, optimiser, one_batch(), CPU, torch.bfloat16)
    assert loss.total.dtype == torch.float32
    assert loss.total.isfinite()
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_losses_that_stay_broken_end_the_run(crowds, tmp_path, monkeypatch):
    outcomes = iter([None] * (MAX_BAD_STEPS - 1) + ["good"] + [None] * MAX_BAD_STEPS)
    count = 0

    def step(*arguments):
        nonlocal count
        count += 1
        return training_step(*arguments) if next(outcomes) else None

    monkeypatch.setattr(dhn.train, "training_step", step)
    config = settings(crowds, "train.epochs=999")
    with pytest.raises(DhnError, match=f"not finite for {MAX_BAD_STEPS} steps in a row"):
        dhn.train.train(config, tmp_path, CPU, quiet=True)
    assert count == 2 * MAX_BAD_STEPS
    first = lines_of(tmp_path)[0]  # no step of it counted: null, for JSON has no NaN
    assert first["loss"] is None


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


def test_step_schedule():
    config = load_config(overrides=["train.epochs=10", "train.milestones=[4,8]", "train.lr=2"])
    rates = [learning_rate(config, e / 10, e) for e in (0, 3.99, 4, 7.5, 8, 9.9)]
    assert rates == pytest.approx([2, 2, 0.2, 0.2, 0.02, 0.02])


def test_the_papers_schedule():
    rates = {e: learning_rate(load_config(), e / 300, e) for e in (0, 199.9, 200, 259.9, 260, 299)}
    assert list(rates.values()) == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])


def test_cosine_schedule_with_warmup():
    config = load_config(
        overrides=["train.schedule=cosine", "train.warmup=0.2", "train.lr=1", "train.epochs=10"]
    )
    shares = [k / 1000 for k in range(1000)]
    rates = [learning_rate(config, share, 10 * share) for share in shares]
    assert 0 < rates[0] < 0.01
    assert rates[100] == pytest.approx(0.5)
    assert max(rates) == rates[200] == pytest.approx(1)
    assert rates[600] == pytest.approx(0.5)
    assert rates[-1] < 1e-4
    assert rates[:201] == sorted(rates[:201])
    assert rates[200:] == sorted(rates[200:], reverse=True)


def test_runs_are_named_by_network_data_and_time():
    run = dhn.train.new_run(load_config())
    assert run.parent == Path("runs")
    assert run.name.startswith("doublehighernet_w32_crowdpose-" + time.strftime("%Y"))
