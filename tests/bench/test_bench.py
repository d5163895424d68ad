"""The bench command itself, on little work."""

import json

import pytest
import torch
from click.testing import CliRunner

from dhn.base.errors import DhnError
from dhn.bench import operators as bench
from dhn.bench.scenes import annotated_scenes, crowd
from dhn.cli import main

CPU = torch.device("cpu")


def test_measure_times_the_call():
    import time

    timing = bench.measure(lambda: time.sleep(0.01), CPU, seconds=0.05)
    assert 0.01 <= timing.low <= timing.median <= timing.high
    assert timing.runs >= 3


@pytest.fixture
def small(monkeypatch):
    """Kernel cases on small maps: real calls in little time."""
    monkeypatch.setattr(bench, "INPUT", (64, 96))
    monkeypatch.setattr(bench, "CROP", 64)
    monkeypatch.setattr(bench, "COPY_BYTES", 1 << 20)


def test_bench_prints_and_writes(small, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "SWEEP", {"people": (1, 2), "size": (64,), "batch": (1, 2)})
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
    annotations = [{"image_id": 7, "keypoints": p.flatten().tolist()} for p in keypoints]
    images = [{"id": 7, "width": 150, "height": 100}, {"id": 8, "width": 9, "height": 9}]
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
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
