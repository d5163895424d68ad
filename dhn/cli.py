"""The command line: options and their help. The work is done in the module named like the command.

Heavy imports stand inside the commands, so that `dhn --help` answers at once.
"""

import signal
from collections.abc import Callable
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
    """
