"""What a command shows while it works: progress and warnings, on standard error."""

import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import partial
from math import ceil
from types import TracebackType
from typing import TYPE_CHECKING

import click

from dhn.base.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console


def count(number: int, one: str, many: str | None = None) -> str:
    """`1 image`, `2 images`; `many` is given where it is not `one` with an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def weights_line(checkpoint: str | None, source: str) -> str:
    """Says which network is used; `checkpoint` is what the user named, `source` the file."""
    if checkpoint is not None:
        return f"Weights: {source}"
    from dhn.weights.choice import BUNDLED
    from dhn.weights.compact import read_description

    about = read_description(BUNDLED)["config"]["about"]
    return (
        f"Weights: people, the small network that dhn brings ({about['summary']}). Larger ones "
        "find more: --checkpoint higherhrnet_w32_crowdpose (a download of 115 MB), or your own: "
        "--checkpoint last"
    )


class _Warnings(logging.Handler):
    """Writes the library's warnings as lines on standard error, and tracebacks where asked."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            click.echo(f"Warning: {record.getMessage()}", err=True)
        elif record.exc_info:  # of one file of a batch, with --debug
            click.echo("".join(traceback.format_exception(*record.exc_info)), err=True)


def show_warnings() -> None:
    """Sends the warnings of all of dhn to standard error, but no tracebacks."""
    log = logging.getLogger("dhn")
    log.setLevel(logging.WARNING)
    if not any(isinstance(handler, _Warnings) for handler in log.handlers):
        log.addHandler(_Warnings())


def show_tracebacks() -> None:
    """Sends the tracebacks of unforeseen errors to standard error, too."""
    logging.getLogger("dhn").setLevel(logging.DEBUG)


class Bar:
    """A progress bar (rich) on standard error, used as a context manager.

    Where standard error is not a terminal, a plain line every ten seconds takes its place;
    `quiet` shows nothing.
    """

    _RICH_EVERY, _PLAIN_EVERY = 0.5, 10  # seconds

    def __init__(self, description: str, total: int | None, *, quiet: bool = False) -> None:
        self.description = description
        self.total = total
        self._done = self._before = 0
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

    def begin_at(self, steps: int) -> None:
        """Counts `steps` as done before the bar began.

        They are left out of the estimate of the time that remains.
        """
        self._before = self._done = steps
        if self._rich is not None:
            self._rich.reset(self._task, completed=steps)

    def advance(self, steps: int = 1, note: str | Callable[[], str] = "") -> None:
        """Counts `steps` more as done.

        `note` stands below the bar. A note that costs time may be a function, which is called
        only when the note is shown.
        """
        self._done += steps
        now = time.monotonic()
        if self._rich is not None:
            if isinstance(note, str):
                self._rich.update(self._task, note=note)
            elif now - self._said >= self._RICH_EVERY:
                self._said = now
                self._rich.update(self._task, note=note())
            self._rich.advance(self._task, steps)
        elif self._plain and now - self._said >= self._PLAIN_EVERY:
            self._said = now
            text = note if isinstance(note, str) else note()
            click.echo(f"{self.description}: {self._state(now)} {text}", err=True)

    def _state(self, now: float) -> str:
        spent = now - self._started
        if not self.total:
            return f"{self._done} after {spent:.0f} s"
        seconds = max(0, self.total - self._done) * spent / max(1, self._done - self._before)
        left = timedelta(seconds=ceil(seconds))
        return f"{self._done}/{self.total} after {spent:.0f} s, {left} left"


def _rich_bar():
    from rich.console import Console, RenderableType
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class BarAndNote(Progress):
        def get_renderables(self) -> Iterable[RenderableType]:
            yield self.make_tasks_table(self.tasks)
            for task in self.tasks:
                if task.fields["note"]:
                    yield Text(task.fields["note"])

    return BarAndNote(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        # Output that goes to a file must not be drawn into the terminal above the bar.
        redirect_stdout=sys.stdout.isatty(),
        transient=True,
    )


def progress(quiet: bool) -> Progress:
    """What shows the progress of a command: a `Bar`, which shows nothing if it is `quiet`."""
    return partial(Bar, quiet=quiet)


def table_console() -> "Console":
    """The standard output for tables.

    Lines are folded at the width of a terminal, and never in a file, where they are searched.
    """
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=1000)
