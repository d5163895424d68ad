"""`dhn logs`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dhn.commands import options
from dhn.commands.console import table_console

if TYPE_CHECKING:
    from rich.table import Table

# How each column of the table is formatted, in order; the rest of a summary is left out.
_FORMATS = {
    "epoch": "{:d}",
    "loss": "{:.4g}",
    "heatmap": "{:.4g}",
    "flat": "{:.4g}",
    "pull": "{:.4g}",
    "push": "{:.4g}",
    "best_AP": "{:.1%}",
    "best_epoch": "{:d}",
    "images_per_second": "{:.1f}",
    "data_wait": "{:.1%}",
    "skipped": "{:d}",
}


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

    RUN is a folder that `dhn train` made; it may still be training. In the table, `heatmap` is the
    loss of the last heatmap and `flat` the loss that a map of zeros would have: a network has
    begun to learn where things are once `heatmap` is clearly below `flat`.
    """
    from dhn.base.errors import DhnError
    from dhn.base.files import check_outputs, write_json
    from dhn.training import logs

    metrics = [run if run.is_file() else run / "metrics.jsonl" for run in runs]
    check_outputs([output, csv_output, json_output], metrics)
    read, failures = logs.read_runs(runs)
    if len(runs) == 1 and failures:
        raise DhnError(failures[0])
    for failure in failures:
        click.echo(f"Error: {failure}", err=True)
    if read and not quiet:
        table_console().print(_table([logs.summary(run) for run in read]))
    if output and read:
        logs.plot(read, output)
    if csv_output:
        logs.write_csv(read, csv_output)
    if json_output:
        content = [{"summary": logs.summary(run), **run._asdict()} for run in read]
        write_json(json_output, content, indent=1)
    if failures:
        raise DhnError(f"{len(failures)} of {len(runs)} runs could not be read")


def _table(summaries: "Sequence[dict[str, Any]]") -> "Table":
    """A row for each run."""
    from rich.table import Table
    from rich.text import Text

    table = Table("run")
    for key in _FORMATS:
        heading = key.replace("_per_second", "/s").replace("_", " ")
        table.add_column(heading, justify="right")
    for row in summaries:
        cells = [
            "-" if row[key] is None else form.format(row[key]) for key, form in _FORMATS.items()
        ]
        table.add_row(Text(row["run"]), *cells)
    return table
