"""The wheel that `make wheel` builds works in an environment where there is no other dhn."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import dhn
from dhn.data.joints import CROWDPOSE
from dhn.media.images import write_image
from dhn.model import build_model
from dhn.weights.checkpoint import Checkpoint, save_checkpoint
from locks import built_once, shared_folder

ROOT = Path(__file__).resolve().parents[2]


def run(command: list[object], cwd: Path) -> str:
    """Runs a command that must not see the checkout; returns what it prints."""
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    result = subprocess.run(
        list(map(str, command)), cwd=cwd, env=variables, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="session")
def wheel(request) -> Path:
    """The wheel. Objects of the last `make build` are used again, so this takes seconds."""

    def build(folder: Path) -> None:
        run([sys.executable, ROOT / "tools" / "build_wheel.py", folder], ROOT)

    folder = built_once(shared_folder(request) / "wheel", build)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def environment(wheel, tmp_path_factory) -> Path:
    """The `bin` of an environment with the wheel, and the packages that it needs.

    Those come from the environment of the tests, whose own dhn is not seen: a line of a .pth file
    adds a folder to the path without reading the .pth files in it, and that is how dhn is installed
    there; a copy of dhn itself would come after the wheel's.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    run([*pip, "--no-deps", "--no-index", wheel], folder)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site_packages / "packages_of_the_tests.pth").write_text("\n".join(sorted(paths)))
    return folder / "bin"


def test_the_wheel_serves_every_python_and_holds_what_it_needs(wheel):
    name, version, python, abi, platform = wheel.stem.split("-")
    assert (name, version, python, abi) == ("dhn", dhn.__version__, "cp310", "abi3")
    if sys.platform == "linux":
        assert platform.startswith("manylinux")
    packed = set(zipfile.ZipFile(wheel).namelist())
    wanted = [*ROOT.glob("dhn/**/*.py"), *ROOT.glob("dhn/training/presets/*.yaml")]
    missing = {path.relative_to(ROOT).as_posix() for path in wanted} - packed
    assert not missing
    libraries = {file for file in packed if ".so" in file or ".dylib" in file}
    assert libraries <= {"dhn/_C.so", "dhn/_C_cuda.so"}  # none of torch's
    assert "dhn/_C.so" in libraries


def test_dhn_info(environment, tmp_path):
    told = json.loads(run([environment / "dhn", "info", "--json"], tmp_path))
    assert told["dhn"] == dhn.__version__
    assert told["torch"] == torch.__version__


def test_an_operator(environment, tmp_path):
    program = """
import dhn, torch
from dhn.ops import topk_peaks
heatmaps = torch.zeros(1, 1, 5, 7)
heatmaps[0, 0, 2, 3] = 0.5
scores, indices = topk_peaks(heatmaps, 1, 3)
print(scores.item(), indices.item())
print(dhn.__file__)
"""
    peak, file = run([environment / "python", "-c", program], tmp_path).splitlines()
    assert peak == f"0.5 {2 * 7 + 3}"
    assert Path(file).is_relative_to(environment.parent)


def test_dhn_predict(environment, tmp_path):
    arguments = {"name": "doublehighernet", "num_joints": len(CROWDPOSE)}
    arguments |= {"width": 8, "modules": (1, 1, 1), "blocks": 1, "stem": 8}
    torch.manual_seed(0)
    weights = build_model(**arguments).state_dict()
    save_checkpoint(tmp_path / "small.pt", Checkpoint(arguments, CROWDPOSE, weights, {}, {}))
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    write_image(tmp_path / "image.png", pixels)
    command = [environment / "dhn", "predict", "image.png", "--checkpoint", "small.pt"]
    command += ["--input-size", 64, "--device", "cpu", "--json-output", "people.json"]
    run(command, tmp_path)
    (image,) = json.loads((tmp_path / "people.json").read_text())["images"]
    people = image["predictions"]
    assert all(len(person["keypoints"]) == 3 * len(CROWDPOSE) for person in people)
