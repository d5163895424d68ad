"""tools/install_torch.py decides where torch comes from, with a stub in place of pip.

The program runs as make runs it. `python -m pip` finds the stub first, nvidia-smi is a stub or
absent, and nothing reaches a network.
"""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CUDA_INDEX = "https://download.pytorch.org/whl/cu130"
OWN = ""  # where pip is configured to look
VERSION = next(
    line.removeprefix("torch==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line.startswith("torch==")
)
CPU, CUDA = f"{VERSION}+cpu", f"{VERSION}+cu130"
PYPI = VERSION  # without a label, but also a CUDA build on Linux

STUB_PIP = """
import json, os, sys

def value(option):
    return sys.argv[sys.argv.index(option) + 1] if option in sys.argv else ""

wheels = json.loads(os.environ["STUB_WHEELS"])
index = value("--index-url")
if "--dry-run" in sys.argv:
    if index not in wheels:
        sys.exit("ERROR: No matching distribution found for torch")
    version, folder = wheels[index]
    cuda = "+cpu" not in version
    packages = [("torch", version, ["sympy"] + ["nvidia-nccl-cu13==2.29.7"] * cuda)]
    if "--no-deps" not in sys.argv:
        packages += [("sympy", "1.14.0", [])] + [("nvidia-nccl-cu13", "2.29.7", [])] * cuda
    print(json.dumps({"install": [
        {
            "metadata": {"name": name, "version": version, "requires_dist": requires},
            "download_info": {"url": f"{folder}/{name}-{version}.whl"},
        }
        for name, version, requires in packages
    ]}))
else:
    with open(os.environ["STUB_LOG"], "a") as log:
        print(json.dumps(sys.argv[1:]), file=log)
    sys.exit(0 if index in wheels or not index else "ERROR: cannot reach " + index)
"""


class Machine:
    """A machine on which pip finds the given wheels and nvidia-smi prints the given lines."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "pip").mkdir()
        (folder / "pip" / "__init__.py").touch()
        (folder / "pip" / "__main__.py").write_text(STUB_PIP)
        (folder / "bin").mkdir()
        where = [sys.executable, "-c", "import pip; print(pip.__file__)"]
        used = subprocess.check_output(where, env=self.environment, text=True)
        assert Path(used).is_relative_to(folder)  # the real one would install into this Python

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"PATH": str(self.folder / "bin"), "PYTHONPATH": str(self.folder)}

    def driver(self, output: str, status: int = 0) -> None:
        stub = self.folder / "bin" / "nvidia-smi"
        stub.write_text(f"#!/bin/sh\necho '{output}'\nexit {status}\n")
        stub.chmod(0o755)

    def install(
        self, wheels: dict[str, tuple[str, str]], *arguments: str
    ) -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
        """The program's run, and the commands that pip was given, dry runs left out."""
        log = self.folder / "log"
        log.write_text("")
        run = subprocess.run(
            [sys.executable, str(ROOT / "tools" / "install_torch.py"), *arguments],
            env=self.environment | {"STUB_WHEELS": json.dumps(wheels), "STUB_LOG": str(log)},
            capture_output=True,
            text=True,
        )
        return run, [json.loads(line) for line in log.read_text().splitlines()]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def installed(commands: list[list[str]]) -> set[str]:
    return {word for command in commands for word in command if word.startswith("torch==")}


def asked(commands: list[list[str]]) -> set[str]:
    """The indexes that real installs, not dry runs, were pointed to."""
    return {
        after
        for command in commands
        for before, after in itertools.pairwise(command)
        if before in ("--index-url", "--extra-index-url")
    }


GPU_LINE = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-5a0c7a2d)"
ON_ALL_INDEXES = {
    CPU_INDEX: (CPU, CPU_INDEX),
    CUDA_INDEX: (CUDA, CUDA_INDEX),
    OWN: (PYPI, "https://files.example.org"),
}


def test_a_working_driver_takes_the_cuda_build(machine):
    machine.driver(GPU_LINE)
    run, commands = machine.install(ON_ALL_INDEXES)
    assert run.returncode == 0, run.stderr
    assert "CUDA build" in run.stdout
    assert "NVIDIA H100 80GB HBM3" in run.stdout
    assert "UUID" not in run.stdout
    assert installed(commands) == {f"torch=={CUDA}"}
    assert asked(commands) == {CUDA_INDEX}


def test_a_working_driver_takes_what_pip_has_where_the_index_is_out_of_reach(machine):
    machine.driver(GPU_LINE)
    run, commands = machine.install({OWN: ON_ALL_INDEXES[OWN]})
    assert run.returncode == 0, run.stderr
    assert "CUDA build" in run.stdout
    assert f"{CUDA_INDEX} cannot be reached" in run.stdout
    assert installed(commands) == {f"torch=={PYPI}"}
    assert asked(commands) == set()


@pytest.mark.parametrize(
    "driver",
    [None, ("NVIDIA-SMI has failed because it could not communicate with the driver.", 9), ("", 0)],
    ids=["absent", "failing", "without a GPU"],
)
def test_no_working_driver_takes_the_cpu_index(machine, driver):
    if driver:
        machine.driver(*driver)
    run, commands = machine.install(ON_ALL_INDEXES)
    assert run.returncode == 0, run.stderr
    assert f"torch {CPU} (CPU build, {CPU_INDEX})" in run.stdout
    assert "no NVIDIA driver works here" in run.stdout
    assert "TORCH_INDEX" in run.stdout
    assert len(run.stdout.splitlines()) == 1
    assert installed(commands) == {f"torch=={CPU}"}
    assert asked(commands) == {CPU_INDEX}


def test_what_torch_needs_comes_in_the_pinned_versions(machine):
    _, commands = machine.install(ON_ALL_INDEXES)
    only_torch, with_requirements = [c for c in commands if f"torch=={CPU}" in c]
    assert "--no-deps" in only_torch
    assert "--no-deps" not in with_requirements
    assert str(ROOT / "constraints.txt") in with_requirements


def test_an_unreachable_index_gives_way_to_a_cpu_build_that_pip_has(machine):
    run, commands = machine.install({OWN: (CPU, "https://mirror.example.org")})
    assert run.returncode == 0, run.stderr
    assert f"torch {CPU} (CPU build, https://mirror.example.org)" in run.stdout
    assert f"{CPU_INDEX} cannot be reached" in run.stdout
    assert installed(commands) == {f"torch=={CPU}"}
    assert asked(commands) == set()


def test_a_wheel_on_disk_is_installed_without_the_index(machine):
    """With pip's find-links, pip offers the wheel on disk even if the index does not answer."""
    wheel = (CPU, "file:///wheels")
    run, commands = machine.install({CPU_INDEX: wheel, OWN: wheel})
    assert run.returncode == 0, run.stderr
    assert "file:///wheels" in run.stdout
    assert installed(commands) == {f"torch=={CPU}"}
    assert asked(commands) == set()


@pytest.mark.parametrize(
    ("wheels", "reason"),
    [
        ({OWN: ON_ALL_INDEXES[OWN]}, "several GB"),
        # An extra index of pip's configuration answers where PyTorch's does not.
        ({CPU_INDEX: ON_ALL_INDEXES[OWN], OWN: ON_ALL_INDEXES[OWN]}, "several GB"),
        ({}, f"pip finds no torch=={VERSION}"),
    ],
    ids=["pip has CUDA", "a mirror has CUDA", "pip has nothing"],
)
def test_it_stops_where_there_is_no_cpu_build(machine, wheels, reason):
    run, commands = machine.install(wheels)
    assert run.returncode == 1
    assert installed(commands) == set()
    assert len(run.stderr.splitlines()) == 1
    assert run.stderr.startswith("dhn: ")
    assert reason in run.stderr
    assert "make test TORCH_INDEX=URL" in run.stderr


@pytest.mark.parametrize("gpu", [False, True])
def test_torch_index_overrides(machine, gpu):
    if gpu:
        machine.driver(GPU_LINE)
    index = "https://download.pytorch.org/whl/rocm7.1"
    wheels = ON_ALL_INDEXES | {index: (f"{VERSION}+rocm7.1", index)}
    run, commands = machine.install(wheels, index)
    assert run.returncode == 0, run.stderr
    assert "TORCH_INDEX says so" in run.stdout
    assert installed(commands) == {f"torch=={VERSION}+rocm7.1"}
    assert asked(commands) == {index}


def test_a_torch_index_without_torch_is_an_error(machine):
    run, commands = machine.install(ON_ALL_INDEXES, "https://nothing.example.org")
    assert run.returncode == 1
    assert installed(commands) == set()
    assert run.stderr == (
        f"dhn: pip finds no torch=={VERSION} at TORCH_INDEX=https://nothing.example.org\n"
    )
