"""Images of every kind become RGB uint8, or are refused in one line."""

import cv2
import numpy as np
import pytest
import torch

from assertions import complaint
from dhn.media.convert import as_rgb
from dhn.media.images import read_image, write_image

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = RGB[..., 0]
ALPHA = np.dstack([RGB, GREY])


def grey_as_rgb(grey):
    return np.stack([grey] * 3, axis=2)


def assert_rgb(converted, expected):
    assert converted.dtype == np.uint8
    assert converted.flags.c_contiguous
    np.testing.assert_array_equal(converted, expected)


def test_rgb_bytes_are_not_copied():
    assert np.shares_memory(as_rgb(RGB), RGB)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (GREY, grey_as_rgb(GREY)),
        (GREY[..., None], grey_as_rgb(GREY)),
        (ALPHA, RGB),
        (RGB[::-1, ::2, ::-1], RGB[::-1, ::2, ::-1]),
        (RGB.astype(np.int64), RGB),
        (RGB.astype(np.int8) & 0x7F, RGB & 0x7F),
        (GREY > 100, grey_as_rgb(np.where(GREY > 100, 255, 0))),
        (RGB / 255, RGB),
        (RGB.astype(np.float32) / 255, RGB),
        (GREY.astype(np.float16) / 255, grey_as_rgb(GREY)),
        (np.full((2, 2), 0.5019), np.full((2, 2, 3), 128)),
        (np.zeros((2, 2)), np.zeros((2, 2, 3))),
        (RGB.astype(np.uint16) * 256 + 77, RGB),
        (RGB.astype(">u2") * 256, RGB),
        (np.full((2, 2), 65535, np.uint16), np.full((2, 2, 3), 255)),
        (np.zeros((2, 2), np.uint16), np.zeros((2, 2, 3))),
        (torch.from_numpy(RGB).permute(2, 0, 1), RGB),
        (torch.from_numpy(RGB).permute(2, 0, 1) / 255, RGB),
        (torch.from_numpy(ALPHA).permute(2, 0, 1), RGB),
        (torch.from_numpy(GREY), grey_as_rgb(GREY)),
        (torch.from_numpy(GREY)[None], grey_as_rgb(GREY)),
        (torch.ones(2, 2, dtype=torch.bfloat16, requires_grad=True), np.full((2, 2, 3), 255)),
    ],
    ids=lambda value: f"{value.dtype}{list(value.shape)}",
)
def test_arrays_and_tensors(image, expected):
    assert_rgb(as_rgb(image), expected)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "1", "P", "CMYK", "YCbCr", "HSV"])
def test_pil_images_of_eight_bits(mode):
    Image = pytest.importorskip("PIL.Image")
    image = Image.fromarray(RGB).convert(mode)
    assert_rgb(as_rgb(image), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(
    ("mode", "array"),
    [
        ("I;16", GREY.astype(np.uint16) * 256 + 9),
        ("I", GREY.astype(np.int32)),
        ("F", GREY.astype(np.float32) / 255),
    ],
)
def test_pil_images_of_more_bits_are_not_clipped(mode, array):
    Image = pytest.importorskip("PIL.Image")
    image = Image.fromarray(array)
    assert image.mode == mode
    assert_rgb(as_rgb(image), grey_as_rgb(GREY))


def test_pil_and_path_differ_by_the_orientation_alone(tmp_path):
    """The keypoints must lie in the pixels that the caller holds."""
    Image = pytest.importorskip("PIL.Image")
    ImageOps = pytest.importorskip("PIL.ImageOps")
    turned = Image.fromarray(RGB)
    turned.getexif()[0x0112] = 6  # a quarter turn clockwise
    turned.save(tmp_path / "turned.png", exif=turned.getexif())
    stored = Image.open(tmp_path / "turned.png")
    assert_rgb(as_rgb(stored), RGB)
    upright = np.rot90(RGB, -1)
    assert_rgb(as_rgb(tmp_path / "turned.png"), upright)
    assert_rgb(as_rgb(ImageOps.exif_transpose(stored)), upright)


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_paths(tmp_path, kind):
    write_image(tmp_path / "image.png", RGB)
    assert_rgb(as_rgb(kind(tmp_path / "image.png")), RGB)
    assert complaint(as_rgb, kind(tmp_path / "none.png")).startswith(f"{tmp_path / 'none.png'}: ")


def test_sixteen_bits_are_as_in_a_file(tmp_path):
    deep = np.random.default_rng(1).integers(0, 65536, (9, 11), dtype=np.uint16)
    for suffix in (".png", ".tiff"):
        path = tmp_path / f"deep{suffix}"
        cv2.imwrite(str(path), deep)
        np.testing.assert_array_equal(as_rgb(deep), read_image(path))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((0, 7, 3), np.uint8), "has no pixels, its shape is [0, 7, 3]"),
        (np.zeros((5, 0), np.uint8), "has no pixels"),
        (np.zeros((5, 7, 2), np.uint8), "must be [H, W] or [H, W, C]"),
        (np.zeros((3, 50, 70), np.uint8), "np.moveaxis(image, 0, 2) puts the channels last"),
        (np.zeros((2, 5, 7, 3), np.uint8), "several images are given as a list of them"),
        (np.zeros(5, np.uint8), "not [5]"),
        (np.uint8(5), "is a uint8; give a path"),
        (np.float32(255) * GREY, "floats must lie in 0..1"),
        (np.full((2, 2), -0.01), "these reach from -0.01 to -0.01"),
        (np.full((2, 2), np.nan), "holds NaN or infinity"),
        (np.full((2, 2), -np.inf, np.float16), "holds NaN or infinity"),
        (RGB.astype(np.uint16), "the largest value here is"),
        (np.full((2, 2), 4095, np.uint16), "uint16 counts to 65535"),
        (np.full((2, 2), 256), "must lie in 0..255, and these reach from 256 to 256"),
        (np.full((2, 2), -1, np.int8), "must lie in 0..255"),
        (np.full((2, 2), 1j), "holds complex128"),
        (np.array([[None]]), "holds object"),
        (torch.zeros(50, 70, 3, dtype=torch.uint8), "image.permute(2, 0, 1)"),
        (torch.zeros(1, 3, 5, 7), "several images are given as a list"),
        (torch.full((3, 5, 7), 2.0), "these reach from 2 to 2"),
        (None, "is a NoneType"),
        (b"\xff\xd8", "is a bytes"),
        (iter([RGB]), "or a list of these"),
    ],
)
def test_refused(image, words):
    message = complaint(as_rgb, image, "images[2]")
    assert message.startswith("images[2]: ")
    assert words in message


def test_a_file_that_pil_opened_and_cannot_read(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    write_image(tmp_path / "whole.png", np.repeat(RGB, 50, 0))
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    assert "PIL cannot read it" in complaint(as_rgb, Image.open(tmp_path / "cut.png"))
