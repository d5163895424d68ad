"""Prediction at several scales, against each scale by itself."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from dhn.base.errors import SettingError
from dhn.bench.untrained import ColourNetwork
from dhn.cli import main
from dhn.data.joints import CROWDPOSE
from dhn.inference.predictor import Predictor
from dhn.inference.scales import checked_scales, merge_scales, place

J = len(CROWDPOSE)
SETS = [(1.0,), (1.0, 2.0), (0.5, 1.0, 2.0), (0.75, 1.0, 1.5), (0.125, 1.0)]


@given(
    width=st.integers(1, 3000),
    height=st.integers(1, 3000),
    input_size=st.integers(1, 32).map(lambda n: 64 * n),
    scales=st.sampled_from(SETS),
)
def test_the_inputs_of_all_scales_show_the_same(width, height, input_size, scales):
    placed = place((width, height), input_size, scales)
    corners = np.array([[0, 0], [width, height], [width / 3, height / 5]])

    assert placed.size == placed.sizes[scales.index(1)]
    at_one = placed.sampling[scales.index(1)].apply(corners)
    np.testing.assert_allclose(placed.back.apply(at_one), corners, atol=1e-6)
    for scale, affine, (W, H) in zip(scales, placed.sampling, placed.sizes, strict=True):
        assert tuple(scale * side for side in placed.size) == (W, H)
        assert W % 64 == H % 64 == 0
        np.testing.assert_allclose(affine.apply(corners), scale * at_one)
        assert (affine.apply(corners) <= np.array([W, H]) + 1e-6).all()


def test_heatmaps_are_averaged_at_scale_1_and_tags_are_those_of_scale_1():
    generator = torch.Generator().manual_seed(0)
    maps = [
        (
            torch.rand(2, J, h, 2 * h, generator=generator),
            torch.rand(2, J, 2, h, 2 * h, generator=generator),
        )
        for h in (8, 16, 32)
    ]
    before = [[part.clone() for part in pair] for pair in maps]

    heatmaps, tags = merge_scales(maps, (0.5, 1.0, 2.0), (64, 32))

    for b in range(2):
        for j in range(J):
            large = [
                F.interpolate(m[b, j][None, None], size=(32, 64), mode="bilinear")[0, 0]
                for m, _ in maps
            ]
            torch.testing.assert_close(heatmaps[b, j], sum(large) / 3)
            for t in range(2):
                one = maps[1][1][b, j, t][None, None]
                expected = F.interpolate(one, size=(32, 64), mode="bilinear")[0, 0]
                torch.testing.assert_close(tags[b, j, t], expected)
    for pair, old in zip(maps, before, strict=True):
        for part, was in zip(pair, old, strict=True):
            torch.testing.assert_close(part, was, rtol=0, atol=0)


def test_images_of_one_size_run_as_one_batch_per_scale_and_equal_themselves_alone(monkeypatch):
    rng = np.random.default_rng(0)
    shapes = [(64, 100), (200, 70), (64, 100)]
    images = [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]
    predictor = Predictor(ColourNetwork(J), CROWDPOSE, input_size=64, scales=(2, 0.5, 1))
    batches = []
    run = predictor._run
    monkeypatch.setattr(
        predictor, "_run", lambda batch: (batches.append(tuple(batch.shape)), run(batch))[1]
    )

    together = predictor(images)

    assert batches == [
        *((2, 3, h, w) for h, w in ((64, 64), (128, 128), (256, 256))),
        *((1, 3, h, w) for h, w in ((128, 64), (256, 128), (512, 256))),
    ]
    for people, image in zip(together, images, strict=True):
        np.testing.assert_array_equal(people.keypoints, predictor(image).keypoints)
    assert predictor.settings["scales"] == [0.5, 1, 2]


@pytest.mark.parametrize(
    ("scales", "complaint"),
    [
        ((0.5, 2), "1 must be among them"),
        ((1, 1), "named twice"),
        ((1, 0), "multiple of 1/8"),
        ((1, 0.3), "multiple of 1/8"),
        ((1, float("nan")), "multiple of 1/8"),
        ((1, float("inf")), "multiple of 1/8"),
        ((), "1 must be among them"),
    ],
)
def test_scales_that_cannot_be_had_are_refused(scales, complaint):
    with pytest.raises(SettingError, match=complaint):
        checked_scales(scales)


def test_parity_refuses_inputs_that_the_official_network_could_not_take():
    predictor = Predictor(ColourNetwork(J), CROWDPOSE, scales=(0.75, 1), parity=True)
    with pytest.raises(SettingError, match="leave parity out"):
        predictor(np.zeros((100, 110, 3), np.uint8))


def test_the_command_takes_scales(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loaded = {}

    def load(checkpoint, **options):
        loaded.update(options)
        raise SettingError("scales", "0.5,2", "1 must be among them")

    monkeypatch.setattr("dhn.load", load)
    (tmp_path / "photo.png").write_bytes(b"")
    result = CliRunner().invoke(main, ["predict", "photo.png", "--scales", "0.5,2"])
    assert (result.exit_code, loaded["scales"]) == (1, (0.5, 2.0))
    assert result.output == "Error: --scales 0.5,2: 1 must be among them\n"
    result = CliRunner().invoke(main, ["eval", "--scales", "big"])
    assert result.exit_code == 2
    assert "no list of numbers" in result.output
