"""Opens and runs exported networks; says what stands beside the graph in their files.

An ONNX file is data: onnxruntime computes what its graph says, and nothing else. A .pt2 file is a
program: PyTorch evaluates texts from the file as Python while it opens it, and it can do whatever
its author wants. It is opened only for those who say that they trust it.
"""

import dataclasses
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export.passes import move_to_device_pass

from dhn.base.device import select_device
from dhn.base.errors import DhnError, SettingError
from dhn.data.joints import JointSet
from dhn.inference.decode import Peaks

FORMAT = "dhn-export-1"
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
# Where a file holds its Description: a key of ONNX's metadata_props, or an extra file of torch's.
METADATA = "dhn.json"
INPUT = "images"
OUTPUTS = ("heatmaps", "tags", "scores", "xy", "peak_tags")


@dataclass(frozen=True)
class Description:
    """What an exported file says about itself.

    Attributes:
        network: the network's name, for people.
        joints: what the heatmaps mean; how they are mirrored, grouped and drawn.
        input_size: the default short side of the network's input, in pixels.
        flip: whether the graph averages with the mirrored images.
        fine_only: whether it leaves out the coarse heatmaps.
    """

    network: str
    joints: JointSet
    input_size: int
    flip: bool
    fine_only: bool

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT} | dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Description":
        """Reverses `to_json`.

        Raises:
            ValueError: the text is not what `to_json` of this version writes.
            DhnError: it says what cannot be.
        """
        from dhn.weights.claims import check_description  # pydantic: not all predict from a file

        fields = json.loads(text)
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(fields, dict) or fields.keys() != names | {"format"}:
            raise ValueError("other fields")
        if fields.pop("format") != FORMAT:
            raise ValueError("another format")
        check_description(fields, "the description")
        return cls(**fields | {"joints": JointSet.from_dict(fields["joints"])})


class ExportedNetwork:
    """An exported network. It takes the place of `PoseInference`, and finds the peaks as well.

    Args:
        run: maps images, uint8 [B, 3, H, W] with H and W multiples of 64, to the tensors that
            `OUTPUTS` names.
        description: what the file says about itself.
        device: where `run` wants its images.
    """

    def __init__(
        self,
        run: Callable[[Tensor], Any],
        description: Description,
        device: torch.device,
    ) -> None:
        self.run = run
        self.description = description
        self.device = device

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor, Peaks]:
        """Heatmaps and tags as of `PoseInference`, and the best 30 peaks of each joint."""
        heatmaps, tags, *peaks = self.run(images)
        return heatmaps, tags, Peaks(*peaks)


def is_exported(path: Path) -> bool:
    """Whether the file's suffix is that of an exported network."""
    return path.suffix in SUFFIXES.values()


def load_exported(path: Path, device: str = "auto", *, trust: bool = False) -> ExportedNetwork:
    """Opens a file that `dhn export` wrote.

    Args:
        path: an .onnx or .pt2 file.
        device: `auto`, `cpu` or `cuda:N`. ONNX runs on CUDA where onnxruntime can.
        trust: whether a .pt2 file, which is a program, may run. An .onnx file needs no trust.

    Raises:
        SettingError: there is no such device, the file cannot run there, or it is a .pt2 file
            without `trust`.
        DhnError: there is no such file, it is damaged or another model, or onnxruntime is missing.
    """
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise DhnError(f"{path}: cannot be read ({error.strerror or error})") from error
    if path.suffix == ".onnx":
        return _load_onnx(path, device)
    if not trust:
        raise SettingError(
            "trust",
            None,
            f"needed to run {path}: .pt2 files are programs, which can do anything on this "
            "machine; ONNX is the safe format",
        )
    return _load_torch(path, device)


def _load_onnx(path: Path, device: str) -> ExportedNetwork:
    try:
        import onnxruntime
    except ImportError as error:
        raise DhnError(f'{path}: needs onnxruntime: pip install "dhn[export]"') from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # its errors are raised, too
    providers = _providers(device, onnxruntime.get_available_providers())
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime has many kinds, all of them bare Exceptions
        raise DhnError(f"{path}: not an ONNX file, or cut off; export it again") from error
    description = _description(path, session.get_modelmeta().custom_metadata_map.get(METADATA))
    J = len(description.joints)
    if not _matches(session.get_inputs(), {INPUT: ("tensor(uint8)", (None, 3, None, None))}):
        raise DhnError(f"{path}: another model: it takes no input {INPUT}, uint8 [B, 3, H, W]")
    outputs = {name: ("tensor(float)", shape) for name, shape in _shapes(J).items()}
    if not _matches(session.get_outputs(), outputs):
        raise DhnError(
            f"{path}: another model: its outputs are not {', '.join(OUTPUTS)} of {J} joints, "
            "as `dhn export` writes them"
        )

    def run(images: Tensor) -> list[Tensor]:
        try:
            found = session.run(OUTPUTS, {INPUT: images.contiguous().numpy()})
        except Exception as error:  # onnxruntime has many kinds, all of them bare Exceptions
            from dhn.weights.claims import printable

            reason = printable(str(error))
            raise DhnError(
                f"{path}: cannot run on images {list(images.shape)}: {reason}"
            ) from error
        tensors = [torch.from_numpy(array) for array in found]
        _check_outputs(path, images, tensors, J)
        return tensors

    return ExportedNetwork(run, description, torch.device("cpu"))


def _shapes(J: int) -> dict[str, tuple[int | None, ...]]:
    """The shapes of `OUTPUTS`, with None for what depends on the images or the flip test."""
    shapes = [(J, None, None), (J, None, None, None), (J, None), (J, None, 2), (J, None, None)]
    return {name: (None, *shape) for name, shape in zip(OUTPUTS, shapes, strict=True)}


def _matches(
    values: Sequence[Any], expected: dict[str, tuple[str, tuple[int | None, ...]]]
) -> bool:
    """Whether a graph's inputs or outputs have these names in this order, types and shapes."""
    return [value.name for value in values] == list(expected) and all(
        value.type == kind and _fits(value.shape, shape)
        for value, (kind, shape) in zip(values, expected.values(), strict=True)
    )


def _fits(shape: Sequence[Any], expected: Sequence[int | None]) -> bool:
    """Whether a shape can be the expected one; a text or None stands for an unknown size."""
    return len(shape) == len(expected) and all(
        wanted is None or not isinstance(size, int) or size == wanted
        for size, wanted in zip(shape, expected, strict=True)
    )


def _check_outputs(path: Path, images: Tensor, outputs: Sequence[Tensor], J: int) -> None:
    """Compares what a graph gave with what it promised; a file may promise anything."""
    heatmaps, tags, scores, _, peak_tags = outputs
    whole = all(
        _fits(tensor.shape, shape) and len(tensor) == len(images)
        for tensor, shape in zip(outputs, _shapes(J).values(), strict=True)
    )
    K, T = scores.shape[2:] + tags.shape[2:3] if whole else (0, 0)
    if not whole or not (
        K
        and T
        and all(peaks.shape[2] == K for peaks in outputs[2:])
        and peak_tags.shape[3] == T
        and heatmaps.shape[2:] == tags.shape[3:]
        and heatmaps[0].numel()
    ):
        shapes = ", ".join(str(list(tensor.shape)) for tensor in outputs)
        raise DhnError(f"{path}: another model: its outputs have the shapes {shapes}")


def _providers(device: str, available: list[str]) -> list[Any]:
    wanted = select_device(device)
    if wanted.type == "cuda" and "CUDAExecutionProvider" in available:
        options = {"device_id": wanted.index or 0, "use_tf32": 0}  # float32 is float32
        return [("CUDAExecutionProvider", options), "CPUExecutionProvider"]
    if device not in ("auto", "cpu"):
        raise SettingError(
            "device",
            device,
            "this onnxruntime computes on the CPU alone; pip install onnxruntime-gpu, or take cpu",
        )
    return ["CPUExecutionProvider"]


def _load_torch(path: Path, device: str) -> ExportedNetwork:
    where = select_device(device)
    if where.type == "mps":  # the graph ranks peaks in float64, which MPS lacks
        if device != "auto":
            raise SettingError("device", device, "exported graphs run on the CPU or CUDA")
        where = torch.device("cpu")
    try:
        with zipfile.ZipFile(path) as archive:
            inside = [name for name in archive.namelist() if name.endswith(f"/extra/{METADATA}")]
            text = archive.read(inside[0]).decode() if inside else None
    except Exception as error:  # zipfile, json and torch raise many kinds for a damaged file
        raise DhnError(f"{path}: not a torch.export file, or cut off; export it again") from error
    description = _description(path, text)
    try:
        program = torch.export.load(path)
        if where.type != "cpu":
            program = move_to_device_pass(program, where)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise DhnError(f"{path}: damaged, or of another PyTorch; export it again") from error
    return ExportedNetwork(program.module(), description, where)


def _description(path: Path, text: str | None) -> Description:
    if text is None:
        raise DhnError(f"{path}: another model, not written by `dhn export`")
    try:
        return Description.from_json(text)
    except (ValueError, RecursionError, DhnError) as error:
        raise DhnError(
            f"{path}: was not exported by this version of dhn; export it again"
        ) from error
