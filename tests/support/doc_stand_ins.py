"""Stands in for the commands that pages of the documentation run.

Pages speak of real networks, data sets and machines; tests run their commands on small ones. The
PATH of a test holds these stand-ins and the tools of TOOLS alone, so a page with any other command
fails until somebody decides here what becomes of it:

    dhn            runs; SMALLER adds options, and TRAINING settings, that make the work small
    python         runs `-m dhn` and scripts, with the same settings
    torchrun       runs what it would start, in one process (test_distributed.py starts many)
    pip            installs nothing; what it would install must be named in pyproject.toml
    make           prints what it would do (make -n)

Importing torch takes seconds. So one process imports it and forks for each command: `serving`
starts that process, and each stand-in is this file, which asks it.
"""

import contextlib
import json
import os
import re
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("bash", "cat", "cp", "head", "ls", "mkdir", "mv", "sed", "tail", "wc")

TRAINING = (
    *("network.width=8", "network.modules=[1,1,1]", "network.blocks=1", "network.stem=8"),
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


def dhn(arguments: list[str]) -> None:
    from dhn.cli import main

    command = arguments[1] if arguments[:1] == ["data"] else arguments[0]
    files = "--results" in arguments  # eval of somebody's predictions takes no network
    main([*arguments, *(() if files else SMALLER.get(command, ()))], prog_name="dhn")


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
        return load_config(source, [*overrides, *TRAINING])

    def write_small(inference: Any, joints: Any, *arguments: Any, **settings: Any) -> Any:
        # Tracing an HRNet takes half a minute; tests/inference/test_export.py exports one.
        network = ColourNetwork(len(joints)).eval()
        return write(inference.on(network), joints, *arguments, **settings)

    yield config, "load_config", load_small
    yield export, "export", write_small
    yield report, "SAMPLES", 20


PROGRAMS = {"dhn": dhn, "python": python, "torchrun": torchrun, "pip": pip, "make": make}


# --- the process that has imported torch --------------------------------------------------------


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Path]:
    """A folder for PATH, with the stand-ins and the tools, as long as the context lasts."""
    path, address = folder / "bin", folder / "socket"
    path.mkdir()
    for tool in TOOLS:
        (path / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")
    for program in PROGRAMS:
        script = path / program
        script.write_text(
            f'#!/bin/sh\nexec "{sys.executable}" -S -E "{__file__}" "{address}" {program} "$@"\n'
        )
        script.chmod(0o755)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [sys.executable, __file__, str(address)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    with server:
        assert server.stdout.readline() == b"ready\n"
        yield path
        server.stdin.close()  # which ends it


def _serve(address: str) -> None:
    import torch._dynamo  # noqa: F401, which optimisers import when they are made

    import dhn.cli
    import dhn.evaluation.evaluate
    import dhn.inference.predictor
    import dhn.prediction.run
    import dhn.training.loop  # noqa: F401

    for module, name, substitute in small():
        setattr(module, name, substitute)

    # Children that have ended leave nothing behind.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([listener, sys.stdin], [], [])
            if sys.stdin in ready:
                return
            connection, _ = listener.accept()
            with connection:
                if os.fork() == 0:
                    _answer(connection)


def _answer(connection: socket.socket) -> None:
    """Runs one command with the asker's arguments, folder, environment, input and output."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, standard, _, _ = socket.recv_fds(connection, 1 << 16, 3)
    while part := connection.recv(1 << 16):
        message += part
    program, arguments, folder, environment = json.loads(message)
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    code = 1
    try:
        PROGRAMS[program](arguments)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(bytes([code]))
        os._exit(code)


def _ask(address: str, program: str, *arguments: str) -> int:
    """Has a command run, with this process's input and output; returns its exit status."""
    message = json.dumps([program, arguments, os.getcwd(), dict(os.environ)]).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        sent = socket.send_fds(connection, [message], [0, 1, 2])
        connection.sendall(message[sent:])
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(1)
    return answer[0] if answer else 1


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit(_ask(*sys.argv[1:]))
    _serve(sys.argv[1])
