"""`python ARGUMENTS`, once or as the processes of a job, without importing torch each time.

    python forked_python.py SOCKET                  serves: imports everything, forks per request
    python forked_python.py SOCKET ARGUMENTS ...    `python ARGUMENTS ...`, by that server

`ForkedPython` starts the server, a process with one thread, and talks to it.
"""

import contextlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
KILLED = -1


class Finished(NamedTuple):
    """What the processes left, in the order of their ranks."""

    codes: list[int]  # KILLED: by a signal
    stdout: str
    stderr: str


class ForkedPython:
    """The client; a context manager."""

    def __enter__(self) -> "ForkedPython":
        self._folder = tempfile.TemporaryDirectory()
        self._address = str(Path(self._folder.name) / "socket")
        self._server = subprocess.Popen(
            [sys.executable, __file__, self._address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == b"ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate()  # the end of its input ends it
        self._folder.cleanup()

    @property
    def command(self) -> list[str]:
        """What takes the place of `python` in a command."""
        return [sys.executable, "-S", "-E", __file__, self._address]

    def run(self, *arguments: object, processes: int = 1, folder: Path | None = None) -> Finished:
        """Waits for `python ARGUMENTS`.

        Args:
            processes: 1 is a command by itself; of more, each is a rank of one job, as torchrun
                would start it.
            folder: where they run.
        """
        texts, place = list(map(str, arguments)), str(folder or Path.cwd())
        with contextlib.ExitStack() as stack:
            nothing = stack.enter_context(open(os.devnull, "rb"))
            job = stack.enter_context(_job(processes) if processes > 1 else _alone())
            streams: list[list[BinaryIO]] = []
            answers = []
            for variables in job:
                streams.append([stack.enter_context(tempfile.TemporaryFile()) for _ in range(2)])
                files = [nothing.fileno(), *(stream.fileno() for stream in streams[-1])]
                answers.append(_ask(self._address, texts, place, os.environ | variables, files))
            codes = [_answer(answer) for answer in answers]
            for stream in (stream for pair in streams for stream in pair):
                stream.seek(0)
            out, err = (b"".join(s.read() for s in each) for each in zip(*streams, strict=True))
        return Finished(codes, out.decode(), err.decode())


@contextlib.contextmanager
def _alone() -> Iterator[list[dict[str, str]]]:
    yield [{}]


@contextlib.contextmanager
def _job(size: int) -> Iterator[list[dict[str, str]]]:
    """The environment variables of each rank, as torchrun sets them; holds the job's store."""
    from torch.distributed import TCPStore

    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    shared = {
        "TORCHELASTIC_RUN_ID": "test",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": str(size),
    }
    yield [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]
    del store


def _ask(
    address: str,
    arguments: Sequence[str],
    folder: str,
    environment: Mapping[str, str],
    streams: Sequence[int],
) -> socket.socket:
    """Has `python ARGUMENTS` run with these streams; the connection will give the exit status."""
    message = json.dumps([arguments, folder, dict(environment)]).encode()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    sent = socket.send_fds(connection, [message], streams)
    connection.sendall(message[sent:])
    connection.shutdown(socket.SHUT_WR)
    return connection


def _answer(connection: socket.socket) -> int:
    with connection:
        code = connection.recv(1)
    return code[0] if code else KILLED


# --- the server ---------------------------------------------------------------------------------


def _serve(address: str) -> None:
    import cv2
    import torch
    import torch._dynamo  # which optimisers import when they are made

    import dhn.cli
    import dhn.evaluation.evaluate
    import dhn.inference.predictor
    import dhn.prediction.run
    import dhn.training.loop  # noqa: F401

    # Threads would not be there in a fork.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
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
                    _become(connection)


def _become(connection: socket.socket) -> None:
    """Turns this fork into `python ARGUMENTS` with the asker's folder, environment and streams."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, streams, _, _ = socket.recv_fds(connection, 1 << 16, 3)
    while part := connection.recv(1 << 16):
        message += part
    arguments, folder, environment = json.loads(message)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    code: Any = 0
    try:
        if arguments[0] == "-m":
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = arguments
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        code = end.code or 0
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(bytes([code & 255]))
    os._exit(code)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        streams = [0, 1, 2]
        code = _answer(_ask(sys.argv[1], sys.argv[2:], os.getcwd(), os.environ, streams))
        sys.exit(1 if code == KILLED else code)
    _serve(sys.argv[1])
