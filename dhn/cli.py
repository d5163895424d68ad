"""The command line: options and their help. The work is done in the module named like the command.

Heavy imports stand inside the commands, so that `dhn --help` answers at once.
"""

import json
import os
import signal
from pathlib import Path
from typing import Any

import click

import dhn
from dhn import options
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


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(dhn.__version__, prog_name="dhn")
def main() -> None:
    """Bottom-up multi-person pose estimation with DoubleHigherNet.

    \b
    dhn train                 train a network (the paper's recipe by default)
    dhn eval --flip           score it on CrowdPose or COCO
    dhn predict video.mp4     poses of pictures and videos
    dhn bench                 time the kernels
    dhn data synth OUT        draw procedural crowds to train and test on
    dhn info                  versions, devices, networks
    """


@main.command()
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--config",
    "source",
    metavar="NAME|FILE",
    help="A preset or a YAML file.  [default: doublehighernet_w32_crowdpose, the paper's recipe]",
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
@click.option("--show-config", is_flag=True, help="Print the settings as YAML and stop.")
@options.device
@options.common
def train(
    overrides: tuple[str, ...],
    source: str | None,
    output: Path | None,
    resume: Path | None,
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

    KEY=VALUE changes a setting of the preset (--show-config lists them). The run's folder gets
    config.yaml, environment.json, metrics.jsonl, last.pt and, where a split is held out, best.pt.
    """
    from dhn.config import DEFAULT_PRESET, load_config

    if resume is not None:
        if source is not None or output is not None:
            raise click.UsageError(
                "--resume takes settings and folder of that run: leave out --config and --output."
            )
        from dhn.train import resumed_config

        config = resumed_config(resume, overrides)
    else:
        config = load_config(source or DEFAULT_PRESET, overrides)
    if show_config:
        click.echo(config.to_yaml(), nl=False)
        return

    from dhn.device import select_device
    from dhn.train import new_run, train

    run = resume or output or new_run(config)
    if resume is None and (run / "last.pt").exists():
        raise click.UsageError(f"{run} holds a run: choose another --output, or --resume {run}.")
    result = train(config, run, select_device(device), quiet=quiet)
    click.echo(f"Result: {result}")


@main.command("eval")
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
@click.option("--limit", type=click.IntRange(min=1), help="Only the first N pictures.")
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
        from dhn.evaluate import score_file

        score_file(
            results, annotations, scoring=scoring, evaluator=evaluator, output=output, quiet=quiet
        )
        return

    from dhn.annotations import load_annotations

    dataset = dataset or "crowdpose"
    truth = load_annotations(dataset, split or ("val" if dataset == "coco" else "test"))
    if limit is not None:
        truth = truth.first(limit)

    from dhn.evaluate import evaluate
    from dhn.predictor import load_predictor

    evaluate(
        load_predictor(**network),
        truth,
        batch_size=batch_size,
        evaluator=evaluator,
        save_json=save_json,
        output=output,
        quiet=quiet,
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


@main.command()
@options.common
def info(quiet: bool) -> None:
    """Show versions, devices and what the networks cost: what a bug report needs."""
    from dhn.info import environment, print_info

    if quiet:
        click.echo(json.dumps(environment()))
    else:
        print_info()


@main.group()
def data() -> None:
    """Make and check data sets."""


@data.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--images", type=click.IntRange(min=1), default=1000, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--size",
    type=click.IntRange(min=96, max=2048),
    default=240,
    show_default=True,
    help="Short side of the pictures in pixels.",
)
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=None,
    help="How many draw at the same time; all CPU cores by default. Changes nothing but the time.",
)
@click.option("--overwrite", is_flag=True, help="Replace an earlier folder of procedural crowds.")
@options.common
def synth(
    out: Path,
    images: int,
    seed: int,
    size: int,
    processes: int | None,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Draw procedural crowds and write them as a CrowdPose folder OUT.

    Of ten pictures, eight are for training, one for validation, one for the test. The same seed
    draws the same crowds, on any number of processes.
    """
    from dhn.synth import CrowdConfig, generate

    generate(
        out,
        images,
        seed,
        config=CrowdConfig(size=size),
        processes=processes or os.cpu_count() or 1,
        overwrite=overwrite,
        quiet=quiet,
    )
    click.echo(f"{out}: {images} pictures")


@main.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@options.network
@click.option(
    "-o",
    "--image-output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder for overlays of pictures, and of videos without --video-output.",
)
@click.option(
    "--json-output",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Folder for one file per source, or one .json or .jsonl file.",
)
@click.option(
    "--video-output",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="An .mp4 file (for one video), or a folder.",
)
@click.option(
    "--csv-output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PATH",
    help="One table, a row per person.",
)
@click.option(
    "--conf",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    help="Leave out people who score less.",
)
@click.option(
    "--vid-stride",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Take every n-th frame of videos.",
)
@options.common
def predict(
    sources: tuple[str, ...],
    image_output: Path | None,
    json_output: Path | None,
    video_output: Path | None,
    csv_output: Path | None,
    conf: float,
    vid_stride: int,
    batch_size: int,
    quiet: bool,
    **network: Any,
) -> None:
    """Find the poses of people in pictures and videos.

    SOURCE is a picture, a video, a folder, a quoted glob, or - for a picture on standard input.

    Without an output option, overlays and JSON go to the folder predictions. Each file is named
    after its source: photo.jpg.predictions.jpg and .json, clip.mp4.predictions.mp4 and .jsonl.

    A picture's JSON is a list of people as OpenPifPaf writes it: keypoints (x, y, score of each
    joint; zeros where none was found), bbox, score, category_id. A video gives one line per
    frame, with file, frame and predictions. So does a single .json or .jsonl file for several
    sources, a line per picture.
    """
    from dhn.media import list_sources
    from dhn.predict import Outputs, report
    from dhn.predict import predict as predict_sources
    from dhn.predictor import load_predictor

    outputs = Outputs(image_output, json_output, video_output, csv_output)
    if outputs == Outputs():
        outputs = Outputs(images=Path("predictions"), json=Path("predictions"))
    inputs = list_sources(sources)
    outputs.check(inputs)
    predictor = load_predictor(**network)
    if not quiet:
        click.echo(f"Weights: {predictor.source}")
    summary = predict_sources(
        predictor,
        inputs,
        outputs,
        batch_size=batch_size,
        conf=conf,
        vid_stride=vid_stride,
        quiet=quiet,
    )
    report(summary, predictor, outputs, len(inputs))


@main.command()
@click.option("--kernels", is_flag=True, help="Time the operators only, not decode on scenes.")
@click.option("--sweep", is_flag=True, help="Also time decode over people, size, batch, threads.")
@click.option(
    "--annotations",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Make scenes from this COCO-format keypoint file; by default from generated crowds.",
)
@click.option(
    "--images", type=click.IntRange(min=1), default=20, show_default=True, help="Scenes to decode."
)
@options.device
@click.option(
    "--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads; by default torch's."
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=0.3,
    show_default=True,
    help="Time for each figure.",
)
@click.option("--json-output", type=click.Path(path_type=Path), metavar="PATH")
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PATH",
    help="Picture of the sweep (needs matplotlib).",
)
@options.common
def bench(
    kernels: bool,
    sweep: bool,
    annotations: Path | None,
    images: int,
    device: str,
    threads: int | None,
    seconds: float,
    json_output: Path | None,
    plot: Path | None,
    quiet: bool,
) -> None:
    """Time the operators against plain PyTorch, and decode against the published decode.

    Figures are medians with quartiles in milliseconds, after a warm-up; GB/s counts what an
    operator must move at least, beside the bandwidth of a copy in the same run.
    """
    if plot and not sweep:
        raise click.UsageError("--plot needs --sweep")
    from rich.console import Console

    from dhn import bench as benchmark
    from dhn.device import select_device
    from dhn.files import write_json

    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    result = benchmark.run(
        select_device(device),
        decode=not kernels,
        sweep=sweep,
        annotations=annotations,
        images=images,
        threads=threads,
        seconds=seconds,
        quiet=quiet,
    )
    for table in benchmark.tables(result):
        console.print(table)
    if plot:
        benchmark.plot_sweep(result["sweep"], plot)
    if json_output:
        write_json(json_output, result, indent=1)
