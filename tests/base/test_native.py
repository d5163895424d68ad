"""Loading the operators: a missing, stale or broken library is one clear line."""

import runpy
import sys
from pathlib import Path

import pytest

from dhn.base import native
from dhn.base.errors import DhnError

ROOT = Path(__file__).resolve().parents[2]


def test_loads():
    native.load()


def test_missing_library(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "PACKAGE", tmp_path)
    with pytest.raises(DhnError, match=r"_C\.so: the operators are not built; .* pip install"):
        native.load()


def test_stale_library(monkeypatch):
    if not (ROOT / "csrc").is_dir():
        pytest.skip("an installed package has no sources to compare with")
    monkeypatch.setattr(native, "source_hash", lambda *_: "0" * 16)
    with pytest.raises(DhnError, match="is older than the sources in csrc; rebuild it"):
        native.load()


def test_broken_library(monkeypatch, tmp_path):
    (tmp_path / "_C.so").write_bytes(b"not a library")
    monkeypatch.setattr(native, "PACKAGE", tmp_path)
    with pytest.raises(DhnError, match="does not load"):
        native.load()


def test_training_without_kernels_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "PACKAGE", tmp_path)
    native.check_trainable("cpu")
    with pytest.raises(DhnError, match="for training on mps: train with --device cpu"):
        native.check_trainable("mps")
    monkeypatch.setattr("torch.version.cuda", "13.0")
    with pytest.raises(DhnError, match=r"for training on cuda: install the CUDA toolkit 13\.0 "):
        native.check_trainable("cuda")


def test_hash_follows_names_and_contents(tmp_path):
    (tmp_path / "cpu").mkdir()
    source = tmp_path / "cpu" / "a.cpp"
    source.write_text("int a;")
    first = native.source_hash(tmp_path, "cpu")
    source.write_text("int b;")
    second = native.source_hash(tmp_path, "cpu")
    source.rename(tmp_path / "cpu" / "b.cpp")
    assert len({first, second, native.source_hash(tmp_path, "cpu")}) == 3


def test_setup_without_torch_says_what_to_do(monkeypatch):
    if not (ROOT / "setup.py").is_file():
        pytest.skip("an installed package has no setup.py")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit, match="pip install 'torch"):
        runpy.run_path(str(ROOT / "setup.py"))
