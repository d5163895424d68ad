"""What all commands share. Each command is tested beside the module that does its work."""

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

import dhn
from dhn.base.errors import DhnError, SettingError
from dhn.cli import main

HEAVY = ("torch", "cv2", "numpy", "av", "pycocotools", "matplotlib", "pydantic", "rich")


@pytest.mark.parametrize("module", ["dhn", "dhn.cli"])
def test_help_does_not_wait_for_heavy_packages(module):
    code = f"import sys, {module}; print([m for m in {HEAVY} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "[]\n"


def commands():
    """Every command with its path, groups included."""
    found = [((), main)]
    for path, command in found:
        if isinstance(command, click.Group):
            found += [((*path, name), sub) for name, sub in command.commands.items()]
    return [path for path, _ in found]


@pytest.mark.parametrize("path", commands(), ids=" ".join)
def test_every_command_explains_itself(path):
    for option in ("--help", "-h"):
        result = CliRunner().invoke(main, [*path, option])
        assert result.exit_code == 0
        assert result.output.startswith("Usage: ")
        lines = [line for line in result.output.splitlines() if line.startswith("  -")]
        assert lines
    unknown = CliRunner().invoke(main, [*path, "--nonsense"])
    assert unknown.exit_code == 2
    assert "No such option" in unknown.output


def test_help_runs_without_the_operators():
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['dhn', '--help'];"
        "from dhn.cli import main; main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert "dhn train" in result.stdout


def test_version():
    result = CliRunner().invoke(main, ["--version"])
    assert result.output == f"dhn, version {dhn.__version__}\n"


@pytest.fixture
def failing():
    """Runs a command that fails with the given error."""

    @main.command("fail")
    @click.option("--debug", is_flag=True, callback=lambda c, _, v: c.meta.update({"dhn.debug": v}))
    @click.pass_obj
    def fail(error, debug):
        raise error

    yield lambda error, *options: CliRunner().invoke(main, ["fail", *options], obj=error)
    del main.commands["fail"]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (DhnError("a.jpg: is empty"), "Error: a.jpg: is empty\n"),
        (SettingError("fine_only", True, "cannot be"), "Error: --fine-only: cannot be\n"),
        (SettingError("input_size", 500, "is odd"), "Error: --input-size 500: is odd\n"),
        (
            OSError(28, "No space left on device", "x.csv"),
            "Error: x.csv: No space left on device\n",
        ),
        (OSError(5, "Input/output error"), "Error: Input/output error\n"),
    ],
)
def test_what_users_can_fix_is_one_line_and_exit_code_1(failing, error, line):
    result = failing(error)
    assert result.exit_code == 1
    assert result.stderr == line
    assert result.stdout == ""
    assert failing(error, "--debug").exception is error  # its traceback is shown


@pytest.mark.parametrize("error", [ValueError("a\nb"), OSError("without a number"), KeyError("x")])
def test_what_nobody_foresaw_is_one_line_and_a_traceback_with_debug(failing, error):
    result = failing(error)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: unexpected {type(error).__name__} (")
    assert result.stderr.endswith("; --debug shows where\n")
    assert result.stderr.count("\n") == 1
    assert failing(error, "--debug").exception is error


def test_the_module_is_the_command():
    result = subprocess.run(
        [sys.executable, "-m", "dhn", "--version"], capture_output=True, text=True
    )
    assert result.stdout == f"dhn, version {dhn.__version__}\n"
