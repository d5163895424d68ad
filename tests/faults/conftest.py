"""A folder with everything that commands read, and a command that must fail as it promises."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from dhn.base.files import write_json
from dhn.cli import main
from dhn.media.images import write_image
from tiny_networks import save_network


@pytest.fixture(scope="session")
def everything(crowds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """best.pt, photo.png, photos/, a data set in crowds/, results.json, a run in run/."""
    folder = tmp_path_factory.mktemp("everything")
    save_network(folder / "best.pt")
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for path in ("photo.png", "photos/a.png", "photos/b.png", "photos/c.png"):
        write_image(folder / path, rng.integers(0, 256, (64, 64, 3), np.uint8))
    shutil.copytree(crowds, folder / "crowds")
    write_json(folder / "results.json", [])
    (folder / "run").mkdir()
    for name in ("config.yaml", "environment.json"):
        (folder / "run" / name).write_text("{}\n")
    (folder / "run" / "metrics.jsonl").write_text('{"epoch": 1, "loss": 0.5, "lr": 0.1}\n')
    save_network(folder / "run" / "best.pt")
    return folder


@pytest.fixture
def world(everything: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `everything`, which is the current folder."""
    shutil.copytree(everything, tmp_path, dirs_exist_ok=True, symlinks=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder, by name, with a hash of its bytes."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.fixture
def refused(world: Path) -> Callable[..., Result]:
    """refused(code, *words)(*arguments): the command fails in one line and changes no file.

    It ends with exit code `code`, its last line on standard error begins with `Error: ` and
    holds each of `words`, and no file appears, disappears or changes.
    """

    def run(code: int, *words: str) -> Callable[..., Result]:
        def command(*arguments: object) -> Result:
            before = contents(world)
            result = CliRunner().invoke(main, [str(argument) for argument in arguments])
            errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
            assert result.exit_code == code, result.output
            assert "Traceback" not in result.output
            assert errors, result.stderr
            for word in words:
                assert word in errors[-1]
            if code == 1:
                assert result.stderr.endswith(errors[-1] + "\n")
            assert contents(world) == before
            return result

        return command

    return run
