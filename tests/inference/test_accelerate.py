"""Fused and compiled inference against the plain module."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dhn.base.errors import SettingError
from dhn.data.joints import CROWDPOSE
from dhn.inference.accelerate import accelerated
from dhn.inference.aggregate import PoseInference
from dhn.model import PoseMaps, build_model, channels_last
from dhn.model.fold import folded

CPU = torch.device("cpu")
SMALL = {"width": 8, "modules": (1, 2, 1), "blocks": 2, "stem": 8}


def inference(name="doublehighernet", dtype=torch.float32, flip=True, **changes):
    """Folded, with heads that say something; `changes` are for `build_model`."""
    torch.manual_seed(0)
    model = build_model(name, **SMALL | changes)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.weight, std=0.1)
    network = channels_last(folded(model).to(dtype))
    return PoseInference(network, CROWDPOSE.flip if flip else None, dtype=dtype)


def two_convolutions():
    return PoseInference(channels_last(TwoConvolutions().eval()), CROWDPOSE.flip)


def images(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def assert_same(got, expected, tolerance):
    for ours, theirs in zip(got, expected, strict=True):
        assert theirs.std() > 1e-3
        assert ours.dtype == torch.float32
        assert (ours - theirs).pow(2).mean().sqrt() <= tolerance * theirs.std()


@pytest.mark.parametrize("name", ["doublehighernet", "higherhrnet", "hrnet"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)], ids=str
)
@torch.inference_mode()
def test_fused_is_the_same_function(name, dtype, tolerance):
    plain = inference(name, dtype)
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    fast = accelerated(plain, CPU)
    for shape in ((1, 3, 64, 64), (2, 3, 64, 128)):
        batch = images(*shape)
        copy = batch.clone()
        assert_same(fast(batch), plain(batch), tolerance)
        assert torch.equal(batch, copy)
    after = plain.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@torch.inference_mode()
def test_fused_convolutions_really_run(dtype):
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    fast = accelerated(inference(dtype=dtype), CPU)
    with torch.profiler.profile() as profile:
        fast(images(1, 3, 64, 64))
    fused = {event.key for event in profile.key_averages()} & {
        "mkldnn::_convolution_pointwise",
        "mkldnn::_convolution_pointwise_",
    }
    # oneDNN refuses bfloat16 on CPUs without AVX512, where PyTorch's own convolutions run.
    there = dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert len(fused) == (2 if there else 0)


def test_a_cpu_without_bfloat16_runs_it_unfused(monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    plain = inference(dtype=torch.bfloat16)
    assert accelerated(plain, CPU) is plain


class TwoConvolutions(nn.Module):
    """A network that compiles in seconds: what is to be fused, and both kinds of maps."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.head = nn.Conv2d(8, 28, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> PoseMaps:
        half = self.stem(x).relu()
        quarter = self.head(half)
        half = torch.cat([half, half[:, :6]], 1)
        return PoseMaps([quarter[:, :14], half], [quarter[:, 14:]])


@pytest.mark.slow
def test_compiled_is_the_same_function_fused_and_cached(tmp_path, thorough):
    """In a process of its own: the cache folder is read once."""
    network = "two_convolutions()"
    if thorough:
        network = "inference('higherhrnet', flip=False, modules=(1, 1, 1), blocks=1)"
    code = f"""
import torch
from test_accelerate import *
with torch.inference_mode():
    plain = {network}
    fast = accelerated(plain, CPU, compile=True)
    for shape in ((1, 3, 64, 64), (2, 3, 64, 128)):
        batch = images(*shape)
        assert_same(fast(batch), plain(batch), 1e-4)
    with torch.profiler.profile() as profile:
        fast(batch)
    if torch.backends.mkldnn.is_available():  # weights are constants, laid out for it
        assert "mkldnn::_convolution_pointwise" in {{e.key for e in profile.key_averages()}}
"""
    here = Path(__file__).parent
    paths = os.pathsep.join(map(str, (here, here.parents[1])))
    environment = os.environ | {"DHN_HOME": str(tmp_path), "PYTHONPATH": paths}
    environment["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # more would each import torch
    environment.pop("TORCHINDUCTOR_CACHE_DIR", None)
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert any((tmp_path / "compiled").rglob("*.so"))


def test_a_compiler_that_fails_is_one_line(monkeypatch):
    def fail(*_):
        raise torch._dynamo.exc.BackendCompilerFailed(fail, RuntimeError("no C++ here"), None)

    monkeypatch.setattr(torch, "compile", lambda *_, **__: fail)
    fast = accelerated(inference(), CPU, compile=True)
    with pytest.raises(SettingError, match=r"compile: .*no C\+\+ here; leave it out"):
        fast(images(1, 3, 64, 64))
