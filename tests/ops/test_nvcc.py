"""Every CUDA source compiles, without warnings and without spills, for every GPU we name.

Without --thorough for the oldest and the newest of them only: each takes ten seconds.
"""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from torch.utils.cpp_extension import include_paths

CSRC = Path(__file__).resolve().parents[2] / "csrc"
SOURCES = sorted((CSRC / "cuda").glob("*.cu"))
ARCHITECTURES = ("75", "80", "86", "90", "100", "120")
# Without fused multiply-adds values are those of the CPU, so that ties stay ties.
FLAGS = ["-std=c++17", "-O3", "--fmad=false", "-Xcompiler", "-fPIC", "-DUSE_CUDA"]
FLAGS += ["-DTORCH_TARGET_VERSION=0x020a000000000000"]
ENTRY = re.compile(r"Compiling entry function '(?P<name>\w+)' for '(?P<arch>\w+)'")
SPILLS = re.compile(r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores")
USED = re.compile(r"Used (?P<registers>\d+) registers.*?(?:, (?P<shared>\d+) bytes smem)?$")


def compile_all(folder: Path, architectures: Sequence[str] = ARCHITECTURES) -> list[dict]:
    """Compiles all sources; returns ptxas's report, a row per kernel and architecture."""
    known = subprocess.run(["nvcc", "--list-gpu-arch"], capture_output=True, text=True, check=True)
    targets = [a for a in architectures if f"compute_{a}" in known.stdout.split()]
    command = [
        "nvcc",
        "-c",
        f"-I{CSRC}",
        *FLAGS,
        "-Werror",
        "all-warnings",
        "-Xptxas",
        "-v",
        "--threads",
        "2",
    ]
    command += [f"-gencode=arch=compute_{a},code=sm_{a}" for a in targets]
    command += [part for path in include_paths() for part in ("-isystem", path)]

    # In one translation unit: torch's headers, most of the work, are read once for each GPU.
    everything = folder / "everything.cu"
    everything.write_text("".join(f'#include "{path}"\n' for path in SOURCES))
    run = subprocess.run(
        [*command, str(everything), "-o", str(folder / "everything.o")],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return parse(run.stderr)


def parse(report: str) -> list[dict]:
    rows: list[dict] = []
    for line in report.splitlines():
        if entry := ENTRY.search(line):
            rows.append(entry.groupdict())
        elif spills := SPILLS.search(line):
            rows[-1] |= {name: int(value) for name, value in spills.groupdict().items()}
        elif used := USED.search(line):
            rows[-1] |= {name: int(value or 0) for name, value in used.groupdict().items()}
    return rows


@pytest.mark.slow
def test_every_kernel_compiles_for_every_gpu_without_spills(tmp_path, thorough):
    if not shutil.which("nvcc"):
        pytest.skip("needs nvcc, which is not here")
    # test_sass.py compiles for sm_90 each time.
    architectures = ARCHITECTURES if thorough else ARCHITECTURES[:1]
    report = compile_all(tmp_path, architectures)
    assert len(report) >= len(SOURCES)
    kernels_per_gpu = {
        arch: sum(row["arch"] == arch for row in report) for arch in {row["arch"] for row in report}
    }
    assert len(set(kernels_per_gpu.values())) == 1, kernels_per_gpu
    spilling = [row for row in report if row["stores"] or row["stack"]]
    assert not spilling
