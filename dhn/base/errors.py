"""The errors that users see."""

import logging

_log = logging.getLogger(__name__)


class DhnError(Exception):
    """Something that the user can fix: bad input, a missing file, weights of another network.

    The message is one line that names the file and says what to do. The command line prints it
    without a traceback and exits with 1; library users catch it by this name.
    """


def failure(name: object, error: Exception) -> str:
    """The line about a file that is left out of a batch because of `error`.

    A `DhnError` says what is wrong and names the file. Anything else was not foreseen: the line
    names its kind, and the logger `dhn` gets the traceback at level DEBUG.
    """
    if isinstance(error, DhnError):
        line = str(error)
        return line if str(name) in line else f"{name}: {line}"
    _log.debug("%s", name, exc_info=error)
    return f"{name}: {unforeseen(error)}"


def unforeseen(error: Exception) -> str:
    """One line about an exception that nobody foresaw."""
    text = " ".join(str(error).split())
    text = text if len(text) <= 200 else text[:200] + "..."
    return f"unexpected {type(error).__name__}" + (f" ({text})" if text else "")


class SettingError(DhnError):
    """A setting that cannot be had, as in `device cuda:9: this machine has 1 CUDA device`.

    Library code knows settings by the names of its keyword arguments. The command line knows its
    options: it prints this error as `--device cuda:9: ...` (see `line`).

    Attributes:
        setting: the keyword, like `device` or `fine_only`.
        value: what was asked for. The message leaves out True, the value of a switch, and None,
            which stands for nothing at all.
        problem: what is wrong with it, and what to do.
    """

    def __init__(self, setting: str, value: object, problem: str) -> None:
        super().__init__(setting, value, problem)
        self.setting = setting
        self.value = value
        self.problem = problem

    def __str__(self) -> str:
        return self.line(self.setting)

    def line(self, name: str) -> str:
        """The message, with `name` in place of the setting's own."""
        plain = self.value is None or self.value is True
        return f"{name}: {self.problem}" if plain else f"{name} {self.value}: {self.problem}"
