"""`python ARGUMENTS`, once or as the processes of a job, without importing torch each time.

As a script this is a server: a process with one thread that has imported everything and forks for
each request. `ForkedPython` starts it and talks to it.
"""

import contextlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tiny_runs import one_thread


class Finished(NamedTuple):
    """What the processes left, in the order of their ranks."""

    codes: list[int]  # negative: of the signal that killed it
    stdout: str
    stderr: str


class ForkedPython:
    """The client; a context manager."""

    def __enter__(self) -> "ForkedPython":
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=one_thread(),
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate()  # the end of its input ends it

    def run(self, *arguments: object, processes: int = 1, folder: Path | None = None) -> Finished:
        """Waits for `python ARGUMENTS`.

        Args:
            processes: 1 is a command by itself; of more, each is a rank of one job, as torchrun
                would start it.
            folder: where they run.
        """
        request = {
            "arguments": [str(argument) for argument in arguments],
            "processes": processes,
            "folder": str(folder or Path.cwd()),
        }
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return Finished(**json.loads(self._server.stdout.readline()))


def serve() -> None:
    import cv2
    import torch
    import torch._dynamo  # which optimisers import

    import dhn.cli
    import dhn.evaluation.evaluate
    import dhn.prediction.run
    import dhn.training.loop  # noqa: F401

    # Threads would not be there in a fork.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    replies = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryDirectory() as folder:
            finished = _run(request, Path(folder))
        replies.write(json.dumps(finished._asdict()) + "\n")
        replies.flush()


def _run(request: dict[str, Any], outputs: Path) -> Finished:
    size = request["processes"]
    with _store() if size > 1 else contextlib.nullcontext() as port:
        children = []
        for rank in range(size):
            child = os.fork()
            if child == 0:
                _become(request["arguments"], request["folder"], outputs, rank, size, port)
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    texts = [
        "".join((outputs / f"{stream}{rank}").read_text() for rank in range(size))
        for stream in ("out", "err")
    ]
    return Finished(codes, *texts)


def _become(
    arguments: Sequence[str], folder: str, outputs: Path, rank: int, size: int, port: int | None
) -> None:
    """Turns this fork into `python ARGUMENTS`, and ends it."""
    for stream, number in (("out", 1), ("err", 2)):
        file = os.open(outputs / f"{stream}{rank}", os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(folder)
    if port is not None:
        os.environ |= {
            "TORCHELASTIC_RUN_ID": "test",
            "TORCHELASTIC_RESTART_COUNT": "0",
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "MASTER_ADDR": "localhost",
            "MASTER_PORT": str(port),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(size),
        }
    try:
        code: Any = 0
        if arguments[0] == "-m":
            sys.argv = list(arguments[1:])
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = list(arguments)
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@contextlib.contextmanager
def _store() -> Iterator[int]:
    """The store of a job, as torchrun holds it, in a process of its own for its threads."""
    from torch.distributed import TCPStore

    told, tell = os.pipe()
    waits, end = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        os.close(end)
        store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
        os.write(tell, str(store.port).encode())
        os.close(tell)
        os.read(waits, 1)  # until the other end is closed
        os._exit(0)
    os.close(tell)
    os.close(waits)
    with os.fdopen(told) as answer:
        port = int(answer.read())
    try:
        yield port
    finally:
        os.close(end)
        os.waitpid(keeper, 0)


if __name__ == "__main__":
    serve()
