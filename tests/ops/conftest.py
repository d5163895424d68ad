"""The CUDA kernels on the CPU, for every test here that can do with them."""

from types import SimpleNamespace

import pytest
import torch

from simt import harness


@pytest.fixture(scope="session")
def simt() -> SimpleNamespace:
    """The kernels as operators `dhn_simt::*`; the test skips where they cannot be compiled."""
    if not harness.RUNS_HERE:
        pytest.skip(harness.NEEDS)
    return harness.load(harness.build("plain"))


@pytest.fixture(params=["cpu", "simt"])
def kernels(request: pytest.FixtureRequest):
    """torch.ops.dhn, and the CUDA kernels in the SIMT runner, both on CPU tensors."""
    if request.param == "cpu":
        import dhn.ops  # noqa: F401 registers torch.ops.dhn

        return torch.ops.dhn
    simt = request.getfixturevalue("simt")
    simt.configure("random")
    return simt.ops
