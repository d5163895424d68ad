"""Image files: they come back as they were, and broken ones are reported in one line."""

import os
import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dhn.base.errors import DhnError
from dhn.media.images import decode_image, read_image, write_image
from plain_images import encoded, scene


def exif(orientation=1, thumbnail=b""):
    """A JPEG APP1 segment with an orientation tag; the thumbnail's bytes follow."""
    tags = struct.pack("<HHHHIHHI", 1, 0x0112, 3, 1, 0, 0, 0, 0)[:2]
    tags += struct.pack("<HHIHHI", 0x0112, 3, 1, orientation, 0, 0)
    body = b"Exif\0\0" + b"II*\0" + struct.pack("<I", 8) + tags + thumbnail
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def with_segment(jpeg, segment):
    return jpeg[:2] + segment + jpeg[2:]


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp", "with space ü 人.png"])
def test_images_come_back(tmp_path, name):
    write_image(tmp_path / name, scene())
    back = read_image(tmp_path / name)
    assert back.dtype == np.uint8
    tolerance = 0 if name.endswith(("png", "bmp")) else 6
    assert np.abs(back.astype(int) - scene()).mean() <= tolerance
    assert os.listdir(tmp_path) == [name]


def test_grey_deep_and_transparent_images_become_rgb():
    grey = scene()[..., 0]
    deep = grey.astype(np.uint16) * 257
    clear = np.dstack([scene()[..., ::-1], np.full_like(grey, 128)])
    for image, expected in ((grey, grey), (deep, grey), (clear, None)):
        back = decode_image(cv2.imencode(".png", image)[1].tobytes(), "x")
        assert back.dtype == np.uint8
        expected = scene() if expected is None else np.dstack([expected] * 3)
        np.testing.assert_array_equal(back, expected)


def test_orientation_is_applied_unless_ignored(tmp_path):
    path = tmp_path / "turned.jpg"
    path.write_bytes(with_segment(encoded(".jpg"), exif(orientation=6)))
    stored = read_image(path, ignore_orientation=True)
    assert stored.shape == (48, 64, 3)
    np.testing.assert_array_equal(read_image(path), np.rot90(stored, -1))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_images_cut_anywhere_are_refused(data):
    thumbnail = encoded(".jpg", scene(12, 16))
    whole = data.draw(
        st.sampled_from(
            [
                encoded(".jpg"),
                encoded(".png"),
                encoded(".webp"),
                with_segment(encoded(".jpg"), exif(thumbnail=thumbnail)),
                cv2.imencode(".jpg", scene(), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes(),
            ]
        )
    )
    assert decode_image(whole, "whole").shape == (48, 64, 3)
    assert decode_image(whole + b"trailing bytes", "whole").shape == (48, 64, 3)
    length = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(DhnError, match=r"^photo\.jpg: [^\n]*$"):
        decode_image(whole[:length], "photo.jpg")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_bytes_that_are_no_image_are_refused(data):
    for start in (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0\x00\x00"):
        with pytest.raises(DhnError):
            decode_image(start + data, "x")


def test_unreadable_paths_are_named(tmp_path):
    for path in (tmp_path / "missing.jpg", tmp_path):
        with pytest.raises(DhnError, match=str(path)):
            read_image(path)


def test_a_full_disk_leaves_no_image(tmp_path, full_disk):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8)
    with full_disk(1000), pytest.raises(DhnError, match=r"out\.png: cannot be written"):
        write_image(tmp_path / "out.png", noise)
    assert os.listdir(tmp_path) == []
    with pytest.raises(DhnError, match="image format"):
        write_image(tmp_path / "out.nonsense", scene())
