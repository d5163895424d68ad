"""`dhn predict`."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

import dhn
from dhn.base.errors import DhnError, SettingError
from dhn.commands import options
from dhn.commands.console import count, progress, weights_line

if TYPE_CHECKING:
    from collections import Counter

    from dhn.inference.people import Labels
    from dhn.prediction.outputs import Outputs
    from dhn.prediction.run import Summary


@click.command()
@click.argument("sources", nargs=-1, metavar="SOURCE...")
@click.option("--source", "more_sources", multiple=True, metavar="SOURCE", help="Another source.")
@click.option("--recursive", is_flag=True, help="Take what is in sub-folders of folders, too.")
@click.option(
    "--skip-existing",
    is_flag=True,
    help="Leave out sources whose output files are all there: goes on with a half-done folder.",
)
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
    help="Folder for one file per source, one .json or .jsonl file, or - for standard output.",
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
    help="One table, a row per person; - for standard output.",
)
@click.option(
    "--coco-output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="COCO results of all sources as one .json file.",
)
@click.option(
    "--openpose-output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder for OpenPose's JSON files (BODY_25), one per image or frame.",
)
@click.option(
    "--mot-output",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Boxes of people in videos as MOTChallenge's text: a .txt file (for one video), or a "
    "folder.",
)
@click.option(
    "--yolo-output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder for YOLO-pose labels, a file per image or frame.",
)
@click.option("--show", is_flag=True, help="Show overlays in a window; q or Esc ends it.")
@click.option(
    "--line-width",
    type=options.Number(0.5, 200),
    metavar="PIXELS",
    help="Width of limbs in overlays; by default it follows each person's size.",
)
@click.option(
    "--labels",
    type=click.Choice(["id", "score", "both", "none"]),
    default="id",
    show_default=True,
    help="What overlays write above heads.",
)
@click.option("--boxes", is_flag=True, help="Draw boxes around people in overlays.")
@click.option(
    "--image-format",
    type=click.Choice(["jpg", "png", "webp"]),
    default="jpg",
    show_default=True,
    help="Of overlays of images.",
)
@click.option("--save-txt", is_flag=True, help="The same as --yolo-output predictions/labels.")
@click.option(
    "--conf",
    type=options.Number(0, 1),
    default=0.1,
    show_default=True,
    help="Leave out people who score less.",
)
@click.option(
    "--joint-conf",
    type=options.Number(0, 1),
    default=0.0,
    show_default=True,
    help="Count joints that score less as missing. Overlays leave out those of 0.1 in any case.",
)
@click.option(
    "--vid-stride",
    type=options.COUNT,
    default=1,
    show_default=True,
    help="Take every n-th frame of videos.",
)
@click.option(
    "--start",
    type=options.TIME,
    default=0.0,
    metavar="TIME",
    help="Where to begin in videos: seconds, or M:SS, or H:MM:SS.",
)
@click.option(
    "--end",
    type=options.TIME,
    metavar="TIME",
    help="Where to end in videos; of a camera or stream, after how long.",
)
@click.option(
    "--duration",
    type=options.TIME,
    metavar="TIME",
    help="How much to take, from --start on, in place of --end.",
)
@click.option(
    "--track",
    is_flag=True,
    help="Give the people of videos ids that stay the same from frame to frame.",
)
@click.option(
    "--smooth",
    is_flag=True,
    help="Steady the joints in videos, and fill in short gaps. Includes --track.",
)
@click.option(
    "--ids",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FIXES.csv",
    help="Correct ids by this table: columns action (swap, merge or split), id, other, first, last "
    "(frames), source. Includes --track.",
)
@click.option(
    "--person",
    type=options.COUNT,
    metavar="ID",
    help="Follow the person with this id, and leave out all others. Includes --track.",
)
@options.common
def predict(
    sources: tuple[str, ...],
    more_sources: tuple[str, ...],
    recursive: bool,
    skip_existing: bool,
    image_output: Path | None,
    json_output: Path | None,
    video_output: Path | None,
    csv_output: Path | None,
    coco_output: Path | None,
    openpose_output: Path | None,
    mot_output: Path | None,
    yolo_output: Path | None,
    show: bool,
    line_width: float | None,
    labels: "Labels",
    boxes: bool,
    image_format: Literal["jpg", "png", "webp"],
    save_txt: bool,
    conf: float,
    joint_conf: float,
    vid_stride: int,
    start: float,
    end: float | None,
    duration: float | None,
    track: bool,
    smooth: bool,
    ids: Path | None,
    person: int | None,
    batch_size: int,
    quiet: bool,
    **network: Any,
) -> None:
    """Find the poses of people in images and videos.

    SOURCE is an image, a video, a folder, a quoted glob, an http:// or https:// address, a stream
    (rtsp:// and the like), the number of a camera (0), or - for an image, a video or a list of
    sources on standard input.

    Without an output option, overlays and JSON go to the folder predictions. Each file is named
    after its source: photo.jpg.predictions.jpg and .json, clip.mp4.predictions.mp4 and .jsonl.

    JSON begins with a header: version, weights, settings, joint_names, skeleton, sources. Each
    image or frame has source, frame, time, width, height and predictions, a list of people:
    keypoints (x, y, score of each joint; zeros where none was found), states (seen, refined or
    missing), bbox, score, category_id. A .json file is one document, a .jsonl file has a line for
    the header and one for each image or frame.
    """
    from dhn.base.distributed import connect
    from dhn.media.frames import Excerpt
    from dhn.media.sources import find_sources
    from dhn.media.window import Window
    from dhn.prediction.outputs import Outputs
    from dhn.prediction.run import predict as predict_sources
    from dhn.prediction.sinks import OverlayStyle
    from dhn.tracking import read_corrections
    from dhn.weights.choice import chosen

    if not sources and not more_sources:
        raise click.UsageError("Missing argument 'SOURCE...'.")
    if duration is not None:
        if end is not None:
            raise click.UsageError("--duration and --end exclude each other")
        end = start + duration
    if end is not None and end <= start:
        raise click.UsageError("--end must be later than --start, and --duration above 0")
    corrections = read_corrections(ids) if ids is not None else None
    named = network["checkpoint"]
    network["checkpoint"] = chosen(named)
    if save_txt:
        yolo_output = yolo_output or Path("predictions/labels")
    outputs = Outputs(
        images=image_output,
        json=json_output,
        video=video_output,
        csv=csv_output,
        coco=coco_output,
        openpose=openpose_output,
        mot=mot_output,
        yolo=yolo_output,
        show=show,
        style=OverlayStyle(labels, line_width, boxes, image_format),
    )
    if not outputs.paths() and not show:
        outputs = replace(outputs, images=Path("predictions"), json=Path("predictions"))
    # A video is one process's business; the others may be done hours before.
    with connect(network.pop("device"), patience=timedelta(days=7)) as world:
        inputs, passed_over = find_sources((*sources, *more_sources), recursive=recursive)
        outputs.check(inputs, network["checkpoint"], ids)
        for option, value in (("ids", ids), ("person", person)):
            if value is not None and not any(source.is_video for source in inputs):
                raise SettingError(option, value, "there is no video; images have no ids")
        if world.main:
            _report_passed_over(passed_over)
        if skip_existing:
            todo = outputs.without_done(inputs)
            if world.main and len(todo) < len(inputs):
                done = count(len(inputs) - len(todo), "source")
                click.echo(f"{done} skipped: the results are there", err=True)
            inputs = todo
            if not inputs:
                return
        window = Window() if show and world.main else None
        predictor = dhn.load(
            **network, device=world.device, progress=progress(quiet or not world.main)
        )
        if world.main and not quiet:
            click.echo(weights_line(named, predictor.source), err=outputs.on_stdout)
        summary = predict_sources(
            predictor,
            inputs,
            outputs,
            batch_size=batch_size,
            conf=conf,
            joint_conf=joint_conf,
            excerpt=Excerpt(vid_stride, start, end),
            track=track or smooth or ids is not None or person is not None,
            smooth=smooth,
            ids=corrections,
            person=person,
            show=None if window is None else window.show,
            progress=progress(quiet),
            world=world,
        )
        if window is not None:
            window.close()
        if world.main:
            _report(summary, outputs, len(inputs), quiet)
            if person is not None and not summary.people:
                click.echo(f"Nobody has the id {person}", err=True)


def _report_passed_over(passed_over: "Counter[str]") -> None:
    """Says what folders hold besides the images and videos that are taken."""
    if not passed_over:
        return
    from dhn.media.heif import HEIF_SUFFIXES, PACKAGE
    from dhn.media.sources import IN_SUB_FOLDERS

    kinds = ", ".join(f"{number} {kind}" for kind, number in passed_over.items())
    advice = "; --recursive takes those in sub-folders" if IN_SUB_FOLDERS in passed_over else ""
    if {f".{kind.lower()}" for kind in passed_over} & HEIF_SUFFIXES:
        advice += f"; pip install {PACKAGE} to read HEIC"
    click.echo(f"{sum(passed_over.values())} skipped: {kinds}{advice}", err=True)


def _report(summary: "Summary", outputs: "Outputs", sources: int, quiet: bool) -> None:
    """Prints what was done and how long it took, lists the failures, and fails if there are any."""
    if summary.images:
        images = count(summary.images, "image")
        people = count(summary.people, "person", "people")
        stderr = outputs.on_stdout  # where results are, nothing else may be
        places = ["standard output" if str(path) == "-" else str(path) for path in outputs.paths()]
        places += ["a window"] if outputs.show else []
        click.echo(f"{images}, {people} -> {', '.join(places)}", err=stderr)
        if not quiet:
            network, decode = (
                1000 * seconds / summary.images
                for seconds in (summary.network_seconds, summary.decode_seconds)
            )
            line = f"Time per image: network {network:.1f} ms, decode {decode:.1f} ms"
            click.echo(line, err=stderr)
    if summary.failures and sources == 1:
        raise DhnError(summary.failures[0])
    for failure in summary.failures:
        click.echo(f"Failed: {failure}", err=True)
    if summary.failures:
        raise DhnError(
            f"{len(summary.failures)} of {sources} sources failed; they are listed above"
        )
