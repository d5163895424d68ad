"""Compiles csrc against the headers of every torch that a folder of wheels holds.

    python tools/header_matrix.py [FOLDER] [--ends] [--quick]

One library is to serve every torch from 2.10 on, but the installed torch shows only its own
headers. Wheels for macOS hold the same headers in 80 MB, and need not be installed:

    pip download --no-deps --only-binary=:all: --python-version 311 torch==2.10.0 \\
        --platform macosx_11_0_arm64 --platform macosx_14_0_arm64 -d build/torch-wheels

The sources of each library are compiled as setup.py compiles them, those of CUDA where nvcc is.
The objects are linked, and what they want from torch must be exported by each torch of which there
is a wheel for Linux.
"""

import argparse
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
WHEELS = ROOT / "build" / "torch-wheels"
CSRC = ROOT / "csrc"
SOURCES = {
    "_C": [CSRC / "ops.cpp", *sorted(CSRC.glob("cpu/*.cpp"))],
    "_C_cuda": sorted(CSRC.glob("cuda/*.cu")),
}
OF_TORCH = re.compile(r"(aoti_)?torch_\w+|_ZNK?(5torch|3c10|2at)\w+")


class CompileError(Exception):
    """A compiler or linker failed; the message holds what it said."""


def find_wheels(folder: Path) -> dict[str, list[Path]]:
    """The wheels of torch in a folder by version, oldest first."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("torch-*.whl")):
        version = path.name.split("-")[1].partition("+")[0]
        found.setdefault(version, []).append(path)
    return {v: found[v] for v in sorted(found, key=lambda v: [int(x) for x in v.split(".")])}


def setup_commands(nvcc: str | None) -> dict[str, str]:
    """How `setup.py build_ext` compiles each library's sources; nothing is compiled.

    Args:
        nvcc: the compiler's path; None leaves the CUDA library out.

    Returns:
        by library, a command with @SOURCE@, @OBJECT@ and, for torch's headers, @INCLUDE@ in it.
    """
    import torch
    from setuptools.command.build_ext import build_ext
    from torch.utils import cpp_extension

    include = cpp_extension.include_paths()[0]
    build_extension = build_ext.build_extension
    commands: dict[str, str] = {}

    def without_link(self: build_ext, extension: Any) -> None:
        with tempfile.TemporaryDirectory() as self.build_temp:
            self.compiler.link_shared_object = lambda *_, **__: None
            build_extension(self, extension)

    def record(build_directory: str, *_: Any, **__: Any) -> None:
        ninja = ["ninja", "-t", "compdb", "compile", "cuda_compile"]
        told = subprocess.run(ninja, cwd=build_directory, capture_output=True, check=True)
        for entry in json.loads(told.stdout):
            library = "_C_cuda" if entry["file"].endswith(".cu") else "_C"
            command = entry["command"].replace(entry["output"], "@OBJECT@")
            command = command.replace(entry["file"], "@SOURCE@").replace(include, "@INCLUDE@")
            commands.setdefault(library, command)

    home, version = (str(Path(nvcc).parents[1]), _version(nvcc)) if nvcc else (None, None)
    with (
        mock.patch.object(build_ext, "build_extension", without_link),
        mock.patch.object(cpp_extension, "_run_ninja_build", record),
        mock.patch.object(cpp_extension, "CUDA_HOME", home),
        mock.patch.object(torch.version, "cuda", version),
        mock.patch.dict(os.environ, {"TORCH_CUDA_ARCH_LIST": "9.0"}),
        mock.patch.object(sys, "argv", ["setup.py", "-q", "build_ext"]),
    ):
        runpy.run_path(str(ROOT / "setup.py"), run_name="__main__")
    return commands


def find_nvcc() -> str | None:
    """The path of nvcc inside its toolkit, whose headers lie beside it; None without one."""
    found = shutil.which("nvcc")
    if found is None:
        return None
    told = subprocess.run([found, "--dryrun", "-c", "none.cu"], capture_output=True, text=True)
    top = re.search(r"^#\$ TOP=(.*)$", told.stderr, re.MULTILINE)
    return str(Path(top[1]).resolve() / "bin" / "nvcc") if top else found


def undefined_names(
    library: str, command: str, include: Path, folder: Path, *, quick: bool = False
) -> set[str]:
    """Compiles and links a library; returns what it wants from torch.

    Its sources are one translation unit, because torch's headers take most of the time.

    Args:
        library: "_C" or "_C_cuda".
        command: of `setup_commands`.
        include: the folder of torch's headers.
        folder: where files are written.
        quick: leave optimisation out.

    Raises:
        CompileError: it does not compile or link.
    """
    unit = folder / f"{library}{SOURCES[library][0].suffix}"
    unit.write_text("".join(f'#include "{path}"\n' for path in SOURCES[library]))
    here = {"@SOURCE@": unit, "@OBJECT@": folder / "unit.o", "@INCLUDE@": include}
    for word, path in here.items():
        command = command.replace(word, shlex.quote(str(path)))
    _run(shlex.split(command.replace("-O3", "-O0") if quick else command))
    linked = str(folder / f"{library}.so")
    _run(["g++", "-shared", str(here["@OBJECT@"]), "-o", linked])
    names = _run(["nm", "-D", "--undefined-only", "--format=just-symbols", linked]).split()
    return {name for name in names if OF_TORCH.match(name)}


def exported_names(wheel: Path, folder: Path) -> set[str]:
    """What the libraries of torch in a wheel for Linux export."""
    names: set[str] = set()
    with zipfile.ZipFile(wheel) as packed:
        for name in ("libc10.so", "libc10_cuda.so", "libtorch_cpu.so", "libtorch_cuda.so"):
            if f"torch/lib/{name}" in packed.namelist():
                path = packed.extract(f"torch/lib/{name}", folder)
                shown = ["nm", "-D", "--defined-only", "--format=just-symbols", path]
                names.update(line.partition("@")[0] for line in _run(shown).split())
                Path(path).unlink()
    return names


def unpack_headers(wheel: Path, folder: Path) -> Path:
    """Unpacks the folder of torch's headers and returns it."""
    with zipfile.ZipFile(wheel) as packed:
        members = [name for name in packed.namelist() if name.startswith("torch/include/")]
        packed.extractall(folder, members)
    return folder / "torch" / "include"


def check(wheels: dict[str, list[Path]], *, quick: bool = False) -> Iterator[tuple[str, str]]:
    """Compiles each library against each torch, and compares names with what torch exports.

    Yields:
        what was done, and what is wrong with it or "".
    """
    commands = setup_commands(find_nvcc())
    wanted: dict[str, set[str]] = {library: set() for library in commands}
    for version, (wheel, *_) in wheels.items():
        for library, command in commands.items():
            with tempfile.TemporaryDirectory() as temporary:
                include = unpack_headers(wheel, Path(temporary))
                what = f"{library} with the headers of torch {version}"
                try:
                    wanted[library] |= undefined_names(
                        library, command, include, Path(temporary), quick=quick
                    )
                except CompileError as error:
                    yield what, str(error)
                else:
                    yield what, ""
    for version, wheel in [(v, w) for v, all_ in wheels.items() for w in all_ if "linux" in w.name]:
        with tempfile.TemporaryDirectory() as temporary:
            exported = exported_names(wheel, Path(temporary))
        for library, names in wanted.items():
            if library == "_C_cuda" and not _has_cuda(wheel):
                continue
            missing = ", ".join(sorted(names - exported))
            what = f"{len(names)} names that {library} wants from torch {version}"
            yield what, missing and f"not exported: {missing}"


def _has_cuda(wheel: Path) -> bool:
    with zipfile.ZipFile(wheel) as packed:
        return "torch/lib/libtorch_cuda.so" in packed.namelist()


def _version(nvcc: str) -> str:
    found = re.search(r"release (\d+\.\d+)", _run([nvcc, "--version"]))
    assert found
    return found[1]


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise CompileError(done.stderr.strip())
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=WHEELS, help="of wheels of torch")
    parser.add_argument("--ends", action="store_true", help="the oldest and the newest torch alone")
    parser.add_argument("--quick", action="store_true", help="compile without optimisation")
    options = parser.parse_args()
    folder, wheels = options.folder, find_wheels(options.folder)
    if options.ends:
        wheels = {version: wheels[version] for version in list(wheels)[:: max(len(wheels) - 1, 1)]}
    if not wheels:
        sys.exit(f"{folder}: no wheel torch-*.whl; --help shows how to get them")
    if find_nvcc() is None:
        print("nvcc is not here: the CUDA library is left out")
    failed = False
    for what, wrong in check(wheels, quick=options.quick):
        print(f"{what}: {wrong or 'ok'}", flush=True)
        failed |= bool(wrong)
    sys.exit(failed)


if __name__ == "__main__":
    main()
