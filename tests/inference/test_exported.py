"""Exported files are run as what they are, and refused where they are not ours."""

import io
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from dhn.base.errors import DhnError
from dhn.data.joints import CROWDPOSE
from dhn.inference import exported
from dhn.inference.exported import SUFFIXES
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
        load(str(files(format)), device=device)


# --- files that are not ours ---


def error_of(path: Path) -> str:
    with pytest.raises(DhnError) as caught:
        load(str(path), device="cpu")
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
    assert "cannot be read (it is a folder)" in error_of(path)


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


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


def tampered(content: bytes, change) -> bytes:
    """A .pt2 file with `change(name, bytes)` in place of each member; None drops it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
    return buffer.getvalue()


def pickled() -> bytes:
    buffer = io.BytesIO()
    torch.save(Bomb(), buffer)
    return buffer.getvalue()


ATTACKS = {
    "pickled example": lambda n, d: pickled() if n.endswith("sample_inputs/model.pt") else d,
    "pickled weights": lambda n, d: (
        pickled() if n.endswith("weights/weight_0")
        else d.replace(b'"use_pickle": false', b'"use_pickle": true', 1)
        if n.endswith("weights_config.json") else d
    ),
    "pickled object": lambda n, d: (
        d.replace(b'"path_name": "tensor_0"', b'"path_name": "opaque_obj_0"')
        if n.endswith("constants_config.json") else d
    ),
    "expression": lambda n, d: (
        d.replace(b"Symbol('s", b"__import__('pathlib').Path('exploded').touch() or Symbol('s", 1)
        if n.endswith("model.json") else d
    ),
    "operator": lambda n, d: (
        d.replace(b"torch.ops.aten.topk.default", b"torch.os.system")
        if n.endswith("model.json") else d
    ),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_in_a_file_runs(files, tmp_path, monkeypatch, attack):
    monkeypatch.chdir(tmp_path)
    content = files("torch").read_bytes()
    path = tmp_path / "evil.pt2"
    changed = tampered(content, ATTACKS[attack])
    assert changed != tampered(content, lambda _, data: data)
    path.write_bytes(changed)
    assert "refused: it holds more than a network" in error_of(path)
    assert not Path("exploded").exists()


def test_two_members_of_one_name(files, tmp_path):
    path = tmp_path / "evil.pt2"
    path.write_bytes(files("torch").read_bytes())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(next(n for n in archive.namelist() if n.endswith("model.json")), "{}")
    assert "refused" in error_of(path)


def test_the_bomb_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Bomb()))
    assert Path("exploded").exists()
