"""The scripts of examples/, run from the command line with a tiny network."""

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from dhn.media.images import read_image, write_image
from dhn.media.video import VideoReader, VideoWriter
from tiny_networks import save_network

EXAMPLES = Path(__file__).parents[2] / "examples"


def random_image(seed: int, size: tuple[int, int]) -> np.ndarray:
    """Colours that are flat in blocks of 8 pixels, RGB."""
    coarse = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8)
    return np.repeat(np.repeat(coarse, 8, 0), 8, 1)


@pytest.fixture
def run(tmp_path):
    """run(script, *arguments) in a folder that holds best.pt; returns what it printed."""
    save_network(tmp_path / "best.pt")

    def script(name: str, *arguments: object) -> str:
        command = [sys.executable, EXAMPLES / name, *arguments, "--checkpoint", "best.pt"]
        return subprocess.run(
            [str(part) for part in command],
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    return script


def test_predict_folder(run, tmp_path):
    for name, size in (("a.png", (96, 64)), ("b.jpg", (64, 80))):
        write_image(tmp_path / "photos" / name, random_image(len(name), size))
    (tmp_path / "photos" / "cut.png").write_bytes(b"")
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    printed = run("predict_folder.py", "photos", "--output", "found").splitlines()
    assert printed[2] == "left out: photos/cut.png: is empty; replace or remove the file"
    counts = [int(line.split()[2]) for line in printed[:2]]
    results = json.loads((tmp_path / "found/results.json").read_text())
    assert [sum(r["image_id"] == k for r in results) for k in (0, 1)] == counts
    assert min(counts) > 0
    assert read_image(tmp_path / "found" / "b.jpg").shape == (80, 64, 3)
    assert len(list((tmp_path / "found").iterdir())) == 3


def test_draw_video(run, tmp_path):
    writer = VideoWriter(tmp_path / "in.mp4", Fraction(25), (96, 64))
    for k in range(6):
        writer.write(random_image(0, (96, 64)), Fraction(k, 25))
    writer.close()
    assert run("draw_video.py", "in.mp4").startswith("drawn.mp4: 6 frames, ")
    pairs = zip(VideoReader(tmp_path / "in.mp4"), VideoReader(tmp_path / "drawn.mp4"), strict=True)
    for before, after in pairs:
        assert before.time == after.time
        assert np.abs(before.image.astype(int) - after.image).mean() > 1


def test_export_and_run_onnx(run, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    write_image(tmp_path / "photo.png", random_image(0, (96, 64)))
    printed = run("export_and_run_onnx.py", "photo.png")
    first, people, difference, _ = printed.splitlines()
    assert first.startswith("model.onnx: ")
    assert float(difference.split()[2]) < 0.01
    counts = {int(word) for word in people.split() if word.isdecimal()}
    assert len(counts) == 1
    assert counts.pop() > 0
    assert (tmp_path / "model.jpg").is_file()


def test_they_are_short():
    scripts = list(EXAMPLES.glob("*.py"))
    assert len(scripts) == 3
    assert all(len(script.read_text().splitlines()) < 60 for script in scripts)
