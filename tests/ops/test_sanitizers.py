"""The CPU operators under AddressSanitizer and UBSan: their own tests, on an instrumented library.

The CUDA kernels have theirs in test_simt.py.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sanitized

ROOT = Path(__file__).resolve().parents[2]
TESTS = ("tests/inference/test_decode.py", "tests/ops/test_ops.py", "tests/ops/test_ops_targets.py")
# Left out is what runs little code of ours here, and takes long: a slow reference for scene upon
# scene. Scenes of the same sizes and crowds are decoded in one call and step by step instead.
CHOICE = "not opcheck and not compile and not cuda and not equals_published_decode"


@pytest.mark.slow
@pytest.mark.skipif(sanitized.runtime() is None, reason="needs Linux and GCC with libasan")
def test_cpu_operators_keep_to_their_memory(tmp_path):
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    for folder in ("csrc", "dhn", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    library = tmp_path / "dhn" / "_C.so"
    shutil.copy(sanitized.build(), library)
    assert b"__asan_init" in library.read_bytes()
    environment = os.environ | {
        "PYTHONPATH": str(tmp_path),
        "LD_PRELOAD": sanitized.runtime() or "",
        "ASAN_OPTIONS": f"{sanitized.OPTIONS}:malloc_context_size=5",
        "OMP_NUM_THREADS": "1",  # a test of theirs takes two
    }
    # -s: what a sanitizer says before it ends the process must not be captured in it.
    command = [sys.executable, "-m", "pytest", "-x", "-s", "-p", "no:cacheprovider", *TESTS]
    tests = subprocess.run(
        [*command, "-k", CHOICE],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert tests.returncode == 0, tests.stdout[-4000:]
    assert " passed" in tests.stdout
