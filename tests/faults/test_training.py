"""Trainings that meet wrong settings, damaged runs and each other: one line, nothing lost."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from dhn.base.errors import DhnError
from dhn.training.runs import LOCK, locked
from tiny_runs import TINY, invoke

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
