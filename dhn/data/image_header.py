"""The size of an image, from its first bytes."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dhn.base.files import read_bytes


class ImageHeader(NamedTuple):
    """Width and height of the pixels as stored, and whether EXIF data turns or mirrors them."""

    width: int
    height: int
    turned: bool


def read_header(path: Path) -> ImageHeader:
    """Reads the size of an image. Only where it is neither JPEG nor PNG are the pixels decoded.

    Raises:
        DhnError: there is no such image, or it cannot be read.
    """
    data = read_bytes(path)
    if data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) >= 24:
        width, height = struct.unpack_from(">II", data, 16)
        return ImageHeader(width, height, False)
    size: tuple[int, int] | None = None
    turned = False
    for marker, segment in _jpeg_segments(data):
        # 0xC0 to 0xCF begin a frame, except for three kinds of tables.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and len(segment) >= 5:
            height, width = struct.unpack_from(">HH", segment, 1)
            size = (width, height)
        elif marker == 0xE1 and segment.startswith(b"Exif\0\0"):
            turned = _orientation(segment[6:]) in range(2, 9)
    if size:
        return ImageHeader(*size, turned)
    from dhn.media.images import decode_image  # OpenCV, which predictions are scored without

    height, width, _ = decode_image(data, str(path), ignore_orientation=True).shape
    return ImageHeader(width, height, False)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The markers before the first scan of a JPEG, with what they hold; nothing of other files."""
    position = 2 if data.startswith(b"\xff\xd8\xff") else len(data)
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        marker = data[position + 1]
        if marker == 0xFF:  # which may be repeated before a marker
            position += 1
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        yield marker, data[position + 4 : position + 2 + length]
        position += 2 + length


def _orientation(tiff: bytes) -> int:
    """EXIF's orientation, 1 to 8; 1, upright, where there is none."""
    order = ">" if tiff.startswith(b"MM") else "<"
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(order + "HHIH", tiff, entry)
            if tag == 0x0112:
                return value
    except struct.error:  # cut short
        pass
    return 1
