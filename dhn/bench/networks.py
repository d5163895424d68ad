"""Times whole networks: `dhn bench --model`.

Each setting runs in a process of its own, so that its peak memory is its own, too.
"""

import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.table import Table

from dhn.base.device import Precision, multiplies_bfloat16
from dhn.base.errors import DhnError
from dhn.base.progress import Progress, silent, tracked
from dhn.bench.operators import Timing, machine, make_table, measure, milliseconds
from dhn.data.joints import CROWDPOSE
from dhn.inference.predictor import Predictor
from dhn.model import build_model
from dhn.model.cost import NETWORKS, network_cost

DEFAULT = tuple(name for name in NETWORKS if name.endswith("_w32"))


@dataclass(frozen=True)
class Setting:
    """One row: a network with fresh weights and how it runs."""

    network: str
    precision: Precision
    compile: bool
    flip: bool
    batch_size: int
    input_size: int
    device: str
    threads: int
    seconds: float


def run(
    device: torch.device,
    networks: Sequence[str] = DEFAULT,
    *,
    input_size: int = 512,
    batch_size: int = 1,
    flip: bool = True,
    compile: bool = False,
    threads: int | None = None,
    seconds: float = 3.0,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Times `Predictor.maps` (network, flip test, aggregation) on square images.

    Args:
        device: where to compute.
        networks: names for `build_model`; 14 joints.
        compile: also compiled, in the precision that `auto` takes.
        threads: CPU threads; None is PyTorch's choice.
        seconds: how long each network is timed, after a warm-up.

    Returns:
        `machine` and `rows`: the setting; parameters, and gflops of one image and pass; latency
        in seconds of a batch, images per second, and peak memory in bytes (on CUDA of tensors;
        else of the process, with PyTorch, and compilation where that was not cached).

    Raises:
        DhnError: no such network.
    """
    native = multiplies_bfloat16(device)
    modes: list[tuple[Precision, bool]] = [("float32", False)]
    if native:
        modes.append(("bfloat16", False))
    if compile:
        modes.append(("bfloat16" if native else "float32", True))
    threads = threads or torch.get_num_threads()
    settings = [
        Setting(name, *mode, flip, batch_size, input_size, str(device), threads, seconds)
        for name in networks
        for mode in modes
    ]
    try:
        costs = {n: network_cost(n, len(CROWDPOSE), input_size)._asdict() for n in networks}
    except ValueError as error:
        raise DhnError(f"--model: {error}") from error
    rows = []
    spawn = multiprocessing.get_context("spawn")
    for setting in tracked(settings, progress, "Networks"):
        with ProcessPoolExecutor(1, mp_context=spawn) as process:
            timing, memory = process.submit(time_network, setting).result()
        rate = batch_size / timing.median
        figures = {"latency": asdict(timing), "images_per_s": rate, "peak_bytes": memory}
        rows.append(asdict(setting) | costs[setting.network] | figures)
    return {"machine": machine(device), "rows": rows}


def time_network(setting: Setting) -> tuple[Timing, int]:
    """Seconds of a batch, and the peak memory in bytes."""
    torch.set_num_threads(setting.threads)
    device = torch.device(setting.device)
    predictor = Predictor(
        build_model(setting.network, len(CROWDPOSE)),
        CROWDPOSE,
        device=device,
        flip=setting.flip,
        precision=setting.precision,
        compile=setting.compile,
    )
    shape = (setting.batch_size, 3, setting.input_size, setting.input_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    timing = measure(lambda: predictor.maps(images), device, setting.seconds)
    return timing, _peak_memory(device)


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def table(result: dict[str, Any]) -> Table:
    """What `run` gave, to print."""
    first = result["rows"][0]
    size, batch = first["input_size"], first["batch_size"]
    passes = "plain and mirrored" if first["flip"] else "no flip test"
    title = f"Networks: {batch} x {size} x {size}, {passes}, {first['threads']} threads"
    numbers = ("parameters", "GFLOPs", "latency ms", "images/s", "peak MB")
    made = make_table(title, numbers, ("network", "computed in"))
    for row in result["rows"]:
        made.add_row(
            row["network"],
            row["precision"] + (", compiled" if row["compile"] else ""),
            f"{row['parameters'] / 1e6:.2f} M",
            f"{row['gflops']:.1f}",
            milliseconds(row["latency"]),
            f"{row['images_per_s']:.2f}",
            f"{row['peak_bytes'] / 1e6:.0f}",
        )
    return made
