"""Options that several commands share, as decorators."""

import functools
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dhn.commands.console import show_tracebacks


def _remember_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.meta["dhn.debug"] = value
    if value:
        show_tracebacks()


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command."""
    command = click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=_remember_debug,
        help="Show tracebacks.",
    )(command)
    return click.option("-q", "--quiet", is_flag=True, help="Print only results and errors.")(
        command
    )


class Number(click.FloatRange):
    """A number in a range, which NaN is not in."""

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"nan is not in the range {self._describe_range()}.", param, ctx)
        return number


class Time(click.ParamType):
    """A place in a video: seconds, M:SS or H:MM:SS."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?)", value)
        if match is None:
            self.fail(f"{value!r} is no time; give seconds, M:SS or H:MM:SS.", param, ctx)
        hours, minutes, seconds = (float(part or 0) for part in match.groups())
        return 3600 * hours + 60 * minutes + seconds


class Scales(click.ParamType):
    """Numbers with commas between them."""

    name = "scales"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of numbers; an example is 0.5,1,2.", param, ctx)


TIME = Time()

# Larger numbers mean nothing, and overflow somewhere below.
COUNT = click.IntRange(1, 2**31 - 1)
PARALLEL = click.IntRange(1, 1024)
BATCH = click.IntRange(1, 4096)
INPUT_SIZE = click.IntRange(64, 8192)


exclude = click.option(
    "--exclude",
    type=click.Path(path_type=Path),
    metavar="IDS.txt",
    help="Leave out the images of these ids, one a line, as `dhn data overlap` writes them.",
)


device = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda:N|mps",
    help="Where to compute; auto takes CUDA, else MPS, else the CPU; N is short for cuda:N.",
)


def graph(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that decide what is computed: weights, input size, flip test, aggregation."""
    for option in reversed(
        (
            click.option(
                "--checkpoint",
                "--weights",
                "checkpoint",
                metavar="FILE|NAME|URL",
                help="The trained network: a file, the folder of a run, `last` for the newest run, "
                "a name of `dhn models`, or an https:// address. By default the small network "
                "that dhn brings.",
            ),
            click.option("--offline", is_flag=True, help="Download nothing."),
            click.option("--flip", is_flag=True, help="Flip test: more accurate, half as fast."),
            click.option(
                "--input-size",
                "--imgsz",
                "input_size",
                type=INPUT_SIZE,
                metavar="N",
                help="Short side of the network's input in pixels; by default as in training.",
            ),
            click.option("--fine-only", is_flag=True, help="Average only the fine heatmaps."),
        )
    ):
        command = option(command)
    return command


def network(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of commands that run a network: the keywords of `dhn.load`, and batch size."""

    @functools.wraps(command)
    def with_half(*arguments: Any, half: bool, precision: str, **others: Any) -> Any:
        return command(*arguments, precision="bfloat16" if half else precision, **others)

    command_with_half: Callable[..., Any] = with_half
    for option in reversed(
        (
            click.option(
                "--scales",
                type=Scales(),
                default=(1.0,),
                metavar="N,...",
                help="Run each image at these scales and average the heatmaps, as in 0.5,1,2: more "
                "accurate, and as slow as the pixels are many.",
            ),
            click.option(
                "--no-refine",
                "refine",
                is_flag=True,
                flag_value=False,
                default=True,
                help="Do not search for the missing joints of a person.",
            ),
            click.option(
                "--max-people",
                "--max-det",
                "max_people",
                type=click.IntRange(1, 1000),
                default=30,
                show_default=True,
            ),
            click.option(
                "--subpixel", is_flag=True, help="Fit peaks to fractions of a pixel (after DARK)."
            ),
            click.option(
                "--parity",
                is_flag=True,
                help="Reproduce the official HigherHRNet code, including its artefacts.",
            ),
            click.option(
                "--nms-oks",
                type=Number(0, 1),
                metavar="OKS",
                help="Of two people who are more similar, keep the better one; 1 keeps all.  "
                "[default: 0.8; 1 with --parity]",
            ),
            click.option(
                "--min-seen",
                type=click.IntRange(1, 1000),
                default=1,
                show_default=True,
                metavar="JOINTS",
                help="Leave out people with fewer joints seen; refined joints do not count.",
            ),
            click.option(
                "--precision",
                type=click.Choice(["auto", "float32", "bfloat16"]),
                default="auto",
                show_default=True,
                help="auto is bfloat16 where the hardware multiplies it. float32 is never TF32.",
            ),
            click.option(
                "--half",
                is_flag=True,
                help="The same as --precision bfloat16.",
            ),
            click.option(
                "--compile",
                is_flag=True,
                help="Fuse layers by torch.compile (which takes a minute and is cached) instead of "
                "by our own modules. Measure which is faster.",
            ),
            click.option(
                "--trust",
                is_flag=True,
                help="Run a .pt2 file, which is a program and can do anything on this machine.",
            ),
            click.option("-b", "--batch-size", type=BATCH, default=1, show_default=True),
            device,
        )
    ):
        command_with_half = option(command_with_half)
    return graph(command_with_half)
