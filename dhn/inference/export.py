"""Writes a predictor's graph as an ONNX file or a torch.export program.

The graph takes any number of images, uint8 [B, 3, H, W], whose sides are multiples of 64. It gives
what `exported.OUTPUTS` names: heatmaps and tags as `PoseInference` does, and the K best peaks as
`decode.find_peaks` does. It holds the operators of PyTorch or ONNX only, and computes in float32.
Grouping and refinement are no part of it.
"""

import importlib.util
import io
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from dhn.base.errors import DhnError, SettingError
from dhn.base.files import written_whole
from dhn.base.progress import Progress, silent
from dhn.data.joints import JointSet
from dhn.inference.aggregate import PoseInference
from dhn.inference.decode import DecodeConfig, find_peaks
from dhn.inference.exported import (
    INPUT,
    METADATA,
    OUTPUTS,
    SUFFIXES,
    Description,
    ExportedNetwork,
    is_exported,
    load_exported,
)
from dhn.inference.load import load
from dhn.model import PoseNetwork
from dhn.ops.plain import quarter_positions, taps, upsample

Format = Literal["onnx", "torch"]

OPSET = 18
# Every peak counts here, because the detection threshold is chosen by those who run the file.
PEAKS = DecodeConfig(detection_threshold=0)
# As a share of the largest value. Rounding in some 300 convolutions in float32 stays far below.
TOLERANCE = 1e-4


class PoseGraph(nn.Module):
    """`PoseInference` and `find_peaks`, in operators that can be exported.

    Args:
        inference: the inference without our own operator (`native=False`).
        stable_topk: whether topk gives the lowest index first among equals. ONNX's TopK does by
            definition. PyTorch's does not, so float64 numbers without equals are ranked instead.
    """

    def __init__(self, inference: PoseInference, *, stable_topk: bool) -> None:
        super().__init__()
        self.inference = inference
        self.stable_topk = stable_topk

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        heatmaps, tags = self.inference(images)
        H, W = images.shape[2:]
        maps = upsample(heatmaps, (H, W))
        kernel = PEAKS.nms_kernel
        is_peak = (F.max_pool2d(maps, kernel, 1, kernel // 2) == maps) & (maps > 0)
        candidates = torch.where(is_peak, maps, 0.0).flatten(2)  # [B, J, H W]
        indices = self._ranked(candidates).topk(PEAKS.max_people).indices
        scores = candidates.gather(2, indices)
        indices = torch.where(scores > 0, indices, 0)
        finite = heatmaps.isfinite().flatten(2).all(2, keepdim=True)
        scores = torch.where(finite, scores, torch.nan)
        xy = quarter_positions(maps, indices)
        return heatmaps, tags, scores, xy, _read_tags(tags, indices, (H, W))

    def _ranked(self, scores: Tensor) -> Tensor:
        """Scores [B, J, N] as values that topk ranks in the order of `ops.topk_peaks`.

        They are multiplied by 1 - index / 2^52. For N < 2^27 this changes them by less than the
        step between float32 numbers (2^-24), and by at least the step between float64 numbers.
        """
        if self.stable_topk:
            return scores
        index = torch.arange(scores.shape[2], dtype=torch.float64, device=scores.device)
        return scores * (1 - index * 2.0**-52)


def _read_tags(tags: Tensor, indices: Tensor, size: tuple[int, int]) -> Tensor:
    """The values [B, J, K, T] of `upsample(tags, size)` [B, J, T, H, W] at `indices` [B, J, K]."""
    (h, w), (H, W) = tags.shape[3:], size
    y = indices // W
    left, right, along_x = (tap[indices - y * W][:, :, None] for tap in taps(w, W, tags))
    top, bottom, along_y = (tap[y][:, :, None] for tap in taps(h, H, tags))
    flat, T = tags.flatten(3), tags.shape[2]

    def line(row: Tensor) -> Tensor:
        a, b = (flat.gather(3, (row * w + x).expand(-1, -1, T, -1)) for x in (left, right))
        return (1 - along_x) * a + along_x * b

    return ((1 - along_y) * line(top) + along_y * line(bottom)).transpose(2, 3)


@dataclass(frozen=True)
class ExportReport:
    """A file that was written and checked.

    Attributes:
        path: the file.
        size: its size in bytes.
        differences: how far its `heatmaps`, `tags` and `peaks` are from the network's, see
            `export`.
    """

    path: Path
    size: int
    differences: dict[str, float]


def export_checkpoint(
    checkpoint: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    format: Format = "onnx",
    *,
    flip: bool = False,
    input_size: int | None = None,
    fine_only: bool = False,
    offline: bool = False,
    progress: Progress = silent,
) -> ExportReport:
    """Exports the network that `dhn.load` makes of a checkpoint, to run without it.

    Args:
        checkpoint, flip, input_size, fine_only, offline: see `dhn.load`.
        output: the file, .onnx or .pt2; None takes the checkpoint's name, in the current folder.
        format: `onnx`, or `torch` for a torch.export program; must fit the suffix of `output`.
        progress: shows how far a download, then the export, is.

    Raises:
        SettingError: ONNX's packages are missing, or `format` does not fit `output`.
        DhnError: see `dhn.load` and `export`.
    """
    if checkpoint is not None and is_exported(Path(checkpoint)):
        raise DhnError(f"{checkpoint}: is exported already; give the checkpoint")
    if output is not None and Path(output).suffix != SUFFIXES[format]:
        raise SettingError("format", format, f"writes {SUFFIXES[format]} files, not {output}")
    if format == "onnx":
        _require("onnx", "onnxscript", "onnxruntime")
    predictor = load(
        checkpoint,
        device="cpu",
        precision="float32",
        flip=flip,
        input_size=input_size,
        fine_only=fine_only,
        offline=offline,
        progress=progress,
    )
    inference = cast(PoseInference, predictor.inference)
    path = Path(output or Path(predictor.source).stem + SUFFIXES[format])
    network = cast(PoseNetwork, inference.network)
    differences = export(
        inference,
        predictor.joints,
        path,
        format,
        name=f"{type(network).__name__}-w{network.backbone.channels[0]}",
        input_size=predictor.input_size,
        progress=progress,
    )
    return ExportReport(path, path.stat().st_size, differences)


def export(
    inference: PoseInference,
    joints: JointSet,
    path: Path,
    format: Format,
    *,
    name: str,
    input_size: int,
    progress: Progress = silent,
) -> dict[str, float]:
    """Writes a network as a file that runs without dhn, and compares it with the network.

    The file appears whole, and only if it gives the same numbers.

    Args:
        inference: the network with its flip test and aggregation, on the CPU and in float32.
        joints: what its heatmaps mean.
        path: the file, .onnx or .pt2.
        format: `onnx` or `torch`.
        name: the network's name, for people.
        input_size: the default short side of the network's input, in pixels.
        progress: shows how far the export is.

    Returns:
        the largest differences between what the file gives and what `inference` and `find_peaks`
        give, each as a share of the largest value: {"heatmaps": ..., "tags": ..., "peaks": ...}.

    Raises:
        DhnError: the file cannot be written, or it gives other numbers.
    """
    flip = inference.flip is not None
    description = Description(name, joints, input_size, flip, inference.fine_only)
    write = _write_onnx if format == "onnx" else _write_torch
    checks = list(_check_inputs(input_size))
    differences = dict.fromkeys(("heatmaps", "tags", "peaks"), 0.0)
    with progress("Exporting", 2 + len(checks)) as bar, written_whole(path) as temporary:
        program = trace(inference, stable_topk=format == "onnx")
        bar.advance(note="traced")
        write(program, description, temporary)
        bar.advance(note="written")
        exported = load_exported(temporary, "cpu", trust=True)  # it was written a moment ago
        for images in checks:
            found = _differences(exported, inference, images)
            differences = {name: max(found[name], differences[name]) for name in found}
            bar.advance(note="checked")
        if not max(differences.values()) <= TOLERANCE:  # NaN, too
            worst = ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
            raise DhnError(f"{path}: the exported graph gives other numbers ({worst}); not written")
    return differences


def trace(inference: PoseInference, *, stable_topk: bool) -> ExportedProgram:
    """Traces `PoseGraph` to a program that leaves batch, height and width open."""
    plain = inference.on(inference.network, native=False)
    graph = PoseGraph(plain, stable_topk=stable_topk).eval()
    sides = {2: 64 * Dim("h", min=1, max=256), 3: 64 * Dim("w", min=1, max=256)}
    example = torch.zeros(2, 3, 128, 192, dtype=torch.uint8)
    with torch.no_grad(), _silence():
        program = torch.export.export(
            graph, (example,), dynamic_shapes={INPUT: {0: Dim("batch")} | sides}
        )
    for node in program.graph.nodes:  # the traces hold paths of this machine
        node.meta.pop("stack_trace", None)
    return program


def _write_onnx(program: ExportedProgram, description: Description, path: Path) -> None:
    with _silence():
        onnx = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            verbose=False,
        )
    assert onnx is not None  # it is None only if a file name is given
    onnx.model.metadata_props[METADATA] = description.to_json()
    onnx.save(path, external_data=False)


def _write_torch(program: ExportedProgram, description: Description, path: Path) -> None:
    # torch's own writer hides a full disk behind a RuntimeError, so the bytes are made in memory.
    buffer = io.BytesIO()
    with _silence():
        torch.export.save(program, buffer, extra_files={METADATA: description.to_json()})
    path.write_bytes(buffer.getbuffer())


def _check_inputs(input_size: int) -> Iterator[Tensor]:
    """Random images: small ones in batches of several shapes, and one of the size in use."""
    generator = torch.Generator().manual_seed(0)
    side = -(-input_size // 64) * 64
    wide = -(-input_size * 4 // 3 // 64) * 64
    for B, H, W in ((1, 64, 64), (2, 64, 192), (3, 128, 64), (1, side, wide)):
        yield torch.randint(0, 256, (B, 3, H, W), dtype=torch.uint8, generator=generator)


@torch.no_grad()
def _differences(
    exported: ExportedNetwork, inference: PoseInference, images: Tensor
) -> dict[str, float]:
    """How far the file's maps are from the network's, and its peaks from those of its maps."""

    def share(ours: Tensor, expected: Tensor) -> float:
        largest = expected.abs().amax().clamp(min=1e-12)
        return float((ours - expected).abs().amax() / largest)

    heatmaps, tags, peaks = exported(images)
    expected = inference(images)
    expected_peaks = find_peaks(
        heatmaps.contiguous(), tags.contiguous(), (images.shape[2], images.shape[3]), PEAKS
    )
    return {
        "heatmaps": share(heatmaps, expected[0]),
        "tags": share(tags, expected[1]),
        "peaks": max(map(share, peaks, expected_peaks)),
    }


def _require(*packages: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        needed = " and ".join(missing)
        raise SettingError("format", "onnx", f'needs {needed}: pip install "dhn[export]"')


@contextmanager
def _silence() -> Iterator[None]:
    """Hides warnings of the exporters about their own deprecations and about optional packages."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
