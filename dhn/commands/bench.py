"""`dhn bench`."""

from pathlib import Path

import click

from dhn.commands import options
from dhn.commands.console import progress


@click.command()
@click.option(
    "--model",
    "models",
    multiple=True,
    is_flag=False,
    flag_value="",
    metavar="[NAME]",
    help="Time this network instead, like doublehighernet_w48 (can be repeated); without a name, "
    "the three of width 32.",
)
@click.option(
    "--input-size",
    type=click.IntRange(min=64),
    default=512,
    show_default=True,
    metavar="N",
    help="With --model: height and width of the network input, a multiple of 64.",
)
@click.option(
    "-b",
    "--batch-size",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="With --model: images at a time.",
)
@click.option(
    "--flip/--no-flip", default=True, show_default=True, help="With --model: the flip test."
)
@click.option(
    "--compile", is_flag=True, help="With --model: also by torch.compile (takes minutes)."
)
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
    help="Time for each figure; ten times as long for a network.",
)
@click.option("--json-output", type=click.Path(path_type=Path), metavar="PATH")
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PATH",
    help="Image of the sweep (needs matplotlib).",
)
@options.common
def bench(
    models: tuple[str, ...],
    input_size: int,
    batch_size: int,
    flip: bool,
    compile: bool,
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

    With --model, time networks with their flip test and aggregation, in float32 and, where the
    hardware multiplies it, in bfloat16: parameters, GFLOPs of one image and pass, latency of a
    batch, images per second and peak memory.
    """
    if plot and not sweep:
        raise click.UsageError("--plot needs --sweep")
    if models and (kernels or sweep or annotations):
        raise click.UsageError(
            "--model times networks; leave --kernels, --sweep, --annotations out"
        )
    if input_size % 64:
        raise click.BadParameter("must be a multiple of 64", param_hint="--input-size")
    from rich.console import Console

    from dhn.base.device import select_device
    from dhn.base.files import write_json
    from dhn.bench import operators as benchmark

    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    if models:
        from dhn.bench import networks as bench_network

        names = [name for name in models if name] or bench_network.DEFAULT
        result = bench_network.run(
            select_device(device),
            names,
            input_size=input_size,
            batch_size=batch_size,
            flip=flip,
            compile=compile,
            threads=threads,
            seconds=10 * seconds,
            progress=progress(quiet),
        )
        console.print(bench_network.table(result))
        if json_output:
            write_json(json_output, result, indent=1)
        return
    result = benchmark.run(
        select_device(device),
        decode=not kernels,
        sweep=sweep,
        annotations=annotations,
        images=images,
        threads=threads,
        seconds=seconds,
        progress=progress(quiet),
    )
    for table in benchmark.tables(result):
        console.print(table)
    if plot:
        benchmark.plot_sweep(result["sweep"], plot)
    if json_output:
        write_json(json_output, result, indent=1)
