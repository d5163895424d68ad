"""`dhn export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

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
    type=click.Choice(["onnx", "torch", "safetensors"]),
    help="torch: a torch.export program (.pt2). safetensors: the weights alone, in float16, for "
    "dhn.  [default: as --output ends, else onnx]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PATH",
    help="An .onnx, .pt2 or .safetensors file.  [default: the checkpoint's name, here]",
)
@options.common
def export(format: str | None, output: Path | None, quiet: bool, **graph: Any) -> None:
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

    A .safetensors file holds the weights in float16 and describes its network: a tenth of a
    training's checkpoint, for `dhn` to predict, evaluate and fine-tune.
    """
    format = _format(output, format)

    from dhn.base.files import check_outputs
    from dhn.inference.export import export_checkpoint
    from dhn.weights.choice import chosen

    graph["checkpoint"] = chosen(graph["checkpoint"])
    check_outputs([output], [graph["checkpoint"]])
    if format == "safetensors":
        _write_weights(output, quiet, **graph)
        return

    report = export_checkpoint(
        output=output, format=cast("Format", format), progress=progress(quiet), **graph
    )
    differences = ", ".join(f"{name} {value:.0e}" for name, value in report.differences.items())
    click.echo(f"{report.path}: {report.size / 1e6:.1f} MB")
    click.echo(f"Largest difference to the network, of the largest value: {differences}")


def _format(output: Path | None, format: str | None) -> str:
    """The format that the name of the file and the option agree on."""
    from dhn.inference.exported import SUFFIXES

    suffixes = {**SUFFIXES, "safetensors": ".safetensors"}
    if output is None:
        return format or "onnx"
    if output.suffix not in suffixes.values():
        raise click.BadParameter("must end in .onnx, .pt2 or .safetensors.", param_hint="--output")
    if format is None:
        return next(name for name, suffix in suffixes.items() if suffix == output.suffix)
    if output.suffix != suffixes[format]:
        raise click.UsageError(f"--format {format} writes {suffixes[format]} files, not {output}.")
    return format


def _write_weights(
    output: Path | None,
    quiet: bool,
    *,
    checkpoint: str | Path,
    offline: bool,
    **unused: Any,
) -> None:
    """Writes the weights alone. The options in `unused` belong to a graph, which is not written."""
    if given := [name for name, value in unused.items() if value]:
        names = ", ".join("--" + name.replace("_", "-") for name in given)
        raise click.UsageError(f"{names}: no part of a .safetensors file; give it to predict.")
    from dhn.base.files import check_outputs
    from dhn.weights.checkpoint import load_checkpoint
    from dhn.weights.compact import write_compact
    from dhn.weights.download import fetch
    from dhn.weights.load import open_file

    path = fetch(checkpoint, offline=offline, progress=progress(quiet))
    output = output or Path(path.stem + ".safetensors")
    check_outputs([output], [path])
    open_file(path)  # refuses weights that do not fit the network they claim
    write_compact(output, load_checkpoint(path))
    click.echo(f"{output}: {output.stat().st_size / 1e6:.1f} MB, weights in float16")
