"""Short texts over images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dhn.media.lettering import Box, Text

RED, BLUE = np.array((255, 0, 0)), np.array((0, 0, 255))


@given(
    x=st.floats(-50, 250),
    bottom=st.floats(-50, 150),
    scale=st.floats(0.35, 2),
    size=st.tuples(st.integers(1, 100), st.integers(1, 200)),
)
@settings(max_examples=40, deadline=None)
def test_a_text_stays_inside_and_touches_its_box_alone(x, bottom, scale, size):
    canvas = np.full((*size, 3), 128, np.uint8)
    text = Text("17", scale)
    box = text.place(canvas.shape, x, bottom)
    text.write(canvas, box, RED, BLUE)
    assert box.left >= 0
    assert box.top >= 0
    fits = box.right - box.left <= size[1] and box.bottom - box.top <= size[0]
    assert not fits or (box.right <= size[1] and box.bottom <= size[0])
    canvas[box.top : box.bottom, box.left : box.right] = 128
    assert (canvas == 128).all()


@pytest.mark.parametrize("scale", [0.4, 3])
def test_letters_have_a_rim_on_all_sides(scale):
    canvas = np.full((120, 200, 3), 128, np.uint8)
    text = Text("5", scale)
    box = text.place(canvas.shape, 100, 110)
    text.write(canvas, box, RED, BLUE)
    blueness = canvas[..., 2].astype(int) - canvas[..., 0]
    letters, rim = np.argwhere(blueness < -50), np.argwhere(blueness > 50)
    assert len(letters) > 5
    assert (rim.min(0) < letters.min(0)).all()
    assert (rim.max(0) > letters.max(0)).all()


def test_texts_evade_each_other_where_there_is_room():
    taken = []
    for _ in range(6):
        box = Text("3", 0.5).place((400, 100, 3), 50, 300, taken)
        assert not any(map(box.meets, taken))
        taken.append(box)
    assert min(box.top for box in taken) < 300 - 60
    full = [Box(0, 0, 100, 400)]
    alone = Text("3", 0.5).place((400, 100, 3), 50, 300)
    assert Text("3", 0.5).place((400, 100, 3), 50, 300, full) == alone


def test_boxes_meet():
    assert Box(0, 0, 4, 4).meets(Box(3, 3, 9, 9))
    assert not Box(0, 0, 4, 4).meets(Box(4, 0, 9, 9))
    assert not Box(0, 0, 4, 4).meets(Box(0, 4, 9, 9))
