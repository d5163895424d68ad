import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhn.data.geometry import Affine, crop_transform, input_transform

coordinate = st.floats(-1000, 1000)
sizes = st.tuples(st.integers(1, 3000), st.integers(1, 3000))


@st.composite
def affines(draw):
    entries = draw(st.lists(st.floats(-3, 3), min_size=4, max_size=4))
    linear = np.array(entries).reshape(2, 2)
    if abs(np.linalg.det(linear)) < 0.05:
        linear = linear + 3.2 * np.eye(2) @ np.diag([1, -1])
    if abs(np.linalg.det(linear)) < 0.05:
        linear = np.eye(2)
    return Affine(np.column_stack([linear, draw(st.tuples(coordinate, coordinate))]))


@given(affines(), coordinate, coordinate)
def test_apply_is_the_written_out_formula(affine, x, y):
    (a, b, c), (d, e, f) = affine.matrix
    np.testing.assert_allclose(
        affine.apply(np.array([x, y])), [a * x + b * y + c, d * x + e * y + f], atol=1e-8
    )


def test_apply_takes_any_shape_and_float32():
    affine = Affine(np.array([[0.0, -2, 5], [2, 0, 1]]))
    points = np.random.default_rng(0).uniform(0, 9, (2, 3, 4, 2)).astype(np.float32)
    got = affine.apply(points)
    assert got.shape == points.shape
    assert got.dtype == np.float64
    np.testing.assert_allclose(got[1, 2, 3], affine.apply(points[1, 2, 3]))
    assert affine.apply(np.zeros((0, 2))).shape == (0, 2)


@given(affines(), coordinate, coordinate)
def test_inverse_leads_back(affine, x, y):
    there = affine.apply(np.array([x, y]))
    np.testing.assert_allclose(affine.inverse().apply(there), [x, y], atol=1e-6)


@given(affines(), affines(), coordinate, coordinate)
def test_then_is_one_after_the_other(first, second, x, y):
    point = np.array([x, y])
    np.testing.assert_allclose(
        first.then(second).apply(point), second.apply(first.apply(point)), atol=1e-6
    )


@given(affines())
def test_scale_is_the_root_of_the_area(affine):
    corners = affine.apply(np.array([[0, 0], [1, 0], [0, 1]]))
    (ux, uy), (vx, vy) = corners[1:] - corners[0]
    assert affine.scale == pytest.approx(math.sqrt(abs(ux * vy - uy * vx)))


@given(affines(), coordinate, coordinate)
def test_cv2_matrix_counts_pixel_centres_from_zero(affine, x, y):
    by_cv2 = affine.cv2_matrix() @ [x, y, 1]
    np.testing.assert_allclose(by_cv2 + 0.5, affine.apply(np.array([x + 0.5, y + 0.5])), atol=1e-8)


@pytest.mark.parametrize("flip", [False, True])
def test_a_warped_pixel_lies_where_the_affine_says(flip):
    """Every whole-pixel move and 90 degree turn keeps a dot exactly on its pixel."""
    image = np.zeros((20, 30), np.uint8)
    image[4, 7] = 255
    turn = crop_transform((30, 20), 20, rotation=90, shift=(-0.2, 0.05), flip=flip)
    warped = cv2.warpAffine(image, turn.cv2_matrix(), (20, 20), flags=cv2.INTER_LINEAR)
    x, y = turn.apply(np.array([7.5, 4.5]))
    assert np.argwhere(warped == 255).tolist() == [[math.floor(y), math.floor(x)]]
    assert np.count_nonzero(warped) == 1


@given(sizes, st.integers(1, 16).map(lambda n: 64 * n))
def test_input_transform_fits_the_short_side_and_centres(size, input_size):
    affine, padded = input_transform(size, input_size)
    W, H = size
    scale = input_size / min(size)
    assert affine.scale == pytest.approx(scale)
    assert affine.matrix[0, 1] == affine.matrix[1, 0] == 0
    for side, full in zip(size, padded, strict=True):
        assert full % 64 == 0
        assert full >= side * scale - 1e-6  # nothing is cut off ...
        assert full - side * scale < 64  # ... and no more is padded than needed
    assert padded[0 if W <= H else 1] == input_size
    np.testing.assert_allclose(
        affine.apply(np.array([W / 2, H / 2])), np.array(padded) / 2, atol=1e-6
    )


@pytest.mark.parametrize(
    ("size", "input_size", "padded", "scale"),
    [
        ((640, 480), 512, (704, 512), 512 / 480),
        ((480, 640), 512, (512, 704), 512 / 480),
        ((512, 512), 512, (512, 512), 1),
        ((1024, 512), 512, (1024, 512), 1),
        ((3, 3), 64, (64, 64), 64 / 3),  # 3 * (64 / 3) must not round up to 128
        ((1, 100), 64, (64, 6400), 64),
    ],
)
def test_input_transform_by_hand(size, input_size, padded, scale):
    affine, got = input_transform(size, input_size)
    assert got == padded
    assert affine.scale == pytest.approx(scale)


@given(
    sizes,
    st.floats(-180, 180),
    st.floats(0.1, 4),
    st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)),
    st.booleans(),
)
def test_crop_transform_does_what_its_parts_say(size, rotation, scale, shift, flip):
    """Step by step: centre away, turn, zoom, centre of the crop, mirror."""
    S = 128
    affine = crop_transform(size, S, rotation=rotation, scale=scale, shift=shift, flip=flip)
    side = scale * min(size)
    point = np.array([0.3 * size[0], 0.8 * size[1]])
    x, y = point - np.array(size) / 2 - np.array(shift) * side
    angle = math.radians(rotation)
    x, y = x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)
    x, y = x * S / side + S / 2, y * S / side + S / 2
    np.testing.assert_allclose(affine.apply(point), [S - x if flip else x, y], atol=1e-6)
    np.testing.assert_allclose(affine.inverse().apply(affine.apply(point)), point, atol=1e-6)


def test_rotation_is_clockwise_on_the_screen():
    affine = crop_transform((100, 100), 100, rotation=90)
    # What was right of the centre is below it.
    np.testing.assert_allclose(affine.apply(np.array([80, 50])), [50, 80], atol=1e-9)


def test_crop_without_arguments_is_the_central_square():
    affine = crop_transform((200, 100), 50)
    np.testing.assert_allclose(affine.apply(np.array([[50, 0], [150, 100]])), [[0, 0], [50, 50]])
