"""What several tests need: the shared folder (where it is present) and the command line."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ../shared with real data and fixtures; the test skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared (real data and fixtures), which is not here")
    return SHARED


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Each device that has the operators; CUDA skips where there is none."""
    import torch

    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    return request.param
