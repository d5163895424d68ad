"""Stages that work beside each other, each in a thread, and hand things on in order.

    with Pipeline() as pipeline:
        images = pipeline.stage("read", map(read_image, paths))
        people = pipeline.stage("network", map(predictor, images))
        for some in people:
            ...

A stage is an iterator, as a generator is, that takes from the one before it. What it raises comes
out of whatever takes from it, and so reaches the loop at the end.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Pipeline:
    """Runs stages in threads, and ends all of them when it is left.

    A stage that is ended in the middle sees that as an exception from the stage before it (or as
    GeneratorExit), which no `except Exception` catches, so its `finally` and `with` blocks run.

    Args:
        most: how many things a stage may be ahead of the next one, which has one of them in hand.
            2 lets both work at once; more even out how long each thing takes, and cost memory.
    """

    def __init__(self, most: int = 3) -> None:
        self._most = most
        self._stages: list[_Stage[Any]] = []

    def __enter__(self) -> "Pipeline":
        return self

    def __exit__(self, *_: object) -> None:
        for stage in self._stages:
            stage.end()
        for stage in self._stages:
            stage.thread.join()

    def stage(self, name: str, items: Iterable[T], *, most: int | None = None) -> Iterator[T]:
        """Iterates over `items` in a thread; returns the same things for the next stage.

        Args:
            name: what `seconds` calls it.
            items: takes from the stage before, except in the first one.
            most: another limit for this stage; with 1 it begins with a thing only when the next
                stage asks for it.
        """
        stage = _Stage(name, items, most or self._most)
        self._stages.append(stage)
        return stage

    @property
    def seconds(self) -> dict[str, float]:
        """How long each stage has worked so far, without waiting for others, by its name."""
        waited = [0.0, *(stage.waited for stage in self._stages)]
        return {
            stage.name: max(0.0, stage.spent - before)
            for stage, before in zip(self._stages, waited, strict=False)
        }

    @property
    def cpu_seconds(self) -> dict[str, float]:
        """The processor time of each stage's thread so far, without threads that it started."""
        return {stage.name: stage.cpu for stage in self._stages}


class _Stopped(BaseException):
    """Ends a stage from outside."""


class _Stage(Iterator[T], Generic[T]):
    """One thread and what it has made.

    Both queues are written in C and atomic: Ctrl-C in the main thread leaves them whole.

    Attributes:
        spent: seconds that `items` took, in which it may have waited for the stage before.
        waited: seconds that the next stage waited for this one.
        cpu: processor seconds of the thread.
    """

    def __init__(self, name: str, items: Iterable[T], most: int) -> None:
        self.name = name
        self.spent = self.waited = self.cpu = 0.0
        self._items = items
        self._ended = False
        self._free: SimpleQueue[None] = SimpleQueue()  # a ticket for each thing that may be made
        self._made: SimpleQueue[T | _End] = SimpleQueue()
        self._in_hand = False
        self._end: _End | None = None
        for _ in range(most):
            self._free.put(None)
        self.thread = threading.Thread(target=self._run, name=f"dhn {name}", daemon=True)
        self.thread.start()

    def end(self) -> None:
        """Ends it at the next thing, whatever else there would be."""
        self._ended = True
        self._free.put(None)

    def __next__(self) -> T:
        if self._end is None:
            if self._in_hand:
                self._free.put(None)
            started = time.perf_counter()
            item = self._made.get()
            self.waited += time.perf_counter() - started
            if self._ended:
                item = _End(_Stopped())
            if not isinstance(item, _End):
                self._in_hand = True
                return item
            self._end = item
        raise self._end.error

    def _run(self) -> None:
        iterator = iter(self._items)
        try:
            while True:
                self._free.get()
                if self._ended:
                    raise _Stopped
                started = time.perf_counter()
                try:
                    item = next(iterator)
                finally:
                    self.spent += time.perf_counter() - started
                    self.cpu = time.thread_time()
                self._made.put(item)
        except BaseException as error:
            if hasattr(iterator, "close"):
                iterator.close()  # here, where it ran
            self._made.put(_End(error))


class _End:
    """Follows the last thing; `error` is StopIteration where nothing went wrong."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
