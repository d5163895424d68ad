"""The scripts of benchmarks/, as far as they run without the official code or a training."""

import importlib
from pathlib import Path

import numpy as np
import pytest
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
