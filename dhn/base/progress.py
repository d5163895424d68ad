"""How functions that take long report their progress.

    def work(items, *, progress: Progress = silent):
        with progress("Working", len(items)) as bar:
            for item in items:
                ...
                bar.advance()

The caller hands in what shows the progress, so that the function need not know of any console.
"""

from collections.abc import Callable, Iterable, Iterator, Sized
from types import TracebackType
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Bar(Protocol):
    """Shows one piece of work while it runs; a context manager."""

    def __enter__(self) -> "Bar": ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def begin_at(self, steps: int) -> None:
        """Counts `steps` as done before the work began.

        They are left out of the estimate of the time that remains.
        """

    def advance(self, steps: int = 1, note: str | Callable[[], str] = "") -> None:
        """Counts `steps` more as done.

        `note` describes the state of the work. A note that costs time may be a function, which is
        called only when the note is shown.
        """


class Progress(Protocol):
    """Makes a bar for `total` steps. The total is None where it is not known beforehand."""

    def __call__(self, description: str, total: int | None) -> Bar: ...


class _Silent:
    """A bar that nobody sees."""

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def begin_at(self, steps: int) -> None:
        pass

    def advance(self, steps: int = 1, note: str | Callable[[], str] = "") -> None:
        pass


def silent(description: str, total: int | None) -> Bar:
    """The progress that shows nothing, which is the default of every function."""
    return _Silent()


def tracked(
    items: Iterable[Item], progress: Progress, description: str, *, total: int | None = None
) -> Iterator[Item]:
    """Yields `items`, and advances a bar after each of them.

    `total` is needed only for items that have no length.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress(description, total) as bar:
        for item in items:
            yield item
            bar.advance()
