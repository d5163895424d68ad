"""Timing, scenes, and the real `dhn bench` on little work."""

import json
import statistics

import pytest
import torch
from click.testing import CliRunner

from dhn.base.errors import DhnError
from dhn.bench import decode, operators, scenes, timing
from dhn.bench.scenes import annotated_scenes, crowd, scene_from_keypoints
from dhn.cli import main
from dhn.data.joints import CROWDPOSE
from dhn.inference.decode import decode_poses

CPU = torch.device("cpu")


class Clock:
    """A clock that stands still unless a test moves it."""

    now = 100.0

    def __call__(self):
        return self.now


def test_measure_gives_median_and_quartiles():
    clock = Clock()
    took = [7.0, 0.5, 1.0, 4.0, 2.0, 3.0, 5.0, 6.0]  # two runs to warm up, then the measured ones
    calls = iter(took)

    def call():
        clock.now += next(calls)

    measured = timing.measure(call, CPU, 3.0, clock)  # six times the 0.5 of the warm-up
    low, median, high = statistics.quantiles(took[2:], n=4)
    assert measured == timing.Timing(median, low, high, runs=6)


@pytest.mark.parametrize(("duration", "runs"), [(0.1, 3), (0.0, 2000)])
def test_measure_runs_three_to_two_thousand_times(duration, runs):
    clock = Clock()
    calls = []

    def call():
        calls.append(None)
        clock.now += duration

    assert timing.measure(call, CPU, 0.2, clock).runs == runs
    assert len(calls) == runs + 2


@pytest.fixture
def small(monkeypatch):
    """Small maps: real calls in little time."""
    monkeypatch.setattr(scenes, "INPUT", (64, 96))
    monkeypatch.setattr(operators, "CROP", 64)
    monkeypatch.setattr(timing, "COPY_BYTES", 1 << 20)


def test_a_scene_decodes_to_its_people():
    keypoints = crowd(1, (256, 256), seed=3)
    scene = scene_from_keypoints(keypoints, (256, 256), seed=3)
    assert scene.people == 1
    (poses,) = decode_poses(scene.heatmaps, scene.tags, scene.size)
    person = poses.keypoints[poses.scores.argmax()]
    drawn = (keypoints[0, 0, :, 2] > 0) & (person[:, 2] > 0.2)
    assert drawn.sum() > 5
    distance = (person[drawn, :2] - keypoints[0, 0, drawn, :2]).norm(dim=-1)
    assert distance.max() < 2  # pixels of the input; maps have half its resolution


def test_operator_cases_compute_what_their_references_do(small):
    torch.manual_seed(0)
    for case in operators.operator_cases(CPU):
        if case.op != "decode_poses":  # compared in tests/inference/test_decode.py
            torch.testing.assert_close(case.ours(), case.reference(), rtol=1e-4, atol=1e-4)


def test_bench_prints_and_writes(small, tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "SWEEP", {"people": (1, 2), "size": (64,), "batch": (1, 2)})
    out, plot = tmp_path / "bench.json", tmp_path / "sweep.png"
    arguments = ["bench", "--images", "2", "--seconds", "0", "--sweep", "--device", "cpu"]
    result = CliRunner().invoke(
        main, [*arguments, "--json-output", str(out), "--plot", str(plot), "-q"]
    )
    assert result.exit_code == 0, result.output
    figures = json.loads(out.read_text())
    for row in figures["kernels"]["rows"]:
        assert row["op"] in result.output
        assert row["ratio"] == pytest.approx(row["reference"]["median"] / row["ours"]["median"])
    assert len(figures["decode"]["rows"]) == 2
    assert {row["axis"] for row in figures["sweep"]} >= {"people", "size", "batch", "threads"}
    assert figures["machine"]["torch"] == torch.__version__
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_kernels_only(small):
    result = CliRunner().invoke(main, ["bench", "--kernels", "--seconds", "0", "-q"])
    assert result.exit_code == 0, result.output
    assert "topk_peaks" in result.output
    assert "Decode" not in result.output


def test_annotations_become_scenes(tmp_path):
    keypoints = crowd(2, (100, 150), seed=1)[0]
    path = tmp_path / "people.json"
    people = [
        {"id": i, "image_id": 7, "category_id": 1, "bbox": [0, 0, 9, 9]}
        | {"keypoints": person.flatten().tolist(), "num_keypoints": 14}
        for i, person in enumerate(keypoints, 1)
    ]
    images = [
        {"id": 7, "width": 150, "height": 100, "file_name": "a.jpg"},
        {"id": 8, "width": 9, "height": 9, "file_name": "b.jpg"},
    ]
    category = {"id": 1, "name": "person", "keypoints": list(CROWDPOSE.names)}
    truth = {"images": images, "annotations": people, "categories": [category]}
    path.write_text(json.dumps(truth))
    (scene,) = annotated_scenes(path, 5, short=128)
    assert scene.size == (128, 192)
    torch.testing.assert_close(scene.keypoints[0, ..., :2], keypoints[..., :2] * 1.28)
    j = int(keypoints[0, :, 2].argmax())
    u, v = (scene.keypoints[0, 0, j, :2] / 2 - 0.5).round().int().tolist()
    assert scene.tags[0, j, :, v, u].abs().max() < 1  # person 0


@pytest.mark.parametrize("text", ["[]", '{"images": [], "annotations": []}', "{}"])
def test_wrong_annotations_are_named(tmp_path, text):
    path = tmp_path / "people.json"
    path.write_text(text)
    with pytest.raises(DhnError, match=r"people\.json"):
        annotated_scenes(path, 3)


def test_plot_needs_sweep():
    assert CliRunner().invoke(main, ["bench", "--plot", "x.png"]).exit_code == 2
