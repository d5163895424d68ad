"""From images to poses: the one inference path of predict, eval and validation in training."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from dhn.base.device import Precision, inference_dtype, select_device
from dhn.base.errors import DhnError
from dhn.base.progress import Progress, silent
from dhn.data.geometry import Affine, input_transform, official_transform
from dhn.data.joints import JointSet, official_order
from dhn.inference.accelerate import accelerated
from dhn.inference.aggregate import PoseInference
from dhn.inference.decode import DecodeConfig, decode_poses
from dhn.inference.exported import ExportedNetwork, is_exported, load_exported
from dhn.model import channels_last
from dhn.model.fold import folded
from dhn.weights.checkpoint import newest_checkpoint
from dhn.weights.download import fetch
from dhn.weights.load import open_file


class Prediction(NamedTuple):
    """The people of one image.

    Attributes:
        keypoints: float32 [P, J, 3]: x, y in image pixels and score; zeros where not found.
        scores: float32 [P], the mean joint score over all J.
    """

    keypoints: np.ndarray
    scores: np.ndarray


@dataclass
class Timing:
    """Where the time went, summed over images."""

    images: int = 0
    network_seconds: float = 0.0  # warp, network, flip test, aggregation
    decode_seconds: float = 0.0


class Predictor:
    """Finds the people of RGB images.

    Args:
        model: the network, which is left as it is: a copy of it runs, batch norms folded. An
            exported one runs as it is; device, flip test, fine_only and precision are its own.
        joints: what its heatmaps mean.
        device: where to compute.
        input_size: short side of the network input, in pixels, a multiple of 64.
        flip: average with the mirrored image, whose tags become a second tag dimension.
        fine_only: aggregate the fine maps alone (paper, Table 2 without "Aggregation").
        precision: what the network computes in; `auto` is bfloat16 where the hardware multiplies
            it, else float32. Its maps are aggregated and decoded in float32.
        compile: by torch.compile; see `accelerated`.
        decode: settings of `decode_poses`; a `joint_order` of None takes that of `joints`.
        parity: reproduce the official HigherHRNet code with its artefacts: how it places images
            (`official_transform`), in which order it groups CrowdPose's joints, which of equally
            good groupings it takes; in float32 unless `precision` is bfloat16.
        source: where the weights came from, for messages.
    """

    def __init__(
        self,
        model: nn.Module | ExportedNetwork,
        joints: JointSet,
        *,
        device: torch.device | None = None,
        input_size: int = 512,
        flip: bool = False,
        fine_only: bool = False,
        precision: Precision = "auto",
        compile: bool = False,
        decode: DecodeConfig | None = None,
        parity: bool = False,
        source: str = "network",
    ) -> None:
        self.inference: PoseInference | ExportedNetwork
        if isinstance(model, ExportedNetwork):
            self.device = model.device
            self.inference = model
        else:
            self.device = device or torch.device("cpu")
            if parity and precision == "auto":
                precision = "float32"
            dtype = inference_dtype(precision, self.device)
            network = channels_last(folded(model).to(self.device, dtype))
            self.inference = PoseInference(
                network, joints.flip if flip else None, fine_only=fine_only, dtype=dtype
            )
        self.compile = compile
        self.joints = joints
        self.input_size = input_size
        decode = decode or DecodeConfig()
        if decode.joint_order is None:
            order = official_order(joints) if parity else joints.grouping_order
            decode = replace(decode, joint_order=order)
        self.decode = replace(decode, munkres=True) if parity else decode
        self.parity = parity
        self.source = source
        self.timing = Timing()

    def __call__(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        """Predicts RGB uint8 [H, W, 3] images; those of like shape go as one batch.

        Raises:
            DhnError: the network gave maps that are not finite.
        """
        placed = [self._place((p.shape[1], p.shape[0])) for p in images]
        groups = defaultdict(list)  # network input's (W, H) -> indices of images
        for index, (_, _, size) in enumerate(placed):
            groups[size].append(index)
        predictions: dict[int, Prediction] = {}
        for size, members in groups.items():
            sampling, back, _ = zip(*(placed[index] for index in members), strict=True)
            batch = self._predict([images[index] for index in members], sampling, back, size)
            predictions.update(zip(members, batch, strict=True))
        return [predictions[index] for index in range(len(images))]

    def _place(self, size: tuple[int, int]) -> tuple[Affine, Affine, tuple[int, int]]:
        """From an image to the network's input, back from there, and the input's (W, H)."""
        if self.parity:
            return official_transform(size, self.input_size)
        affine, input_size = input_transform(size, self.input_size)
        return affine, affine.inverse(), input_size

    def _predict(
        self,
        images: Sequence[np.ndarray],
        sampling: Sequence[Affine],
        back: Sequence[Affine],
        size: tuple[int, int],
    ) -> list[Prediction]:
        started = time.perf_counter()
        warped = [
            cv2.warpAffine(image, affine.cv2_matrix(), size, flags=cv2.INTER_LINEAR)
            for image, affine in zip(images, sampling, strict=True)
        ]
        batch = torch.from_numpy(np.stack(warped)).permute(0, 3, 1, 2).to(self.device)
        heatmaps, tags, *peaks = self.maps(batch)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        inferred = time.perf_counter()
        people = decode_poses(heatmaps, tags, (size[1], size[0]), self.decode, *peaks)
        predictions = []
        for poses, affine in zip(people, back, strict=True):
            keypoints = poses.keypoints.cpu().numpy()
            found = keypoints[..., 2] > 0
            keypoints[found, :2] = affine.apply(keypoints[found, :2])
            predictions.append(Prediction(keypoints, poses.scores.cpu().numpy()))
        self.timing.images += len(images)
        self.timing.network_seconds += inferred - started
        self.timing.decode_seconds += time.perf_counter() - inferred
        return predictions

    @torch.inference_mode()
    def maps(self, images: Tensor) -> tuple[Any, ...]:
        """Heatmaps and tags of uint8 [B, 3, H, W] images, and peaks if the network finds them.

        See `PoseInference` and `ExportedNetwork`.
        """
        return self._run(images)

    @cached_property
    def _run(self) -> Callable[[Tensor], tuple[Any, ...]]:
        """`inference` in its fastest form, made when the first image comes."""
        if isinstance(self.inference, ExportedNetwork):
            return self.inference
        return accelerated(self.inference, self.device, compile=self.compile)


def load_predictor(
    checkpoint: str | None = None,
    *,
    device: str = "auto",
    flip: bool = False,
    input_size: int | None = None,
    fine_only: bool = False,
    precision: Precision = "auto",
    compile: bool = False,
    refine: bool = True,
    subpixel: bool = False,
    max_people: int = 30,
    parity: bool = False,
    offline: bool = False,
    progress: Progress = silent,
) -> Predictor:
    """A predictor from a checkpoint.

    Args:
        checkpoint: what `dhn.weights.load.open_network` takes: a path, a published name or an
            address; or a file that `dhn export` wrote. None takes the newest run's best, else
            its last.
        device: `auto`, `cpu`, `cuda:N` or `mps`.
        input_size: short side of the network input; None takes that of the training.
        flip, fine_only, precision, compile, parity: see `Predictor`.
        refine, subpixel, max_people: see `DecodeConfig`.
        offline, progress: see `dhn.weights.download.fetch`.

    Raises:
        DhnError: no checkpoint, one that cannot be used, no such device, or settings that an
            exported network does not have.
    """
    decode = DecodeConfig(max_people=max_people, refine=refine, subpixel=subpixel)
    path = newest_checkpoint() if checkpoint is None else checkpoint
    path = fetch(path, offline=offline, progress=progress)
    if is_exported(path):
        exported = load_exported(path, device)
        about = exported.description
        _refuse(path, flip and not about.flip, "--flip")
        _refuse(path, fine_only and not about.fine_only, "--fine-only")
        _refuse(path, precision == "bfloat16", "--precision bfloat16")
        _refuse(path, compile, "--compile")
        return Predictor(
            exported,
            about.joints,
            input_size=input_size or about.input_size,
            decode=decode,
            parity=parity,
            source=str(path),
        )
    network = open_file(path)
    return Predictor(
        network.model,
        network.joints,
        device=select_device(device),
        input_size=input_size or network.input_size or 512,
        flip=flip,
        fine_only=fine_only,
        precision=precision,
        compile=compile,
        decode=decode,
        parity=parity,
        source=network.source,
    )


def _refuse(path: Path, wanted: bool, option: str) -> None:
    if wanted:
        raise DhnError(
            f"{path}: {option}: the graph was exported without it and cannot change; "
            "leave it out, or give the checkpoint"
        )
