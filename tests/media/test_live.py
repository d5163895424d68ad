"""Cameras, for which FFmpeg's test picture stands in, and streams of a server on this machine."""

import threading
import time

import pytest

from assertions import complaint
from blue_people import image
from dhn.media import live
from dhn.media.frames import Excerpt
from dhn.media.live import LiveReader
from dhn.media.remote import is_endless
from dhn.media.sources import list_sources
from download_server import serving
from streams import streaming


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


def test_a_stream_that_breaks_comes_back(monkeypatch, caplog):
    """Two connections, and attempts without an answer between them."""
    monkeypatch.setattr(live, "_FIRST_WAIT", 0.01)
    more, end = threading.Event(), threading.Event()
    first, second = ([image(blue)] * 30 for blue in (1, 6))
    with streaming([[*first, more], [*second, end]]) as server:
        (source,) = list_sources([server.address])
        assert (source.is_live, source.is_video, source.name) == (True, True, "camera")
        assert source.label == server.address
        with source.open_video() as reader:
            frames = iter(reader)
            shown = [next(frames)]
            waiting, server.parts = server.parts, []
            more.set()
            while "connecting again" not in caplog.text:  # the frames of the first part end
                time.sleep(0.01)
            server.parts = waiting
            while shown[-1].image[..., 2].mean() < 40:
                shown.append(next(frames))
            end.set()
    assert len(caplog.records) == 1
    assert "broke off; connecting again" in caplog.text
    blues = [round(frame.image[..., 2].mean() / 10) for frame in shown]
    assert (blues[0], blues[-1]) == (1, 6)
    numbers = [frame.index for frame in shown]
    assert numbers == sorted({*numbers})
    times = [frame.time for frame in shown]
    assert times == sorted({*times})


def test_a_stream_that_stays_away(monkeypatch):
    monkeypatch.setattr(live, "_FIRST_WAIT", 0.01)
    monkeypatch.setitem(live._PATIENCE, True, 0.5)
    with streaming([[image(1)] * 30]) as server:
        (source,) = list_sources([server.address])
        assert source.is_live
        with source.open_video() as reader:
            line = complaint(list, reader)
    assert line == f"{server.address}: gives no more frames; look at the network and try again"
    line = complaint(LiveReader, server.address)  # now nobody is there
    assert line.startswith(f"{server.address}: cannot be opened")


def test_a_dead_stream_ends_when_its_time_is_over_or_somebody_stops_it(monkeypatch):
    end, stop = threading.Event(), threading.Event()
    for excerpt in (Excerpt(end=0.3), Excerpt()):
        with streaming([[image(1)] * 30 + [end]]) as server:
            (source,) = list_sources([server.address])
            assert source.is_live
            with source.open_video(excerpt, stop) as reader:
                frames = iter(reader)
                next(frames)
                if excerpt.end is None:
                    stop.set()
                assert all(frame.index < 30 for frame in frames)
                end.set()


@pytest.mark.parametrize(
    ("kind", "length", "endless"),
    [
        ("multipart/x-mixed-replace; boundary=x", False, True),
        ("video/mp2t", False, True),
        ("video/mp2t", True, False),
        ("video/mp4", False, False),
        ("image/jpeg", False, False),
    ],
)
def test_which_addresses_are_streams(kind, length, endless):
    mishap = [("type and no length" if not length else "type", kind)]
    with serving({"/camera": b"x"}) as server:
        server.mishaps = mishap
        assert is_endless(server.address + "camera") == endless
        assert not is_endless(server.address + "elsewhere")
        server.mishaps = mishap
        (source,) = list_sources([server.address + "camera.jpg"])
        assert not source.is_live
        assert server.mishaps == mishap  # it was not asked


@pytest.mark.parametrize("scheme", ["rtsp", "rtmp", "udp", "srt"])
def test_streams_by_their_scheme(scheme):
    address = f"{scheme}://127.0.0.1:9/live/door"
    (source,) = list_sources([address])
    assert (source.is_live, source.name, source.path) == (True, "door", address)
