"""HEIC and other HEIF images, by the package pillow-heif where it is installed."""

import functools
from importlib.util import find_spec

import numpy as np

from dhn.base.errors import DhnError

HEIF_SUFFIXES = {".heic", ".heif", ".hif"}
PACKAGE = "pillow-heif"
_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}


@functools.cache
def reads_heif() -> bool:
    """Whether pillow-heif is installed."""
    return find_spec("pillow_heif") is not None


def is_heif(data: bytes) -> bool:
    """Whether the bytes of a file begin like HEIF, except AVIF, which OpenCV reads."""
    return data[4:8] == b"ftyp" and data[8:12] in _BRANDS and b"avif" not in data[8:64]


def decode_heif(data: bytes, name: str) -> np.ndarray:
    """Decodes a HEIF image, turned as viewers show it.

    Args:
        data: the bytes of the file.
        name: what error messages call it.

    Returns:
        RGB uint8 [H, W, 3].

    Raises:
        DhnError: pillow-heif is not installed, or the image is damaged.
    """
    try:
        import pillow_heif
    except ImportError as error:
        raise DhnError(f"{name}: HEIC needs {PACKAGE}: pip install {PACKAGE}") from error
    try:
        pixels = np.asarray(pillow_heif.read_heif(data))  # 8 bits, unless asked otherwise
    except Exception as error:  # several kinds, as libheif has it
        raise DhnError(f"{name}: is damaged, or no HEIC image; replace or remove it") from error
    if pixels.ndim == 2:
        pixels = np.stack([pixels] * 3, -1)
    return np.ascontiguousarray(pixels[..., :3])
