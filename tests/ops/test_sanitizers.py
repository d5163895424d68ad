"""The CPU operators under AddressSanitizer and UBSan: their own tests, on an instrumented library.

The CUDA kernels have theirs in test_simt.py.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils.cpp_extension import include_paths, library_paths

from dhn.base.native import CPU_PARTS, source_hash

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
FLAGS = ["-std=c++20", "-O1", "-g1", "-fPIC", "-shared", "-fvisibility=hidden", "-ffp-contract=off"]
FLAGS += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
FLAGS += ["-DTORCH_TARGET_VERSION=0x020a000000000000"]
TESTS = ("tests/inference/test_decode.py", "tests/ops/test_ops.py", "tests/ops/test_ops_targets.py")
# Left out is what runs little code of ours here, and takes long: a slow reference for scene upon
# scene. Scenes of the same sizes and crowds are decoded in one call and step by step instead.
CHOICE = "not opcheck and not compile and not cuda and not equals_published_decode"


def runtime() -> str | None:
    """What has to be loaded before Python: GCC's AddressSanitizer and the exceptions it watches."""
    if not sys.platform.startswith("linux") or not shutil.which("g++"):
        return None
    ask = [["g++", f"-print-file-name={name}"] for name in ("libasan.so", "libstdc++.so")]
    found = [subprocess.run(one, capture_output=True, text=True).stdout.strip() for one in ask]
    return " ".join(found) if all(Path(path).is_absolute() for path in found) else None


def run(folder: Path, *command: object, **variables: str) -> str:
    """What the command says; fails the test if it exits otherwise than with 0."""
    result = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-4000:]
    return result.stdout


def build(folder: Path, library: Path) -> None:
    """Compiles the operators in one translation unit: torch's headers are read once."""
    (folder / "source_hash.h").write_text(
        f'#define DHN_SOURCE_HASH "{source_hash(CSRC, *CPU_PARTS)}"\n'
    )
    everything = folder / "everything.cpp"
    sources = [CSRC / "ops.cpp", *sorted(CSRC.glob("cpu/*.cpp"))]
    everything.write_text("".join(f'#include "{path}"\n' for path in sources))
    command = ["g++", *FLAGS, f"-I{CSRC}", f"-I{folder}", everything, "-o", library]
    command += [f"-isystem{path}" for path in include_paths()]
    for path in library_paths():
        command += [f"-L{path}", f"-Wl,-rpath,{path}"]
    run(folder, *command, "-ltorch_cpu")


@pytest.mark.slow
@pytest.mark.skipif(runtime() is None, reason="needs Linux and GCC with libasan")
def test_cpu_operators_keep_to_their_memory(tmp_path):
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    copy = tmp_path / "copy"
    for folder in ("csrc", "dhn", "tests"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", copy)
    library = copy / "dhn" / "_C.so"
    build(tmp_path, library)
    assert b"__asan_init" in library.read_bytes()
    # -s: what a sanitizer says before it ends the process must not be captured in it.
    said = run(
        copy,
        *(sys.executable, "-m", "pytest", "-x", "-s", "-p", "no:cacheprovider", *TESTS),
        *("-k", CHOICE),
        PYTHONPATH=str(copy),
        LD_PRELOAD=runtime() or "",
        ASAN_OPTIONS="detect_leaks=0:malloc_context_size=5",  # leaks are Python's own
        OMP_NUM_THREADS="1",  # a test of theirs takes two
    )
    assert " passed" in said
