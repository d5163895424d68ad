"""distributed.py alone, and commands as the two processes of a job.

Where torchrun itself matters (its store, its report, restarts, SIGTERM) it starts the processes;
elsewhere they are forked, which spares them the imports.
"""

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
from dhn.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from forked_python import Finished
from tiny_runs import TINY, assert_same_run, one_thread

DIED = "died without"


def torchrun(*arguments, restarts=0, code=0) -> Finished:
    """Two processes of `python ARGUMENTS`; fails the test if they exit otherwise."""
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    # Whoever loses its peer has seconds to say so, before torchrun looks and ends it.
    options = ["--monitor-interval=3", f"--max-restarts={restarts}"]
    command = [sys.executable, "-m", *launcher, *options, *map(str, arguments)]
    # However slow the machine is, nobody is killed for taking long.
    environment = one_thread() | {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "3600"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == code, result.stderr
    return Finished([result.returncode], result.stdout, result.stderr)


def errors_of(result: Finished) -> list[str]:
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
        assert world.once("run", lambda: "a") == "a"
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
import click
from dhn import cli
from dhn.base.distributed import connect
from dhn.base.errors import DhnError

@cli.main.command()
@click.argument("failing")
def collectives(failing):
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
        name = world.once("run", lambda: f"named by {world.rank}")
        assert world.once("run", lambda: "another") == name == "named by 0"
        assert world.broadcast(name) == name
        world.barrier()
        if world.main:
            click.echo("all well")
        world.barrier()
        if failing == "both" or failing == "one" and world.rank == 1:
            raise DhnError("data/7.jpg: is missing")
        world.barrier()  # in which the other rank waits

cli.main()
"""


@pytest.fixture(scope="module")
def collectives(tmp_path_factory) -> Path:
    job = tmp_path_factory.mktemp("job") / "job.py"
    job.write_text(COLLECTIVES)
    return job


def test_collectives_of_two_processes(python, collectives):
    assert python.run(collectives, "collectives", "none", processes=2) == (
        [0, 0],
        "all well\n",
        "",
    )


@pytest.mark.parametrize("failing", ["one", "both"])
def test_an_error_ends_all_processes_with_one_line(python, collectives, failing):
    result = python.run(collectives, "collectives", failing, processes=2)
    assert result.codes == [1, 1]
    assert result.stderr == "Error: data/7.jpg: is missing\n"


# Commands


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A tiny network that finds people in noise."""
    torch.manual_seed(0)
    network = {"name": "doublehighernet", "num_joints": 14, "width": 8, "blocks": 1, "stem": 8}
    network["modules"] = [1, 1, 1]
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


def test_eval_of_two_processes_is_that_of_one(python, weights, tmp_path):
    raw = make_set(7)
    (tmp_path / "json").mkdir()
    (tmp_path / "json/crowdpose_test.json").write_text(json.dumps(raw))
    for image in raw["images"]:
        write_image(tmp_path / "images" / image["file_name"], noise(image["id"]))
    (tmp_path / "images/6.png").write_text("no image")
    command = ["-m", "dhn", "eval", "--device", "cpu", "--checkpoint", weights]
    command += ["--dataset", tmp_path, "-b", 2]  # four batches, the last one of a single image
    output = {name: tmp_path / name for name in ("one", "two")}

    one, two = (
        python.run(
            *command,
            *("--save-json", output[name] / "p.json", "--output", output[name] / "s"),
            processes=processes,
        )
        for processes, name in enumerate(output, 1)
    )
    predictions = json.loads((output["one"] / "p.json").read_text())
    assert {p["image_id"] for p in predictions} == {1, 2, 3, 4, 5, 7}
    assert files_of(output["two"]) == files_of(output["one"])
    assert one.codes[0] == two.codes[0] == 1
    assert errors_of(two) == errors_of(one)
    assert "1 of 7 images could not be read" in errors_of(two)[-1]
    table = [line for line in one.stdout.splitlines() if "Time per image" not in line]
    assert table == [line for line in two.stdout.splitlines() if "Time per image" not in line]


def test_predict_of_two_processes_is_that_of_one(python, weights, tmp_path):
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

    one = python.run(*command, *outputs("one"))
    two = python.run(*command, *outputs("two"), processes=2)
    written = files_of(tmp_path / "one")
    assert len(written) == 6
    assert len(written["a.jsonl"].splitlines()) == 1 + 6  # header, three images, three frames
    assert files_of(tmp_path / "two") == written
    assert one.codes[0] == two.codes[0] == 1
    assert errors_of(two) == errors_of(one) != []
    assert "6 images, " in two.stdout
    assert len(two.stdout.splitlines()) == len(one.stdout.splitlines())


# Training


FROZEN = """
import sys
import torch
from dhn import cli

# Each process has running statistics of its own, so two give the gradients of one only without.
torch.nn.BatchNorm2d.train = lambda self, mode=True: torch.nn.Module.train(self, False)
cli.main(["train", "--device", "cpu", *sys.argv[1:]])
"""


@pytest.fixture(scope="module")
def tiny(crowds) -> list[str]:
    """Eight images to train on: a batch of seven, shared unequally, and one of a single image."""
    return [*TINY, f"data.dataset={crowds}", "train.batch_size=7", "train.checkpoint_every=0"]


def test_two_processes_give_the_gradients_of_one(python, tiny, tmp_path):
    (tmp_path / "job.py").write_text(FROZEN)
    # Small steps: Adam makes large ones of the rounding errors of small gradients.
    command = [tmp_path / "job.py", *tiny, "train.epochs=2", "train.lr=1e-6", "--output"]
    one = python.run(*command, tmp_path / "one")
    assert one.codes == [0], one.stderr
    two = python.run(*command, tmp_path / "two", "train.accumulate=2", processes=2)
    assert two.codes == [0, 0], two.stderr
    assert two.stdout.count("epoch 2/2") == 1  # rank 0 alone speaks
    ours, theirs = (load_checkpoint(tmp_path / name / "last.pt") for name in ("one", "two"))
    for key, weight in ours.weights.items():
        torch.testing.assert_close(weight, theirs.weights[key], rtol=1e-5, atol=1e-5)
    moments, others = (c.progress["optimiser"]["state"] for c in (ours, theirs))
    gradients = torch.cat([moments[k]["exp_avg"].flatten() for k in moments])
    difference = gradients - torch.cat([others[k]["exp_avg"].flatten() for k in moments])
    assert gradients.abs().max() > 0
    assert difference.abs().max() <= 1e-5 * gradients.abs().max()


# Rank 1 is killed before the third update. After the restart, rank 0 asks torchrun to stop before
# the fourth one, and both wait until torchrun has handed SIGTERM on; the fourth update is the last.
# (`sigwait` would lose a signal that reaches another thread first.)
KILLED_AND_STOPPED = """
import os, signal, sys, time
from dhn import cli
from dhn.training.learner import Learner

update = Learner.update
restarted = os.environ["TORCHELASTIC_RESTART_COUNT"] == "1"
done = []

def update_or_die(self, *arguments):
    if self.updates == 2 and not restarted and self.world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if self.updates == 3:
        received = []
        stop = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
        self.world.barrier()
        if self.world.main:
            os.kill(os.getppid(), signal.SIGTERM)
        while not received:
            time.sleep(0.01)
        signal.signal(signal.SIGTERM, stop)
        signal.raise_signal(signal.SIGTERM)
    if restarted and not done:
        print(f"goes on after update {self.updates}")
    done.append(self.updates)
    return update(self, *arguments)

Learner.update = update_or_die
cli.main(["train", "--device", "cpu", *sys.argv[1:]])
"""


@pytest.mark.slow
def test_a_job_survives_a_kill_and_stops_at_a_sigterm(python, tiny, tmp_path, monkeypatch):
    """Under torchrun itself, with its store, its environment and its report beside our lines."""
    tiny = [*tiny, "train.epochs=3"]
    train = ["-m", "dhn", "train", "--device", "cpu"]
    whole = python.run(*train, "--output", tmp_path / "whole", *tiny, processes=2)
    assert whole.codes == [0, 0], whole.stderr

    (tmp_path / "job.py").write_text(KILLED_AND_STOPPED)
    monkeypatch.chdir(tmp_path)  # the run names its folder itself, once
    result = torchrun(tmp_path / "job.py", *tiny, restarts=1, code=1)
    (run,) = (tmp_path / "runs").iterdir()
    died, stopped = errors_of(result)
    assert DIED in died
    assert f'File "{tmp_path / "job.py"}"' not in result.stderr  # no traceback of the command
    assert stopped == f"Error: stopped; go on with: dhn train --resume {run.relative_to(tmp_path)}"
    assert result.stdout.count("epoch 1/3") == 1
    assert result.stdout.count("goes on after update 2") == 2
    assert load_checkpoint(run / "last.pt").progress["updates"] == 4

    rest = python.run(*train, "--resume", run, processes=2)
    assert rest.codes == [0, 0], rest.stderr
    assert_same_run(run, tmp_path / "whole")
