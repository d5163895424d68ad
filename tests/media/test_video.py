"""Videos: they come back as they were, and damage is reported once all frames were given."""

import os
import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from dhn.base.errors import DhnError
from dhn.media.frames import Excerpt
from dhn.media.video import GrowingFile, VideoReader, VideoWriter
from plain_images import scene


def write_video(path, *, frames=20, fps=Fraction(30), size=(64, 48), times=None):
    writer = VideoWriter(path, fps, size)
    for i in range(frames):
        time = Fraction(i) / fps if times is None else times[i]
        writer.write(scene(size[1], size[0], shift=i), time)
    writer.close()


def read_until_error(path):
    frames = []
    try:
        for frame in VideoReader(path):
            frames.append(frame)
    except DhnError as error:
        return frames, str(error)
    pytest.fail(f"{path.name}: {len(frames)} frames and no error")


@pytest.mark.parametrize("fps", [Fraction(30), Fraction(25), Fraction(30000, 1001), Fraction(5, 2)])
def test_video_comes_back(tmp_path, fps):
    path = tmp_path / "out.mp4"
    write_video(path, fps=fps)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.codec_context.colorspace == 1  # BT.709
        assert stream.average_rate == fps
        frames = list(container.decode(stream))
    assert [frame.pts * frame.time_base for frame in frames] == [i / fps for i in range(20)]
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # plays while it loads

    reader = VideoReader(path)
    assert (reader.fps, reader.frame_count) == (fps, 20)
    for i, frame in enumerate(reader):
        assert (frame.index, frame.time) == (i, i / fps)
        assert np.abs(frame.image.astype(int) - scene(shift=i)).mean() < 6
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_uneven_frame_times_are_kept(tmp_path):
    times = [Fraction(t, 1000) for t in (0, 20, 90, 100, 400)]
    write_video(tmp_path / "out.mp4", frames=5, times=times)
    back = [frame.time for frame in VideoReader(tmp_path / "out.mp4")]
    assert [float(time) for time in back] == pytest.approx([float(t) for t in times], abs=1e-3)


@pytest.mark.parametrize("size", [(63, 47), (64, 47), (63, 48), (17, 17)])
def test_odd_sizes_grow_by_a_repeated_pixel(tmp_path, size):
    write_video(tmp_path / "out.mp4", size=size, frames=2)
    frame = next(iter(VideoReader(tmp_path / "out.mp4"))).image
    width, height = size
    assert frame.shape == (height + height % 2, width + width % 2, 3)
    expected = np.pad(scene(height, width), ((0, height % 2), (0, width % 2), (0, 0)), "edge")
    assert np.abs(frame.astype(int) - expected).mean() < 6


def test_stride_takes_every_nth_frame(tmp_path):
    write_video(tmp_path / "in.mp4", frames=10)
    reader = VideoReader(tmp_path / "in.mp4", Excerpt(stride=3))
    assert (reader.fps, reader.frame_count) == (10, 4)
    assert [(f.index, f.time) for f in reader] == [(i, Fraction(i, 30)) for i in (0, 3, 6, 9)]


@pytest.mark.parametrize(
    ("matrix", "turns"),
    [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)],  # clockwise 90, 180, 270
)
def test_rotated_videos_stand_upright(tmp_path, matrix, turns):
    path = tmp_path / "phone.mp4"
    write_video(path, frames=2)
    stored = next(iter(VideoReader(path))).image
    a, b, c, d = (value << 16 for value in matrix)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44  # version, times, ids, duration, layer, volume stand before it
    struct.pack_into(">9i", data, at, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    np.testing.assert_array_equal(next(iter(VideoReader(path))).image, np.rot90(stored, turns))


def test_the_real_video(shared):
    reader = VideoReader(shared / "data/video/people.mp4")
    frames = list(reader)
    assert (reader.fps, reader.frame_count, len(frames)) == (30, 5, 5)
    assert all(frame.image.shape == (720, 1280, 3) for frame in frames)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
@pytest.mark.parametrize("part", [0, 0.05, 0.4, 0.6, 0.8])
def test_cut_videos_give_what_they_have_and_say_so(tmp_path, suffix, part):
    whole = tmp_path / f"whole{suffix}"
    options = {"movflags": "+faststart"} if suffix == ".mp4" else {}
    with av.open(str(whole), "w", options=options) as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(100):
            frame = av.VideoFrame.from_ndarray(scene(shift=i % 40), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert len(list(VideoReader(whole))) == 100
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * part)])
    frames, message = read_until_error(cut)
    assert message.startswith(f"{cut}: ")
    assert "\n" not in message
    assert len(frames) < 100
    if part >= 0.8:
        assert len(frames) > 50
    for frame in frames:  # no grey filling: each frame looks like the one written
        assert np.abs(frame.image.astype(int) - scene(shift=frame.index % 40)).mean() < 10


def test_damage_in_the_middle_is_reported(tmp_path):
    path = tmp_path / "out.mp4"
    write_video(path, frames=60)
    data = bytearray(path.read_bytes())
    middle = (data.index(b"mdat") + len(data)) // 2
    data[middle : middle + 100] = bytes(100)
    path.write_bytes(data)
    frames, message = read_until_error(path)
    assert "damaged" in message
    assert len(frames) > 10


def test_files_without_video_are_named(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").write_bytes(b"")
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        silence = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        silence.sample_rate = 44100
        container.mux(stream.encode(silence))
        container.mux(stream.encode(None))
    for path in (*tmp_path.iterdir(), tmp_path / "missing.mp4", tmp_path):
        with pytest.raises(DhnError, match=path.name):
            list(VideoReader(path))


@pytest.mark.parametrize("limit", [0, 2000, 60_000])
def test_a_full_disk_leaves_no_video(tmp_path, limit, full_disk):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (5, 96, 128, 3)).astype(np.uint8)
    path = tmp_path / "out.mp4"
    path.write_bytes(b"before")

    def fill():
        writer = VideoWriter(path, Fraction(30), (128, 96))
        try:
            for i in range(120):
                writer.write(noise[i % 5], Fraction(i, 30))
        finally:
            writer.close()  # after a failed write it does nothing more

    with full_disk(limit), pytest.raises(DhnError, match=r"out\.mp4: cannot be written"):
        fill()
    assert os.listdir(tmp_path) == ["out.mp4"]
    assert path.read_bytes() == b"before"


def test_growing_file_is_kept_or_removed(tmp_path):
    kept = GrowingFile(tmp_path / "new" / "kept.txt")
    kept.temporary.write_text("half")
    assert not (tmp_path / "new" / "kept.txt").exists()
    kept.keep()
    assert (tmp_path / "new" / "kept.txt").read_text() == "half"

    failed = GrowingFile(tmp_path / "failed.txt")
    with pytest.raises(DhnError, match=r"failed\.txt: cannot be written"), failed.writing():
        raise OSError(28, "No space left on device")
    assert not failed.open
    assert os.listdir(tmp_path) == ["new"]
