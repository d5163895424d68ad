"""Files that appear whole or not at all."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dhn.base.errors import DhnError


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside `path`; renames it to `path` if the block succeeds.

    Parent folders are created. The temporary name keeps the suffix of `path`, because encoders
    choose their format by it. A failure (full disk, Ctrl-C) removes the temporary file and
    leaves `path` as it was. A device or pipe (/dev/null, /dev/stdout) is itself yielded, because
    a file must not replace it.

    Raises:
        DhnError: the file cannot be written; the message names `path` and the reason.
    """
    path = Path(path)
    temporary = None
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            yield path
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", suffix="." + path.name, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        _match_umask(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise DhnError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _match_umask(path: Path) -> None:
    # mkstemp makes private files (0600); results are ordinary files.
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


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
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DhnError(f"{path}: cannot be read ({error.strerror or error})") from error
    # ValueError: not JSON, or a number with thousands of digits. RecursionError: nested too deep.
    except (ValueError, RecursionError) as error:
        raise DhnError(f"{path}: is not JSON ({error})") from error
