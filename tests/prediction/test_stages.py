"""What goes wrong in one stage of `dhn predict` reaches the user as one line; the rest goes on."""

import os
import pkgutil
import signal
import threading
from functools import partial

import pytest

import dhn.prediction.run
from blue_people import image, lines, make_video, names
from dhn.base.errors import DhnError
from dhn.media.images import write_image
from dhn.media.video import VideoReader

STAGES = {
    "read": "dhn.media.video.upright",
    "network": "blue_people.Predictor.infer",
    "decode": "blue_people.Predictor.decoded",
    "track": "dhn.prediction.run.Tracker.__call__",
    "smooth": "dhn.prediction.run.smooth_stream",
    "draw": "dhn.inference.people.People.plot",
    "write": "dhn.prediction.sinks.VideoWriter.write",
}


def third_call_fails(function, error):
    calls = []

    def wrapped(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise error
        return function(*arguments, **options)

    return wrapped


def third_frame_fails(error, frames):
    for k, people in enumerate(frames):
        if k == 2:
            raise error
        yield people


@pytest.mark.parametrize("error", [ValueError("no idea\nat all"), DhnError("clip.mp4: no idea")])
@pytest.mark.parametrize("stage", [*STAGES])
def test_an_error_of_one_frame(run, tmp_path, monkeypatch, stage, error):
    if stage == "write" and isinstance(error, DhnError):
        pytest.skip("that is a full disk, which ends everything")
    make_video(tmp_path / "clip.mp4", [1] * 6)
    write_image(tmp_path / "photo.png", image(2))
    failing = third_call_fails(pkgutil.resolve_name(STAGES[stage]), error)
    if stage == "smooth":  # which is a generator
        failing = partial(third_frame_fails, error)
    monkeypatch.setattr(STAGES[stage], failing)
    result = run("clip.mp4", "photo.png", "-o", "out", "--json-output", "out", "--smooth", code=1)
    failures = [line for line in result.stderr.splitlines() if line.startswith("Failed: ")]
    assert len(failures) == 1
    assert failures[0].startswith("Failed: clip.mp4: ")
    assert "no idea" in failures[0]
    assert "Error: 1 of 2 sources failed" in result.stderr
    assert "photo.png.predictions.jpg" in names("out")
    whole = {"read": 2, "smooth": 2}.get(stage, 5)
    frames = lines(tmp_path / "out" / "clip.mp4.predictions.jsonl")
    assert len(frames) == len(list(VideoReader("out/clip.mp4.predictions.mp4"))) == whole
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("dhn ")]


def test_a_batch_with_one_bad_image(run, tmp_path, predictor):
    """The network refuses any batch in which it is."""
    for k in range(4):
        write_image(tmp_path / f"{k}.png", image(k))
    infer = predictor.infer

    def refusing(images):
        if any(round(float(rgb[..., 2].mean())) == 20 for rgb in images):
            raise MemoryError
        return infer(images)

    predictor.infer = refusing
    result = run("0.png", "1.png", "2.png", "3.png", "-b", "4", "--json-output", "out", code=1)
    assert "Failed: 2.png: unexpected MemoryError" in result.stderr
    assert names("out") == [f"{k}.png.predictions.json" for k in (0, 1, 3)]


def test_two_interrupts_end_it_at_once(run, tmp_path, predictor, monkeypatch):
    """The second one comes while the network is busy with what it will never write."""
    make_video(tmp_path / "clip.mp4", [1] * 20)
    infer, seen, before = predictor.infer, [], signal.getsignal(signal.SIGINT)
    twice, wrote = threading.Event(), threading.Event()
    written = dhn.prediction.run._written

    def noted(*arguments):
        for result in written(*arguments):
            wrote.set()
            yield result

    def interrupt(*_):
        seen.append(1)
        if len(seen) == 2:
            twice.set()
        raise KeyboardInterrupt

    def interrupted(images):
        if len(predictor.batches) != 4:
            return infer(images)
        assert wrote.wait(300)
        predictor.interrupt_after = predictor.timing.images
        found = infer(images)  # until the first one has been seen
        os.kill(os.getpid(), signal.SIGINT)
        assert twice.wait(300)
        return found

    predictor.infer = interrupted
    monkeypatch.setattr("dhn.prediction.run._written", noted)
    signal.signal(signal.SIGINT, interrupt)
    try:
        result = run("clip.mp4", "--json-output", "out", code=1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert "Aborted!" in result.stderr
    assert os.listdir("out") == ["clip.mp4.predictions.jsonl"]
    assert 0 < len(lines(tmp_path / "out" / "clip.mp4.predictions.jsonl")) <= 5
