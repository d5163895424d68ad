"""What the CUDA kernels ask of memory keeps to a budget, as the SIMT runner counts it."""

import ctypes
import json
import subprocess
import sys
from types import SimpleNamespace
from typing import NamedTuple

import pytest

import doc_table
import traffic
from simt import harness

pytestmark = pytest.mark.skipif(not harness.RUNS_HERE, reason=harness.NEEDS)


class Budget(NamedTuple):
    """For an image of 128 x 192: what the kernels do today, and may not exceed.

    Attributes:
        launches: of kernels.
        overlap: bytes that blocks ask for, as a multiple of those that are there.
        used: the least share of the bytes of a request's sectors.
        bank_cycles: of shared memory, as a multiple of those without conflicts.
        barriers: that a block waits at.
    """

    launches: int
    overlap: float
    used: float
    bank_cycles: float
    barriers: float


BUDGETS = {
    "`render_heatmaps`, the four training maps": Budget(1, 1.07, 0.88, 1.03, 3),
    "`heatmap_mse`, one 1/2 map, forward": Budget(2, 1.08, 0.87, 1.02, 4),
    "`heatmap_mse`, backward": Budget(1, 1.04, 0.90, 1.02, 3),
    "`topk_peaks` at the image's size": Budget(2, 1.55, 0.60, 1.12, 7.4),
    "`read_peaks`": Budget(1, 1.03, 0.24, 0, 0),
    "`group_tags`": Budget(1, 1.01, 0.31, 1.18, 0),
    "`refine_people`, all missing somewhere": Budget(2, 1.39, 0.62, 1.01, 1.1),
    "`aggregate_heatmaps`, two stages, flip": Budget(1, 1.31, 0.91, 1.97, 4),
}


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, float]]:
    # In a process of its own: one process holds one library of dhn_simt::*.
    command = [sys.executable, traffic.__file__, "--small"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.slow
def test_operators_keep_to_their_budgets(measured):
    assert measured.keys() == BUDGETS.keys()
    for name, counts in measured.items():
        budget = BUDGETS[name]
        assert counts["launches"] <= budget.launches, name
        assert counts["moves"] <= budget.overlap * counts["must"], name
        assert counts["used"] >= budget.used, name
        assert counts["bank_cycles"] <= budget.bank_cycles, name
        assert counts["barriers"] <= budget.barriers, name


@pytest.mark.slow
def test_what_must_be_moved_is_counted(measured):
    """Each input once and each result once; of lists of people, a few kilobytes."""
    h, w, J, T = 64, 96, traffic.J, traffic.T
    half, quarter = J * h * w * 4, J * h * w
    for name, bytes_ in {
        "`render_heatmaps`, the four training maps": 2 * (half + quarter),
        "`heatmap_mse`, one 1/2 map, forward": half,
        "`heatmap_mse`, backward": 2 * half,
        "`refine_people`, all missing somewhere": half * (1 + T),
        "`aggregate_heatmaps`, two stages, flip": 4 * (half + quarter) + half,
    }.items():
        # The search of refine_people reads some tiles again, in a second launch.
        most = 1.4 if "refine" in name else 1.02
        assert bytes_ <= measured[name]["must"] <= most * bytes_ + 4096, name


@pytest.mark.slow
def test_the_document_names_these_operators(measured):
    rows = doc_table.written(traffic.COLUMNS).splitlines()[2:]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == list(measured)
    assert [int(row.split(" | ")[1]) for row in rows] == [
        counts["launches"] for counts in measured.values()
    ]


@pytest.fixture(scope="module")
def known(tmp_path_factory) -> SimpleNamespace:
    """Kernels whose traffic anyone can count."""
    folder = tmp_path_factory.mktemp("known")
    # Its own runner, also where another library of this process has one.
    command = ["g++", "-std=c++17", "-fPIC", "-fno-gnu-unique", *harness.FLAGS["traffic"]]
    command.append(f"-I{harness.HERE}")
    source, counters = (str(harness.HERE / f"{name}.cpp") for name in ("known_traffic", "traffic"))
    made = [str(folder / name) for name in ("known.o", "known.so")]
    subprocess.run([*command, *harness.WATCHED, "-c", source, "-o", made[0]], check=True)
    subprocess.run([*command, "-shared", made[0], counters, "-o", made[1]], check=True)
    library = ctypes.CDLL(made[1])
    library.simt_traffic.restype = ctypes.c_char_p

    def read(size: int, shared: bool, stride: int) -> dict[str, int]:
        library.known_read(size, shared, stride)
        return json.loads(library.simt_traffic())[-1]

    def sum_up() -> tuple[int, dict[str, int]]:
        return library.known_sum(), json.loads(library.simt_traffic())[-1]

    return SimpleNamespace(read=read, sum_up=sum_up)


@pytest.mark.parametrize(
    ("size", "stride", "sectors", "used"),
    [
        (2, 1, 2, 64),
        (4, 1, 4, 128),
        (8, 1, 8, 256),
        (16, 1, 16, 512),
        (4, 0, 1, 4),  # all lanes read the same
        (4, 2, 8, 128),
        (4, 8, 32, 128),  # a sector for each lane
    ],
)
def test_sectors_of_a_request(known, size, stride, sectors, used):
    counts = known.read(size, False, stride)
    assert counts["load_requests"] == 1
    assert counts["load_sectors"] == counts["load_sectors_once"] == sectors
    assert counts["load_bytes"] == used


@pytest.mark.parametrize(
    ("size", "stride", "cycles", "least"),
    [
        (4, 1, 1, 1),
        (4, 0, 1, 1),  # the same word for all lanes
        (4, 2, 2, 1),
        (4, 32, 32, 1),
        (4, 33, 1, 1),
        (8, 1, 2, 2),  # half of a warp at a time
        (16, 1, 4, 4),
        (16, 2, 8, 4),
    ],
)
def test_bank_conflicts(known, size, stride, cycles, least):
    counts = known.read(size, True, stride)
    assert counts["shared_load_requests"] == 1
    assert counts["shared_load_cycles"] == cycles
    assert counts["shared_load_least_cycles"] == least


def test_atomics_and_barriers(known):
    """Three blocks of two warps; all lanes add to one number."""
    threads, counts = known.sum_up()
    assert threads == 64
    assert (counts["blocks"], counts["barriers"]) == (3, 6)
    assert counts["shared_atomic_requests"] == 6
    assert counts["shared_atomic_cycles"] == 6 * 32
    assert counts["store_requests"] == 3
