"""`dhn eval`."""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import dhn
from dhn.commands import options
from dhn.commands.console import count, progress, table_console, weights_line

if TYPE_CHECKING:
    from rich.table import Table

    from dhn.data.coco_file import Scoring
    from dhn.evaluation.bootstrap import Interval
    from dhn.evaluation.error_analysis import ErrorCost
    from dhn.evaluation.evaluate import Evaluation
    from dhn.evaluation.pck import Pck
    from dhn.evaluation.scoring import Evaluator


@click.command("eval")
@options.network
@click.option(
    "--dataset",
    metavar="crowdpose|coco|PATH",
    help="Folder or JSON file with annotations; crowdpose is data/crowdpose, coco is data/coco. "
    "With --results, crowdpose or coco says whose definition of AP applies.  [default: the one "
    "whose joints the network finds; crowdpose with --results]",
)
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test", "trainval"]),
    help="[default: test; val for coco, whose test has no public annotations]",
)
@click.option("--limit", type=options.COUNT, help="Only the first N images.")
@options.exclude
@click.option(
    "--save-json", type=click.Path(path_type=Path), help="Write the predictions (COCO results)."
)
@click.option("--output", type=click.Path(path_type=Path), help="Write the unrounded AP table.")
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    help="Score these predictions of any system (COCO results); no network runs.",
)
@click.option(
    "--annotations", type=click.Path(path_type=Path), help="What to compare --results with."
)
@click.option(
    "--evaluator",
    type=click.Choice(["dhn", "pycocotools", "faster-coco-eval", "crowdposetools"]),
    default="dhn",
    show_default=True,
    help="What computes AP. The first three agree to 1e-9, dhn is the fastest; crowdposetools is "
    "CrowdPose's own. faster-coco-eval and crowdposetools must be installed separately.",
)
@click.option(
    "--bootstrap",
    is_flag=True,
    help="Print how far each figure might lie elsewhere with other images: 95 % intervals from "
    "1,000 bootstrap samples of the images.",
)
@click.option(
    "--errors",
    is_flag=True,
    help="Print which errors there are, and how much AP would rise if each kind were gone.",
)
@click.option(
    "--ex-oks",
    type=options.Number(0, 1),
    metavar="CONFIDENCE",
    help="Print AP by extended OKS, too: joints below this confidence count as missing, and those "
    "above it as wrong where the joint is annotated outside of the image (v = 3).",
)
@click.option(
    "--pck",
    is_flag=True,
    help="Print for each joint how often it is found within half of the head (PCKh) and a fifth of "
    "the torso (PCK).",
)
@click.option(
    "--report",
    "report_folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write a page that shows what is wrong, where, and in which images (index.html, which "
    "needs nothing beside it), and its figures (report.json).",
)
@options.common
@click.pass_context
def evaluate(
    ctx: click.Context,
    results: Path | None,
    annotations: Path | None,
    evaluator: "Evaluator",
    output: Path | None,
    bootstrap: bool,
    errors: bool,
    ex_oks: float | None,
    pck: bool,
    report_folder: Path | None,
    exclude: Path | None,
    quiet: bool,
    **network: Any,
) -> None:
    """Score a network on a data set, or predictions of any system.

    \b
    dhn eval --flip --output stats.json
    dhn eval --results predictions.json --annotations gt.json --dataset crowdpose
    """
    files = [output, *_report_files(report_folder)]
    settings = {key: value for key, value in ctx.params.items() if key not in _NOT_SHOWN}
    report = partial(
        _report,
        output=output,
        bootstrap=bootstrap,
        errors=errors,
        ex_oks=ex_oks,
        pck=pck,
        folder=report_folder,
        settings=settings,
        quiet=quiet,
    )
    if results is None and annotations is None:
        _score_network(evaluator, files, exclude, quiet, report, **network)
    elif results is None or annotations is None:
        raise click.UsageError("--results and --annotations belong together: give both.")
    else:
        scoring = _scoring_of_results(ctx)
        from dhn.base.files import check_outputs
        from dhn.data.annotations import read_ids
        from dhn.evaluation.evaluate import score_file

        check_outputs(files, [results, annotations, exclude])
        left_out = read_ids(exclude) if exclude is not None else frozenset()
        evaluation = score_file(
            results, annotations, scoring=scoring, evaluator=evaluator, exclude=left_out
        )
        report(evaluation)


def _score_network(
    evaluator: "Evaluator",
    outputs: "list[Path | None]",
    exclude: Path | None,
    quiet: bool,
    report: "Callable[[Evaluation], None]",
    *,
    dataset: str | None,
    split: str | None,
    limit: int | None,
    save_json: Path | None,
    batch_size: int,
    device: str,
    **network: Any,
) -> None:
    """Evaluates the network that `network`, keywords of `dhn.load`, describes."""
    from dhn.base.distributed import connect
    from dhn.base.files import check_outputs
    from dhn.data.annotations import load_annotations, read_ids
    from dhn.data.joints import COCO
    from dhn.data.layouts import images_among
    from dhn.evaluation.evaluate import evaluate
    from dhn.weights.choice import chosen

    named = network["checkpoint"]
    network["checkpoint"] = chosen(named)
    with connect(device) as world:
        predictor = dhn.load(
            **network, device=world.device, progress=progress(quiet or not world.main)
        )
        if world.main and not quiet and named is None:  # else the table's title says it
            click.echo(weights_line(named, predictor.source))
        dataset = dataset or ("coco" if predictor.joints == COCO else "crowdpose")
        truth = load_annotations(dataset, split or ("val" if dataset == "coco" else "test"))
        if exclude is not None:
            truth = truth.without(read_ids(exclude))
        if limit is not None:
            truth = truth.first(limit)
        read = [*truth.files, *(image.path for image in truth.images), network["checkpoint"]]
        outputs = [save_json, *outputs]
        check_outputs(outputs, [exclude, *read, *images_among(dataset, outputs)])
        evaluation = evaluate(
            predictor,
            truth,
            batch_size=batch_size,
            evaluator=evaluator,
            save_json=save_json,
            progress=progress(quiet),
            world=world,
        )
        if evaluation is not None:
            report(evaluation)


# Outputs, and what changes no figure of the report.
_NOT_SHOWN = {"output", "save_json", "report_folder", "quiet"}
_NOT_SHOWN |= {"bootstrap", "errors", "ex_oks", "pck"}


def _report_files(folder: Path | None) -> "list[Path | None]":
    if folder is None:
        return []
    from dhn.pages.report import DATA, PAGE

    return [folder / PAGE, folder / DATA]


def _scoring_of_results(ctx: click.Context) -> "Scoring | None":
    """Checks that the options make sense together with --results."""
    with_results = {"dataset", "results", "annotations", "evaluator", "output", "bootstrap"}
    with_results |= {"errors", "ex_oks", "pck", "exclude", "report_folder", "quiet", "debug"}
    for option in ctx.command.params:
        source = ctx.get_parameter_source(option.name or "")
        if option.name not in with_results and source is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option.opts[0]} is for networks, not for --results.")
    dataset = ctx.params["dataset"]
    if dataset not in (None, "crowdpose", "coco"):
        raise click.BadParameter("is crowdpose or coco with --results.", param_hint="--dataset")
    return dataset


def _report(
    evaluation: "Evaluation",
    *,
    output: Path | None,
    bootstrap: bool,
    errors: bool,
    ex_oks: float | None,
    pck: bool,
    folder: Path | None,
    settings: "Mapping[str, Any]",
    quiet: bool,
) -> None:
    """Prints the figures, writes `output` and `folder`, and fails if images could not be read."""
    from dhn.base.errors import DhnError
    from dhn.base.files import write_json
    from dhn.evaluation.bootstrap import SAMPLES, image_weights, intervals
    from dhn.evaluation.error_analysis import error_table
    from dhn.evaluation.extended import judge_extended
    from dhn.evaluation.figures import plain_figures
    from dhn.evaluation.pck import pck_table

    judged = evaluation.judged
    found = intervals(judged, progress=progress(quiet)) if bootstrap else None
    costs = error_table(judged) if errors else None
    extended, extended_found = None, None
    if ex_oks is not None:
        by_ex_oks = judge_extended(judged.truth, judged.found, ex_oks)
        extended = plain_figures(by_ex_oks)
        extended_found = intervals(by_ex_oks, progress=progress(quiet)) if bootstrap else None
    weights = image_weights(len(judged.truth.image_ids), SAMPLES, 0) if bootstrap else None
    shares = pck_table(judged, weights) if pck else None
    if output is not None:
        stats: dict[str, Any] = dict(evaluation.stats)
        stats |= {"intervals": found} if found else {}
        stats |= {"errors": {name: row._asdict() for name, row in costs.items()}} if costs else {}
        if extended is not None:
            stats["ex_oks"] = {"confidence": ex_oks, **extended}
            stats["ex_oks"] |= {"intervals": extended_found} if extended_found else {}
        stats |= {"pck": {name: row._asdict() for name, row in shares.items()}} if shares else {}
        write_json(output, stats, indent=1)
    if not quiet:
        people = count(evaluation.people, "annotated person", "annotated people")
        images = count(evaluation.images, "image")
        spread = f", with 95 % intervals of {SAMPLES:,} bootstrap samples" if bootstrap else ""
        click.echo(
            f"{evaluation.predictions} on {evaluation.annotations} ({people} in {images}), "
            f"percent{spread}"
        )
    print_table(evaluation.stats, found)
    if extended is not None:
        if not quiet:
            click.echo(f"By extended OKS, joints below a confidence of {ex_oks:g} are missing:")
        print_table(extended, extended_found)
    if costs is not None:
        table_console().print(_error_table(costs))
    if shares is not None:
        table_console().print(_pck_table(shares))
    if folder is not None:
        from dhn.pages.report import PAGE, write_report

        write_report(evaluation, folder, settings=settings, progress=progress(quiet))
        if not quiet:
            click.echo(f"Report: {folder / PAGE}")
    if evaluation.time is not None and not quiet:
        network, decode = (1e3 * seconds for seconds in evaluation.time)
        click.echo(f"Time per image: network {network:.1f} ms, decode {decode:.1f} ms")
    for failure in evaluation.failures:
        click.echo(f"Error: {failure}", err=True)
    if evaluation.failures:
        raise DhnError(
            f"{len(evaluation.failures)} of {count(evaluation.images, 'image')} could "
            "not be read and were scored as if nobody was found in them; the figures above are "
            "too low"
        )


def _error_table(errors: "Mapping[str, ErrorCost]") -> "Table":
    """A row for each kind of error."""
    from rich.table import Table

    table = Table("error", "of all")
    for column in ("cases", "percent", "AP to gain"):
        table.add_column(column, justify="right")
    for name, error in errors.items():
        share = "-" if error.share is None else f"{100 * error.share:.1f}"
        gain = "-" if error.gain is None else f"{round(100 * error.gain, 1) + 0:+.1f}"  # no -0.0
        table.add_row(name.replace("_", " "), error.among, str(error.cases), share, gain)
    return table


def _pck_table(measures: "Mapping[str, Pck]") -> "Table":
    """A row for each joint, and one for all of them together."""
    from rich.table import Table
    from rich.text import Text

    table = Table("joint")
    for name in measures:
        table.add_column(name, justify="right")
    rows: dict[str, list[float | None]] = {"all": [row.mean for row in measures.values()]}
    for joint in next(iter(measures.values())).joints:
        rows[joint] = [row.joints[joint] for row in measures.values()]
    for joint, values in rows.items():
        cells = ["-" if value is None else f"{100 * value:.1f}" for value in values]
        table.add_row(Text(joint), *cells)
    if any(row.interval for row in measures.values()):
        table.add_row("all, 95 % interval", *(_range(row.interval) for row in measures.values()))
    return table


def print_table(
    stats: dict[str, float], intervals: "Mapping[str, Interval | None] | None" = None
) -> None:
    """Prints the AP table in percent: a rich table on a terminal, plain text elsewhere."""
    rows = [[f"{100 * value:.1f}" if value >= 0 else "-" for value in stats.values()]]
    if intervals is not None:
        rows.append([_range(intervals[key]) for key in stats])
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*(key.replace("_", " ") for key in stats))
        for row in rows:
            table.add_row(*row)
        Console().print(table)
        return
    widths = [max(map(len, column)) for column in zip(stats, *rows, strict=True)]
    for cells in (stats.keys(), *rows):
        click.echo("  ".join(f"{cell:>{w}}" for cell, w in zip(cells, widths, strict=True)))


def _range(interval: "Interval | None") -> str:
    return "-" if interval is None else f"{100 * interval.low:.1f}-{100 * interval.high:.1f}"
