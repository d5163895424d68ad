"""Measures what bfloat16 changes: keypoints and AP of a trained network in it and in float32.

    python benchmarks/precision.py demo/run/best.pt demo/crowds

The same network predicts the same images twice, with the flip test. A processor that does not
multiply bfloat16 emulates it slowly, to the same effect. Writes benchmarks/results/precision.json.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import click
import numpy as np

import dhn
from dhn.base.device import Precision
from dhn.base.files import write_json
from dhn.data.annotations import load_annotations
from dhn.evaluation.evaluate import predict_dataset
from dhn.evaluation.scoring import score

RESULTS = Path(__file__).parent / "results"
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
QUANTILES = (50, 75, 90, 95, 99)


@click.command()
@click.argument("checkpoint")
@click.argument("dataset")
@click.option("--split", default="test", show_default=True)
@click.option("--limit", type=int, help="Only the first N images.")
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS / "precision.json")
def main(checkpoint: str, dataset: str, split: str, limit: int | None, output: Path) -> None:
    """Predict the images of DATASET in both precisions, and compare."""
    annotations = load_annotations(dataset, split)
    if limit is not None:
        annotations = annotations.first(limit)
    results: dict[str, list[dict[str, Any]]] = {}
    for precision in PRECISIONS:
        predictor = dhn.load(checkpoint, flip=True, precision=precision)
        results[precision], _ = predict_dataset(predictor, annotations)
    exact, rough = (by_image(people) for people in results.values())
    shifts = []
    pairs = 0  # people found both ways
    for image in annotations.images:
        distances = matched(exact[image.id], rough[image.id])
        scale = predictor.input_size / min(image.width, image.height)
        shifts.append(scale * distances[np.isfinite(distances)])
        pairs += len(distances)
    shift = np.concatenate(shifts)
    result = {
        "images": len(annotations.images),
        "input_size": predictor.input_size,
        "people_in_float32": len(results["float32"]),
        "people_in_bfloat16": len(results["bfloat16"]),
        "people_in_both": pairs,
        "joints_in_both": len(shift),
        "shift_input_pixels": {f"{q}%": float(np.percentile(shift, q)) for q in QUANTILES},
        "share_within_one_pixel": float((shift <= 1).mean()),
        "stats": {
            precision: score(annotations.raw, people, annotations.scoring)
            for precision, people in results.items()
        },
    }
    write_json(output, result, indent=1)
    click.echo(json.dumps(result, indent=1))


def by_image(people: list[dict[str, Any]]) -> dict[int, np.ndarray]:
    """Keypoints [P, J, 3] by image id; [0, 1, 3] for images in which nobody was found."""
    found: dict[int, list[Any]] = defaultdict(list)
    for person in people:
        found[person["image_id"]].append(person["keypoints"])
    arrays = {id: np.reshape(rows, (len(rows), -1, 3)) for id, rows in found.items()}
    return defaultdict(lambda: np.empty((0, 1, 3)), arrays)


def matched(exact: np.ndarray, rough: np.ndarray) -> np.ndarray:
    """How far apart the joints of the same people lie in two predictions of an image.

    Two people are taken for the same if each is the other's nearest, by the median distance of
    their joints.

    Args:
        exact: [P, J, 3]: x and y in image pixels, and a score that is 0 where a joint is missing.
        rough: [Q, J, 3], likewise.

    Returns:
        [pairs, J], in image pixels; NaN where a joint is missing on either side.
    """
    if len(exact) == 0 or len(rough) == 0:
        return np.empty((0, 1))
    a, b = exact[:, None], rough[None]
    both = (a[..., 2] > 0) & (b[..., 2] > 0)
    distances = np.where(both, np.linalg.norm(a[..., :2] - b[..., :2], axis=-1), np.nan)
    apart = np.where(both.any(-1, keepdims=True), distances, np.inf)  # [P, Q, J]
    apart = np.nanmedian(apart, axis=-1)
    nearest = apart.argmin(1)
    mutual = apart.argmin(0)[nearest] == np.arange(len(exact))
    mutual &= np.isfinite(apart.min(1))
    return distances[mutual, nearest[mutual]]


if __name__ == "__main__":
    main()
