"""Trainings that meet wrong settings, damaged runs and each other: one line, nothing lost."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result

from dhn.base.errors import DhnError
from dhn.data.dataset import PoseDataset
from dhn.training.runs import LOCK, locked
from tiny_runs import TINY, invoke, lines_of

Refused = Callable[..., Callable[..., Result]]


@pytest.fixture(scope="session")
def trained(crowds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs. Not to be changed."""
    run = tmp_path_factory.mktemp("trained") / "run"
    result = invoke("--output", run, *TINY, f"data.dataset={crowds}", "train.epochs=2")
    assert result.exit_code == 0, result.output
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of `trained`, which may be damaged."""
    return shutil.copytree(trained, tmp_path / "run")


# --- Two trainings in one folder ----------------------------------------------------------------


def test_a_folder_is_trained_by_one_process_at_a_time(world: Path, refused: Refused) -> None:
    settings = [*TINY, "data.dataset=crowds", "train.epochs=1"]
    with locked(world / "new"):
        held = refused(1, "new: is being trained by another process")
        held("train", "--output", "new", *settings)
        with pytest.raises(DhnError, match="is being trained"), locked(world / "new"):
            pass
    assert not (world / "new").exists()  # nothing was written there
    assert invoke("--output", "new", *settings).exit_code == 0
    assert not (world / "new" / LOCK).exists()
    with locked(world / "new"):
        held("train", "--resume", "new")


def test_a_killed_process_leaves_no_lock(world: Path) -> None:
    (world / "new").mkdir()
    (world / "new" / LOCK).touch()  # as SIGKILL leaves it, before anything else was written
    result = invoke("--output", "new", *TINY, "data.dataset=crowds", "train.epochs=1")
    assert result.exit_code == 0, result.output


def test_a_folder_that_cannot_be_made_is_named(world: Path, refused: Refused) -> None:
    command = refused(1, "photo.png/run: cannot be written")
    command("train", "--output", "photo.png/run", *TINY, "data.dataset=crowds")


# --- Killed workers -----------------------------------------------------------------------------


def test_a_killed_worker_is_one_line_and_the_run_goes_on(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, parent = (run / "last.pt").read_bytes(), os.getpid()
    read = PoseDataset.__getitem__

    def killed(self, index):
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(PoseDataset, "__getitem__", killed)
        result = invoke("--resume", run, "train.epochs=3", "data.workers=1")
    assert result.exit_code == 1, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert "was killed (out of memory?)" in line
    assert line.endswith("data.workers=0")
    assert "Traceback" not in result.output
    assert (run / "last.pt").read_bytes() == before
    result = invoke("--resume", run, "train.epochs=3", "data.workers=1")
    assert result.exit_code == 0, result.output
    assert [one["epoch"] for one in lines_of(run)] == [1, 2, 3]


# --- Damaged runs -------------------------------------------------------------------------------


def test_a_log_that_lost_its_end_gets_whole_lines(run: Path) -> None:
    log = run / "metrics.jsonl"
    first = log.read_text().splitlines(keepends=True)[0]
    log.write_text(first + '{"epoch": 2, "lo')
    result = invoke("--resume", run, "train.epochs=3")
    assert result.exit_code == 0, result.output
    assert "metrics.jsonl: was cut short after the checkpoint" in result.stderr
    assert [line["epoch"] for line in lines_of(run)] == [1, 3]


MUTATIONS = {
    "moment": lambda p: p["optimiser"]["state"][0].update(exp_avg=torch.zeros(1)),
    "moment's dtype": lambda p: p["optimiser"]["state"][0].update(exp_avg=torch.zeros(4).int()),
    "step": lambda p: p["optimiser"]["state"][0].update(step=torch.tensor(float("nan"))),
    "moments": lambda p: p["optimiser"]["state"].pop(0),
    "optimiser": lambda p: p.update(optimiser=[]),
    "scaler": lambda p: p.update(scaler={"scale": "x"}),
    "random": lambda p: p.update(random={"python": 3}),
    "torch's random": lambda p: p["random"].update(torch=torch.zeros(3)),
    "weights": lambda p: p.update(weights={}),
    "record": lambda p: p.update(record={"size": -1}),
    "sums": lambda p: p["record"].update(sums=torch.zeros(3)),
    "epoch": lambda p: p.update(epoch="one"),
    "negative": lambda p: p.update(step=-1),
    "updates": lambda p: p.update(updates=2**70),
    "best_ap": lambda p: p.update(best_ap=None),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_damaged_state_is_one_line(run: Path, name: str) -> None:
    content = torch.load(run / "last.pt", weights_only=True)
    MUTATIONS[name](content["progress"])
    torch.save(content, run / "last.pt")
    before = (run / "last.pt").read_bytes()
    result = invoke("--resume", run, "train.epochs=3")
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()
    # What every reader of a checkpoint relies on is refused before the training looks at it.
    refusals = ("cannot be resumed, ", "was not written by this version of dhn")
    assert line.startswith(tuple(f"Error: {run}/last.pt: {refusal}" for refusal in refusals))
    assert (run / "last.pt").read_bytes() == before


# --- Settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "override",
    [
        f"train.seed={2**64}",
        f"train.epochs={10**400}",
        "train.epochs=0x" + "f" * 5000,
        "train.epochs=" + "9" * 5000,
        "train.epochs=2020-01-01",
        "train.epochs=2020-13-45",
        "train.epochs=010",
        "train.epochs=yes",
        "train.lr=on",
        "train.epochs=1:30",
        "network.modules=[1e9,1,1]",
        "train.lr=.nan",
        "train.lr=.inf",
        "train.lr=[1,2]",
        "data.scale=3",
        "data.scale=[.nan,1]",
        "data.workers=-1",
        "data.eval_split=nowhere",
        "train=[" + "[" * 500,
        "train={a: &a [1,1], b: [*a,*a]}",
        "train.lr={a: 1}",
        "data.dataset=" + "x" * 200_000,
        "data.hold_out=0.9",
        r'data.dataset="a\0b"',
        r'train.init="a\ud800b"',
    ],
)
def test_wrong_settings_are_one_line(override: str) -> None:
    result = invoke("--show-config", override)
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert len(line) < 700


# --- Held-out images ----------------------------------------------------------------------------


def test_held_out_images_must_not_be_trained_on(world: Path, refused: Refused) -> None:
    file = "crowds/json/crowdpose_train.json"
    command = refused(1, "8 of its 8 images are trained on", "data.hold_out=0.1")
    refused(1, "nowhere: no such folder")(
        "train", *TINY, "data.dataset=crowds", "data.eval_split=./nowhere"
    )
    for split in ("val", file):
        command("train", *TINY, f"data.dataset={file}", f"data.eval_split={split}")


def test_a_file_or_a_share_is_held_out(world: Path) -> None:
    file = "crowds/json/crowdpose_train.json"
    common = [*TINY, f"data.dataset={file}", "train.epochs=1"]
    other = "data.eval_split=crowds/json/crowdpose_val.json"
    result = invoke("--output", "one", *common, other)
    assert result.exit_code == 0, result.output
    assert "validation: 1 images of split crowds/json/crowdpose_val.json" in result.stdout
    result = invoke("--output", "folder", *common, "data.eval_split=./crowds")
    assert result.exit_code == 0, result.output
    assert "validation: 1 images of split ./crowds" in result.stdout
    result = invoke("--output", "two", *common, "data.hold_out=0.25")
    assert result.exit_code == 0, result.output
    assert "training: 6 images" in result.stdout
    assert "validation: 2 images of data.hold_out=0.25" in result.stdout
    assert "AP" in lines_of(Path("two"))[0]
