"""Files that appear whole or not at all, and outputs that never replace an input."""

import contextlib
import errno
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dhn.base.errors import DhnError

# What a training writes to its run folder; nothing else may write there under these names.
_RUN_FILE = re.compile(r"(config\.yaml|environment\.json|metrics\.jsonl|(last|best|epoch\d+)\.pt)")


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside `path`; renames it to `path` if the block succeeds.

    Parent folders are created. The temporary name keeps the suffix of `path`, because encoders
    choose their format by it. A failure (full disk, Ctrl-C) removes the temporary file and
    leaves `path` as it was. A symbolic link stays a link: the file that it points to is replaced.
    What is no regular file (a pipe, /dev/null, /dev/stdout) is itself yielded and written to,
    because a file must not replace it.

    Raises:
        DhnError: the file cannot be written; the message names `path` and the reason.
    """
    path = Path(path)
    temporary = None
    try:
        if is_special(path):
            yield path
            return
        target = Path(os.path.realpath(path))
        if target.is_symlink():  # what lies behind a circle of links cannot be told
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", suffix="." + target.name, dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        _match_umask(temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise DhnError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def is_special(path: Path) -> bool:
    """Whether `path` is there, and neither a regular file nor a folder.

    /dev/stdout may lead to a regular file, but the shell that opened it would not see another one
    in its place.
    """
    if not path.exists():
        return False
    folder = os.path.realpath(path.parent)
    if folder == "/dev" or folder.startswith(("/dev/", "/proc/")):
        return not folder.startswith("/dev/shm") and not path.is_dir()
    return not (path.is_file() or path.is_dir())


def _match_umask(path: Path) -> None:
    # mkstemp makes private files (0600); results are ordinary files.
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


def check_outputs(
    outputs: Iterable[str | os.PathLike[str] | None],
    inputs: Iterable[str | os.PathLike[str] | None] = (),
) -> None:
    """Refuses outputs that would cost the user a file, or that cannot be written.

    Commands call this before anything runs, with every file that they are going to write.

    Args:
        outputs: files; None stands for an output that nobody asked for.
        inputs: what the command reads: files, or folders, in which only outputs of the very same
            path count; None likewise.

    Raises:
        DhnError: an output is an input, a file of a training run, a folder, named twice, or in a
            place where nothing can be written.
    """
    taken: set[str] = set()
    read = {os.path.realpath(path) for path in inputs if path is not None}
    for path in (Path(output) for output in outputs if output is not None):
        real = os.path.realpath(path)
        try:
            if is_special(path):
                continue
            mode = path.stat().st_mode if path.exists() else None
        except (OSError, ValueError) as error:
            raise DhnError(f"{str(path)!r}: cannot be written ({error})") from error
        if real in read:
            raise DhnError(f"{path}: is an input and would be overwritten; name another file")
        if real in taken:
            raise DhnError(f"{path}: is named for two outputs; give each a file of its own")
        if _RUN_FILE.fullmatch(path.name) and _is_run(Path(real).parent):
            raise DhnError(f"{path}: belongs to the training run there; name another file")
        if mode is not None and stat.S_ISDIR(mode):
            raise DhnError(f"{path}: is a folder; name a file")
        _check_writable(path, Path(real))
        taken.add(real)


def _is_run(folder: Path) -> bool:
    """Whether a training writes, or wrote, its files to `folder`."""
    return (folder / "config.yaml").exists() and (folder / "environment.json").exists()


def _check_writable(path: Path, real: Path) -> None:
    if real.is_symlink():
        raise DhnError(f"{path}: cannot be written ({os.strerror(errno.ELOOP).lower()})")
    folder = next(parent for parent in real.parents if parent.exists())
    if not folder.is_dir():
        raise DhnError(f"{path}: cannot be written ({folder} is a file)")
    if not os.access(folder, os.W_OK):
        raise DhnError(f"{path}: cannot be written (nothing can be written to {folder})")


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Reads a file, and refuses what would block (a pipe without a writer) or never end.

    Raises:
        DhnError: there is no such file, it is no regular file, or it cannot be read.
    """
    check_regular(path)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DhnError(f"{path}: cannot be read ({error.strerror or error})") from error


def check_regular(path: str | os.PathLike[str]) -> None:
    """Refuses what is no regular file, before something opens it.

    Raises:
        DhnError: there is no such file, or it is a folder, a pipe or a device.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise DhnError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:  # a zero byte in the name
        raise DhnError(f"{os.fspath(path)!r}: cannot be read ({error})") from error
    if stat.S_ISDIR(mode):
        raise DhnError(f"{path}: cannot be read (it is a folder); name a file")
    if not stat.S_ISREG(mode):
        raise DhnError(f"{path}: cannot be read (it is a pipe or a device); name a file")


def write_json(path: str | os.PathLike[str], value: Any, *, indent: int | None = None) -> None:
    """Writes `value` as JSON, whole or not at all. NaN and infinity are refused."""
    text = json.dumps(value, indent=indent, allow_nan=False)
    with written_whole(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads a JSON file.

    Raises:
        DhnError: there is no such file, it cannot be read, or it is not JSON.
    """
    try:
        return json.loads(read_bytes(path).decode("utf-8"))
    # ValueError: not JSON, or a number with thousands of digits. RecursionError: nested too deep.
    except (ValueError, RecursionError) as error:
        raise DhnError(f"{path}: is not JSON ({error})") from error
