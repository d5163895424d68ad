"""`dhn compare`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dhn.commands import options
from dhn.commands.console import count, progress, table_console

if TYPE_CHECKING:
    from rich.table import Table

    from dhn.data.coco_file import Scoring
    from dhn.evaluation.compare import Comparison, Difference

_COLOURS = {"better": "green", "worse": "red", "undecided": "dim"}


@click.command()
@click.argument(
    "results", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="A.json B.json..."
)
@click.option(
    "--annotations",
    required=True,
    type=click.Path(path_type=Path),
    help="The truth: a file in COCO's keypoint format.",
)
@click.option(
    "--dataset",
    type=click.Choice(["crowdpose", "coco"]),
    help="Whose definition of AP applies; by default the one that the annotations suggest.",
)
@options.exclude
@click.option("--samples", type=click.IntRange(20, 10_000), default=1000, show_default=True)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True)
@click.option(
    "--json-output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PATH",
    help="Write all figures, unrounded, and the AP of every image.",
)
@click.option(
    "--report",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write a page (index.html, which needs nothing beside it) and its figures "
    "(comparison.json).",
)
@options.common
def compare(
    results: tuple[Path, ...],
    annotations: Path,
    dataset: "Scoring | None",
    exclude: Path | None,
    samples: int,
    seed: int,
    json_output: Path | None,
    folder: Path | None,
    quiet: bool,
) -> None:
    """Compare predictions of two or more systems, A against B, on the same images.

    \b
    dhn compare before.json after.json --annotations gt.json

    The files are COCO results, as `dhn eval --save-json` and other tools write them. A paired
    bootstrap over images says how sure each difference is: its interval holds 95 % of the samples,
    and where it holds 0, the difference is undecided. Errors are those of `dhn eval --errors`.
    """
    if len(results) < 2:
        raise click.UsageError("Name two files of predictions, or more.")
    from dhn.base.files import check_outputs, write_json
    from dhn.data.annotations import read_ids
    from dhn.evaluation.compare import compare as compare_systems
    from dhn.evaluation.evaluate import judge_files
    from dhn.pages.comparison import DATA, PAGE, comparison_data, write_comparison

    files = [] if folder is None else [folder / PAGE, folder / DATA]
    check_outputs([json_output, *files], [*results, annotations, exclude])
    left_out = read_ids(exclude) if exclude is not None else frozenset()
    judged = judge_files(results, annotations, scoring=dataset, exclude=left_out)
    systems = dict(zip(_names(results), judged, strict=True))
    comparisons = compare_systems(systems, samples=samples, seed=seed, progress=progress(quiet))
    for comparison in comparisons:
        _print(comparison, annotations, samples, quiet)
    settings = {
        "systems": [os.fspath(path) for path in results],
        "annotations": os.fspath(annotations),
        "exclude": None if exclude is None else os.fspath(exclude),
        "definition of AP": judged[0].truth.kind,
        "samples": samples,
        "seed": seed,
    }
    if json_output is not None:
        write_json(json_output, comparison_data(comparisons, settings), indent=1)
    if folder is not None:
        write_comparison(comparisons, folder, settings=settings)
        if not quiet:
            click.echo(f"Report: {folder / PAGE}")


def _names(paths: Sequence[Path]) -> list[str]:
    """Short names that differ: file names, or whole paths where two files have the same name."""
    short = [path.name for path in paths]
    if len(set(short)) == len(short):
        return short
    whole = [os.fspath(path) for path in paths]
    if len(set(whole)) < len(whole):
        raise click.UsageError("The same file is named twice.")
    return whole


def _print(comparison: "Comparison", annotations: Path, samples: int, quiet: bool) -> None:
    first, second = comparison.first, comparison.second
    if not quiet:
        click.echo(
            f"{second} against {first} on {annotations.name} "
            f"({count(len(comparison.images), 'image')} with people), percent, 95 % intervals of "
            f"{samples:,} paired bootstrap samples"
        )
    console = table_console()
    figures = _table("figure", first, second, comparison.figures)
    console.print(figures)
    console.print(_table("errors, share", first, second, comparison.shares))
    console.print(_table("AP lost to", first, second, comparison.losses))
    ties = len(comparison.images) - comparison.wins - comparison.defeats
    click.echo(
        f"AP by image: {second} is better in {comparison.wins}, worse in {comparison.defeats}, "
        f"equal in {ties}"
    )


def _table(what: str, first: str, second: str, rows: "dict[str, Difference | None]") -> "Table":
    """A row for each figure."""
    from rich.table import Table
    from rich.text import Text

    table = Table(what)
    for column in (first, second, "change", "95 % interval"):
        table.add_column(Text(column), justify="right")
    table.add_column("")
    for name, row in rows.items():
        if row is None:
            table.add_row(name.replace("_", " "), "-", "-", "-", "-", "")
            continue
        first_, second_, change, low, high = (
            100 * value for value in (row.first, row.second, row.change, *row.interval)
        )
        table.add_row(
            name.replace("_", " "),
            f"{first_:.1f}",
            f"{second_:.1f}",
            f"{change:+.1f}",
            f"{low:+.1f} to {high:+.1f}",
            Text(row.verdict, style=_COLOURS[row.verdict]),
        )
    return table
