"""The CUDA kernels, run on the CPU by the SIMT runner of tests/simt, and on a GPU where one is.

Values are compared with dhn.reference; races and accesses out of bounds are the sanitizers' part,
and each kernel is also run with bugs planted in it, which the harness must catch.
"""

import functools
import json
import os
import platform
import shutil
import subprocess
import sys

import pytest
from simt import harness

pytestmark = pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() != "x86_64" or not shutil.which("g++"),
    reason="the SIMT runner needs g++ on Linux x86-64",
)

# Planted bug -> the operator whose kernels hold it, and what must see it.
PLANTED = {
    1: ("topk_peaks", "thread"),  # Best.offer counts without a barrier
    2: ("topk_peaks", "thread"),  # Best.sort trusts that a warp runs in step
    11: ("render_heatmaps", "thread"),  # people are read while they are gathered
    12: ("render_heatmaps", "address"),  # rows below the map are written
    21: ("topk_peaks", "thread"),  # the tile is read while it is filled
    22: ("topk_peaks", "address"),  # a row below the map is read
}


@functools.cache
def built() -> dict[str, str]:
    """All three flavours of the library, compiled side by side."""
    flavours = list(harness.FLAGS)
    command = [sys.executable, str(harness.HERE / "harness.py"), "build"]
    compilers = [
        subprocess.Popen([*command, f], stdout=subprocess.PIPE, text=True) for f in flavours
    ]
    outputs = [compiler.communicate()[0] for compiler in compilers]
    assert not any(compiler.returncode for compiler in compilers)
    return dict(zip(flavours, map(str.strip, outputs), strict=True))


@functools.cache
def sanitized(flavour: str) -> dict[str, dict]:
    """Runs every operator clean, and every planted bug of this sanitizer; name:bug -> outcome."""
    cases = [f"{name}:0" for name in harness.small_cases(None)]
    cases += [f"{name}:{bug}" for bug, (name, catcher) in PLANTED.items() if catcher == flavour]
    runtime = subprocess.run(
        ["g++", f"-print-file-name={harness.PRELOADS[flavour]}"], capture_output=True, text=True
    ).stdout.strip()
    environment = os.environ | {
        "LD_PRELOAD": runtime,
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own
        "TSAN_OPTIONS": "halt_on_error=1",
        "OMP_NUM_THREADS": "1",
    }
    run = subprocess.run(
        [sys.executable, str(harness.HERE / "harness.py"), "run", built()[flavour], *cases],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("flavour", harness.PRELOADS)
@pytest.mark.parametrize("name", harness.small_cases(None))
def test_sanitizers_find_nothing(name, flavour):
    outcome = sanitized(flavour)[f"{name}:0"]
    assert outcome["status"] == 0, outcome["log"]


REPORTS = {"address": "AddressSanitizer", "thread": "ThreadSanitizer"}


@pytest.mark.parametrize("bug", [bug for bug in PLANTED if PLANTED[bug][1] in REPORTS])
def test_planted_bugs_are_caught(bug):
    name, catcher = PLANTED[bug]
    outcome = sanitized(catcher)[f"{name}:{bug}"]
    assert outcome["status"] != 0
    assert REPORTS[catcher] in outcome["log"]
