"""Parity with the official HigherHRNet code, on fixtures that it wrote (benchmarks/parity.py)."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from munkres import Munkres

from dhn import ops
from dhn.bench.untrained import ColourNetwork, randomise
from dhn.data.geometry import official_transform
from dhn.data.joints import COCO, CROWDPOSE, official_order
from dhn.inference.decode import DecodeConfig, decode_poses
from dhn.inference.predictor import Predictor
from dhn.model import build_model

FIXTURES = Path(__file__).parents[1] / "fixtures"


def official(name):
    """What the official code made of inputs that lie in the same file."""
    return np.load(FIXTURES / f"parity_{name}.npz")


@pytest.mark.parametrize("folded", [False, True])
@torch.no_grad()
def test_the_network_gives_the_official_outputs(folded):
    fixture = official("network")
    network = randomise(build_model("higherhrnet_w8", 14), seed=8)
    if folded:
        network = Predictor(network, CROWDPOSE, precision="float32").inference.network

    heatmaps, tags = network(torch.from_numpy(fixture["images"]).float() / 128 - 1)

    quarter = torch.cat([heatmaps[0], tags[0]], dim=1).numpy()
    for got, expected in ((quarter, fixture["quarter"]), (heatmaps[1].numpy(), fixture["half"])):
        assert np.abs(got - expected).max() < 1e-5 * np.abs(expected).max()


def test_images_are_placed_as_by_the_official_code():
    fixture = official("geometry")
    assert len(fixture.files) > 20
    for name in fixture.files:
        W, H, input_size = map(int, name.split())
        there, back, (size, _) = fixture[name]

        sampling, joints, got_size = official_transform((W, H), input_size)

        assert got_size == tuple(size[:2].astype(int)), name
        np.testing.assert_allclose(sampling.cv2_matrix(), there, rtol=1e-9, atol=1e-8)
        np.testing.assert_allclose(joints.matrix, back, rtol=1e-9, atol=1e-8)


def test_images_are_placed_at_several_scales_as_by_the_official_code():
    fixture = official("geometry_scales")
    assert len(fixture.files) > 30
    for name in fixture.files:
        W, H, input_size, scale = name.split()
        there, back, (size, _) = fixture[name]

        sampling, joints, got_size = official_transform(
            (int(W), int(H)), int(input_size), float(scale), 0.5
        )

        assert got_size == tuple(size[:2].astype(int)), name
        np.testing.assert_allclose(sampling.cv2_matrix(), there, rtol=1e-9, atol=1e-8)
        np.testing.assert_allclose(joints.matrix, back, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("joints", [CROWDPOSE, COCO], ids=lambda joints: joints.name)
def test_decode_finds_the_official_people(joints):
    fixture = official(f"decode_{joints.name}")
    heatmaps, tags = (torch.from_numpy(fixture[k]).float() for k in ("heatmaps", "tags"))
    config = DecodeConfig(joint_order=official_order(joints), munkres=True)

    (poses,) = decode_poses(heatmaps, tags, (64, 96), config)

    assert len(poses) == len(fixture["people"]) > 5
    np.testing.assert_allclose(poses.keypoints, fixture["people"], atol=1e-5)
    np.testing.assert_allclose(poses.scores, fixture["scores"], atol=1e-6)


@pytest.mark.parametrize("size", ["43x43", "50x100"])
def test_the_whole_way_from_image_to_poses_is_the_official_one(size):
    fixture = official(f"pipeline_{size}")
    image, placed, people = (fixture[k] for k in ("image", "placed", "people"))
    predictor = Predictor(ColourNetwork(14), CROWDPOSE, input_size=64, flip=True, parity=True)

    (prediction,) = predictor([image])

    sampling, _, input_size = official_transform(image.shape[1::-1], 64)
    np.testing.assert_array_equal(cv2.warpAffine(image, sampling.cv2_matrix(), input_size), placed)
    assert len(people) > 10
    assert (people[..., 2] > 0).sum() > 100
    np.testing.assert_allclose(prediction.keypoints, people, atol=0.01)


@pytest.mark.parametrize("size", ["43x43", "50x100"])
def test_three_scales_give_the_official_poses(size):
    fixture = official(f"scales_{size}")
    common = {"input_size": 128, "flip": True, "parity": True}
    predictor = Predictor(ColourNetwork(14), CROWDPOSE, scales=(0.5, 1, 2), **common)

    people = predictor(fixture["image"])

    assert (fixture["people"][..., 2] > 0).sum() > 100
    np.testing.assert_allclose(people.keypoints, fixture["people"], atol=0.01)
    alone = Predictor(ColourNetwork(14), CROWDPOSE, **common)(fixture["image"])
    same = alone.keypoints.shape == people.keypoints.shape
    assert not same or np.abs(alone.keypoints - people.keypoints).max() > 0.1


def test_the_default_is_not_the_official_placement():
    """Else the tests above would pass without the setting."""
    fixture = official("pipeline_43x43")
    predictor = Predictor(ColourNetwork(14), CROWDPOSE, input_size=64, flip=True)
    (prediction,) = predictor([fixture["image"]])
    same = prediction.keypoints.shape == fixture["people"].shape
    assert not same or np.abs(prediction.keypoints - fixture["people"]).max() > 0.1


def test_crowdpose_joints_are_grouped_in_the_order_of_cocos_list():
    assert official_order(CROWDPOSE) == (*range(7), 11, 12, 7, 8, 9, 10, 13)
    assert official_order(COCO) == COCO.grouping_order
    assert Predictor(ColourNetwork(14), CROWDPOSE).decode.joint_order is None


def group_as_official(scores, xy, tags, order, max_people, tag_threshold, detection_threshold):
    """One image's people, by the package that the official code calls; a list of {joint: k}."""
    people = []
    for j in order:
        candidates = [k for k in range(scores.shape[1]) if scores[j, k] > detection_threshold]
        known = people[:max_people]
        joined = {}
        if known and candidates:
            means = np.stack([np.mean([tags[i, k] for i, k in p.items()], axis=0) for p in known])
            distance = np.linalg.norm(tags[j, candidates][:, None].astype(float) - means, axis=2)
            cost = np.round(distance) * 100 - scores[j, candidates, None].astype(float)
            excess = max(0, len(candidates) - len(known))
            cost = np.pad(cost, ((0, 0), (0, excess)), constant_values=1e10)
            joined = {
                candidates[i]: p
                for i, p in Munkres().compute(cost)
                if p < len(known) and distance[i, p] < tag_threshold
            }
        for k in candidates:
            if k in joined:
                people[joined[k]][j] = k
            else:
                people.append({j: k})
    return people


@pytest.mark.parametrize("people", [3, 8, 30])
@pytest.mark.parametrize("T", [1, 2])
def test_equal_costs_are_resolved_as_by_the_package_munkres(people, T):
    generator = np.random.default_rng(people * 10 + T)
    for _ in range(40 if people < 30 else 4):
        J, K = 5, int(generator.integers(1, 12 if people < 30 else 31))
        scores = generator.random((J, K), np.float32)
        xy = generator.random((J, K, 2), np.float32) * 64
        # Tags closer than the rounding: most assignments have rivals of equal cost.
        tags = generator.normal(0, generator.choice([0.3, 1, 3]), (J, K, T)).astype(np.float32)
        order = generator.permutation(J).tolist()
        inputs = [torch.from_numpy(x)[None] for x in (scores, xy, tags)]
        settings = (order, people, 1.0, 0.1)
        expected = group_as_official(scores, xy, tags, *settings)

        found, counts = ops.group_tags(*inputs, *settings, munkres=True)

        assert counts.tolist() == [len(expected)]
        for row, person in zip(found[0].numpy(), expected, strict=False):
            assert np.flatnonzero(row[:, 2]).tolist() == sorted(person)
            for j, k in person.items():
                np.testing.assert_array_equal(row[j, :2], xy[j, k])


def test_both_assignments_group_alike_where_nothing_is_equal():
    generator = torch.Generator().manual_seed(0)
    person = torch.arange(6.0).view(1, 1, 6, 1) * 3
    tags = person + 0.1 * torch.randn(2, 4, 6, 2, generator=generator)
    scores = 0.2 + 0.7 * torch.rand(2, 4, 6, generator=generator)
    xy = 64 * torch.rand(2, 4, 6, 2, generator=generator)

    for mine, munkres in zip(
        ops.group_tags(scores, xy, tags),
        ops.group_tags(scores, xy, tags, munkres=True),
        strict=True,
    ):
        torch.testing.assert_close(mine, munkres, rtol=0, atol=0)


def test_huge_tags_do_not_hang_the_assignment():
    tags = torch.full((1, 2, 3, 1), 3e38)
    tags[0, 1] *= -1
    ones = torch.ones(1, 2, 3)
    _, counts = ops.group_tags(ones, torch.zeros(1, 2, 3, 2), tags, munkres=True)
    assert counts.tolist() == [6]
