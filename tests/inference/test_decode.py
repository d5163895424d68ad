"""Decode against the published steps over really upsampled maps; imports only torch and pytest."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from dhn.base.errors import DhnError
from dhn.bench.scenes import annotated_scenes, crowd, scene_from_keypoints
from dhn.inference import decode
from dhn.inference.decode import (
    DecodeConfig,
    _decode_by_steps,
    _decodes_there,
    decode_poses,
    find_peaks,
)
from dhn.ops import reference
from dhn.ops.settings import OnCuda

PEOPLE = (0, 1, 5, 40)
# (h, w) of maps and (H, W) of the input: doubled, not exactly doubled, other ratios, as they stand.
SIZES = [
    ((24, 32), (48, 64)),
    ((23, 37), (45, 75)),
    ((16, 16), (64, 50)),
    ((31, 17), (31, 17)),
    ((1, 9), (2, 18)),
    ((40, 12), (29, 12)),
]


def random_scene(seed, people, joints, T, size, levels=None):
    """Blobs and tags of `people` anywhere on maps [1, J, h, w]; with `levels` scores tie."""
    g = torch.Generator().manual_seed(seed)
    h, w = size
    heatmaps = 0.05 * torch.rand(1, joints, h, w, generator=g)
    tags = 0.3 * torch.randn(1, joints, T, h, w, generator=g)
    rows, columns = torch.arange(h)[:, None], torch.arange(w)
    for p in range(people):
        for j in range(joints):
            u, v, score, absent = torch.rand(4, generator=g).tolist()
            if absent < 0.25:
                continue
            distance2 = (columns - u * w) ** 2 + (rows - v * h) ** 2
            blob = (0.05 + 0.95 * score) * torch.exp(-distance2 / 4)
            heatmaps[0, j] = heatmaps[0, j].maximum(blob)
            tags[0, j, :, distance2 < 9] = 2.0 * p + 0.1 * torch.randn(T, 1, generator=g)
    if levels:
        heatmaps = (heatmaps * levels).round() / levels
    return heatmaps, tags


def assert_same(ours, theirs):
    """Poses of every image against the keypoints and scores that the reference gives."""
    for poses, keypoints, grouped, scores in zip(ours, *theirs, strict=True):
        assert len(poses) == len(keypoints)
        assert torch.equal(poses.grouped.cpu(), grouped)
        torch.testing.assert_close(poses.keypoints.cpu(), keypoints, rtol=0, atol=1e-3)
        torch.testing.assert_close(poses.scores.cpu(), scores, rtol=0, atol=1e-6)


@pytest.mark.parametrize("people", PEOPLE)
@pytest.mark.parametrize("levels", [None, 8])
@pytest.mark.parametrize("T", [1, 2])
def test_equals_published_decode(device, people, levels, T):
    """4 x 2 x 2 x 18 scenes in all."""
    for seed in range(18):
        size, read_at = SIZES[seed % len(SIZES)]
        # Of a crowd fewer joints: the reference looks for each one that a person lacks.
        joints = (5 if people == 40 else 14) if seed % 3 == 0 else 3
        heatmaps, tags = random_scene(seed, people, joints, T, size, levels)
        config = DecodeConfig(
            refine=seed % 4 != 3,
            subpixel=seed % 5 == 4,
            joint_order=tuple(reversed(range(joints))) if seed % 2 else None,
        )
        ours = decode_poses(heatmaps.to(device), tags.to(device), read_at, config)
        assert_same(ours, reference.decode_poses(heatmaps, tags, read_at, config))


@pytest.mark.parametrize("people", PEOPLE[1:])
def test_crowds_of_bodies(device, people):
    size = (160, 224)
    scene = scene_from_keypoints(crowd(people, size, seed=people), size, seed=people)
    ours = decode_poses(scene.heatmaps.to(device), scene.tags.to(device), size)
    assert_same(ours, reference.decode_poses(scene.heatmaps, scene.tags, size, DecodeConfig()))


@pytest.mark.parametrize("config", [
    DecodeConfig(nms_kernel=3, max_people=3),
    DecodeConfig(detection_threshold=0.3, tag_threshold=0.4),
    DecodeConfig(nms_kernel=9, detection_threshold=0.0, refine=False),
])  # fmt: skip
def test_settings(device, config):
    heatmaps, tags = random_scene(3, 5, 4, 1, (24, 32))
    ours = decode_poses(heatmaps.to(device), tags.to(device), (48, 64), config)
    assert_same(ours, reference.decode_poses(heatmaps, tags, (48, 64), config))


def test_more_people_than_the_gpu_groups(device):
    """With one more than the bound, the maps are decoded on the CPU."""
    heatmaps, tags = random_scene(5, 40, 2, 1, (24, 32))
    for most in (OnCuda.PEOPLE, OnCuda.PEOPLE + 1):
        config = DecodeConfig(max_people=most, detection_threshold=0, nms_kernel=1)
        ours = decode_poses(heatmaps.to(device), tags.to(device), (24, 32), config)
        assert len(ours[0]) > 30
        assert_same(ours, reference.decode_poses(heatmaps, tags, (24, 32), config))


def test_the_bounds_of_the_kernels_are_known():
    csrc = Path(__file__).parents[2] / "csrc" / "cuda"
    sources = (csrc / "group_tags.cuh").read_text() + (csrc / "topk_peaks.cuh").read_text()
    names = ("kMaxGroup", "kMaxOrder", "kMaxTagDims", "kMaxPeakRadius")
    found = [int(re.search(rf"{name} = (\d+);", sources)[1]) for name in names]
    assert found == [OnCuda.PEOPLE, OnCuda.JOINTS, OnCuda.TAGS, OnCuda.KERNEL // 2]


@pytest.mark.parametrize(
    ("J", "T", "changes", "there"),
    [
        (256, 8, {"max_people": 128, "nms_kernel": 15}, True),
        (2, 1, {"max_people": 129}, False),
        (2, 1, {"nms_kernel": 17}, False),
        (257, 1, {}, False),
        (2, 9, {}, False),
    ],
)
def test_what_cuda_has_no_room_for_goes_to_the_cpu(monkeypatch, J, T, changes, there):
    """On fake CUDA maps, with and without kernels."""
    monkeypatch.setattr(decode, "has_kernels", lambda device: True)
    config = DecodeConfig(**changes)
    with FakeTensorMode():
        heatmaps = torch.empty(1, J, 4, 4, device="cuda")
        tags = torch.empty(1, J, T, 4, 4, device="cuda")
        assert _decodes_there(heatmaps, tags, config) == there
        monkeypatch.setattr(decode, "has_kernels", lambda device: False)
        assert not _decodes_there(heatmaps, tags, config)
        assert _decodes_there(heatmaps.cpu(), tags.cpu(), config)


def test_maps_and_peaks_without_kernels_are_decoded_on_the_cpu(monkeypatch):
    seen = []

    def group(*arguments):
        seen.extend(x.device.type for x in arguments if isinstance(x, torch.Tensor))
        raise _StopError

    class _StopError(Exception):
        pass

    monkeypatch.setattr(decode, "has_kernels", lambda device: False)
    monkeypatch.setattr(decode.ops, "group_tags", group)
    with FakeTensorMode():
        heatmaps = torch.empty(1, 2, 4, 4, device="cuda")
        scores = torch.empty(1, 2, 30, device="cuda")
        peaks = decode.Peaks(scores, torch.empty(1, 2, 30, 2, device="cuda"), scores.unsqueeze(-1))
        with pytest.raises(_StopError):
            decode_poses(heatmaps, heatmaps.unsqueeze(2), (8, 8), peaks=peaks)
    assert seen == ["cpu"] * 3


def test_more_pixels_than_a_search_keeps(device):
    """32 input pixels to a map pixel: every tile is forgotten for the next one."""
    heatmaps, tags = random_scene(4, 5, 3, 2, (12, 20))
    ours = decode_poses(heatmaps.to(device), tags.to(device), (384, 640))
    assert_same(ours, reference.decode_poses(heatmaps, tags, (384, 640), DecodeConfig()))


def test_real_annotations(device, shared):
    path = shared / "data/crowdpose/json/crowdpose_val.json"
    for scene in annotated_scenes(path, 6, short=128):
        heatmaps, tags = scene.heatmaps.to(device), scene.tags.to(device)
        ours = decode_poses(heatmaps, tags, scene.size)
        expected = reference.decode_poses(scene.heatmaps, scene.tags, scene.size, DecodeConfig())
        assert_same(ours, expected)


def test_batch_is_each_image(device):
    scenes = [random_scene(seed, people, 3, 2, (17, 20)) for seed, people in enumerate(PEOPLE)]
    heatmaps, tags = (torch.cat(maps).to(device) for maps in zip(*scenes, strict=True))
    together = decode_poses(heatmaps, tags, (34, 40))
    alone = [decode_poses(*(x.to(device) for x in scene), (34, 40))[0] for scene in scenes]
    for a, b in zip(together, alone, strict=True):
        assert torch.equal(a.keypoints, b.keypoints)
        assert torch.equal(a.scores, b.scores)


@pytest.mark.parametrize("config", [
    DecodeConfig(),
    DecodeConfig(subpixel=True, munkres=True),
    DecodeConfig(nms_kernel=3, max_people=3, tag_threshold=0.5, joint_order=(2, 0, 1)),
    DecodeConfig(detection_threshold=0.3, refine=False),
])  # fmt: skip
@pytest.mark.parametrize("levels", [None, 8])
def test_one_call_gives_what_the_steps_give(config, levels):
    """To the bit; what has its peaks already, as on a GPU, goes step by step."""
    for seed, (size, read_at) in enumerate(SIZES):
        scenes = [random_scene(seed + 9 * n, n, 3, 1 + seed % 3, size, levels) for n in PEOPLE]
        heatmaps, tags = (torch.cat(maps) for maps in zip(*scenes, strict=True))
        peaks = find_peaks(heatmaps, tags, read_at, config)
        stepwise = _decode_by_steps(heatmaps, tags, read_at, config, peaks)
        for a, b in zip(decode_poses(heatmaps, tags, read_at, config), stepwise, strict=True):
            assert torch.equal(a.keypoints, b.keypoints)
            torch.testing.assert_close(a.scores, b.scores, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtypes_and_strides(device, dtype):
    heatmaps, tags = (x.to(dtype) for x in random_scene(1, 4, 3, 2, (24, 32)))
    expected = reference.decode_poses(heatmaps, tags, (48, 64), DecodeConfig())
    heatmaps = heatmaps.to(device, memory_format=torch.channels_last)
    tags = tags.to(device).transpose(2, 4).contiguous().transpose(2, 4)
    assert_same(decode_poses(heatmaps, tags, (48, 64)), expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_do_not_matter(threads):
    heatmaps, tags = random_scene(2, 5, 14, 2, (24, 32))
    (expected,) = decode_poses(heatmaps, tags, (48, 64))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        (poses,) = decode_poses(heatmaps, tags, (48, 64))
        assert torch.equal(poses.keypoints, expected.keypoints)
        assert torch.equal(poses.scores, expected.scores)
    finally:
        torch.set_num_threads(before)


def test_nobody(device):
    maps = torch.zeros(2, 3, 8, 8, device=device)
    for poses in decode_poses(maps, maps[:, :, None], (16, 16)):
        assert poses.keypoints.shape == (0, 3, 3)
        assert poses.scores.shape == (0,)


def test_empty_batch(device):
    maps = torch.zeros(0, 3, 8, 8, device=device)
    assert decode_poses(maps, maps[:, :, None], (16, 16)) == []


def test_missing_joints_are_zero_without_refinement(device):
    heatmaps = torch.zeros(1, 2, 16, 16, device=device)
    heatmaps[0, 0, 4, 6] = 0.8
    poses = decode_poses(heatmaps, heatmaps[:, :, None] * 0, (32, 32), DecodeConfig(refine=False))
    assert poses[0].keypoints[0, 1].tolist() == [0, 0, 0]


def test_person_score_is_the_mean_before_refinement(device):
    heatmaps, tags = random_scene(5, 3, 6, 1, (24, 32))
    heatmaps, tags = heatmaps.to(device), tags.to(device)
    refined = decode_poses(heatmaps, tags, (48, 64))[0]
    plain = decode_poses(heatmaps, tags, (48, 64), DecodeConfig(refine=False))[0]
    assert torch.equal(refined.scores, plain.scores)
    torch.testing.assert_close(plain.scores, plain.keypoints[..., 2].mean(1))
    assert (refined.keypoints[..., 2] > 0).sum() > (plain.keypoints[..., 2] > 0).sum()


def test_more_people_than_candidates_per_joint(device):
    """Where tags never agree, every candidate starts a new person."""
    heatmaps, tags = random_scene(7, 10, 3, 1, (48, 48))
    tags = tags + 50 * torch.arange(3).view(1, 3, 1, 1, 1)
    config = DecodeConfig(max_people=4, refine=False)
    assert len(decode_poses(heatmaps.to(device), tags.to(device), (96, 96), config)[0]) == 12


def test_subpixel_halves_the_distance_to_the_truth(device):
    """Median over joints scoring above .3, input pixels; generated people on noisy maps."""
    size = (256, 384)
    distances: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(4):
        keypoints = crowd(3, size, seed)
        scene = scene_from_keypoints(keypoints, size, seed)
        for subpixel, found in distances.items():
            config = DecodeConfig(subpixel=subpixel, refine=False)
            poses = decode_poses(scene.heatmaps.to(device), scene.tags.to(device), size, config)
            for j in range(keypoints.shape[2]):
                ours = poses[0].keypoints[:, j].cpu()
                truth = keypoints[0, keypoints[0, :, j, 2] > 0, j, :2]
                near = torch.cdist(ours[ours[:, 2] > 0.3, :2], truth).amin(1)
                found.extend(near.tolist())
    published, fitted = (torch.tensor(distances[key]).median() for key in (False, True))
    assert fitted < published / 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_broken_heatmaps(device, value):
    heatmaps, tags = random_scene(0, 2, 3, 1, (16, 16))
    heatmaps[0, 2, 15, 3] = value
    with pytest.raises(DhnError, match="NaN or infinity"):
        decode_poses(heatmaps.to(device), tags.to(device), (32, 32))


def test_broken_tags(device):
    heatmaps, tags = random_scene(0, 2, 3, 1, (16, 16))
    tags[:] = math.nan
    with pytest.raises(DhnError, match="NaN or infinity"):
        decode_poses(heatmaps.to(device), tags.to(device), (32, 32))


def test_malformed_input(device):
    heatmaps = torch.zeros(1, 3, 8, 8, device=device)
    tags = heatmaps[:, :, None]
    for bad_heatmaps, bad_tags, size, config in (
        (heatmaps[0], tags, (16, 16), DecodeConfig()),
        (heatmaps, heatmaps, (16, 16), DecodeConfig()),
        (heatmaps, tags[:, :2], (16, 16), DecodeConfig()),
        (heatmaps, tags[..., :7], (16, 16), DecodeConfig()),
        (heatmaps, tags, (16, 0), DecodeConfig()),
        (heatmaps, tags, (16, 16), DecodeConfig(joint_order=(0, 1))),
        (heatmaps, tags, (16, 16), DecodeConfig(joint_order=(0, 1, 1))),
    ):
        with pytest.raises(ValueError, match=r"must be|cannot be"):
            decode_poses(bad_heatmaps, bad_tags, size, config)


@pytest.mark.parametrize(
    "change", [{"nms_kernel": 4}, {"max_people": 0}, {"detection_threshold": 2}]
)
def test_config_is_validated(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(DecodeConfig(), **change)
