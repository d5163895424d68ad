"""What users name, expanded to images and videos."""

import io
import os

import numpy as np
import pytest

from dhn.base.errors import DhnError
from dhn.media.sources import list_sources
from plain_images import encoded, scene


@pytest.fixture
def folder(tmp_path):
    for name in ("b.jpg", "a.PNG", "notes.txt", ".hidden.jpg", "clip.mp4"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "b.jpg").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_folders_and_globs_expand_in_order(folder):
    def names(*arguments):
        return [
            (os.path.relpath(source.path, folder), source.is_video)
            for source in list_sources([str(folder / argument) for argument in arguments])
        ]

    listed = [("a.PNG", False), ("b.jpg", False), ("clip.mp4", True)]
    assert names(".") == listed
    assert names("*") == listed
    assert names("**/b.jpg") == [("b.jpg", False), ("inner/b.jpg", False)]
    assert names("clip.mp4", "*.jpg") == [("clip.mp4", True), ("b.jpg", False)]
    assert names("missing.jpg", "notes.txt") == [("missing.jpg", False), ("notes.txt", False)]
    for nothing in ("empty", "*.webp", "*.txt"):
        with pytest.raises(DhnError, match="no images or videos"):
            names(nothing)


def test_a_file_named_like_a_glob_is_taken_as_it_is(folder):
    odd = folder / "photo[1].jpg"
    odd.write_bytes(b"")
    assert [source.path for source in list_sources([str(odd)])] == [str(odd)]


def test_sources_are_taken_once_and_named_apart(folder):
    paths = [str(folder / name) for name in ("b.jpg", "inner/b.jpg", "b.jpg", "B.JPG", "b-2.jpg")]
    sources = list_sources([*paths, "-"])
    assert [source.path for source in sources] == [*paths[:2], *paths[3:], "-"]
    names = [source.name for source in sources]
    assert names[:2] == ["b.jpg", "b-2.jpg"]
    assert names[-1] == "stdin"
    assert len({name.casefold() for name in names}) == len(names)


def test_standard_input_is_an_image(monkeypatch):
    (source,) = list_sources(["-"])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(encoded(".png"))))
    np.testing.assert_array_equal(source.read_image(), scene())
