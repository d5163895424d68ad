"""`dhn logs`."""

from pathlib import Path

import click

from dhn.commands import options


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PATH",
    help="Draw the curves into this image, like curves.png (needs matplotlib).",
)
@click.option(
    "--csv-output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PATH",
    help="Write a row for each run and epoch.",
)
@click.option(
    "--json-output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PATH",
    help="Write the summaries and all epochs.",
)
@options.common
def logs(
    runs: tuple[Path, ...],
    output: Path | None,
    csv_output: Path | None,
    json_output: Path | None,
    quiet: bool,
) -> None:
    """Compare training runs: a table, or their curves in one image.

    \b
    dhn logs runs/*                    how far each is, best AP, speed
    dhn logs runs/A runs/B -o curves.png

    RUN is a folder that `dhn train` made; it may still be training.
    """
    from rich.console import Console

    from dhn.base.errors import DhnError
    from dhn.base.files import write_json
    from dhn.training import logs

    read, failures = logs.read_runs(runs)
    if len(runs) == 1 and failures:
        raise DhnError(failures[0])
    for failure in failures:
        click.echo(f"Error: {failure}", err=True)
    if read and not quiet:
        console = Console()
        if not console.is_terminal:
            console = Console(width=1000)  # no line is folded
        console.print(logs.table(read))
    if output and read:
        logs.plot(read, output)
    if csv_output:
        logs.write_csv(read, csv_output)
    if json_output:
        content = [{"summary": logs.summary(run), **run._asdict()} for run in read]
        write_json(json_output, content, indent=1)
    if failures:
        raise DhnError(f"{len(failures)} of {len(runs)} runs could not be read")
