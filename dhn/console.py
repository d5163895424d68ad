"""What people see while a command works."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import TypeVar

import click

Item = TypeVar("Item")


def warn(message: str) -> None:
    """One line on standard error."""
    click.echo(f"Warning: {message}", err=True)


class Bar:
    """A progress bar (rich) on standard error, used as a context manager.

    Where standard error is not a terminal, a plain line every ten seconds takes its place;
    `quiet` shows nothing.
    """

    def __init__(self, description: str, total: int | None, *, quiet: bool = False) -> None:
        self.description = description
        self.total = total
        self._done = 0
        self._plain = not quiet and not sys.stderr.isatty()
        self._rich = None if quiet or self._plain else _rich_bar()

    def __enter__(self) -> "Bar":
        self._started = self._said = time.monotonic()
        if self._rich is not None:
            self._rich.start()
            self._task = self._rich.add_task(self.description, total=self.total, note="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._rich is not None:
            self._rich.stop()

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Counts `steps` more as done; `note` stands behind the bar."""
        self._done += steps
        if self._rich is not None:
            self._rich.update(self._task, advance=steps, note=note)
        now = time.monotonic()
        if self._plain and now - self._said >= 10:
            self._said = now
            of_total = f"/{self.total}" if self.total else ""
            spent = f"{now - self._started:.0f} s"
            click.echo(f"{self.description}: {self._done}{of_total} after {spent} {note}", err=True)


def _rich_bar():
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        transient=True,
    )


def progress(
    items: Iterable[Item], description: str, *, total: int | None = None, quiet: bool = False
) -> Iterator[Item]:
    """Yields `items` behind a `Bar`."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Bar(description, total, quiet=quiet) as bar:
        for item in items:
            yield item
            bar.advance()
