"""Exports a network to ONNX and compares what both find in an image.

    python examples/export_and_run_onnx.py photo.jpg --checkpoint best.pt

The file runs without its checkpoint and without dhn, too: docs/outputs.md shows how to group its
peaks with NumPy alone. Needs: pip install "dhn[export]"
"""

import argparse
from pathlib import Path

import numpy as np

import dhn
from dhn.inference.export import export_checkpoint
from dhn.media.images import write_image

parser = argparse.ArgumentParser(description="Export a network to ONNX and run it on an image.")
parser.add_argument("image", type=Path)
parser.add_argument("--checkpoint", help="file, name or address; by default the newest run's best")
parser.add_argument("--output", type=Path, default=Path("model.onnx"))
arguments = parser.parse_args()

report = export_checkpoint(arguments.checkpoint, arguments.output, "onnx", flip=True)
print(f"{report.path}: {report.size / 1e6:.1f} MB")

eager = dhn.load(arguments.checkpoint, device="cpu", precision="float32", flip=True)
expected = eager(arguments.image)
people = dhn.load(report.path, device="cpu")(arguments.image)
print(f"{len(people)} people in the ONNX file's maps, {len(expected)} in the checkpoint's")
if len(people) == len(expected) > 0:
    shift = np.abs(people.keypoints - expected.keypoints)[..., :2].max()
    print(f"largest difference: {shift:.4f} pixels")

overlay = arguments.output.with_suffix(".jpg")
write_image(overlay, people.plot())
print(f"drawn: {overlay}")
