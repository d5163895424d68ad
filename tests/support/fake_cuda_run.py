"""fake_cuda_run.py LIBRARY: what predict, decode and a training update ask of a GPU, as JSON.

LIBRARY is made of fake_cuda_device.cpp.
"""

import ctypes
import json
import sys

ctypes.CDLL(sys.argv[1])  # before torch

import numpy as np  # noqa: E402
import torch  # noqa: E402

from dhn.data.dataset import Batch  # noqa: E402
from dhn.data.joints import CROWDPOSE  # noqa: E402
from dhn.inference.decode import decode_poses  # noqa: E402
from dhn.inference.predictor import Predictor  # noqa: E402
from dhn.training.learner import Learner  # noqa: E402
from dhn.training.settings import Config  # noqa: E402
from fake_cuda import CUDA, fake_cuda  # noqa: E402
from tiny_networks import network  # noqa: E402

TINY = {"width": 4, "stem": 4}


def inference() -> dict[str, dict[str, int]]:
    """Of two images: the maps alone, decode alone, and all from pixels to people."""
    found = {}
    with fake_cuda() as counts:
        predictor = Predictor(
            network(**TINY), CROWDPOSE, device=CUDA, flip=True, input_size=64, precision="bfloat16"
        )
        image = torch.empty(2, 3, 64, 64, dtype=torch.uint8, device=CUDA)
        predictor.maps(image)  # what is made for the first image
        counts.clear()
        heatmaps, tags, *_ = predictor.maps(image)
        found["maps"] = dict(counts)
        assert heatmaps.device == CUDA
        counts.clear()
        decode_poses(heatmaps, tags, (64, 64), predictor.decode)
        found["decode"] = dict(counts)
        counts.clear()
        predictor([np.zeros((64, 64, 3), np.uint8)] * 2)
        found["predict"] = dict(counts)
    return found


def update() -> dict[str, int]:
    """Of a training update with a mask, averaged weights and bfloat16."""
    config = Config.model_validate(
        {"data": {"input_size": 64}, "train": {"amp": "bf16", "ema": 0.99}}
    )
    with fake_cuda() as counts:
        learner = Learner(config, network(**TINY), CUDA)
        batch = Batch(
            torch.empty(2, 3, 64, 64, dtype=torch.uint8),
            torch.empty(2, 2, 14, 3),
            torch.empty(2, 64, 64, dtype=torch.uint8),
            [],
            ["a", "b"],
        )
        learner.update([batch], 2, 1e-3)  # makes the moments
        counts.clear()
        learner.update([batch], 2, 1e-3)
        return dict(counts)


def known() -> dict[str, dict[str, int]]:
    """Of lines whose counts are known."""
    with fake_cuda() as counts:
        x, host = torch.empty(4, 6, 8, device=CUDA), torch.empty(3)
        calls = {
            "blocking upload": lambda: host.to(CUDA),
            "upload": lambda: host.to(CUDA, non_blocking=True),
            "download": lambda: x.cpu(),
            "number": lambda: float(x.sum()),
            "truth": lambda: bool((x > 0).any()),
            "list": lambda: x[0, 0].tolist(),
            "index": lambda: x[:, [1, 0]],
            "index on the host": lambda: x[:, host.long()],
            "size": x.nonzero,
            "synchronize": torch.cuda.synchronize,
            "clone": x.clone,
            "contiguous": lambda: x.mT.contiguous(),
            "contiguous already": x.contiguous,
            "arithmetic": lambda: (x + 1).sum().bfloat16(),
            "view": lambda: x.flatten(),
        }
        found = {}
        for name, call in calls.items():
            counts.clear()
            call()
            found[name] = {key: count for key, count in counts.items() if count}
        return found


if __name__ == "__main__":
    print(json.dumps({**inference(), "update": update(), "known": known()}))
