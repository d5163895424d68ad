"""The scripts of benchmarks/, as far as they run without the official code or a training."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from dhn.bench.scenes import crowd, scene_from_keypoints
from dhn.data.joints import CROWDPOSE
from dhn.ops import DecodeConfig, reference

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = [path.stem for path in sorted(BENCHMARKS.glob("*.py")) if "__main__" in path.read_text()]


@pytest.fixture
def script(monkeypatch):
    """script(name): a script of benchmarks/ as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_can_be_imported_and_say_what_they_do(script, name):
    module = script(name)
    assert module.__doc__
    result = CliRunner().invoke(module.main, ["--help"])
    assert result.exit_code == 0, result.output
    assert f"benchmarks/{name}.py" in module.__doc__


def test_every_script_is_in_the_readme():
    readme = (BENCHMARKS / "README.md").read_text()
    assert [name for name in SCRIPTS if f"python benchmarks/{name}.py" not in readme] == []


class Reference:
    """Our slow reference, called like the official code."""

    def settings(self, joints):
        return DecodeConfig(joint_order=joints.grouping_order)

    def parse(self, settings, heatmaps, tags):
        size = tuple(heatmaps.shape[2:])
        return reference.decode_poses(heatmaps, tags.permute(0, 1, 4, 2, 3), size, settings)

    def people(self, settings, heatmaps, tags):
        (keypoints,), _, (scores,) = self.parse(settings, heatmaps, tags)
        return keypoints.numpy(), scores.numpy()


def test_decode_of_a_scene_is_timed_and_compared(script):
    decode = script("decode")
    size = (128, 192)
    scene = scene_from_keypoints(crowd(2, size, seed=1), size, seed=1)
    row = decode.time_scene(Reference(), scene, seconds=0.0)
    assert (row["annotated"], row["size"]) == (2, size)
    assert row["found_by_official"] >= 2
    for name in ("default", "parity"):
        ratio = row["official"]["median"] / row["ours"][name]["median"]
        assert row["official_over_ours"][name] == pytest.approx(ratio)
    same = row["pixels_apart"]["default"]
    assert same["keypoints"] >= 2 * 10
    assert (same["missing"], same["beyond 0.01"]) == (0, 0)


def test_spread(script):
    ratios = [5.0, 1.0, 3.0, 2.0, 4.0]
    expected = {"least": 1.0, "low": 1.5, "median": 3.0, "high": 4.5, "most": 5.0}
    assert script("decode").spread(ratios) == expected


def test_distances_are_those_to_the_nearest_person(script):
    theirs = np.zeros((2, len(CROWDPOSE), 3), np.float32)
    theirs[0, :3] = [(10, 10, 1), (20, 10, 1), (30, 10, 1)]
    theirs[1, :2] = [(100, 50, 1), (110, 50, 1)]
    ours = theirs[::-1].copy()
    ours[0, 0, :2] += (3, 4)
    ours[1, 2] = 0  # a missing joint
    distances = script("measures").distances
    assert distances(ours, theirs).tolist() == [0, 0, np.inf, 5, 0]
    assert distances(ours[:0], theirs).tolist() == [np.inf] * 5
    assert distances(ours, theirs[:0]).tolist() == []


def test_people_are_matched_with_themselves(script):
    rng = np.random.default_rng(0)
    exact = np.concatenate([rng.uniform(0, 500, (3, 14, 2)), np.ones((3, 14, 1))], axis=-1)
    rough = exact[[2, 0, 1]] + (0.3, 0.4, 0)
    rough[0, 5, 2] = 0  # joint 5 of person 2 is missing
    matched = script("precision").matched(exact, rough)
    assert np.isnan(matched[2, 5])
    assert np.delete(matched, 2 * 14 + 5) == pytest.approx(0.5)


# What a machine with a GPU may lack, and how to hide it from a script.
LACKING = ("av", "platformdirs", "pycocotools", "pydantic")
HIDE = f"""
import runpy, sys
sys.modules |= dict.fromkeys({LACKING})
sys.argv = sys.argv[1:]
sys.path.insert(0, {str(BENCHMARKS)!r})
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_the_gpu_benchmark_runs_with_few_packages(tmp_path):
    """On the CPU, where its figures mean nothing."""
    output = tmp_path / "gpu.json"
    command = [sys.executable, "-c", HIDE, str(BENCHMARKS / "gpu.py"), "--device", "cpu"]
    command += ["--small", "--seconds", "0.001", "--output", str(output)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    result = json.loads(output.read_text())
    rows = result["operators"]["rows"]
    assert {row["batch"] for row in rows} == {1, 2}
    assert {row["layout"] for row in rows} == {
        "float32, contiguous",
        "bfloat16, channels last, sliced",
    }
    for row in rows:
        assert row["us"] > 0
        share = row["gb_per_s"] / result["operators"]["copy_gb_per_s"]
        assert row["of_copy_bandwidth"] == pytest.approx(share)
        assert f"{row['op']}, B = {row['batch']}" in run.stdout
    assert [row["batch"] for row in result["predict"]] == [1, 2]
    assert result["training"]["images_per_s"] > 0


def test_a_time_is_judged_by_that_of_a_copy(script):
    """A copy takes 3 us; the operator takes 4."""
    row = script("gpu").judged(moved=9_000_000, seconds=4e-6, bandwidth=3e12)
    assert row == pytest.approx(
        {"us": 4, "floor_us": 3, "gb_per_s": 2250, "of_copy_bandwidth": 0.75}
    )


def test_operators_get_maps_as_a_network_gives_them(script):
    """Channels last, and 1/4 heatmaps in one tensor with tags; each counted by its own bytes."""
    gpu = script("gpu")
    maps = gpu.Maps(2, 64, gpu.LAYOUTS[1], torch.device("cpu"), 0)
    assert maps.half[0].is_contiguous(memory_format=torch.channels_last)
    assert maps.quarter[0].stride() == (28 * 16 * 16, 1, 28 * 16, 28)
    assert gpu.mse(maps).bytes == 2 * 14 * 32 * 32 * 2
    inputs = 4 * 2 * 14 * (16 * 16 + 32 * 32) * 2
    assert gpu.aggregate(maps).bytes == inputs + 2 * 14 * 32 * 32 * 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_gpu_checks_say_that_there_is_no_gpu(script, tmp_path):
    result = CliRunner().invoke(script("gpu").main, ["--output", str(tmp_path / "gpu.json")])
    assert (result.exit_code, result.output) == (0, "gpu: skipped, torch finds no CUDA GPU here\n")
    run = subprocess.run(
        ["bash", str(BENCHMARKS / "gpu_check.sh")],
        env=os.environ | {"PYTHON": sys.executable, "OUT": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0
    assert "gpu-check: skipped" in run.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("broken", ["", "racecheck"])
def test_a_gpu_check_goes_on_after_a_failure(tmp_path, broken):
    """With stand-ins for Python on a GPU and for compute-sanitizer."""
    python, sanitizer = tmp_path / "bin" / "python", tmp_path / "bin" / "compute-sanitizer"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\n[ "$1" = - ] && exec echo "9.0 NVIDIA H200 (a)"; echo "ran $*"\n')
    sanitizer.write_text(f'#!/bin/sh\necho "$*"; [ "$2" != "{broken}" ]\n')
    for program in (python, sanitizer):
        program.chmod(0o755)
    path = os.pathsep.join([str(python.parent), os.environ["PATH"]])
    run = subprocess.run(
        ["bash", str(BENCHMARKS / "gpu_check.sh")],
        env=os.environ | {"PYTHON": "python", "OUT": str(tmp_path / "out"), "PATH": path},
        capture_output=True,
        text=True,
    )
    assert run.returncode == bool(broken), run.stdout
    steps = ["build", "tests", "times", "memcheck", "racecheck", "synccheck", "initcheck"]
    logs = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert logs == sorted(f"gpu-nvidia-h200-a-{step}.log" for step in steps)
    for step in steps:
        assert f"gpu-check: {step} {'FAILED (1)' if step == broken else 'passed'}" in run.stdout
    assert (f"failed: {broken}" in run.stdout) == bool(broken)
    log = (tmp_path / "out" / "gpu-nvidia-h200-a-memcheck.log").read_text()
    assert log.startswith("--tool memcheck --kernel-name kernel_substring=dhn")
