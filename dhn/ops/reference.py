"""Each operator of dhn.ops in plain PyTorch, slow and obvious; tests and bench compare with it.

The signatures are those of `dhn.ops`. Everything is computed in the dtype of the input, float64
included.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dhn.ops.plain import quarter_positions, upsample, widen
from dhn.ops.settings import DecodeConfig
from dhn.ops.targets import Target, Units, kernel_units

FARTHEST = 1e15  # the largest distance between tags, as in csrc/common/compat.h


def render_heatmaps(
    keypoints: Tensor,
    size: tuple[int, int],
    stride: float,
    sigma: float,
    tau: float,
    units: Units = "input",
    target: Target = "disc",
) -> Tensor:
    sigma, tau = (kernel_units(value, stride, units, target) for value in (sigma, tau))
    h, w = size
    x, y, visibility = keypoints[:, :, :, None, None].unbind(-1)  # [B, P, J, 1, 1]
    rows = torch.arange(h, dtype=keypoints.dtype, device=keypoints.device)[:, None]
    columns = torch.arange(w, dtype=keypoints.dtype, device=keypoints.device)
    drawn = (visibility > 0) & x.isfinite() & y.isfinite()
    if target == "disc":
        dx, dy = (columns + 0.5) * stride - x, (rows + 0.5) * stride - y
        drawn = drawn & (dx**2 + dy**2 <= tau**2)
        values = torch.exp(-(dx**2 + dy**2) / sigma**2)  # [B, P, J, h, w]
    else:
        u, v = (x / stride).trunc(), (y / stride).trunc()
        dx, dy, reach = columns - u, rows - v, 3 * sigma + 1
        drawn = drawn & (u >= 0) & (v >= 0) & (u < w) & (v < h)
        drawn = drawn & (dx.abs() <= reach) & (dy.abs() <= reach)
        values = torch.exp(-(dx**2 + dy**2) / (2 * sigma**2))
    nobody = values.new_zeros((values.shape[0], 1, values.shape[2], h, w))
    return torch.cat([nobody, torch.where(drawn, values, 0)], dim=1).amax(1)


def render_heatmap_pyramid(
    keypoints: Tensor,
    sizes: Sequence[tuple[int, int]],
    strides: Sequence[float],
    sigmas: Sequence[float],
    taus: Sequence[float],
    units: Units = "input",
    target: Target = "disc",
) -> list[Tensor]:
    each = zip(sizes, strides, sigmas, taus, strict=True)
    return [render_heatmaps(keypoints, *one, units, target) for one in each]


def heatmap_mse(
    prediction: Tensor,
    keypoints: Tensor,
    mask: Tensor | None,
    stride: float,
    sigma: float,
    tau: float,
    units: Units = "input",
    target: Target = "disc",
    boxes: Tensor | None = None,
) -> Tensor:
    h, w = prediction.shape[-2:]
    dtype = torch.float64 if prediction.dtype == torch.float64 else torch.float32
    drawn = render_heatmaps(keypoints.to(dtype), (h, w), stride, sigma, tau, units, target)
    error = (prediction.to(dtype) - drawn) ** 2
    if mask is not None:
        error = error * (mask[:, None] if mask.dim() == 3 else mask).to(dtype)
    if boxes is not None:
        rows = (torch.arange(h, device=error.device, dtype=dtype)[:, None] + 0.5) * stride
        columns = (torch.arange(w, device=error.device, dtype=dtype) + 0.5) * stride
        x0, y0, x1, y1 = boxes.to(dtype)[:, :, None, None, None].unbind(-1)  # [B, P, 1, 1, 1]
        inside = (x0 <= columns) & (columns <= x1) & (y0 <= rows) & (rows <= y1)
        unknown = (keypoints[..., 2] < 0)[..., None, None]  # [B, P, J, 1, 1]
        error = torch.where((inside & unknown).any(1) & (drawn == 0), 0, error)
    return error.mean(dim=(1, 2, 3))


def topk_peaks(
    heatmaps: Tensor,
    k: int,
    kernel: int,
    size: tuple[int, int] | None = None,
    threshold: float = 0.0,
) -> tuple[Tensor, Tensor]:
    maps = widen(heatmaps)
    finite = maps.isfinite().flatten(2).all(2)  # [B, J]
    maps = upsample(maps, size) if size else maps
    peaks = (F.max_pool2d(maps, kernel, 1, kernel // 2) == maps) & (maps > threshold)
    scores = maps.new_zeros((*maps.shape[:2], k))
    indices = torch.zeros_like(scores, dtype=torch.int64)
    for b, j in torch.cartesian_prod(*map(torch.arange, maps.shape[:2])).tolist():
        at = peaks[b, j].flatten().nonzero().flatten()
        best, order = maps[b, j].flatten()[at].sort(descending=True, stable=True)
        n = min(k, len(at))
        scores[b, j, :n], indices[b, j, :n] = best[:n], at[order[:n]]
    scores[~finite], indices[~finite] = torch.nan, 0
    return scores, indices


def read_peaks(
    heatmaps: Tensor,
    tags: Tensor,
    indices: Tensor,
    size: tuple[int, int],
    subpixel: bool = False,
) -> tuple[Tensor, Tensor]:
    heatmaps = widen(heatmaps)
    if subpixel:
        xy = _subpixel_positions(heatmaps, indices, size)
    else:
        xy = quarter_positions(upsample(heatmaps, size), indices)
    tag_maps = upsample(widen(tags), size).flatten(3).movedim(2, 3)  # [B, J, H W, T]
    T = tags.shape[2]
    return xy, tag_maps.gather(2, indices[..., None].expand(-1, -1, -1, T))


def _subpixel_positions(maps: Tensor, indices: Tensor, size: tuple[int, int]) -> Tensor:
    (h, w), (H, W) = maps.shape[-2:], size
    u = (2 * (indices % W) + 1) * w // (2 * W)  # [B, J, K]
    v = (2 * (indices // W) + 1) * h // (2 * H)
    near = torch.arange(-2, 3, device=maps.device)
    dy, dx = (d.flatten() for d in torch.meshgrid(near, near, indexing="ij"))  # [25]
    columns = (u[..., None] + dx).clamp(0, w - 1)  # [B, J, K, 25]
    rows = (v[..., None] + dy).clamp(0, h - 1)
    around = maps.double().flatten(2).gather(2, (rows * w + columns).flatten(2)).view(rows.shape)
    centre = around[..., 12:13]
    log_share = (around / centre).clamp(min=1e-2).log()

    # Least squares of a paraboloid; gradient and second derivatives at the centre pixel.
    terms = torch.stack([dx**0, dx, dy, dx**2, dx * dy, dy**2], dim=-1).double()  # [25, 6]
    _, gx, gy, xx, xy, yy = (log_share @ torch.linalg.pinv(terms).T).unbind(-1)
    xx, yy = 2 * xx, 2 * yy
    determinant = xx * yy - xy * xy
    peak = (centre[..., 0] > 0) & (xx < -1e-4) & (yy < -1e-4) & (determinant > 1e-8)
    x = torch.where(peak, (xy * gy - yy * gx) / determinant, 0).clamp(-1, 1)
    y = torch.where(peak, (xy * gx - xx * gy) / determinant, 0).clamp(-1, 1)
    return torch.stack([(u + 0.5 + x) * W / w, (v + 0.5 + y) * H / h], dim=-1).to(maps.dtype)


def group_tags(
    scores: Tensor,
    xy: Tensor,
    tags: Tensor,
    joint_order: Sequence[int] | None = None,
    max_people: int = 30,
    tag_threshold: float = 1.0,
    detection_threshold: float = 0.1,
) -> tuple[Tensor, Tensor]:
    B, J, K, T = tags.shape
    order = range(J) if joint_order is None else joint_order
    people = scores.new_zeros((B, J * K, J, 3 + T))
    counts = torch.zeros(B, dtype=torch.int64, device=scores.device)
    candidates = torch.cat([xy, scores[..., None], tags], dim=-1)  # [B, J, K, 3 + T]
    for b in range(B):
        found: list[dict[int, Tensor]] = []  # per person: joint -> candidate
        for j in order:
            ours = candidates[b, j]
            ours = ours[(ours[:, 2] > detection_threshold) & ours.isfinite().all(1)]
            joined = _match(ours, found[:max_people], tag_threshold)
            for candidate, person in zip(ours, joined, strict=True):
                if person is None:
                    found.append({j: candidate})
                else:
                    person[j] = candidate
        counts[b] = len(found)
        for p, person in enumerate(found):
            for j, candidate in person.items():
                people[b, p, j] = candidate
    return people, counts


def _match(
    candidates: Tensor, people: list[dict[int, Tensor]], tag_threshold: float
) -> list[dict[int, Tensor] | None]:
    """For each candidate [n, 3 + T] of a joint the person it joins, or None."""
    matches: list[dict[int, Tensor] | None] = [None] * len(candidates)
    if not people or not len(candidates):
        return matches
    means = torch.stack([_mean_tag(torch.stack([c[3:] for c in p.values()])) for p in people])
    distance = _distance(candidates[:, None, 3:] - means, -1)  # [n, people]
    cost = distance.round().double() * 100 - candidates[:, 2:3].double()
    for i, p in assign(cost.tolist()):
        if distance[i, p] < tag_threshold:
            matches[i] = people[p]
    return matches


def _mean_tag(tags: Tensor) -> Tensor:
    """[n, T] -> [T]. Where the sum overflows, the mean is the largest number, or 0 for NaN.

    The sum is taken one after the other, as in csrc: whether it overflows depends on the order.
    """
    total = tags.new_zeros(tags.shape[1])
    for tag in tags:
        total = total + tag
    return (total / len(tags)).nan_to_num()


def _distance(differences: Tensor, dim: int) -> Tensor:
    """The norm over `dim`; whatever is farther than FARTHEST, or NaN, is that far."""
    norm = differences.square().sum(dim).sqrt()
    return torch.where(norm < FARTHEST, norm, FARTHEST)


def assign(cost: list[list[float]]) -> list[tuple[int, int]]:
    """Pairs (row, column) of least total cost, as many as the shorter side has.

    Shortest augmenting paths (Crouse 2016, as scipy's linear_sum_assignment); among equal paths a
    free column first, then the lowest, as common/assignment.h.
    """
    if len(cost) > len(cost[0]):
        return [(i, j) for j, i in assign([list(row) for row in zip(*cost, strict=True)])]
    rows, columns = range(len(cost)), range(len(cost[0]))
    row_dual, column_dual = [0.0 for _ in rows], [0.0 for _ in columns]
    column_of: dict[int, int] = {}
    row_of: dict[int, int] = {}
    for start in rows:
        length = [float("inf") for _ in columns]  # of the shortest path from `start`
        previous = [start for _ in columns]
        done: list[int] = []
        i, least = start, 0.0
        while True:
            open_columns = [j for j in columns if j not in done]
            for j in open_columns:
                through = least + cost[i][j] - row_dual[i] - column_dual[j]
                if through < length[j]:
                    length[j], previous[j] = through, i
            nearest = min(open_columns, key=lambda j: (length[j], j in row_of, j))
            least = length[nearest]
            done.append(nearest)
            if nearest not in row_of:
                break
            i = row_of[nearest]
        row_dual[start] += least
        for j in done[:-1]:
            row_dual[row_of[j]] += least - length[j]
        for j in done:
            column_dual[j] -= least - length[j]
        j = nearest
        while True:
            i = previous[j]
            row_of[j] = i
            column_of[i], j = j, column_of.get(i, -1)
            if i == start:
                break
    return sorted(column_of.items())


def refine_people(
    heatmaps: Tensor,
    tags: Tensor,
    people: Tensor,
    counts: Tensor,
    size: tuple[int, int],
    subpixel: bool = False,
) -> Tensor:
    people = people.clone()
    finite = heatmaps.isfinite().flatten(2).all(2) & tags.isfinite().flatten(2).all(2)
    maps, tag_maps = upsample(widen(heatmaps), size), upsample(widen(tags), size)
    for b, count in enumerate(counts.tolist()):
        for person in people[b, :count]:
            missing = person[:, 2] == 0
            _refine_person(person, widen(heatmaps[b]), maps[b], tag_maps[b], size, subpixel)
            person[missing & ~finite[b], 2] = torch.nan
    return people[..., :3]


def aggregate_heatmaps(
    quarter: Sequence[Tensor],
    half: Sequence[Tensor],
    quarter_flipped: Sequence[Tensor] = (),
    half_flipped: Sequence[Tensor] = (),
    flip: Sequence[int] = (),
) -> Tensor:
    size = (half[0].shape[2], half[0].shape[3])

    def one_pass(quarter: Sequence[Tensor], half: Sequence[Tensor]) -> Tensor:
        coarse = torch.stack([widen(maps) for maps in quarter]).mean(0)
        fine = torch.stack([widen(maps) for maps in half]).mean(0)
        return (fine + upsample(coarse, size)) / 2

    plain = one_pass(quarter, half)
    if not quarter_flipped:
        return plain
    flipped = one_pass(quarter_flipped, half_flipped)
    return (plain + flipped.flip(3)[:, list(flip)]) / 2


def decode_poses(
    heatmaps: Tensor,
    tags: Tensor,
    size: tuple[int, int],
    config: DecodeConfig,
    resize: Callable[[Tensor, tuple[int, int]], Tensor] = upsample,
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """The published decode, step by step over really upsampled maps (HigherHRNet's inference).

    `resize` may be torch's interpolate, which is faster (bench) but may break ties between mirrored
    pixels.

    Returns:
        keypoints, grouped, scores: of every image, as `ops.decode_poses` returns them. The maps
            must be finite.
    """
    keypoints, grouped, scores = [], [], []
    for b in range(len(heatmaps)):
        maps = resize(widen(heatmaps[b : b + 1]), size)  # [1, J, H, W]
        tag_maps = resize(widen(tags[b]), size)[None]  # [1, J, T, H, W]
        peak_scores, indices = topk_peaks(
            maps, config.max_people, config.nms_kernel, None, config.detection_threshold
        )
        xy = quarter_positions(maps, indices)
        if config.subpixel:
            xy = _subpixel_positions(widen(heatmaps[b : b + 1]), indices, size)
        at = indices[..., None].expand(-1, -1, -1, tags.shape[2])
        peak_tags = tag_maps.flatten(3).movedim(2, 3).gather(2, at)
        people, counts = group_tags(
            peak_scores,
            xy,
            peak_tags,
            config.joint_order,
            config.max_people,
            config.tag_threshold,
            config.detection_threshold,
        )
        people = people[0, : int(counts)]
        grouped.append(people[..., 2] > 0)
        scores.append(people[..., 2].mean(1))
        if config.refine:
            for person in people:
                _refine_person(person, heatmaps[b], maps[0], tag_maps[0], size, config.subpixel)
        keypoints.append(people[..., :3])
    return keypoints, grouped, scores


def _refine_person(
    person: Tensor,
    heatmaps: Tensor,
    maps: Tensor,
    tag_maps: Tensor,
    size: tuple[int, int],
    subpixel: bool,
) -> None:
    """Fills missing joints of `person` [J, 3 + T] from maps [J, H, W] and tag_maps [J, T, H, W]."""
    has = person[:, 2] > 0
    mean = _mean_tag(person[has, 3:])
    for j in (~has).nonzero().flatten().tolist():
        distance = _distance(tag_maps[j] - mean[:, None, None], 0)
        index = (maps[j] - distance.round()).argmax().view(1, 1, 1)
        score = maps[j].flatten()[index].flatten()
        if score > 0:
            xy = quarter_positions(maps[None, j : j + 1], index)
            if subpixel:
                xy = _subpixel_positions(heatmaps[None, j : j + 1], index, size)
            person[j, :3] = torch.cat([xy.flatten(), score])
