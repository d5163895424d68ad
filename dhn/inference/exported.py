"""Opens and runs exported networks; says what stands beside the graph in their files."""

import dataclasses
import io
import json
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
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

# What may stand in a .pt2 file (`_is_plain`).
_EXAMPLE = "data/sample_inputs/model.pt"
_MEMBER = re.compile(
    r"models/model\.json|extra/dhn\.json|data/sample_inputs/model\.pt"
    r"|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|archive_(format|version)|byteorder|\.data/(version|serialization_id)"
)
_PAYLOAD = re.compile(r"(weight|tensor)_\d+")
_OPERATOR = re.compile(
    r"torch\.ops\.aten\.([a-z]\w*|__and__|_assert_tensor_metadata)\.[A-Za-z]\w*"
    r"|_operator\.(add|sub|mul|floordiv|mod|neg|eq|ge|gt|le|lt)"
)
_SIZE = re.compile(
    r"(Add|Mul|Pow|Min|Max|Mod|FloorDiv|Integer|Symbol|'s\d+'|positive=True|integer=True"
    r"|[-\d(), ])*"
)
# By the key in models/model.json under which it stands.
_ALLOWED = {"target": _OPERATOR, "as_operator": _OPERATOR, "expr_str": _SIZE}


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
        """Reverses `to_json`; raises KeyError, TypeError or ValueError for any other text."""
        fields = json.loads(text)
        if fields.pop("format") != FORMAT:
            raise ValueError("another format")
        return cls(joints=JointSet.from_dict(fields.pop("joints")), **fields)


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


def load_exported(path: Path, device: str = "auto") -> ExportedNetwork:
    """Opens a file that `dhn export` wrote.

    Args:
        path: an .onnx or .pt2 file.
        device: `auto`, `cpu` or `cuda:N`. ONNX runs on CUDA where onnxruntime can.

    Raises:
        SettingError: there is no such device, or the file cannot run there.
        DhnError: there is no such file, it is damaged or another model, or onnxruntime is missing.
    """
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise DhnError(f"{path}: cannot be read ({error.strerror or error})") from error
    return _load_onnx(path, device) if path.suffix == ".onnx" else _load_torch(path, device)


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
    ours = [output.name for output in session.get_outputs()] == list(OUTPUTS)
    metadata = session.get_modelmeta().custom_metadata_map
    description = _description(path, metadata.get(METADATA) if ours else None)

    def run(images: Tensor) -> list[Tensor]:
        found = session.run(OUTPUTS, {INPUT: images.contiguous().numpy()})
        return [torch.from_numpy(array) for array in found]

    return ExportedNetwork(run, description, torch.device("cpu"))


def _providers(device: str, available: list[str]) -> list[Any]:
    wanted = select_device(device)
    if wanted.type == "cuda" and "CUDAExecutionProvider" in available:
        return [("CUDAExecutionProvider", {"device_id": wanted.index or 0}), "CPUExecutionProvider"]
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
            plain = _is_plain(archive) if inside else True
    except Exception as error:  # zipfile, json and torch raise many kinds for a damaged file
        raise DhnError(f"{path}: not a torch.export file, or cut off; export it again") from error
    description = _description(path, text)
    if not plain:
        raise DhnError(f"{path}: refused: it holds more than a network (code may hide in it)")
    try:
        program = torch.export.load(path)
        if where.type != "cpu":
            program = move_to_device_pass(program, where)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise DhnError(f"{path}: damaged, or of another PyTorch; export it again") from error
    return ExportedNetwork(program.module(), description, where)


def _is_plain(archive: zipfile.ZipFile) -> bool:
    """Whether a .pt2 file holds nothing that could run code while PyTorch opens it.

    PyTorch unpickles what a file tells it to, looks up operators by name in all of `torch`, and
    evaluates expressions for sizes as Python. All of these must look as in files that dhn wrote.
    """
    names = archive.namelist()
    root = names[0].partition("/")[0]
    inside = {name.removeprefix(f"{root}/") for name in names}
    if len(inside) < len(names) or not all(map(_MEMBER.fullmatch, inside)):
        return False
    try:
        torch.load(io.BytesIO(archive.read(f"{root}/{_EXAMPLE}")), weights_only=True)
    except pickle.UnpicklingError:
        return False
    for kind in ("weights", "constants"):
        config = json.loads(archive.read(f"{root}/data/{kind}/model_{kind}_config.json"))["config"]
        for payload in config.values():
            if payload["use_pickle"] or not _PAYLOAD.fullmatch(payload["path_name"]):
                return False
    graph = json.loads(archive.read(f"{root}/models/model.json"))
    for key, text in _strings(graph):
        if key in _ALLOWED and not _ALLOWED[key].fullmatch(text):
            return False
    return True


def _strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every string in a JSON value, with the key under which it stands."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, child in value.items():
            yield from _strings(child, name)
    elif isinstance(value, list):
        for child in value:
            yield from _strings(child, key)


def _description(path: Path, text: str | None) -> Description:
    if text is None:
        raise DhnError(f"{path}: another model, not written by `dhn export`")
    try:
        return Description.from_json(text)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DhnError(
            f"{path}: was not exported by this version of dhn; export it again"
        ) from error
