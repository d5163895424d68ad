"""What several tests need: the shared folder (where it is present), small crowds, a full disk."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from locks import built_once, shared_folder

# No test may depend on how fast the machine is.
settings.register_profile("dhn", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dhn")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Starts slow tests first, so that nobody waits for one of them at the end.

    pytest-xdist gives each process a stretch of the list: half of them begin the first half.
    """
    slow = [item for item in items if item.get_closest_marker("slow")]
    quick = [item for item in items if not item.get_closest_marker("slow")]
    middle = len(quick) // 2
    items[:] = [*slow[::2], *quick[:middle], *slow[1::2], *quick[middle:]]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--thorough",
        action="store_true",
        help="also what takes minutes and says little more: every GPU architecture for nvcc, "
        "torch.compile and export of every real network",
    )


@pytest.fixture(scope="session")
def thorough(request: pytest.FixtureRequest) -> bool:
    """Whether pytest was called with --thorough."""
    return request.config.getoption("--thorough")


SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ../shared with real data and fixtures; the test skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared (real data and fixtures), which is not here")
    return SHARED


@pytest.fixture(scope="session")
def crowds(request: pytest.FixtureRequest) -> Path:
    """Ten small images: eight for training, one to validate, one to test. Not to be changed."""
    from dhn.synth import CrowdConfig, generate

    def build(folder: Path) -> None:
        generate(folder, 10, 0, config=CrowdConfig(size=96))

    return built_once(shared_folder(request) / "crowds", build)


@pytest.fixture(scope="session")
def python():
    """Runs `python ARGUMENTS` in a fork of a process that has imported torch already."""
    from forked_python import ForkedPython

    with ForkedPython() as started:
        yield started


@pytest.fixture(scope="session")
def files(request: pytest.FixtureRequest):
    """files(format, flip, halves): a tiny network as an exported file."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    from tiny_exports import exporter

    return exporter(shared_folder(request) / "exported")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Each device that has the operators; CUDA skips where there is none."""
    import torch

    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    return request.param


@pytest.fixture
def full_disk():
    """`with full_disk(size):` no file grows beyond `size` bytes: what a full disk does to a writer.

    Only around the code under test: pytest's own output may go to a file, too.
    """
    resource = pytest.importorskip("resource")

    @contextlib.contextmanager
    def limited(size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited
