"""Checkpoints by name or address: downloaded once, whole and checked, to the cache folder."""

import contextlib
import difflib
import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import dhn
from dhn.base.cache import cache_folder
from dhn.base.errors import DhnError
from dhn.base.progress import Progress, silent

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two processes from one download there
    fcntl = None  # type: ignore[assignment]

ATTEMPTS = 4  # of one download that is cut off, each going on where the last one ended
PAUSE = 1.0  # seconds before the second attempt, twice as long before each further one
TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 18
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
# torch.hub's convention, which MMPose follows, with a date behind: name-1aa4a132_20201017.pth
_HASH = re.compile(r"-([0-9a-f]{8,64})(?:_\d{8})?(?:\.[a-z0-9]+)+$")


class Published(NamedTuple):
    """Weights that others trained and published.

    Attributes:
        address: whence they are downloaded; the file's name ends in the hash's first digits.
        parameters: of the network in the file, in millions; a file has 4 bytes for each.
        data: what it was trained on.
        input_size: short side that the AP was measured with, in pixels; None for a backbone.
        ap: published AP of the data's test (CrowdPose) or val split (COCO): flip test, one scale.
    """

    address: str
    parameters: float
    data: str
    input_size: int | None = None
    ap: float | None = None

    @property
    def file(self) -> str:
        return self.address.rpartition("/")[2]


_MMPOSE = "https://download.openmmlab.com/mmpose/"
_HIGHERHRNET = _MMPOSE + "bottom_up/higher_hrnet"
_IMAGENET = _MMPOSE + "pretrain_models/hrnet"

# Addresses and AP as MMPose's model zoo has them (configs/.../associative_embedding, branch 0.x);
# parameters of the ImageNet classifiers as HRNet's own README has them.
PUBLISHED = {
    "higherhrnet_w32_crowdpose": Published(
        f"{_HIGHERHRNET}32_crowdpose_512x512-1aa4a132_20201017.pth", 28.6, "CrowdPose", 512, 65.5
    ),
    "higherhrnet_w32_coco": Published(
        f"{_HIGHERHRNET}32_coco_512x512-8ae85183_20200713.pth", 28.6, "COCO", 512, 67.7
    ),
    "higherhrnet_w32_coco_640": Published(
        f"{_HIGHERHRNET}32_coco_640x640-a22fe938_20200712.pth", 28.6, "COCO", 640, 68.6
    ),
    "higherhrnet_w48_coco": Published(
        f"{_HIGHERHRNET}48_coco_512x512-60fedcbc_20200712.pth", 63.8, "COCO", 512, 68.6
    ),
    "hrnet_w32_imagenet": Published(f"{_IMAGENET}_w32-36af842e.pth", 41.2, "ImageNet"),
    "hrnet_w48_imagenet": Published(f"{_IMAGENET}_w48-8ef0771d.pth", 77.5, "ImageNet"),
}


def cached(address: str) -> Path:
    """Where the file of an address lies, or will lie once it is downloaded."""
    name = urllib.parse.unquote(urllib.parse.urlsplit(address).path).rpartition("/")[2]
    if name in ("", ".", "..") or "\0" in name or "\\" in name:
        raise DhnError(f"{address}: names no file")
    folder = cache_folder() / "checkpoints"
    if not _HASH.search(name):  # many an address ends in /model.pth
        folder /= hashlib.sha256(address.encode()).hexdigest()[:16]
    return folder / name


def fetch(
    checkpoint: str | os.PathLike[str], *, offline: bool = False, progress: Progress = silent
) -> Path:
    """The file that a `--checkpoint` means; downloads it if need be.

    Args:
        checkpoint: a path, which is returned as it is (a `Path` always is one); a name of
            `PUBLISHED`, unless there is a file of that name; or an `https://` address.
        offline: never touch the network: the cache only.
        progress: shows how far a download is.

    A download goes on where an earlier one was cut off, is compared with the SHA-256 whose first
    digits its name carries (if any), and gets its name when it is whole.

    Raises:
        DhnError: unknown name; not to be had, damaged, or `offline` and not in the cache.
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
        return Path(text)  # whoever opens it says that it is not there
    else:
        close = difflib.get_close_matches(text, PUBLISHED, n=1)
        hint = f"do you mean {close[0]}?" if close else "`dhn models` lists the names"
        raise DhnError(f"{text}: no such file, and no published checkpoint; {hint}")
    path = cached(address)
    if path.is_file():
        return path
    if offline:
        raise DhnError(f"{text}: is not in the cache ({path}), and --offline forbids to download")
    try:
        with _alone(path.parent):
            if not path.is_file():  # another process may have just brought it
                _download(address, path, progress)
    except OSError as error:
        raise DhnError(f"{path}: cannot be written ({error.strerror or error})") from error
    return path


class _CutOffError(Exception):
    """A transfer that failed on its way: worth another attempt."""


def _download(address: str, path: Path, progress: Progress) -> None:
    part = path.with_name(path.name + ".part")
    digits = _HASH.search(path.name)
    if not digits:
        part.unlink(missing_ok=True)  # nothing would tell whether its bytes are still the server's
    problem = ""
    for attempt in range(ATTEMPTS):
        time.sleep(PAUSE * 2 ** (attempt - 1) if attempt else 0)
        try:
            resumed = _transfer(address, part, progress)
        except _CutOffError as error:
            problem = str(error)
            continue
        digest = _sha256(part)
        if not digits or digest.startswith(digits[1]):
            os.replace(part, path)
            return
        part.unlink()
        if not resumed:  # else the beginning, of an earlier day, may be what is wrong
            raise DhnError(
                f"{address}: refused, its SHA-256 begins with {digest[:8]}, not {digits[1][:8]}: "
                "damaged on its way or replaced; try again, or another network"
            )
    raise DhnError(
        f"{address}: cannot be downloaded ({problem}); try again, it goes on where it was cut off"
    )


def _transfer(address: str, part: Path, progress: Progress) -> bool:
    """Brings what `part` lacks, or all where the server will not go on; returns if it did."""
    have = part.stat().st_size if part.exists() else 0
    with _open(address, have) as response:
        resumed = response.status == 206
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise _CutOffError("the server sent another part than the one asked for")
        done = have if resumed else 0
        length = response.headers.get("Content-Length", "")
        total = done + int(length) if length.isdecimal() else None
        megabytes = None if total is None else total // 10**6
        with (
            part.open("ab" if resumed else "wb") as file,
            progress(f"Downloading {part.stem} (MB)", megabytes) as bar,
        ):
            bar.advance(done // 10**6)
            for chunk in _chunks(response):
                file.write(chunk)
                bar.advance((done + len(chunk)) // 10**6 - done // 10**6)
                done += len(chunk)
    if total is not None and done < total:
        raise _CutOffError(f"cut off after {done} of {total} bytes")
    return resumed


def _open(address: str, start: int) -> http.client.HTTPResponse:
    request = urllib.request.Request(address, headers={"User-Agent": f"dhn/{dhn.__version__}"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        return urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        reason = f"HTTP {error.code} {' '.join(str(error.reason).split())}"
        if error.code in (408, 429) or error.code >= 500:
            raise _CutOffError(reason) from error
        if error.code == 416 and start:  # more is here than there: not the same file
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
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_address(address: str) -> None:
    """Weights come over https; plain http only from this machine itself."""
    try:
        parts = urllib.parse.urlsplit(address)
    except ValueError as error:
        raise DhnError(f"{address}: is no address ({error})") from error
    local = parts.scheme == "http" and parts.hostname in _LOOPBACK
    if not (local or (parts.scheme == "https" and parts.hostname)):
        raise DhnError(f"{address}: is refused, weights are downloaded from https:// alone")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One download at a time: of a training's eight processes one downloads and seven wait."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
