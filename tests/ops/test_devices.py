"""Tensors of one call lie on one device: every operator says so, whichever argument is elsewhere.

With a CPU tensor among CUDA ones, a kernel would read an address that its GPU does not have.
"""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

import dhn.ops  # noqa: F401 registers torch.ops.dhn


def calls() -> dict[str, tuple]:
    """Arguments of every operator, by its name; all tensors it can take."""
    maps, tags = torch.rand(1, 2, 4, 6), torch.rand(1, 2, 1, 4, 6)
    keypoints, mask, boxes = torch.rand(1, 3, 2, 3), torch.rand(1, 4, 6), torch.rand(1, 3, 4)
    loss = (maps, keypoints, mask, 4.0, 7.0, 10.0, "disc", boxes)
    scores, xy, values = torch.rand(1, 2, 3), torch.rand(1, 2, 3, 2), torch.rand(1, 2, 3, 1)
    indices = torch.zeros(1, 2, 3, dtype=torch.int64)
    quarters, halves = ([torch.rand(1, 2, *size) for _ in range(2)] for size in ((2, 3), (4, 6)))
    order, thresholds = [0, 1], (1.0, 0.1)
    return {
        "heatmap_mse": loss,
        "heatmap_mse_backward": (torch.rand(1), *loss),
        "read_peaks": (maps, tags, indices, 4, 6, False),
        "group_tags": (scores, xy, values, order, 3, *thresholds),
        "refine_people": (maps, tags, torch.rand(1, 6, 2, 4), torch.tensor([1]), 4, 6, False),
        "decode_poses": (maps, tags, 4, 6, order, 3, 5, *thresholds, True, False, False),
        "aggregate_heatmaps": (quarters, halves, quarters, halves, [1, 0]),
    }


def one_elsewhere(arguments: tuple, move):
    """The arguments with each of their tensors moved in turn."""
    leaves, structure = tree_flatten(arguments)
    for n, leaf in enumerate(leaves):
        if isinstance(leaf, torch.Tensor):
            yield tree_unflatten([*leaves[:n], move(leaf), *leaves[n + 1 :]], structure)


@pytest.mark.parametrize("name", calls())
def test_a_tensor_on_another_device_is_refused(kernels, name):
    if name == "decode_poses" and kernels is not torch.ops.dhn:
        pytest.skip("decode_poses is for the CPU alone")
    run, arguments = getattr(kernels, name), calls()[name]
    run(*arguments)
    for mixed in one_elsewhere(arguments, lambda leaf: leaf.to("meta")):
        with pytest.raises(RuntimeError, match=r"one device, but \S.* is on \w+ and .* on \w+"):
            run(*mixed)


@pytest.mark.parametrize("elsewhere", ["cpu", "cuda:1"])
@pytest.mark.parametrize("name", calls())
def test_a_fake_tensor_beside_cuda_is_refused(name, elsewhere):
    run = getattr(torch.ops.dhn, name)
    with FakeTensorMode() as mode:
        arguments = tree_map_only(torch.Tensor, mode.from_tensor, calls()[name])
        arguments = tree_map_only(torch.Tensor, lambda leaf: leaf.to("cuda:0"), arguments)
        if name != "decode_poses":  # its result has as many rows as people are found
            run(*arguments)
        for mixed in one_elsewhere(arguments, lambda leaf: leaf.to(elsewhere)):
            with pytest.raises(RuntimeError, match=r"one device, but .* cuda:0"):
                run(*mixed)
