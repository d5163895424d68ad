import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assertions import complaint
from dhn.base.errors import DhnError
from dhn.data.geometry import input_transform
from dhn.data.joints import COCO, CROWDPOSE
from dhn.inference.aggregate import aggregate
from dhn.inference.decode import DecodeConfig
from dhn.inference.people import People
from dhn.inference.predictor import Predictor
from dhn.media.images import write_image
from dhn.model import PoseMaps, build_model
from dhn.model.normalise import normalise
from dhn.ops import reference

J = len(CROWDPOSE)
SMALL = {"width": 8, "modules": (1, 1, 1), "blocks": 1, "stem": 8}


class FixedMaps(nn.Module):
    """A network that gives the same maps for every image: plain ones, then mirrored ones."""

    seen: Tensor  # the latest input; of the class, because Predictor runs a copy

    def __init__(self, *passes: PoseMaps) -> None:
        super().__init__()
        self.passes = passes

    def forward(self, x: Tensor) -> PoseMaps:
        FixedMaps.seen = x
        return PoseMaps(
            *(
                [torch.cat(m) for m in zip(*maps, strict=True)]
                for maps in zip(*self.passes, strict=True)
            )
        )


class DotFinder(nn.Module):
    """Sees a red dot as joint 0 and a green one as joint 1, at 1/4 and at 1/2.

    The 1/2 map is the mean of the colour in its 2 x 2 pixels: a peak at the dot. Tags are 0.
    """

    def forward(self, x: Tensor) -> PoseMaps:
        std, mean = x.new_tensor([0.229, 0.224]), x.new_tensor([0.485, 0.456])
        colour = x[:, :2].float() * std[:, None, None] + mean[:, None, None]  # 0..1
        maps = F.pad(colour, (0, 0, 0, 0, 0, J - 2))
        quarter, half = F.avg_pool2d(maps, 4), F.avg_pool2d(maps, 2)
        return PoseMaps([quarter, half, quarter, half], [torch.zeros_like(quarter)] * 2)


def random_maps(stages: int, seed: int, halves: bool = True, B: int = 1) -> PoseMaps:
    g = torch.Generator().manual_seed(seed)
    quarter = [torch.randn(B, J, 16, 24, generator=g) for _ in range(stages)]
    half = [torch.randn(B, J, 32, 48, generator=g) for _ in range(stages)]
    heatmaps = [m for pair in zip(quarter, half, strict=True) for m in pair] if halves else quarter
    return PoseMaps(heatmaps, [torch.randn(B, J, 16, 24, generator=g) for _ in range(stages)])


def slow_aggregate(plain, mirrored, flip, fine_only):
    """Paper section 3.5, joint by joint."""

    def up(m):
        return F.interpolate(m[None, None], scale_factor=2, mode="bilinear", align_corners=False)[
            0, 0
        ]

    def one_pass(maps):
        heatmaps = maps.heatmaps
        stages = (
            [heatmaps[2:]]
            if fine_only and len(heatmaps) == 4
            else [heatmaps[i : i + 2] for i in range(0, len(heatmaps), 2)]
        )
        B = len(heatmaps[0])
        out = torch.zeros(heatmaps[1].shape)
        for b in range(B):
            for j in range(J):
                quarter = sum(s[0][b, j] for s in stages) / len(stages)
                half = sum(s[1][b, j] for s in stages) / len(stages)
                out[b, j] = (up(quarter) + half) / 2
        return out, torch.stack([torch.stack([up(t) for t in row]) for row in maps.tags[-1]])

    heatmaps, tags = one_pass(plain)
    if mirrored is None:
        return heatmaps, tags[:, :, None]
    other, other_tags = one_pass(mirrored)
    back, back_tags = torch.zeros_like(heatmaps), torch.zeros_like(tags)
    for j in range(J):
        back[:, j] = other[:, flip[j]].flip(2)
        back_tags[:, j] = other_tags[:, flip[j]].flip(2)
    return (heatmaps + back) / 2, torch.stack([tags, back_tags], 2)


@pytest.mark.parametrize("stages", [1, 2])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("fine_only", [False, True])
@pytest.mark.parametrize("native", [False, True])
def test_aggregate_is_the_plain_one(stages, flip, fine_only, native):
    plain = random_maps(stages, 0, B=2)
    mirrored = random_maps(stages, 1, B=2) if flip else None
    got = aggregate(plain, mirrored, CROWDPOSE.flip, fine_only=fine_only, native=native)
    expected = slow_aggregate(plain, mirrored, CROWDPOSE.flip, fine_only)
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("fine_only", [False, True])
def test_aggregate_of_quarter_maps_alone(flip, fine_only):
    plain = random_maps(1, 0, halves=False)
    mirrored = random_maps(1, 1, halves=False) if flip else None
    heatmaps, tags = aggregate(plain, mirrored, CROWDPOSE.flip, fine_only=fine_only)
    back = [m[0].flip(3)[:, list(CROWDPOSE.flip)] for m in mirrored or ()]
    expected = (plain.heatmaps[0] + back[0]) / 2 if flip else plain.heatmaps[0]
    torch.testing.assert_close(heatmaps, expected)
    torch.testing.assert_close(tags, torch.stack([plain.tags[0], *back[1:]], 2))


@pytest.mark.parametrize("native", [False, True])
def test_half_precision_maps_become_float32(native):
    plain, mirrored = random_maps(2, 0), random_maps(2, 1)
    half = [PoseMaps(*([m.bfloat16() for m in maps] for maps in p)) for p in (plain, mirrored)]
    wide = [PoseMaps(*([m.float() for m in maps] for maps in p)) for p in half]
    got, expected = (aggregate(*p, CROWDPOSE.flip, native=native) for p in (half, wide))
    assert [m.dtype for m in got] == [torch.float32] * 2
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_flip_runs_plain_and_mirrored_as_one_batch():
    plain, mirrored = random_maps(2, 0), random_maps(2, 1)
    network = FixedMaps(plain, mirrored)
    predictor = Predictor(network, CROWDPOSE, flip=True, precision="float32")
    images = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    got = predictor.maps(images)
    expected_input = normalise(torch.cat([images, images.flip(3)]))
    torch.testing.assert_close(network.seen, expected_input, atol=0, rtol=0)
    expected = slow_aggregate(plain, mirrored, CROWDPOSE.flip, False)
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def painted(width, height, *points):
    """A black image with a soft red dot at the first point and a green one at the second."""
    rows, columns = np.indices((height, width)) + 0.5
    rgb = np.zeros((height, width, 3), np.uint8)
    for channel, (x, y) in enumerate(points):
        spread = (0.03 * min(width, height)) ** 2
        rgb[..., channel] = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * spread))
    return rgb


def places(width, height):
    return (0.31 * width, 0.42 * height), (0.73 * width, 0.64 * height)


SIZES = [(200, 150), (150, 200), (64, 64), (301, 127), (640, 480), (97, 333)]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("subpixel", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_a_peak_comes_back_where_it_was_painted(size, flip, subpixel):
    points = places(*size)
    # Flipped, the network still calls the red dot joint 0: with joints that are their own
    # mirror images both passes must agree.
    joints = replace(CROWDPOSE, flip=tuple(range(J)))
    decode = DecodeConfig(subpixel=subpixel, refine=False)
    predictor = Predictor(DotFinder(), joints, input_size=256, flip=flip, decode=decode)
    (prediction,) = predictor([painted(*size, *points)])
    assert prediction.keypoints.shape == (1, J, 3)
    assert prediction.keypoints.dtype == prediction.scores.dtype == np.float32
    person = prediction.keypoints[0]
    # A pixel of the input, or of the image where that is the coarser one.
    tolerance = max(1, min(size) / 256) * (0.25 if subpixel else 1)
    np.testing.assert_allclose(person[:2, :2], points, atol=tolerance)
    assert (person[:2, 2] > 0.3).all()
    assert not person[2:].any()  # joints that were not found are zeros
    assert prediction.scores[0] == pytest.approx(person[:, 2].mean(), abs=1e-6)


def test_flip_exchanges_left_and_right():
    """The network calls red the left shoulder; in the mirrored pass it is the right one's place."""
    size = (200, 150)
    red, green = places(*size)
    predictor = Predictor(
        DotFinder(), CROWDPOSE, input_size=256, flip=True, decode=DecodeConfig(refine=False)
    )
    (prediction,) = predictor([painted(*size, red, green)])
    # Both joints have both dots at half the height: two people of two joints each.
    found = {
        (round(float(x) / 2) * 2, round(float(y) / 2) * 2)
        for x, y, s in prediction.keypoints.reshape(-1, 3)
        if s > 0
    }
    expected = {(round(x / 2) * 2, round(y / 2) * 2) for x, y in (red, green)}
    assert found == expected
    assert prediction.keypoints.shape[0] == 2


def test_images_of_different_shapes_in_one_call():
    predictor = Predictor(DotFinder(), CROWDPOSE, input_size=128, decode=DecodeConfig(refine=False))
    order = [0, 1, 0, 2, 3, 1]
    images = [painted(*SIZES[k], *places(*SIZES[k])) for k in order]
    together = predictor(images)
    assert predictor.timing.images == len(order)
    assert predictor.timing.network_seconds > 0
    for k, image, prediction in zip(order, images, together, strict=True):
        (alone,) = predictor([image])
        np.testing.assert_allclose(prediction.keypoints, alone.keypoints, atol=1e-4)
        np.testing.assert_allclose(prediction.scores, alone.scores, atol=1e-6)
        tolerance = max(1.5, min(SIZES[k]) / 128)
        np.testing.assert_allclose(
            prediction.keypoints[0, :2, :2], places(*SIZES[k]), atol=tolerance
        )


def test_one_image_or_a_list_of_any_kinds(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    predictor = Predictor(DotFinder(), CROWDPOSE, input_size=64, decode=DecodeConfig(refine=False))
    rgb = painted(70, 50, *places(70, 50))
    wide = painted(90, 40, *places(90, 40))
    write_image(tmp_path / "image.png", rgb)
    tensor = torch.from_numpy(rgb).permute(2, 0, 1)
    kinds = [rgb, str(tmp_path / "image.png"), tmp_path / "image.png", Image.fromarray(rgb), tensor]
    expected = predictor(rgb)
    assert isinstance(expected, People)
    assert len(expected) == 1
    for people in (*(predictor(kind) for kind in kinds), *predictor([*kinds, wide])[:-1]):
        np.testing.assert_array_equal(people.keypoints, expected.keypoints)
        np.testing.assert_array_equal(people.scores, expected.scores)
        np.testing.assert_array_equal(people.image, rgb)
        assert people.joints is CROWDPOSE
    (last,) = predictor((wide,))
    np.testing.assert_array_equal(last.keypoints, predictor(wide).keypoints)
    assert predictor([]) == []


def test_a_refused_image_is_named():
    predictor = Predictor(DotFinder(), CROWDPOSE, input_size=64)
    good, bad = np.zeros((50, 70, 3), np.uint8), np.full((50, 70), np.nan)
    assert complaint(predictor, bad).startswith("image: holds NaN")
    assert complaint(predictor, [good, good, bad]).startswith("images[2]: holds NaN")
    assert complaint(predictor, [good, "none.jpg"]).startswith("none.jpg: cannot be read")


@pytest.mark.parametrize("parity", [False, True])
@pytest.mark.parametrize(("size", "near"), [(500, 512), (0, 64), (-64, 64), (32, 64), (65, 64)])
def test_an_input_size_that_the_network_cannot_take(size, near, parity):
    message = complaint(Predictor, DotFinder(), CROWDPOSE, input_size=size, parity=parity)
    assert message == f"input_size {size}: must be a multiple of 64; take {near}"


def test_nobody_is_an_empty_prediction():
    predictor = Predictor(DotFinder(), CROWDPOSE, input_size=64, flip=True)
    nobody, somebody = predictor(
        [np.zeros((50, 70, 3), np.uint8), painted(70, 50, *places(70, 50))]
    )
    assert len(nobody) == 0
    assert nobody.keypoints.shape == (0, J, 3)
    assert nobody.scores.shape == (0,)
    assert len(somebody) > 0


@pytest.mark.parametrize("name", ["doublehighernet", "higherhrnet", "hrnet"])
def test_every_network_predicts_the_same_twice(name):
    torch.manual_seed(0)
    model = build_model(name, num_joints=J, **SMALL)
    for module in model.modules():  # maps worth decoding
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.weight, std=0.1)
    predictor = Predictor(model, CROWDPOSE, input_size=64, flip=True)
    images = np.random.default_rng(0).integers(0, 256, (2, 60, 80, 3), dtype=np.uint8)
    first, second = predictor(list(images)), predictor(list(images))
    assert sum(len(p.scores) for p in first) > 0
    for ours, theirs in zip(first, second, strict=True):
        np.testing.assert_array_equal(ours.keypoints, theirs.keypoints)
        np.testing.assert_array_equal(ours.scores, theirs.scores)


def test_a_prediction_is_warp_network_aggregation_and_decode():
    """Predictor against plain references of each step."""
    torch.manual_seed(1)
    model = build_model("doublehighernet", num_joints=J, **SMALL).eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.weight, std=0.2)
    image = np.random.default_rng(1).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    predictor = Predictor(
        model, CROWDPOSE, input_size=64, flip=True, precision="float32", nms_oks=1
    )
    (got,) = predictor([image])

    affine, (W, H) = input_transform((90, 60), 64)
    warped = cv2.warpAffine(image, affine.cv2_matrix(), (W, H), flags=cv2.INTER_LINEAR)
    batch = normalise(torch.from_numpy(warped).permute(2, 0, 1)[None])
    with torch.no_grad():
        heatmaps, tags = slow_aggregate(model(batch), model(batch.flip(3)), CROWDPOSE.flip, False)
    (keypoints,), _, _ = reference.decode_poses(heatmaps, tags, (H, W), DecodeConfig())
    keypoints = keypoints.numpy()
    assert len(keypoints) == len(got.scores) > 0
    found = keypoints[..., 2] > 0
    expected = affine.inverse().apply(keypoints[found, :2])
    np.testing.assert_allclose(got.keypoints[found, :2], expected, atol=1e-2)
    assert (got.keypoints[~found] == 0).all()


def test_joint_order_comes_from_the_joints_unless_given():
    model = DotFinder()
    assert Predictor(model, CROWDPOSE).decode.joint_order is None
    assert Predictor(model, COCO).decode.joint_order == COCO.grouping_order
    own = tuple(range(17))
    assert Predictor(model, COCO, decode=DecodeConfig(joint_order=own)).decode.joint_order == own


def test_a_broken_network_is_one_line():
    maps = random_maps(2, 0)
    maps.heatmaps[1][0, 3, 5, 5] = math.nan
    predictor = Predictor(FixedMaps(maps), CROWDPOSE, input_size=64)
    with pytest.raises(DhnError, match="NaN or infinity"):
        predictor([np.zeros((64, 96, 3), np.uint8)])


def trained_a_little(name="doublehighernet"):
    """A small network whose batch norms and heads say something, in training mode."""
    torch.manual_seed(0)
    model = build_model(name, num_joints=J, **SMALL)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.weight, std=0.1)
    for _ in range(3):
        model(torch.randn(2, 3, 64, 64))
    return model


def test_the_network_is_left_as_it_is():
    """Validation runs on the network that is being trained."""
    model = trained_a_little()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    predictor = Predictor(model, CROWDPOSE, input_size=64, precision="bfloat16")
    predictor([np.full((64, 64, 3), 77, np.uint8)])
    assert model.training
    after = model.state_dict()
    assert list(after) == list(before)
    for name, value in before.items():
        assert after[name].dtype == value.dtype
        assert torch.equal(after[name], value), name


@pytest.mark.parametrize("flip", [False, True])
def test_bfloat16_finds_about_the_same(flip):
    model = trained_a_little()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    rough, exact = (
        Predictor(model, CROWDPOSE, flip=flip, precision=precision).maps(images)
        for precision in ("bfloat16", "float32")
    )
    for ours, theirs in zip(rough, exact, strict=True):
        assert ours.dtype == torch.float32
        assert not torch.equal(ours, theirs)
        assert (ours - theirs).abs().max() < 0.05 * theirs.abs().max()


def test_auto_precision_is_what_the_hardware_multiplies(monkeypatch):
    for native, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr("dhn.base.device.multiplies_bfloat16", lambda _, native=native: native)
        predictor = Predictor(trained_a_little(), CROWDPOSE)
        assert {p.dtype for p in predictor.inference.parameters()} == {dtype}
