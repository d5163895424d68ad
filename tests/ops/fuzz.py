"""Calls the operators with random shapes, sizes and values under a sanitizer.

    python tests/ops/fuzz.py --seconds 600            the CPU operators
    python tests/ops/fuzz.py --seconds 600 --simt     the CUDA kernels, in the SIMT runner

Each call is made from one number. The number of the call that ends the process is printed last,
and `--first NUMBER --calls 1` makes it again. A call may be refused in one line.
"""

import argparse
import math
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]

import sanitized  # noqa: E402
from simt import harness  # noqa: E402

FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
HUGE = [2**15, 2**31 - 1, 2**31, 2**40 + 1, 2**63 - 1, 0, -1, -(2**63)]
LENGTHS = [1e-300, 1e-6, 1e6, 1e300, math.inf, math.nan, 0.0, -1.0]


class Draw:
    """Random arguments; one in `odd` of them is out of range or does not fit the others."""

    def __init__(self, number: int) -> None:
        self.random = random.Random(number)
        self.generator = torch.Generator().manual_seed(number)
        self.odd = self.random.choice([8, 40, 10**9])

    def rarely(self) -> bool:
        return self.random.randrange(self.odd) == 0

    def size(self, most: int = 6) -> int:
        return 0 if self.rarely() else self.random.randint(1, most)

    def side(self) -> int:
        return self.random.choice([self.size(5), self.size(20), self.size(70)])

    def number(self, most: int) -> int:
        return self.random.choice(HUGE) if self.rarely() else self.random.randint(1, most)

    def length(self) -> float:
        return self.random.choice(LENGTHS) if self.rarely() else self.random.uniform(0.5, 12)

    def flag(self) -> bool:
        return self.random.random() < 0.5

    def order(self, J: int) -> list[int]:
        order = self.random.sample(range(J), J)
        if self.rarely():
            order.append(self.random.choice([0, -1, J, 2**40]))
        return order

    def tensor(self, *shape: int, dtype: torch.dtype | None = None, scale: float = 1.0) -> Tensor:
        """Ordinary numbers with some of the largest, smallest and broken ones among them."""
        if self.rarely():
            shape = tuple(self.size(9) for _ in range(self.random.randint(1, 5)))
        values = torch.rand(shape, generator=self.generator, dtype=torch.float64) * scale
        if self.flag():
            values = (values * 3).round() / 3  # ties
        dtype = dtype or self.random.choice(FLOATS)
        share = self.random.choice([0.0, 0.0, 0.02, 0.5])
        limits = torch.finfo(dtype)
        wild = [limits.max, -limits.max, limits.max**0.5, limits.tiny, 0.0, -0.0, -1.0]
        wild += [math.inf, -math.inf, math.nan] if self.flag() else []
        chosen = torch.randint(len(wild), shape, generator=self.generator)
        mask = torch.rand(shape, generator=self.generator) < share
        values = torch.where(mask, torch.tensor(wild, dtype=torch.float64)[chosen], values).to(
            dtype
        )
        if values.dim() > 1 and self.flag():
            values = values.transpose(-1, -2).contiguous().transpose(-1, -2)
        return values[:1].expand(shape) if self.rarely() and shape[0] else values

    def integers(self, *shape: int, most: int) -> Tensor:
        values = torch.randint(max(most, 1), shape, generator=self.generator)
        if self.rarely() and values.numel():
            values.view(-1)[0] = self.random.choice(HUGE)
        return values


def keypoints(d: Draw, B: int, P: int, J: int, extent: float, dtype: torch.dtype) -> Tensor:
    points = d.tensor(B, P, J, 3, dtype=dtype, scale=extent)
    if points.dim() == 4 and points.shape[3] == 3:
        points = points.clone()
        points[..., 2] = d.integers(*points.shape[:3], most=3).clamp(0, 2) - 1
    return points


def render(ops, d: Draw):
    B, P, J, maps = d.size(3), d.size(9) - 1, d.size(3), d.size(3)
    points = keypoints(d, B, max(P, 0), J, 200, d.random.choice(FLOATS))
    sides = [[d.random.choice([d.side(), -1]) if d.rarely() else d.side() for _ in range(maps)]]
    sides.append([d.side() for _ in range(maps)])
    lengths = [[d.length() for _ in range(maps)] for _ in range(3)]
    return ops.render_heatmaps(points, *sides, *lengths, d.random.choice(["disc", "square"]))


def loss(ops, d: Draw):
    B, P, J, h, w = d.size(3), max(d.size(9) - 1, 0), d.size(3), d.side(), d.side()
    prediction = d.tensor(B, J, h, w)
    points = keypoints(d, B, P, J, 200, d.random.choice(FLOATS))
    mask = d.random.choice([None, d.tensor(B, h, w), d.tensor(B, d.random.choice([1, J]), h, w)])
    boxes = d.random.choice([None, d.tensor(B, P, 4, scale=200)])
    rest = points, mask, d.length(), d.length(), d.length(), d.random.choice(["disc", "square"])
    if d.flag():
        return ops.heatmap_mse(prediction, *rest, boxes)
    return ops.heatmap_mse_backward(d.tensor(B), prediction, *rest, boxes)


def maps_of(d: Draw, B: int, J: int, T: int) -> tuple[Tensor, Tensor, tuple[int, int]]:
    h, w = d.side(), d.side()
    H, W = d.random.choice([(h, w), (2 * h, 2 * w), (d.side(), d.side())])
    if d.rarely():
        H = d.random.choice(HUGE)
    return d.tensor(B, J, h, w), d.tensor(B, J, T, h, w, scale=4), (H, W)


def peaks(ops, d: Draw):
    maps, _, size = maps_of(d, d.size(2), d.size(3), 1)
    kernel = d.number(16) | 1 if d.flag() else 2 * d.random.randint(0, 127) + 1
    return ops.topk_peaks(maps, d.number(700), kernel, *size, d.random.choice([0.0, 0.1, 0.9]))


def reading(ops, d: Draw):
    B, J = d.size(2), d.size(3)
    maps, tags, size = maps_of(d, B, J, d.size(3))
    area = min(max(size[0] * size[1], 1), 2**40)
    return ops.read_peaks(maps, tags, d.integers(B, J, d.size(40), most=area), *size, d.flag())


def grouping(ops, d: Draw):
    B, J, K, T = d.size(2), d.size(5), d.size(40), d.size(3)
    inputs = d.tensor(B, J, K), d.tensor(B, J, K, 2, scale=99), d.tensor(B, J, K, T, scale=9)
    limits = d.random.choice([1.0, 1e16, math.nan]), d.random.choice([0.1, 0.0, -1.0, math.nan])
    return ops.group_tags(*inputs, d.order(J), d.number(40), *limits, d.flag())


def refinement(ops, d: Draw):
    B, J, T, M = d.size(2), d.size(4), d.size(3), d.size(9)
    maps, tags, size = maps_of(d, B, J, T)
    rows = d.tensor(B, M, J, 3 + T, scale=4)
    rows = torch.where(torch.rand(rows.shape, generator=d.generator) < 0.5, rows, 0)
    return ops.refine_people(maps, tags, rows, d.integers(B, most=M + 1), *size, d.flag())


def decoding(ops, d: Draw):
    B, J = d.size(2), d.size(4)
    maps, tags, size = maps_of(d, B, J, d.size(3))
    limits = d.random.choice([1.0, 1e16, math.nan]), d.random.choice([0.0, 0.1, 0.5])
    flags = d.flag(), d.flag(), d.flag()
    kernel = 2 * d.random.randint(0, 4) + 1
    return ops.decode_poses(maps, tags, *size, d.order(J), d.number(40), kernel, *limits, *flags)


def aggregation(ops, d: Draw):
    B, J, stages, h, w = d.size(2), d.size(4), d.random.randint(1, 2), d.side(), d.side()
    dtype = d.random.choice(FLOATS)
    full = (2 * h, 2 * w) if d.flag() else (d.side(), d.side())
    lists = [[d.tensor(B, J, *size, dtype=dtype) for _ in range(stages)] for size in [(h, w), full]]
    flipped = [list(reversed(maps)) for maps in lists] if d.flag() else [[], []]
    return ops.aggregate_heatmaps(*lists, *flipped, d.order(J))


CALLS = [render, loss, peaks, reading, grouping, refinement, decoding, aggregation]


def fuzz(ops, calls: list, first: int, count: int, seconds: float) -> dict[str, int]:
    """Makes calls number `first`, `first` + 1, ...; returns how many were answered and refused."""
    made = {"answered": 0, "refused": 0}
    end = time.monotonic() + seconds
    number = first
    while number < first + count and time.monotonic() < end:
        os.pwrite(3, f"{number:<20}".encode(), 0)  # for whoever finds this process dead
        try:
            results = calls[number % len(calls)](ops, Draw(number))
            made["answered"] += 1
            for result in tree_leaves(results):
                result.sum()  # all of it was written
        except RuntimeError as refused:
            if "\n" in str(refused).split("\nException raised from")[0]:
                raise
            made["refused"] += 1
        number += 1
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("--calls", type=int, default=10**18)
    parser.add_argument("--first", type=int, default=0, help="the number of the first call")
    parser.add_argument("--simt", action="store_true", help="the CUDA kernels on the CPU")
    parser.add_argument("--library", help=argparse.SUPPRESS)  # of the child
    options = parser.parse_args()
    if options.library is None:
        return supervise(options)
    if options.simt:
        ops = harness.load(options.library).ops
    else:
        torch.ops.load_library(options.library)
        ops = torch.ops.dhn
    calls = [call for call in CALLS if not (options.simt and call is decoding)]
    made = fuzz(ops, calls, options.first, options.calls, options.seconds)
    print(", ".join(f"{count} {what}" for what, count in made.items()), flush=True)
    os._exit(0)  # what follows is not ours


def supervise(options: SimpleNamespace) -> int:
    """Runs this program again with the sanitizer loaded, and says which call ended it."""
    library = harness.build("address") if options.simt else sanitized.build()
    environment = os.environ | {
        "LD_PRELOAD": sanitized.runtime() or "",
        "ASAN_OPTIONS": sanitized.OPTIONS,
        "OMP_NUM_THREADS": "1",
    }
    place = os.memfd_create("number")
    command = [sys.executable, __file__, *sys.argv[1:], "--library", str(library)]
    prepare = f"exec 3<>/proc/self/fd/{place}; exec " + '"$@"'
    run = subprocess.run(["sh", "-c", prepare, "sh", *command], env=environment, pass_fds=[place])
    if run.returncode:
        number = os.pread(place, 20, 0).decode().strip()
        print(f"call {number} ended with status {run.returncode}", file=sys.stderr)
    return int(run.returncode != 0)


if __name__ == "__main__":
    sys.exit(main())
