"""`dhn bench`."""

from pathlib import Path

import click

from dhn.commands import options


@click.command()
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
