"""Stands in for the commands that pages of the documentation run.

Pages speak of real networks, data sets and machines; tests run their commands on small ones. The
PATH of a test holds these stand-ins and the tools of TOOLS alone, so a page with any other command
fails until somebody decides here what becomes of it:

    dhn            runs; SMALLER adds options, and TRAINING settings, that make the work small
    python         runs `-m dhn` and scripts, with the same settings
    torchrun       runs what it would start, in one process (test_distributed.py starts many)
    pip            installs nothing; what it would install must be named in pyproject.toml
    make           prints what it would do (make -n)

Each stand-in is this file, run by a process that has imported torch already (forked_python.py).
"""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from forked_python import ForkedPython

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("bash", "cat", "cp", "head", "ls", "mkdir", "mv", "sed", "tail", "wc")

NETWORK = ("network.width=8", "network.modules=[1,1,1]", "network.blocks=1", "network.stem=8")
TRAINING = (
    *NETWORK,
    *("data.input_size=64", "data.workers=0", "data.synthetic=10"),
    *("train.epochs=1", "train.batch_size=4", "train.amp=off"),
)
SMALLER = {
    "train": ("--device", "cpu", *TRAINING),
    "eval": ("--device", "cpu", "--input-size", "64"),
    "predict": ("--device", "cpu", "--input-size", "64"),
    "export": ("--input-size", "64"),
    "bench": ("--device", "cpu", "--kernels", "--seconds", "0"),
    "synth": ("--images", "10", "--size", "96", "--processes", "1"),
}


# --- what a page's command becomes --------------------------------------------------------------


def _allowed(smaller: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """Fine-tuning starts from dhn's own network, whose size is what it is."""
    kept = NETWORK if "finetune" in arguments else ()
    return [option for option in smaller if option not in kept]


def dhn(arguments: list[str]) -> None:
    from dhn.cli import main

    command = arguments[1] if arguments[:1] == ["data"] else arguments[0]
    files = "--results" in arguments  # eval of somebody's predictions takes no network
    smaller = () if files else SMALLER.get(command, ())
    main([*arguments, *_allowed(smaller, arguments)], prog_name="dhn")


def python(arguments: list[str]) -> None:
    if arguments[:2] == ["-m", "dhn"]:
        return dhn(arguments[2:])
    if not arguments[0].endswith(".py"):
        sys.exit(f"python {arguments[0]}: doc_stand_ins.py does not know what becomes of that")
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")
    return None


def torchrun(arguments: list[str]) -> None:
    python(arguments[arguments.index("-m") :])


def pip(arguments: list[str]) -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert arguments[0] == "install", arguments
    options = iter(arguments[1:])
    for argument in options:
        if argument in ("--index-url", "-c"):
            next(options)
        elif local := re.fullmatch(r"\.(?:\[([\w,]+)\])?", argument):
            for extra in (local[1] or "dev").split(","):
                assert re.search(rf"^{extra} = \[", project, re.MULTILINE), f"no extra {extra}"
        elif not argument.startswith("-"):
            assert re.search(rf'"{re.escape(argument)}["<>=\[]', project), f"{argument}: unknown"


def make(arguments: list[str]) -> None:
    command = [shutil.which("make", path=os.defpath), "-n", "-C", str(ROOT), *arguments]
    sys.exit(subprocess.run(command, env=os.environ | {"PATH": os.defpath}).returncode)


def small() -> Iterator[tuple[Any, str, Any]]:
    """What makes scripts and exports small: (module, name, what takes its place) each."""
    from dhn.bench.untrained import ColourNetwork
    from dhn.inference import export
    from dhn.pages import report
    from dhn.training import config

    load_config, write = config.load_config, export.export

    def load_small(source: str = config.DEFAULT_PRESET, overrides: Sequence[str] = ()) -> Any:
        return load_config(source, [*overrides, *_allowed(TRAINING, [source])])

    def write_small(inference: Any, joints: Any, *arguments: Any, **settings: Any) -> Any:
        # Tracing an HRNet takes half a minute; tests/inference/test_export.py exports one.
        network = ColourNetwork(len(joints)).eval()
        return write(inference.on(network), joints, *arguments, **settings)

    yield config, "load_config", load_small
    yield export, "export", write_small
    yield report, "SAMPLES", 20


PROGRAMS = {"dhn": dhn, "python": python, "torchrun": torchrun, "pip": pip, "make": make}


def make_path(folder: Path, forked: ForkedPython) -> Path:
    """A folder for PATH, with the stand-ins and the tools, as long as `forked` lasts."""
    path = folder / "bin"
    path.mkdir()
    for tool in TOOLS:
        (path / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")
    for program in PROGRAMS:
        script = path / program
        command = shlex.join([*forked.command, __file__, program])
        script.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        script.chmod(0o755)
    return path


if __name__ == "__main__":
    for module, name, substitute in small():
        setattr(module, name, substitute)
    PROGRAMS[sys.argv[1]](sys.argv[2:])
