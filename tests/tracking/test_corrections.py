"""Ids corrected by a table."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhn.base.errors import DhnError
from dhn.data.joints import CROWDPOSE
from dhn.inference.people import People
from dhn.tracking.corrections import Correction, Corrections, read_corrections


def people(*ids):
    P = len(ids)
    keypoints = np.ones((P, 14, 3), np.float32) * np.arange(1, P + 1)[:, None, None]
    return People(keypoints, np.ones(P, np.float32), CROWDPOSE, ids=np.array(ids, int))


def written(tmp_path, text):
    path = tmp_path / "fixes.csv"
    path.write_text(text)
    return read_corrections(path)


def test_swap_merge_and_split(tmp_path):
    fixes = written(
        tmp_path,
        "action, id, other, first, last, source\n"
        "swap,1,2,10,19,\n"
        "merge,9,3,,,clip.mp4\n"
        "split,4,12,15,,holiday/clip.mp4\n",
    )
    by_frame = {
        9: [1, 2, 3, 4],
        10: [2, 1, 3, 4],
        15: [2, 1, 3, 12],
        19: [2, 1, 3, 12],
        20: [1, 2, 3, 12],
    }
    for frame, expected in by_frame.items():
        found = fixes.corrected(people(1, 2, 9, 4), frame, "holiday/clip.mp4")
        assert found.ids.tolist() == expected, frame
        np.testing.assert_array_equal(found.keypoints, people(1, 2, 9, 4).keypoints)
    other = fixes.corrected(people(1, 2, 9, 4), 15, "other/clip.mp4")
    assert other.ids.tolist() == [2, 1, 3, 4]
    assert fixes.corrected(people(9), 0, "another-clip.mp4").ids.tolist() == [9]


def test_nobody_gets_an_id_twice(tmp_path, caplog):
    fixes = written(tmp_path, "action,id,other\nmerge,9,3\n")
    assert fixes.corrected(people(3, 9), 7, "a.mp4").ids.tolist() == [3, 9]
    assert fixes.corrected(people(3, 9), 8, "a.mp4").ids.tolist() == [3, 9]
    assert fixes.corrected(people(9), 9, "a.mp4").ids.tolist() == [3]
    (warning,) = caplog.messages
    assert "line 2: frame 7 has both 9 and 3" in warning


CORRECTIONS = st.builds(
    Correction,
    line=st.integers(2, 9),
    action=st.sampled_from(["swap", "merge", "split"]),
    id=st.integers(1, 3),
    other=st.integers(4, 6),
    first=st.none() | st.integers(0, 3),
)


@given(
    lines=st.lists(CORRECTIONS, max_size=4),
    ids=st.lists(st.integers(1, 6), unique=True, max_size=6),
    frame=st.integers(0, 4),
)
def test_ids_stay_unique_and_equal_those_of_one_person_at_a_time(lines, ids, frame):
    found = Corrections("fixes.csv", tuple(lines)).corrected(people(*ids), frame, "a.mp4")
    expected = list(ids)
    for line in lines:
        if (line.first or 0) > frame:
            continue
        before = list(expected)
        for k, id in enumerate(before):
            if id == line.id and (line.action == "swap" or line.other not in before):
                expected[k] = line.other
            elif id == line.other and line.action == "swap":
                expected[k] = line.id
    assert found.ids.tolist() == expected
    assert len(set(expected)) == len(expected)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "must name columns"),
        ("action,id\n", "must name columns"),
        ("action,id,other,colour\n", "must name columns"),
        ("action,id,other\nerase,1,2\n", "line 2: action must be swap, merge or split"),
        ("action,id,other\nswap,0,2\n", "line 2: id must be a whole number from 1, not '0'"),
        ("action,id,other\nswap,1\n", "line 2: other must be a whole number"),
        ("action,id,other\nswap,1,1\n", "id and other are both 1"),
        ("action,id,other\nswap,1,2,3\n", "more cells"),
        ("action,id,other,first,last\nswap,1,2,9,3\n", "last, 3, is before first, 9"),
        ("action,id,other,first\nswap,1,2,-1\n", "first must be a whole number from 0"),
        ("action,id,other\nsplit,1,2\n", "split needs first or last"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(tmp_path, text, complaint):
    with pytest.raises(DhnError, match=r"fixes\.csv") as error:
        written(tmp_path, text)
    assert complaint in str(error.value)


def test_a_table_that_is_no_text(tmp_path):
    (tmp_path / "fixes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DhnError, match="UTF-8"):
        read_corrections(tmp_path / "fixes.csv")
