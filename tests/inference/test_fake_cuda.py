"""What predict, decode and training ask of a GPU beside arithmetic, counted without one.

Each count is what the code does today, and may only fall.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils.cpp_extension import include_paths, library_paths

import fake_cuda

SUPPORT = Path(fake_cuda.__file__).parent

BUDGETS = {
    # Of two images with the flip test, without what is made once. None of it may wait, so that a
    # CUDA graph can capture it.
    "maps": {"upload": 0, "download": 0, "wait": 0, "clone": 1, "strided": 4},
    "decode": {"upload": 0, "download": 5, "wait": 5, "clone": 0, "strided": 0},
    "predict": {"upload": 1, "download": 5, "wait": 7, "clone": 1, "strided": 4},
    # An update of the weights; it waits to know whether loss and gradient are finite.
    "update": {"upload": 4, "download": 1, "wait": 2, "clone": 1, "strided": 4},
}
KNOWN = {
    "blocking upload": {"upload": 1, "wait": 1},
    "upload": {"upload": 1},
    "download": {"download": 1, "wait": 1},
    "number": {"download": 1, "wait": 1},
    "truth": {"download": 1, "wait": 1},
    "list": {"download": 1, "wait": 1},
    "index": {"upload": 1, "wait": 1},
    "index on the host": {"upload": 1, "wait": 1},
    "size": {"wait": 1},
    "synchronize": {"wait": 1},
    "clone": {"clone": 1},
    "contiguous": {"clone": 1},
    "contiguous already": {},
    "arithmetic": {},
    "view": {},
}


@pytest.fixture
def counted(tmp_path) -> dict[str, dict]:
    if not shutil.which("g++") or not sys.platform.startswith("linux"):
        pytest.skip("needs g++ on Linux")
    library = tmp_path / "fake_cuda.so"
    command = ["g++", "-std=c++20", "-fPIC", "-shared", str(SUPPORT / "fake_cuda_device.cpp")]
    command += [f"-isystem{path}" for path in include_paths()]
    for path in library_paths():
        command += [f"-L{path}", f"-Wl,-rpath,{path}"]
    subprocess.run([*command, "-lc10", "-ltorch_cpu", "-o", str(library)], check=True)
    path = os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, str(SUPPORT / "fake_cuda_run.py"), str(library)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    return json.loads(run.stdout)


@pytest.mark.slow
def test_the_gpu_is_asked_for_no_more_than_today(counted):
    """One test, so that one process counts while the others go on."""
    assert {what: counted["known"][what] for what in KNOWN} == KNOWN
    above = {
        (what, key): count
        for what, budget in BUDGETS.items()
        for key, count in counted[what].items()
        if count > budget.get(key, 0)
    }
    assert not above
