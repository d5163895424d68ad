"""Scores a network on a data set, or anybody's predictions on annotations."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from dhn.base.distributed import ALONE, World
from dhn.base.errors import DhnError
from dhn.base.files import read_json, write_json
from dhn.base.progress import Progress, silent
from dhn.data.annotations import AnnotatedImage, Annotations, load_annotations
from dhn.data.coco_file import Scoring
from dhn.evaluation.scoring import Evaluator, score

if TYPE_CHECKING:
    from dhn.inference.predictor import Prediction, Predictor


def evaluate(
    predictor: "Predictor",
    annotations: Annotations,
    *,
    batch_size: int = 1,
    evaluator: Evaluator = "pycocotools",
    save_json: Path | None = None,
    output: Path | None = None,
    quiet: bool = False,
    progress: Progress = silent,
    world: World = ALONE,
) -> dict[str, float]:
    """Predicts every image, scores the people, prints the AP table.

    Images that cannot be read count as images in which nobody was found.

    Args:
        save_json: file for the predictions, in COCO's format of results.
        output: file for the statistics, unrounded.
        world: the processes that share the images; rank 0 scores, prints and writes.

    Returns:
        What `dhn.evaluation.scoring.score` returns; nothing in the other ranks.

    Raises:
        DhnError: the network predicts other joints, a file cannot be written, or, after all else
            is done, images could not be read (they are listed).
    """
    results, failures = predict_dataset(
        predictor, annotations, batch_size=batch_size, progress=progress, world=world
    )
    timing = predictor.timing
    predicted, network_seconds, decode_seconds = world.total(
        [timing.images, timing.network_seconds, timing.decode_seconds]
    )
    if not world.main:
        return {}
    if save_json is not None:
        write_json(save_json, results)
    stats = score(
        annotations.raw,
        results,
        annotations.scoring,
        annotations.joints.sigmas,
        evaluator,
        names=(annotations.source, f"predictions of {predictor.source}"),
    )
    if output is not None:
        write_json(output, stats, indent=1)
    if not quiet:
        click.echo(f"{predictor.source} on {annotations.source} ({_sizes(annotations)}), percent")
    print_table(stats)
    if predicted and not quiet:
        network = 1e3 * network_seconds / predicted
        decode = 1e3 * decode_seconds / predicted
        click.echo(f"Time per image: network {network:.1f} ms, decode {decode:.1f} ms")
    if failures:
        for failure in failures:
            click.echo(f"Error: {failure}", err=True)
        raise DhnError(
            f"{len(failures)} of {len(annotations.images)} images could not be read and were "
            "scored as if nobody was found in them; the figures above are too low"
        )
    return stats


def score_file(
    results: Path,
    annotations: Path,
    *,
    scoring: Scoring | None = None,
    evaluator: Evaluator = "pycocotools",
    output: Path | None = None,
    quiet: bool = False,
) -> dict[str, float]:
    """Scores a file of COCO results by any system and prints the AP table; needs no torch.

    Args:
        scoring: whose definition of AP; by default as the annotations suggest.
        output: file for the statistics, unrounded.

    Raises:
        DhnError: a file is missing or malformed, or `output` cannot be written.
    """
    truth = load_annotations(annotations)
    stats = score(
        truth.raw,
        read_json(results),
        scoring or truth.scoring,
        evaluator=evaluator,
        names=(annotations, results),
    )
    if output is not None:
        write_json(output, stats, indent=1)
    if not quiet:
        click.echo(f"{results} on {truth.source} ({_sizes(truth)}), percent")
    print_table(stats)
    return stats


def predict_dataset(
    predictor: "Predictor",
    annotations: Annotations,
    *,
    batch_size: int = 1,
    progress: Progress = silent,
    world: World = ALONE,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Predicts the people of every image.

    The ranks of `world` share the batches. Batches are made as one process makes them, so the
    results are the same, in the same order.

    Returns:
        COCO results, which `score` takes (score of a person as predicted, score of a
        joint as every third number of `keypoints`), and one line for each image that could not
        be read. Both are empty in all ranks but 0.

    Raises:
        DhnError: the network predicts other joints, or no image is there at all.
    """
    joints, wanted = predictor.joints, annotations.joints
    if joints.names != wanted.names:
        raise DhnError(
            f"{predictor.source}: predicts the {len(joints)} joints of {joints.name}, but "
            f"{annotations.source} has the {len(wanted)} of {wanted.name}; take other weights"
        )
    images = annotations.images
    if images and not any(image.path.is_file() for image in images):
        raise DhnError(f"{images[0].path.parent}: none of the {len(images)} images is here")
    batches = [images[k : k + batch_size] for k in range(0, len(images), batch_size)]
    share = world.share(batches)
    done: list[tuple[list[dict[str, Any]], list[str]]] = []
    total = sum(len(batch) for batch in share)
    with (progress if world.main else silent)("Predicting", total) as bar:
        for batch in share:
            results: list[dict[str, Any]] = []
            failures: list[str] = []
            readable, pixels = _read(batch, failures)
            if pixels:
                for image, prediction in zip(readable, predictor(pixels), strict=True):
                    results += _coco_results(image, prediction, annotations.category_id)
            done.append((results, failures))
            bar.advance(len(batch))
    merged = world.collect(done)
    return [r for results, _ in merged for r in results], [f for _, fs in merged for f in fs]


def _read(
    images: Sequence[AnnotatedImage], failures: list[str]
) -> tuple[list[AnnotatedImage], list[np.ndarray]]:
    """The images that can be read, and their pixels; a line in `failures` for each other."""
    from dhn.media.images import read_image

    readable, pixels = [], []
    for image in images:
        try:
            # Annotations count stored pixels, whatever the EXIF orientation says.
            pixels.append(read_image(image.path, ignore_orientation=True))
            readable.append(image)
        except DhnError as error:
            failures.append(str(error))
    return readable, pixels


def _coco_results(
    image: AnnotatedImage, prediction: "Prediction", category_id: int
) -> list[dict[str, Any]]:
    P, J, _ = prediction.keypoints.shape
    keypoints = prediction.keypoints.reshape(P, 3 * J).tolist()
    return [
        {
            "image_id": image.id,
            "category_id": category_id,
            "keypoints": person,
            "score": person_score,
        }
        for person, person_score in zip(keypoints, prediction.scores.tolist(), strict=True)
    ]


def print_table(stats: dict[str, float]) -> None:
    """AP table on standard output, percent; plain text where that is no terminal."""
    cells = {key: f"{100 * value:.1f}" if value >= 0 else "-" for key, value in stats.items()}
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*(key.replace("_", " ") for key in cells))
        table.add_row(*cells.values())
        Console().print(table)
    else:
        widths = [max(len(key), len(value)) for key, value in cells.items()]
        for row in (cells.keys(), cells.values()):
            click.echo("  ".join(f"{cell:>{w}}" for cell, w in zip(row, widths, strict=True)))


def _sizes(annotations: Annotations) -> str:
    people = sum(len(image.people) for image in annotations.images)
    return f"{people} annotated people in {len(annotations.images)} images"
