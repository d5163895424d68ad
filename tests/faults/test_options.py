"""Every option of every command that takes a number or a choice refuses what is neither."""

from collections.abc import Iterator

import click
import pytest

from dhn.cli import main

NUMBERS = (click.IntRange, click.FloatRange)
WORDS = ["", "x", "nan", "inf", "-inf", "1e999", "-1e30", "0x10", "1,5", "9" * 40, "\ud800", "é"]


def commands(command: click.Command, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command below one, with the words that call it."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        yield from commands(below, *path, name)


def options() -> Iterator[tuple[tuple[str, ...], str]]:
    for path, command in commands(main):
        for option in command.params:
            if isinstance(option, click.Option) and isinstance(
                option.type, (*NUMBERS, click.Choice)
            ):
                yield path, max(option.opts, key=len)


OPTIONS = list(options())


def test_all_commands_are_here():
    assert {path[0] for path, _ in OPTIONS} >= {"eval", "predict", "bench", "data", "compare"}


@pytest.mark.parametrize(("path", "option"), OPTIONS, ids=lambda value: str(value))
def test_what_is_no_number_and_no_choice(refused, path, option):
    for word in WORDS:
        refused(2, option)(*path, option, word)
