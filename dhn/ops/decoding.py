"""The operators of inference: aggregation, peaks, grouping and refinement."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dhn.base import native
from dhn.ops.devices import check_one_device
from dhn.ops.settings import DecodeConfig, OnCuda

native.load()


def topk_peaks(
    heatmaps: Tensor,
    k: int,
    kernel: int,
    size: tuple[int, int] | None = None,
    threshold: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """The K best local maxima of every heatmap.

    Args:
        heatmaps: [B, J, h, w] float32, bfloat16 or float16; converted to float32 first.
        k: K, how many peaks per map.
        kernel: odd side of the window; a pixel is a peak if it equals its window's maximum.
        size: (H, W) at which the maps are read, upsampled bilinearly (align_corners=False) but
            never written; None takes them as they stand.
        threshold: >= 0; only greater values are peaks.

    Returns:
        scores: [B, J, K] float32, highest first, equal scores lowest index first.
        indices: [B, J, K] int64, y * W + x.
        Unused slots hold score 0 and index 0. Where a map is not finite, all its scores are NaN.
    """
    height, width = size or heatmaps.shape[-2:]
    return torch.ops.dhn.topk_peaks(heatmaps, k, kernel, height, width, float(threshold))


def read_peaks(
    heatmaps: Tensor,
    tags: Tensor,
    indices: Tensor,
    size: tuple[int, int],
    subpixel: bool = False,
) -> tuple[Tensor, Tensor]:
    """Where peaks lie, and which tags stand there.

    Args:
        heatmaps: [B, J, h, w].
        tags: [B, J, T, h, w].
        indices: [B, J, K] int64, Y * W + X, as `topk_peaks(..., size)` returns them.
        size: (H, W) of the network input.
        subpixel: False moves a peak from the pixel's centre by a quarter pixel towards the
            greater neighbour in x and in y (equal neighbours: -.25). True fits a paraboloid to
            the log of the heatmap at map resolution (after DARK).

    Returns:
        xy: [B, J, K, 2] float32, input pixels.
        tags: [B, J, K, T] float32, read bilinearly at the centre of pixel (X, Y).
    """
    return torch.ops.dhn.read_peaks(heatmaps, tags, indices, *size, subpixel)


def group_tags(
    scores: Tensor,
    xy: Tensor,
    tags: Tensor,
    joint_order: Sequence[int] | None = None,
    max_people: int = 30,
    tag_threshold: float = 1.0,
    detection_threshold: float = 0.1,
    munkres: bool = False,
) -> tuple[Tensor, Tensor]:
    """Groups candidates into people by their tags (associative embedding).

    Joint by joint, candidates are assigned to the people so far: at least total cost, where a
    pair costs 100 * round(||tag - person's mean tag||) - score. A pair nearer than
    `tag_threshold` is accepted, any other candidate starts a new person.

    Args:
        scores: [B, J, K]; candidates with scores <= `detection_threshold` (or anything not
            finite) are dropped.
        xy: [B, J, K, 2].
        tags: [B, J, K, T].
        joint_order: a permutation of 0..J-1, the order in which joints are visited; None is
            0..J-1.
        max_people: a candidate is matched with this many people at most, those started first.
        tag_threshold, detection_threshold: see above.
        munkres: whether, among assignments of equal cost, the one that the Python package
            `munkres` 1.1.4 finds is taken. That is computed on the CPU, wherever the tensors are,
            and so are more than 128 candidates or people, for which CUDA has no room.

    Returns:
        people: [B, M, J, 3 + T] float32, M = J K: x, y, score and tags of every joint, zeros
            where a joint is missing and in unused rows; in the order in which people were started.
        counts: [B] int64, people per image.
    """
    order = list(range(scores.shape[1]) if joint_order is None else joint_order)
    thresholds = float(tag_threshold), float(detection_threshold)
    candidates = [scores, xy, tags]
    if munkres or (tags.is_cuda and max(scores.shape[2], max_people) > OnCuda.PEOPLE):
        candidates = [x.cpu() for x in candidates]
    people, counts = torch.ops.dhn.group_tags(*candidates, order, max_people, *thresholds, munkres)
    return people.to(tags.device), counts.to(tags.device)


def refine_people(
    heatmaps: Tensor,
    tags: Tensor,
    people: Tensor,
    counts: Tensor,
    size: tuple[int, int],
    subpixel: bool = False,
) -> Tensor:
    """Places the joints that people lack where the maps support them best.

    A missing joint goes to the input pixel where score - round(||tag - mean||) is largest, if the
    score there is greater than 0. The mean is that of the tags of the joints that the person has;
    among equal values the lowest Y * W + X wins.

    Args:
        heatmaps, tags, size, subpixel: as for `read_peaks`.
        people, counts: as `group_tags` returns them.

    Returns:
        [B, M, J, 3] float32: x, y, score; zeros where still missing and in unused rows. Where a
        map that had to be searched is not finite, the score is NaN.
    """
    return torch.ops.dhn.refine_people(heatmaps, tags, people, counts, *size, subpixel)


def decode_poses(
    heatmaps: Tensor, tags: Tensor, size: tuple[int, int], config: DecodeConfig
) -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor]:
    """`topk_peaks`, `read_peaks`, `group_tags` and `refine_people` in one call, on the CPU alone.

    The results are those of the four operators one after the other. The heatmaps are read once
    less, and three operators fewer are started, each of which takes as long as a step of decode.

    Args:
        heatmaps, tags, size: as for `read_peaks`.
        config: thresholds and choices.

    Returns:
        keypoints: B times [N, J, 3] float32: x, y in input pixels, score, of N people; zeros where
            a joint is missing.
        grouped: B times [N, J] bool, whether a joint was there before refinement.
        scores: B times [N] float32, mean score over all J joints before refinement, missing ones
            as 0.
        finite: [B] bool, whether all that was looked at was finite.
    """
    order = config.joint_order
    return torch.ops.dhn.decode_poses(
        heatmaps,
        tags,
        *size,
        list(range(heatmaps.shape[1]) if order is None else order),
        config.max_people,
        config.nms_kernel,
        float(config.tag_threshold),
        float(config.detection_threshold),
        config.refine,
        config.subpixel,
        config.munkres,
    )


def aggregate_heatmaps(
    quarter: Sequence[Tensor],
    half: Sequence[Tensor],
    quarter_flipped: Sequence[Tensor] = (),
    half_flipped: Sequence[Tensor] = (),
    flip: Sequence[int] = (),
) -> Tensor:
    """The heatmap that decode reads, from all heatmaps of a network.

    (mean(half) + upsample(mean(quarter))) / 2, bilinear; averaged with the same of the flipped
    pass mirrored, where there is one.

    Args:
        quarter: [B, J, h / 2, w / 2] each: coarse and fine maps of stride 4.
        half: [B, J, h, w] each, as many: stride 2.
        quarter_flipped, half_flipped: the same of the mirrored image, or empty.
        flip: J indices, the mirrored image's joint for each joint (JointSet.flip).

    Returns:
        [B, J, h, w] float32.
    """
    return torch.ops.dhn.aggregate_heatmaps(
        list(quarter), list(half), list(quarter_flipped), list(half_flipped), list(flip)
    )


@torch.library.register_fake("dhn::topk_peaks")
def _(heatmaps, k, kernel, height, width, threshold):
    shape = (*heatmaps.shape[:2], k)
    scores = heatmaps.new_empty(shape, dtype=torch.float32)
    return scores, heatmaps.new_empty(shape, dtype=torch.int64)


@torch.library.register_fake("dhn::read_peaks")
def _(heatmaps, tags, indices, height, width, subpixel):
    check_one_device(heatmaps=heatmaps, tags=tags, indices=indices)
    B, J, K = indices.shape
    xy = heatmaps.new_empty((B, J, K, 2), dtype=torch.float32)
    return xy, heatmaps.new_empty((B, J, K, tags.shape[2]), dtype=torch.float32)


@torch.library.register_fake("dhn::group_tags")
def _(scores, xy, tags, order, max_people, tag_threshold, detection_threshold, munkres=False):
    check_one_device(scores=scores, xy=xy, tags=tags)
    B, J, K, T = tags.shape
    people = scores.new_empty((B, J * K, J, 3 + T), dtype=torch.float32)
    return people, scores.new_empty((B,), dtype=torch.int64)


@torch.library.register_fake("dhn::refine_people")
def _(heatmaps, tags, people, counts, height, width, subpixel):
    check_one_device(heatmaps=heatmaps, tags=tags, people=people, counts=counts)
    return heatmaps.new_empty((*people.shape[:3], 3), dtype=torch.float32)


@torch.library.register_fake("dhn::decode_poses")
def _(heatmaps, tags, height, width, order, *settings):
    check_one_device(heatmaps=heatmaps, tags=tags)
    B, J = heatmaps.shape[:2]
    counts = [torch.library.get_ctx().new_dynamic_size() for _ in range(B)]
    keypoints = [heatmaps.new_empty((N, J, 3), dtype=torch.float32) for N in counts]
    grouped = [heatmaps.new_empty((N, J), dtype=torch.bool) for N in counts]
    scores = [heatmaps.new_empty((N,), dtype=torch.float32) for N in counts]
    return keypoints, grouped, scores, heatmaps.new_empty((B,), dtype=torch.bool)


@torch.library.register_fake("dhn::aggregate_heatmaps")
def _(quarter, half, quarter_flipped, half_flipped, flip):
    check_one_device(
        half=half, quarter=quarter, half_flipped=half_flipped, quarter_flipped=quarter_flipped
    )
    return half[0].new_empty(half[0].shape, dtype=torch.float32)
