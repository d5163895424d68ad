"""`dhn bench`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dhn.base.files import check_outputs
from dhn.commands import options
from dhn.commands.console import progress

if TYPE_CHECKING:
    import torch
    from rich.table import Table

    from dhn.bench.networks import NetworkSettings
    from dhn.bench.scenes import DecodeScene


@click.command()
@click.option(
    "--model",
    "models",
    multiple=True,
    is_flag=False,
    flag_value="",
    metavar="[NAME]",
    help="Time this network instead, like doublehighernet_w48 (may be given several times); "
    "without a name, the three of width 32.",
)
@click.option(
    "--input-size",
    type=options.INPUT_SIZE,
    default=512,
    show_default=True,
    metavar="N",
    help="With --model: height and width of the network input, a multiple of 64.",
)
@click.option(
    "-b",
    "--batch-size",
    type=options.BATCH,
    default=1,
    show_default=True,
    help="With --model: images at a time.",
)
@click.option(
    "--flip/--no-flip", default=True, show_default=True, help="With --model: the flip test."
)
@click.option(
    "--compile", is_flag=True, help="With --model: also under torch.compile (takes minutes)."
)
@click.option(
    "--pipeline",
    is_flag=True,
    help="Time dhn predict with overlays and JSON beside its network alone, and its stages. "
    "--model names networks; people is the one that dhn brings.",
)
@click.option("--kernels", is_flag=True, help="Time the operators only, not decode on scenes.")
@click.option("--sweep", is_flag=True, help="Also time decode over people, size, batch, threads.")
@click.option(
    "--annotations",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Make scenes from this keypoint file in COCO's format; by default from generated crowds.",
)
@click.option(
    "--images",
    type=options.COUNT,
    default=20,
    show_default=True,
    help="How many scenes to decode; with --pipeline, images and frames.",
)
@options.device
@click.option(
    "--threads",
    type=options.PARALLEL,
    metavar="N",
    help="CPU threads; by default as many as PyTorch takes.",
)
@click.option(
    "--seconds",
    type=options.Number(0, 3600),
    default=0.3,
    show_default=True,
    help="How long to repeat what is timed; ten times as long for a network.",
)
@click.option(
    "--json-output", type=click.Path(path_type=Path), metavar="PATH", help="Write all figures."
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PATH",
    help="Draw the sweep into this image file (needs matplotlib).",
)
@options.common
def bench(
    models: tuple[str, ...],
    pipeline: bool,
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
    compile: bool,
    **network: Any,
) -> None:
    """Time the operators against plain PyTorch, and decode against the published decode.

    Figures are medians with quartiles in milliseconds, after a warm-up. GB/s counts what an
    operator must move at least, and "of copy" is its share of what a copy moves in the same run.

    With --model, time networks with fresh weights, their flip test and aggregation, in float32
    and, where the hardware multiplies it, in bfloat16: parameters, GFLOPs of one image and pass,
    latency of a batch, images per second and peak memory.

    With --pipeline, time everything that dhn predict does, on JPEG files and on an H.264 video of
    drawn people: images per second of the network alone and of the whole, processor time per image,
    and how long each stage works. The stages run beside each other.
    """
    if plot and not sweep:
        raise click.UsageError("--plot needs --sweep")
    check_outputs([json_output, plot], [annotations])
    if (models or pipeline) and (kernels or sweep or annotations):
        raise click.UsageError(
            "--model and --pipeline time networks; leave --kernels, --sweep, --annotations out"
        )
    if pipeline and compile:
        raise click.UsageError("--pipeline takes no --compile")
    if network["input_size"] % 64:
        raise click.BadParameter("must be a multiple of 64", param_hint="--input-size")
    import torch

    from dhn.base.device import select_device
    from dhn.base.files import write_json
    from dhn.bench.decode import plot_sweep

    where = select_device(device)
    if pipeline:
        result = _time_pipeline(
            models, images, str(where), threads or torch.get_num_threads(), quiet, **network
        )
    elif models:
        from dhn.bench.networks import NetworkSettings

        settings = NetworkSettings(
            **network,
            device=str(where),
            threads=threads or torch.get_num_threads(),
            seconds=10 * seconds,
        )
        result = _time_networks(models, settings, compile, quiet)
    else:
        if threads:
            torch.set_num_threads(threads)
        scenes = [] if kernels else _scenes(annotations, images)
        result = _time_operators(where, scenes, sweep, seconds, quiet)
    if plot:
        plot_sweep(result["sweep"], plot)
    if json_output:
        write_json(json_output, result, indent=1)


def _time_networks(
    names: tuple[str, ...], settings: "NetworkSettings", compile: bool, quiet: bool
) -> dict[str, Any]:
    """Times and prints the named networks, or those of width 32 where no name is given."""
    from dhn.bench.networks import DEFAULT_NETWORKS, time_networks
    from dhn.commands.bench_tables import network_table

    named = [name for name in names if name] or DEFAULT_NETWORKS
    result = time_networks(named, settings, compile=compile, progress=progress(quiet))
    _print(network_table(result))
    return result


def _time_pipeline(
    names: tuple[str, ...], images: int, device: str, threads: int, quiet: bool, **network: Any
) -> dict[str, Any]:
    """Times and prints dhn predict as a whole, with the named networks or two of them."""
    from dhn.bench.pipeline import DEFAULT_NETWORKS, PipelineSettings, time_pipeline
    from dhn.commands.bench_tables import pipeline_table

    settings = PipelineSettings(images=images, device=device, threads=threads, **network)
    named = [name for name in names if name] or DEFAULT_NETWORKS
    result = time_pipeline(named, settings, progress=progress(quiet))
    _print(pipeline_table(result))
    return result


def _time_operators(
    device: "torch.device",
    scenes: "list[DecodeScene]",
    sweep: bool,
    seconds: float,
    quiet: bool,
) -> dict[str, Any]:
    """Times and prints the operators, then decode on the scenes, and its sweep if asked for."""
    from dhn.base.progress import tracked
    from dhn.bench.decode import time_decode, time_sweep
    from dhn.bench.operators import operator_cases, time_operators
    from dhn.bench.timing import machine
    from dhn.commands.bench_tables import decode_table, operator_table, sweep_table

    result: dict[str, Any] = {"machine": machine(device)}
    cases = tracked(operator_cases(device), progress(quiet), "Operators")
    result["kernels"] = time_operators(cases, device, seconds)
    _print(operator_table(result["kernels"]))
    if scenes:
        result["decode"] = time_decode(tracked(scenes, progress(quiet), "Decode"), device, seconds)
        _print(decode_table(result["decode"]))
    if sweep:
        result["sweep"] = time_sweep(device, seconds)
        _print(sweep_table(result["sweep"]))
    return result


def _scenes(annotations: Path | None, count: int) -> "list[DecodeScene]":
    from dhn.bench.scenes import INPUT, annotated_scenes, generated_scenes

    if annotations:
        return annotated_scenes(annotations, count)
    return generated_scenes(count, INPUT)


def _print(table: "Table") -> None:
    """Prints a table, in full width where standard output is not a terminal."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=1000)
    console.print(table)
