"""`dhn data`: synth, check, overlap and sigmas."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dhn.commands import options
from dhn.commands.console import count, progress, table_console

if TYPE_CHECKING:
    from rich.table import Table

    from dhn.data.findings import Report
    from dhn.data.joints import JointSet


@click.group()
def data() -> None:
    """Make and check data sets."""


@data.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--images", type=options.COUNT, default=1000, show_default=True)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True)
@click.option(
    "--size",
    type=click.IntRange(min=96, max=2048),
    default=240,
    show_default=True,
    help="Short side of the images in pixels.",
)
@click.option(
    "--processes",
    type=options.PARALLEL,
    default=None,
    help="Draw in this many processes; by default one per CPU core. The images stay the same.",
)
@click.option("--overwrite", is_flag=True, help="Replace an earlier folder of procedural crowds.")
@click.option(
    "--video",
    is_flag=True,
    help="Draw a video of people who cross and hide each other instead: OUT is an .mp4 file.",
)
@click.option(
    "--frames",
    type=options.COUNT,
    default=150,
    show_default=True,
    help="Of a video, at 25 a second.",
)
@click.option(
    "--people", type=click.IntRange(1, 100), default=6, show_default=True, help="In a video."
)
@options.common
def synth(
    out: Path,
    images: int,
    seed: int,
    size: int,
    processes: int | None,
    overwrite: bool,
    video: bool,
    frames: int,
    people: int,
    quiet: bool,
) -> None:
    """Draw procedural crowds and write them as a CrowdPose folder OUT.

    Of ten images, eight are for training, one for validation and one for the test. The same seed
    draws the same crowds in any number of processes.

    With --video, OUT is a video. Beside OUT.mp4 lie the people of each frame: OUT.json has joints
    and ids (COCO's format, track_id), OUT.txt boxes and ids (MOTChallenge's format).
    """
    if video:
        _draw_video(out, seed, (round(size * 4 / 3), size), frames, people, quiet)
        return
    from dhn.synth import CrowdConfig, generate

    generate(
        out,
        images,
        seed,
        config=CrowdConfig(size=size),
        processes=processes or os.cpu_count() or 1,
        overwrite=overwrite,
        progress=progress(quiet),
    )
    click.echo(f"{out}: {images} images")


def _draw_video(
    out: Path, seed: int, size: tuple[int, int], frames: int, people: int, quiet: bool
) -> None:
    from dhn.base.errors import DhnError
    from dhn.base.files import check_outputs
    from dhn.synth.video import VideoConfig, write_video

    if out.suffix.lower() != ".mp4":
        raise DhnError(f"{out}: a video is an .mp4 file; name one, or leave out --video")
    check_outputs([out, out.with_suffix(".json"), out.with_suffix(".txt")])
    config = VideoConfig(size=size, frames=frames, people=people)
    write_video(out, seed, config, progress=progress(quiet))
    click.echo(f"{out}: {frames} frames")


@data.command()
@click.argument("dataset", metavar="crowdpose|coco|PATH")
@click.option(
    "--split",
    "splits",
    multiple=True,
    type=click.Choice(["train", "val", "test", "trainval"]),
    help="Check this split (can be repeated); by default all that there are.",
)
@click.option("--quick", is_flag=True, help="Do not read the images, only see that they exist.")
@click.option(
    "--max-people",
    type=options.COUNT,
    default=30,
    show_default=True,
    help="The setting data.max_people of the training: more people in an image are a hint.",
)
@click.option(
    "--json-output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PATH",
    help="Write the figures and every case, not only the first three.",
)
@options.common
def check(
    dataset: str,
    splits: tuple[str, ...],
    quick: bool,
    max_people: int,
    json_output: Path | None,
    quiet: bool,
) -> None:
    """Check annotations and images of a data set before training on it.

    Errors end with exit code 1: images that are missing, damaged, of another size or in two
    splits, and annotations that cannot be used. Warnings concern labels, such as keypoints
    outside the image, wrong counts, or joints without left and right. Hints are statistical;
    official sets have some, too.
    """
    from dhn.base.errors import DhnError
    from dhn.base.files import check_outputs, write_json
    from dhn.data.check import check_dataset
    from dhn.data.layouts import find_splits, images_among, split_files

    read = [split_files(dataset, split) for split in splits or find_splits(dataset)]
    inputs = [file.path for files in read for file in files]
    check_outputs([json_output], [*inputs, *images_among(dataset, [json_output])])
    report = check_dataset(
        dataset, splits, decode=not quick, max_people=max_people, progress=progress(quiet)
    )
    console = table_console()
    if report.splits:
        console.print(_split_table(report.splits))
    for joints in dict.fromkeys(report.joints.values()):
        names = [split for split, own in report.joints.items() if own == joints]
        console.print(_joint_table(joints, " and ".join(names)))
    if report.findings:
        console.print(_finding_table(report))
    if json_output:
        write_json(json_output, report.as_json(), indent=1)
    if report.count("error"):
        raise DhnError(f"{dataset}: {count(report.count('error'), 'error')} to fix before training")
    click.echo(f"{dataset}: no errors, {count(report.count('warning'), 'warning')}")


@data.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option(
    "--split-a",
    type=click.Choice(["train", "val", "test", "trainval"]),
    default="test",
    show_default=True,
    help="The split of A, not used where A is a file.",
)
@click.option(
    "--split-b",
    type=click.Choice(["train", "val", "test", "trainval"]),
    default="train",
    show_default=True,
    help="The split of B, likewise.",
)
@click.option(
    "--ids-output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="IDS.txt",
    help="Write the ids of A's images that are in B, for --exclude of `dhn eval` and `dhn train`.",
)
@click.option(
    "--json-output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PATH",
    help="Write all pairs.",
)
@options.common
def overlap(
    first: str,
    second: str,
    split_a: str,
    split_b: str,
    ids_output: Path | None,
    json_output: Path | None,
    quiet: bool,
) -> None:
    """Find the images of A that are in B, too, even as copies.

    \b
    dhn data overlap my_set coco --split-a val --ids-output ids.txt
    dhn eval --dataset my_set --split val --exclude ids.txt

    A and B are data sets as for `dhn eval`. Mirrored, resized, cropped (to 60 % of each side) and
    compressed copies are found. A network that learnt from B should not be scored on them.
    """
    from dhn.base.errors import DhnError
    from dhn.base.files import check_outputs, write_json, written_whole
    from dhn.data.annotations import load_annotations
    from dhn.data.layouts import images_among
    from dhn.data.overlap import find_overlap

    a, b = load_annotations(first, split_a), load_annotations(second, split_b)
    outputs = [ids_output, json_output]
    inside = [path for dataset in (first, second) for path in images_among(dataset, outputs)]
    check_outputs(outputs, [*a.files, *b.files, *inside])
    found = find_overlap(a.images, b.images, progress=progress(quiet))
    for failure in found.failures:
        click.echo(f"Error: {failure}", err=True)
    pairs = [copy.as_json() for copy in found.copies]
    for pair in pairs:
        mirrored = ", mirrored" if pair["mirrored"] else ""
        click.echo(f"{pair['first']} is {pair['second']}{mirrored}")
    if ids_output is not None:
        with written_whole(ids_output) as temporary:
            lines = [f"{pair['first_id']}  # {pair['second']}\n" for pair in pairs]
            temporary.write_text("".join(lines), encoding="utf-8")
    if json_output is not None:
        write_json(json_output, pairs, indent=1)
    if not quiet:
        click.echo(f"{len(pairs)} of {len(a.images)} images of {a.source} are in {b.source}")
    if found.failures:
        raise DhnError(f"{len(found.failures)} images could not be read and were not compared")


@data.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE..."
)
@click.option(
    "--json-output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PATH",
    help="Write the table.",
)
@options.common
def sigmas(files: tuple[Path, ...], json_output: Path | None, quiet: bool) -> None:
    """Estimate the OKS constant of each joint from repeated labels.

    \b
    dhn data sigmas by_ann.json by_ben.json

    Each FILE is what one annotator made of the same images, in COCO's keypoint format. The sigma of
    a joint is the spread of its labels in units of the square root of the person's area. The last
    line can be copied into the category of an annotation file.
    """
    from rich.table import Table
    from rich.text import Text

    from dhn.base.files import check_outputs, write_json
    from dhn.evaluation.sigmas import estimate_sigmas

    check_outputs([json_output], files)
    rows = estimate_sigmas(files)
    table = Table("joint")
    for column in ("people", "sigma", "given"):
        table.add_column(column, justify="right")
    for row in rows:
        sigma = "-" if row.sigma is None else f"{row.sigma:.4f}"
        table.add_row(Text(row.name), str(row.people), sigma, f"{row.given:g}")
    table_console().print(table)
    if json_output is not None:
        write_json(json_output, [row._asdict() for row in rows], indent=1)
    if not quiet and all(row.sigma for row in rows):
        numbers = ", ".join(f"{row.sigma:.4f}" for row in rows)
        click.echo(f'"sigmas": [{numbers}]')


def _split_table(splits: dict[str, dict[str, Any]]) -> "Table":
    """A row of figures for each split."""
    import numpy as np
    from rich.table import Table
    from rich.text import Text

    table = Table("split", title="Data")
    for column in (
        "images",
        "people",
        "visible",
        "hidden",
        "0/1/2-4/5-9/10+ people",
        "most",
        "crowdIndex easy/medium/hard",
        "from labels",
    ):
        table.add_column(column, justify="right")
    for name, figures in splits.items():
        histogram = np.array(figures["people_per_image"])
        groups = [part.sum() for part in np.split(histogram, (1, 2, 5, 10))]
        visible, hidden = figures["keypoints"]
        table.add_row(
            Text(name),
            str(figures["images"]),
            str(figures["people"]),
            str(visible),
            str(hidden),
            _shares([group / max(histogram.sum(), 1) for group in groups]),
            str(len(histogram) - 1),
            _shares(figures.get("crowd_index")),
            _shares(figures.get("crowd_index_of_labels")),
        )
    return table


def _joint_table(joints: "JointSet", splits: str) -> "Table":
    """A row for each joint, with its counterpart in a mirrored image, its sigma and its limbs."""
    from rich.table import Table
    from rich.text import Text

    table = Table("", "joint", "mirrored", title=Text(f"{len(joints)} joints of {splits}"))
    table.add_column("sigma", justify="right")
    table.add_column("limbs to", overflow="fold")
    for j, (name, other, sigma) in enumerate(
        zip(joints.names, joints.flip, joints.sigmas, strict=True)
    ):
        limbs = [b if a == j else a for a, b in joints.skeleton if j in (a, b)]
        table.add_row(
            str(j),
            Text(name),
            Text(joints.names[other] if other != j else "itself"),
            f"{sigma:g}",
            Text(", ".join(joints.names[k] for k in limbs)),
        )
    return table


def _shares(shares: Sequence[float] | None) -> str:
    return "/".join(f"{100 * share:.0f}" for share in shares) + " %" if shares else "-"


def _finding_table(report: "Report", examples: int = 3) -> "Table":
    """A row for each finding, with its first cases."""
    from rich.table import Table
    from rich.text import Text

    table = Table("", "finding", "split", title="Findings")
    table.add_column("count", justify="right")
    table.add_column("first of them", overflow="fold")
    colours = {"error": "red", "warning": "yellow", "hint": "cyan"}
    for level, what, split, cases in report.findings:
        table.add_row(
            Text(level, style=colours[level]),
            what,
            # As Text, the square brackets in file names are not taken for markup.
            Text(split),
            str(len(cases)),
            Text("\n".join(cases[:examples])),
        )
    return table
