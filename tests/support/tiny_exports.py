"""Networks of one linear layer as exported files, for the tests of writing and of running them."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from dhn.data.joints import CROWDPOSE
from dhn.inference.aggregate import PoseInference
from dhn.inference.export import export
from dhn.inference.exported import SUFFIXES
from dhn.model import PoseMaps
from locks import built_once

J = len(CROWDPOSE)
FORMATS = ("onnx", "torch")


class Pixels(nn.Module):
    """A network whose maps are linear in single pixels: equal pixels make equal peaks."""

    def __init__(self, halves: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.quarter_head = nn.Conv2d(3, 2 * J, 1)
        self.half_head = nn.Conv2d(3, J, 1) if halves else None

    def forward(self, x: Tensor) -> PoseMaps:
        quarter = self.quarter_head(x[:, :, 1::4, 1::4])
        heatmaps = [quarter[:, :J]]
        if self.half_head is not None:
            heatmaps.append(self.half_head(x[:, :, ::2, ::2]))
        return PoseMaps(heatmaps, [quarter[:, J:]])


def pixels_inference(flip: bool, halves: bool = True, joints=CROWDPOSE) -> PoseInference:
    return PoseInference(Pixels(halves).eval(), joints.flip if flip else None)


def exporter(folder: Path) -> Callable[..., Path]:
    """file(format, flip, halves): a `Pixels` network as a file in `folder`; exported once."""

    def file(format: str, flip: bool = True, halves: bool = True) -> Path:
        def build(path: Path) -> None:
            inference = pixels_inference(flip, halves)
            differences = export(inference, CROWDPOSE, path, format, name="Pixels", input_size=128)
            assert set(differences) == {"heatmaps", "tags", "peaks"}
            assert max(differences.values()) < 1e-5
            assert list(path.parent.iterdir()) == [path]

        return built_once(folder / f"{flip}-{halves}{SUFFIXES[format]}", build)

    return file
