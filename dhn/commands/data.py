"""`dhn data synth` and what else concerns data sets."""

import os
from pathlib import Path

import click

from dhn.commands import options


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
    help="Short side of the pictures in pixels.",
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

    Of ten pictures, eight are for training, one for validation, one for the test. The same seed
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
        quiet=quiet,
    )
    click.echo(f"{out}: {images} pictures")
