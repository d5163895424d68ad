"""Images from the web, and what an address leads to."""

import urllib.error
import urllib.request
from http.client import HTTPResponse

from dhn.base.errors import DhnError
from dhn.base.version import __version__

_SCHEMES = ("http://", "https://")
_MOST = 2**28  # bytes of an image
_TIMEOUT = 30  # seconds without a byte
_PUSHED = ("video/mp2t", "video/x-flv", "video/x-motion-jpeg", "application/octet-stream")


def is_address(path: str) -> bool:
    """Whether this is an address of the web rather than a file."""
    return path.lower().startswith(_SCHEMES)


def is_endless(address: str) -> bool:
    """Whether a web server sends images or video without end, as network cameras do.

    That is so for `multipart/x-mixed-replace` (Motion JPEG), and for a transport stream or the
    like whose length is not said. An address that does not answer is none of that: reading it
    will report that.
    """
    try:
        with _open(address) as answer:
            kind = answer.headers.get_content_type()
            return kind == "multipart/x-mixed-replace" or (
                kind in _PUSHED and answer.headers["Content-Length"] is None
            )
    except (OSError, ValueError):
        return False


def _open(address: str) -> HTTPResponse:
    request = urllib.request.Request(address, headers={"User-Agent": f"dhn/{__version__}"})
    answer: HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT)
    return answer


def read_address(address: str) -> bytes:
    """Downloads a file of up to 256 MB.

    Raises:
        DhnError: there is no such address, no answer, or too much of it.
    """
    try:
        with _open(address) as answer:
            data = answer.read(_MOST + 1)
    except urllib.error.HTTPError as error:
        raise DhnError(f"{address}: cannot be read ({error.code} {error.reason})") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise DhnError(f"{address}: cannot be read ({reason})") from error
    if len(data) > _MOST:
        raise DhnError(f"{address}: has more than {_MOST >> 20} MB; download it and name the file")
    return data
