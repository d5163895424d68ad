"""`dhn data synth` and `dhn data check`."""

import os
from pathlib import Path

import click

from dhn.commands import options
from dhn.commands.console import progress


@click.group()
def data() -> None:
    """Make and check data sets."""


@data.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--images", type=click.IntRange(min=1), default=1000, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--size",
    type=click.IntRange(min=96, max=2048),
    default=240,
    show_default=True,
    help="Short side of the images in pixels.",
)
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=None,
    help="How many draw at the same time; all CPU cores by default. Changes nothing but the time.",
)
@click.option("--overwrite", is_flag=True, help="Replace an earlier folder of procedural crowds.")
@options.common
def synth(
    out: Path,
    images: int,
    seed: int,
    size: int,
    processes: int | None,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Draw procedural crowds and write them as a CrowdPose folder OUT.

    Of ten images, eight are for training, one for validation, one for the test. The same seed
    draws the same crowds, on any number of processes.
    """
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


@data.command()
@click.argument("dataset", metavar="crowdpose|coco|PATH")
@click.option(
    "--split",
    "splits",
    multiple=True,
    type=click.Choice(["train", "val", "test", "trainval"]),
    help="Check this split; may be given several times. By default all that are there.",
)
@click.option("--quick", is_flag=True, help="Do not read the images, only see that they exist.")
@click.option(
    "--max-people",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    help="As data.max_people in training.",
)
@click.option(
    "--json-output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PATH",
    help="Write the figures and every case, not the first three alone.",
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

    Errors (images that are missing, damaged, of another size or in two splits, annotations that
    cannot be used) end with exit code 1. Warnings are about labels: outside the image, against
    their own counts. Hints are statistical; official sets have some.
    """
    from rich.console import Console

    from dhn.base.errors import DhnError
    from dhn.base.files import write_json
    from dhn.data.check import check_dataset, tables

    report = check_dataset(
        dataset, splits, decode=not quick, max_people=max_people, progress=progress(quiet)
    )
    console = Console()
    if not console.is_terminal:
        console = Console(width=1000)  # no line is folded, so that names can be searched
    for table in tables(report):
        console.print(table)
    if json_output:
        write_json(json_output, report.as_json(), indent=1)
    if report.count("error"):
        raise DhnError(f"{dataset}: {report.count('error')} errors; mend them before training")
    click.echo(f"{dataset}: no errors, {report.count('warning')} warnings")
