"""`dhn info`."""

import json

import click

from dhn.commands import options


@click.command()
@options.common
def info(quiet: bool) -> None:
    """Show versions, devices and what the networks cost: what a bug report needs."""
    from dhn.info import environment, print_info

    if quiet:
        click.echo(json.dumps(environment()))
    else:
        print_info()
