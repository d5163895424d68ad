"""Exported files give what the network and the operators of decode give, in both formats."""

import functools
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import dhn
from dhn import ops
from dhn.base.errors import DhnError
from dhn.cli import main
from dhn.data.joints import COCO, CROWDPOSE
from dhn.inference import export as exporting
from dhn.inference import exported
from dhn.inference.aggregate import PoseInference
from dhn.inference.decode import DecodeConfig, Peaks, find_peaks
from dhn.inference.export import PoseGraph, export
from dhn.inference.exported import SUFFIXES, load_exported
from dhn.inference.load import load
from dhn.inference.predictor import Predictor
from tiny_exports import FORMATS, J, Pixels, pixels_inference
from tiny_networks import save_network

pytest.importorskip("onnxscript")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def random_images(shape, levels=256, seed=0):
    """Random grey levels in coarse blocks: plateaus, and the fewer levels, the more ties."""
    B, H, W = shape
    g = torch.Generator().manual_seed(seed)
    blocks = torch.randint(0, levels, (B, 3, H // 8, W // 8), generator=g) * (255 // (levels - 1))
    return blocks.to(torch.uint8).repeat_interleave(8, 2).repeat_interleave(8, 3)


@functools.cache
def opened(file: Path) -> exported.ExportedNetwork:
    return load_exported(file, "cpu", trust=True)


def check(file: Path, inference: PoseInference, images: Tensor) -> Peaks:
    """Maps to rounding, peaks bit by bit those that the operators find in the file's maps."""
    heatmaps, tags, peaks = opened(file)(images)
    with torch.no_grad():
        expected = inference(images)
    torch.testing.assert_close(heatmaps, expected[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(tags, expected[1], atol=1e-5, rtol=1e-5)
    config = DecodeConfig(detection_threshold=0)
    found = find_peaks(heatmaps, tags, tuple(images.shape[2:]), config)
    for ours, theirs in zip(peaks, found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=0, rtol=0)
    return peaks


# Each costs seconds; the real networks below are the other half of the combinations.
CASES = [("onnx", True, True), ("onnx", False, False), ("torch", True, True)]


@pytest.mark.slow
@pytest.mark.parametrize(("format", "flip", "halves"), CASES)
def test_any_batch_and_size(files, thorough, format, flip, halves):
    if not flip and not thorough:
        pytest.skip("takes ten seconds: only with --thorough")
    inference = pixels_inference(flip, halves)
    for seed, shape in enumerate([(1, 64, 64), (1, 64, 320), (4, 128, 64), (2, 192, 192)]):
        peaks = check(files(format, flip, halves), inference, random_images(shape, seed=seed))
        assert peaks.scores.shape == (shape[0], J, 30)
        assert peaks.tags.shape[3] == 1 + flip


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=10, deadline=None)
@given(
    levels=st.sampled_from([2, 2, 3, 16, 256]),
    shape=st.tuples(st.integers(1, 2), st.sampled_from([64, 128]), st.sampled_from([64, 192])),
    seed=st.integers(0, 2**16),
)
def test_equal_peaks_lowest_index_first(files, format, levels, shape, seed):
    images = random_images(shape, levels, seed)
    peaks = check(files(format), pixels_inference(True), images)
    if levels == 2:  # the case is there: equal scores, and more of them than places
        assert (peaks.scores.diff(dim=2) == 0)[peaks.scores[:, :, 1:] > 0].any()


@pytest.mark.parametrize("format", FORMATS)
def test_one_colour_is_one_plateau(files, format):
    images = torch.full((1, 3, 64, 128), 200, dtype=torch.uint8)
    peaks = check(files(format), pixels_inference(True), images)
    found = peaks.scores[0, :, 0] > 0
    assert found.any()
    expected = torch.arange(30) + torch.tensor(0.25)  # the first row's first pixels
    for xs in peaks.xy[0, found, :, 0]:
        torch.testing.assert_close(xs, expected.clamp(min=0.25), atol=0, rtol=0)


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
@pytest.mark.parametrize("stable_topk", [False, True])
def test_maps_that_are_not_finite_have_no_peaks(broken, stable_topk):
    inference = pixels_inference(True)
    inference.native = False
    with torch.no_grad():
        inference.network.half_head.bias[3] = broken
        peaks = PoseGraph(inference, stable_topk=stable_topk)(random_images((1, 64, 64)))[2:]
    bad = torch.tensor([j in (3, CROWDPOSE.flip[3]) for j in range(J)])
    assert torch.equal(peaks[0].isnan().all(2)[0], bad)
    assert torch.equal(peaks[0].isfinite().all(2)[0], ~bad)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "config",
    [
        DecodeConfig(),
        DecodeConfig(max_people=5),
        DecodeConfig(max_people=40),
        DecodeConfig(nms_kernel=9),
        DecodeConfig(subpixel=True),
        DecodeConfig(refine=False, detection_threshold=0),
    ],
)
def test_decode_settings_stay_free(files, format, config):
    # No plateaus and no black border: the order of equals is up to rounding, which differs here.
    images = list(np.random.default_rng(0).integers(0, 256, (2, 96, 192, 3), dtype=np.uint8))
    options = {"input_size": 128, "decode": config}
    ours = Predictor(opened(files(format)), CROWDPOSE, **options)(images)
    eager = Predictor(Pixels(), CROWDPOSE, flip=True, precision="float32", **options)(images)
    assert sum(len(p.scores) for p in ours) > 0
    for a, b in zip(ours, eager, strict=True):
        np.testing.assert_allclose(a.keypoints, b.keypoints, atol=1e-3)
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_says_what_it_is(files, format):
    predictor = load(str(files(format)), device="cpu", max_people=7, trust=True)
    assert predictor.joints == CROWDPOSE
    assert (predictor.input_size, predictor.source) == (128, str(files(format)))
    assert predictor.decode.max_people == 7
    assert load(files(format), device="cpu", input_size=192, trust=True).input_size == 192
    about = predictor.inference.description
    assert (about.network, about.flip, about.fine_only) == ("Pixels", True, False)
    again = exported.Description.from_json(
        exported.Description("n", COCO, 512, False, True).to_json()
    )
    assert again == exported.Description("n", COCO, 512, False, True)


def test_onnx_is_plain(files):
    model = onnx.load(files("onnx"))
    onnx.checker.check_model(model, full_check=True)
    assert {opset.domain: opset.version for opset in model.opset_import}[""] == exporting.OPSET
    assert {node.domain for node in model.graph.node} <= {""}
    assert [i.name for i in model.graph.input] == [exported.INPUT]
    assert [o.name for o in model.graph.output] == list(exported.OUTPUTS)
    doubles = [i for i in model.graph.value_info if i.type.tensor_type.elem_type == 11]
    assert not doubles  # which many a runtime lacks


@pytest.mark.parametrize("format", FORMATS)
def test_no_folder_of_this_machine_is_in_a_file(files, format):
    content = files(format).read_bytes()
    assert str(Path(dhn.__file__).parent).encode() not in content
    assert str(Path(torch.__file__).parent).encode() not in content


# --- the commands, with real networks ---


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.mark.parametrize(
    ("name", "format", "flip", "joints"),
    [
        ("hrnet", "torch", ["--flip"], COCO),  # the smallest graph
        ("doublehighernet", "torch", ["--flip"], CROWDPOSE),
        ("higherhrnet", "onnx", [], COCO),
    ],
)
def test_predictions_are_those_of_the_checkpoint(tmp_path, thorough, name, format, flip, joints):
    """tests/examples exports DoubleHigherNet to ONNX."""
    if name != "hrnet" and not thorough:
        pytest.skip("takes up to half a minute: only with --thorough")
    save_network(tmp_path / "last.pt", name, joints)
    file = tmp_path / f"model{SUFFIXES[format]}"
    result = run("export", "--checkpoint", tmp_path / "last.pt", *flip, "-o", file, "--quiet")
    assert result.exit_code == 0, result.output
    assert "Largest difference to the network" in result.output
    images = np.random.default_rng(1).integers(0, 256, (2, 90, 70, 3), dtype=np.uint8)
    for i, image in enumerate(images):
        cv2.imwrite(str(tmp_path / f"{i}.png"), image)
    (tmp_path / "last.pt").rename(tmp_path / "away.pt")  # the file needs no other
    found = []
    eager = ["--checkpoint", tmp_path / "away.pt", *flip, "--precision", "float32"]
    trust = ["--trust"] if format == "torch" else []
    for options in (["--checkpoint", file, *trust], eager):
        output = tmp_path / "out.jsonl"
        result = run("predict", *options, tmp_path / "0.png", tmp_path / "1.png",
                     "--json-output", output, "--device", "cpu", "-b", 2, "-q")  # fmt: skip
        assert result.exit_code == 0, result.output
        _, *lines = map(json.loads, output.read_text().splitlines())
        found.append([(line["source"], person) for line in lines for person in line["predictions"]])
    assert found[0]
    for (file, a), (same, b) in zip(*found, strict=True):
        assert file == same
        np.testing.assert_allclose(a["keypoints"], b["keypoints"], atol=2e-3)
        np.testing.assert_allclose(a["score"], b["score"], atol=1e-3)


def test_exporting_an_exported_file(files, tmp_path):
    result = run("export", "--checkpoint", files("torch"), "-o", tmp_path / "again.onnx")
    assert result.exit_code == 1
    assert result.output == f"Error: {files('torch')}: is exported already; give the checkpoint\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "model.pth"], "must end in .onnx, .pt2 or .safetensors"),
        (["-o", "model.pt2", "--format", "onnx"], "--format onnx writes .onnx files"),
        (["--format", "tflite"], "'tflite' is not one of"),
        (["--input-size", "32"], "64<=x<=8192"),
    ],
)
def test_bad_usage(arguments, message):
    result = run("export", *arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_missing_packages_are_one_line(files, tmp_path, monkeypatch):
    save_network(tmp_path / "last.pt", "higherhrnet")
    file = files("onnx")
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    result = run("export", "--checkpoint", tmp_path / "last.pt", "-o", tmp_path / "m.onnx")
    assert result.exit_code == 1
    assert result.output == (
        'Error: --format onnx: needs onnxscript and onnxruntime: pip install "dhn[export]"\n'
    )
    with pytest.raises(DhnError, match=r'needs onnxruntime: pip install "dhn\[export\]"'):
        load(str(file), device="cpu")


# --- files whole or not at all ---


def write(path: Path, format: str, **kwargs) -> None:
    inference = pixels_inference(False)
    export(inference, CROWDPOSE, path, format, name="n", input_size=64, **kwargs)


def test_a_file_that_gives_other_numbers_is_not_kept(tmp_path, monkeypatch):
    path = tmp_path / "model.pt2"
    path.write_bytes(b"the one before")
    real = exporting.upsample
    # A graph with another idea of where pixels lie: what the check is for.
    monkeypatch.setattr(exporting, "upsample", lambda maps, size: real(maps, size).flip(3))
    with pytest.raises(DhnError, match=r"model.pt2: the exported graph gives other numbers \(heat"):
        write(path, "torch")
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt2"]
    assert path.read_bytes() == b"the one before"


@pytest.mark.parametrize("format", FORMATS)
def test_full_disk(tmp_path, format, full_disk):
    path = tmp_path / f"model{SUFFIXES[format]}"
    with full_disk(1000), pytest.raises(DhnError, match="cannot be written"):
        write(path, format)
    assert not list(tmp_path.iterdir())


def test_reference_of_the_graph_is_the_operators(files):
    """The graph's eager form, without any exporter: the quick answer to where a fault lies."""
    inference = pixels_inference(True)
    inference.native = False
    images = random_images((2, 64, 128), 4)
    for stable in (False, True):
        with torch.no_grad():
            heatmaps, tags, *peaks = PoseGraph(inference, stable_topk=stable)(images)
        scores, indices = ops.topk_peaks(heatmaps, 30, 5, (64, 128))
        if not stable:  # PyTorch's own topk leaves the order of equals open
            assert torch.equal(peaks[0], scores)
            xy, at = ops.read_peaks(heatmaps, tags, indices, (64, 128))
            assert torch.equal(peaks[1], xy)
            assert torch.equal(peaks[2], at)
        else:
            assert torch.equal(peaks[0], scores)
