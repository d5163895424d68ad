"""Measures how well `dhn data overlap` finds copies of images.

    dhn data synth crowds --images 200 --size 200
    python benchmarks/overlap.py crowds/images

Half of the images are known. What is compared with them: copies of these, and the other half.
A copy is resized to 40 to 120 %, or cropped to 60 to 100 % of each side, or both; every second one
is mirrored, and all are saved as JPEG of quality 40 to 95. Writes benchmarks/results/overlap.json.
"""

import json
import tempfile
import time
from pathlib import Path

import click
import cv2
import numpy as np

from dhn.base.environment import cpu_name
from dhn.base.files import write_json
from dhn.data.annotations import AnnotatedImage
from dhn.data.overlap import find_overlap
from dhn.media.images import read_image

RESULTS = Path(__file__).parent / "results"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--limit", type=int, default=200, show_default=True, help="At most so many images.")
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS / "overlap.json")
def main(folder: Path, limit: int, output: Path) -> None:
    """Copy half of the images of FOLDER, and look for the copies."""
    rng = np.random.default_rng(0)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    chosen = [files[i] for i in rng.permutation(len(files))[:limit]]
    known, others = chosen[: len(chosen) // 2], chosen[len(chosen) // 2 :]
    with tempfile.TemporaryDirectory() as copies:
        paths = [copied(path, Path(copies), i, rng) for i, path in enumerate(known)]
        started = time.process_time()
        found = find_overlap(images([*paths, *others]), images(known)).copies
        seconds = time.process_time() - started
    wrong = [copy for copy in found if copy.first.id != copy.second.id]
    right = len(found) - len(wrong)
    result = {
        "copies": len(known),
        "others": len(others),
        "recall": right / len(known),
        "precision": right / max(len(found), 1),
        "mirroring_right": sum(copy.mirrored == (copy.first.id % 2 == 1) for copy in found),
        "cpu_ms_per_image": 1e3 * seconds / (2 * len(known) + len(others)),
        "machine": cpu_name(),
    }
    for pair in wrong:  # in photographs, these may be copies indeed
        click.echo(f"not a copy: {pair.first.path.name} of {pair.second.path.name}", err=True)
    write_json(output, result, indent=1)
    click.echo(json.dumps(result, indent=1))


def copied(path: Path, folder: Path, index: int, rng: np.random.Generator) -> Path:
    """Writes a copy: the kinds are resized, cropped and both, in turn."""
    pixels, kind = read_image(path), index % 3
    if kind >= 1:
        height, width = (int(side * rng.uniform(0.6, 1)) for side in pixels.shape[:2])
        y = rng.integers(0, pixels.shape[0] - height + 1)
        x = rng.integers(0, pixels.shape[1] - width + 1)
        pixels = pixels[y : y + height, x : x + width]
    if kind != 1:
        scale = rng.uniform(0.4, 1.2)
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    if index % 2:
        pixels = pixels[:, ::-1]
    copy = folder / f"{index}.jpg"
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 95))]
    cv2.imwrite(str(copy), np.ascontiguousarray(pixels[..., ::-1]), quality)
    return copy


def images(paths: list[Path]) -> list[AnnotatedImage]:
    """The files as images of a data set, numbered from 0."""
    return [AnnotatedImage(i, path, 1, 1, None, ()) for i, path in enumerate(paths)]


if __name__ == "__main__":
    main()
