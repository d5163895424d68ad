"""distributed.py alone, and the commands as torchrun starts them: two processes, gloo."""

import itertools
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coco_sets import make_set
from dhn.base import device as device_module
from dhn.base.distributed import World, _local_device, connect
from dhn.base.errors import DhnError
from dhn.data.joints import CROWDPOSE
from dhn.media.images import write_image
from dhn.media.video import VideoWriter
from dhn.model import build_model
from dhn.synth import CrowdConfig, generate
from dhn.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tiny_runs import TINY, assert_same_run, one_thread

DIED = "died without a word"


def torchrun(*arguments, restarts=0, code=0) -> subprocess.CompletedProcess:
    """Two processes of `python ARGUMENTS`; fails the test if they hang or exit otherwise."""
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [sys.executable, "-m", *launcher, f"--max-restarts={restarts}", *map(str, arguments)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=one_thread()
    ) as process:
        try:
            output, errors = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            process.terminate()  # not kill: torchrun has to end its workers
            output, errors = process.communicate(timeout=60)
            pytest.fail(f"hangs\n{output}\n{errors}")
    assert process.returncode == code, errors
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def alone(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=one_thread(),
        check=False,
    )


def errors_of(result: subprocess.CompletedProcess) -> list[str]:
    """What the command itself said, without torchrun's report."""
    return [line for line in result.stderr.splitlines() if line.startswith("Error: ")]


# Shares


@given(st.integers(0, 40), st.integers(1, 9))
def test_shares_hold_every_item_once_and_come_back_in_order(count, size):
    class Gathered(World):
        def gather(self, value):
            return [[f"did {item}" for item in World(r, size).share(items)] for r in range(size)]

    items = list(range(count))
    shares = [World(rank, size).share(items) for rank in range(size)]
    assert sorted(itertools.chain(*shares)) == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert Gathered(0, size).collect(None) == [f"did {item}" for item in items]


def test_one_process_needs_no_torchrun(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    with connect("cpu") as world:
        assert (world.rank, world.size, world.device, world.main) == (0, 1, "cpu", True)
        assert world.share([1, 2]) == world.collect([1, 2]) == world.broadcast([1, 2]) == [1, 2]
        assert (world.any(True), world.any(False)) == (True, False)
        assert world.total([1, 2.5]) == [1, 2.5]
        assert world.gather("a") == ["a"]
        assert world.once("run", "a") == "a"
        world.barrier()
        assert not torch.distributed.is_initialized()


def test_every_process_gets_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(device_module, "select_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    taken = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    assert _local_device("cuda", local_rank=1, size=4) == "cuda:1"
    assert taken == [1]
    assert _local_device("cuda:1", local_rank=0, size=1) == "cuda:1"
    assert _local_device("cpu", local_rank=5, size=6) == "cpu"
    with pytest.raises(DhnError, match="has 2 GPUs, too few for process 3"):
        _local_device("cuda", local_rank=2, size=4)
    with pytest.raises(DhnError, match="one GPU for 4 processes"):
        _local_device("cuda:0", local_rank=0, size=4)
    with pytest.raises(DhnError, match="serves one process"):
        _local_device("mps", local_rank=0, size=2)


COLLECTIVES = """
from dhn.base.distributed import connect

with connect("cpu") as world:
    assert (world.size, world.device, world.restarted) == (2, "cpu", False)
    for count in range(6):
        mine = [item * item for item in world.share(range(count))]
        everything = world.collect(mine)
        assert everything == ([n * n for n in range(count)] if world.main else [])
    assert world.gather(world.rank) == ([0, 1] if world.main else [])
    assert world.broadcast({"from": world.rank}) == {"from": 0}
    assert world.total([1, world.rank, 0.5]) == [2, 1, 1]
    assert world.any(world.rank == 1) and not world.any(False)
    name = world.once("run", f"named by {world.rank}")
    assert world.broadcast(name) == name
    world.barrier()
    if world.main:
        print("all well")
"""


def test_collectives_of_two_processes(tmp_path):
    (tmp_path / "job.py").write_text(COLLECTIVES)
    assert torchrun(tmp_path / "job.py").stdout == "all well\n"


# A command that waits for the other rank, which fails

FAILING = """
import click
from dhn import cli
from dhn.base.distributed import connect
from dhn.base.errors import DhnError

@cli.main.command()
@click.argument("way")
def fail(way):
    with connect("cpu") as world:
        world.barrier()
        if world.rank == 1 or way == "both":
            raise DhnError("data/7.jpg: is missing")
        world.barrier()

cli.main()
"""


@pytest.mark.parametrize("way", ["one", "both"])
def test_an_error_ends_all_processes_with_one_line(tmp_path, way):
    failing = tmp_path / "job.py"
    failing.write_text(FAILING)
    result = torchrun(failing, "fail", way, code=1)
    assert errors_of(result) == ["Error: data/7.jpg: is missing"]
    assert f'File "{failing}"' not in result.stderr  # no traceback of the command


# Commands


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A tiny network that finds people in noise."""
    torch.manual_seed(0)
    network = {"name": "doublehighernet_w8", "modules": [1, 1, 1], "blocks": 1, "stem": 8}
    model = build_model(**network)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("weight") and "head" in name:
                weight.mul_(300)
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    config = {"data": {"input_size": 64}}
    save_checkpoint(path, Checkpoint(network, CROWDPOSE, model.state_dict(), config, {}))
    return path


def noise(seed: int, height=120, width=160) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(coarse, (width, height))


def files_of(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_eval_of_two_processes_is_that_of_one(weights, tmp_path):
    raw = make_set(7)
    (tmp_path / "json").mkdir()
    (tmp_path / "json/crowdpose_test.json").write_text(json.dumps(raw))
    for image in raw["images"]:
        write_image(tmp_path / "images" / image["file_name"], noise(image["id"]))
    (tmp_path / "images/6.png").write_text("no image")
    command = ["-m", "dhn", "eval", "--device", "cpu", "--checkpoint", weights]
    command += ["--dataset", tmp_path, "-b", 2]  # four batches, the last one of a single image
    output = {name: tmp_path / name for name in ("one", "two")}

    one = alone(*command, "--save-json", output["one"] / "p.json", "--output", output["one"] / "s")
    two = torchrun(
        *command, "--save-json", output["two"] / "p.json", "--output", output["two"] / "s", code=1
    )
    predictions = json.loads((output["one"] / "p.json").read_text())
    assert {p["image_id"] for p in predictions} == {1, 2, 3, 4, 5, 7}
    assert files_of(output["two"]) == files_of(output["one"])
    assert one.returncode == 1
    assert errors_of(two) == errors_of(one)
    assert "1 of 7 images could not be read" in errors_of(two)[-1]
    table = [line for line in one.stdout.splitlines() if "Time per image" not in line]
    assert table == [line for line in two.stdout.splitlines() if "Time per image" not in line]


def test_predict_of_two_processes_is_that_of_one(weights, tmp_path, monkeypatch):
    sources = tmp_path / "sources"
    for name in "abc":
        write_image(sources / f"{name}.png", noise(ord(name)))
    writer = VideoWriter(sources / "clip.mp4", Fraction(25), (160, 120))
    for frame in range(3):
        writer.write(noise(frame), Fraction(frame, 25))
    writer.close()
    command = ["-m", "dhn", "predict", sources, sources / "missing.png", sources / "clip.mp4"]
    command += ["--device", "cpu", "--weights", weights, "--conf", 0]

    def outputs(name):
        folder = tmp_path / name
        return ["-o", folder, "--csv-output", folder / "a.csv", "--json-output", folder / "a.jsonl"]

    one = alone(*command, *outputs("one"))
    two = torchrun(*command, *outputs("two"), code=1)
    written = files_of(tmp_path / "one")
    assert len(written) == 6
    assert len(written["a.jsonl"].splitlines()) == 6  # three images, three frames
    assert files_of(tmp_path / "two") == written
    assert one.returncode == 1
    assert errors_of(two) == errors_of(one) != []
    assert "6 images, " in two.stdout
    assert len(two.stdout.splitlines()) == len(one.stdout.splitlines())


# Training. The job freezes batch norm where two processes have to give the gradients of one,
# because each process has statistics of its own; and it kills somebody before an update.

TRAINING = """
import os, signal, sys
import torch
from dhn import cli
from dhn.training.learner import Learner

frozen, victim, *arguments = sys.argv[1:]
if frozen == "frozen":
    torch.nn.BatchNorm2d.train = lambda self, mode=True: torch.nn.Module.train(self, False)
update = Learner.update
restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT") == "1"
done = []

def update_or_die(self, *arguments):
    if victim == os.environ.get("RANK") and self.updates == 2 and not restarted:
        os.kill(os.getpid(), signal.SIGKILL)
    if victim == "torchrun" and self.world.main and self.updates == 2:
        os.kill(os.getppid(), signal.SIGTERM)
    if restarted and not done:
        print(f"goes on after update {self.updates}")
    done.append(self.updates)
    return update(self, *arguments)

Learner.update = update_or_die
cli.main(["train", "--device", "cpu", *arguments])
"""


@pytest.fixture(scope="module")
def training(tmp_path_factory) -> list:
    """The start of a command; what follows are FROZEN, VICTIM, options and settings."""
    folder = tmp_path_factory.mktemp("training")
    (folder / "job.py").write_text(TRAINING)
    # Eight images to train on: a batch of seven, shared unequally, and one of a single image.
    crowds = generate(folder / "crowds", 10, 0, config=CrowdConfig(size=96))
    settings = [*TINY, f"data.dataset={crowds}", "train.batch_size=7", "train.epochs=2"]
    return [folder / "job.py", [*settings, "train.checkpoint_every=0"]]


def test_two_processes_give_the_gradients_of_one(training, tmp_path):
    job, settings = training
    # Small steps: Adam makes large ones of the rounding errors of small gradients.
    settings = [*settings, "train.lr=1e-6"]
    one = alone(job, "frozen", "nobody", "--output", tmp_path / "one", *settings)
    assert one.returncode == 0, one.stderr
    parts = "train.accumulate=2"
    two = torchrun(job, "frozen", "nobody", "--output", tmp_path / "two", *settings, parts)
    assert two.stdout.count("epoch 2/2") == 1  # rank 0 alone speaks
    ours, theirs = (load_checkpoint(tmp_path / name / "last.pt") for name in ("one", "two"))
    for key, weight in ours.weights.items():
        torch.testing.assert_close(weight, theirs.weights[key], rtol=1e-5, atol=1e-5)
    moments, others = (c.progress["optimiser"]["state"] for c in (ours, theirs))
    gradients = torch.cat([moments[k]["exp_avg"].flatten() for k in moments])
    difference = gradients - torch.cat([others[k]["exp_avg"].flatten() for k in moments])
    assert gradients.abs().max() > 0
    assert difference.abs().max() <= 1e-5 * gradients.abs().max()


def test_a_job_goes_on_from_its_last_checkpoint_after_a_kill(training, tmp_path, monkeypatch):
    job, settings = training
    torchrun(job, "free", "nobody", "--output", tmp_path / "whole", *settings)
    monkeypatch.chdir(tmp_path)  # the run names its folder itself, once
    result = torchrun(job, "free", 1, *settings, restarts=1)
    (line,) = errors_of(result)
    assert DIED in line
    assert result.stdout.count("epoch 1/2") == 1
    assert result.stdout.count("goes on after update 2") == 2
    (run,) = (tmp_path / "runs").iterdir()
    assert_same_run(run, tmp_path / "whole")


def test_sigterm_stops_all_processes_at_the_same_update(training, tmp_path):
    job, settings = training
    run = tmp_path / "run"
    settings = [*settings, "train.epochs=999", "train.checkpoint_every=99"]
    result = torchrun(job, "free", "torchrun", "--output", run, *settings, code=1)
    assert errors_of(result) == [f"Error: stopped; go on with: dhn train --resume {run}"]
    assert load_checkpoint(run / "last.pt").progress["updates"] > 2
