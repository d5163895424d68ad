"""How long a call takes, and on which machine."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from dhn.base.environment import cpu_name

COPY_BYTES = 256 << 20


@dataclass(frozen=True)
class Timing:
    """Seconds that one call took: the median and the quartiles of `runs` runs."""

    median: float
    low: float
    high: float
    runs: int


def measure(
    call: Callable[[], Any],
    device: torch.device,
    seconds: float = 0.3,
    clock: Callable[[], float] = time.perf_counter,
) -> Timing:
    """Times `call` for about `seconds` after two runs to warm up; at least three runs count.

    Args:
        call: what to time.
        device: where it computes; a GPU is waited for.
        seconds: how long to repeat it.
        clock: returns seconds. `time.process_time` counts CPU time instead of the time of day,
            which makes sense for a single thread.
    """

    def once() -> float:
        synchronize(device)
        start = clock()
        call()
        synchronize(device)
        return clock() - start

    first = min(once(), once())
    runs = max(3, min(2000, int(seconds / max(first, 1e-6))))
    return summarise([once() for _ in range(runs)])


def summarise(times: list[float]) -> Timing:
    """The median and the quartiles of at least two times."""
    low, median, high = statistics.quantiles(times, n=4)
    return Timing(median, low, high, len(times))


def synchronize(device: torch.device) -> None:
    """Waits for everything that was queued on a GPU; returns at once on other devices."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def copy_bandwidth(device: torch.device) -> float:
    """Bytes that a large copy reads and writes per second, both counted."""
    source = torch.ones(COPY_BYTES // 4, device=device)  # float32
    target = torch.empty_like(source)
    return 2 * COPY_BYTES / measure(lambda: target.copy_(source), device).median


def machine(device: torch.device) -> dict[str, Any]:
    """The device, its software and its threads, for the record of a measurement."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }
