import json
import math
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhn.base.errors import DhnError
from dhn.base.files import read_json, write_json, written_whole


def write(path, content, error=None):
    with written_whole(path) as temporary:
        temporary.write_bytes(content)
        if error is not None:
            raise error


def test_a_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "a" / "b" / "clip.mp4"
    with written_whole(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == path.parent
        assert temporary.suffix == ".mp4"
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, DhnError])
def test_a_failure_keeps_the_old_file(tmp_path, error):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(error):
        write(path, b"half of the n", error("stop"))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_keeps_the_old_file_and_is_one_line(tmp_path, full_disk):
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")
    with full_disk(1000), pytest.raises(DhnError, match=f"{path}: cannot be written") as caught:
        write(path, b"x" * 5000)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_results_are_ordinary_files(tmp_path):
    before = os.umask(0o027)
    try:
        with written_whole(tmp_path / "x") as temporary:
            temporary.write_text("")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640


def test_places_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "x.txt", tmp_path):
        with pytest.raises(DhnError, match=f"{path}: cannot be written") as caught:
            write(path, b"new")
        assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_pipes_and_devices_are_written_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with written_whole(pipe) as target:
        target.write_text("through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert list(tmp_path.iterdir()) == [pipe]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(json_values)
def test_json_goes_round(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "value.json"
    write_json(path, value)
    assert read_json(path) == value
    assert path.read_text().endswith("\n")


@pytest.mark.parametrize("value", [math.nan, math.inf, [1, {"a": -math.inf}]])
def test_nan_and_infinity_are_not_json(tmp_path, value):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "x.json", value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe\xfa", b"[1, 2", b"<html>", b"[" * 100_000]
)
def test_a_file_that_is_not_json_is_named(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(DhnError, match=f"{path}: is not JSON") as caught:
        read_json(path)
    assert "\n" not in str(caught.value)


def test_json_that_cannot_be_read_is_named(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(DhnError, match=f"{path}: cannot be read"):
            read_json(path)


def test_indent(tmp_path):
    write_json(tmp_path / "x.json", {"a": [1]}, indent=2)
    assert (tmp_path / "x.json").read_text() == json.dumps({"a": [1]}, indent=2) + "\n"


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("old")
    link = tmp_path / "link"
    link.symlink_to("there/file")
    write(link, b"new")
    assert link.is_symlink()
    assert (tmp_path / "there" / "file").read_text() == "new"
    dangling = tmp_path / "dangling"
    dangling.symlink_to("there/later")
    write(dangling, b"made")
    assert dangling.is_symlink()
    assert (tmp_path / "there" / "later").read_text() == "made"


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="needs /dev/null")
def test_device_nodes_stay(tmp_path):
    link = tmp_path / "null"
    link.symlink_to("/dev/null")
    write(link, b"gone")
    assert link.is_symlink()
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
