"""How functions that take long report how far they are; what shows it is handed in.

def work(items, *, progress: Progress = silent):
    with progress("Working", len(items)) as bar:
        for item in items:
            ...
            bar.advance()
"""

from collections.abc import Callable, Iterable, Iterator, Sized
from types import TracebackType
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Bar(Protocol):
    """One piece of work, while it goes on; a context manager."""

    def __enter__(self) -> "Bar": ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def begin_at(self, steps: int) -> None:
        """Counts `steps` as done before the work began: they say nothing about the time left."""

    def advance(self, steps: int = 1, note: str | Callable[[], str] = "") -> None:
        """Counts `steps` more as done.

        `note` describes the state. A note that costs time is given as a function, which is called
        only when it is shown.
        """


class Progress(Protocol):
    """Starts a bar for `total` steps; a total of None is not known beforehand."""

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
    """The progress that shows nothing; what every function takes unless it is given another."""
    return _Silent()


def tracked(
    items: Iterable[Item], progress: Progress, description: str, *, total: int | None = None
) -> Iterator[Item]:
    """Yields `items` and advances a bar after each of them."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress(description, total) as bar:
        for item in items:
            yield item
            bar.advance()
