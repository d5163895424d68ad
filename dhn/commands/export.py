"""`dhn export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dhn.commands import options
from dhn.commands.console import progress

if TYPE_CHECKING:
    from dhn.inference.export import Format


@click.command()
@options.graph
@click.option(
    "--format",
    "format",
    type=click.Choice(["onnx", "torch"]),
    help="torch: a torch.export program (.pt2).  [default: as --output ends, else onnx]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PATH",
    help="An .onnx or .pt2 file.  [default: the checkpoint's name, here]",
)
@options.common
def export(format: "Format | None", output: Path | None, quiet: bool, **graph: Any) -> None:
    """Write a network as one file that runs without its checkpoint.

    \b
    dhn export --checkpoint best.pt --flip -o model.onnx
    dhn predict --checkpoint model.onnx photo.jpg

    The graph holds the network, the flip test, the aggregation, and the search for the 30 best
    peaks of each joint. It takes any number of images, of any size in multiples of 64, as RGB
    uint8 [B, 3, H, W], and computes in float32. `dhn predict` and `dhn eval` run it and group the
    peaks. The file is compared with the network before it appears.

    ONNX is the safe format. A .pt2 file is a program, which can do anything on the machine that
    runs it: `dhn predict` and `dhn eval` run one only with --trust.
    """
    from dhn.inference.exported import SUFFIXES

    if output is None:
        format = format or "onnx"
    elif output.suffix not in SUFFIXES.values():
        raise click.BadParameter("must end in .onnx or .pt2.", param_hint="--output")
    elif format is None:
        format = "onnx" if output.suffix == ".onnx" else "torch"
    elif output.suffix != SUFFIXES[format]:
        raise click.UsageError(f"--format {format} writes {SUFFIXES[format]} files, not {output}.")

    from dhn.base.files import check_outputs
    from dhn.inference.export import export_checkpoint

    check_outputs([output], [graph["checkpoint"]])

    report = export_checkpoint(output=output, format=format, progress=progress(quiet), **graph)
    differences = ", ".join(f"{name} {value:.0e}" for name, value in report.differences.items())
    click.echo(f"{report.path}: {report.size / 1e6:.1f} MB")
    click.echo(f"Largest difference to the network, of the largest value: {differences}")
