"""The operators: thin wrappers of torch.ops.dhn (csrc), with the shapes that torch.compile needs.

`dhn.ops.reference` has each of them in plain PyTorch, with the same signature. Letters: B images,
P people, J joints, h x w map, H x W network input, K candidates, N people found, T tag dimensions.
Coordinates are continuous (dhn.data.geometry): pixel centres lie at +.5. Wrong shapes raise
RuntimeError.
"""

from dhn.ops.decoding import (
    aggregate_heatmaps,
    decode_poses,
    group_tags,
    read_peaks,
    refine_people,
    topk_peaks,
)
from dhn.ops.settings import DecodeConfig
from dhn.ops.targets import (
    Target,
    Units,
    heatmap_mse,
    kernel_units,
    render_heatmap_pyramid,
    render_heatmaps,
)

__all__ = [
    "DecodeConfig",
    "Target",
    "Units",
    "aggregate_heatmaps",
    "decode_poses",
    "group_tags",
    "heatmap_mse",
    "kernel_units",
    "read_peaks",
    "refine_people",
    "render_heatmap_pyramid",
    "render_heatmaps",
    "topk_peaks",
]
