"""The scripts of examples/, and the page outputs.md with what one of them writes.

tests/docs runs all pages.
"""

import json
import re
import runpy
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import dhn
from dhn.inference import export
from dhn.media.images import read_image, write_image
from dhn.media.video import VideoReader, VideoWriter
from tiny_networks import save_network

ROOT = Path(__file__).parents[2]


def run_page(name: str) -> dict[str, object]:
    """Executes the Python blocks of a page of docs/ in one namespace, from top to bottom.

    Lines of a traceback are those of the page.
    """
    text = (ROOT / "docs" / name).read_text()
    namespace: dict[str, object] = {"__name__": name}
    for block in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        lines_before = text[: block.start(1)].count("\n")
        exec(compile("\n" * lines_before + block[1], name, "exec"), namespace)
    return namespace


def random_image(seed: int, size: tuple[int, int]) -> np.ndarray:
    """Colours that are flat in blocks of 8 pixels, RGB."""
    coarse = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8)
    return np.repeat(np.repeat(coarse, 8, 0), 8, 1)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """run(script, *arguments) in a folder that holds best.pt; returns what it printed."""
    save_network(tmp_path / "best.pt")
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: str) -> str:
        script = str(ROOT / "examples" / name)
        monkeypatch.setattr(sys, "argv", [script, *arguments, "--checkpoint", "best.pt"])
        capsys.readouterr()
        runpy.run_path(script, run_name="__main__")
        return capsys.readouterr().out

    return run


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


@pytest.mark.slow
def test_export_and_run_onnx_and_group_by_hand(run, tmp_path, monkeypatch):
    """The script, then docs/outputs.md on the file that it wrote: an export takes half a minute."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    # Half the size is the network's input, 64: dhn and the page place it alike to the bit.
    write_image(tmp_path / "photo.jpg", random_image(0, (192, 128)))
    first, *differences, last = run("export_and_run_onnx.py", "photo.jpg").splitlines()
    assert first.startswith("model.onnx: ")
    assert [line.split()[0] for line in differences] == ["heatmaps", "tags", "peaks"]
    assert last.startswith("photo.jpg: found ")
    assert (tmp_path / "model.jpg").is_file()

    asked = []
    monkeypatch.setattr(export, "export_checkpoint", lambda *a, **k: asked.append((a, k)))
    by_hand = run_page("outputs.md")["people"]
    assert asked == [(("best.pt", "model.onnx"), {"flip": True})]  # as the script did
    # Greedy grouping finds the same joints at the same places; only who has them may differ.
    decoded = dhn.load("model.onnx", device="cpu", refine=False)("photo.jpg")
    assert_same_joints(
        [(joint, *point) for person in by_hand for joint, point in person.items()],
        [(j, *point) for person in decoded.keypoints for j, point in enumerate(person)],
    )


def assert_same_joints(ours, theirs):
    """Rows of joint, x, y, score in any order; those that score 0 do not count."""
    rows = [sorted(row for row in rows if row[3] > 0) for rows in (ours, theirs)]
    assert len(rows[0]) > 10
    np.testing.assert_allclose(*rows, rtol=1e-5)


def test_they_are_short():
    scripts = list((ROOT / "examples").glob("*.py"))
    assert len(scripts) == 3
    assert all(len(script.read_text().splitlines()) < 60 for script in scripts)
    assert len((ROOT / "docs" / "python.md").read_text().split()) < 700
