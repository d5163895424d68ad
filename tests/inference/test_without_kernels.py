"""A GPU for which dhn has no kernels, shown without a GPU, on meta and fake tensors.

Values are compared on the CPU, whose operators the tests hide.
"""

import contextlib
import logging
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from dhn import ops
from dhn.base import native
from dhn.base.device import repeatable
from dhn.data.joints import CROWDPOSE
from dhn.inference import aggregate, predictor
from dhn.inference.predictor import Predictor
from dhn.model import build_model

CUDA = torch.device("cuda:0")
SMALL = {"width": 8, "modules": (1, 1, 1), "blocks": 1, "stem": 8}


class OwnOperators(TorchDispatchMode):
    """Notes which operators of dhn are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.devices: list[str] = []  # of their first tensors

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "dhn":
            self.names.append(function.name())
            first = args[0] if isinstance(args[0], torch.Tensor) else args[0][0]
            self.devices.append(first.device.type)
        return function(*args, **(kwargs or {}))


def settings() -> tuple[bool, str, str]:
    backends = torch.backends
    cudnn = backends.cudnn
    return cudnn.benchmark, cudnn.conv.fp32_precision, backends.cuda.matmul.fp32_precision


@pytest.fixture
def fast_settings() -> Iterator[tuple[bool, str, str]]:
    """What a user may have chosen for other networks in this process."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = settings()
    chosen = True, "tf32", "tf32"
    cudnn.benchmark, cudnn.conv.fp32_precision, matmul.fp32_precision = chosen
    yield chosen
    cudnn.benchmark, cudnn.conv.fp32_precision, matmul.fp32_precision = before


@pytest.mark.parametrize("kernels", [False, True])
def test_the_network_runs_on_the_gpu(monkeypatch, fast_settings, kernels):
    """Its maps are aggregated there, in float32 that is float32 whatever the process has set."""
    monkeypatch.setattr(aggregate, "has_kernels", lambda device: kernels)
    seen = []
    with torch.device("meta"):
        model = build_model("doublehighernet", num_joints=len(CROWDPOSE), **SMALL)
        images = torch.zeros(2, 3, 64, 128, dtype=torch.uint8)
    found = Predictor(model, CROWDPOSE, device=images.device, precision="float32", flip=True)
    found.device = CUDA  # which "meta" stands for: a torch without CUDA cannot slice a fake tensor
    found.inference.network.register_forward_pre_hook(lambda *_: seen.append(settings()))
    with OwnOperators() as called:
        heatmaps, tags = found.maps(images)
    J = len(CROWDPOSE)
    assert (heatmaps.device.type, list(heatmaps.shape)) == ("meta", [2, J, 32, 64])
    assert (tags.device.type, list(tags.shape)) == ("meta", [2, J, 2, 32, 64])
    assert called.names == (["dhn::aggregate_heatmaps"] if kernels else [])
    assert seen == [(False, "ieee", "ieee")]
    assert settings() == fast_settings


def test_settings_come_back_after_an_error_and_are_left_alone_on_cpus(fast_settings):
    with contextlib.suppress(ZeroDivisionError), repeatable(CUDA):
        assert settings() == (False, "ieee", "ieee")
        raise ZeroDivisionError
    assert settings() == fast_settings
    with repeatable(torch.device("cpu")):
        assert settings() == fast_settings


def test_the_same_people(monkeypatch):
    torch.manual_seed(0)
    model = build_model("doublehighernet", num_joints=len(CROWDPOSE), **SMALL)
    image = np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8)
    runs = []
    for kernels in (True, False):
        monkeypatch.setattr(aggregate, "has_kernels", lambda device, kernels=kernels: kernels)
        found = Predictor(model, CROWDPOSE, input_size=64, flip=True)
        batch = torch.from_numpy(image[:64, :64]).permute(2, 0, 1)[None]
        with OwnOperators() as called:
            runs.append(found.maps(batch))
        assert bool(called.names) == kernels
    for ours, plain in zip(*runs, strict=True):
        torch.testing.assert_close(plain, ours, rtol=0, atol=1e-6 * float(ours.abs().max()))


def test_what_is_missing_is_said_once_with_how_to_get_it(monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(native, "PACKAGE", tmp_path)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *_, **__: self)
    model = build_model("hrnet", num_joints=len(CROWDPOSE), **SMALL)
    with caplog.at_level(logging.WARNING, predictor.__name__):
        Predictor(model, CROWDPOSE, device=CUDA, precision="float32")
    (record,) = caplog.records
    assert "the CPU decodes; install the CUDA toolkit 13.0 (nvcc), then: pip" in record.message


@pytest.mark.parametrize(("K", "max_people", "where"), [(128, 128, "cuda"), (129, 1, "cpu")])
def test_grouping_more_than_cuda_has_room_for_falls_back(K, max_people, where):
    with FakeTensorMode():
        scores = torch.empty(1, 2, K, device=CUDA)
        xy, tags = torch.empty(1, 2, K, 2, device=CUDA), torch.empty(1, 2, K, 1, device=CUDA)
        with OwnOperators() as called:
            people, counts = ops.group_tags(scores, xy, tags, max_people=max_people)
    assert called.devices == [where]
    assert people.device.type == counts.device.type == "cuda"
