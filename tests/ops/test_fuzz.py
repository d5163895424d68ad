"""A few thousand random calls of the CPU operators under AddressSanitizer and UBSan (fuzz.py)."""

import subprocess
import sys
from pathlib import Path

import pytest

import sanitized

FUZZ = Path(__file__).with_name("fuzz.py")


@pytest.mark.slow
@pytest.mark.skipif(sanitized.runtime() is None, reason="needs Linux and GCC with libasan")
def test_random_calls_end_in_results_or_in_one_line():
    run = subprocess.run(
        [sys.executable, str(FUZZ), "--calls", "1500"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-4000:]
    answered, refused = (int(part.split()[0]) for part in run.stdout.split(","))
    assert answered + refused == 1500
    assert min(answered, refused) > 100
