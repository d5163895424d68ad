"""Stages beside each other: order, bounds, errors at each stage, interruption, no threads left."""

import itertools
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhn.base.pipeline import Pipeline


@pytest.fixture(autouse=True)
def no_threads_are_left():
    before = {*threading.enumerate()}
    yield
    assert {*threading.enumerate()} <= before


@given(
    st.lists(st.integers(), max_size=20),
    st.integers(1, 4),
    st.lists(st.integers(1, 4), max_size=4),
)
def test_order_is_kept(items, most, stages):
    with Pipeline(most) as pipeline:
        results = iter(items)
        for k, other in enumerate(stages):
            results = pipeline.stage(str(k), (x + 1 for x in results), most=other)
        assert [*results] == [x + len(stages) for x in items]
        assert next(results, "end") == "end"


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_stage_is_never_further_ahead(most):
    made = []
    with Pipeline(most) as pipeline:
        numbers = pipeline.stage("count", (made.append(k) or k for k in itertools.count()))
        for number in itertools.islice(numbers, 50):
            # What is in hand counts too: this one and most - 1 others were begun at most.
            assert len(made) <= number + most


def test_the_stage_before_works_meanwhile():
    """Each of two stages waits for the other: only one that is ahead lets it go on."""
    ahead = threading.Event()

    def numbers():
        yield 0
        ahead.set()
        yield 1

    with Pipeline(2) as pipeline:
        results = pipeline.stage("count", numbers())
        assert next(results) == 0
        assert ahead.wait(60)
        assert next(results) == 1


def failing(items, at):
    for item in items:
        if item == at:
            raise ValueError(f"no {item}")
        yield item


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_an_error_comes_out_behind_what_was_before_it(stage):
    with Pipeline() as pipeline:
        results = itertools.count()
        for k in range(3):
            results = pipeline.stage(str(k), failing(results, 5 if k == stage else None))
        assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
        for _ in range(2):
            with pytest.raises(ValueError, match="no 5"):
                next(results)


def closing(items, log, name):
    try:
        yield from items
    finally:
        log.append(name)


def test_leaving_in_the_middle_ends_and_closes_every_stage():
    closed = []

    def interrupted():
        with Pipeline() as pipeline:
            results = itertools.count()
            for name in "abc":
                results = pipeline.stage(name, closing(results, closed, name))
            next(results)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert sorted(closed) == ["a", "b", "c"]


def test_no_stage_takes_the_end_from_outside_for_an_error():
    """What goes on after errors of single things must not go on after the end."""
    seen = []

    def forgiving(items):
        while True:
            try:
                yield next(items)
            except Exception as error:
                seen.append(error)
                return

    with Pipeline() as pipeline:
        results = pipeline.stage("b", forgiving(pipeline.stage("a", itertools.count())))
        next(results)
    assert seen == []


def test_time_goes_to_the_stage_that_took_it():
    now = iter(range(1000))
    with pytest.MonkeyPatch.context() as patch:  # every look at the clock is a second later
        patch.setattr("dhn.base.pipeline.time.perf_counter", lambda: next(now))
        with Pipeline() as pipeline:
            stage = pipeline.stage("a", range(3))
            assert [*stage] == [0, 1, 2]
            assert pipeline.seconds.keys() == {"a"}
            assert pipeline.seconds["a"] >= 4  # three things and the end
