"""Reads and writes image files. In memory, images are RGB uint8 [H, W, 3]."""

import os
from pathlib import Path

import cv2
import numpy as np

from dhn.base.errors import DhnError
from dhn.base.files import read_bytes, written_whole
from dhn.base.limits import MAX_SIDE, VARIABLE, max_pixels
from dhn.media.heif import decode_heif, is_heif

# dhn reports an image that cannot be read in one line; OpenCV would print several more.
_set_log_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel  # 4.x or 5
_set_log_level(0)


def read_image(path: str | os.PathLike[str], *, ignore_orientation: bool = False) -> np.ndarray:
    """Reads an image in any format that OpenCV reads (JPEG, PNG, WebP, TIFF, BMP, ...), or HEIC.

    Grey images become RGB, 16 bits become 8, and transparency is dropped.

    Args:
        path: the file.
        ignore_orientation: leave the pixels as they are stored, as the annotations of data sets
            count them. Otherwise the image is turned as its EXIF orientation says, the way
            viewers show it.

    Returns:
        RGB uint8 [H, W, 3].

    Raises:
        DhnError: there is no such file, or it is empty, cut short, no image, or larger than
            dhn.base.limits allows.
    """
    return decode_image(read_bytes(path), str(path), ignore_orientation=ignore_orientation)


def decode_image(data: bytes, name: str, *, ignore_orientation: bool = False) -> np.ndarray:
    """Like `read_image`, from the bytes of a file, which error messages call `name`."""
    if not data:
        raise DhnError(f"{name}: is empty; replace or remove the file")
    if _is_cut_short(data):
        raise DhnError(f"{name}: the image is cut short; copy or download it again")
    if is_heif(data):
        return _checked(decode_heif(data, name), name)
    flags = cv2.IMREAD_COLOR | (cv2.IMREAD_IGNORE_ORIENTATION if ignore_orientation else 0)
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        if "MAX_IMAGE" in str(error):
            raise _too_large(name) from error
        bgr = None
    if bgr is None:
        raise DhnError(f"{name}: is not an image that can be read; replace or remove the file")
    return cv2.cvtColor(_checked(bgr, name), cv2.COLOR_BGR2RGB)


def _checked(image: np.ndarray, name: str) -> np.ndarray:
    """The image; raises DhnError if it is too large."""
    height, width = image.shape[:2]
    if height * width > max_pixels() or max(height, width) > MAX_SIDE:
        raise _too_large(name)
    return image


def _too_large(name: str) -> DhnError:
    return DhnError(
        f"{name}: has more than {max_pixels()} pixels or a side of more than {MAX_SIDE}; scale it "
        f"down (the environment variable {VARIABLE} sets the number of pixels)"
    )


def _is_cut_short(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end: OpenCV 4 fills what is missing with grey."""
    if data.startswith(b"\xff\xd8\xff"):
        return data.rfind(b"\xff\xd9") < _jpeg_scan_start(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"IEND\xaeB`\x82" not in data
    return False


def _jpeg_scan_start(data: bytes) -> int:
    """Where the first scan begins. An end marker before it belongs to an embedded thumbnail."""
    position = 2
    while position + 4 <= len(data):
        marker = data[position + 1]
        if data[position] != 0xFF or marker == 0xDA:
            return position
        if marker == 0xFF:  # which may be repeated before a marker
            position += 1
        else:  # every other marker here has a length
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return len(data)


def write_image(path: str | os.PathLike[str], rgb: np.ndarray) -> None:
    """Writes an image in the format that the suffix of the path names, whole or not at all.

    Args:
        path: the file; missing folders are made.
        rgb: RGB uint8 [H, W, 3].

    Raises:
        DhnError: the suffix names no image format, or the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    try:
        _, data = cv2.imencode(suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise DhnError(f"{path}: unknown image format; use .jpg or .png") from error
    with written_whole(path) as temporary:
        temporary.write_bytes(data.tobytes())
