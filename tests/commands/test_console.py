import sys

import pytest

from dhn.commands.console import Bar


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr("dhn.commands.console.time", clock)
    return clock


def test_plain_lines_say_how_long_it_will_take(clock, capsys):
    with Bar("Training", 1000) as bar:
        bar.begin_at(500)  # in no time: they must not count
        for _ in range(10):
            clock.now += 2
            bar.advance(1, f"at {clock.now:g}")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "Training: 505/1000 after 10 s, 0:16:30 left at 10",
        "Training: 510/1000 after 20 s, 0:16:20 left at 20",
    ]


def test_without_a_total(clock, capsys):
    with Bar("Frames", None) as bar:
        clock.now += 11
        bar.advance(3)
    assert capsys.readouterr().err == "Frames: 3 after 11 s \n"


@pytest.mark.parametrize("quiet", [False, True])
def test_a_note_that_costs_time_is_made_when_it_is_shown(clock, capsys, quiet):
    made = []
    with Bar("Training", 100, quiet=quiet) as bar:
        for _ in range(100):
            clock.now += 0.25
            bar.advance(1, lambda: made.append(clock.now) or "note")
    assert made == ([] if quiet else [10, 20])
    assert capsys.readouterr().err.count("note") == len(made)


def test_a_terminal_shows_the_note_below_the_bar(clock, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    made = []
    with Bar("Training", 100) as bar:
        bar.begin_at(40)
        for _ in range(10):
            clock.now += 0.125
            bar.advance(1, lambda: made.append(1) or "loss 0.5\nimages/s 3")
        bar._rich.refresh()
    shown = capsys.readouterr().err
    assert len(made) == 2  # twice a second
    assert "50/100" in shown
    bar_line, _, rest = shown[shown.index("50/100") :].partition("\n")
    assert "loss 0.5" not in bar_line
    assert "loss 0.5" in rest
    assert "images/s 3" in rest
