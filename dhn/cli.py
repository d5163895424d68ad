"""The command line: gathers `commands/`, and turns errors that users can fix into one line."""

import signal
from typing import Any

import click

import dhn
from dhn.base.errors import DhnError, SettingError, unforeseen
from dhn.base.limits import limit_opencv
from dhn.commands.bench import bench
from dhn.commands.compare import compare
from dhn.commands.console import show_warnings
from dhn.commands.convert import convert
from dhn.commands.data import data
from dhn.commands.eval import evaluate
from dhn.commands.export import export
from dhn.commands.info import info
from dhn.commands.logs import logs
from dhn.commands.models import models
from dhn.commands.predict import predict
from dhn.commands.train import train


class _Group(click.Group):
    """Turns the errors that users can fix into one line and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        signal.signal(signal.SIGTERM, _interrupt)
        show_warnings()
        try:
            limit_opencv()
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:
            if ctx.meta.get("dhn.debug"):
                raise
            raise click.ClickException(_line(error)) from error


def _line(error: Exception) -> str:
    """The error as one line, which names an option where the library names a setting."""
    if isinstance(error, SettingError):
        return error.line("--" + error.setting.replace("_", "-"))
    if isinstance(error, DhnError):
        return str(error)
    if isinstance(error, OSError) and error.strerror is not None:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"{unforeseen(error)}; --debug shows where"


def _interrupt(*_: Any) -> None:
    # SIGTERM ends a run like Ctrl-C: files are closed, training writes a checkpoint.
    raise KeyboardInterrupt


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(dhn.__version__, prog_name="dhn")
def main() -> None:
    """Bottom-up multi-person pose estimation with DoubleHigherNet.

    \b
    dhn train                 train a network (the paper's recipe by default)
    dhn eval --flip           score it on CrowdPose or COCO
    dhn compare A.json B.json which of two systems is better, and in what
    dhn predict video.mp4     poses of images and videos
    dhn convert               predictions in the formats of other tools
    dhn export                a network as one ONNX or torch.export file
    dhn bench                 time the kernels
    dhn data check PATH       what is wrong with a data set
    dhn data overlap A B      images that are in both, even as copies
    dhn data synth OUT        draw procedural crowds to train and test on
    dhn logs RUN...           compare training runs
    dhn models                published weights to start with
    dhn info                  versions, devices, networks
    """


for _command in (
    train,
    evaluate,
    compare,
    predict,
    convert,
    export,
    bench,
    data,
    logs,
    models,
    info,
):
    main.add_command(_command)
