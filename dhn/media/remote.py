"""Images from the web."""

import urllib.error
import urllib.request

from dhn.base.errors import DhnError
from dhn.base.version import __version__

_SCHEMES = ("http://", "https://")
_MOST = 2**28  # bytes of an image
_TIMEOUT = 30  # seconds without a byte


def is_address(path: str) -> bool:
    """Whether this is an address of the web rather than a file."""
    return path.lower().startswith(_SCHEMES)


def read_address(address: str) -> bytes:
    """Downloads a file of up to 256 MB.

    Raises:
        DhnError: there is no such address, no answer, or too much of it.
    """
    request = urllib.request.Request(address, headers={"User-Agent": f"dhn/{__version__}"})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            data = answer.read(_MOST + 1)
    except urllib.error.HTTPError as error:
        raise DhnError(f"{address}: cannot be read ({error.code} {error.reason})") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise DhnError(f"{address}: cannot be read ({reason})") from error
    if len(data) > _MOST:
        raise DhnError(f"{address}: has more than {_MOST >> 20} MB; download it and name the file")
    return data
