"""Exported files are run as what they are, and refused where they are not ours."""

import contextlib
import io
import json
import struct
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from assertions import complaint
from dhn.base.errors import DhnError
from dhn.cli import main
from dhn.data.joints import COCO, CROWDPOSE
from dhn.inference import exported
from dhn.inference.exported import SUFFIXES, load_exported
from dhn.inference.load import load
from tiny_exports import FORMATS

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip": True}, "flip: .*onnx was exported without it"),
        ({"fine_only": True}, "fine_only: .*onnx was exported without it"),
        ({"precision": "bfloat16"}, "precision bfloat16: .*onnx was exported without it"),
        ({"compile": True}, "compile: .*onnx was exported without it"),
    ],
)
def test_settings_that_a_file_does_not_have(files, options, message):
    file = str(files("onnx", flip=False, halves=False))
    with pytest.raises(DhnError, match=message):
        load(file, device="cpu", **options)
    assert not load(file, device="cpu", precision="float32").inference.description.flip


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("device", ["mps", "cuda:99", "gpu"])
def test_devices_that_cannot_run_a_file(files, format, device):
    with pytest.raises(DhnError, match=f"^device {device}: "):
        load(str(files(format)), device=device, trust=True)


# --- files that are not ours ---


def error_of(path: Path) -> str:
    with pytest.raises(DhnError) as caught:
        load(str(path), device="cpu", trust=True)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


@pytest.mark.parametrize("format", FORMATS)
def test_damaged_files(files, tmp_path, format):
    content = files(format).read_bytes()
    path = tmp_path / f"x{SUFFIXES[format]}"
    assert "cannot be read (No such file" in error_of(path)
    for share in (0, 0.3, 0.99):
        path.write_bytes(content[: int(share * len(content))])
        assert "or cut off; export it again" in error_of(path)
    path.write_bytes(b"<!DOCTYPE html><html></html>")
    assert "or cut off; export it again" in error_of(path)
    path.unlink()
    path.mkdir()
    assert "the folder holds neither best.pt nor last.pt" in error_of(path)


def test_other_models(tmp_path):
    path = tmp_path / "other.onnx"
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [value], [out])
    opset = [onnx.helper.make_opsetid("", 18)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)
    onnx.save(model, path)
    assert "another model, not written by `dhn export`" in error_of(path)
    # Our metadata on somebody's graph.
    description = exported.Description("n", CROWDPOSE, 64, False, False)
    onnx.helper.set_model_props(model, {exported.METADATA: description.to_json()})
    onnx.save(model, path)
    assert "another model" in error_of(path)

    path = tmp_path / "other.pt2"
    program = torch.export.export(nn.ReLU(), (torch.zeros(1),))
    torch.export.save(program, path)
    assert "another model, not written by `dhn export`" in error_of(path)
    torch.save({"weights": torch.zeros(2)}, path)
    assert "another model, not written by `dhn export`" in error_of(path)
    torch.export.save(program, path, extra_files={exported.METADATA: "[1]"})
    assert "not exported by this version of dhn" in error_of(path)


# --- .pt2 files are programs ---


def tampered(content: bytes, change) -> bytes:
    """A .pt2 file with `change(name, text)` in place of the members that are texts."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("models/model.json"):
                data = change(data.decode()).encode()
            new.writestr(name, data)
    return buffer.getvalue()


def in_guards(text: str) -> str:
    return json.dumps(json.loads(text) | {"guards_code": [f"{EVIL} == 0"]})


def in_a_placeholder(text: str) -> str:
    return text.replace('"images"', json.dumps(f"images={EVIL}"))


def in_a_spec(text: str) -> str:
    """PyTorch imports the module of an enumeration: here, one that lies beside the file."""
    model = json.loads(text)
    signature = model["graph_module"]["module_call_graph"][0]["signature"]
    protocol, spec = json.loads(signature["in_spec"])
    context = json.dumps([{"__enum__": True, "fqn": "evilmod:X", "name": "Y"}])
    leaf = {"type": None, "context": None, "children_spec": []}
    spec["children_spec"][1] |= {"context": context, "children_spec": [leaf]}
    signature["in_spec"] = json.dumps([protocol, spec])
    return json.dumps(model)


def with_two_faces(content: bytes) -> bytes:
    """An archive that zipfile reads as `content`, and torch as an evil one.

    zipfile finds the central directory by its size, just before the record at the end, and shifts
    every offset accordingly; torch finds it by its offset.
    """
    texts: list[str] = []
    tampered(content, lambda text: (texts.append(text), text)[1])
    size = max(len(text(texts[0]).encode()) for text in (str, in_guards))
    evil, harmless = (
        tampered(content, lambda text, change=change: change(text).ljust(size))
        for change in (in_guards, str)
    )
    end = 22  # bytes of the record
    directory_size, offset = struct.unpack("<II", evil[-end:][12:20])
    assert (directory_size, offset) == struct.unpack("<II", harmless[-end:][12:20])
    return evil[:-end] + harmless[:-end] + harmless[-end:]


EVIL = "__import__('os').system('echo > exploded')"
ATTACKS = {
    "guards": lambda content: tampered(content, in_guards),
    "placeholder": lambda content: tampered(content, in_a_placeholder),
    "spec": lambda content: tampered(content, in_a_spec),
    "two faces": with_two_faces,
}


@pytest.fixture(params=ATTACKS)
def evil(files, tmp_path, monkeypatch, request):
    """A .pt2 file that runs a command when PyTorch opens or runs it, in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "evilmod", raising=False)
    Path("evilmod.py").write_text(f"{EVIL}\n")
    content = files("torch").read_bytes()
    Path("evil.pt2").write_bytes(ATTACKS[request.param](content))
    return Path("evil.pt2")


def test_no_program_runs_without_trust(evil):
    message = complaint(load, evil, device="cpu")
    assert message == (
        "trust: needed to run evil.pt2: .pt2 files are programs, which can do anything on this "
        "machine; ONNX is the safe format"
    )
    assert complaint(load_exported, evil) == message
    assert not Path("exploded").exists()


def test_the_commands_name_the_option(evil):
    Path("image.png").touch()
    for command in (["predict", "image.png"], ["export", "-o", "x.onnx"]):
        result = CliRunner().invoke(main, [*command, "--checkpoint", "evil.pt2"])
        assert result.exit_code == 1
        assert result.stderr.count("\n") == 1
        assert "evil.pt2: " in result.stderr
        assert ("--trust: needed to run" in result.stderr) == (command[0] == "predict")
    assert not Path("exploded").exists()


def test_the_attacks_are_real(evil):
    """With trust, the program in the file runs: it is not the attack that fails above."""
    with contextlib.suppress(Exception):
        load_exported(evil, "cpu", trust=True)(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    assert Path("exploded").exists()


def test_a_program_of_ours_runs_with_trust(files, tmp_path):
    assert load(files("torch"), device="cpu", trust=True).inference.description.network == "Pixels"
    cv2.imwrite(str(tmp_path / "image.png"), np.zeros((64, 64, 3), np.uint8))
    command = ["predict", tmp_path / "image.png", "--checkpoint", files("torch"), "--trust"]
    outputs = ["--json-output", tmp_path / "out.json", "--device", "cpu"]
    result = CliRunner().invoke(main, [str(a) for a in (*command, *outputs)])
    assert result.exit_code == 0, result.output


# --- ONNX files that are not what they say ---


def changed_onnx(file: Path, path: Path, change) -> Path:
    model = onnx.load(file)
    change(model)
    onnx.save(model, path)
    return path


def rename_input(model):
    for node in model.graph.node:
        for k, name in enumerate(node.input):
            node.input[k] = "photos" if name == "images" else name
    model.graph.input[0].name = "photos"


def four_channels(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4


def reorder_outputs(model):
    outputs = list(model.graph.output)
    del model.graph.output[:]
    model.graph.output.extend(reversed(outputs))


def fewer_outputs(model):
    del model.graph.output[3:]


def other_joints(model):
    description = exported.Description("n", COCO, 64, False, False)
    onnx.helper.set_model_props(model, {exported.METADATA: description.to_json()})


def other_values(model):
    """The right names and shapes on the outside; what comes has other shapes."""
    heatmaps = model.graph.output[0]
    for node in model.graph.node:
        for k, name in enumerate(node.output):
            if name == heatmaps.name:
                node.output[k] = "inner"
        for k, name in enumerate(node.input):
            if name == heatmaps.name:
                node.input[k] = "inner"
    model.graph.node.append(onnx.helper.make_node("Transpose", ["inner"], ["heatmaps"],
                                                  perm=[0, 2, 1, 3]))  # fmt: skip
    for dim in heatmaps.type.tensor_type.shape.dim:
        dim.Clear()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (rename_input, "it takes no input images"),
        (four_channels, "it takes no input images"),
        (reorder_outputs, "its outputs are not heatmaps, tags, "),
        (fewer_outputs, "its outputs are not heatmaps, tags, "),
        (other_joints, "of 17 joints"),
    ],
)
def test_other_names_and_shapes_are_one_line(files, tmp_path, change, named):
    assert named in error_of(changed_onnx(files("onnx"), tmp_path / "x.onnx", change))


def test_other_shapes_than_promised_are_one_line(files, tmp_path):
    path = changed_onnx(files("onnx"), tmp_path / "x.onnx", other_values)
    predictor = load(path, device="cpu")
    message = complaint(predictor, np.zeros((64, 64, 3), np.uint8))
    assert message.startswith(f"{path}: another model: its outputs have the shapes [1, 64, 14, 64]")


@pytest.mark.parametrize(
    "change",
    [
        {"input_size": 100},
        {"input_size": "64"},
        {"input_size": 64 * 10**9},
        {"flip": 1},
        {"network": None},
        {"joints": {}},
        {"joints": {"flip": [0] * 14}},
        {"joints": {"sigmas": ["a"] * 14}},
        {"joints": {"skeleton": [[0, 99]]}},
        {"extra": 1},
        {"format": "x"},
    ],
)
def test_descriptions_that_cannot_be(change):
    fields = json.loads(exported.Description("n", CROWDPOSE, 64, False, False).to_json())
    assert exported.Description.from_json(json.dumps(fields)).joints == CROWDPOSE
    if change.get("joints"):
        change = {"joints": fields["joints"] | change["joints"]}
    with pytest.raises((DhnError, ValueError)):
        exported.Description.from_json(json.dumps(fields | change))
