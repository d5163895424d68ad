"""`dhn info`."""

import json
from typing import Any

import click

from dhn.commands import options


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For machines; so does --quiet.")
@options.common
def info(as_json: bool, quiet: bool) -> None:
    """Show versions, devices, kernels and what the networks cost: what a bug report needs."""
    from dhn.base.environment import report

    if as_json or quiet:
        click.echo(json.dumps(report()))
    else:
        _print_info(report())


def _print_info(report: dict[str, Any]) -> None:
    """The report, then a table of the networks, on standard output."""
    from dhn.model.cost import NETWORKS, network_cost

    for key, value in report.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {said or '-'}" for name, said in value.items())
        elif isinstance(value, list):
            value = ", ".join(value) or "none"
        click.echo(f"{key:<22}{value}")
    click.echo(f"\n{'network (14 joints)':<22}{'parameters':>12}{'GFLOPs at 512 x 512':>22}")
    for name in NETWORKS:
        cost = network_cost(name)
        click.echo(f"{name:<22}{cost.parameters / 1e6:>10.2f} M{cost.gflops:>22.1f}")
