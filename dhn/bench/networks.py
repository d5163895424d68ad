"""Times whole networks, from images in memory to aggregated maps.

Each row is timed in a process of its own, so that the peak memory is its own, too.
"""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch

from dhn.base.device import Precision, multiplies_bfloat16
from dhn.base.environment import peak_memory
from dhn.base.errors import SettingError
from dhn.base.progress import Progress, silent, tracked
from dhn.bench.timing import Timing, machine, measure
from dhn.data.joints import CROWDPOSE
from dhn.inference.predictor import Predictor
from dhn.model import build_model
from dhn.model.cost import NETWORKS, Cost, network_cost

DEFAULT_NETWORKS = tuple(name for name in NETWORKS if name.endswith("_w32"))


@dataclass(frozen=True)
class NetworkSettings:
    """What the networks are timed on.

    Attributes:
        flip: whether the flip test is part of it.
        batch_size: images at a time.
        input_size: height and width of the network input, in pixels; a multiple of 64.
        device: where to compute.
        threads: CPU threads.
        seconds: how long each row is timed, after a warm-up.
    """

    flip: bool = True
    batch_size: int = 1
    input_size: int = 512
    device: str = "cpu"
    threads: int = 1
    seconds: float = 3.0


class Mode(NamedTuple):
    """How a network computes: in which precision, and whether torch.compile has fused it."""

    precision: Precision
    compile: bool


def modes(device: torch.device, *, compile: bool) -> list[Mode]:
    """The modes to compare: float32, bfloat16 where the hardware multiplies it.

    With `compile`, a third one is compiled, in the precision that `auto` takes on this device.
    """
    native = multiplies_bfloat16(device)
    compared = [Mode("float32", False)]
    if native:
        compared.append(Mode("bfloat16", False))
    if compile:
        compared.append(Mode("bfloat16" if native else "float32", True))
    return compared


def time_networks(
    names: Sequence[str],
    settings: NetworkSettings,
    *,
    compile: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Times `Predictor.maps` (network, flip test, aggregation) with fresh weights for 14 joints.

    Args:
        names: the networks, as `build_model` takes them.
        settings: what they are timed on.
        compile: whether to time them under torch.compile as well, see `modes`.
        progress: shows how many rows are done.

    Returns:
        `machine`, and `rows`, each with the network, its mode and the settings; `parameters`, and
        `gflops` of one image and one pass; `latency` of a batch (as `Timing`, in seconds),
        `images_per_s`, and `peak_bytes`: on CUDA the memory of tensors, elsewhere that of the
        process, with PyTorch, and with the compilation unless its result was cached.

    Raises:
        SettingError: there is no such network.
    """
    device = torch.device(settings.device)
    costs = {name: _cost(name, settings.input_size) for name in names}
    runs = [(name, mode) for name in names for mode in modes(device, compile=compile)]
    rows = []
    spawn = multiprocessing.get_context("spawn")
    for name, mode in tracked(runs, progress, "Networks"):
        with ProcessPoolExecutor(1, mp_context=spawn) as process:
            latency, peak = process.submit(time_network, name, mode, settings).result()
        row: dict[str, Any] = {"network": name, **mode._asdict(), **asdict(settings)}
        row |= costs[name]._asdict()
        row["latency"] = asdict(latency)
        row["images_per_s"] = settings.batch_size / latency.median
        row["peak_bytes"] = peak
        rows.append(row)
    return {"machine": machine(device), "rows": rows}


def _cost(name: str, input_size: int) -> Cost:
    try:
        return network_cost(name, len(CROWDPOSE), input_size)
    except ValueError as error:
        raise SettingError("model", name, str(error)) from error


def time_network(name: str, mode: Mode, settings: NetworkSettings) -> tuple[Timing, int]:
    """Times one network in this process.

    Returns:
        The seconds that a batch takes, and the peak memory in bytes.
    """
    torch.set_num_threads(settings.threads)
    device = torch.device(settings.device)
    predictor = Predictor(
        build_model(name, len(CROWDPOSE)),
        CROWDPOSE,
        device=device,
        flip=settings.flip,
        precision=mode.precision,
        compile=mode.compile,
    )
    shape = (settings.batch_size, 3, settings.input_size, settings.input_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    timing = measure(lambda: predictor.maps(images), device, settings.seconds)
    return timing, peak_memory(device)
