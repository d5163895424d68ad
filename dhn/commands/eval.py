"""`dhn eval`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import dhn
from dhn.commands import options
from dhn.commands.console import count, progress

if TYPE_CHECKING:
    from dhn.data.coco_file import Scoring
    from dhn.evaluation.evaluate import Evaluation
    from dhn.evaluation.scoring import Evaluator


@click.command("eval")
@options.network
@click.option(
    "--dataset",
    metavar="crowdpose|coco|PATH",
    help="Folder or JSON file with annotations; crowdpose is data/crowdpose, coco is data/coco. "
    "With --results, crowdpose or coco says whose definition of AP applies.  [default: crowdpose]",
)
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test", "trainval"]),
    help="[default: test; val for coco, whose test has no public annotations]",
)
@click.option("--limit", type=options.COUNT, help="Only the first N images.")
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
    type=click.Choice(["pycocotools", "faster-coco-eval", "crowdposetools"]),
    default="pycocotools",
    show_default=True,
    help="The package that computes AP. faster-coco-eval gives the same figures sooner, and "
    "crowdposetools is CrowdPose's own; both must be installed separately.",
)
@options.common
@click.pass_context
def evaluate(
    ctx: click.Context,
    results: Path | None,
    annotations: Path | None,
    evaluator: "Evaluator",
    output: Path | None,
    quiet: bool,
    **network: Any,
) -> None:
    """Score a network on a data set, or predictions of any system.

    \b
    dhn eval --flip --output stats.json
    dhn eval --results predictions.json --annotations gt.json --dataset crowdpose
    """
    if results is None and annotations is None:
        _score_network(evaluator, output, quiet, **network)
    elif results is None or annotations is None:
        raise click.UsageError("--results and --annotations belong together: give both.")
    else:
        scoring = _scoring_of_results(ctx)
        from dhn.base.files import check_outputs
        from dhn.evaluation.evaluate import score_file

        check_outputs([output], [results, annotations])
        evaluation = score_file(results, annotations, scoring=scoring, evaluator=evaluator)
        _report(evaluation, output, quiet)


def _score_network(
    evaluator: "Evaluator",
    output: Path | None,
    quiet: bool,
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
    from dhn.data.annotations import load_annotations
    from dhn.data.layouts import images_among
    from dhn.evaluation.evaluate import evaluate

    dataset = dataset or "crowdpose"
    with connect(device) as world:
        truth = load_annotations(dataset, split or ("val" if dataset == "coco" else "test"))
        if limit is not None:
            truth = truth.first(limit)
        read = [*truth.files, *(image.path for image in truth.images), network["checkpoint"]]
        check_outputs([save_json, output], [*read, *images_among(dataset, [save_json, output])])
        predictor = dhn.load(
            **network, device=world.device, progress=progress(quiet or not world.main)
        )
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
            _report(evaluation, output, quiet)


def _scoring_of_results(ctx: click.Context) -> "Scoring | None":
    """Checks that the options make sense together with --results."""
    with_results = {"dataset", "results", "annotations", "evaluator", "output", "quiet", "debug"}
    for option in ctx.command.params:
        source = ctx.get_parameter_source(option.name or "")
        if option.name not in with_results and source is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option.opts[0]} is for networks, not for --results.")
    dataset = ctx.params["dataset"]
    if dataset not in (None, "crowdpose", "coco"):
        raise click.BadParameter("is crowdpose or coco with --results.", param_hint="--dataset")
    return dataset


def _report(evaluation: "Evaluation", output: Path | None, quiet: bool) -> None:
    """Writes the figures to `output`, prints them, and fails if images could not be read."""
    from dhn.base.errors import DhnError
    from dhn.base.files import write_json

    if output is not None:
        write_json(output, evaluation.stats, indent=1)
    if not quiet:
        people = count(evaluation.people, "annotated person", "annotated people")
        images = count(evaluation.images, "image")
        click.echo(
            f"{evaluation.predictions} on {evaluation.annotations} ({people} in {images}), percent"
        )
    print_table(evaluation.stats)
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


def print_table(stats: dict[str, float]) -> None:
    """Prints the AP table in percent: a rich table on a terminal, plain text elsewhere."""
    cells = {key: f"{100 * value:.1f}" if value >= 0 else "-" for key, value in stats.items()}
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*(key.replace("_", " ") for key in cells))
        table.add_row(*cells.values())
        Console().print(table)
        return
    widths = [max(len(key), len(value)) for key, value in cells.items()]
    for row in (cells.keys(), cells.values()):
        click.echo("  ".join(f"{cell:>{w}}" for cell, w in zip(row, widths, strict=True)))
