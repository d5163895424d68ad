"""What people see while a command works: one console, one progress bar."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import click

Item = TypeVar("Item")


def warn(message: str) -> None:
    """One line on standard error."""
    click.echo(f"Warning: {message}", err=True)


def progress(
    items: Iterable[Item], description: str, *, total: int | None = None, quiet: bool = False
) -> Iterator[Item]:
    """Yields `items` behind a rich progress bar on standard error.

    Where standard error is not a terminal, a plain line every ten seconds takes its place;
    `quiet` shows nothing.
    """
    if total is None and hasattr(items, "__len__"):
        total = len(items)
    if quiet:
        yield from items
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        yield from track(
            items, description, total=total, console=Console(stderr=True), transient=True
        )
    else:
        yield from _plain_progress(items, description, total)


def _plain_progress(items: Iterable[Item], description: str, total: int | None) -> Iterator[Item]:
    started = said = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - said >= 10:
            said = now
            of_total = f"/{total}" if total else ""
            click.echo(f"{description}: {done}{of_total} after {now - started:.0f} s", err=True)
