"""What several test processes need is built once: the first builds it while the others wait."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def built_once(target: Path, build: Callable[[Path], object]) -> Path:
    """Returns `target`, a file or a folder, made by `build(path)` if it is not there yet.

    `build` writes to a path of the same name in a temporary folder, which is then renamed. So
    `target` is whole or absent even if a process is killed, and of several processes that call this
    at once one builds and the others wait.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent / f".{target.name}.lock"):
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=target.parent) as folder:
                build(Path(folder) / target.name)
                (Path(folder) / target.name).rename(target)
    return target


def shared_folder(request: pytest.FixtureRequest) -> Path:
    """A temporary folder of this run of pytest that all of its processes see (pytest-xdist).

    A session fixture that is expensive, and that no test changes, is built in it for all:
    `built_once(shared_folder(request) / "crowds", build)`.
    """
    factory: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
    own = factory.getbasetemp()
    return own.parent if hasattr(request.config, "workerinput") else own
