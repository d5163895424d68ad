"""HEIC images, written by pillow-heif itself."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from assertions import complaint
from dhn.media.images import decode_image, read_image
from dhn.media.sources import find_sources
from plain_images import scene


def heic(rgb, mode="RGB", orientation=1):
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs pillow-heif")
    exif = Image.Exif()
    exif[274] = orientation
    file = io.BytesIO()
    image = pillow_heif.from_pillow(Image.fromarray(rgb).convert(mode))
    image.save(file, quality=-1, exif=exif.tobytes())  # lossless, but for the colour space
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_pixels_come_back(mode, tmp_path):
    rgb = np.repeat(np.repeat(scene()[:20, :30], 2, 0), 2, 1)  # chroma is halved
    (tmp_path / "a.heic").write_bytes(heic(rgb, mode))
    got = read_image(tmp_path / "a.heic")
    expected = np.asarray(Image.fromarray(rgb).convert(mode).convert("RGB"))
    assert got.shape == expected.shape
    assert got.dtype == np.uint8
    assert np.abs(got.astype(int) - expected).mean() < 3


def test_it_is_turned_as_viewers_show_it():
    rgb = np.zeros((20, 40, 3), np.uint8)
    rgb[:, :20, 0] = 200
    got = decode_image(heic(rgb, orientation=6), "a.heic")
    assert got.shape == (40, 20, 3)
    assert got[:18, :, 0].min() > 150 > 50 > got[22:, :, 0].max()


def test_damaged_ones_are_reported_in_one_line():
    data = heic(scene())
    for broken in (data[:100], data[:-50], data[:40] + bytes(len(data) - 40)):
        assert "a.heic: is damaged" in complaint(decode_image, broken, "a.heic")


def test_large_ones_are_refused(monkeypatch):
    monkeypatch.setattr("dhn.media.images.max_pixels", lambda: 100)
    assert "pixels" in complaint(decode_image, heic(scene()), "a.heic")


def test_on_standard_input(monkeypatch):
    data = heic(scene())
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    (source,) = find_sources(["-"]).sources
    assert not source.is_video
    assert source.read_image().shape == scene().shape


def test_without_the_package_one_line_says_so(monkeypatch):
    data = b"\0\0\0\x1cftypheic" + bytes(100)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    line = complaint(decode_image, data, "a.heic")
    assert line == "a.heic: HEIC needs pillow-heif: pip install pillow-heif"
