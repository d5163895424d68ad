"""The CUDA kernels, in the SIMT runner, give for every dtype and layout what the CPU gives.

Maps come from a network that computes in channels last, and its heatmaps are some of its channels.
Layout must change nothing at all.
"""

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

import dhn.ops  # noqa: F401 registers torch.ops.dhn

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
J = 3


def _channels_last(maps: Tensor) -> Tensor:
    return maps.contiguous(memory_format=torch.channels_last)


def _sliced(maps: Tensor) -> Tensor:
    """The middle of more channels, pixels and images."""
    B, C, h, w = maps.shape
    more = torch.full((B + 1, C + 4, h + 2, w + 3), torch.nan, dtype=maps.dtype)
    more = _channels_last(more)[1:, 2:-2, 1:-1, 1:-2]
    return more.copy_(maps)


def _transposed(maps: Tensor) -> Tensor:
    return maps.mT.contiguous().mT


LAYOUTS = {"channels last": _channels_last, "sliced": _sliced, "transposed": _transposed}


class Inputs:
    """Maps of a dtype; every operator of `OPERATORS` is called with these."""

    def __init__(self, dtype: torch.dtype) -> None:
        draw = torch.Generator().manual_seed(0)

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=draw).to(dtype)

        self.maps = {
            "quarter": [uniform(2, J, 10, 18) for _ in range(4)],
            "half": [uniform(2, J, 20, 36) for _ in range(4)],
            "heatmaps": [uniform(2, J, 20, 36)],
            "tags": [uniform(2, 2 * J, 20, 36) * 3],
        }
        compute = torch.float64 if dtype == torch.float64 else torch.float32
        self.keypoints = torch.rand(2, 4, J, 3, generator=draw, dtype=compute) * 80
        self.people = torch.rand(2, 6, J, 5, generator=draw)
        self.people[:, :, 1] = 0
        self.people[:, ::2, 2] = 0
        self.counts = torch.tensor([6, 4])
        self.indices = torch.randint(40 * 72, (2, J, 7), generator=draw)
        self.grad = torch.rand(2, generator=draw, dtype=compute) * J * 20 * 36


def call(name: str, ops, inputs: Inputs, maps: dict[str, list[Tensor]]):
    quarter, half, (heatmaps,), (tags,) = maps.values()
    tags = tags.unflatten(1, (J, 2))
    if name.startswith("heatmap_mse"):
        target = name.rpartition(" ")[2]
        rest = (inputs.keypoints, None, 2.0, 2.0 if target == "square" else 7.0, 10.0, target)
        if "backward" in name:
            return ops.heatmap_mse_backward(inputs.grad, heatmaps, *rest)
        return ops.heatmap_mse(heatmaps, *rest)
    if name == "aggregate_heatmaps":
        return ops.aggregate_heatmaps(quarter[:2], half[:2], quarter[2:], half[2:], [1, 0, 2])
    if name == "topk_peaks":
        return ops.topk_peaks(heatmaps, 9, 5, 40, 72, 0.1)
    subpixel = name.endswith("subpixel")
    if name.startswith("read_peaks"):
        return ops.read_peaks(heatmaps, tags, inputs.indices, 40, 72, subpixel)
    return ops.refine_people(heatmaps, tags, inputs.people, inputs.counts, 40, 72, subpixel)


OPERATORS = [
    *("heatmap_mse disc", "heatmap_mse square", "heatmap_mse backward disc"),
    *("heatmap_mse backward square", "aggregate_heatmaps", "topk_peaks", "read_peaks"),
    *("read_peaks subpixel", "refine_people", "refine_people subpixel"),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPERATORS)
def test_kernels_give_what_the_cpu_gives(simt, name, dtype):
    inputs = Inputs(dtype)
    simt.configure("random")
    ours = call(name, simt.ops, inputs, inputs.maps)
    theirs = call(name, torch.ops.dhn, inputs, inputs.maps)
    # Choices are the same; sums may be taken in another order.
    tolerance = 0 if name == "topk_peaks" else 2 * torch.finfo(dtype).eps
    tolerance = max(tolerance, 1e-6) if tolerance else 0
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", OPERATORS)
def test_layout_changes_nothing(kernels, name, layout, dtype):
    inputs = Inputs(dtype)
    strided = {key: [LAYOUTS[layout](x) for x in maps] for key, maps in inputs.maps.items()}
    want = call(name, kernels, inputs, inputs.maps)
    got = call(name, kernels, inputs, strided)
    equal = tree_map(torch.equal, got, want)
    assert equal if isinstance(equal, bool) else all(equal)
