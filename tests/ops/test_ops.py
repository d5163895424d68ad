"""The operators of decode against their plain references; opcheck and torch.compile of all."""

import math

import pytest
import torch

from dhn import ops
from dhn.ops import reference

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_maps(B, J, T, h, w, seed=0, levels=None):
    """Smooth-ish heatmaps and tags; with `levels` quantised, so that scores tie."""
    g = seeded(seed)
    heatmaps = torch.rand(B, J, h, w, generator=g) ** 4
    if levels:
        heatmaps = (heatmaps * levels).round() / levels
    people = torch.randint(0, 5, (B, J, 1, h, w), generator=g)
    return heatmaps, people + 0.2 * torch.randn(B, J, T, h, w, generator=g)


def close(ours, theirs, tolerance):
    torch.testing.assert_close(ours.cpu(), theirs.to(ours.dtype), rtol=0, atol=tolerance)


# (h, w) of maps and (H, W) at which they are read: doubled, odd, one pixel, taller, smaller.
SIZES = [
    ((16, 24), (32, 48)),
    ((17, 23), (35, 49)),
    ((1, 1), (2, 3)),
    ((5, 40), (15, 80)),
    ((33, 9), (20, 11)),
    ((12, 11), (12, 11)),
]


class TestTopkPeaks:
    @pytest.mark.parametrize(("size", "read_at"), SIZES)
    @pytest.mark.parametrize("levels", [None, 4])
    @pytest.mark.parametrize(("k", "kernel", "threshold"), [(30, 5, 0.1), (3, 3, 0.0), (1, 1, 0.5)])
    def test_equals_reference(self, device, size, read_at, levels, k, kernel, threshold):
        heatmaps, _ = random_maps(2, 3, 1, *size, levels=levels)
        for at in (read_at, None):
            scores, indices = ops.topk_peaks(heatmaps.to(device), k, kernel, at, threshold)
            expected = reference.topk_peaks(heatmaps, k, kernel, at, threshold)
            assert torch.equal(scores.cpu(), expected[0])
            assert torch.equal(indices.cpu(), expected[1])

    def test_ties_come_lowest_index_first(self, device):
        heatmaps = torch.zeros(1, 1, 6, 9, device=device)
        heatmaps[0, 0, [4, 1, 1], [0, 7, 1]] = 0.5
        scores, indices = ops.topk_peaks(heatmaps, 5, 3)
        assert indices[0, 0].tolist() == [10, 16, 36, 0, 0]
        assert scores[0, 0].tolist() == [0.5, 0.5, 0.5, 0, 0]

    def test_plateau_keeps_every_pixel(self, device):
        heatmaps = torch.full((1, 1, 3, 3), 0.5, device=device)
        _, indices = ops.topk_peaks(heatmaps, 20, 5)
        assert indices[0, 0].tolist() == [*range(9), *[0] * 11]

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_broken_map_gives_nan(self, device, value):
        heatmaps, _ = random_maps(1, 3, 1, 20, 30)
        heatmaps[0, 1, 7, 29] = value
        scores, indices = ops.topk_peaks(heatmaps.to(device), 4, 5, (40, 60))
        assert scores[0].isnan().all(1).tolist() == [False, True, False]
        assert not indices[0, 1].any()

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_dtypes_and_strides(self, device, dtype):
        heatmaps = random_maps(2, 3, 1, 20, 30)[0].to(dtype).transpose(2, 3)
        ours = ops.topk_peaks(heatmaps.to(device), 8, 5, (60, 40), 0.1)
        for a, b in zip(ours, reference.topk_peaks(heatmaps, 8, 5, (60, 40), 0.1), strict=True):
            assert torch.equal(a.cpu(), b)

    def test_malformed_input(self, device):
        heatmaps = torch.zeros(1, 1, 4, 4, device=device)
        for k, kernel, threshold in ((0, 5, 0.0), (3, 4, 0.0), (3, 5, -1.0)):
            with pytest.raises(RuntimeError):
                ops.topk_peaks(heatmaps, k, kernel, None, threshold)
        with pytest.raises(RuntimeError):
            ops.topk_peaks(heatmaps[0], 3, 5)


class TestReadPeaks:
    @pytest.mark.parametrize(("size", "read_at"), SIZES)
    @pytest.mark.parametrize("T", [1, 2, 3])
    @pytest.mark.parametrize("subpixel", [False, True])
    def test_equals_reference(self, device, size, read_at, T, subpixel):
        heatmaps, tags = random_maps(2, 3, T, *size)
        indices = torch.randint(0, read_at[0] * read_at[1], (2, 3, 9), generator=seeded())
        xy, values = ops.read_peaks(
            heatmaps.to(device), tags.to(device), indices.to(device), read_at, subpixel
        )
        expected = reference.read_peaks(
            heatmaps.double(), tags.double(), indices, read_at, subpixel
        )
        close(xy, expected[0], 1e-3)
        close(values, expected[1], 1e-5)

    def test_quarter_offset_of_equal_neighbours_is_negative(self, device):
        maps = torch.ones(1, 1, 4, 4, device=device)
        index = torch.tensor([[[5]]], device=device)
        xy, _ = ops.read_peaks(maps, maps[:, :, None], index, (4, 4))
        assert xy.flatten().tolist() == [1.25, 1.25]

    def test_subpixel_finds_the_centre_of_a_gaussian(self, device):
        u = torch.arange(24) + 0.5
        heatmap = torch.exp(-((u - 10.3) ** 2) / 8) * torch.exp(-((u[:, None] - 7.8) ** 2) / 8)
        maps = heatmap[None, None].to(device)
        _, indices = ops.topk_peaks(maps, 1, 5, (48, 48))
        xy, _ = ops.read_peaks(maps, maps[:, :, None], indices, (48, 48), subpixel=True)
        assert xy.flatten().tolist() == pytest.approx([20.6, 15.6], abs=1e-3)


def candidates(B, J, K, T, seed, people=4):
    g = seeded(seed)
    scores = torch.rand(B, J, K, generator=g).sort(-1, descending=True).values
    xy = torch.rand(B, J, K, 2, generator=g) * 100
    person = torch.randint(0, people, (B, J, K, 1), generator=g)
    return scores, xy, person * 0.9 + 0.2 * torch.randn(B, J, K, T, generator=g)


class TestGroupTags:
    @pytest.mark.parametrize("T", [1, 2, 3])
    @pytest.mark.parametrize("K", [1, 7, 30])
    @pytest.mark.parametrize("max_people", [1, 5, 30])
    def test_equals_reference(self, device, K, T, max_people):
        inputs = candidates(2, 5, K, T, seed=K + T)
        settings = {"joint_order": [3, 1, 4, 0, 2], "max_people": max_people}
        people, counts = ops.group_tags(*(x.to(device) for x in inputs), **settings)
        expected, expected_counts = reference.group_tags(*inputs, **settings)
        assert counts.tolist() == expected_counts.tolist()
        close(people, expected, 0)

    def test_candidates_of_one_person_meet(self, device):
        scores = torch.tensor([[[0.9, 0.8], [0.7, 0.05]]], device=device)
        xy = torch.arange(8.0, device=device).view(1, 2, 2, 2)
        tags = torch.tensor([[[[0.0], [5.0]], [[5.2], [0.1]]]], device=device)
        people, counts = ops.group_tags(scores, xy, tags)
        assert counts.item() == 2
        first, second = people[0, :2].cpu()
        assert first[:, 2].tolist() == pytest.approx([0.9, 0])  # .05 is below the threshold
        assert second[:, 2].tolist() == pytest.approx([0.8, 0.7])
        assert not people[0, 2:].any()

    def test_far_candidate_starts_a_person(self, device):
        scores = torch.full((1, 2, 1), 0.5, device=device)
        tags = torch.tensor([0.0, 1.0], device=device).view(1, 2, 1, 1)  # 1.0 is not nearer than 1
        _, counts = ops.group_tags(scores, scores.new_zeros(1, 2, 1, 2), tags)
        assert counts.item() == 2

    def test_every_candidate_can_start_a_person(self, device):
        tags = torch.arange(6.0, device=device).view(1, 3, 2, 1) * 10
        scores = torch.ones(1, 3, 2, device=device)
        people, counts = ops.group_tags(scores, scores.new_zeros(1, 3, 2, 2), tags)
        assert counts.item() == people.shape[1] == 6

    def test_broken_candidates_are_dropped(self, device):
        scores, xy, tags = candidates(1, 2, 3, 1, seed=0)
        scores[0, 0, 0], tags[0, 0, 1], xy[0, 0, 2, 1] = math.nan, math.inf, math.nan
        scores[0, 1] = 0.0
        _, counts = ops.group_tags(*(x.to(device) for x in (scores, xy, tags)))
        assert counts.item() == 0

    @pytest.mark.parametrize("order", [[0, 1], [0, 1, 1], [0, 1, 3]])
    def test_order_must_be_a_permutation(self, device, order):
        inputs = [x.to(device) for x in candidates(1, 3, 2, 1, seed=0)]
        with pytest.raises(RuntimeError, match="joint order"):
            ops.group_tags(*inputs, joint_order=order)


class TestRefinePeople:
    @pytest.mark.parametrize(("size", "read_at"), SIZES)
    @pytest.mark.parametrize("T", [1, 2, 3])
    @pytest.mark.parametrize("levels", [None, 4])
    def test_equals_reference(self, device, size, read_at, T, levels):
        heatmaps, tags = random_maps(2, 3, T, *size, levels=levels)
        inputs = candidates(2, 3, 4, T, seed=1)
        inputs[0][torch.rand(2, 3, 4, generator=seeded(2)) < 0.5] = 0
        people, counts = reference.group_tags(*inputs)
        ours = ops.refine_people(*(x.to(device) for x in (heatmaps, tags, people, counts)), read_at)
        close(ours, reference.refine_people(heatmaps, tags, people, counts, read_at), 1e-3)

    def test_broken_map_gives_nan_only_where_searched(self, device):
        heatmaps, tags = random_maps(1, 2, 1, 16, 16)
        heatmaps[0, 0, 3, 3] = tags[0, 1, 0, 9, 2] = math.nan
        people = torch.zeros(1, 2, 2, 4)
        people[0, 0, 0] = torch.tensor([1.0, 1.0, 0.5, 0.0])  # has joint 0, lacks joint 1
        moved = [x.to(device) for x in (heatmaps, tags, people, torch.tensor([1]))]
        scores = ops.refine_people(*moved, (32, 32))[..., 2]
        assert scores[0, 0].isnan().tolist() == [False, True]
        assert not scores[0, 1].any()


class TestAggregateHeatmaps:
    @pytest.mark.parametrize("maps", [1, 2])
    @pytest.mark.parametrize("flipped", [False, True])
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_equals_reference(self, device, maps, flipped, dtype):
        g = seeded()
        quarter = [torch.rand(2, 3, 7, 9, generator=g).to(dtype) for _ in range(2 * maps)]
        half = [torch.rand(2, 3, 14, 18, generator=g).to(dtype) for _ in range(2 * maps)]
        inputs = [quarter[:maps], half[:maps]]
        if flipped:
            inputs += [quarter[maps:], half[maps:]]
        moved = [[x.to(device) for x in one] for one in inputs]
        flip = [1, 0, 2] if flipped else []
        ours = ops.aggregate_heatmaps(*moved, flip=flip)
        close(ours, reference.aggregate_heatmaps(*inputs, flip=flip), 1e-6)
        assert ours.dtype == torch.float32

    def test_malformed_input(self, device):
        quarter, half = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 8, 8)
        with pytest.raises(RuntimeError):
            ops.aggregate_heatmaps([quarter.to(device)], [])
        one = [quarter.to(device)], [half.to(device)]
        with pytest.raises(RuntimeError, match="flip"):
            ops.aggregate_heatmaps(*one, *one, flip=[0, 1])


def op_calls(device):
    """One call of every operator, as (name, arguments)."""
    keypoints = (torch.rand(2, 3, 3, 3, generator=seeded()) * 32).to(device)
    heatmaps, tags = (x.to(device) for x in random_maps(2, 3, 2, 8, 9))
    mask = torch.ones(2, 8, 9, device=device)
    scores, indices = ops.topk_peaks(heatmaps, 4, 5, (16, 18), 0.1)
    xy, peak_tags = ops.read_peaks(heatmaps, tags, indices, (16, 18))
    people, counts = ops.group_tags(scores, xy, peak_tags)
    prediction = heatmaps.clone().requires_grad_()
    target = (4.0, 7.0, 10.0, "disc")
    half = torch.rand(2, 3, 16, 18, device=device)
    calls = {
        "render_heatmaps": (keypoints, [8, 4], [9, 5], [4.0, 8.0], [7.0, 7.0], [9.0, 9.0], "disc"),
        "heatmap_mse": (prediction, keypoints, mask, *target),
        "heatmap_mse_backward": (mask.new_ones(2), heatmaps, keypoints, None, *target),
        "topk_peaks": (heatmaps, 4, 5, 16, 18, 0.1),
        "read_peaks": (heatmaps, tags, indices, 16, 18, False),
        "group_tags": (scores, xy, peak_tags, [2, 0, 1], 30, 1.0, 0.1),
        "refine_people": (heatmaps, tags, people, counts, 16, 18, True),
        "aggregate_heatmaps": ([heatmaps], [half], [heatmaps], [half], [1, 0, 2]),
    }
    if torch.device(device).type == "cpu":
        settings = ([2, 0, 1], 30, 5, 1.0, 0.1, True, False, False)
        calls["decode_poses"] = (heatmaps, tags, 16, 18, *settings)
    return calls


@pytest.mark.parametrize("name", op_calls("cpu"))
def test_opcheck(device, name):
    calls = op_calls(device)
    if name not in calls:
        pytest.skip(f"{name} is for the CPU")
    torch.library.opcheck(getattr(torch.ops.dhn, name).default, calls[name])


def test_compile_traces_through(device):
    heatmaps, tags = (x.to(device) for x in random_maps(1, 3, 1, 8, 8))
    keypoints = (torch.rand(1, 2, 3, 3, generator=seeded()) * 32).to(device)

    def everything(heatmaps, tags, keypoints):
        loss = ops.heatmap_mse(heatmaps, keypoints, None, 4, 7, 10)
        target = ops.render_heatmaps(keypoints, (8, 8), 4, 7, 10)
        scores, indices = ops.topk_peaks(target, 4, 5, (16, 16))
        xy, peak_tags = ops.read_peaks(heatmaps, tags, indices, (16, 16))
        people, counts = ops.group_tags(scores, xy, peak_tags)
        return loss, ops.refine_people(heatmaps, tags, people, counts, (16, 16))

    traced = torch.compile(everything, backend="aot_eager", fullgraph=True)
    for a, b in zip(
        traced(heatmaps, tags, keypoints), everything(heatmaps, tags, keypoints), strict=True
    ):
        assert torch.equal(a, b)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_decode_ops_capture_in_a_cuda_graph():
    """No host synchronisation and no copy to the host before the result."""
    heatmaps, tags = (x.cuda() for x in random_maps(2, 3, 2, 32, 32))

    def decode():
        scores, indices = ops.topk_peaks(heatmaps, 30, 5, (64, 64), 0.1)
        xy, peak_tags = ops.read_peaks(heatmaps, tags, indices, (64, 64))
        people, counts = ops.group_tags(scores, xy, peak_tags)
        return ops.refine_people(heatmaps, tags, people, counts, (64, 64)), counts

    expected = decode()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = decode()
    graph.replay()
    torch.cuda.synchronize()
    for a, b in zip(captured, expected, strict=True):
        assert torch.equal(a, b)
