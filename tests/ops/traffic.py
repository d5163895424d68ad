"""What the CUDA kernels ask of memory, counted in the SIMT runner (simt/traffic.cpp).

    python tests/ops/traffic.py            prints the table of docs/kernels.md; takes a minute
    python tests/ops/traffic.py --write    puts it there
    python tests/ops/traffic.py --small    prints counts of a small image as JSON, for tests

No GPU is needed, but g++ on Linux x86-64.
"""

import json
import sys
from collections.abc import Callable

import torch
from torch import Tensor

import doc_table
from simt import harness

COLUMNS = [
    *("operator", "launches", "must (MB)", "moves (MB)", "sectors a request", "of them used"),
    *("bank cycles", "barriers a block", "predicted (us)"),
]
J, T, K = 14, 2, 30  # joints of CrowdPose, tag dimensions, candidates
FLIP = [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 12, 13]
H100 = 3.0e12  # bytes per second that an H100 copies
SECTOR = 32


def calls(ops, height: int, width: int) -> dict[str, Callable[[], object]]:
    """Each operator on one image of height x width with 5 people, maps of half its size."""
    draw = torch.Generator().manual_seed(0)
    h, w = height // 2, width // 2

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=draw)

    people = torch.cat(
        [uniform(1, 5, J, 2) * torch.tensor([width, height]), torch.ones(1, 5, J, 1)], -1
    )
    quarters = [uniform(1, J, h // 2, w // 2) for _ in range(4)]
    halves = [uniform(1, J, h, w) for _ in range(4)]
    target = (2.0, 7.0, 10.0, "disc")
    # Heatmaps as of a trained network: discs on nothing much. Tags: of 5 people, side by side.
    (heatmaps,) = ops.render_heatmaps(people, [h], [w], [2.0], [7.0], [10.0], "disc")
    heatmaps += uniform(1, J, h, w) * 0.05
    tags = torch.arange(w).div(w / 5, rounding_mode="floor") * 2 + uniform(1, J, T, h, w) * 0.1
    scores, indices = ops.topk_peaks(heatmaps, K, 5, height, width, 0.1)
    xy, values = ops.read_peaks(heatmaps, tags, indices, height, width, False)
    order = list(range(J))
    found, counts = ops.group_tags(scores, xy, values, order, K, 1.0, 0.1)
    found = found[:, :K].clone()
    for person in range(5):
        found[:, person, person::5] = 0  # every joint is missing somewhere
    counts = counts.clamp(max=5)
    return {
        "`render_heatmaps`, the four training maps": lambda: ops.render_heatmaps(
            people,
            [h // 2, h, h // 2, h],
            [w // 2, w, w // 2, w],
            [4.0, 2.0] * 2,
            [7.0] * 4,
            [10.0, 10.0, 7.0, 7.0],
            "disc",
        ),
        "`heatmap_mse`, one 1/2 map, forward": lambda: ops.heatmap_mse(
            heatmaps, people, None, *target
        ),
        "`heatmap_mse`, backward": lambda: ops.heatmap_mse_backward(
            torch.ones(1), heatmaps, people, None, *target
        ),
        "`topk_peaks` at the image's size": lambda: ops.topk_peaks(
            heatmaps, K, 5, height, width, 0.1
        ),
        "`read_peaks`": lambda: ops.read_peaks(heatmaps, tags, indices, height, width, False),
        "`group_tags`": lambda: ops.group_tags(scores, xy, values, order, K, 1.0, 0.1),
        "`refine_people`, all missing somewhere": lambda: ops.refine_people(
            heatmaps, tags, found, counts, height, width, False
        ),
        "`aggregate_heatmaps`, two stages, flip": lambda: ops.aggregate_heatmaps(
            quarters[:2], halves[:2], quarters[2:], halves[2:], FLIP
        ),
    }


def measure(height: int, width: int) -> dict[str, dict[str, float]]:
    """What each operator asks of memory, all its launches together.

    Returns:
        For each operator: `launches`; `must`, the bytes of all sectors that a launch reads and of
        all that it writes; `moves`, the same with a sector counted again in each block that asks
        for it; `sectors` per request of a warp; the share of their bytes that the request uses,
        `used`; `bank_cycles`, how many times as long shared memory takes as without bank conflicts
        (0 where it is not used); and `barriers`, how often a block waits for all of its threads,
        on average.
    """
    sim = harness.load(harness.build("traffic"))
    measured = {}
    operators = calls(sim.ops, height, width)
    for name, run in operators.items():
        sim.traffic()  # what prepared it
        run()
        launches = sim.traffic()

        def total(*counts: str, launches: list[dict[str, int]] = launches) -> int:
            return sum(launch[count] for launch in launches for count in counts)

        sectors = total("load_sectors", "store_sectors", "atomic_sectors")
        kinds = ("load", "store", "atomic")
        measured[name] = {
            "launches": len(launches),
            "must": SECTOR * total(*(f"{kind}_sectors_once" for kind in kinds)),
            "moves": SECTOR * total(*(f"{kind}_sectors_by_block" for kind in kinds)),
            "sectors": sectors / total(*(f"{kind}_requests" for kind in kinds)),
            "used": total(*(f"{kind}_bytes" for kind in kinds)) / (SECTOR * sectors),
            "bank_cycles": total(*(f"shared_{kind}_cycles" for kind in kinds))
            / max(total(*(f"shared_{kind}_least_cycles" for kind in kinds)), 1),
            "barriers": total("barriers") / total("blocks"),
        }
    return measured


def table(measured: dict[str, dict[str, float]]) -> list[list[str]]:
    """The rows of docs/kernels.md."""
    rows = []
    for name, counts in measured.items():
        numbers = [f"{counts['launches']:.0f}"]
        numbers += [f"{counts[bytes_] / 1e6:.2f}" for bytes_ in ("must", "moves")]
        numbers += [f"{counts['sectors']:.1f}", f"{100 * counts['used']:.0f} %"]
        numbers.append(f"{counts['bank_cycles']:.2f}" if counts["bank_cycles"] else "none")
        numbers.append(f"{counts['barriers']:.1f}")
        seconds = counts["moves"] / H100
        # Below this the launch itself takes longer.
        numbers.append(f"{1e6 * seconds:.1f}" if seconds > 1e-6 else "launch")
        rows.append([name, *numbers])
    return rows


if __name__ == "__main__":
    if sys.argv[1:] == ["--small"]:
        print(json.dumps(measure(128, 192)))
    else:
        doc_table.main(COLUMNS, table(measure(512, 768)))
