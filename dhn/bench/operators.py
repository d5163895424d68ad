"""Times each operator against its plain PyTorch reference, at DoubleHigherNet's sizes."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from dhn import ops
from dhn.bench import scenes
from dhn.bench.published import published_decode
from dhn.bench.scenes import crowd, scene_from_keypoints
from dhn.bench.timing import copy_bandwidth, measure
from dhn.data.joints import CROWDPOSE
from dhn.inference.decode import decode_poses
from dhn.ops import reference

CROP = 512  # side of the network input in training


@dataclass(frozen=True)
class Case:
    """One operator on one shape.

    Attributes:
        op: the name of the operator.
        shape: what it works on, for the table.
        ours: runs our operator.
        reference: runs the plain PyTorch reference.
        bytes: how many bytes the operator must move at least; 0 where that is not counted.
    """

    op: str
    shape: str
    ours: Callable[[], Any]
    reference: Callable[[], Any]
    bytes: int


def operator_cases(device: torch.device, people: int = 4) -> list[Case]:
    """Every operator on one image with a crowd of `people`."""
    return [
        *_training_cases(device, people),
        _aggregation_case(device),
        *_decode_cases(device, people),
    ]


def _training_cases(device: torch.device, people: int) -> list[Case]:
    """Drawing the targets of four maps, and the loss of one with its gradient."""
    J = len(CROWDPOSE)
    keypoints = crowd(people, (CROP, CROP)).to(device)
    fine, coarse = CROP // 2, CROP // 4
    sizes = [(coarse, coarse), (fine, fine)] * 2
    pyramid = (keypoints, sizes, [4, 2] * 2, [7.0] * 4, [10.0, 10.0, 7.0, 7.0])
    drawn = ops.render_heatmap_pyramid(*pyramid)
    prediction = torch.rand(1, J, fine, fine, device=device, requires_grad=True)
    mask = torch.rand(1, fine, fine, device=device) > 0.1

    def loss_and_gradient(heatmap_mse: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        loss = heatmap_mse(prediction, keypoints, mask, 2, 7.0, 10.0).sum()
        return torch.autograd.grad(loss, prediction)

    return [
        Case(
            "render_heatmap_pyramid",
            f"{people} people, 4 maps",
            lambda: ops.render_heatmap_pyramid(*pyramid),
            lambda: reference.render_heatmap_pyramid(*pyramid),
            _bytes(drawn),
        ),
        Case(
            "heatmap_mse + backward",
            f"1x{J}x{fine}x{fine}, {people} people",
            lambda: loss_and_gradient(ops.heatmap_mse),
            lambda: loss_and_gradient(reference.heatmap_mse),
            # Both passes read the prediction and the mask; the second one writes the gradient.
            _bytes([prediction, prediction, prediction, mask, mask]),
        ),
    ]


def _aggregation_case(device: torch.device) -> Case:
    """The heatmaps of two stages, with the flip test."""
    J, h, w = len(CROWDPOSE), scenes.INPUT[0] // 2, scenes.INPUT[1] // 2
    quarter = [torch.rand(1, J, h // 2, w // 2, device=device) for _ in range(4)]
    half = [torch.rand(1, J, h, w, device=device) for _ in range(4)]
    stages = (quarter[:2], half[:2], quarter[2:], half[2:], CROWDPOSE.flip)
    return Case(
        "aggregate_heatmaps",
        f"8 maps to 1x{J}x{h}x{w}",
        lambda: ops.aggregate_heatmaps(*stages),
        lambda: reference.aggregate_heatmaps(*stages),
        _bytes([*quarter, *half, half[0]]),  # the result is as large as one of the 1/2 maps
    )


def _decode_cases(device: torch.device, people: int) -> list[Case]:
    """Decode, step by step and as a whole."""
    size = scenes.INPUT
    scene = scene_from_keypoints(crowd(people, size), size)
    heatmaps, tags = scene.heatmaps.to(device), scene.tags.to(device)
    J, h, w = heatmaps.shape[1:]
    peaks = (heatmaps, 30, 5, size, 0.1)
    scores, indices = ops.topk_peaks(*peaks)
    xy, peak_tags = ops.read_peaks(heatmaps, tags, indices, size)
    found, counts = ops.group_tags(scores, xy, peak_tags)
    at = f"at {size[0]}x{size[1]}"
    maps = f"1x{J}x{h}x{w}"
    return [
        Case(
            "topk_peaks",
            f"{maps} {at}, K=30",
            lambda: ops.topk_peaks(*peaks),
            lambda: reference.topk_peaks(*peaks),
            _bytes([heatmaps]),
        ),
        Case(
            "read_peaks",
            f"1x{J}x30 {at}",
            lambda: ops.read_peaks(heatmaps, tags, indices, size),
            lambda: reference.read_peaks(heatmaps, tags, indices, size),
            0,
        ),
        Case(
            "group_tags",
            f"1x{J}x30, T=2",
            lambda: ops.group_tags(scores, xy, peak_tags),
            lambda: reference.group_tags(scores, xy, peak_tags),
            0,
        ),
        Case(
            "refine_people",
            f"{counts.sum()} people {at}",
            lambda: ops.refine_people(heatmaps, tags, found, counts, size),
            lambda: reference.refine_people(heatmaps, tags, found, counts, size),
            _bytes([heatmaps, tags]),
        ),
        Case(
            "decode_poses",
            f"{maps}, T=2, {people} people",
            lambda: decode_poses(heatmaps, tags, size),
            lambda: published_decode(heatmaps, tags, size),
            _bytes([heatmaps, tags]),
        ),
    ]


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def time_operators(cases: Iterable[Case], device: torch.device, seconds: float) -> dict[str, Any]:
    """Times our operators and their references, each for about `seconds`.

    Returns:
        `rows`, one for each case: `op` and `shape`, the timings (as `Timing`, in seconds) of
        `reference` and `ours`, how many times as long as ours the reference takes (`ratio`),
        `gb_per_s` and the share of the copy bandwidth, `of_copy_bandwidth`, both None where bytes
        are not counted. Also that bandwidth, `copy_gb_per_s`.
    """
    bandwidth = copy_bandwidth(device)
    rows = []
    for case in cases:
        ours = measure(case.ours, device, seconds)
        plain = measure(case.reference, device, seconds)
        rate = case.bytes / ours.median
        rows.append(
            {
                "op": case.op,
                "shape": case.shape,
                "reference": asdict(plain),
                "ours": asdict(ours),
                "ratio": plain.median / ours.median,
                "gb_per_s": rate / 1e9 if case.bytes else None,
                "of_copy_bandwidth": rate / bandwidth if case.bytes else None,
            }
        )
    return {"copy_gb_per_s": bandwidth / 1e9, "rows": rows}
