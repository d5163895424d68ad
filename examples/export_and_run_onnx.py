"""Exports a network to ONNX, and finds the people of an image with the file.

    python examples/export_and_run_onnx.py photo.jpg --checkpoint best.pt

The file runs without its checkpoint and without dhn, too: docs/outputs.md shows how to group its
peaks with NumPy alone. Needs: pip install "dhn[export]"
"""

import argparse
from pathlib import Path

import dhn
from dhn.inference.export import export_checkpoint
from dhn.media.images import write_image

parser = argparse.ArgumentParser(description="Export a network to ONNX and run it on an image.")
parser.add_argument("image", type=Path)
parser.add_argument("--checkpoint", help="file, name or address; by default dhn's own")
parser.add_argument("--output", type=Path, default=Path("model.onnx"))
arguments = parser.parse_args()

report = export_checkpoint(arguments.checkpoint, arguments.output, "onnx", flip=True)
print(f"{report.path}: {report.size / 1e6:.1f} MB")
for name, difference in report.differences.items():
    print(f"{name} differ from the network's by {difference:.0e} of the largest value")

predictor = dhn.load(report.path)  # the flip test is part of the file
people = predictor(arguments.image)
overlay = arguments.output.with_suffix(".jpg")
write_image(overlay, people.plot())
print(f"{arguments.image.name}: found {len(people)}, drawn in {overlay}")
