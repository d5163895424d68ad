"""Weights by name or address, downloaded to the cache folder once, whole and checked.

This is our own code because pooch (1.9), the usual library for it, starts again after a transfer
was cut off, follows redirects away from https, cannot check a hash by its first digits, and does
not keep the processes of one training from downloading the same file all at once.
"""

import difflib
import hashlib
import http.client
import io
import logging
import os
import re
import socket
import stat
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from filelock import FileLock

from dhn.base.cache import cache_folder
from dhn.base.errors import DhnError
from dhn.base.progress import Progress, silent
from dhn.base.version import __version__
from dhn.weights.zoo import PUBLISHED

_log = logging.getLogger(__name__)

ATTEMPTS = 4  # at one download; each resumes where the last one was cut off
PAUSE = 1.0  # seconds before the second attempt, and twice as long before each further one
TIMEOUT = 30.0  # seconds without a byte
HEADERS = 60.0  # seconds until the server has said what it sends
LONGEST = 2 * 3600.0  # seconds for one call of `fetch`, with all attempts
LARGEST = 2 << 30  # bytes of one file; the largest published one has 0.3 GB
_CHUNK = 1 << 18
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)  # Windows has no such flag
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
# torch.hub's convention; MMPose appends a date: name-1aa4a132_20201017.pth
_HASH = re.compile(r"-([0-9a-f]{8,64})(?:_\d{8})?(?:\.[a-z0-9]+)+$")


def cached(address: str) -> Path:
    """Where the file of an address lies in the cache, or will lie once it is downloaded.

    Raises:
        DhnError: the address names no file.
    """
    name = urllib.parse.unquote(urllib.parse.urlsplit(address).path).rpartition("/")[2]
    if name in ("", ".", "..") or "\0" in name or "\\" in name:
        raise DhnError(f"{address}: names no file")
    folder = cache_folder() / "checkpoints"
    if not _HASH.search(name):  # many addresses end in /model.pth
        folder /= hashlib.sha256(address.encode()).hexdigest()[:16]
    return folder / name


def fetch(
    checkpoint: str | os.PathLike[str], *, offline: bool = False, progress: Progress = silent
) -> Path:
    """Returns the file that a user names, and downloads it where that is necessary.

    An interrupted download resumes where it was cut off. The file is compared with the SHA-256
    whose first digits its name carries, if it carries any, and gets its name once it is whole.
    (Published backbones may not follow that convention: a difference is a warning there.) Web pages
    and other texts, files of more than `LARGEST` bytes, and downloads that take longer than
    `LONGEST` are refused.

    Args:
        checkpoint: a path; a name of `zoo.PUBLISHED`, unless a file has that name; or an
            `https://` address. A `Path` is always a path. Paths are returned as they are, whether
            or not the file exists.
        offline: take published weights from the cache alone, without touching the network.
        progress: shows how far a download is.

    Raises:
        DhnError: the name is unknown, or the weights cannot be downloaded, are damaged, or are not
            in the cache while `offline` is set.
    """
    text = os.fspath(checkpoint)
    if isinstance(checkpoint, os.PathLike) or os.path.exists(text):
        return Path(text)
    if text in PUBLISHED:
        address = PUBLISHED[text].address
    elif "://" in text:
        address = text
        _check_address(address)
    elif os.sep in text or Path(text).suffix:
        return Path(text)  # opening it will report that it does not exist
    else:
        raise DhnError(f"{text}: no such file, and no published checkpoint; {_suggestion(text)}")
    path = cached(address)
    if path.is_file():
        return path
    if offline:
        raise DhnError(f"{text}: is not in the cache ({path}) and cannot be downloaded offline")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.parent / ".lock"
        if lock.is_symlink():  # it would be followed, and its target emptied
            lock.unlink()
        # One of the processes of a training downloads, and the others wait for it here.
        with FileLock(lock):
            if not path.is_file():
                _download(address, path, progress)
    except OSError as error:
        raise DhnError(f"{path}: cannot be written ({error.strerror or error})") from error
    return path


def _suggestion(name: str) -> str:
    close = difflib.get_close_matches(name, PUBLISHED, n=1)
    return f"do you mean {close[0]}?" if close else f"published are {', '.join(PUBLISHED)}"


class _CutOffError(Exception):
    """A transfer failed on its way; another attempt may succeed."""


def _download(address: str, path: Path, progress: Progress) -> None:
    part = path.with_name(path.name + ".part")
    digits = _HASH.search(path.name)
    deadline = time.monotonic() + LONGEST
    if not digits or not _is_own(part):
        # Without a hash, nothing shows whether the server still has the same file.
        part.unlink(missing_ok=True)
    problem = ""
    for attempt in range(ATTEMPTS):
        time.sleep(PAUSE * 2 ** (attempt - 1) if attempt else 0)
        try:
            resumed = _transfer(address, part, progress, deadline)
        except _CutOffError as error:
            problem = str(error)
            continue
        if _is_text(part):
            part.unlink()
            raise _page(address)
        digest = _sha256(part)
        if not digits or digest.startswith(digits[1]):
            os.replace(part, path)
            return
        if resumed:  # the beginning, from an earlier day, may be what is wrong
            part.unlink()
            continue
        if any(known.address == address and known.is_backbone for known in PUBLISHED.values()):
            _log.warning(
                f"{address}: its SHA-256 begins with {digest[:8]}, and its name has {digits[1]}; "
                "the file is taken, because its publisher does not say what these digits are"
            )
            os.replace(part, path)
            return
        part.unlink()
        raise DhnError(
            f"{address}: refused, its SHA-256 begins with {digest[:8]}, not {digits[1][:8]}: "
            "it was damaged on its way, or replaced; try again, or from another network"
        )
    resume = ", the download resumes where it was cut off" if digits else ""
    raise DhnError(f"{address}: cannot be downloaded ({problem}); try again{resume}")


def _is_own(part: Path) -> bool:
    """Whether a file is an ordinary one that nothing else is a name of: none is written through."""
    try:
        status = part.lstat()
    except FileNotFoundError:
        return True
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


def _open_part(path: str, flags: int) -> int:
    return os.open(path, flags | _NO_FOLLOW, 0o666)


def _page(address: str) -> DhnError:
    return DhnError(
        f"{address}: refused, the server sent no weights, but a web page, another text or nothing; "
        "open the address in a browser to see what it says"
    )


def _is_text(path: Path) -> bool:
    """Whether a file is empty or begins as a text does, which no file of weights does."""
    with path.open("rb") as file:
        start = file.read(64)
    return not re.search(rb"[^\t\n\r\x20-\x7e\x80-\xff]", start)


def _check_size(address: str, part: Path, size: int) -> None:
    if size > LARGEST:
        part.unlink(missing_ok=True)
        raise DhnError(
            f"{address}: refused, it has more than {LARGEST >> 20} MiB, the limit of a download; "
            "fetch it yourself, if it is right, and give the file"
        )


def _transfer(address: str, part: Path, progress: Progress, deadline: float) -> bool:
    """Downloads what `part` lacks, or everything where the server cannot continue a file.

    Returns whether the server continued the file.
    """
    have = part.stat().st_size if part.exists() else 0
    with _open(address, have) as response:
        resumed = response.status == 206
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise _CutOffError("the server sent another part than the one asked for")
        if response.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
            raise _page(address)
        done = have if resumed else 0
        length = response.headers.get("Content-Length", "")
        # Longer numbers are no lengths, and too long for Python to read.
        total = done + int(length[:20]) if length.isdecimal() else None
        _check_size(address, part, total or 0)
        megabytes = None if total is None else total // 10**6
        with (
            open(part, "ab" if resumed else "wb", opener=_open_part) as file,
            progress(f"Downloading {part.stem} (MB)", megabytes) as bar,
        ):
            bar.advance(done // 10**6)
            for chunk in _chunks(response):
                if time.monotonic() > deadline:
                    raise DhnError(
                        f"{address}: was not downloaded within {LONGEST / 60:.0f} minutes; try "
                        "again, or fetch it by other means and give the file"
                    )
                _check_size(address, part, done + len(chunk))
                file.write(chunk)
                bar.advance((done + len(chunk)) // 10**6 - done // 10**6)
                done += len(chunk)
    if total is not None and done < total:
        raise _CutOffError(f"cut off after {done} of {total} bytes")
    return resumed


def _open(address: str, start: int) -> http.client.HTTPResponse:
    request = urllib.request.Request(address, headers={"User-Agent": f"dhn/{__version__}"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    opener = urllib.request.build_opener(_Redirects, _Http, _Https)
    try:
        response: http.client.HTTPResponse = opener.open(request, timeout=TIMEOUT)
        return response
    except urllib.error.HTTPError as error:
        error.close()
        reason = f"HTTP {error.code} {' '.join(str(error.reason).split())}"
        if error.code in (408, 429) or error.code >= 500:
            raise _CutOffError(reason) from error
        if error.code == 416 and start:  # `part` is longer than the server's file: another one
            return _open(address, 0)
        raise DhnError(f"{address}: cannot be downloaded ({reason})") from error
    except (urllib.error.URLError, http.client.InvalidURL, UnicodeError) as error:
        why = getattr(error, "reason", error)
        raise DhnError(
            f"{address}: cannot be downloaded ({why}); check the address and the network"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise _CutOffError(_reason(error)) from error


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while chunk := response.read1(_CHUNK):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise _CutOffError(_reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer for {TIMEOUT:g} s"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


class _Wire(io.RawIOBase):
    """What a socket receives until a time, however slowly it comes.

    The timeout of a socket begins anew with every byte, so that a server could hold a download for
    ever by sending one now and then.
    """

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        self._socket = sock
        self._received = sock.makefile("rb", buffering=0)
        self.allow(seconds)

    def allow(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._end - time.monotonic()
        if left <= 0:
            raise OSError("it takes too long")
        self._socket.settimeout(min(TIMEOUT, left))
        count: int | None = self._received.readinto(buffer)
        return count

    def close(self) -> None:
        self._received.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *arguments: Any, **keywords: Any) -> None:
        super().__init__(sock, *arguments, **keywords)
        self.fp.close()
        self._wire = _Wire(sock, HEADERS)
        self.fp = io.BufferedReader(self._wire)

    def begin(self) -> None:
        super().begin()
        self._wire.allow(LONGEST)


class _Connection(http.client.HTTPConnection):
    response_class = _Response


class _SecureConnection(http.client.HTTPSConnection):
    response_class = _Response


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_SecureConnection, req)


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = 5

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        _check_address(newurl)
        fp.close()  # urllib would read the whole body of the redirect, however long it is
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_address(address: str) -> None:
    """Refuses anything but https, and http from this machine itself."""
    try:
        parts = urllib.parse.urlsplit(address)
    except ValueError as error:
        raise DhnError(f"{address}: is not a valid address ({error})") from error
    local = parts.scheme == "http" and parts.hostname in _LOOPBACK
    if not (local or (parts.scheme == "https" and parts.hostname)):
        raise DhnError(f"{address}: is refused; weights are downloaded over https:// only")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
