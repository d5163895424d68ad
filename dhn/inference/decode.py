"""From heatmaps and tag maps to people: bottom-up decoding by associative embedding.

The steps are those of HigherHRNet's published inference, in float32. Maps are read at the
resolution of the network's input (bilinear, align_corners=False):

1. Non-maximum suppression: a pixel stays if it equals the maximum of its window.
2. The K best peaks of each joint are kept.
3. Those that score above the detection threshold are candidates.
4. Joint by joint, each candidate joins the person it fits, or starts a new one (`ops.group_tags`).
5. Peaks move by a quarter of a pixel towards the higher neighbour, and by +.5 to the pixel's
   centre; or the sub-pixel fit places them.
6. A person's score is the mean over all J joints, where a missing one counts as 0.
7. Refinement: each missing joint goes where score - round(tag distance) is largest, if the score
   there is above 0 (`ops.refine_people`).

Of equal scores and values, the lowest y * W + x comes first; rounding is half to even; between
equal neighbours the offset is -.25. People with equal tags are never merged (the official code
does that, by accident). More than K people may be found, but at most K J.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dhn import ops
from dhn.base.errors import DhnError
from dhn.base.native import has_kernels
from dhn.ops.settings import DecodeConfig, OnCuda


class Peaks(NamedTuple):
    """The K best peaks of every heatmap, best first.

    Attributes:
        scores: float32 [B, J, K]; 0 in unused slots.
        xy: float32 [B, J, K, 2] in input pixels (pixel centres at +.5, and the quarter offset).
        tags: float32 [B, J, K, T].
    """

    scores: Tensor
    xy: Tensor
    tags: Tensor


@dataclass(frozen=True)
class Poses:
    """The people of one image as decode gives them; tensors on the CPU, in the order of grouping.

    `dhn.inference.people.People` is what users get: it has image pixels and knows the joints.

    Attributes:
        keypoints: float32 [P, J, 3]: x, y in input pixels (pixel centres at +.5), and score; all
            three are 0 where a joint was not found.
        grouped: bool [P, J]: whether the joint was found by grouping (steps 1 to 4); one that has
            a score all the same was filled in by refinement.
        scores: float32 [P]: the mean score of all J joints before refinement, where a missing
            one counts as 0.
    """

    keypoints: Tensor
    grouped: Tensor
    scores: Tensor

    def __len__(self) -> int:
        return len(self.scores)


_PUBLISHED = DecodeConfig()
_BROKEN = "heatmaps or tags hold NaN or infinity: the network's output is broken"


@torch.no_grad()
def decode_poses(
    heatmaps: Tensor,
    tags: Tensor,
    size: tuple[int, int],
    config: DecodeConfig = _PUBLISHED,
    peaks: Peaks | None = None,
) -> list[Poses]:
    """Finds the people of every image of a batch.

    The maps are read at input resolution, bilinearly; upsampled maps are never written. Results
    are those of `reference.decode_poses`, up to the choice among equal-cost assignments. Maps on
    CUDA are decoded there if dhn has its kernels and they have room (up to 128 `max_people`, and
    what else `OnCuda` says), all others on the CPU.

    Args:
        heatmaps: [B, J, h, w] float32, bfloat16 or float16, any strides, any device.
        tags: [B, J, T, h, w], T tags per joint (2 where there was a mirrored pass).
        size: (H, W) of the network's input, in pixels.
        config: thresholds and choices.
        peaks: the peaks that the published NMS finds, where they are known already, as from an
            exported graph. They are searched here if they are None or do not fit `config`.

    Returns:
        B Poses, on the CPU. Copying them there is the only step that waits for a GPU.

    Raises:
        ValueError: the shapes do not fit each other or the configuration.
        DhnError: the maps hold NaN or infinity.
    """
    _check(heatmaps, tags, size, config)
    device = heatmaps.device if _decodes_there(heatmaps, tags, config) else torch.device("cpu")
    heatmaps, tags = heatmaps.to(device), tags.to(device)
    if peaks is not None and _serves(peaks, config):
        peaks = Peaks(*(field.to(device) for field in peaks))
        return _decode_by_steps(heatmaps, tags, size, config, peaks)
    if heatmaps.device.type == "cuda":
        peaks = find_peaks(heatmaps, tags, size, config)
        return _decode_by_steps(heatmaps, tags, size, config, peaks)
    keypoints, grouped, scores, finite = ops.decode_poses(heatmaps, tags, size, config)
    if not all(finite.tolist()):
        raise DhnError(_BROKEN)
    return [Poses(*fields) for fields in zip(keypoints, grouped, scores, strict=True)]


def _decode_by_steps(
    heatmaps: Tensor, tags: Tensor, size: tuple[int, int], config: DecodeConfig, peaks: Peaks
) -> list[Poses]:
    """Groups and refines by an operator each, which a GPU can queue one after the other."""
    scores, xy, peak_tags = (field[:, :, : config.max_people] for field in peaks)
    people, counts = ops.group_tags(
        scores,
        xy,
        peak_tags,
        config.joint_order,
        config.max_people,
        config.tag_threshold,
        config.detection_threshold,
        config.munkres,
    )
    if config.refine:
        keypoints = ops.refine_people(heatmaps, tags, people, counts, size, config.subpixel)
    else:
        keypoints = people[..., :3]
    return _poses(counts, keypoints, people, (scores, peak_tags))


def find_peaks(
    heatmaps: Tensor, tags: Tensor, size: tuple[int, int], config: DecodeConfig = _PUBLISHED
) -> Peaks:
    """Does steps 1 to 3 and 5 for every map. The maps must be contiguous; see `decode_poses`."""
    scores, indices = ops.topk_peaks(
        heatmaps, config.max_people, config.nms_kernel, size, config.detection_threshold
    )
    return Peaks(scores, *ops.read_peaks(heatmaps, tags, indices, size, config.subpixel))


def _decodes_there(heatmaps: Tensor, tags: Tensor, config: DecodeConfig) -> bool:
    """Whether the operators run on the device of the maps, and take maps and settings there."""
    J, T = tags.shape[1:3]
    if heatmaps.device.type == "cuda":
        return has_kernels("cuda") and OnCuda.takes(J, T, config)
    return heatmaps.device.type == "cpu"


def _serves(peaks: Peaks, config: DecodeConfig) -> bool:
    """Whether `find_peaks` would find the same candidates with these settings."""
    published = config.nms_kernel == _PUBLISHED.nms_kernel and not config.subpixel
    return published and peaks.scores.shape[2] >= config.max_people


def _poses(
    counts: Tensor, keypoints: Tensor, people: Tensor, candidates: Sequence[Tensor]
) -> list[Poses]:
    """Brings the results to the CPU in few steps, each of which costs more than its arithmetic."""
    found = counts.tolist()
    points, joints, *others = (x.cpu().numpy() for x in (keypoints, people, *candidates))
    most = max(found, default=0)
    points, joints = points[:, :most], joints[:, :most]
    if not all(np.isfinite(x).all() for x in (points, *others)):
        raise DhnError(_BROKEN)
    scores = joints[..., 2].sum(axis=2) / np.float32(joints.shape[2])
    return [
        Poses(
            torch.from_numpy(points[b, :n].copy()),
            torch.from_numpy(joints[b, :n, :, 2] > 0),
            torch.from_numpy(scores[b, :n].copy()),
        )
        for b, n in enumerate(found)
    ]


def _check(heatmaps: Tensor, tags: Tensor, size: tuple[int, int], config: DecodeConfig) -> None:
    if heatmaps.dim() != 4:
        raise ValueError(f"heatmaps must be [B, J, h, w], got {list(heatmaps.shape)}")
    B, J, h, w = heatmaps.shape
    if tags.dim() != 5 or (B, J, h, w) != (*tags.shape[:2], *tags.shape[3:]):
        raise ValueError(
            f"tags must be [B, J, T, h, w] with heatmaps {[B, J, h, w]}, got {list(tags.shape)}"
        )
    if 0 in (J, h, w, tags.shape[2]) or min(size) < 1:
        raise ValueError(f"maps {[B, J, h, w]} with T = {tags.shape[2]} cannot be read at {size}")
    if tags.device != heatmaps.device:
        raise ValueError(f"heatmaps are on {heatmaps.device}, tags on {tags.device}")
    if config.joint_order is not None and sorted(config.joint_order) != list(range(J)):
        raise ValueError(f"joint_order must be a permutation of 0..{J - 1}: {config.joint_order}")
