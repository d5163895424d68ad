"""What users name, expanded to images and videos."""

import functools
import http.server
import io
import os
import threading
from fractions import Fraction

import cv2
import numpy as np
import pytest

from dhn.base.errors import DhnError
from dhn.media.frames import Excerpt
from dhn.media.images import write_image
from dhn.media.sources import IN_SUB_FOLDERS, Source, find_sources, list_sources
from dhn.media.video import VideoWriter
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


def test_sources_are_taken_once_and_named_apart(folder, monkeypatch):
    paths = [str(folder / name) for name in ("b.jpg", "inner/b.jpg", "b.jpg", "B.JPG", "b-2.jpg")]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(encoded(".png"))))
    sources = list_sources([*paths, "-"])
    assert [source.path for source in sources] == [*paths[:2], *paths[3:], "-"]
    names = [source.name for source in sources]
    assert names[:2] == ["b.jpg", "b-2.jpg"]
    assert names[-1] == "stdin"
    assert len({name.casefold() for name in names}) == len(names)


def test_heic_is_an_image_where_it_can_be_read(folder, monkeypatch):
    (folder / "photo.HEIC").write_bytes(b"")
    for installed in (True, False):
        monkeypatch.setattr("dhn.media.sources.reads_heif", lambda found=installed: found)
        sources, passed_over = find_sources([str(folder)])
        assert ("photo.HEIC" in [source.name for source in sources]) == installed
        assert passed_over["HEIC"] == (not installed)


def test_standard_input_is_an_image(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(encoded(".png"))))
    (source,) = list_sources(["-"])
    np.testing.assert_array_equal(source.read_image(), scene())


def test_sub_folders_and_what_is_passed_over(folder, monkeypatch):
    monkeypatch.setattr("dhn.media.sources.reads_heif", lambda: False)
    (folder / "inner" / "deep").mkdir()
    (folder / "inner" / "deep" / "c.png").write_bytes(b"")
    (folder / "photo.heic").write_bytes(b"")
    sources, passed_over = find_sources([str(folder)])
    assert [source.name for source in sources] == ["a.PNG", "b.jpg", "clip.mp4"]
    assert passed_over == {"TXT": 1, "HEIC": 1, IN_SUB_FOLDERS: 2}
    sources, passed_over = find_sources([str(folder)], recursive=True)
    names = ["a.PNG", "b.jpg", "clip.mp4", "inner/b.jpg", "inner/deep/c.png"]
    assert [source.name for source in sources] == names
    assert [source.stem for source in sources][3:] == ["inner/b", "inner/deep/c"]
    assert passed_over == {"TXT": 1, "HEIC": 1}
    (folder / "up" / "down").mkdir(parents=True)
    (folder / "up" / "down" / "d.jpg").write_bytes(b"")
    with pytest.raises(DhnError, match="--recursive takes those in sub-folders"):
        find_sources([str(folder / "up")])


def make_video(path, frames=10):
    writer = VideoWriter(path, Fraction(10), (32, 24))
    for number in range(frames):
        writer.write(np.full((24, 32, 3), 20 * number, np.uint8), Fraction(number, 10))
    writer.close()


def brightness(source, excerpt=None):
    """What `make_video` makes, read back: the number of each frame."""
    with source.open_video(excerpt) as video:
        return [(frame.index, round(float(frame.image.mean()) / 20)) for frame in video]


def test_standard_input_may_be_a_video_or_a_list(folder, monkeypatch):
    make_video(folder / "clip.mp4")
    data = (folder / "clip.mp4").read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    (source,) = list_sources(["-"])
    assert source.is_video
    assert brightness(source) == [(k, k) for k in range(10)]
    listed = f"{folder / 'b.jpg'}\n\n  {folder / 'inner'}\n".encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(listed)))
    sources = list_sources(["-"])
    assert [source.path for source in sources] == [
        str(folder / "b.jpg"),
        str(folder / "inner" / "b.jpg"),
    ]


@pytest.mark.parametrize(
    ("excerpt", "numbers"),
    [
        (Excerpt(start=0.3), range(3, 10)),
        (Excerpt(end=0.4), range(4)),
        (Excerpt(3, 0.25, 0.9), (3, 6)),
        (Excerpt(start=5), ()),
    ],
)
def test_a_part_of_a_video(tmp_path, excerpt, numbers):
    make_video(tmp_path / "clip.mp4")
    source = Source(str(tmp_path / "clip.mp4"), "clip.mp4")
    assert brightness(source, excerpt) == [(k, k) for k in numbers]
    with source.open_video(excerpt) as video:
        assert abs((video.frame_count or 0) - len(list(numbers))) <= 1


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_images_that_move_are_videos(tmp_path, suffix):
    if not hasattr(cv2, "Animation"):
        pytest.skip("needs OpenCV 4.11")
    animation = cv2.Animation()
    animation.frames = [np.full((24, 32, 3), 60 * k, np.uint8) for k in range(4)]
    animation.durations = np.array([100, 200, 100, 100])
    moving, still = (str(tmp_path / f"{name}{suffix}") for name in ("moving", "still"))
    assert cv2.imwriteanimation(moving, animation)
    cv2.imwrite(still, animation.frames[1])
    moves, stays = list_sources([moving, still])
    assert (moves.is_video, stays.is_video) == (True, False)
    assert stays.read_image().mean() == pytest.approx(60, abs=2)
    with moves.open_video() as video:
        frames = list(video)
    assert [frame.time for frame in frames] == [
        0,
        Fraction(1, 10),
        Fraction(3, 10),
        Fraction(4, 10),
    ]
    assert [round(float(f.image.mean()) / 60) for f in frames] == [0, 1, 2, 3]
    with moves.open_video(Excerpt(2)) as video:
        assert [frame.index for frame in video] == [0, 2]


@pytest.fixture
def server(tmp_path):
    """The address of a server of tmp_path/web."""
    (tmp_path / "web").mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Handler, directory=tmp_path / "web")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def test_images_and_videos_from_the_web(server, tmp_path):
    write_image(tmp_path / "web" / "photo one.png", scene())
    make_video(tmp_path / "web" / "clip.mp4")
    addresses = [f"{server}/photo%20one.png?size=large", f"{server}/clip.mp4", f"{server}/no.png"]
    image, video, missing = list_sources(addresses)
    assert [source.name for source in (image, video)] == ["photo one.png", "clip.mp4"]
    np.testing.assert_array_equal(image.read_image(), scene())
    assert video.is_video
    assert brightness(video) == [(k, k) for k in range(10)]
    with pytest.raises(DhnError, match=r"no.png: cannot be read \(404"):
        missing.read_image()
