"""Procedural videos: people with known ids, the same from the same seed, in files that agree."""

import itertools
import json

import numpy as np
from click.testing import CliRunner

from dhn.cli import main
from dhn.data.annotations import load_annotations
from dhn.media.video import VideoReader
from dhn.synth.video import VideoConfig, draw_video

SMALL = VideoConfig(size=(128, 96), frames=6, people=3)


def test_a_seed_draws_one_video():
    first, again, other = (list(draw_video(seed, SMALL)) for seed in (4, 4, 5))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.keypoints, b.keypoints)
    assert not np.array_equal(first[0].image, other[0].image)
    assert first[0].image.shape == (96, 128, 3)
    for frame in first:
        assert len(frame.ids) == len(frame.keypoints) == len(frame.boxes)
        assert {*frame.ids.tolist()} <= {1, 2, 3}


def test_people_walk_on_and_hide_each_other():
    frames = list(draw_video(3, VideoConfig(size=(128, 96), frames=40, people=6, pan=0)))
    hidden = [(frame.keypoints[..., 2] == 1).any() for frame in frames]
    assert any(hidden)
    moves = []
    for before, after in itertools.pairwise(frames):
        both = np.intersect1d(before.ids, after.ids)
        a, b = (f.keypoints[np.isin(f.ids, both)] for f in (before, after))
        there = (a[..., 2] > 0) & (b[..., 2] > 0)
        moves.append(np.abs(a - b)[there][:, :2].max(initial=0))
    assert 0 < np.median(moves) < 8  # steps, no jumps


def test_the_command_writes_video_and_truth(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["walk.mp4", "--video", "--frames", "5", "--people", "3", "--size", "96"]
    result = CliRunner().invoke(main, ["data", "synth", *arguments, "-q"])
    assert result.exit_code == 0, result.output
    assert [frame.image.shape for frame in VideoReader("walk.mp4")] == [(96, 128, 3)] * 5
    truth = json.loads((tmp_path / "walk.json").read_text())
    annotations = load_annotations(tmp_path / "walk.json")
    assert len(annotations.images) == 5
    rows = [line.split(",") for line in (tmp_path / "walk.txt").read_text().splitlines()]
    assert len(rows) == len(truth["annotations"])
    for row, person in zip(rows, truth["annotations"], strict=True):
        assert (int(row[0]), int(row[1])) == (person["image_id"], person["track_id"])
        np.testing.assert_allclose(np.array(row[2:6], float), person["bbox"], atol=0.01)
    result = CliRunner().invoke(main, ["data", "synth", "folder", "--video"])
    assert result.exit_code == 1
    assert "name one" in result.output
