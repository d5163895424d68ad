"""Every fenced block of the README and of docs/ does what the page says, in the page's order.

Blocks run in a folder that holds what pages assume (doc_world.py), with commands that make the
work small (doc_stand_ins.py). TREATMENT says what becomes of a block, by its language.
"""

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import doc_world as world
from doc_pages import PAGES, Block, blocks, name
from doc_stand_ins import make_path, small
from locks import built_once, shared_folder


@pytest.fixture(scope="session")
def programs(tmp_path_factory, python):
    """A folder for PATH, with the commands that pages may use."""
    return make_path(tmp_path_factory.mktemp("stand_ins"), python)


@pytest.fixture(scope="session")
def assumed(request, crowds, programs):
    """The folder that pages assume; each of them works on a copy."""

    def build(folder):
        world.make_world(folder, crowds)
        world.train_a_run(folder, environment(programs, folder))

    return built_once(shared_folder(request) / "docs_world", build)


def environment(programs: Path, folder: Path) -> dict[str, str]:
    return {
        "PATH": str(programs),
        "HOME": str(folder),
        "DHN_HOME": str(folder / world.CACHE),
        "LANG": "C.UTF-8",
    }


class Reader:
    """Somebody who does what a page says: one folder, one Python session."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self.session: dict[str, Any] = {"__name__": "__main__"}

    def python(self, block: Block) -> None:
        exec(compile(block.text, str(block), "exec"), self.session)

    def shell(self, block: Block) -> None:
        run = subprocess.run(
            ["bash", "-e", "-u", "-o", "pipefail", "-c", block.text],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, f"{block}\n{block.text}\n{run.stdout}\n{run.stderr}"

    def json(self, block: Block) -> None:
        json.loads(block.text)

    def yaml(self, block: Block) -> None:
        yaml.safe_load(block.text)

    def nothing(self, block: Block) -> None:
        """Layouts of folders, formulas, diagrams, and what runs on clusters only."""


TREATMENT: dict[str, Callable[[Reader, Block], None]] = {
    "python": Reader.python,
    "bash": Reader.shell,
    "sh": Reader.shell,
    "shell": Reader.shell,
    "json": Reader.json,
    "yaml": Reader.yaml,
    "text": Reader.nothing,
    "mermaid": Reader.nothing,
}


def check_the_guide(session: dict[str, Any], printed: str) -> None:
    """What docs/python.md leaves behind."""
    people = session["people"]
    assert len(people) > 0
    np.testing.assert_array_equal(session["first"].keypoints, session["second"].keypoints)
    assert session["overlay"].shape == people.image.shape
    assert session["best"] == Path("runs/first/best.pt")
    assert 0 <= session["evaluation"].stats["AP"] <= 1
    assert "missing.jpg: cannot be read" in printed
    assert "on 2 images" in printed


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_run(page, assumed, programs, tmp_path, monkeypatch, capsys):
    unknown = [str(block) for block in blocks(page) if block.language not in TREATMENT]
    assert not unknown, f"no treatment for the language of these blocks: {unknown}"
    folder = tmp_path / "folder"
    shutil.copytree(assumed, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DHN_HOME", str(folder / world.CACHE))
    for module, attribute, substitute in small():
        monkeypatch.setattr(module, attribute, substitute)
    reader = Reader(folder, environment(programs, folder))
    for block in blocks(page):
        if block.title is not None:  # the page shows a file and uses it later
            (folder / block.title).write_text(block.text)
        else:
            TREATMENT[block.language](reader, block)
    if name(page) == "docs/python.md":
        check_the_guide(reader.session, capsys.readouterr().out)


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("curl https://example.org", "not found"),  # nobody decided what becomes of it
        ("pip install leftpad", "leftpad: unknown"),
        ("pip install '.[nonsense]'", "no extra nonsense"),
        ("make nonsense", "No rule"),
        ("dhn predict absent.jpg", "absent.jpg"),
        ("false | cat", ""),
    ],
)
def test_a_block_that_fails_is_seen(command, why, assumed, programs):
    block = Block(PAGES[0], 1, "bash", None, command)
    with pytest.raises(AssertionError, match=f"README(.|\n)*{why}"):
        Reader(assumed, environment(programs, assumed)).shell(block)
