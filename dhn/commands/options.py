"""Options that several commands share, as decorators."""

from collections.abc import Callable
from typing import Any

import click


def _remember_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.meta["dhn.debug"] = value


def common(command: Callable[..., Any]) -> Callable[..., Any]:
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


device = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda:N|mps",
    help="Where to compute; auto takes CUDA, else MPS, else the CPU.",
)


def graph(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say what is computed: which weights, on what, aggregated how."""
    for option in reversed(
        (
            click.option(
                "--checkpoint",
                "--weights",
                "checkpoint",
                metavar="FILE|NAME|URL",
                help="Trained network: a file, a name of `dhn models` or an https:// address; "
                "by default the newest run's best, else last.",
            ),
            click.option("--offline", is_flag=True, help="Download nothing."),
            click.option("--flip", is_flag=True, help="Flip test: better, half as fast."),
            click.option(
                "--input-size",
                "--imgsz",
                "input_size",
                type=click.IntRange(min=64),
                metavar="N",
                help="Short side of the network input in pixels; by default as in training.",
            ),
            click.option("--fine-only", is_flag=True, help="Average the fine heatmaps alone."),
        )
    ):
        command = option(command)
    return command


def network(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of commands that run a network: the keywords of `dhn.load`, and batch size."""
    for option in reversed(
        (
            click.option(
                "--no-refine",
                "refine",
                is_flag=True,
                flag_value=False,
                default=True,
                help="Do not search for a person's missing joints.",
            ),
            click.option("--max-people", type=click.IntRange(min=1), default=30, show_default=True),
            click.option(
                "--subpixel", is_flag=True, help="Fit peaks below the pixel (after DARK)."
            ),
            click.option(
                "--parity",
                is_flag=True,
                help="The official HigherHRNet code's results, its artefacts included.",
            ),
            click.option(
                "--precision",
                type=click.Choice(["auto", "float32", "bfloat16"]),
                default="auto",
                show_default=True,
                help="auto is bfloat16 where the hardware multiplies it.",
            ),
            click.option(
                "--compile",
                is_flag=True,
                help="Fuse by torch.compile (a minute; cached) instead of by hand: time it first.",
            ),
            click.option(
                "-b", "--batch-size", type=click.IntRange(min=1), default=1, show_default=True
            ),
            device,
        )
    ):
        command = option(command)
    return graph(command)
