"""`dhn train`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dhn.commands import options
from dhn.commands.console import progress

if TYPE_CHECKING:
    from dhn.training.settings import Config


class _TrainCommand(click.Command):
    """Lists the presets below its help; reading them takes longer than the rest of the help."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from dhn.training.config import presets
        from dhn.training.describe import preset_comment

        with formatter.section("Presets"):
            formatter.write_dl([(name, preset_comment(name)[0]) for name in presets()])


def _unseen(line: str) -> None:
    """Takes the place of `click.echo` under --quiet."""


@click.command(cls=_TrainCommand)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--config",
    "source",
    metavar="NAME|FILE",
    help="A preset (see below) or a YAML file.  [default: doublehighernet_w32_crowdpose, the "
    "paper's recipe]",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder of the run; by default a new one in runs/.",
)
@click.option(
    "--resume",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Go on with the run in this folder, with its settings.",
)
@click.option(
    "--backbone",
    metavar="FILE|NAME|URL",
    help="Weights to start from, as far as they fit: short for train.init=...",
)
@click.option(
    "--exclude",
    metavar="IDS.txt",
    help="Do not train on these images: ids, one a line, as `dhn data overlap` writes them; short "
    "for data.exclude=...",
)
@click.option(
    "--offline", is_flag=True, help="Download no weights to start from; take them from the cache."
)
@click.option(
    "--show-config", is_flag=True, help="Print all settings as YAML, with their meanings, and stop."
)
@options.device
@options.common
def train(
    overrides: tuple[str, ...],
    source: str | None,
    output: Path | None,
    resume: Path | None,
    backbone: str | None,
    exclude: str | None,
    offline: bool,
    show_config: bool,
    device: str,
    quiet: bool,
) -> None:
    """Train a network.

    \b
    dhn train                                  the paper's recipe on CrowdPose
    dhn train --config demo                    a small network; needs no data
    dhn train train.epochs=100 data.dataset=coco data.split=train
    dhn train --resume runs/NAME               go on after a stop
    torchrun --nproc-per-node 8 -m dhn train   on eight GPUs

    KEY=VALUE changes a setting of the preset (--show-config explains them). The run's folder gets
    config.yaml, environment.json, metrics.jsonl, last.pt and, where a split is held out, best.pt.
    However a run ended, --resume goes on to the weights that it would have had.

    The losses of the heatmaps stand beside the loss that a map of zeros would have: a network has
    begun to learn where things are once the last of them is clearly below it.
    """
    if resume is not None and (source or output or backbone):
        raise click.UsageError(
            "--resume takes settings, folder and weights of that run: leave out --config, "
            "--output and --backbone."
        )
    if backbone is not None:
        overrides = (*overrides, f"train.init={backbone}")
    if exclude is not None:
        overrides = (*overrides, f"data.exclude={json.dumps(exclude)}")
    config = _config(source, resume, overrides)
    if show_config:
        from dhn.training.describe import commented_yaml

        click.echo(commented_yaml(config), nl=False)
        return
    _train(config, resume, output, device, offline=offline, quiet=quiet)


def _config(source: str | None, resume: Path | None, overrides: Sequence[str]) -> "Config":
    if resume is not None:
        from dhn.training.runs import resumed_config

        return resumed_config(resume, overrides)
    from dhn.training.config import DEFAULT_PRESET, load_config

    return load_config(source or DEFAULT_PRESET, overrides)


def _train(
    config: "Config",
    resume: Path | None,
    output: Path | None,
    device: str,
    *,
    offline: bool,
    quiet: bool,
) -> None:
    """Trains as one process of a job, or alone, and prints the result."""
    from dhn.base.device import select_device
    from dhn.base.distributed import connect
    from dhn.base.errors import DhnError
    from dhn.training.loop import train
    from dhn.training.runs import StoppedError, discard_unused, new_run

    try:
        with connect(device) as world:
            target = select_device(world.device)
            run = resume or output or Path(world.once("run", lambda: str(new_run(config))))
            # A job that torchrun starts again goes on with the run that it had.
            if resume is None and not world.restarted:
                _check_new(run)
            try:
                result = train(
                    config,
                    run,
                    target,
                    world=world,
                    offline=offline,
                    progress=progress(quiet),
                    report=_unseen if quiet else click.echo,
                )
            finally:
                if world.main and resume is None and output is None:
                    discard_unused(run)
            if world.main:
                click.echo(f"Result: {result}")
    except StoppedError as stopped:
        raise DhnError(f"stopped; go on with: dhn train --resume {stopped.run}") from stopped


def _check_new(run: Path) -> None:
    """Refuses a folder that holds a run, or other things, for a new run."""
    if (run / "last.pt").exists():
        raise click.UsageError(f"{run} holds a run: choose another --output, or --resume {run}.")
    from dhn.training.runs import LOCK

    if not run.exists() or (run.is_dir() and {path.name for path in run.iterdir()} <= {LOCK}):
        return
    # A run that was killed before its first checkpoint may begin anew.
    if not (run / "environment.json").exists():
        raise click.UsageError(f"{run} holds other things: choose another --output.")
