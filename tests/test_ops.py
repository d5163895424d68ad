"""Every operator against its plain PyTorch reference; imports only torch and pytest."""

import itertools
import math

import pytest
import torch

from dhn import ops, reference

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
        ],
    ),
]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
TARGETS = [("disc", 7.0, 10.0), ("disc", 3.0, 7.0), ("square", 2.0, 0.0)]


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_keypoints(B, P, J, extent, seed=0, dtype=torch.float32):
    """x, y a fifth of `extent` beyond [0, extent] on either side; a quarter of all invisible."""
    g = seeded(seed)
    xy = (torch.rand(B, P, J, 2, generator=g, dtype=dtype) * 1.4 - 0.2) * extent
    v = torch.randint(0, 4, (B, P, J, 1), generator=g).clamp(max=2).to(dtype)
    return torch.cat([xy, v], dim=-1)


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


class TestRenderHeatmaps:
    @pytest.mark.parametrize(("form", "sigma", "tau"), TARGETS)
    @pytest.mark.parametrize("units", ["input", "heatmap"])
    @pytest.mark.parametrize(
        ("P", "size", "stride"),
        [(0, (9, 7), 4), (5, (61, 67), 4), (31, (33, 1), 2), (3, (16, 24), 3)],
    )
    def test_equals_reference(self, device, P, size, stride, units, form, sigma, tau):
        keypoints = random_keypoints(2, P, 3, stride * max(size))
        args = (size, stride, sigma, tau, units, form)
        close(
            ops.render_heatmaps(keypoints.to(device), *args),
            reference.render_heatmaps(keypoints.double(), *args),
            1e-6,
        )

    def test_formula_at_single_pixels(self, device):
        keypoints = torch.tensor([[[[10.0, 20.0, 1.0]]]], device=device)
        heatmap = ops.render_heatmaps(keypoints, (16, 16), 4, 7, 10)[0, 0]
        # Map pixel (2, 4) lies at (10, 18); d = 2.
        assert heatmap[4, 2].item() == pytest.approx(math.exp(-4 / 49), abs=1e-6)
        # (4, 4) at (18, 18): d^2 = 68 <= 100. (5, 4) at (22, 18): d^2 = 148, beyond tau.
        assert heatmap[4, 4].item() == pytest.approx(math.exp(-68 / 49), abs=1e-6)
        assert heatmap[4, 5].item() == 0

    def test_joint_on_the_cut_is_inside(self, device):
        keypoints = torch.tensor([[[[16.0, 2.0, 1.0]]]], device=device)
        heatmap = ops.render_heatmaps(keypoints, (8, 8), 4, 7, 10)[0, 0]
        # (1, 0) at (6, 2) lies at exactly 10 = tau.
        assert heatmap[0, 1].item() == pytest.approx(math.exp(-100 / 49), abs=1e-6)

    def test_joint_outside_the_map(self, device):
        keypoints = torch.tensor([[[[-4.0, 2.0, 1.0]]]], device=device)
        assert ops.render_heatmaps(keypoints, (8, 8), 4, 7, 10)[0, 0, 0, 0] > 0
        assert not ops.render_heatmaps(keypoints, (8, 8), 4, 2, 0, "heatmap", "square").any()

    def test_square_is_higherhrnets(self, device):
        keypoints = torch.tensor([[[[33.9, 50.0, 2.0]]]], device=device)
        heatmap = ops.render_heatmaps(keypoints, (32, 32), 4, 2, 0, "heatmap", "square")[0, 0].cpu()
        expected = torch.zeros(32, 32)  # centre (8, 12), 15 x 15 pixels
        for v, u in itertools.product(range(5, 20), range(1, 16)):
            expected[v, u] = math.exp(-((u - 8) ** 2 + (v - 12) ** 2) / 8)
        torch.testing.assert_close(heatmap, expected, rtol=0, atol=1e-6)

    def test_broken_coordinates_draw_nothing(self, device):
        keypoints = torch.tensor([[[[math.nan, 2.0, 1.0]], [[math.inf, 2.0, 1.0]]]], device=device)
        assert not ops.render_heatmaps(keypoints, (8, 8), 4, 7, 10).any()

    def test_pyramid_is_each_map(self, device):
        keypoints = random_keypoints(2, 4, 3, 128).to(device)
        sizes, strides = [(32, 32), (64, 64)] * 2, [4, 2] * 2
        sigmas, taus = [7.0] * 4, [10.0, 10.0, 7.0, 7.0]
        maps = ops.render_heatmap_pyramid(keypoints, sizes, strides, sigmas, taus)
        for one, args in zip(maps, zip(sizes, strides, sigmas, taus, strict=True), strict=True):
            assert torch.equal(one, ops.render_heatmaps(keypoints, *args))

    def test_float64_on_cpu(self):
        keypoints = random_keypoints(1, 4, 3, 64, dtype=torch.float64)
        args = (keypoints, (16, 16), 4, 7, 10)
        close(ops.render_heatmaps(*args), reference.render_heatmaps(*args), 1e-12)

    def test_malformed_input(self, device):
        keypoints = torch.zeros(1, 2, 3, 3, device=device)
        with pytest.raises(RuntimeError, match="keypoints"):
            ops.render_heatmaps(keypoints[0], (8, 8), 4, 7, 10)
        with pytest.raises(RuntimeError, match="positive"):
            ops.render_heatmaps(keypoints, (8, 8), 4, 0, 10)
        with pytest.raises(ValueError, match="units"):
            ops.render_heatmaps(keypoints, (8, 8), 4, 7, 10, "pixels")


class TestHeatmapMse:
    @pytest.mark.parametrize(("form", "sigma", "tau"), TARGETS)
    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize("P", [0, 1, 6])
    def test_loss_and_gradient_equal_reference(self, device, P, masked, form, sigma, tau):
        keypoints = random_keypoints(3, P, 4, 120)
        prediction = torch.rand(3, 4, 30, 37, generator=seeded(1))
        mask = torch.rand(3, 30, 37, generator=seeded(2)) > 0.3 if masked else None
        args = (4, sigma, tau, "heatmap" if form == "square" else "input", form)

        ours = prediction.to(device, copy=True).requires_grad_()
        moved = mask if mask is None else mask.to(device)
        loss = ops.heatmap_mse(ours, keypoints.to(device), moved, *args)
        weights = torch.tensor([1.0, -2.0, 3.0])
        (loss * weights.to(device)).sum().backward()

        theirs = prediction.double().requires_grad_()
        expected = reference.heatmap_mse(theirs, keypoints, mask, *args)
        (expected * weights).sum().backward()
        close(loss, expected, 1e-6)
        close(ours.grad, theirs.grad, 1e-9)

    def test_gradcheck(self):
        keypoints = random_keypoints(2, 3, 2, 24)
        prediction = torch.rand(2, 2, 6, 7, generator=seeded(), dtype=torch.float64)
        mask = torch.rand(2, 6, 7, generator=seeded(1), dtype=torch.float64)

        def loss(prediction):
            return ops.heatmap_mse(prediction, keypoints, mask, 4, 7, 10)

        assert torch.autograd.gradcheck(loss, (prediction.requires_grad_(),))

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_dtypes_and_strides(self, device, dtype):
        keypoints = random_keypoints(2, 3, 4, 60)
        prediction = torch.rand(2, 15, 16, 4, generator=seeded()).to(dtype).permute(0, 3, 1, 2)
        ours = prediction.to(device).requires_grad_()
        loss = ops.heatmap_mse(ours, keypoints.to(device), None, 4, 7, 10)
        loss.sum().backward()
        close(loss, reference.heatmap_mse(prediction, keypoints, None, 4, 7, 10), 1e-6)
        assert loss.dtype == torch.float32
        assert ours.grad.dtype == dtype

    def test_malformed_input(self, device):
        keypoints = torch.zeros(1, 2, 3, 3, device=device)
        prediction = torch.zeros(1, 3, 8, 8, device=device)
        with pytest.raises(RuntimeError, match="keypoints"):
            ops.heatmap_mse(prediction[:, :2], keypoints, None, 4, 7, 10)
        with pytest.raises(RuntimeError, match="mask"):
            ops.heatmap_mse(prediction, keypoints, prediction[0, :, :7], 4, 7, 10)


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

    def test_reference_upsamples_as_torch_does(self):
        for size, read_at in SIZES:
            heatmaps, _ = random_maps(1, 2, 1, *size)
            torchs = torch.nn.functional.interpolate(heatmaps, read_at, mode="bilinear")
            close(reference.upsample(heatmaps, read_at), torchs, 1e-5)

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

    def test_far_candidate_founds_a_person(self, device):
        scores = torch.full((1, 2, 1), 0.5, device=device)
        tags = torch.tensor([0.0, 1.0], device=device).view(1, 2, 1, 1)  # 1.0 is not nearer than 1
        _, counts = ops.group_tags(scores, scores.new_zeros(1, 2, 1, 2), tags)
        assert counts.item() == 2

    def test_every_candidate_can_found_a_person(self, device):
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


class TestAssignment:
    @pytest.mark.parametrize("rows", range(1, 6))
    @pytest.mark.parametrize("columns", range(1, 6))
    def test_reference_finds_the_least_cost(self, rows, columns):
        for seed in range(20):
            cost = torch.randint(0, 6, (rows, columns), generator=seeded(seed)).tolist()
            pairs = reference.assign(cost)
            n = min(rows, columns)
            assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == n
            least = min(
                sum(cost[i][j] for i, j in zip(some_rows, some_columns, strict=True))
                for some_rows in itertools.combinations(range(rows), n)
                for some_columns in itertools.permutations(range(columns), n)
            )
            assert sum(cost[i][j] for i, j in pairs) == least


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
    keypoints = random_keypoints(2, 3, 3, 32).to(device)
    heatmaps, tags = (x.to(device) for x in random_maps(2, 3, 2, 8, 9))
    mask = torch.ones(2, 8, 9, device=device)
    scores, indices = ops.topk_peaks(heatmaps, 4, 5, (16, 18), 0.1)
    xy, peak_tags = ops.read_peaks(heatmaps, tags, indices, (16, 18))
    people, counts = ops.group_tags(scores, xy, peak_tags)
    prediction = heatmaps.clone().requires_grad_()
    target = (4.0, 7.0, 10.0, False)
    half = torch.rand(2, 3, 16, 18, device=device)
    return {
        "render_heatmaps": (keypoints, [8, 4], [9, 5], [4.0, 8.0], [7.0, 7.0], [9.0, 9.0], False),
        "heatmap_mse": (prediction, keypoints, mask, *target),
        "heatmap_mse_backward": (mask.new_ones(2), heatmaps, keypoints, None, *target),
        "topk_peaks": (heatmaps, 4, 5, 16, 18, 0.1),
        "read_peaks": (heatmaps, tags, indices, 16, 18, False),
        "group_tags": (scores, xy, peak_tags, [2, 0, 1], 30, 1.0, 0.1),
        "refine_people": (heatmaps, tags, people, counts, 16, 18, True),
        "aggregate_heatmaps": ([heatmaps], [half], [heatmaps], [half], [1, 0, 2]),
    }


@pytest.mark.parametrize("name", op_calls("cpu"))
def test_opcheck(device, name):
    torch.library.opcheck(getattr(torch.ops.dhn, name).default, op_calls(device)[name])


def test_compile_traces_through(device):
    heatmaps, tags = (x.to(device) for x in random_maps(1, 3, 1, 8, 8))
    keypoints = random_keypoints(1, 2, 3, 32).to(device)

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
