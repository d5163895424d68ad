"""`dhn predict` on videos and cameras, with a predictor that needs no network."""

import csv
import itertools
import json
from fractions import Fraction

import av
import numpy as np
import pytest

from blue_people import image, images, lines, make_video, names
from dhn.media.images import write_image
from dhn.media.video import VideoReader, VideoWriter
from streams import streaming
from talkies import packets, write_talkie


def test_video_in_and_out(run, tmp_path):
    make_video(tmp_path / "clip.mp4", [1, 2, 0, 3, 1], fps=Fraction(30000, 1001))
    run("clip.mp4", "--video-output", "out.mp4", "--json-output", "out.json")
    frames = images(tmp_path / "out.json")
    assert [frame["frame"] for frame in frames] == [0, 1, 2, 3, 4]
    times = [i * 1001 / 30000 for i in range(5)]
    assert [frame["time"] for frame in frames] == pytest.approx(times, abs=1e-6)
    assert [len(frame["predictions"]) for frame in frames] == [1, 2, 0, 3, 1]
    assert {frame["source"] for frame in frames} == {"clip.mp4"}
    with av.open("out.mp4") as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == Fraction(30000, 1001)
    overlays = [frame.image for frame in VideoReader("out.mp4")]
    originals = [frame.image for frame in VideoReader("clip.mp4")]
    changes = [np.abs(a.astype(int) - b).mean() for a, b in zip(overlays, originals, strict=True)]
    assert changes[2] < 2  # nobody there: only the codec's loss
    assert min(changes[i] for i in (0, 1, 3, 4)) > 3


def test_stride_keeps_frame_numbers_and_speed(run, tmp_path):
    make_video(tmp_path / "clip.mp4", [1] * 10)
    run("clip.mp4", "--vid-stride", "4", "--json-output", "json", "--video-output", "videos")
    frames = lines(tmp_path / "json" / "clip.mp4.predictions.jsonl")
    assert [frame["frame"] for frame in frames] == [0, 4, 8]
    out = VideoReader("videos/clip.mp4.predictions.mp4")
    assert out.fps == Fraction(25, 4)
    assert [frame.time for frame in out] == [Fraction(i, 25) for i in (0, 4, 8)]


def test_odd_sized_video(run, tmp_path, shared):
    frame = next(iter(VideoReader(shared / "data/video/people.mp4"))).image
    writer = VideoWriter(tmp_path / "odd.mp4", Fraction(30), (125, 71))
    writer.write(frame[:71, :125], Fraction(0))
    writer.close()
    run(shared / "data/video/people.mp4", "odd.mp4", "--video-output", "out")
    assert names("out") == ["odd.mp4.predictions.mp4", "people.mp4.predictions.mp4"]
    assert len(list(VideoReader("out/people.mp4.predictions.mp4"))) == 5


def test_a_cut_video_gives_what_it_has(run, tmp_path):
    make_video(tmp_path / "clip.mp4", [1] * 60, size=(160, 120))
    data = (tmp_path / "clip.mp4").read_bytes()
    (tmp_path / "clip.mp4").write_bytes(data[: len(data) * 4 // 5])
    result = run("clip.mp4", code=1)
    assert result.stderr.startswith("Error: clip.mp4: the video is cut short")
    frames = lines(tmp_path / "predictions" / "clip.mp4.predictions.jsonl")
    assert 0 < len(frames) < 60
    assert len(list(VideoReader("predictions/clip.mp4.predictions.mp4"))) == len(frames)


def test_people_of_a_video_have_ids(run, tmp_path):
    make_video(tmp_path / "clip.mp4", [1, 1, 2, 2, 2])
    write_image(tmp_path / "two.png", image(2))
    run(
        *("clip.mp4", "two.png", "--track", "--nms-oks", "1", "--video-output", "out.mp4"),
        *("--json-output", "out.json", "--csv-output", "out.csv", "--mot-output", "mot.txt"),
        *("--openpose-output", "openpose", "--coco-output", "coco.json"),
    )
    ids = [[p.get("id") for p in e["predictions"]] for e in images(tmp_path / "out.json")]
    assert ids[:2] == [[1], [1]]
    assert ids[2] in ([1, None], [None, 1])  # who is new has no id before it is seen twice
    assert [sorted(some) for some in ids[3:5]] == [[1, 2], [1, 2]]
    assert ids[5] == [None, None]
    with open("out.csv", newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == [
            str(id or "") for some in ids for id in some
        ]
    mot = [line.split(",")[:2] for line in (tmp_path / "mot.txt").read_text().splitlines()]
    expected = [[str(k + 1), str(id or -1)] for k, some in enumerate(ids[:5]) for id in some]
    assert mot == expected
    content = json.loads((tmp_path / "openpose/clip_000000000004_keypoints.json").read_text())
    assert [person["person_id"] for person in content["people"]] == [[id] for id in ids[4]]
    coco = json.loads((tmp_path / "coco.json").read_text())
    assert [result.get("track_id") for result in coco] == [id for some in ids for id in some]


def test_a_video_is_smoothed_in_two_passes(run, tmp_path, predictor):
    make_video(tmp_path / "clip.mp4", [1, 1, 1, 0, 1, 1])
    run(
        *("clip.mp4", "--smooth", "--video-output", "out.mp4", "--json-output", "out.json"),
        "--vid-stride=1",
    )
    frames = images(tmp_path / "out.json")
    assert [[p["id"] for p in frame["predictions"]] for frame in frames] == [[1]] * 6
    states = [{*frame["predictions"][0]["states"]} for frame in frames]
    assert states[3] == {"refined", "missing"}
    assert states[2] == states[4] == {"seen", "missing"}
    overlays = [frame.image for frame in VideoReader("out.mp4")]
    originals = [frame.image for frame in VideoReader("clip.mp4")]
    for overlay, original in zip(overlays, originals, strict=True):
        assert np.abs(overlay.astype(int) - original).mean() > 2

    make_video(tmp_path / "long.mp4", [1] * 200)
    predictor.interrupt_after = predictor.timing.images + 4
    run("long.mp4", "--smooth", "--json-output", "cut.json", code=1)
    assert 4 < len(images(tmp_path / "cut.json")) < 200


def test_a_part_of_a_video(run, tmp_path):
    make_video(tmp_path / "clip.mp4", [1] * 10)
    run(
        *("clip.mp4", "--start", "0:00.1", "--end", "0.3", "--json-output", "out.json"),
        *("--video-output", "out.mp4"),
    )
    assert [entry["frame"] for entry in images(tmp_path / "out.json")] == [3, 4, 5, 6, 7]
    assert [frame.time for frame in VideoReader("out.mp4")] == [Fraction(k, 25) for k in range(5)]
    run("clip.mp4", "--start", "0.1", "--duration", "0:00.08", "--json-output", "two.json")
    assert [entry["frame"] for entry in images(tmp_path / "two.json")] == [3, 4]
    run("clip.mp4", "--start", "2", "--end", "1", code=2)
    run("clip.mp4", "--duration", "0", code=2)
    run("clip.mp4", "--duration", "1", "--end", "2", code=2)
    run("clip.mp4", "--start", "soon", code=2)


def test_a_camera(run, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "dhn.media.live._camera",
        lambda number: ("color=c=0x64640a:size=64x48:rate=50,realtime", "lavfi"),
    )
    run(
        "0",
        "--duration",
        "0.3",
        "--smooth",
        "--json-output",
        "out.jsonl",
        "--video-output",
        "videos",
    )
    frames = lines(tmp_path / "out.jsonl")
    assert frames
    assert {frame["source"] for frame in frames} == {"0"}
    assert {len(frame["predictions"]) for frame in frames} == {1}
    assert names("videos") == ["camera-0.predictions.mp4"]


def test_ids_are_corrected_and_one_person_is_followed(run, tmp_path):
    make_video(tmp_path / "clip.mp4", [1] * 6)
    (tmp_path / "fixes.csv").write_text("action,id,other,first\nsplit,1,7,3\n")
    fix = ("clip.mp4", "--ids", "fixes.csv", "--nms-oks", "1")

    run(*fix, "--json-output", "all.json")
    run(*fix, "--json-output", "one.json", "--person", "7", "--video-output", "one.mp4")
    nobody = run(*fix, "--json-output", "none.json", "--person", "8")

    def ids(name):
        return [[p.get("id") for p in e["predictions"]] for e in images(tmp_path / name)]

    assert ids("all.json") == [[1]] * 3 + [[7]] * 3
    assert ids("one.json") == [[]] * 3 + [[7]] * 3
    drawn = [frame.image.astype(int) for frame in VideoReader("one.mp4")]
    plain = [frame.image for frame in VideoReader("clip.mp4")]
    changes = [np.abs(a - b).mean() for a, b in zip(drawn, plain, strict=True)]
    assert max(changes[:3]) < 2.5 < 3 < min(changes[3:])
    assert "Nobody has the id 8" in nobody.stderr
    settings = json.loads((tmp_path / "one.json").read_text())["settings"]
    assert (settings["ids"], settings["person"], settings["track"]) == ("fixes.csv", 7, True)


@pytest.mark.parametrize("option", [("--ids", "fixes.csv"), ("--person", "1")])
def test_images_have_no_ids_to_correct(run, tmp_path, option):
    write_image(tmp_path / "two.png", image(2))
    (tmp_path / "fixes.csv").write_text("action,id,other\nmerge,1,7\n")
    result = run("two.png", *option, code=1)
    assert "there is no video; images have no ids" in result.stderr


def test_a_correction_of_a_video_that_is_not_there(run, tmp_path):
    make_video(tmp_path / "clip.mp4", [1])
    (tmp_path / "fixes.csv").write_text("action,id,other,source\nmerge,1,7,other.mp4\n")
    result = run("clip.mp4", "--ids", "fixes.csv", code=1)
    assert "fixes.csv, line 2: there is no video other.mp4" in result.stderr


def test_a_stream_from_the_web(run, tmp_path):
    with streaming([itertools.repeat(image(2))]) as server:
        run(server.address, "--duration", "0.3", "--json-output", "out.jsonl", "-o", "videos")
    frames = lines(tmp_path / "out.jsonl")
    assert {len(frame["predictions"]) for frame in frames} == {2}
    assert {frame["source"] for frame in frames} == {server.address}
    assert names("videos") == ["camera.predictions.mp4"]


def test_sound_stays(run, tmp_path):
    write_talkie(tmp_path / "in.mp4")
    run("in.mp4", "--start", "0.48", "--vid-stride", "3", "--video-output", "out.mp4")
    heard = [data for time, data in packets("in.mp4") if time >= 0.48]
    found = [data for _, data in packets("out.mp4")]
    assert heard[: len(found)] == found
    assert len(heard) - len(found) <= 2  # of what is behind the last frame
