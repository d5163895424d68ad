"""`dhn info`."""

import json
from typing import Any

import click

from dhn.commands import options


@click.command()
@click.option(
    "--json", "as_json", is_flag=True, help="Print one line of JSON; --quiet does the same."
)
@options.common
def info(as_json: bool, quiet: bool) -> None:
    """Show versions, devices, kernels and the cost of the networks, for bug reports."""
    from dhn.base.environment import report

    if as_json or quiet:
        click.echo(json.dumps(report()))
    else:
        _print_info(report())


def _print_info(report: dict[str, Any]) -> None:
    """Prints the report and a table of the networks."""
    from dhn.model.cost import NETWORKS, network_cost

    for key, value in report.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {state or '-'}" for name, state in value.items())
        elif isinstance(value, list):
            value = ", ".join(value) or "none"
        click.echo(f"{key:<22}{value}")
    click.echo(f"\n{'network (14 joints)':<22}{'parameters':>12}{'GFLOPs at 512 x 512':>22}")
    for name in NETWORKS:
        cost = network_cost(name)
        click.echo(f"{name:<22}{cost.parameters / 1e6:>10.2f} M{cost.gflops:>22.1f}")
