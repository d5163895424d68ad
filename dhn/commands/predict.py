"""`dhn predict`."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import dhn
from dhn.base.errors import DhnError
from dhn.commands import options
from dhn.commands.console import count, progress, weights_line

if TYPE_CHECKING:
    from dhn.prediction.outputs import Outputs
    from dhn.prediction.run import Summary


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@options.network
@click.option(
    "-o",
    "--image-output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder for overlays of images, and of videos without --video-output.",
)
@click.option(
    "--json-output",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Folder for one file per source, or one .json or .jsonl file.",
)
@click.option(
    "--video-output",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="An .mp4 file (for one video), or a folder.",
)
@click.option(
    "--csv-output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PATH",
    help="One table, a row per person.",
)
@click.option(
    "--conf",
    type=options.Number(0, 1),
    default=0.1,
    show_default=True,
    help="Leave out people who score less.",
)
@click.option(
    "--vid-stride",
    type=options.COUNT,
    default=1,
    show_default=True,
    help="Take every n-th frame of videos.",
)
@options.common
def predict(
    sources: tuple[str, ...],
    image_output: Path | None,
    json_output: Path | None,
    video_output: Path | None,
    csv_output: Path | None,
    conf: float,
    vid_stride: int,
    batch_size: int,
    quiet: bool,
    **network: Any,
) -> None:
    """Find the poses of people in images and videos.

    SOURCE is an image, a video, a folder, a quoted glob, or - for an image on standard input.

    Without an output option, overlays and JSON go to the folder predictions. Each file is named
    after its source: photo.jpg.predictions.jpg and .json, clip.mp4.predictions.mp4 and .jsonl.

    An image's JSON is a list of people as OpenPifPaf writes it: keypoints (x, y, score of each
    joint; zeros where none was found), bbox, score, category_id. A video gives one line per
    frame, with file, frame and predictions. So does a single .json or .jsonl file for several
    sources, a line per image.
    """
    from dhn.base.distributed import connect
    from dhn.media.sources import list_sources
    from dhn.prediction.outputs import Outputs
    from dhn.prediction.run import predict as predict_sources
    from dhn.weights.choice import chosen

    named = network["checkpoint"]
    network["checkpoint"] = chosen(named)
    outputs = Outputs(image_output, json_output, video_output, csv_output)
    if outputs == Outputs():
        outputs = Outputs(images=Path("predictions"), json=Path("predictions"))
    # A video is one process's business; the others may be done hours before.
    with connect(network.pop("device"), patience=timedelta(days=7)) as world:
        inputs = list_sources(sources)
        outputs.check(inputs, network["checkpoint"])
        predictor = dhn.load(
            **network, device=world.device, progress=progress(quiet or not world.main)
        )
        if world.main and not quiet:
            click.echo(weights_line(named, predictor.source))
        summary = predict_sources(
            predictor,
            inputs,
            outputs,
            batch_size=batch_size,
            conf=conf,
            vid_stride=vid_stride,
            progress=progress(quiet),
            world=world,
        )
        if world.main:
            _report(summary, outputs, len(inputs), quiet)


def _report(summary: "Summary", outputs: "Outputs", sources: int, quiet: bool) -> None:
    """Prints what was done and how long it took, lists the failures, and fails if there are any."""
    if summary.images:
        images = count(summary.images, "image")
        people = count(summary.people, "person", "people")
        click.echo(f"{images}, {people} -> {', '.join(str(path) for path in outputs.paths())}")
        if not quiet:
            network, decode = (
                1000 * seconds / summary.images
                for seconds in (summary.network_seconds, summary.decode_seconds)
            )
            click.echo(f"Time per image: network {network:.1f} ms, decode {decode:.1f} ms")
    if summary.failures and sources == 1:
        raise DhnError(summary.failures[0])
    for failure in summary.failures:
        click.echo(f"Failed: {failure}", err=True)
    if summary.failures:
        raise DhnError(
            f"{len(summary.failures)} of {sources} sources failed; they are listed above"
        )
