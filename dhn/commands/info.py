"""`dhn info`."""

import json

import click

from dhn.commands import options


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For machines; so does --quiet.")
@options.common
def info(as_json: bool, quiet: bool) -> None:
    """Show versions, devices, kernels and what the networks cost: what a bug report needs."""
    from dhn.info import print_info, report

    if as_json or quiet:
        click.echo(json.dumps(report()))
    else:
        print_info()
