"""`dhn eval`."""

from pathlib import Path
from typing import Any

import click

from dhn.commands import options
from dhn.commands.console import progress


@click.command("eval")
@options.network
@click.option(
    "--dataset",
    metavar="crowdpose|coco|PATH",
    help="Folder or JSON file with annotations; crowdpose is data/crowdpose, coco is data/coco. "
    "With --results, crowdpose or coco: whose definition of AP.  [default: crowdpose]",
)
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test", "trainval"]),
    help="[default: test; val for coco, whose test has no public annotations]",
)
@click.option("--limit", type=click.IntRange(min=1), help="Only the first N images.")
@click.option("--save-json", type=click.Path(path_type=Path), help="Write predictions (COCO).")
@click.option("--output", type=click.Path(path_type=Path), help="Write the unrounded AP table.")
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    help="Score these predictions of any system (COCO results); runs no network.",
)
@click.option(
    "--annotations", type=click.Path(path_type=Path), help="What --results are compared with."
)
@click.option(
    "--evaluator",
    type=click.Choice(["pycocotools", "faster-coco-eval", "crowdposetools"]),
    default="pycocotools",
    show_default=True,
    help="Who counts; crowdposetools is CrowdPose's own package, where it is installed.",
)
@options.common
@click.pass_context
def evaluate(
    ctx: click.Context,
    dataset: str | None,
    split: str | None,
    limit: int | None,
    save_json: Path | None,
    output: Path | None,
    results: Path | None,
    annotations: Path | None,
    evaluator: Any,
    batch_size: int,
    quiet: bool,
    **network: Any,
) -> None:
    """Score a network on a data set, or predictions of any system.

    \b
    dhn eval --flip --output stats.json
    dhn eval --results predictions.json --annotations gt.json --dataset crowdpose
    """
    if results is not None or annotations is not None:
        if results is None or annotations is None:
            raise click.UsageError("--results and --annotations belong together: give both.")
        scoring = _scoring_of_results(ctx)
        from dhn.evaluation.evaluate import score_file

        score_file(
            results, annotations, scoring=scoring, evaluator=evaluator, output=output, quiet=quiet
        )
        return

    from dhn.base.distributed import connect
    from dhn.data.annotations import load_annotations
    from dhn.evaluation.evaluate import evaluate
    from dhn.inference.predictor import load_predictor

    dataset = dataset or "crowdpose"
    with connect(network.pop("device")) as world:
        truth = load_annotations(dataset, split or ("val" if dataset == "coco" else "test"))
        if limit is not None:
            truth = truth.first(limit)
        evaluate(
            load_predictor(
                **network, device=world.device, progress=progress(quiet or not world.main)
            ),
            truth,
            batch_size=batch_size,
            evaluator=evaluator,
            save_json=save_json,
            output=output,
            quiet=quiet,
            progress=progress(quiet),
            world=world,
        )


def _scoring_of_results(ctx: click.Context) -> Any:
    """Checks that the options of `eval --results` make sense together."""
    with_results = {"dataset", "results", "annotations", "evaluator", "output", "quiet", "debug"}
    for option in ctx.command.params:
        source = ctx.get_parameter_source(option.name or "")
        if option.name not in with_results and source is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option.opts[0]} is for networks, not for --results.")
    dataset = ctx.params["dataset"]
    if dataset not in (None, "crowdpose", "coco"):
        raise click.BadParameter("is crowdpose or coco with --results.", param_hint="--dataset")
    return dataset
