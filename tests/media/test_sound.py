"""The sound of videos is copied packet by packet, and stays in step with the images."""

from fractions import Fraction

import av
import numpy as np
import pytest

from dhn.media.sound import Sound
from dhn.media.video import VideoReader, VideoWriter
from plain_images import scene
from talkies import RATE, packets, write_talkie


def copy(source, target, *, begin=0, end=50):
    """Frames `begin` to `end` with their sound."""
    start = Fraction(begin, 25)
    sound = Sound(str(source), str(source), start)
    writer = VideoWriter(target, Fraction(25), (64, 48), sound)
    for k in range(begin, end):
        writer.write(scene(shift=k % 40), Fraction(k - begin, 25))
    writer.close()
    assert sound._open is None


@pytest.mark.parametrize(
    ("suffix", "audio", "shift"),
    [(".mp4", "aac", 0), (".mkv", "libopus", 0), (".mkv", "flac", 0), (".mkv", "libmp3lame", 30)],
)
def test_sound_is_copied(tmp_path, suffix, audio, shift):
    source, target = tmp_path / f"in{suffix}", tmp_path / "out.mp4"
    write_talkie(source, audio=audio, shift=shift)
    copy(source, target)
    expected = [packet for packet in packets(source) if -1e-3 <= packet[0] < 2]
    found = packets(target)
    assert [data for _, data in found] == [data for _, data in expected]
    assert len(found) >= 20
    np.testing.assert_allclose([t for t, _ in found], [t for t, _ in expected], atol=2e-3)
    assert len(list(VideoReader(target))) == 50


def test_of_a_part_the_part_is_heard(tmp_path):
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    write_talkie(source, tracks=2)
    copy(source, target, begin=12, end=30)
    for track in range(2):
        expected = [(t - 0.48, data) for t, data in packets(source, track) if 0.48 <= t < 1.2]
        found = packets(target, track)
        assert [data for _, data in found] == [data for _, data in expected]
        np.testing.assert_allclose([t for t, _ in found], [t for t, _ in expected], atol=2e-3)


def test_sound_of_a_transport_stream(tmp_path):
    """Its AAC has another form of packets there, which the writer changes by itself."""
    source, target = tmp_path / "in.ts", tmp_path / "out.mp4"
    write_talkie(source)
    copy(source, target)
    with av.open(str(target)) as container:
        heard = sum(frame.samples for frame in container.decode(audio=0))
    assert abs(heard - 2 * RATE) < 3 * 1024


def test_sound_that_does_not_fit_is_named(tmp_path, caplog):
    source = tmp_path / "in.avi"
    write_talkie(source, audio="pcm_mulaw")
    copy(source, tmp_path / "out.mp4")
    assert caplog.messages == [
        f"{source}: sound is left out (pcm_mulaw does not fit into an .mp4 file)"
    ]
    assert len(list(VideoReader(tmp_path / "out.mp4"))) == 50


def test_a_video_without_sound(tmp_path, caplog):
    write_talkie(tmp_path / "in.mp4", tracks=0)
    copy(tmp_path / "in.mp4", tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert not container.streams.audio
    assert caplog.messages == []
