"""tools/create_venv.sh takes an interpreter that dhn supports and refuses others in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "create_venv.sh"


def make_python(folder: Path, name: str, version: tuple[int, int]) -> None:
    """An interpreter that says it is of `version`, and only notes the environments it should make.

    Its programs run in the interpreter of the tests.
    """
    python = folder / name
    python.write_text(f"""#!/bin/sh
case $1 in
  -c) exec '{sys.executable}' -c "import sys; sys.version_info = {version}
$2" ;;
  --version) echo "Python {version[0]}.{version[1]}" ;;
  *) echo "{name} $*" ;;
esac
""")
    python.chmod(0o755)


def create(path: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPT), *map(str, arguments)],
        env=os.environ | {"PATH": str(path)},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("present", "chosen"),
    [
        ({"python3.10": (3, 10), "python3.11": (3, 11), "python3.12": (3, 12)}, "python3.11"),
        ({"python3.10": (3, 10), "python3.12": (3, 12), "python3.13": (3, 13)}, "python3.12"),
        ({"python3": (3, 14), "python3.13": (3, 13)}, "python3.13"),
        ({"python3": (3, 10)}, "python3"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else value,
)
def test_the_first_supported_interpreter_is_taken(tmp_path, present, chosen):
    for name, version in present.items():
        make_python(tmp_path, name, version)
    run = create(tmp_path, "folder")
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == f"{chosen} -m venv folder"


def test_a_name_that_does_not_run_is_passed_over(tmp_path):
    """pyenv leaves a python3.11 on PATH even where no such version is active."""
    shim = tmp_path / "python3.11"
    shim.write_text("#!/bin/sh\necho 'pyenv: python3.11: command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    make_python(tmp_path, "python3.13", (3, 13))
    run = create(tmp_path, "folder")
    assert (run.returncode, run.stderr) == (0, "")
    assert "python3.13 -m venv folder" in run.stdout


@pytest.mark.parametrize("version", [(3, 9), (3, 14)])
@pytest.mark.parametrize("named", [False, True])
def test_other_versions_are_refused_in_one_line(tmp_path, version, named):
    make_python(tmp_path, "python3", version)
    run = create(tmp_path, "folder", *["python3"] * named)
    assert run.returncode == 1
    assert run.stdout == ""
    assert len(run.stderr.splitlines()) == 1
    assert "Python 3.10 to 3.13" in run.stderr


def test_an_interpreter_can_be_named(tmp_path):
    make_python(tmp_path, "python3.11", (3, 11))
    make_python(tmp_path, "other", (3, 12))
    run = create(tmp_path, "folder", tmp_path / "other")
    assert run.stdout.splitlines()[-1] == "other -m venv folder"


def test_it_creates_an_environment_with_pip(tmp_path):
    run = create(tmp_path, tmp_path / "environment", sys.executable)
    assert run.returncode == 0, run.stderr
    pip = [str(tmp_path / "environment" / "bin" / "python"), "-m", "pip", "--version"]
    assert subprocess.run(pip, capture_output=True).returncode == 0
