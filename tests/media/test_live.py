"""Cameras, for which FFmpeg's test picture stands in."""

import pytest

from assertions import complaint
from dhn.media import live
from dhn.media.frames import Excerpt
from dhn.media.live import LiveReader
from dhn.media.sources import list_sources


@pytest.fixture
def shows(monkeypatch):
    """shows(picture): every camera gives this picture of FFmpeg's `lavfi`."""

    def picture(text):
        monkeypatch.setattr(live, "_camera", lambda number: (text, "lavfi"))

    return picture


def test_the_newest_frame_wins(shows):
    shows("testsrc=size=64x48:rate=50")
    with LiveReader("0", Excerpt()) as reader:
        frames = iter(reader)
        last = next(frames)
        assert last.image.shape == (48, 64, 3)
        for _ in range(3):
            with reader._news:  # while the network is slow, the camera goes on
                reader._newest = None
                enough = last.index + 5
                while reader._newest is None or reader._newest[0] < enough:
                    reader._news.wait()
                newest = reader._newest[0]
            frame = next(frames)
            assert frame.index >= newest
            assert frame.time > last.time
            last = frame


def test_a_camera_ends_after_so_many_seconds(shows):
    shows("testsrc=size=64x48:rate=50,realtime")
    with LiveReader("0", Excerpt(end=0.2)) as reader:
        frames = list(reader)
    assert frames
    assert all(frame.time < 0.2 for frame in frames)
    assert reader._ended.is_set()


def test_cameras_that_are_none_or_stop(shows):
    (source,) = list_sources(["7"])
    assert (source.is_live, source.is_video, source.name) == (True, True, "camera-7")
    assert complaint(source.open_video).startswith("camera 7: cannot be opened as ")
    shows("testsrc=size=64x48:rate=50:duration=0.1")
    with source.open_video() as reader:
        assert "camera 7: gives no more frames" in complaint(list, reader)


def test_a_number_that_is_a_file_is_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0").write_bytes(b"")
    (source,) = list_sources(["0"])
    assert not source.is_live
    assert not source.is_video
