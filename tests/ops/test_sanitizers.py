"""The CPU operators under AddressSanitizer and UBSan: their own tests, on an instrumented library.

The CUDA kernels have theirs in test_simt.py.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
TESTS = ("tests/inference/test_decode.py", "tests/ops/test_ops.py", "tests/ops/test_ops_targets.py")


def runtime() -> str | None:
    """What has to be loaded before Python: GCC's AddressSanitizer and the exceptions it watches."""
    if not sys.platform.startswith("linux") or not shutil.which("g++"):
        return None
    ask = [["g++", f"-print-file-name={name}"] for name in ("libasan.so", "libstdc++.so")]
    found = [subprocess.run(one, capture_output=True, text=True).stdout.strip() for one in ask]
    return " ".join(found) if all(Path(path).is_absolute() for path in found) else None


@pytest.mark.slow
@pytest.mark.skipif(runtime() is None, reason="needs Linux and GCC with libasan")
def test_cpu_operators_keep_to_their_memory(tmp_path):
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    for folder in ("csrc", "dhn", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    for file in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / file, tmp_path)

    def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(tmp_path)} | variables
        return subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    build = run("setup.py", "-q", "build_ext", "--inplace", CFLAGS=FLAGS, LDFLAGS=FLAGS)
    assert build.returncode == 0, build.stdout[-4000:]
    assert b"__asan_init" in (tmp_path / "dhn" / "_C.so").read_bytes()
    # -s: what a sanitizer says before it ends the process must not be captured in it.
    tests = run(
        *("-m", "pytest", "-x", "-s", "-p", "no:cacheprovider", *TESTS),
        *("-k", "not opcheck and not compile"),
        LD_PRELOAD=runtime() or "",
        ASAN_OPTIONS="detect_leaks=0",  # Python's own
        OMP_NUM_THREADS="1",  # a test of theirs takes two
    )
    assert tests.returncode == 0, tests.stdout[-4000:]
