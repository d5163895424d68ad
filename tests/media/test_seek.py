"""Parts of videos are those of the whole one, whatever is passed over; sizes may change in one."""

from fractions import Fraction

import av
import numpy as np
import pytest

from assertions import complaint
from dhn.media.frames import Excerpt
from dhn.media.video import VideoReader, VideoWriter
from plain_images import scene

FRAMES = 60


def write(path, *, codec="libx264", options=(), rate=25, size=(64, 48), times=None):
    """Frames that differ; `times` are ticks of 1/1000 s."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=dict(options))
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = Fraction(1, rate if times is None else 1000)
        for k in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(scene(size[1], size[0], shift=k % 40), "rgb24")
            frame.pts = k if times is None else times[k]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


X264 = {"g": "12", "bf": "3", "b-adapt": "0", "sc_threshold": "0"}
CASES = [
    (".mp4", "libx264", X264),
    (".mkv", "libx264", X264),
    (".mov", "libx264", {**X264, "x264-params": "open-gop=1"}),
    (".mp4", "libx264", {"g": "1000"}),  # only one key frame
    (".mkv", "mpeg4", {"g": "12", "bf": "2"}),
    (".webm", "libvpx", {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "16"}),  # not by packets
    (".ts", "libx264", X264),  # decoded from the beginning
    (".avi", "mpeg4", {"g": "12"}),
]


@pytest.mark.parametrize(("suffix", "codec", "options"), CASES)
def test_a_part_is_that_of_the_whole(tmp_path, suffix, codec, options):
    path = tmp_path / f"clip{suffix}"
    write(path, codec=codec, options=options.items())
    whole = list(VideoReader(path))
    assert len(whole) == FRAMES
    for start in (0.0, 0.01, 0.48, 0.479, 0.5, 1.0, 1.43, 2.3, 2.36, 3.0):
        excerpt = Excerpt(stride=2, start=start, end=start + 0.4)
        expected = [frame for frame in whole if excerpt.takes(frame.index, frame.time)]
        found = list(VideoReader(path, excerpt))
        assert [(f.index, f.time) for f in found] == [(f.index, f.time) for f in expected]
        for frame, wanted in zip(found, expected, strict=True):
            np.testing.assert_array_equal(frame.image, wanted.image)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_uneven_times_and_a_late_begin(tmp_path, suffix):
    path = tmp_path / f"clip{suffix}"
    times = (500 + np.random.default_rng(0).integers(5, 120, FRAMES).cumsum()).tolist()
    write(path, options=X264.items(), times=times)
    whole = list(VideoReader(path))
    for start in np.arange(0, 4, 0.3):
        excerpt = Excerpt(start=float(start))
        expected = [(f.index, f.time) for f in whole if excerpt.takes(f.index, f.time)]
        assert [(f.index, f.time) for f in VideoReader(path, excerpt)] == expected


def test_what_comes_before_is_not_decoded(tmp_path, monkeypatch):
    path = tmp_path / "clip.mp4"
    write(path, options=X264.items())
    reader = VideoReader(path, Excerpt(start=1.99))
    packets = []
    original = reader._packets
    monkeypatch.setattr(reader, "_packets", lambda: (packets.append(p) or p for p in original()))
    assert [frame.index for frame in reader] == [*range(50, 60)]
    with_bytes = [packet for packet in packets if packet.size]
    assert len(with_bytes) <= 24  # from the last key frame on, or the one before


def test_cut_videos_say_so_in_parts_too(tmp_path):
    path = tmp_path / "clip.mkv"
    write(path, options=X264.items())
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 4 // 5])
    for start in (0.5, 1.5, 10):
        reader = VideoReader(path, Excerpt(start=start))
        assert "cut short or damaged" in complaint(list, reader)


def test_a_size_that_changes_in_between(tmp_path):
    """As broadcasts and meetings do it: another encoder goes on in the same stream."""
    path = tmp_path / "clip.ts"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        encoders = [(stream.codec_context, 64, 48)]
        second = av.CodecContext.create("libx264", "w")
        second.width, second.height, second.pix_fmt = 96, 128, "yuv420p"
        second.time_base, second.framerate = Fraction(1, 25), Fraction(25)
        encoders.append((second, 96, 128))
        for number, (encoder, width, height) in enumerate(encoders):
            frames = [scene(height, width, shift=k) for k in range(10)]
            for k, image in enumerate([*frames, None]):
                frame = None
                if image is not None:
                    frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuv420p")
                    frame.pts, frame.time_base = 10 * number + k, Fraction(1, 25)
                for packet in encoder.encode(frame):
                    packet.stream = stream
                    container.mux(packet)
    found = list(VideoReader(path))
    assert [frame.image.shape[:2] for frame in found] == [(48, 64)] * 10 + [(128, 96)] * 10
    for frame in found:
        height, width = frame.image.shape[:2]
        assert np.abs(frame.image.astype(int) - scene(height, width, frame.index % 10)).mean() < 9


def test_an_image_of_another_size_is_fitted(tmp_path):
    path = tmp_path / "out.mp4"
    writer = VideoWriter(path, Fraction(25), (63, 48))
    grey = np.full((48, 63, 3), 180, np.uint8)
    for k, image in enumerate((grey, np.full((96, 32, 3), 180, np.uint8), grey[:24])):
        writer.write(image, Fraction(k, 25))
    writer.close()
    plain, tall, wide = (frame.image.mean(2) for frame in VideoReader(path))
    assert plain.shape == tall.shape == wide.shape == (48, 64)
    assert plain.min() > 150
    assert tall[:, 25:38].min() > 150  # 16 of 63 pixels, in the middle
    assert tall[:, :20].max() < 30
    assert tall[:, 44:].max() < 30
    assert wide[14:34].min() > 150
    assert wide[:10].max() < 30
