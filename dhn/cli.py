"""The command line: options and their help. The work is done in the module named like the command.

Heavy imports stand inside the commands, so that `dhn --help` answers at once.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import dhn
from dhn.errors import DhnError


class _Group(click.Group):
    """Turns the errors a user can mend into one line and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            return super().invoke(ctx)
        except DhnError as error:
            if ctx.meta.get("dhn.debug"):
                raise
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if ctx.meta.get("dhn.debug") or error.strerror is None:
                raise
            where = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(f"{where}{error.strerror}") from error


def _interrupt(*_: Any) -> None:
    # SIGTERM ends a run like Ctrl-C: files are closed, training writes a checkpoint.
    raise KeyboardInterrupt


def _remember_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.meta["dhn.debug"] = value


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that every command has."""
    command = click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=_remember_debug,
        help="Show tracebacks.",
    )(command)
    return click.option("-q", "--quiet", is_flag=True, help="Print results and errors only.")(
        command
    )


_device = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda:N|mps",
    help="Where to compute; auto takes CUDA, else MPS, else the CPU.",
)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(dhn.__version__, prog_name="dhn")
def main() -> None:
    """Bottom-up multi-person pose estimation with DoubleHigherNet.

    \b
    dhn train                 train a network (the paper's recipe by default)
    dhn eval --flip           score it on CrowdPose or COCO
    dhn predict video.mp4     poses of pictures and videos
    dhn bench                 time the kernels
    dhn data synth OUT        draw procedural crowds to train and test on
    """


@main.group()
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
@_common
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
